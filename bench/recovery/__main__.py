"""Kill ranks, and say how long each system took to do a step that was not done before.

    python -m bench.recovery --systems holdfast,torchrun --rounds 5 -o json

Rounds are interleaved: in each, every system trains anew and loses the same rank at the same step
and offset. Peers other than torchrun live in environments of their own: see `make bench-recovery`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from bench.recovery import figures
from bench.recovery.figures import Kill
from bench.recovery.systems import SYSTEMS, System

START_LIMIT = 180.0  #: seconds to the first steps
RECOVERY_LIMIT = 120.0
RANK = 1  #: who is killed; rank 0 holds the store of some peers, which then lose the job


def trial(system: System, world: int, seed: int, pause: float) -> Kill:
    """Let a system train, kill one rank, and wait for a new step."""
    dice = random.Random(seed)
    step, offset = dice.randint(15, 25), dice.uniform(0, 0.08)
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        out = Path(name)
        try:
            system.start(out, world, pause)
            _await(lambda: figures.common_step(figures.read(out, world)) >= step, START_LIMIT)
            time.sleep(offset)
            pid = figures.pid_of(figures.read(out, world), RANK)
            killed_at = time.time()
            os.kill(pid, signal.SIGKILL)
            until = time.monotonic() + RECOVERY_LIMIT
            while time.monotonic() < until:
                kill = figures.judge(figures.read(out, world), killed_at, pid)
                if kill is not None:
                    return kill
                time.sleep(0.01)
            raise TimeoutError(f"{system.name}: no new step within {RECOVERY_LIMIT:g} s")
        finally:
            system.stop()


def _await(what: object, limit: float) -> None:
    assert callable(what)
    until = time.monotonic() + limit
    while not what():
        if time.monotonic() > until:
            raise TimeoutError(f"the workload did not get going within {limit:g} s")
        time.sleep(0.01)


def measure(names: list[str], rounds: int, world: int, pause: float) -> dict[str, object]:
    """Return the figures of each system, from interleaved rounds."""
    kills: dict[str, list[Kill]] = {name: [] for name in names}
    failed: dict[str, int] = dict.fromkeys(names, 0)
    for seed in range(rounds):
        for name in names:
            began = time.monotonic()
            try:
                kills[name].append(trial(SYSTEMS[name](), world, seed, pause))
                said = str(kills[name][-1])
            except TimeoutError as error:
                failed[name] += 1
                said = f"failed: {error}"
            took = time.monotonic() - began
            print(f"round {seed + 1}, {name}: {said} ({took:.0f} s)", file=sys.stderr, flush=True)
    found = {
        name: {**figures.summary(mine), "failed": failed[name]}
        for name, mine in kills.items()
        if mine
    }
    return {"systems": found, "world": world, "load": os.getloadavg()[0], "cores": os.cpu_count()}


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(prog="bench.recovery", description=__doc__)
    parser.add_argument("--systems", default="holdfast,torchrun")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--world", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds added to each step")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    asked = parser.parse_args()
    names = asked.systems.split(",")
    unknown = [name for name in names if name not in SYSTEMS]
    if unknown or asked.rounds < 1:
        parser.error(f"unknown systems: {', '.join(unknown)}" if unknown else "rounds: 1 or more")
    found = measure(names, asked.rounds, asked.world, asked.pause)
    if asked.output == "json":
        print(json.dumps(found))
        return
    systems = found["systems"]
    assert isinstance(systems, dict)
    for name, row in systems.items():
        print(
            f"{name}: first new step {row['first_new_step_s']} s "
            f"(any step {row['first_step_s']} s), {row['steps_repeated']:g} steps repeated, "
            f"step {row['step_s']} s, median of {row['rounds']}"
        )
    print(f"world {found['world']}, load {found['load']:.1f} on {found['cores']} cores")


if __name__ == "__main__":
    main()
