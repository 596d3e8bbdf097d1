"""Random kills against a gang that trains, and a stand-in for the controller that heals it.

One seed decides which faults come and when.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from orchestrator.errors import HoldfastError
from orchestrator.runtime import grants, processes
from orchestrator.runtime.place import Place, read_json
from orchestrator.runtime.processes import living_agent
from tests.runtime.steadygangs import SteadyGang
from tests.runtime.trees import wait_for

AT_FDCWD, RENAME_EXCHANGE = -100, 2
WEIGH_EVERY = 10  #: steps between two reports of the weights


class Schedule:
    """The faults of one seed."""

    def __init__(self, steady: SteadyGang, seed: int) -> None:
        self.steady, self.gang, self.seed = steady, steady.gang, seed
        self.dice = random.Random(seed)
        self.done: list[str] = []
        self.owes = False  #: a grant that not all nodes have yet

    def run(self) -> None:
        """Let one to three faults happen, and heal what a controller would."""
        faults: list[Callable[[], None]] = [
            *[self.kill_rank] * 4,
            *[self.stop_rank] * 2,
            self.kill_all_ranks,
            self.kill_warm_parent,
            self.kill_agent,
            self.kill_node,
            self.cut_register,
        ]
        for _ in range(self.dice.randint(1, 3)):
            time.sleep(self.dice.uniform(0.0, 0.6))
            self.dice.choice(faults)()
        self.heal()

    # ---- what happens ----------------------------------------------------------------------------

    def members(self) -> list[str]:
        latest = self.gang.lineage().latest
        return [] if latest is None else [member.node for member in latest.members]

    def ranks(self, node: str) -> list[int]:
        with suppress(HoldfastError):
            found = self.gang.report(node).ranks
            return [one.pid for one in found if one.pid and one.exit_code is None]
        return []

    def kill_rank(self, number: int = signal.SIGKILL) -> None:
        members = self.members()
        pids = self.ranks(self.dice.choice(members)) if members else []
        if pids:
            pid = self.dice.choice(pids)
            self.done.append(f"signal {int(number)} to {pid}")
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop_rank(self) -> None:
        self.kill_rank(signal.SIGSTOP)

    def kill_all_ranks(self) -> None:
        pids = [pid for node in self.members() for pid in self.ranks(node)]
        self.done.append(f"kill all: {pids}")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_warm_parent(self) -> None:
        place = Place(self.gang.home(self.dice.choice(sorted(self.gang.seats))), "j.1")
        for process in processes.find(processes.Target(place.marker)):
            if processes.carries(process.pid, place.marker, ["HOLDFAST_ROOM"]):
                self.done.append(f"kill warm parent {process.pid}")
                os.kill(process.pid, signal.SIGKILL)

    def kill_agent(self) -> None:
        node = self.dice.choice(sorted(self.gang.seats))
        said = read_json(Place(self.gang.home(node), "j.1").agent)
        if said is not None:
            self.done.append(f"kill agent of {node}")
            with suppress(ProcessLookupError):
                os.kill(int(said["pid"]), signal.SIGKILL)

    def kill_node(self) -> None:
        node = self.dice.choice(sorted(self.gang.seats))
        self.done.append(f"kill node {node}")
        processes.kill_home(self.gang.home(node))

    def cut_register(self) -> None:
        """Take the register and the vault away for a while: a plain file is in their place."""
        seconds = self.dice.uniform(0.2, 1.5)
        self.done.append(f"no register for {seconds:.1f} s")
        here, away = self.gang.root / "vault", self.gang.root / "away"
        away.touch()
        exchange(here, away)
        time.sleep(seconds)
        exchange(here, away)

    # ---- what a controller does ------------------------------------------------------------------

    def heal(self) -> None:
        """Put an agent on each node that has none, and grant what is there, until it stands."""
        wait_for(self._healed, limit=60, pause=0.2)

    def _healed(self) -> bool:
        try:
            self._start_dead()
            if self.owes:
                self._grant()
        except HoldfastError:  # one more died meanwhile, or is too busy to answer in time
            return False
        return all(living_agent(self.place(node)) for node in sorted(self.gang.seats))

    def _start_dead(self) -> None:
        dead = [n for n in sorted(self.gang.seats) if living_agent(self.place(n)) is None]
        for place in map(self.place, dead):
            wait_for(partial(is_clear, place), limit=30)
        if dead:
            self.owes = True  # until all have it: a new agent without a grant never trains
            self.gang.start(*dead)

    def _grant(self) -> None:
        members = [node for node in self.members() if node in self.gang.seats]
        others = [node for node in sorted(self.gang.seats) if node not in members]
        wanted = (members + others)[: len(self.steady.nodes)]
        spare = [node for node in sorted(self.gang.seats) if node not in wanted]
        number = 1 + max(self.gang.report(node).grant for node in sorted(self.gang.seats))
        grant = self.gang.grant(number, "".join(wanted), "".join(spare), generations_max=10_000)
        body = {"ask": "grant", "grant": grants.encode(grant)}
        for node in sorted(self.gang.seats):
            if "accepted" not in self.gang.ask(node, body):
                return
        self.owes = False

    def place(self, node: str) -> Place:
        return Place(self.gang.home(node), "j.1")

    # ---- what must hold --------------------------------------------------------------------------

    def wait_progress(self) -> None:
        """Wait until all ranks have weighed their weights once more."""
        began, world = self.steady.last_step, len(self.steady.nodes) * self.steady.per_node

        def weighed() -> bool:
            found: dict[int, set[int]] = {}
            for one in self.steady.said:
                if "weighs" in one and one["step"] > began:
                    found.setdefault(one["step"], set()).add(one["rank"])
            return any(len(ranks) == world for ranks in found.values())

        try:
            wait_for(weighed, limit=60, pause=0.05)
        except AssertionError as error:
            raise AssertionError(
                f"{self}: no progress after step {began}: {self.state()}"
            ) from error

    def state(self) -> str:
        """Tell what each node says of itself, for a failure's message."""
        told = []
        for node in sorted(self.gang.seats):
            try:
                said = self.gang.report(node)
                lost = f", does not hear {', '.join(said.peers_lost)}" if said.peers_lost else ""
                notes = "; ".join(f"{note.kind} {note.text}" for note in said.notes[-5:])
                told.append(f"{node} {said.stage.value} under grant {said.grant}{lost}: {notes}")
            except HoldfastError as error:
                told.append(f"{node}: {error}")
        return "\n".join(told)

    def __str__(self) -> str:
        return f"seed {self.seed}: {'; '.join(self.done)}"


def is_clear(place: Place) -> bool:
    return place.gone.exists() or not processes.find(processes.Target(place.marker))


def exchange(one: Path, other: Path) -> None:
    """Let two names change places at one instant: nobody finds either of them missing."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = (os.fsencode(one), os.fsencode(other))
    if libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), "renameat2", str(one))
