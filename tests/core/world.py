"""A small pure world: clusters, agents and registers that behave in the obvious way.

It carries out what the core decides and tells the core what can be seen, second by second. The
gangs are a sketch of `runtime.membership`: the least that makes the core's stories come true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from orchestrator.core.assess import assess
from orchestrator.core.decisions import (
    AppendFence,
    Decision,
    Effect,
    Examine,
    GiveGrant,
    LedgerOnly,
    Repair,
    Settled,
    StartAgent,
    StopAgent,
    SweepNode,
    TestPairs,
)
from orchestrator.core.enact import enact, intend
from orchestrator.core.explain import explain
from orchestrator.core.fleet import Cluster, Fleet
from orchestrator.core.history import LADDER, RepairStep
from orchestrator.core.jobs import Attempt, AttemptState, JobSpec
from orchestrator.core.nodes import (
    ClusterName,
    JobName,
    Machine,
    MachineId,
    NodeName,
    NodeState,
    ProviderName,
)
from orchestrator.core.observations import (
    AgentGone,
    AgentSeen,
    AgentSilent,
    Examined,
    InventorySeen,
    MachineSeen,
    NodeReached,
    NodeUnreached,
    Observation,
    Ordered,
    OrderKind,
    PairRate,
    PairsTested,
    Power,
    Probed,
    RegisterSeen,
)
from orchestrator.core.policies import Policy
from orchestrator.core.reconcile import new_recall, reconcile
from orchestrator.core.submission import plain
from orchestrator.core.verdicts import Channel, FaultClass, Finding, Severity
from orchestrator.errors import TransientError
from orchestrator.runtime.lineage import (
    Because,
    Cause,
    Commit,
    Fence,
    Generation,
    Lineage,
    Member,
    Record,
    choose_resume,
)
from orchestrator.runtime.reports import PROTOCOL, AgentReport, Note, RankReport, Stage

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
QUICK = Policy(
    burn_in=timedelta(seconds=3),
    patience=timedelta(seconds=5),
    silence_max=timedelta(seconds=8),
    seat_wait=timedelta(seconds=6),
    probe_every=timedelta(seconds=1),
    look_every=timedelta(seconds=1),
    sweep_after=timedelta(seconds=3),
    doubt_max=1.0,
    revalidation=timedelta(seconds=2),
)


@dataclass
class SimAgent:
    """One agent process."""

    name: str
    port: int
    grant: int = 0
    seats: tuple[str, ...] = ()
    stage: Stage = Stage.IDLE
    notes: list[Note] = field(default_factory=list)
    failure: dict[str, object] = field(default_factory=dict)

    def note(self, kind: str, text: str, at: float) -> None:
        self.notes.append(Note(len(self.notes) + 1, at, kind, text))


@dataclass
class SimNode:
    """One machine."""

    cluster: str
    boot: int = 1
    on: bool = True
    reachable: bool = True
    starts_again: bool = True  #: a reboot brings it back
    slow: bool = False  #: a reboot is accepted, and takes its time
    agents_start: bool = True
    needs: RepairStep = RepairStep.RESET  #: the lowest step that mends its findings
    id: str = ""  #: of the machine under the name
    serials: tuple[str, ...] = ()
    unlisted: bool = False
    findings: list[Finding] = field(default_factory=list)
    hidden: list[Finding] = field(default_factory=list)  #: what only active checks find
    agents: dict[tuple[str, int], SimAgent] = field(default_factory=dict)
    gone: dict[tuple[str, int], str] = field(default_factory=dict)


@dataclass
class SimGang:
    """What the agents of one attempt share."""

    members: tuple[str, ...] = ()
    seq: int | None = None
    number: int = 0
    grant: int = 0
    step: int = 0


class World:
    """Everything outside the core, and the fleet as the ledger would hold it."""

    def __init__(
        self, clusters: dict[str, int], policy: Policy = QUICK, *, can: Iterable[str] = ("reboot",)
    ) -> None:
        self.policy = policy
        known = tuple(
            Cluster(ClusterName(c), ProviderName("sim"), frozenset(can)) for c in clusters
        )
        self.fleet = Fleet(now=BEGIN, clusters=known)
        self.nodes = {
            f"{cluster}-{number}": SimNode(cluster)
            for cluster, count in clusters.items()
            for number in range(1, count + 1)
        }
        self.lineages: dict[str, Lineage] = {}
        self.gangs: dict[tuple[str, int], SimGang] = {}
        self.steps_max: dict[str, int] = {}
        self.story: list[str] = []
        self.done: list[Decision] = []
        self.silent_registers: set[str] = set()
        self.ranks: tuple[RankReport, ...] = ()  #: what every agent says of its ranks
        self.frozen: set[str] = set()  #: jobs whose gangs do nothing at all
        self.refuses = False  #: the provider answers 503 whatever it is asked to repair
        self.slow_links: set[str] = set()  #: nodes behind a slow link
        self.no_links = False  #: no test between nodes is ever done
        self.deaf: set[str] = set()  #: nodes whose agents hear their peers, but not us
        self.recall = new_recall()
        self._ended: dict[str, Because] = {}
        self._orders = 0
        self._agents = 0
        self._seen: list[Observation] = []

    # --- what tests do --------------------------------------------------------------------------

    def order(self, kind: OrderKind, subject: str, by: str = "ann", **body: object) -> int:
        self._orders += 1
        now = self.fleet.now
        self._seen.append(Ordered(self._orders, now, by, kind, subject, "", dict(body)))
        return self._orders

    def submit(self, name: str, spec: JobSpec, steps: int = 10_000) -> None:
        if spec.register is not None:  # a register belongs to one job
            spec = replace(spec, register=f"{spec.register}/{name}")
        self.steps_max[name] = steps
        self.order(OrderKind.SUBMIT, name, **plain(spec))

    def see(self, observation: Observation) -> None:
        self._seen.append(observation)

    def run(self, seconds: int) -> World:
        for _ in range(seconds):
            self.tick()
        return self

    def until(self, true: Callable[[World], bool], limit: int = 120) -> World:
        for _ in range(limit):
            if true(self):
                return self
            self.tick()
        raise AssertionError("it never came true:\n" + "\n".join(self.story[-30:]))

    def fault(self, node: str, check: str = "xid", code: str = "79", **how: object) -> World:
        finding = Finding(
            check=check,
            component="gpu0",
            severity=Severity.CRITICAL,
            fault=FaultClass.HARDWARE,
            evidence="GPU has fallen off the bus",
            channel=Channel.NODE,
            observed_at=self.fleet.now,
            code=code,
        )
        self.nodes[node].findings.append(replace(finding, **how))  # type: ignore[arg-type]
        return self

    def stop_power(self, node: str, *, for_good: bool = False) -> None:
        sim = self.nodes[node]
        sim.on, sim.starts_again = False, not for_good
        sim.agents.clear()

    def kill_agent(self, node: str, *, proof: bool = False) -> None:
        sim = self.nodes[node]
        for run in sim.agents:
            if proof:
                sim.gone[run] = "guard"
        sim.agents.clear()

    # --- what tests ask -------------------------------------------------------------------------

    def state(self, node: str) -> NodeState:
        return self.fleet.nodes[NodeName(node)].state

    def states(self) -> dict[str, str]:
        return {name: self.state(name).value for name in sorted(self.fleet.nodes)}

    def job(self, name: str) -> str:
        return self.fleet.jobs[JobName(name)].state.value

    def attempt(self, job: str) -> Attempt:
        mine = [attempt for attempt in self.fleet.attempts if attempt.job == job]
        return max(mine, key=lambda attempt: attempt.number)

    def granted(self, job: str) -> tuple[NodeName, ...]:
        grant = self.attempt(job).grant
        return grant.seats if grant is not None else ()

    def members(self, job: str) -> tuple[str, ...]:
        attempt = self.attempt(job)
        return self.gangs.get((job, attempt.number), SimGang()).members

    def steps(self, job: str) -> int:
        numbers = [run[1] for run in self.gangs if run[0] == job]
        return self.gangs[job, max(numbers)].step if numbers else 0

    def pages(self) -> set[tuple[str, str]]:
        return {(one.page.value, one.subject) for one in self.fleet.incidents}

    def told(self, words: str) -> bool:
        return any(words in line for line in self.story)

    # --- one second -----------------------------------------------------------------------------

    def tick(self, *, cut: int | None = None) -> None:
        """Live one second; the controller is killed after `cut` of its decisions."""
        self.fleet = replace(self.fleet, now=self.fleet.now + SECOND)
        self._live()
        seen = [*self._seen, *self._look()]
        self._seen = []
        beliefs = assess(self.fleet.beliefs, seen, self.fleet.now)
        self.fleet = replace(self.fleet, beliefs=beliefs)
        self._settle()
        plan = reconcile(self.fleet, self.policy, self.recall)
        assert plan == reconcile(self.fleet, self.policy), (
            "what is recalled changes what is decided"
        )
        for decision in plan.decisions[:cut]:
            self.done.append(decision)
            self.story.append(explain(decision))
            if isinstance(decision, LedgerOnly):
                self.fleet = enact(self.fleet, decision, self.fleet.now)
            else:
                self.fleet = intend(self.fleet, decision, token=1, limit=self.policy.intent_limit)

    def _settle(self) -> None:
        """Carry out the intents of the second before, and see what came of them."""
        for intent in self.fleet.intents:
            passing = False
            try:
                self._carry_out(intent.decision)
                ok, text = True, "done"
            except (RuntimeError, TransientError) as error:
                ok, text = False, str(error)
                passing = isinstance(error, TransientError)
            settled = Settled(intent.key, self.fleet.now, ok, text, passing)
            kept = tuple(one for one in self.fleet.settled if one.key != intent.key)
            self.fleet = replace(self.fleet, settled=(*kept, settled))
        self.fleet = replace(self.fleet, intents=())
        beliefs = assess(self.fleet.beliefs, self._seen, self.fleet.now)
        self._seen = []
        self.fleet = replace(self.fleet, beliefs=beliefs)

    def _fence(self, job: JobName, attempt: int) -> Callable[[int], Record]:
        by = self.fleet.jobs[job].signature
        return lambda seq: Fence(seq, f"f{seq}", 1, attempt, self.epoch, by)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case AppendFence(job=job, attempt=attempt):
                if job in self.silent_registers:
                    raise RuntimeError("the register cannot be reached")
                lineage = self.lineages.get(job, Lineage())
                if lineage.then(self._fence(job, attempt)(lineage.next_seq)).void != lineage.void:
                    raise RuntimeError("a fence would be void")
                self.append(job, self._fence(job, attempt))
            case StartAgent(node=node, job=job, attempt=attempt):
                self._start(node, (job, attempt))
            case GiveGrant(node=node, job=job, attempt=attempt, number=number, agent=agent):
                self._give(node, (job, attempt), number, agent)
            case (
                StopAgent(node=node, job=job, attempt=attempt)
                | SweepNode(node=node, job=job, attempt=attempt)
            ):
                self._reach(node).agents.pop((job, attempt), None)
                self._seen.append(AgentGone(node, job, attempt, self.fleet.now, "swept"))
            case Repair(node=node, step=step):
                self._repair(node, step)
            case Examine(node=node):
                boot, stopped = f"{node}/{self._reach(node).boot}", bool(self._reach(node).agents)
                found = tuple(replace(one, boot_id=boot) for one in self.nodes[node].hidden)
                self._seen.append(Examined(node, self.fleet.now, boot, found, stopped))
            case TestPairs(inquiry=inquiry, round=number, pairs=pairs):
                rates = tuple(PairRate(*pair, self._rate(pair)) for pair in pairs)
                self._seen.append(PairsTested(inquiry, number, rates, self.fleet.now))

    def _rate(self, pair: tuple[NodeName, NodeName]) -> float | None:
        slow = self.slow_links & set(pair)
        return None if self.no_links else 1.0 if slow else 10.0

    def _repair(self, node: NodeName, step: RepairStep) -> None:
        sim = self.nodes[node]
        assert self.state(node) is NodeState.REPAIRING
        if self.refuses:
            raise TransientError("503")
        if LADDER.index(step) >= LADDER.index(sim.needs):
            sim.findings = []
        if step is RepairStep.RESET:
            self._reach(node)
            return
        sim.agents.clear()
        if not sim.starts_again:
            raise RuntimeError("it stays down")
        if sim.slow:
            return
        if step is RepairStep.REPLACE:
            sim.id, sim.serials, sim.findings = f"{sim.id or node}+", (f"new-{node}",), []
        sim.on, sim.boot = True, sim.boot + 1
        self._seen.append(NodeReached(node, self.fleet.now, f"{node}/{sim.boot}"))

    def _reach(self, node: str) -> SimNode:
        sim = self.nodes[node]
        if not sim.on or not sim.reachable:
            raise RuntimeError("no route to host")
        return sim

    def _start(self, node: NodeName, run: tuple[JobName, int]) -> None:
        sim = self._reach(node)
        if not sim.agents_start:
            raise RuntimeError("the agent did not listen")
        if run not in sim.agents:
            self._agents += 1
            sim.agents[run] = SimAgent(f"p{self._agents}", 4000 + self._agents)
            sim.gone.pop(run, None)
        self._seen.append(AgentSeen(node, self.fleet.now, self._report(node, run)))

    def _give(self, node: str, run: tuple[str, int], number: int, agent: str) -> None:
        sim, attempt = self._reach(node), self.attempt(run[0])
        if run not in sim.agents or sim.agents[run].name != agent or attempt.grant is None:
            raise RuntimeError("another agent by now")
        sim.agents[run].grant = number
        sim.agents[run].seats = attempt.grant.seats

    # --- what the world does by itself ----------------------------------------------------------

    @property
    def epoch(self) -> float:
        return self.fleet.now.timestamp()

    def _live(self) -> None:
        for attempt in self.fleet.attempts:
            live = attempt.grant is not None and attempt.state is not AttemptState.CLOSED
            if live and f"{attempt.job}.{attempt.number}" not in self.frozen:
                self._gang(attempt)

    def _agent(self, node: str, run: tuple[str, int]) -> SimAgent | None:
        return self.nodes[node].agents.get(run)

    def end_generation(self, job: str, cause: Cause, fingerprint: str = "", node: str = "") -> None:
        """Let a gang end its generation for a reason, and form the next one."""
        self._ended[job] = Because(cause, fingerprint=fingerprint, node=node)

    def _gang(self, attempt: Attempt) -> None:
        run = (str(attempt.job), attempt.number)
        gang = self.gangs.setdefault(run, SimGang())
        alive = {name: a for name in self.nodes if (a := self._agent(name, run)) is not None}
        top = max((agent.grant for agent in alive.values()), default=0)
        fit = {name: a for name, a in alive.items() if a.grant == top and name in a.seats}
        over = {Stage.FINISHED, Stage.FAILED}
        if not top or any(agent.stage in over for agent in alive.values()):
            return
        whole = gang.seq is not None and all(name in fit for name in gang.members)
        newer = top > gang.grant and set(gang.members) != set(self._choose(gang, fit, attempt))
        if not whole or newer or str(attempt.job) in self._ended:
            self._form(run, gang, fit, attempt, top)
        for name, agent in alive.items():
            if name in gang.members:
                agent.stage = Stage.RUNNING if gang.seq is not None else Stage.WAITING
            else:
                agent.stage = Stage.STANDBY if name in agent.seats else Stage.REVOKED
        if gang.members:
            self._step(run, gang)

    def _choose(self, gang: SimGang, fit: dict[str, SimAgent], attempt: Attempt) -> list[str]:
        spec = self.fleet.jobs[attempt.job].spec
        seats = next((agent.seats for agent in fit.values()), ())
        ranked = [*(m for m in gang.members if m in fit), *(s for s in seats if s in fit)]
        assert attempt.grant is not None
        if gang.grant < attempt.grant.number:  # a new grant says who is wanted
            ranked = [*(n for n in attempt.grant.nodes if n in fit), *ranked]
        chosen = list(dict.fromkeys(ranked))[: spec.nodes_max]
        return chosen if len(chosen) >= spec.nodes_min else []

    def _form(
        self,
        run: tuple[str, int],
        gang: SimGang,
        fit: dict[str, SimAgent],
        attempt: Attempt,
        top: int,
    ) -> None:
        chosen = self._choose(gang, fit, attempt)
        before, gang.members, gang.grant = gang.members, tuple(chosen), top
        if not chosen:
            gang.members = before
            gang.seq = None
            return
        lineage = self.lineages.get(run[0], Lineage())
        because = Because(Cause.START if not before else Cause.NODE_LOST)
        because = self._ended.pop(run[0], because)
        resume, why = choose_resume(lineage, because)
        gang.number += 1
        members = tuple(Member(name, "10.0.0.1", 1) for name in chosen)

        def make(seq: int) -> Generation:
            return Generation(
                seq=seq,
                nonce=f"g{seq}",
                under=lineage.fence.seq if lineage.fence else 0,
                after=lineage.latest.seq if lineage.latest else None,
                number=gang.number,
                grant=top,
                members=members,
                store="",
                resume=resume,
                why=why,
                because=because,
                at=self.epoch,
                by=chosen[0],
            )

        if self.fleet.jobs[attempt.job].spec.register is None:
            gang.seq = gang.number
        else:
            gang.seq = self.append(run[0], make)

    def _step(self, run: tuple[str, int], gang: SimGang) -> None:
        if gang.seq is None:
            return
        if self._fenced_off(run):
            return
        gang.step += 1
        if gang.step % 5 == 0 and self.fleet.jobs[JobName(run[0])].spec.register:
            seq, step = gang.seq, gang.step
            self.append(
                run[0], lambda at: Commit(at, f"c{at}", seq, step, None, "m", "d", self.epoch, "")
            )
        if gang.step >= self.steps_max.get(run[0], 10_000):
            for name in gang.members:
                agent = self._agent(name, run)
                if agent is not None:
                    agent.stage = Stage.FINISHED

    def _fenced_off(self, run: tuple[str, int]) -> bool:
        lineage = self.lineages.get(run[0], Lineage())
        return lineage.fence is not None and lineage.fence.attempt != run[1]

    def append(self, job: str, make: Callable[[int], Fence | Generation | Commit]) -> int:
        lineage = self.lineages.get(job, Lineage())
        seq = lineage.next_seq
        self.lineages[job] = lineage.then(make(seq))
        return seq

    # --- what can be seen -----------------------------------------------------------------------

    def _look(self) -> list[Observation]:
        seen: list[Observation] = []
        for cluster in self.fleet.clusters:
            seen.append(InventorySeen(cluster.name, "sim", self.fleet.now, self._list(cluster)))
        for name, sim in self.nodes.items():
            seen.extend(self._look_at(NodeName(name), sim))
        for name in self.fleet.jobs:
            if name in self.lineages and name not in self.silent_registers:
                seen.append(self._read(name))
        return seen

    def _list(self, cluster: Cluster) -> tuple[MachineSeen, ...]:
        return tuple(
            MachineSeen(
                NodeName(name),
                "c1",
                Machine(MachineId(f"i-{sim.id or name}"), "sim", serials=sim.serials),
                Power.RUNNING if sim.on else Power.STOPPED,
                f"{name}/{sim.boot}",
            )
            for name, sim in self.nodes.items()
            if sim.cluster == cluster.name and not sim.unlisted
        )

    def _look_at(self, name: NodeName, sim: SimNode) -> Iterable[Observation]:
        now, boot = self.fleet.now, f"{name}/{sim.boot}"
        if not sim.on or not sim.reachable:
            yield NodeUnreached(name, now, "no route to host")
        else:
            fine = Finding(
                "disk", "host", Severity.OK, FaultClass.HARDWARE, "", Channel.NODE, now, boot
            )
            findings = tuple(replace(one, boot_id=boot) for one in sim.findings)
            if sim.needs is not RepairStep.RESET:  # it is found again after every step below that
                findings = tuple(replace(one, observed_at=now) for one in findings)
            yield Probed(name, now, boot, (fine, *findings), complete=True)
        for run in self._asked(name):
            if sim.on and sim.reachable and run in sim.agents and name not in self.deaf:
                yield AgentSeen(name, now, self._report(name, run))
            elif sim.on and sim.reachable and run in sim.gone:
                yield AgentGone(name, run[0], run[1], now, sim.gone[run])
            else:
                yield AgentSilent(name, run[0], run[1], now, "connection refused")

    def _asked(self, name: NodeName) -> list[tuple[JobName, int]]:
        belief = self.fleet.beliefs.nodes.get(name)
        agents = belief.agents if belief else ()
        return [(agent.job, agent.attempt) for agent in agents if agent.gone_at is None]

    def _report(self, name: str, run: tuple[JobName, int]) -> AgentReport:
        agent, gang = self.nodes[name].agents[run], self.gangs.get(run, SimGang())
        granted = agent.seats
        lost = tuple(n for n in granted if n != name and not self._hears(n, run))
        short = agent.stage is Stage.RUNNING and any(m in lost for m in gang.members)
        return AgentReport(
            protocol=PROTOCOL,
            node=name,
            job=run[0],
            attempt=run[1],
            agent=agent.name,
            boot_id=f"{name}/{self.nodes[name].boot}",
            pid=1,
            host="10.0.0.1",
            port=agent.port,
            at=self.epoch,
            started_at=0.0,
            stage=Stage.WAITING if short else agent.stage,
            grant=agent.grant,
            token=1,
            generation=gang.number or None,
            generation_seq=gang.seq,
            members=gang.members,
            peers_lost=lost,
            ranks=self.ranks,
            notes=tuple(agent.notes),
            failure=agent.failure,
        )

    def _hears(self, node: str, run: tuple[str, int]) -> bool:
        sim = self.nodes[node]
        return sim.on and sim.reachable and run in sim.agents

    def _read(self, job: JobName) -> RegisterSeen:
        lineage = self.lineages[job]
        fence = lineage.fence
        mine = tuple(g for g in lineage.generations if fence and g.under == fence.seq)
        now, void = self.fleet.now, len(lineage.void)
        return RegisterSeen(job, now, fence, mine, lineage.head, len(lineage.commits), void)
