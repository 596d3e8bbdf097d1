"""A store whose folder is not there: an outage, never an empty store, and never a new one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import TransientError
from orchestrator.runtime.register import Register
from orchestrator.runtime.root import MARK
from orchestrator.runtime.store import DirectoryStore, MissingKeyError, UnknownOutcomeError
from orchestrator.runtime.vault import open_vault
from tests.runtime.schedules import exchange
from tests.runtime.vaults import Story

VERBS: dict[str, Callable[[DirectoryStore], Any]] = {
    "put_exclusive": lambda store: store.put_exclusive("commits/2", b"x"),
    "put_part": lambda store: store.put_part("parts/b/model.0", b"x"),
    "get_range": lambda store: store.get_range("commits/1"),
    "get_range of what never was": lambda store: store.get_range("commits/9"),
    "list": lambda store: [*store.list("commits/")],
    "stat": lambda store: store.stat("commits/1"),
    "stat of what never was": lambda store: store.stat("commits/9"),
    "delete": lambda store: store.delete("commits/1"),
}


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    made = DirectoryStore(tmp_path / "mount" / "vault")
    assert made.put_exclusive("commits/1", b"acknowledged")
    return made


def gone(root: Path) -> None:
    root.rename(root.with_name("away"))


def gone_with_its_parent(root: Path) -> None:
    root.parent.rename(root.parent.with_name("unmounted"))


def a_file(root: Path) -> None:
    root.with_name("away").touch()
    exchange(root, root.with_name("away"))


def bare(root: Path) -> None:
    gone(root)
    root.mkdir()


def another_store(root: Path) -> None:
    gone(root)
    DirectoryStore(root).put_exclusive("commits/1", b"another run")


LOSSES = [gone, gone_with_its_parent, a_file, bare, another_store]


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_answers_while_the_folder_is_away(
    verb: str, lose: Callable[[Path], None], store: DirectoryStore, tmp_path: Path
) -> None:
    lose(tmp_path / "mount" / "vault")
    before = files(tmp_path)
    with pytest.raises(TransientError, match="does not answer") as failure:
        VERBS[verb](store)
    assert not isinstance(failure.value, UnknownOutcomeError)
    assert str(tmp_path) in str(failure.value)
    assert files(tmp_path) == before  # nothing was made, nothing was taken away


@pytest.mark.parametrize("lose", [gone, gone_with_its_parent, a_file, bare])
@pytest.mark.parametrize("verb", VERBS)
def test_nor_for_somebody_who_comes_while_it_is_away(
    verb: str, lose: Callable[[Path], None], store: DirectoryStore, tmp_path: Path
) -> None:
    root = tmp_path / "mount" / "vault"
    lose(root)
    before = files(tmp_path)
    newcomer = DirectoryStore(root)
    newcomer.must_exist()
    with pytest.raises(TransientError, match="does not answer"):
        VERBS[verb](newcomer)
    assert files(tmp_path) == before


def test_it_goes_on_when_the_folder_is_back(store: DirectoryStore, tmp_path: Path) -> None:
    root, away = tmp_path / "mount" / "vault", tmp_path / "mount" / "away"
    a_file(root)
    with pytest.raises(TransientError):
        store.put_exclusive("commits/2", b"x")
    exchange(root, away)
    assert store.put_exclusive("commits/2", b"x")
    assert store.get_range("commits/1") == b"acknowledged"


def test_the_same_file_system_mounted_again_is_the_same_store(
    store: DirectoryStore, tmp_path: Path
) -> None:
    """Then device and inode may be others; a copy stands for it."""
    root = tmp_path / "mount" / "vault"
    gone(root)
    shutil.copytree(root.with_name("away"), root)
    assert store.get_range("commits/1") == b"acknowledged"
    assert store.put_exclusive("commits/2", b"x")


def test_a_new_store_is_made_and_marked(tmp_path: Path) -> None:
    root = tmp_path / "new" / "vault"
    store, other = DirectoryStore(root), DirectoryStore(root)
    assert store.stat("commits/1") is None
    assert [*store.list("")] == []
    with pytest.raises(MissingKeyError):
        store.get_range("commits/1")
    assert not root.exists()  # reading makes nothing
    assert store.put_exclusive("commits/1", b"x")
    mark = (root / MARK).read_bytes()
    assert len(mark) == 33
    assert not other.put_exclusive("commits/1", b"y")
    assert (root / MARK).read_bytes() == mark
    assert [*store.list("")] == ["commits/1"]


def test_a_store_of_before_the_mark_is_known_by_what_lies_in_it(tmp_path: Path) -> None:
    DirectoryStore(tmp_path).put_exclusive("commits/1", b"x")
    (tmp_path / MARK).unlink()
    store = DirectoryStore(tmp_path)
    store.must_exist()
    assert store.get_range("commits/1") == b"x"
    assert store.put_exclusive("commits/2", b"x")
    assert (tmp_path / MARK).exists()


def test_a_write_that_ends_in_another_folder_is_not_acknowledged(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder goes away between the write and its answer."""
    root = tmp_path / "mount" / "vault"
    real = DirectoryStore._write_temporary

    def slow(self: DirectoryStore, path: Path, data: bytes) -> Path:
        temporary = real(self, path, data)
        bare(root)
        (root / "commits").mkdir()
        temporary = root / "commits" / temporary.name
        temporary.write_bytes(data)
        return temporary

    monkeypatch.setattr(DirectoryStore, "_write_temporary", slow)
    with pytest.raises(UnknownOutcomeError, match="went away"):
        store.put_exclusive("commits/2", b"x")


def test_a_register_that_is_gone_is_not_an_empty_one(tmp_path: Path) -> None:
    story = Story(DirectoryStore(tmp_path / "vault"))
    story.fence()
    gone(tmp_path / "vault")
    for register in (story.register, open_vault(str(tmp_path / "vault"), begun=True).register):
        with pytest.raises(TransientError):
            register.read()
    assert Register(DirectoryStore(tmp_path / "vault")).read().next_seq == 1  # of a new run


def test_a_vault_that_is_gone_holds_no_damaged_checkpoints(tmp_path: Path) -> None:
    """Or a rank would step down the whole ladder and begin anew."""
    story = Story(DirectoryStore(tmp_path / "bulk"))
    story.fence()
    commit = story.commit(step=1)
    gone(tmp_path / "bulk")
    vault = open_vault(str(tmp_path / "bulk"))
    for ask in (vault.manifest, vault.verify, vault.open):
        with pytest.raises(TransientError):
            ask(commit)
