"""The vault: whole, verified and visible, or not there at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import PermanentError, TransientError, UserError
from orchestrator.runtime import manifests, vault
from orchestrator.runtime.lineage import Commit
from orchestrator.runtime.manifests import (
    Attestation,
    AttestationError,
    BadManifestError,
    digest_of,
    plain,
)
from orchestrator.runtime.register import key_of
from orchestrator.runtime.store import open_store
from orchestrator.runtime.vault import FencedError, VerificationError
from tests.runtime.stores import FailingStore, MemoryStore
from tests.runtime.vaults import FACTS, Story


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def story(store: MemoryStore) -> Story:
    story = Story(store)
    story.fence()
    story.generation()
    return story


def part_keys(store: MemoryStore, commit: Commit) -> list[str]:
    return [*store.list(f"parts/{manifests.save_of(commit.manifest)}/")]


def read_all(story: Story, commit: Commit) -> None:
    checkpoint = story.vault.open(commit)
    for part in checkpoint.manifest.parts:
        checkpoint.read(part)


def test_a_commit_is_read_back_as_it_was_written(story: Story) -> None:
    commit = story.commit(step=7)
    checkpoint = story.vault.open(commit)
    assert {p.kind: checkpoint.read(p) for p in checkpoint.manifest.parts} == {
        "model": b"weights" * 10,
        "optimizer": b"moments of weights",
    }
    assert story.vault.verify(commit).ok
    assert story.register.read().head == commit


def test_parts_without_a_commit_are_not_visible(story: Story) -> None:
    story.put(step=7)
    assert story.register.read().head is None


def test_the_digest_of_a_commit_is_that_of_the_manifest_file(
    story: Story, store: MemoryStore
) -> None:
    commit = story.commit(step=1)
    assert manifests.sha256(store.objects[commit.manifest]) == commit.digest


def test_two_saves_of_one_step_share_no_part(story: Story, store: MemoryStore) -> None:
    one, other = story.commit(step=3), story.commit(step=3)
    assert not set(part_keys(store, one)) & set(part_keys(store, other))


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_flipped_bit_of_any_part_is_found(position: int, bit: int) -> None:
    store = MemoryStore()
    story = Story(store)
    story.fence()
    commit = story.commit(step=1)
    keys = [*part_keys(store, commit), commit.manifest]
    key = keys[position % len(keys)]
    data = bytearray(store.objects[key])
    data[position % len(data)] ^= 1 << bit
    store.objects[key] = bytes(data)
    assert not story.vault.verify(commit).ok
    with pytest.raises(VerificationError):
        read_all(story, commit)


def test_a_truncated_part_is_found_without_reading_it(story: Story, store: MemoryStore) -> None:
    commit = story.commit(step=1)
    key = part_keys(store, commit)[0]
    store.objects[key] = store.objects[key][:-1]
    with pytest.raises(VerificationError, match="69 bytes instead of 70"):
        story.vault.open(commit)


def test_a_missing_part_is_found(story: Story, store: MemoryStore) -> None:
    commit = story.commit(step=1)
    del store.objects[part_keys(store, commit)[1]]
    assert story.vault.verify(commit).problems == (
        f"part parts/{manifests.save_of(commit.manifest)}/optimizer.00000 is missing",
    )


def test_swapped_parts_are_found(story: Story, store: MemoryStore) -> None:
    old, new = story.commit(step=1, data=b"older!!"), story.commit(step=2, data=b"newer!!")
    for a, b in zip(part_keys(store, old), part_keys(store, new), strict=True):
        store.objects[a], store.objects[b] = store.objects[b], store.objects[a]
    assert not story.vault.verify(old).ok
    assert not story.vault.verify(new).ok


def test_a_stale_manifest_in_the_place_of_another_is_refused(
    story: Story, store: MemoryStore
) -> None:
    old, new = story.commit(step=1), story.commit(step=2)
    store.objects[new.manifest] = store.objects[old.manifest]
    with pytest.raises(VerificationError, match="other bytes than were committed"):
        story.vault.open(new)


def test_a_commit_record_that_names_another_checkpoints_manifest_is_refused(story: Story) -> None:
    old, new = story.commit(step=1), story.commit(step=2)
    forged = replace(new, manifest=old.manifest, digest=old.digest)
    with pytest.raises(VerificationError, match="step: the commit says 2, the manifest 1"):
        story.vault.open(forged)


def test_a_part_of_another_run_is_refused(story: Story, store: MemoryStore) -> None:
    other_store = MemoryStore()
    other = Story(other_store)
    other.fence()
    theirs, mine = other.commit(step=1, data=b"foreign"), story.commit(step=1)
    store.objects[part_keys(store, mine)[0]] = other_store.objects[
        part_keys(other_store, theirs)[0]
    ]
    assert not story.vault.verify(mine).ok


HOSTILE = {
    "up": {"key": "parts/../../etc/passwd"},
    "absolute": {"key": "/etc/passwd"},
    "other save": {"key": "parts/0001-00000001-00000001-00000000ffff/model.00000"},
    "register": {"key": "commits/00000001.json"},
    "negative": {"bytes": -1},
    "boolean": {"bytes": True},
    "no hash": {"sha256": "?"},
    "kind": {"kind": "../model"},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_manifest_is_refused(story: Story, change: dict[str, object]) -> None:
    body = json.loads(manifests.encode(story.put(step=1)))
    body["parts"][0].update(change)
    with pytest.raises(BadManifestError):
        manifests.decode(json.dumps(body).encode())


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"version": 2}', b"\xff", b"[" * 100_000])
def test_bytes_that_are_no_manifest_are_refused(data: bytes) -> None:
    with pytest.raises(BadManifestError):
        manifests.decode(data)


def test_a_manifest_survives_its_wire_form(story: Story) -> None:
    manifest = story.put(step=4)
    assert manifests.decode(manifests.encode(manifest)) == manifest


def test_falling_back_goes_along_parents_and_never_by_number(
    story: Story, store: MemoryStore
) -> None:
    good = story.commit(step=1)
    branch = story.commit(step=2)
    story.generation(resume=good.seq)
    newest = story.commit(step=2)
    assert newest.parent == good.seq
    assert newest.seq > branch.seq > good.seq
    store.objects[part_keys(store, newest)[0]] = b"damaged"
    assert story.vault.fall_back(story.register.read(), newest) == good


def test_nothing_is_left_when_no_parent_verifies(story: Story, store: MemoryStore) -> None:
    commit = story.commit(step=1)
    store.objects[part_keys(store, commit)[0]] = b"damaged"
    assert story.vault.fall_back(story.register.read(), commit) is None


def test_a_writer_that_wakes_up_after_a_fence_stops_for_good(story: Story) -> None:
    """Pitfall 9: two writers (torchft, torchtitan #4212)."""
    asleep, manifest = story.writer(), story.put(step=5)
    story.fence()
    for _ in range(2):
        with pytest.raises(FencedError):
            asleep.commit(manifest)
    assert story.register.read().commits == ()


def test_a_writer_that_is_fenced_between_reading_and_writing_stops(store: MemoryStore) -> None:
    story = Story(store)
    story.fence()
    writer, manifest = story.writer(), story.put(step=5)

    class Late(MemoryStore):
        """Lets another attempt begin just before the record is created."""

        def put_exclusive(self, key: str, data: object) -> bool:
            if key.startswith("commits/") and not self.times:
                self.times["late"] = 0.0
                Story(store).fence()
            return store.put_exclusive(key, data)  # type: ignore[arg-type]

    late = Late()
    late.objects = store.objects
    story.register._store = late
    with pytest.raises(FencedError):
        writer.commit(manifest)
    assert Story(store).register.read().commits == ()


def test_the_writer_of_an_older_generation_is_fenced_too(story: Story) -> None:
    old, manifest = story.writer(), story.put(step=5)
    story.generation()
    with pytest.raises(FencedError, match="rules, not"):
        old.commit(manifest)
    assert story.commit(step=5).step == 5


@pytest.mark.parametrize("writes", range(4))
def test_a_disk_that_is_full_at_any_write_makes_nothing_visible(writes: int) -> None:
    inner = MemoryStore()
    quiet = Story(inner)
    quiet.fence()
    story = Story(FailingStore(inner, *["ok"] * writes, "full"))
    with pytest.raises(TransientError, match="No space left"):
        story.commit(step=1)
    assert quiet.register.read().commits == ()
    assert story.commit(step=2).step == 2


def test_a_part_that_vanished_before_the_commit_is_not_committed(
    story: Story, store: MemoryStore
) -> None:
    manifest = story.put(step=1)
    del store.objects[manifest.parts[0].key]
    with pytest.raises(PermanentError, match="not there whole"):
        story.writer().commit(manifest)
    assert story.register.read().commits == ()


def test_rows_tell_what_counts_what_is_pruned_and_what_is_damaged(tmp_path: Path) -> None:
    story = Story(open_store(str(tmp_path)))
    story.fence()
    pruned, damaged = story.commit(step=1), story.commit(step=2)
    stale = story.put(step=3)
    under = story.register.read().ruler
    story.generation(resume=damaged.seq)
    fine = story.commit(step=4)
    record = replace(fine, seq=fine.seq + 1, nonce="x", under=under or 0, step=3)
    data = manifests.encode(stale)
    story.register.append(
        lambda _: replace(record, manifest=stale.key, digest=manifests.sha256(data)),
        story.register.read(),
    )
    (tmp_path / pruned.manifest).unlink()
    (tmp_path / damaged.manifest).write_text("?")
    rows = vault.list_commits(str(tmp_path))
    assert [(row.step, row.state, row.counts, row.attempt) for row in rows] == [
        (1, "pruned", True, 1),
        (2, "damaged", True, 1),
        (4, "present", True, 1),
        (3, "pruned", False, 1),
    ]
    assert "rules" in rows[-1].reason
    reports = vault.verify(str(tmp_path))
    assert [(report.step, report.ok) for report in reports] == [(2, False), (4, True)]
    assert vault.verify(str(tmp_path), fine.seq)[0].bytes == fine_bytes(story, fine)


def fine_bytes(story: Story, commit: Commit) -> int:
    return story.vault.manifest(commit).size_bytes


def test_asking_for_what_is_not_there_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no commit register"):
        vault.list_commits(str(tmp_path / "nowhere"))
    story = Story(open_store(str(tmp_path)))
    story.fence()
    with pytest.raises(UserError, match="no counted commit 99"):
        vault.verify(str(tmp_path), 99)


def test_the_register_may_lie_in_another_place(tmp_path: Path) -> None:
    there = vault.open_vault(str(tmp_path / "bulk"), str(tmp_path / "register"))
    story = Story(open_store(str(tmp_path / "bulk")))
    story.register = there.register
    story.vault = there
    story.fence()
    commit = story.commit(step=1)
    assert (tmp_path / "register" / key_of(commit.seq)).is_file()
    assert not (tmp_path / "bulk" / "commits").exists()
    assert vault.verify(str(tmp_path / "bulk"), register=str(tmp_path / "register"))[0].ok


def test_attestation_names_each_field_that_differs() -> None:
    """Pitfall 8: wrong learning rate or data position after a heal (torchtitan #4598)."""
    live = replace(FACTS, learning_rate=0.2, cursor=5)
    with pytest.raises(AttestationError) as failure:
        FACTS.compare(live)
    assert "learning_rate: expected 0.1, found 0.2" in str(failure.value)
    assert "cursor: expected 0, found 5" in str(failure.value)
    assert "tokens" not in str(failure.value)
    FACTS.compare(replace(FACTS, learning_rate=0.1 + 1e-15))


def test_attested_values_are_plain_and_hashed_the_same_each_time() -> None:
    facts = {"step": 1, "learning_rate": 1, "tokens": 2, "rng": b"r", "config": {"b": 1, "a": (2,)}}
    one = Attestation.of({**facts, "cursor": ("shard", 3)})
    again = Attestation.of({**facts, "config": {"a": [2], "b": 1}, "cursor": ["shard", 3]})
    assert one == again
    assert one.cursor == ["shard", 3]
    assert digest_of({"a": 1}) != digest_of({"a": 2})
    with pytest.raises(TypeError, match="cannot attest"):
        plain(object())


# Kills a process at every 17th line of ours while it writes and commits its third checkpoint.
CRASHES = """
import os, signal, sys
from orchestrator.runtime.store import DirectoryStore
from tests.runtime.vaults import Story

def trace(limit):
    left = [limit]
    def local(frame, event, arg):
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return local
    ours = ("runtime/store", "runtime/register", "runtime/vault.py")
    return lambda frame, *_: local if any(o in frame.f_code.co_filename for o in ours) else None

root, kills, visible = sys.argv[1], 0, 0
for point in range(1, 20_000, 17):
    story = Story(DirectoryStore(f"{root}/{point}"))
    story.fence()
    story.commit(1)
    child = os.fork()
    if child == 0:
        sys.settrace(trace(point))
        story.commit(2)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    commits = story.register.read().commits
    assert all(story.vault.verify(commit).ok for commit in commits), point
    if status == 0:
        assert commits[-1].step == 2
        break
    kills, visible = kills + 1, visible + (len(commits) == 2)
    story.fence()
    story.commit(3)
print(kills, visible)
"""


def test_a_writer_killed_anywhere_in_a_commit_leaves_a_register_that_counts(
    tmp_path: Path,
) -> None:
    argv = [sys.executable, "-c", CRASHES, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=100, check=False, env=env, cwd=Path.cwd()
    )
    assert done.returncode == 0, done.stderr
    kills, visible = map(int, done.stdout.split())
    assert kills > 20
    assert 0 < visible < kills, "killed before the record and after it"
