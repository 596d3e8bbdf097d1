"""An incident without a culprit, made real: its gang's links are tested, and the bad one leaves.

A job's collective times out whenever one node is among its members, and nothing on that node says
why. A saboteur, who knows nothing of Holdfast but its processes, freezes whatever moves bytes in
that node's tests: a link that is dead.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.core.jobs import JobState
from orchestrator.core.nodes import NodeState
from tests.system.fleet import LocalFleet

pytestmark = [pytest.mark.soak, pytest.mark.system, pytest.mark.torch]

SCRIPT = """
import os, pathlib, time
from orchestrator.runtime import training
run = training.join()
node = pathlib.Path(os.environ["HOLDFAST_HOME"]).name
here = pathlib.Path("members") / str(os.environ["HOLDFAST_GENERATION"])
here.mkdir(parents=True, exist_ok=True)
(here / node).touch()
began = time.monotonic()
for step in range(1, 100_000):
    time.sleep(0.05)
    run.heartbeat(step, loss=1.0)
    bad = pathlib.Path("bad").read_text() if pathlib.Path("bad").exists() else ""
    fails = bad and run.rank == 0 and (here / bad).exists()
    if fails and time.monotonic() - began > 10:
        raise RuntimeError("Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)")
    if pathlib.Path("enough").exists():
        break
run.close()
"""


@contextlib.contextmanager
def dead_link(home: Path) -> Iterator[list[int]]:
    """Freeze whatever moves bytes in a node's tests, from the moment that it is seen."""
    frozen: list[int] = []
    over = threading.Event()

    def sabotage() -> None:
        while not over.wait(0.01):
            for pid in _movers(home):
                if pid not in frozen:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGSTOP)
                        frozen.append(pid)

    saboteur = threading.Thread(target=sabotage)
    saboteur.start()
    try:
        yield frozen
    finally:
        over.set()
        saboteur.join()


def _movers(home: Path) -> list[int]:
    """Return the processes that tests of pairs forked on a node."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and b"\0--pair\0" in (entry / "cmdline").read_bytes():
                mine = f"HOLDFAST_HOME={home}".encode() in (entry / "environ").read_bytes()
                if mine:
                    words = (entry / "stat").read_text().rpartition(")")[2].split()
                    found[int(entry.name)] = int(words[1])
    return [pid for pid, parent in found.items() if parent in found]


def test_the_node_behind_a_dead_link_is_named_by_its_peers_and_evicted(
    make_fleet: Callable[..., LocalFleet],
) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    fleet = make_fleet(
        clusters={"ash": 6}, policy={"localisations_per_hour": 20, "standbys": 0, "repair": False}
    )
    work = fleet.folder / "work"
    work.mkdir()
    (work / "train.py").write_text(SCRIPT)
    fleet.start_daemon()
    fleet.submit(
        name="train",
        command=["python", "train.py"],
        workdir=str(work),
        nodes=4,
        progress="heartbeat",
        register=str(fleet.folder / "register"),
        stop_grace="1s",
    )
    fleet.until("four ranks run", lambda: len(fleet.ranks("train")) == 4, limit=120)
    bad = max(name for name, node in fleet.nodes().items() if node.state is NodeState.IN_USE)
    with dead_link(fleet.state / "clusters" / "ash" / bad) as frozen:
        (work / "bad").write_text(bad)
        left = fleet.until(
            f"{bad} is evicted",
            lambda: [one for one in fleet.events("MoveNode") if "evicted" in one.text],
            limit=900,
        )
    assert frozen
    assert [one.subjects[0] for one in left] == [bad]
    assert f"evicted {bad} from train: localise named on host" in left[0].text
    assert "tests with it failed" in left[0].text
    told = fleet.events("localised")
    assert any(bad in one.subjects and "found" in one.text for one in told)
    (work / "enough").touch()
    assert fleet.finish("train", limit=120).state is JobState.SUCCEEDED
