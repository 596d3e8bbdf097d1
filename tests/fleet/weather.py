"""Faults of three kinds of clusters in a soak, drawn from dice and undone after a while."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.runtime import processes
from providers import local
from tests.fleet.rack import Rack
from tests.fleet.slurm import Slurm
from tests.system.fleet import LocalFleet


@dataclass
class Weather:
    """Faults of one fleet; each returns whether there was anything to break."""

    fleet: LocalFleet
    rack: Rack
    slurm: Slurm
    jobs: tuple[str, ...]
    dice: random.Random
    happened: Counter[str] = field(default_factory=Counter)
    undone: dict[str, tuple[float, Callable[[], object]]] = field(default_factory=dict)

    def strike(self) -> None:
        """Let one thing happen."""
        name = self.dice.choice(sorted(FAULTS))
        if FAULTS[name](self):
            self.happened[name] += 1

    def clear_up(self, *, everything: bool = False) -> None:
        """Undo what has lasted long enough."""
        for what, (due, undo) in list(self.undone.items()):
            if everything or due <= time.monotonic():
                del self.undone[what]
                undo()

    def lasting(self, what: str, do: Callable[[], object], undo: Callable[[], object]) -> bool:
        """Do something that is undone 5 to 40 seconds later, unless it lasts already."""
        if what in self.undone:
            return False
        do()
        self.undone[what] = (time.monotonic() + self.dice.uniform(5, 40), undo)
        return True

    def a_rank(self, number: signal.Signals) -> bool:
        """Send a signal to a rank of any job, wherever it runs."""
        ranks = []
        for one in processes.every():
            env = processes.environment(one.pid) or {}
            job = env.get("HOLDFAST_RUN", "").partition(".")[0]
            if "RANK" in env and job in self.jobs and one.state != "T":
                ranks.append(one.pid)
        if not ranks:
            return False
        try:
            os.kill(self.dice.choice(sorted(ranks)), number)
        except ProcessLookupError:
            return False
        return True


def _host(verb: str, undo: str) -> Callable[[Weather], bool]:
    def fault(weather: Weather) -> bool:
        host = weather.dice.choice(weather.rack.names)
        return weather.lasting(
            f"host {host}",
            lambda: weather.rack.do(verb, host),
            lambda: weather.rack.do(undo, host),
        )

    return fault


def _board(weather: Weather) -> bool:
    host = weather.rack.names[0]
    return weather.lasting(
        "board",
        lambda: weather.rack.do("board", host, "broken"),
        lambda: weather.rack.do("board", host, "well"),
    )


def _local_power(weather: Weather) -> bool:
    homes = sorted(weather.fleet.state.glob("clusters/*/*/machine.json"))
    running = [one.parent for one in homes if local.is_running(one.parent)]
    if not running:
        return False
    local.cut_power(weather.dice.choice(running))
    return True  # the ladder starts it again


def _slurmd(weather: Weather) -> bool:
    node = weather.dice.choice(weather.slurm.nodes)
    return weather.lasting(
        node,
        lambda: weather.slurm.kill(node),
        lambda: weather.slurm.start_node(node),
    )


def _slurmctld(weather: Weather) -> bool:
    return weather.lasting(
        "slurmctld",
        lambda: weather.slurm.kill("slurmctld"),
        weather.slurm.start_controller,
    )


def _controller(weather: Weather) -> bool:
    weather.fleet.daemons[-1].kill()
    weather.fleet.daemons[-1].wait()
    weather.fleet.start_daemon()
    return True


FAULTS: dict[str, Callable[[Weather], bool]] = {
    "kill-rank": lambda weather: weather.a_rank(signal.SIGKILL),
    "stop-rank": lambda weather: weather.a_rank(signal.SIGSTOP),
    "power of a host": _host("kill", "start"),
    "link of a host": _host("cut", "heal"),
    "freeze of a host": _host("hang", "thaw"),
    "boards": _board,
    "power of a local node": _local_power,
    "slurmd": _slurmd,
    "slurmctld": _slurmctld,
    "controller": _controller,
}
