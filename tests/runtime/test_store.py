"""The directory store where a folder is special: kills, full disks, lost answers, leftovers."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.errors import PermanentError, TransientError, UserError
from orchestrator.runtime import store as module
from orchestrator.runtime.root import MARK
from orchestrator.runtime.store import (
    LEFTOVER_AGE_S,
    DirectoryStore,
    UnknownOutcomeError,
    open_store,
)

# Kills a writer at its first, second, third... line of our code until one survives; after each
# kill the next writer must find all or nothing, and must be able to go on.
CRASHES = """
import os, signal, sys
from orchestrator.runtime.store import DirectoryStore

def trace(limit):
    left = [limit]
    def local(frame, event, arg):
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return local
    return lambda frame, event, arg: local if "runtime/store" in frame.f_code.co_filename else None

verb, root = sys.argv[1:]
data, kills = b"x" * 3000, 0
for point in range(1, 10_000):
    key = f"commits/{point}.json"
    child = os.fork()
    if child == 0:
        sys.settrace(trace(point))
        getattr(DirectoryStore(f"{root}/{point}"), verb)(key, data)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    store = DirectoryStore(f"{root}/{point}")
    found = store.stat(key)
    if status == 0:
        assert store.get_range(key) == data
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    kills += 1
    assert found is None or store.get_range(key) == data, point
    assert list(store.list("commits/")) == ([] if found is None else [key]), point
    if verb == "put_exclusive":
        assert store.put_exclusive(key, b"other") == (found is None)
print(kills)
"""


def run(script: str, *arguments: object) -> str:
    argv = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("verb", ["put_exclusive", "put_part"])
def test_a_writer_killed_at_any_line_leaves_all_or_nothing(verb: str, tmp_path: Path) -> None:
    assert int(run(CRASHES, verb, tmp_path)) > 30


def test_a_full_disk_leaves_nothing_and_names_the_place(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        for put in (store.put_exclusive, store.put_part):
            with pytest.raises(TransientError, match=str(tmp_path)) as failure:
                put("parts/a/model.0", b"x" * 100_000)
            assert not isinstance(failure.value, UnknownOutcomeError)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [*store.list("")] == []
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [MARK]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TransientError, match="file"):
        DirectoryStore(tmp_path / "file").put_part("parts/a", b"x")


def test_leftovers_are_invisible_and_swept_by_age(tmp_path: Path) -> None:
    folder = tmp_path / "commits"
    folder.mkdir()
    old, young = folder / ".tmp-1-dead", folder / ".tmp-2-alive"
    for leftover in (old, young):
        leftover.write_bytes(b"half a rec")
    os.utime(old, (1000.0, 1000.0))
    os.utime(young, (2000.0, 2000.0))
    store = DirectoryStore(tmp_path, clock=lambda: 1001.0 + LEFTOVER_AGE_S)
    assert [*store.list("commits/")] == []
    assert store.put_exclusive("commits/1.json", b"x")
    assert not old.exists()
    assert young.exists()


def test_an_error_after_the_link_was_made_counts_as_made(tmp_path: Path) -> None:
    """NFS: link(2) is executed, its answer lost, and the retry says that the name exists."""
    temporary, name = tmp_path / ".tmp-1", tmp_path / "1.json"
    temporary.write_bytes(b"mine")
    os.link(temporary, name)
    assert module._link(temporary, name)


def test_a_name_of_somebody_else_is_not_mine(tmp_path: Path) -> None:
    temporary, name = tmp_path / ".tmp-1", tmp_path / "1.json"
    temporary.write_bytes(b"mine")
    name.write_bytes(b"yours")
    assert not module._link(temporary, name)


def test_a_temporary_file_swept_under_a_sleeping_writer_fails_cleanly(tmp_path: Path) -> None:
    with pytest.raises(TransientError) as failure:
        module._link(tmp_path / ".tmp-gone", tmp_path / "1.json")
    assert not isinstance(failure.value, UnknownOutcomeError)


def test_a_file_system_without_hard_links_is_refused_for_good() -> None:
    """procfs stands for one: link(2) into it is not permitted whoever asks."""
    source = Path("/proc/self/stat")
    with pytest.raises((PermanentError, TransientError)):
        module._link(source, Path("/proc/self/new"))


def test_a_store_is_opened_by_path_or_file_url(tmp_path: Path) -> None:
    for url in (str(tmp_path), f"file://{tmp_path}", f"file://localhost{tmp_path}"):
        assert open_store(url).place == str(tmp_path)
    spaced = tmp_path / "a b"
    assert open_store(spaced.as_uri()).place == str(spaced)


@pytest.mark.parametrize("url", ["ftp://bucket/x", "file://elsewhere/x", "file://", "", "file:///"])
def test_a_url_that_no_store_knows_is_the_callers_mistake(url: str) -> None:
    with pytest.raises(UserError, match="no store for"):
        open_store(url)
