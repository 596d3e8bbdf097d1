"""A second vault: whatever one lost or damaged, the newest step that any has whole is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import TransientError
from orchestrator.runtime.lineage import Commit
from orchestrator.runtime.place import Place
from orchestrator.runtime.rankplan import RankPlan, environment
from orchestrator.runtime.register import Register
from orchestrator.runtime.spec import AgentSpec
from orchestrator.runtime.surroundings import read
from orchestrator.runtime.training import join
from orchestrator.runtime.vault import Checkpoint, Vault, VerificationError, open_vault
from tests.runtime.stores import MemoryStore
from tests.runtime.vaults import Story


class Away(MemoryStore):
    """A store that does not answer."""

    place = "away"

    def get_range(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        raise TransientError(f"away: {key}: does not answer")

    def stat(self, key: str) -> None:
        raise TransientError(f"away: {key}: does not answer")


class Two:
    """A run whose vault was copied to a second store; the register lies apart from both."""

    def __init__(self) -> None:
        self.records, self.first, self.second = MemoryStore(), MemoryStore(), MemoryStore()
        story = Story(self.first)
        story.register = Register(self.records)
        story.vault = Vault(self.first, story.register)
        story.fence()
        story.generation()
        self.older, self.newest = story.commit(5, b"older"), story.commit(9, b"newest")
        for key, data in self.first.objects.items():
            self.second.put_part(key, data)

    def vault(self, *stores: MemoryStore) -> Vault:
        return Vault(stores[0], Register(self.records), stores[1:])

    def key(self, commit: Commit, kind: str) -> str:
        part = self.vault(self.second).manifest(commit).part(kind)
        assert part is not None
        return part.key


def load(vault: Vault, commit: Commit) -> dict[str, bytes]:
    checkpoint: Checkpoint = vault.open(commit)
    return {part.kind: checkpoint.read(part) for part in checkpoint.manifest.parts}


WHOLE = {"model": b"newest" * 10, "optimizer": b"moments of newest"}


def flip(store: MemoryStore, key: str) -> None:
    data = bytearray(store.objects[key])
    data[len(data) // 2] ^= 1
    store.objects[key] = bytes(data)


def each_has_one(two: Two) -> None:
    flip(two.first, two.key(two.newest, "model"))
    flip(two.second, two.key(two.newest, "optimizer"))


def damages() -> dict[str, Callable[[Two], None]]:
    """Everything that may be wrong with the first store while the second has the step."""
    return {
        "nothing": lambda two: None,
        "manifest missing": lambda two: two.first.delete(two.newest.manifest),
        "manifest flipped": lambda two: flip(two.first, two.newest.manifest),
        "part missing": lambda two: two.first.delete(two.key(two.newest, "model")),
        "part flipped": lambda two: flip(two.first, two.key(two.newest, "optimizer")),
        "part cut": lambda two: two.first.put_part(two.key(two.newest, "model"), b"new"),
        "empty": lambda two: two.first.objects.clear(),
        "each has one part": each_has_one,
    }


@pytest.mark.parametrize("what", sorted(damages()))
def test_the_newest_step_is_read_from_whichever_store_has_it_whole(what: str) -> None:
    two = Two()
    damages()[what](two)
    assert load(two.vault(two.first, two.second), two.newest) == WHOLE
    if what != "nothing":
        with pytest.raises(VerificationError):
            load(two.vault(two.first), two.newest)


def test_a_first_store_that_does_not_answer_is_not_waited_for() -> None:
    two = Two()
    assert load(two.vault(Away(), two.second), two.newest) == WHOLE
    assert load(two.vault(two.first, Away()), two.newest) == WHOLE


def test_what_no_store_has_whole_is_damaged_and_each_place_is_named() -> None:
    two = Two()
    for store in (two.first, two.second):
        flip(store, two.key(two.newest, "model"))
    with pytest.raises(VerificationError, match="other bytes") as refused:
        load(two.vault(two.first, two.second), two.newest)
    assert len(refused.value.problems) == 2
    assert load(two.vault(two.first, two.second), two.older)["model"] == b"older" * 10


def test_a_store_that_is_away_says_nothing_about_damage() -> None:
    """Or a gang would step down because a mount is slow."""
    two = Two()
    flip(two.second, two.key(two.newest, "model"))
    with pytest.raises(TransientError):
        load(two.vault(Away(), two.second), two.newest)
    two.first.delete(two.newest.manifest)
    with pytest.raises(VerificationError, match="away"):  # the vault itself answers: damaged
        load(two.vault(two.first, Away()), two.newest)


def test_a_replica_cannot_make_anything_count_or_smuggle_other_bytes() -> None:
    two = Two()
    two.second.put_part(two.newest.manifest, two.second.objects[two.older.manifest])
    two.second.put_part(two.key(two.older, "model"), b"0" * 50)
    two.first.delete(two.newest.manifest)
    with pytest.raises(VerificationError, match="other bytes than were committed"):
        load(two.vault(two.first, two.second), two.newest)
    assert load(two.vault(two.first, two.second), two.older)["model"] == b"older" * 10


def test_retention_and_verify_look_at_the_vault_alone() -> None:
    two = Two()
    flip(two.first, two.key(two.newest, "model"))
    assert not two.vault(two.first, two.second).verify(two.newest).ok


def test_ranks_are_told_of_replicas_and_read_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = (str(tmp_path / "second"), "s3://bucket/prefix?region=x")
    spec = AgentSpec("n", "j", 1, 1, "00" * 16, ("python", "t.py"), "/", replicas=urls)
    plan = RankPlan(1, 1, (), 0, 1, 1, "h", 1, True, None, 0)
    env = environment(spec, Place(tmp_path, "j.1"), plan, {})
    assert read(env).replicas == urls
    assert read({}).replicas == ()
    monkeypatch.setenv("HOLDFAST_REPLICAS", urls[0])
    run = join(str(tmp_path / "first"))
    assert run.vault is not None
    assert [store.place for store in run.vault.replicas] == [
        store.place for store in (open_vault(urls[0]).store,)
    ]


def test_a_real_folder_that_lost_a_part_is_made_good_by_another(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run = join(str(tmp_path / "first"))
    facts: dict[str, Any] = {"learning_rate": 0.1, "tokens": 1, "cursor": 1, "config": 1, "rng": 1}
    for step in (1, 2):
        run.save(step, {"model": {"step": step}}, **facts)
        run.leave()
    for path in (tmp_path / "first").rglob("*"):
        target = tmp_path / "second" / path.relative_to(tmp_path / "first")
        if path.is_file() and "commits" not in path.parts:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    for path in (tmp_path / "first" / "parts").rglob("model*"):
        path.write_bytes(b"\0" * path.stat().st_size)
    run.vault = open_vault(str(tmp_path / "first"), replicas=[str(tmp_path / "second")])
    loaded = run.resume()
    assert loaded is not None
    assert (loaded.step, loaded.state) == (2, {"model": {"step": 2}})
