"""A gang in brief: each formation is one event with the declared times, by the real rules.

Who proposes, who is in, from where it resumes, which budget is spent: `runtime.rounds`, as in the
agents. What is left out are the words between agents; `full.FullGang` says them, and a test
compares what becomes of equal worlds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum

from orchestrator.core.jobs import JobSpec
from orchestrator.core.nodes import NodeName
from orchestrator.runtime import rounds
from orchestrator.runtime.course import TELLERS
from orchestrator.runtime.grants import Grant
from orchestrator.runtime.lineage import Because, Cause, Generation, Lineage, Member, Record
from orchestrator.runtime.reports import AgentReport, Stage
from orchestrator.simulation.agenda import BEGIN, Event
from orchestrator.simulation.commits import record
from orchestrator.simulation.machine import Run, SimAgent
from orchestrator.simulation.plan import JobPlan, Kind
from orchestrator.simulation.reporting import report_of
from orchestrator.simulation.training import Saved, Training, Trip
from orchestrator.simulation.truth import Doing
from orchestrator.simulation.world import World

EPOCH = BEGIN.timestamp()
ROUND = 1.0  #: seconds of one round of words
SPREAD = 0.5  #: seconds in which peers hand a grant on
PING = 5.0  #: seconds after which a lost seat is missed
RETRY = 5.0  #: seconds between looks at a register that does not answer


class Phase(Enum):
    """Where the gang stands."""

    IDLE = "idle"
    HURT = "hurt"  #: something is wrong, and nobody noticed yet
    FORMING = "forming"
    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"  #: for a grant
    FAILED = "failed"
    DONE = "done"


@dataclass(eq=False)
class BriefGang:
    """The agents of one attempt."""

    world: World
    run: Run
    plan: JobPlan
    spec: JobSpec
    clock: Training
    phase: Phase = Phase.IDLE
    grant: Grant | None = None  #: highest that any live agent holds
    generation: Generation | None = None  #: the last one of this attempt
    because: Because = field(default_factory=lambda: Because(Cause.START))
    lost: set[NodeName] = field(default_factory=set)  #: seats that are missed
    short: str = ""
    told: bool = False  #: what a checkpoint costs was noted
    came: dict[str, object] | None = None  #: how far the ranks came that stand now; not yet noted
    trip: Trip = field(init=False)
    _members: tuple[NodeName, ...] = ()
    _next: Event | None = None
    _done_at: Event | None = None

    def __post_init__(self) -> None:
        """Begin before the first step."""
        self.trip = Trip(self.clock, self.plan.step, self.world.now)

    # --- what the world tells ---------------------------------------------------------------------

    @property
    def members(self) -> tuple[NodeName, ...]:
        """Nodes of the last generation."""
        return self._members

    @property
    def training(self) -> bool:
        """Whether steps are being made."""
        return self.phase is Phase.RUNNING

    @property
    def agents(self) -> dict[NodeName, SimAgent]:
        """The live agents."""
        return self.world.agents_of(self.run)

    def began(self, agent: SimAgent) -> None:
        """Hear that an agent was started."""
        node = NodeName(agent.member.node)
        self.lost.discard(node)
        if agent.grant is not None:
            self._hold(agent.grant)
            self._consider()
        self.world.touch_agent(node, self.run)

    def ended(self, node: NodeName) -> None:
        """Hear that the agent of a node and its ranks are no more."""
        self._missed(node)
        if node in self.members:
            self._hurt(Because(Cause.NODE_LOST, None, f"{node} is silent", node))

    def give(self, node: NodeName, grant: Grant) -> str | None:
        """Give a grant to an agent; its peers hand it on."""
        agent = self.agents[node]
        objection = self._object(agent, grant)
        if objection is None:
            self._accept(node, agent, grant)
            if self._hold(grant):
                self.world.agenda.after(SPREAD, self._spread)
        return objection

    def struck(self, node: NodeName, kind: Kind) -> None:
        """Hear that something befell a node's ranks or network, or that it is over."""
        machine = self.world.machines[node]
        if kind is Kind.LINK and not machine.cut:
            self.lost.discard(node)
            self._consider()
        elif kind is Kind.LINK:
            self._missed(node)
            if node in self.members:
                self._hurt(Because(Cause.NODE_LOST, None, f"{node} is silent", node))
        elif node in self.members and kind is Kind.GPU and not machine.sound:
            self._hurt(Because(Cause.RANK_EXIT, None, "exit 1: CUDA error", node, 0))
        elif node in self.members and kind is Kind.HANG:
            self._hurt(Because(Cause.HANG, None, "no progress", node, 0))
        elif node in self.members and kind is Kind.DEGRADED and self.phase is Phase.RUNNING:
            self._record(self.clock.settle(self.world.now))
            self.clock.speed = self._pace()
        self.world.touch_agent(node, self.run)

    def network_changed(self) -> None:
        """Nothing: in brief a node is cut off from everybody or from nobody."""

    def register_changed(self) -> None:
        """Hear that the register came, went, or was written by somebody else."""
        lineage = self._lineage
        if lineage.attempt > self.run[1]:
            self._end(Phase.WAITING)
            self._touch_all()
            return
        reachable = not self.world.registers[self.run[0]].down
        if self.phase is Phase.RUNNING and reachable is not self.clock.committing:
            self._record(self.clock.settle(self.world.now))
            self.clock.committing = reachable

    def confirmed(self, node: NodeName) -> None:
        """Nothing: in brief no gang is ever alone."""

    def retune(self, interval: float) -> None:
        """Take another interval between durable checkpoints."""
        if self.phase is Phase.RUNNING:
            self._record(self.clock.settle(self.world.now))
        self.clock.interval = interval

    def close(self) -> None:
        """Bring the books up to now: the world ends here."""
        if self.phase is Phase.RUNNING:
            self._record(self.clock.settle(self.world.now))
            self.world.reach(self.run[0], self.clock.work)

    def report(self, node: NodeName) -> AgentReport:
        """Return what the agent of a node says of itself."""
        agent = self.agents[node]
        lost: tuple[NodeName, ...] = ()
        if self.lost and node == self._witness():
            lost = tuple(sorted(self._lost_seats()))
        return report_of(
            self.world.machines[node],
            agent,
            self.world.now,
            stage=self._stage(node, agent),
            generation=self.generation,
            members=self.members,
            lost=lost,
            failure={**asdict(self.because), "cause": self.because.cause.value},
        )

    # --- grants -----------------------------------------------------------------------------------

    def _object(self, agent: SimAgent, grant: Grant) -> str | None:
        mine = agent.grant
        if mine is None or grant == mine:
            return None
        if grant.token < mine.token:
            return f"its token {grant.token} is below {mine.token}"
        return f"grant {mine.number} was accepted before" if grant.number <= mine.number else None

    def _accept(self, node: NodeName, agent: SimAgent, grant: Grant) -> None:
        agent.grant = self.world.machines[node].disk[self.run] = grant
        self.world.touch_agent(node, self.run)

    def _hold(self, grant: Grant) -> bool:
        newer = self.grant is None or grant.number > self.grant.number
        if newer:
            self.grant = grant
        return newer

    def _spread(self) -> None:
        grant = self.grant
        if grant is None:
            return
        seats, members = set(grant.seats), set(self.members)
        for node, agent in self.agents.items():
            known = agent.member in seats or node in members
            behind = agent.grant is None or agent.grant.number < grant.number
            if known and behind and self.world.machines[node].up:
                self._accept(node, agent, grant)
        self._consider()

    # --- what follows -----------------------------------------------------------------------------

    @property
    def _lineage(self) -> Lineage:
        return self.world.registers[self.run[0]].lineage

    def _consider(self) -> None:
        """See whether what stands may stand, under the newest grant."""
        grant = self.grant
        if grant is None or self._lineage.attempt != self.run[1]:
            return
        if self.phase in (Phase.IDLE, Phase.WAITING):
            self._soon(Phase.FORMING if self.generation else Phase.IDLE, ROUND, self._form)
        elif self.generation is not None and self.phase in (
            Phase.RUNNING,
            Phase.STARTING,
            Phase.FORMING,
        ):
            out = [m.node for m in self.generation.members if m not in grant.seats]
            if out and grant.number > self.generation.grant:
                why = f"grant {grant.number} leaves {', '.join(out)} out"
                self._because(Because(Cause.GRANT, None, why, out[0]))
                if self.phase is Phase.RUNNING:
                    self.world.stopped(self.run, self.because, self.world.now)
                    self.world.books_of(self.run).swaps += 1
                ran = self.phase is Phase.RUNNING
                self._stand(Doing.RESTARTING)
                if ran:
                    self.came = self.trip.facts(self.world.now)
                    self._tell_end(why)
                self._soon(Phase.FORMING, ROUND, self._form)

    def _hurt(self, because: Because) -> None:
        """Stop training now; it will be noticed."""
        if self.phase is Phase.RUNNING:
            step = int(self.clock.at(self.world.now) / self.plan.step)
            because = replace(because, step=step)
        self._because(because)
        if self.phase is Phase.RUNNING:
            self.world.stopped(self.run, because, self.world.now)
            self.world.books_of(self.run).stops += 1
            self._stand(Doing.UNNOTICED)
            self.came = self.trip.facts(self.world.now)
            self._soon(Phase.HURT, self.world.plan.times.detect, self._notice)
        elif self.phase is Phase.STARTING:
            self._soon(Phase.HURT, self.world.plan.times.detect, self._notice)

    def _because(self, because: Because) -> None:
        plain = self.phase in (Phase.RUNNING, Phase.STARTING)
        if plain or because.cause is Cause.NODE_LOST:
            self.because = because

    def _notice(self) -> None:
        self._tell_end(self.because.fingerprint)
        self._turn(Doing.RESTARTING)
        self._soon(Phase.FORMING, ROUND, self._form)
        self._touch_all()

    def _form(self) -> None:
        grant = self.grant
        if grant is None or self._lineage.attempt != self.run[1]:
            return
        if self.world.registers[self.run[0]].down:
            self._soon(Phase.FORMING, RETRY, self._form)
            return
        latest = self._lineage.latest
        here = {agent.member for node, agent in self.agents.items() if self._able(node, agent)}
        missing = [seat for seat in grant.nodes if seat not in here]
        silent = [seat for seat in (latest.members if latest else ()) if seat not in here]
        leaders = [m for m in rounds.proposers(latest, grant, silent) if m in here]
        if not leaders or (latest is None and missing):
            self._wait(f"{len(missing)} wanted nodes are not here")
            return
        chosen = rounds.choose(leaders[0], latest, here & set(grant.seats), grant)
        if len(chosen) < grant.nodes_min:
            self._wait(f"only {len(chosen)} nodes, {grant.nodes_min} are needed")
            return
        self._begin(grant, latest, chosen)

    def _able(self, node: NodeName, agent: SimAgent) -> bool:
        grant = self.grant
        held = grant is not None and agent.grant is not None and agent.grant.number == grant.number
        return held and self.world.machines[node].up

    def _wait(self, why: str) -> None:
        if self.phase is not Phase.WAITING:
            self._note(self._witness(), "waiting", why)
        self.short = why
        self.phase = Phase.WAITING
        self._turn(Doing.SHORT)
        self._touch_all()

    def _begin(self, grant: Grant, latest: Generation | None, chosen: tuple[Member, ...]) -> None:
        lineage, number = self._lineage, 1 if latest is None else latest.number + 1
        because = Because(Cause.START) if latest is None else self.because
        spent = rounds.spent(lineage, grant, because, number)
        if spent is not None:
            self.short = spent
            self._end(Phase.FAILED)
            self._touch_all()
            return
        resume, why = rounds.choose_bounded(lineage, because, grant.resume_max)
        register = self.world.registers[self.run[0]]

        def make(seq: int) -> Record:
            return Generation(
                seq=seq,
                nonce=f"g{seq}",
                under=lineage.fence.seq if lineage.fence else 0,
                after=None if latest is None else latest.seq,
                number=number,
                grant=grant.number,
                members=chosen,
                store=f"{chosen[0].host}:{seq}",
                resume=resume,
                why=why,
                because=because,
                at=EPOCH + self.world.now,
                by=chosen[0].node,
            )

        register.append(make)
        self.generation = register.lineage.latest
        self._members = tuple(NodeName(member.node) for member in chosen)
        self.short = ""
        self.world.touch_register(self.run[0])
        self._tell_formed(resume)
        times = self.world.plan.times
        cold = any(self._is_cold(NodeName(member.node)) for member in chosen)
        self._turn(Doing.STARTING if latest is None else Doing.RESTARTING)
        takes = times.recover - ROUND + (times.cold if cold else 0.0)
        self._soon(Phase.STARTING, max(0.1, takes), self._started)
        self._touch_all()

    def _is_cold(self, node: NodeName) -> bool:
        return self.world.now - self.agents[node].born < self.world.plan.times.cold

    def _started(self) -> None:
        """See whether the ranks of the new generation run."""
        generation, register = self.generation, self.world.registers[self.run[0]]
        if generation is None:
            return
        for node in self.members:
            machine, agent = self.world.machines[node], self.agents.get(node)
            if agent is None or not machine.up:
                self._fail_start(Because(Cause.NODE_LOST, None, f"{node} is silent", node))
                return
            if not machine.sound:
                self._fail_start(Because(Cause.RANK_EXIT, None, "exit 1: CUDA error", node, 0))
                return
        if generation.resume in register.damaged:
            words = f"commit {generation.resume} does not verify"
            bad = Because(Cause.VERIFICATION, None, words, self.members[0], 0, generation.resume)
            self._fail_start(bad)
            return
        self._run(register.work.get(generation.resume or 0, 0.0))

    def _fail_start(self, because: Because) -> None:
        self.because = because
        self._soon(Phase.FORMING, ROUND, self._form)
        self._touch_all()

    def _run(self, work: float) -> None:
        self.phase, self._next = Phase.RUNNING, None
        books = self.world.books_of(self.run)
        books.lose(self.world.reached(self.run[0]) - work)
        self.world.resumed(self.run, work)
        self.clock.speed = self._pace()
        self.clock.committing = not self.world.registers[self.run[0]].down
        self.clock.start(self.world.now, work)
        self.trip = Trip(self.clock, self.plan.step, self.world.now)
        for node in self.members[:TELLERS]:
            text = f"step {int(work / self.plan.step)}"
            self._note(node, "recovered", text, {"step": int(work / self.plan.step)})
        self._turn(Doing.TRAINING)
        if not self.told:
            first = self.clock.interval + self.clock.stall + self.clock.lag
            self.world.agenda.after(first, self._first_commit)
        if self.plan.work is not None:
            left = (self.plan.work - work) / self.clock.speed
            stalls = left / self.clock.interval * self.clock.stall
            self._done_at = self.world.agenda.after(left + stalls, self._finish)

    def _first_commit(self) -> None:
        """Let everybody see the first checkpoint when it is durable; later ones when it matters."""
        if self.phase is Phase.RUNNING and not self.told:
            self._record(self.clock.settle(self.world.now))

    def _finish(self) -> None:
        if self.phase is not Phase.RUNNING:
            return
        self._stand(Doing.NOTHING)
        self.came = {**self.trip.facts(self.world.now), "finished": True}
        self._tell_end("every rank ended with exit code 0")
        self.phase = Phase.DONE
        self._touch_all()

    def _pace(self) -> float:
        return min((self.world.machines[node].pace for node in self.members), default=1.0)

    def _stand(self, doing: Doing) -> None:
        """Stop the ranks, if they run, and keep what became durable."""
        if self._done_at is not None:
            self._done_at.cancel()
            self._done_at = None
        if self.phase is Phase.RUNNING:
            self.world.reach(self.run[0], self.clock.at(self.world.now))
            self._record(self.clock.stop(self.world.now))
        self._turn(doing)

    def _end(self, phase: Phase) -> None:
        self._stand(Doing.RESTARTING if phase is Phase.FAILED else Doing.SHORT)
        if self._next is not None:
            self._next.cancel()
        self.phase = phase

    def _record(self, saved: list[Saved]) -> None:
        """Append what became durable to the register, oldest first."""
        register, generation = self.world.registers[self.run[0]], self.generation
        if generation is None or register.down or register.lineage.ruler != generation.seq:
            return
        if record(register, generation, self.plan, saved):
            self.world.touch_register(self.run[0])
            self._tell_commit()

    # --- notes ------------------------------------------------------------------------------------

    def _note(
        self,
        node: NodeName | None,
        kind: str,
        text: str,
        data: Mapping[str, object] | None = None,
        at: float | None = None,
    ) -> None:
        """Let the agent of a node note something about the present generation, if it lives."""
        agent = None if node is None else self.agents.get(node)
        if agent is None or node is None or not self.world.machines[node].up:
            return
        named = {} if self.generation is None else {"generation": self.generation.number}
        moment = EPOCH + self.world.now if at is None else at
        agent.note(kind, text, moment, {**named, **(data or {})})
        self.world.touch_agent(node, self.run)

    def _tell_commit(self) -> None:
        """Let the leader's agent note what a checkpoint costs, as the vault measures it."""
        head = self._lineage.head
        if head is not None:
            took = {"stall_seconds": self.clock.stall, "lag_seconds": self.clock.lag}
            named = {"step": head.step, "seq": head.seq, "stalled_seconds": self.trip.stalled}
            self.told = True
            text, data = "a checkpoint is durable", {**took, **named}
            self._note(self.members[0], "commit", text, data, at=head.at)

    def _tell_formed(self, resume: int | None) -> None:
        latest = self.generation
        if latest is not None:
            commit = self._lineage.commit(resume)
            named = {"number": latest.number, "seq": latest.seq, "members": list(self.members)}
            begun = {"resume": resume, "step": None if commit is None else commit.step}
            text = f"generation {latest.number} of {', '.join(self.members)}"
            self._note(self.members[0], "generation-formed", text, {**named, **begun})

    def _tell_end(self, why: str) -> None:
        """Let the first members note how far the generation came."""
        came, self.came = self.came, None
        if came is not None:
            for node in self.members[:TELLERS]:
                self._note(node, "ranks-ended", why, came)

    # --- small things -----------------------------------------------------------------------------

    def _soon(self, phase: Phase, seconds: float, act: Callable[[], None]) -> None:
        if self._next is not None:
            self._next.cancel()
        self.phase = phase
        self._next = self.world.agenda.after(seconds, act)

    def _turn(self, doing: Doing) -> None:
        self.world.turn(self.run, doing, members=self.members)

    def _missed(self, node: NodeName) -> None:
        def miss() -> None:
            agent = self.agents.get(node)
            if agent is None or not self.world.machines[node].up:
                self.lost.add(node)
                witness = self._witness()
                if witness is not None:
                    self.world.touch_agent(witness, self.run)

        self.world.agenda.after(PING, miss)

    def _lost_seats(self) -> set[NodeName]:
        seats = () if self.grant is None else self.grant.seats
        return {NodeName(seat.node) for seat in seats} & self.lost

    def _witness(self) -> NodeName | None:
        """Name the node whose agent watches all others."""
        agents, lost = self.agents, self.lost
        here = next((node for node in self.members if node in agents and node not in lost), None)
        return here or next((node for node in sorted(agents) if node not in lost), None)

    def _touch_all(self) -> None:
        for node in self.agents:
            self.world.touch_agent(node, self.run)

    def _stage(self, node: NodeName, agent: SimAgent) -> Stage:
        if self.phase is Phase.FAILED:
            return Stage.FAILED
        if self.phase is Phase.DONE:
            return Stage.FINISHED if node in self.members else Stage.STANDBY
        if self._lineage.attempt > self.run[1]:
            return Stage.REVOKED
        grant = agent.grant
        if grant is None or grant.seat(node) is None:
            running = node in self.members and self.phase in (Phase.RUNNING, Phase.HURT)
            return Stage.IDLE if grant is None else Stage.RUNNING if running else Stage.REVOKED
        if node not in self.members and self.generation is not None:
            return Stage.WAITING if self.phase is Phase.WAITING else Stage.STANDBY
        return {
            Phase.IDLE: Stage.FORMING,
            Phase.HURT: Stage.RUNNING,
            Phase.FORMING: Stage.FORMING,
            Phase.STARTING: Stage.RUNNING,
            Phase.RUNNING: Stage.RUNNING,
            Phase.WAITING: Stage.WAITING,
            Phase.FAILED: Stage.FAILED,
            Phase.DONE: Stage.FINISHED,
        }[self.phase]
