from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import PermanentError
from orchestrator.runtime import processes, staging
from orchestrator.runtime.lineage import Because, Cause, Member
from orchestrator.runtime.place import Place
from orchestrator.runtime.processes import Target
from orchestrator.runtime.ranks import Jot, RankPlan, Ranks
from orchestrator.runtime.reports import RankReport, RankState
from orchestrator.runtime.spec import AgentSpec
from tests.runtime.trees import TREE, cleared, marked, wait_for

#: beats, then waits for orders in a file: "exit N", "step", nothing
SPEAKER = """
import os, sys, time
from orchestrator.runtime.heartbeats import Heart
rank = int(os.environ.get("RANK", os.environ["GROUP_RANK"]))
heart = Heart(os.environ["HOLDFAST_HEARTBEAT"], rank)
heart.beat()
for step in range(int(sys.argv[1])):
    heart.beat(step, loss=2.0)
    time.sleep(float(sys.argv[2]))
if len(sys.argv) > 3:
    exec(sys.argv[3])
time.sleep(300)
"""
PLAN = RankPlan(
    generation=3,
    generation_seq=17,
    members=(Member("n0", "127.0.0.1", 1), Member("n1", "127.0.0.1", 2)),
    group_rank=1,
    ranks_per_node=2,
    world_size=4,
    master_addr="127.0.0.1",
    master_port=29_500,
    agent_store=True,
    resume=12,
    restarts=2,
)


class Node:
    """One node's ranks, looked at as an agent would."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.spec = AgentSpec(
            node="n1",
            job="job",
            attempt=1,
            token=1,
            key="00" * 16,
            command=("python", "-c", SPEAKER, "1", "0"),
            workdir=str(place.home),
            ranks_per_node=2,
            stop_grace=5.0,
            hang_floor=0.3,
        )
        self.ranks: Ranks | None = None

    def start(self, plan: RankPlan = PLAN, **changes: Any) -> Ranks:
        if self.ranks is None:
            self.spec = replace(self.spec, **changes)
            self.ranks = Ranks(self.spec, self.place)
        self.ranks.start(plan)
        return self.ranks

    def look(self) -> tuple[RankReport, ...]:
        assert self.ranks is not None
        return self.ranks.look(time.monotonic())

    def until(self, what: Callable[[Ranks], object]) -> tuple[RankReport, ...]:
        assert self.ranks is not None
        ranks = self.ranks
        wait_for(lambda: (self.look(), what(ranks))[1])
        return self.look()

    def end(self) -> tuple[RankReport, ...]:
        assert self.ranks is not None
        self.ranks.end(time.monotonic(), "the test is over")
        return self.until(lambda ranks: ranks.gone)

    def trouble(self) -> Because:
        self.until(lambda ranks: ranks.trouble)
        assert self.ranks is not None
        assert self.ranks.trouble is not None
        return self.ranks.trouble

    def notes(self) -> dict[str, Jot]:
        assert self.ranks is not None
        return {jot.kind: jot for jot in self.ranks.drain_notes()}

    def all_stepped(self, step: int = 0) -> tuple[RankReport, ...]:
        return self.until(
            lambda _: all(one.step is not None and one.step >= step for one in self.look())
        )


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    place = Place(tmp_path, "job.1")
    place.make()
    staging.stage(place.site)
    node = Node(place)
    with cleared(tmp_path):
        yield node
        if node.ranks is not None:
            if not node.ranks.gone:
                node.end()
            node.ranks.close()


def script(text: str) -> tuple[str, ...]:
    return ("python", "-c", text)


def speaker(steps: int, pace: float, then: str = "pass") -> tuple[str, ...]:
    return ("python", "-c", SPEAKER, str(steps), str(pace), then)


def test_ranks_find_what_torchrun_would_give_them(node: Node) -> None:
    show = "import json, os; print(json.dumps(dict(os.environ)))"
    ranks = node.start(command=script(show), env={"MINE": "1", "RANK": "99", "PYTHONPATH": "/x"})
    node.until(lambda ranks: ranks.finished)
    for local_rank in (0, 1):
        said = json.loads(node.place.log(3, 2 + local_rank).read_text())
        assert {name: said[name] for name in ("RANK", "LOCAL_RANK", "MINE")} == {
            "RANK": str(2 + local_rank),
            "LOCAL_RANK": str(local_rank),
            "MINE": "1",
        }
        for name, value in {
            "WORLD_SIZE": "4",
            "LOCAL_WORLD_SIZE": "2",
            "GROUP_RANK": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29500",
            "TORCHELASTIC_RUN_ID": "job.1.3",
            "TORCHELASTIC_RESTART_COUNT": "2",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "HOLDFAST_RUN": "job.1",
            "HOLDFAST_HOME": str(node.place.home),
            "HOLDFAST_JOB": "job",
            "HOLDFAST_ATTEMPT": "1",
            "HOLDFAST_NODE": "n1",
            "HOLDFAST_GENERATION": "3",
            "HOLDFAST_GENERATION_SEQ": "17",
            "HOLDFAST_RESUME": "12",
            "HOLDFAST_CHECKPOINTS": "",
            "HOLDFAST_REGISTER": "",
            "PYTHONPATH": f"{node.place.site}:/x",
        }.items():
            assert said[name] == value, name
    assert ranks.trouble is None
    assert [one.state for one in node.end()] == [RankState.GONE] * 2


def test_an_opaque_command_gets_a_port_and_its_number(node: Node) -> None:
    command = ("sh", "-c", "echo $GROUP_RANK $NNODES $MASTER_ADDR $MASTER_PORT ${RANK:-none}")
    node.start(command=command, launch="command")
    node.until(lambda ranks: ranks.finished)
    assert node.place.log(3, 1).read_text() == "1 2 127.0.0.1 29500 none\n"


def test_a_script_that_imports_its_own_model_finds_its_own(node: Node, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("ours = 'no, mine'")
    (tmp_path / "train.py").write_text(
        "import sys, model, orchestrator, orchestrator.runtime.lineage\n"
        "print(model.ours, orchestrator.__file__)\n"
        "print(*sys.path[:2])\n"
    )
    node.start(command=("python", "train.py"), ranks_per_node=1)
    node.until(lambda ranks: ranks.finished)
    said = node.place.log(3, 2).read_text()
    assert said.splitlines() == [
        f"no, mine {node.place.site}/orchestrator/__init__.py",
        f"{tmp_path} {node.place.site}",
    ]


def test_heartbeats_become_reports_and_progress(node: Node) -> None:
    node.start(command=speaker(5, 0))
    first, second = node.all_stepped(4)
    assert (first.rank, first.local_rank, first.state) == (2, 0, RankState.RUNNING)
    assert (second.rank, second.phase, second.step, second.loss) == (3, "step", 4, 2.0)
    lines = [json.loads(line) for line in node.place.progress.read_text().splitlines()]
    assert {(line["rank"], line["step"]) for line in lines if line["phase"] == "step"} == {
        (rank, step) for rank in (2, 3) for step in range(5)
    }
    assert {line["generation"] for line in lines} == {3}


def test_a_killed_rank_is_noticed_and_the_others_are_proven_gone(node: Node) -> None:
    ranks = node.start(command=speaker(8, 0))
    reports = node.all_stepped(7)
    assert reports[1].pid is not None
    os.kill(reports[1].pid, signal.SIGKILL)

    assert node.trouble() == Because(
        Cause.RANK_EXIT, step=7, fingerprint="signal 9", node="n1", rank=3
    )
    assert ranks.ended_at == pytest.approx(time.time(), abs=5)
    assert node.notes()["rank-exited"].data["exit_code"] == -9
    assert [one.exit_code for one in node.end()] == [-signal.SIGTERM, -signal.SIGKILL]
    assert marked(node.place) == ()


def test_an_exit_tells_its_last_words_and_its_step(node: Node) -> None:
    node.start(command=speaker(3, 0, "raise ValueError(f'batch {step} at {hex(id(step))}')"))
    trouble = node.trouble()
    assert trouble.fingerprint == "exit 1: ValueError: batch N at ADDRESS"
    assert trouble.step == 2


def test_whoever_spoke_first_of_two_that_end_at_once_is_blamed(node: Node) -> None:
    last = (  # rank 2 speaks only after rank 3 did, however slow the machine; mtimes are coarse
        "import pathlib, time; spoke = pathlib.Path(os.environ['HOLDFAST_HOME'], 'spoke'); "
        "[time.sleep(0.05) for _ in iter(lambda: rank == 3 or spoke.exists(), True)]; "
        "time.sleep(0.05 * (3 - rank)); print('rank', rank, flush=True); spoke.touch(); os._exit(1)"
    )
    ranks = node.start(command=speaker(1, 0, last))
    pids = {one.child.pid for one in ranks._ranks}
    wait_for(lambda: pids <= set(_zombies()))  # a worker of pytest may have others
    node.look()
    assert ranks.trouble is not None
    assert ranks.trouble.rank == 3


def _zombies() -> list[int]:
    mine = os.getpid()
    pids = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
    seen = [processes.read(pid) for pid in pids]
    return [one.pid for one in seen if one is not None and one.parent == mine and one.state == "Z"]


def test_a_checkpoint_that_did_not_verify_is_named(node: Node) -> None:
    node.start(command=script("raise SystemExit(92)"))
    trouble = node.trouble()
    assert (trouble.cause, trouble.commit) == (Cause.VERIFICATION, 12)


def test_the_failed_verification_of_one_rank_explains_the_exit_of_the_other(node: Node) -> None:
    last = "heart.event('verification-failed', seq=12); time.sleep(0.1); os._exit(1)"
    node.start(command=speaker(1, 0, last))
    assert node.trouble().cause is Cause.VERIFICATION
    assert node.notes()["verification-failed"].data["seq"] == 12


def test_a_fenced_rank_is_no_failure_of_the_job(node: Node) -> None:
    ranks = node.start(command=script("raise SystemExit(93)"))
    node.until(lambda ranks: ranks.fenced)
    assert ranks.trouble is None
    assert not ranks.finished
    assert "foreign-fence" in node.notes()


def test_a_stopped_rank_counts_as_dead_within_a_second_and_a_half(node: Node) -> None:
    node.start(command=speaker(2, 0))
    reports = node.all_stepped(1)
    assert reports[0].pid is not None
    stopped_at = time.monotonic()
    os.kill(reports[0].pid, signal.SIGSTOP)
    trouble = node.trouble()
    assert time.monotonic() - stopped_at < 1.5
    assert (trouble.cause, trouble.rank, trouble.step) == (Cause.RANK_STOPPED, 2, 1)
    assert node.look()[0].state is RankState.STOPPED
    assert [one.exit_code for one in node.end()] == [-signal.SIGKILL, -signal.SIGTERM]


def test_a_stop_that_lasts_for_one_look_is_forgiven(node: Node) -> None:
    ranks = node.start(command=speaker(2, 0))
    pid = node.all_stepped(1)[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: (seen := processes.read(pid)) is not None and seen.state == "T")
    now = time.monotonic() + 1
    assert ranks.look(now)[0].state is RankState.STOPPED
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: (seen := processes.read(pid)) is not None and seen.state != "T")
    assert ranks.look(now + 1.0)[0].state is RankState.RUNNING
    assert ranks.trouble is None


def test_a_stopped_worker_of_an_opaque_command_is_noticed(node: Node) -> None:
    node.start(command=("bash", "-c", "sleep 300 & echo $!; wait"), launch="command")
    log = node.place.log(3, 1)
    pid = int(wait_for(lambda: log.read_text() if log.exists() else ""))
    os.kill(pid, signal.SIGSTOP)
    assert node.trouble().cause is Cause.RANK_STOPPED


def test_a_rank_that_is_slow_by_its_own_measure_is_called_hung_with_its_stacks(node: Node) -> None:
    limits = {**node.spec.limits, "first": 100.0}
    ranks = node.start(command=speaker(40, 0.001), limits=limits, hang_floor=1.5)
    node.all_stepped(39)
    trouble = node.trouble()
    assert (trouble.cause, trouble.step) == (Cause.HANG, 39)
    assert trouble.fingerprint == "no progress in phase step"
    assert ranks.limits()["step"] == 1.5
    node.end()
    notes = node.notes()
    assert notes["hang"].text.endswith("(learned limit 1.5 s)")
    assert "stack" in notes["suspected"].data


def test_a_hang_in_the_beginning_is_measured_by_what_the_job_declared(node: Node) -> None:
    node.start(command=speaker(0, 0), limits={**node.spec.limits, "init": 0.5})
    assert node.trouble().cause is Cause.HANG


def test_a_script_that_sends_no_heartbeat_is_reported_and_left_alone(node: Node) -> None:
    ranks = node.start(command=("sleep", "300"), limits={**node.spec.limits, "init": 0.2})
    notes: dict[str, Jot] = {}
    while "suspected" not in notes:
        node.look()
        notes.update(node.notes())
    assert "never sent a heartbeat" in notes["suspected"].text
    assert ranks.trouble is None


def test_time_in_which_the_agent_did_not_run_is_not_held_against_a_rank(node: Node) -> None:
    limits = {**node.spec.limits, "first": 3.0}
    ranks = node.start(command=speaker(2, 0), limits=limits)
    node.all_stepped(1)
    later = time.monotonic() + 1_000
    ranks.look(later)
    assert ranks.trouble is None
    ranks.look(later + 1.9)
    ranks.look(later + 3.8)
    assert ranks.trouble is not None


def test_steps_are_read_from_the_output(node: Node) -> None:
    text = "for n in range(3): print('it', n)\nimport time; time.sleep(300)"
    node.start(
        replace(PLAN, group_rank=0),
        command=script(text),
        progress={"kind": "stdout", "pattern": r"it (\d+)"},
        limits={**node.spec.limits, "first": 0.6},
    )
    assert [one.step for one in node.all_stepped(2)] == [2, 2]
    assert node.trouble().step == 2


def test_files_that_grow_are_progress_and_their_silence_is_a_hang(node: Node) -> None:
    node.start(
        command=("sleep", "300"),
        progress={"kind": "file", "pattern": "*.out"},
        limits={**node.spec.limits, "init": 0.4},
    )
    assert node.trouble().cause is Cause.HANG


def test_a_whole_tree_of_a_generation_is_proven_gone_and_the_agent_is_spared(node: Node) -> None:
    node.start(command=("bash", "-c", TREE), launch="command", stop_grace=0.3)
    wait_for(lambda: len(marked(node.place)) >= 6)
    node.look()
    node.end()
    assert processes.find(Target(node.place.marker)) == ()


def test_what_ignores_sigterm_is_killed_after_its_grace(node: Node) -> None:
    text = "import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); "
    node.start(command=script(text + "import time; time.sleep(300)"), stop_grace=0.4)
    logs = [node.place.log(3, rank) for rank in (2, 3)]
    wait_for(lambda: all(log.read_text() for log in logs))
    began = time.monotonic()
    assert {one.exit_code for one in node.end()} == {-signal.SIGKILL}
    assert time.monotonic() - began >= 0.4


def test_a_command_that_cannot_be_started_is_trouble(node: Node) -> None:
    ranks = node.start(command=("/nowhere/program",))
    assert ranks.trouble is not None
    assert ranks.trouble.fingerprint.startswith("cannot start: [Errno N] No such file")
    node.end()


def test_a_next_generation_waits_for_the_proof_and_keeps_what_was_learned(node: Node) -> None:
    ranks = node.start(command=speaker(40, 0.001), hang_floor=2.0)
    node.all_stepped(39)
    with pytest.raises(PermanentError, match="not proven gone"):
        node.start()
    node.end()

    node.start(replace(PLAN, generation=4))
    assert ranks.trouble is None
    assert not ranks.gone
    assert ranks.limits()["step"] == 2.0
    node.all_stepped(39)


def test_strangers_on_the_fifo_are_counted_and_harm_nobody(node: Node) -> None:
    node.start(command=speaker(1, 0))
    node.all_stepped()
    with node.place.heartbeats.open("w") as fifo:
        fifo.write("nonsense\n" + '{"rank": 99, "phase": "step", "step": 5}\n')
    node.until(lambda ranks: ranks.ignored == 2)
    assert {one.step for one in node.look()} == {0}


def test_ranks_die_with_their_agent(node: Node, tmp_path: Path) -> None:
    agent = tmp_path / "agent.py"
    agent.write_text(AGENT)
    body = json.dumps([str(tmp_path), sys.executable])
    child = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, str(agent), body])
    wait_for(lambda: len(marked(node.place)) == 2)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    wait_for(lambda: marked(node.place) == ())


AGENT = """
import json, sys, time
from pathlib import Path
home, python = json.loads(sys.argv[1])
sys.path.insert(0, home + "/site")
from orchestrator.runtime.place import Place
from orchestrator.runtime.ranks import RankPlan, Ranks
from orchestrator.runtime.spec import AgentSpec
spec = AgentSpec(node="n1", job="job", attempt=1, token=1, key="00" * 16, workdir=home,
                 command=("sleep", "300"), ranks_per_node=2)
ranks = Ranks(spec, Place(Path(home), "job.1"))
ranks.start(RankPlan(1, 1, (), 0, 2, 2, "127.0.0.1", 1, False, None, 0))
time.sleep(300)
"""
