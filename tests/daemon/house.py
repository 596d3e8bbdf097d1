"""A daemon's loop with everything real but the world: a clock turned by hand, a cluster of dreams.

The ledger is the one in memory, and can be told to fail; pools, eyes, hands and the core are those
of the product.
"""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from orchestrator.actuators.hands import Hands
from orchestrator.core.beliefs import Beliefs
from orchestrator.core.decisions import Effect, Intent, LedgerOnly, MoveNode
from orchestrator.core.fleet import Cluster, Fleet
from orchestrator.core.jobs import JobSpec
from orchestrator.core.nodes import ClusterName, JobName, ProviderName, UnlawfulMoveError
from orchestrator.core.observations import Observation, OrderKind
from orchestrator.core.policies import Policy
from orchestrator.core.submission import plain
from orchestrator.daemon.eyes import Eyes
from orchestrator.daemon.loop import Loop, Message, Saw
from orchestrator.daemon.pools import Pools
from orchestrator.daemon.rhythm import Bell
from orchestrator.engines.api import AgentAddress, Found
from orchestrator.engines.footing import Footing, nothing
from orchestrator.engines.site import Keys, Site
from orchestrator.errors import TransientError
from orchestrator.ledger.api import Assess
from orchestrator.ledger.memory import MemoryLedger
from orchestrator.runtime.ranklogs import Piece, Which
from orchestrator.runtime.register import Register
from orchestrator.runtime.spec import AgentSpec
from orchestrator.runtime.store import open_store
from providers.api import Capability, Completed, Limited, MachineListed, Power, Run
from tests.core.world import QUICK

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
TTL = timedelta(seconds=20)


@dataclass
class HandClock:
    """Stands still until it is turned."""

    seconds: float = 0.0

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.seconds)

    def elapsed(self) -> float:
        return self.seconds

    def turn(self, seconds: float) -> None:
        self.seconds += seconds


class WilfulLedger(MemoryLedger):
    """The ledger in memory, which writes down what it is asked, and fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.failing: list[str] = []  # names of calls that fail once each
        self.refused: str | None = None  # a node that may not be moved: a bug of the core

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.failing:
            self.failing.remove(name)
            raise TransientError("the database is locked")

    def record(
        self, token: int, observations: Sequence[Observation], now: datetime, assess: Assess
    ) -> Beliefs:
        self._called("record")
        return super().record(token, observations, now, assess)

    def apply(self, token: int, decision: LedgerOnly, now: datetime) -> None:
        self._called("apply")
        if isinstance(decision, MoveNode) and decision.node == self.refused:
            raise UnlawfulMoveError(decision.node, decision.start, decision.end)
        super().apply(token, decision, now)

    def intend(
        self, token: int, decision: Effect, now: datetime, deadline: datetime
    ) -> Intent | None:
        self._called("intend")
        return super().intend(token, decision, now, deadline)

    def settle(
        self, token: int, key: str, now: datetime, *, ok: bool, text: str, data: Mapping[str, Any]
    ) -> None:
        self._called("settle")
        super().settle(token, key, now, ok=ok, text=text, data=data)

    def snapshot(self, now: datetime, clusters: tuple[Cluster, ...]) -> Fleet:
        self._called("snapshot")
        return super().snapshot(now, clusters)

    def renew(self, token: int, ttl: timedelta, now: datetime) -> bool:
        self._called("renew")
        return super().renew(token, ttl, now)

    def remember_alert(self, token: int, incident: int, state: Mapping[str, Any]) -> None:
        self._called("remember_alert")
        super().remember_alert(token, incident, state)


class DreamProvider(Limited):
    """Machines that are always on."""

    name = "sim"
    capabilities = frozenset({Capability.REBOOT})

    def __init__(self, nodes: Sequence[str]) -> None:
        self.nodes, self.rebooted = tuple(nodes), list[str]()

    def machines(self) -> tuple[MachineListed, ...]:
        return tuple(
            MachineListed(node, f"i-{node}", "c1", "sim", 0, (), Power.RUNNING, "b1", None)
            for node in self.nodes
        )

    def reboot(self, node: str) -> str:
        self.rebooted.append(node)
        return "b2"


class DreamWorkshop(DreamProvider):
    """One that can take every step of the repair ladder."""

    capabilities = frozenset(
        {Capability.RESET, Capability.REBOOT, Capability.REPROVISION, Capability.REPLACE}
    )

    def reset(self, node: str) -> str:
        return "b1"

    def reprovision(self, node: str) -> str:
        return "b3"

    def replace(self, node: str) -> str:
        return "i-new"


@dataclass
class DreamEngine:
    """Starts nothing; says what it is told to say."""

    started: list[str] = field(default_factory=list)
    swept: list[str] = field(default_factory=list)
    examined: list[str] = field(default_factory=list)
    fails: Exception | None = None
    found: Found = field(default_factory=lambda: Found(None, None, "b1"))

    def start(self, node: str, spec: AgentSpec) -> AgentAddress:
        self.started.append(node)
        if self.fails is not None:
            raise self.fails
        return AgentAddress("127.0.0.1", 1, "a1")  # nobody listens on port 1

    def find(self, node: str, run: str) -> Found:
        return self.found

    def sweep(self, node: str, run: str, token: int) -> dict[str, Any]:
        self.swept.append(f"{node} {run} {token}")
        return {"by": "sweep", "why": "asked"}

    def examine(
        self, node: str, argv: Sequence[str], token: int, limit: float
    ) -> tuple[bytes, bool]:
        self.examined.append(node)
        return b"", False

    def logs(self, node: str, run: str, wanted: Mapping[Which, int] | None) -> list[Piece]:
        return []


def healthy(argv: Sequence[str], *, stdin: bytes = b"", limit: float) -> Completed:
    """Run nothing, and find everything in order."""
    fine = {
        "version": 1,
        "check": "disk",
        "component": "host",
        "severity": "OK",
        "class": "hardware",
        "evidence": "",
        "channel": "node",
        "observed_at": BEGIN.timestamp(),
        "boot_id": "b1",
    }
    coverage = {"coverage": {"expected": 1, "passed": 1, "failed": 0, "skipped": 0}}
    return Completed(0, "\n".join(map(json.dumps, (fine, coverage))).encode(), b"")


def dream_site(provider: DreamProvider, engine: DreamEngine, run: Run = healthy) -> Site:
    return Site(
        cluster=ClusterName("ash"),
        provider=provider,
        engine=engine,
        run=lambda node: run,
        home=lambda node: Path("/nowhere") / node,
        host=lambda node: "127.0.0.1",
        health=lambda node, boot_id: ("checks", node, boot_id),
        footing=Footing(lambda node: run, "python3", Path("/nowhere"), nothing, nothing),
    )


@dataclass
class House:
    """A loop and everything around it."""

    folder: Path
    ledger: WilfulLedger = field(default_factory=WilfulLedger)
    clock: HandClock = field(default_factory=HandClock)
    engine: DreamEngine = field(default_factory=DreamEngine)
    policy: Policy = QUICK
    tell: Callable[[int, datetime], None] = lambda token, now: None
    token: int = 0

    def __post_init__(self) -> None:
        self.provider = DreamProvider(["ash-1", "ash-2"])
        self.move_in()

    def move_in(self) -> None:
        """Begin with a controller that knows nothing but the ledger."""
        site = dream_site(self.provider, self.engine)
        sites, keys, self.pools = {site.cluster: site}, Keys(self.folder / "secret"), Pools()
        self.inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.eyes = Eyes(
            sites=sites,
            keys=keys,
            pools=self.pools,
            clock=self.clock,
            post=lambda seen: self.inbox.put(Saw(seen)),
            register=_register,
            probe_every=self.policy.probe_every,
        )
        self.loop = Loop(
            ledger=self.ledger,
            eyes=self.eyes,
            hands=Hands(sites, keys, _register, lambda: 20.0),
            policy=self.policy,
            clusters=(Cluster(site.cluster, ProviderName("sim"), frozenset({"reboot"})),),
            clock=self.clock,
            inbox=self.inbox,
            tell=lambda token, now: self.tell(token, now),
        )

    def reign(self) -> None:
        token = self.ledger.acquire("me", TTL, self.clock.now())
        assert token is not None
        self.token = token
        self.loop.first_look(token)

    def live(self, seconds: int) -> None:
        """Look at everything and act, once a second."""
        for _ in range(seconds):
            self.clock.turn(1)
            self.loop.tick(self.token, [*Bell, *self.messages()])
        self.loop.tick(self.token, self.messages())

    def messages(self) -> list[Message]:
        assert self.pools.wait(10)
        found = []
        while not self.inbox.empty():
            found.append(self.inbox.get())
        return found

    def submit(self, *, register: str | None = None, nodes: int = 1) -> None:
        launch = {"command": ["true"], "workdir": "/"}
        url = str(self.folder / "register") if register is None else register
        spec = JobSpec(nodes, nodes, register=url, launch=launch)
        self.ledger.order(OrderKind.SUBMIT, "train", "ann", "", plain(spec), self.clock.now())

    def fleet(self) -> Fleet:
        return self.ledger.snapshot(self.clock.now(), self.loop.clusters)


def _register(job: JobName, fleet: Fleet) -> Register:
    return Register(open_store(str(fleet.jobs[job].spec.register)))
