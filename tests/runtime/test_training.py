"""The training API: alone, under Holdfast, and when the world breaks around it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import TransientError, UserError
from orchestrator.runtime import surroundings, training, vault
from orchestrator.runtime.heartbeats import LINE_BYTES_MAX, Heart
from orchestrator.runtime.lineage import Commit
from orchestrator.runtime.manifests import AttestationError
from orchestrator.runtime.register import Register
from orchestrator.runtime.store import Bytes, open_store
from orchestrator.runtime.surroundings import Surroundings
from orchestrator.runtime.training import Run
from orchestrator.runtime.vault import Vault, VerificationError
from tests.runtime.stores import FailingStore, MemoryStore
from tests.runtime.vaults import Story

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

ALONE = surroundings.read({})
FACTS: dict[str, Any] = {
    "learning_rate": 0.1,
    "tokens": 64,
    "cursor": {"shard": 1},
    "config": {"width": 8},
    "rng": b"dice",
}


class Ears:
    """An agent's end of the heartbeat FIFO."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def heard(self) -> list[dict[str, Any]]:
        try:
            data = os.read(self._reader, 1 << 20)
        except BlockingIOError:
            return []
        return [json.loads(line) for line in data.splitlines()]

    def events(self) -> list[str]:
        return [line["event"] for line in self.heard() if "event" in line]

    def close(self) -> None:
        os.close(self._reader)


@pytest.fixture
def ears(tmp_path: Path) -> Iterator[Ears]:
    ears = Ears(tmp_path / "heartbeats")
    yield ears
    ears.close()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def state(value: float) -> dict[str, Any]:
    return {"model": {"w": torch.full((3,), value)}, "optimizer": {"step": 1}}


def alone(store: Any) -> Run:
    return Run(ALONE, Vault(store, Register(store)))


def member(story: Story, ears: Ears | None = None, resume: int | None = None) -> Run:
    """Return rank 0 of the generation that rules."""
    around = replace(
        ALONE,
        in_holdfast=True,
        job="job",
        attempt=story.register.read().attempt,
        node="n1",
        generation_seq=story.register.read().ruler,
        resume=resume,
        heartbeat=ears.path if ears else None,
    )
    return Run(around, Vault(story.store, Register(story.store)))


def settle(run: Run) -> None:
    run.leave()


def started(store: MemoryStore) -> Story:
    story = Story(store)
    story.fence()
    story.generation()
    return story


def test_alone_a_script_saves_and_resumes(store: MemoryStore) -> None:
    run = alone(store)
    assert run.resume() is None
    run.save(5, state(1.5), **FACTS)
    run.close()
    again = alone(store)
    loaded = again.resume()
    assert loaded is not None
    assert loaded.step == 5
    assert torch.equal(loaded.state["model"]["w"], torch.full((3,), 1.5))
    assert again.resumed_from == run.last_commit
    again.attest(step=5, **FACTS)


def test_without_checkpoints_everything_is_allowed_and_nothing_is_saved() -> None:
    run = Run(ALONE, None)
    assert run.resume() is None
    run.save(1, state(0), **FACTS)
    run.heartbeat(1, loss=0.5)
    run.attest(step=1, **FACTS)
    run.close()
    assert run.last_commit is None


def test_a_second_run_alone_fences_the_first(store: MemoryStore) -> None:
    first, second = alone(store), alone(store)
    first.save(1, state(1), **FACTS)
    settle(first)
    second.resume()
    second.save(2, state(2), **FACTS)
    settle(second)
    first.save(3, state(3), **FACTS)
    settle(first)
    with pytest.raises(SystemExit) as end:
        first.heartbeat(4)
    assert end.value.code == 93
    assert [commit.step for commit in Register(store).read().commits] == [1, 2]


def test_each_commit_descends_from_the_one_before(store: MemoryStore) -> None:
    run = alone(store)
    for step in (1, 2, 3):
        run.save(step, state(step), **FACTS)
    run.close()
    commits = Register(store).read().commits
    assert [commit.parent for commit in commits] == [None, commits[0].seq, commits[1].seq]


def test_the_state_is_what_it_was_when_save_was_called(store: MemoryStore) -> None:
    run, weights = alone(store), torch.zeros(100_000)
    run.save(1, {"model": {"w": weights, "tied": weights}}, **FACTS)
    weights.fill_(7)
    run.close()
    loaded = alone(store).resume()
    assert loaded is not None
    model = loaded.state["model"]
    assert model["w"].abs().sum() == 0
    assert model["w"].data_ptr() == model["tied"].data_ptr(), "tied tensors stay tied"


def test_other_ranks_write_nothing(store: MemoryStore) -> None:
    run = Run(replace(ALONE, rank=1, world_size=2), Vault(store, Register(store)))
    run.save(1, state(1), **FACTS)
    run.close()
    assert store.objects == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0.2),
        ("tokens", 65),
        ("cursor", {"shard": 2}),
        ("config", {"width": 9}),
        ("rng", b"other dice"),
    ],
)
def test_a_state_that_is_not_the_saved_one_is_named(
    store: MemoryStore, field: str, value: object
) -> None:
    run = alone(store)
    run.save(5, state(1), **FACTS)
    run.close()
    again = alone(store)
    again.resume()
    with pytest.raises(AttestationError, match=f"{field}: expected"):
        again.attest(step=5, **{**FACTS, field: value})


def test_under_holdfast_the_named_commit_is_loaded_and_no_other(
    store: MemoryStore, ears: Ears
) -> None:
    story = started(store)
    first = member(story)
    for step in (1, 2):
        first.save(step, state(step), **FACTS)
    settle(first)
    old, _ = story.register.read().commits
    story.generation(resume=old.seq)
    run = member(story, ears, resume=old.seq)
    loaded = run.resume()
    assert loaded is not None
    assert loaded.step == 1
    assert "resumed" in ears.events()
    run.save(2, state(9), **FACTS)
    settle(run)
    assert run.last_commit is not None
    assert run.last_commit.parent == old.seq


def test_under_holdfast_none_named_is_starting_from_nothing(store: MemoryStore) -> None:
    story = started(store)
    member(story).save(1, state(1), **FACTS)
    assert member(story, resume=None).resume() is None


def damage(store: MemoryStore, commit: Commit) -> None:
    save = commit.manifest.split("/")[1].removesuffix(".json")
    key = next(store.list(f"parts/{save}/"))
    store.objects[key] = store.objects[key][:-1] + bytes([store.objects[key][-1] ^ 1])


def saved(store: MemoryStore, *steps: int) -> tuple[Commit, ...]:
    story = started(store)
    run = member(story)
    for step in steps:
        run.save(step, state(step), **FACTS)
    settle(run)
    return story.register.read().commits


def test_under_holdfast_a_damaged_checkpoint_ends_the_process_with_92(
    store: MemoryStore, ears: Ears
) -> None:
    commit = saved(store, 1, 2)[-1]
    damage(store, commit)
    run = member(Story(store), ears, resume=commit.seq)
    with pytest.raises(SystemExit) as end:
        run.resume()
    assert end.value.code == 92
    told = [line for line in ears.heard() if line.get("event") == "verification-failed"]
    assert [line["seq"] for line in told] == [commit.seq]


def test_under_holdfast_a_commit_that_does_not_count_is_not_loaded(store: MemoryStore) -> None:
    saved(store, 1)
    with pytest.raises(SystemExit) as end:
        member(Story(store), resume=1).resume()  # record 1 is the fence
    assert end.value.code == 92


def test_a_register_that_lags_behind_is_no_damage(store: MemoryStore) -> None:
    saved(store, 1)
    with pytest.raises(TransientError, match="does not reach"):
        member(Story(store), resume=99).resume()


def test_alone_a_damaged_checkpoint_falls_back_to_its_parent(store: MemoryStore) -> None:
    commits = saved(store, 1, 2, 3)
    for commit in commits[1:]:
        damage(store, commit)
    run = alone(store)
    loaded = run.resume()
    assert loaded is not None
    assert loaded.step == 1
    assert run.resumed_from == commits[0]


def test_alone_nothing_is_not_taken_for_a_damaged_vault(store: MemoryStore) -> None:
    for commit in saved(store, 1, 2):
        damage(store, commit)
    with pytest.raises(VerificationError):
        alone(store).resume()


def test_a_full_disk_is_told_and_training_goes_on(store: MemoryStore, ears: Ears) -> None:
    story = started(store)
    run = member(story, ears)
    failing = FailingStore(store, "full")
    run.vault = Vault(failing, Register(failing))
    run.save(1, state(1), **FACTS)
    run.heartbeat(2)
    settle(run)
    told = [line for line in ears.heard() if line.get("event") == "commit-failed"]
    assert [line["step"] for line in told] == [1]
    assert "No space left" in told[0]["text"]
    assert story.register.read().commits == ()
    run.save(2, state(2), **FACTS)
    run.close()
    assert [commit.step for commit in story.register.read().commits] == [2]
    assert "commit" in ears.events()


def test_a_state_that_could_not_be_loaded_again_is_never_committed(
    store: MemoryStore, ears: Ears
) -> None:
    story = started(store)
    run = member(story, ears)
    run.save(1, {"model": {"w": torch.zeros(1)}, "extra": {"path": Path("/x")}}, **FACTS)
    settle(run)
    assert ears.events() == ["commit-failed"]
    assert story.register.read().commits == ()


def test_a_fenced_rank_ends_with_93(store: MemoryStore, ears: Ears) -> None:
    story = started(store)
    run = member(story, ears)
    story.fence()
    run.save(1, state(1), **FACTS)
    settle(run)
    assert ears.events() == ["fenced"]
    verbs: list[Callable[[], object]] = [
        lambda: run.heartbeat(2),
        lambda: run.save(2, state(2), **FACTS),
        run.close,
    ]
    for ends in verbs:
        with pytest.raises(SystemExit) as end:
            ends()
        assert end.value.code == 93
    assert [*store.list("parts/")] == [], "it wrote nothing at all"


def test_a_generation_without_a_record_commits_nothing(store: MemoryStore, ears: Ears) -> None:
    story = started(store)
    run = member(story, ears)
    run.around = replace(run.around, generation_seq=None)
    run._authority.under = None
    run.save(1, state(1), **FACTS)
    settle(run)
    assert ears.events() == ["commit-failed"]
    assert story.register.read().commits == ()


def test_training_goes_on_while_a_checkpoint_is_written_and_the_next_save_waits(
    store: MemoryStore,
) -> None:
    gate = threading.Event()

    class Slow(MemoryStore):
        def put_part(self, key: str, data: Bytes) -> None:
            assert gate.wait(60)
            super().put_part(key, data)

    slow = Slow()
    run = alone(slow)
    run.save(1, state(1), **FACTS)
    run.heartbeat(2)
    assert run._saver.busy
    assert run.last_commit is None
    threading.Timer(0.05, gate.set).start()
    run.save(2, state(2), **FACTS)
    assert run.last_commit is not None
    run.close()
    assert [commit.step for commit in Register(slow).read().commits] == [1, 2]


def test_retention_runs_after_each_commit(store: MemoryStore) -> None:
    run = Run(ALONE, Vault(store, Register(store)), keep=2)
    for step in range(6):
        run.save(step, state(step), **FACTS)
    run.close()
    assert len([*store.list("manifests/")]) == 2


def test_heartbeats_tell_step_loss_and_phase(ears: Ears) -> None:
    run = Run(replace(ALONE, rank=3, heartbeat=ears.path), None)
    run.heartbeat(7, loss=0.25, tokens_per_second=1000.0, data_wait=0.5)
    with run.phase("evaluate"):
        pass
    run.heartbeat(8, loss=float("nan"))
    lines = ears.heard()
    assert [(line["phase"], line["step"]) for line in lines] == [
        ("init", None),
        ("step", 7),
        ("evaluate", 7),
        ("step", 7),
        ("step", 8),
    ]
    assert lines[1]["loss"] == 0.25
    assert lines[1]["data_wait"] == 0.5
    assert lines[1]["rank"] == 3
    assert lines[1]["pid"] == os.getpid()
    assert lines[4]["loss"] is None, "JSON has no NaN"


def test_a_long_text_is_cut_so_that_a_line_is_written_at_once(ears: Ears) -> None:
    heart = Heart(ears.path, 0)
    heart.event("commit-failed", step=1, text="é" * 5000)
    (line,) = ears.heard()
    assert len(json.dumps(line)) < LINE_BYTES_MAX
    assert line["text"].startswith("é")


def test_nobody_listening_is_never_an_error(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (None, str(fifo), str(tmp_path / "missing")):
        Heart(path, 0).beat(1)


def test_a_new_agent_hears_what_the_old_one_no_longer_does(tmp_path: Path) -> None:
    old = Ears(tmp_path / "fifo")
    heart = Heart(old.path, 0)
    heart.beat(1)
    old.close()
    heart.beat(2)
    (tmp_path / "fifo").unlink()
    new = Ears(tmp_path / "fifo")
    heart.beat(3)
    assert [line["step"] for line in new.heard()] == [3]
    new.close()


def test_the_environment_is_read_once_and_mistakes_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "HOLDFAST_RUN": "job.3",
        "HOLDFAST_JOB": "job",
        "HOLDFAST_ATTEMPT": "3",
        "HOLDFAST_NODE": "n1",
        "HOLDFAST_GENERATION_SEQ": "17",
        "HOLDFAST_RESUME": "",
        "HOLDFAST_CHECKPOINTS": str(tmp_path),
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    run = training.join("file:///ignored")
    assert (run.rank, run.world_size, run.local_rank, run.in_holdfast) == (1, 2, 0, True)
    assert isinstance(run.around, Surroundings)
    assert (run.around.attempt, run.around.generation_seq, run.around.resume) == (3, 17, None)
    assert run.vault is not None
    assert run.vault.place == str(tmp_path)
    run.close()
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UserError, match="WORLD_SIZE"):
        training.join()


SCRIPT = """
import sys, torch
from orchestrator.runtime import training
run = training.join(sys.argv[1])
loaded = run.resume()
step = loaded.step if loaded else 0
state = {"model": {"w": torch.full((2,), float(step + 1))}}
run.save(step + 1, state, learning_rate=1, tokens=0, cursor=0, config=0, rng=0)
"""


def test_a_script_that_forgets_close_still_waits_for_its_last_save(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    register = Register(open_store(str(tmp_path)))
    assert [commit.step for commit in register.read().commits] == [1]
    assert vault.verify(str(tmp_path))[0].ok


def test_importing_the_api_imports_no_torch() -> None:
    code = "import sys; from orchestrator.runtime import training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
