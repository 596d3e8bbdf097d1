"""What each kind of loss costs a gang of ours: a rank, a stop, a node, a swap, all ranks.

    python -m bench.recovery.kinds [--kinds rank,node] [--rounds 3] -o json

Two nodes with one rank each train the workload's steady loop on this computer, a third stands by.
In each round every kind happens once to a new gang, at a random step and offset; each trial is told
as it ends, and has a limit of its own:

- `rank`: `kill -9` of rank 1; its agent forks another.
- `stopped`: SIGSTOP of rank 1, which has to be noticed.
- `node`: guard, agent and rank of rank 1's node at once; the standby comes in.
- `swap`: a new grant with the standby in the place of rank 1's node, which is healthy.
- `all`: `kill -9` of both ranks, without a standby: restart in place, from memory.
- `last`: the only node of a gang; the standby gets its seat and goes on from partner memory.

`stall_s` is the longest time between two steps that all ranks completed, less a median step.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.recovery import figures
from bench.recovery.systems import WORKLOAD
from orchestrator.errors import HoldfastError
from orchestrator.runtime import grants, launch, processes, wire
from orchestrator.runtime.grants import Grant
from orchestrator.runtime.lineage import Fence, Member
from orchestrator.runtime.register import Register, new_nonce
from orchestrator.runtime.spec import AgentSpec
from orchestrator.runtime.store import open_store

START_LIMIT, LIMIT = 120.0, 60.0
AFTER = 8  #: steps that are awaited after the fault


class Gang:
    """Nodes a, b and c, in folders."""

    def __init__(self, out: Path, nodes: str, standbys: str) -> None:
        """Start the agents and give them the first grant."""
        self.world = len(nodes)
        self.out, self._vault, self._key = out, str(out / "vault"), secrets.token_hex(16)
        self.seats: dict[str, Member] = {}
        register = Register(open_store(self._vault))
        register.append(lambda seq: Fence(seq, new_nonce(), 1, 1, time.time()), register.read())
        for node in nodes + standbys:
            said = launch.start(self.home(node), self._spec(node))
            self.seats[node] = Member(node, said["host"], said["port"])
        self.grant(1, nodes, standbys)

    def home(self, node: str) -> Path:
        """Return a node's folder."""
        return self.out / "nodes" / node

    def _spec(self, node: str) -> AgentSpec:
        return AgentSpec(
            node=node,
            job="bench",
            attempt=1,
            token=1,
            key=self._key,
            command=("python", str(WORKLOAD), "steady", str(self.out), "0"),
            workdir=str(self.out),
            python=sys.executable,
            preload=("torch",),
            checkpoints=self._vault,
            register=self._vault,
        )

    def grant(self, number: int, nodes: str, standbys: str = "") -> None:
        """Give a grant to everybody."""
        seats = tuple(self.seats[node] for node in nodes)
        others = tuple(self.seats[node] for node in standbys)
        grant = Grant("bench", 1, number, 1, seats, others, self.world, self.world, 1000)
        body = {"ask": "grant", "token": 1, "grant": grants.encode(grant)}
        for seat in self.seats.values():
            wire.call(seat.host, seat.port, self._key, body, timeout=10)

    def notes(self) -> dict[int, list[figures.Note]]:
        """Return what the ranks noted."""
        return figures.read(self.out, self.world)

    def pid(self, rank: int) -> int:
        """Return the process behind a rank."""
        return figures.pid_of(self.notes(), rank)

    def stop(self) -> None:
        """End everything."""
        for node in "abc":
            processes.kill_home(self.home(node))


def _rank(gang: Gang) -> None:
    os.kill(gang.pid(1), signal.SIGKILL)


def _stopped(gang: Gang) -> None:
    os.kill(gang.pid(1), signal.SIGSTOP)


def _node(gang: Gang) -> None:
    processes.kill_home(gang.home("b"))


def _swap(gang: Gang) -> None:
    gang.grant(2, "ac")


def _all(gang: Gang) -> None:
    for rank in range(gang.world):
        os.kill(gang.pid(rank), signal.SIGKILL)


def _last(gang: Gang) -> None:
    processes.kill_home(gang.home("a"))
    gang.seats.pop("a")
    gang.grant(2, "c")


#: kind -> nodes, standbys, what happens
KINDS: dict[str, tuple[str, str, Callable[[Gang], None]]] = {
    "rank": ("ab", "c", _rank),
    "stopped": ("ab", "c", _stopped),
    "node": ("ab", "c", _node),
    "swap": ("ab", "c", _swap),
    "all": ("ab", "", _all),
    "last": ("a", "c", _last),
}


def trial(kind: str, seed: int) -> dict[str, float]:
    """Let one gang train and one thing happen to it; return what that cost."""
    nodes, standbys, happen = KINDS[kind]
    dice = random.Random(seed)
    step, offset = dice.randint(12, 20), dice.uniform(0, 0.08)
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", ignore_cleanup_errors=True) as name:
        gang = Gang(Path(name), nodes, standbys)
        try:
            _await(lambda: figures.common_step(gang.notes()) >= step, START_LIMIT)
            time.sleep(offset)
            last, at = figures.common_step(gang.notes()), time.time()
            happen(gang)
            _await(lambda: figures.common_step(gang.notes()) >= last + AFTER, LIMIT)
            return judge(gang.notes(), at)
        finally:
            gang.stop()


def judge(notes: dict[int, list[figures.Note]], at: float) -> dict[str, float]:
    """Return stall and repeated steps of what happened at `at`. Pure."""
    common: dict[int, dict[int, float]] = {}
    firsts: dict[int, dict[int, float]] = {}  #: a gang may repeat all of its steps
    counts: dict[tuple[int, int], int] = {}
    for rank, mine in notes.items():
        for note in mine:
            common.setdefault(note.step, {})[rank] = note.at
            firsts.setdefault(note.step, {}).setdefault(rank, note.at)
            counts[rank, note.step] = counts.get((rank, note.step), 0) + 1
    whole, once = (
        sorted(max(one.values()) for one in steps.values() if len(one) == len(notes))
        for steps in (common, firsts)
    )
    step_s = statistics.median(b - a for a, b in pairwise(once[3:]) if b <= at)
    gaps = [later - max(earlier, at) for earlier, later in pairwise(whole) if later > at]
    first = next(moment for moment in whole if moment > at)
    return {
        "first_step_s": first - at,
        "longest_gap_s": max(gaps),
        "stall_s": max(0.0, max(gaps) - step_s),
        "steps_repeated": max(counts.values()) - 1,
        "step_s": step_s,
    }


def _await(what: Callable[[], bool], limit: float) -> None:
    end = time.monotonic() + limit
    while not what():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {limit:g} s")
        time.sleep(0.01)


def measure(kinds: list[str], rounds: int) -> dict[str, Any]:
    """Return the medians of interleaved rounds."""
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    failed = dict.fromkeys(kinds, 0)
    for seed in range(rounds):
        for kind in kinds:
            began = time.monotonic()
            try:
                found[kind].append(trial(kind, seed))
                said = ", ".join(f"{name} {value:.3f}" for name, value in found[kind][-1].items())
            except (TimeoutError, HoldfastError) as error:
                failed[kind] += 1
                said = f"failed: {error}"
            took = time.monotonic() - began
            print(f"round {seed + 1}, {kind}: {said} ({took:.0f} s)", file=sys.stderr, flush=True)
    medians = {
        kind: {
            **{name: round(statistics.median(one[name] for one in mine), 3) for name in mine[0]},
            "rounds": len(mine),
            "failed": failed[kind],
        }
        for kind, mine in found.items()
        if mine
    }
    return {"kinds": medians, "load": os.getloadavg()[0], "cores": os.cpu_count()}


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(prog="bench.recovery.kinds", description=__doc__)
    parser.add_argument("--kinds", default=",".join(KINDS), help="separated by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    asked = parser.parse_args()
    kinds = asked.kinds.split(",")
    if set(kinds) - set(KINDS):
        parser.error(f"no such kind; there are {', '.join(KINDS)}")
    found = measure(kinds, asked.rounds)
    if asked.output == "json":
        print(json.dumps(found))
        return
    for kind, one in found["kinds"].items():
        print(f"{kind:8} " + "  ".join(f"{name} {value:g}" for name, value in one.items()))
    print(f"load {found['load']:.1f} on {found['cores']} cores")


if __name__ == "__main__":
    main()
