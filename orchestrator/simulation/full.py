"""A gang in full: `runtime.membership` itself on every node, message by message.

The gang lives on a clock of its own, which stands while nothing happens in it: where all members
run the last generation and hear each other, pings would only repeat themselves. Whatever touches
the gang wakes it. So days pass quickly, and each minute that matters is played out in full.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from orchestrator.core.jobs import JobSpec, WhenAlone
from orchestrator.core.nodes import NodeName
from orchestrator.runtime import turns as t
from orchestrator.runtime.course import TELLERS
from orchestrator.runtime.grants import Grant
from orchestrator.runtime.lineage import (
    Because,
    Cause,
    Commit,
    Generation,
    Lineage,
    Member,
    Record,
)
from orchestrator.runtime.membership import Membership
from orchestrator.runtime.reports import AgentReport, Stage
from orchestrator.runtime.words import Phase, Word
from orchestrator.simulation.agenda import BEGIN, Event
from orchestrator.simulation.commits import record
from orchestrator.simulation.machine import Run, SimAgent
from orchestrator.simulation.plan import JobPlan, Kind
from orchestrator.simulation.reporting import report_of
from orchestrator.simulation.training import Training, Trip
from orchestrator.simulation.truth import Doing
from orchestrator.simulation.world import World

EPOCH = BEGIN.timestamp()
RANKS_TAKE = (1.0, 3.0)  #: seconds from StartRanks to the first step
ENDING_TAKES = 0.4  #: seconds from EndRanks to RanksGone
CONFIRM_EVERY = 2.0
STILL = 90.0  #: the same, wherever everybody is: longer than every limit of the machine's own
CALM = 4.0  #: seconds in which nothing changes before the gang's clock may stand
STAGES = (Stage.RUNNING, Stage.STANDBY, Stage.REVOKED, Stage.FINISHED, Stage.FAILED, Stage.IDLE)
RACES = 0.1  #: share of commits that are written without looking who rules


@dataclass(eq=False)
class Seat:
    """One agent of the gang and the ranks under it."""

    agent: SimAgent
    machine: Membership
    running: Generation | None = None
    up: bool = False  #: its ranks make steps
    hung: bool = False
    ticking_at: float = float("inf")
    read_on: bool = False  #: it went on reading the register while the gang's clock stood
    failure: Because | None = None  #: that its machine knew of when its ranks began
    failed_at: float | None = None  #: since when it knows of another one
    shown: tuple[Any, ...] = ()


@dataclass(eq=False)
class FullGang:
    """The agents of one attempt."""

    world: World
    run: Run
    plan: JobPlan
    spec: JobSpec
    clock: Training
    seats: dict[NodeName, Seat] = field(default_factory=dict)
    time: float = 0.0  #: seconds on the gang's own clock
    _offset: float = 0.0  #: world's time minus the gang's, while awake
    _awake: bool = False
    _confirming: bool = False  #: agents are told again and again that the controller lives
    _calm_since: float = 0.0
    _queue: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _count: int = 0
    _next: Event | None = None
    _trained: str | None = None  #: mark of the generation that trained last
    _stood_at: float = 0.0  #: when it stopped making steps
    _mourned: str | None = None  #: mark of the generation whose end was told last
    _noticed: str | None = None  #: mark of the generation whose end somebody knows of
    _done: str | None = None  #: mark of the generation that finished its work
    _booked: tuple[NodeName, ...] = ()  #: members that the books know
    _finish: Event | None = None
    _stores: int = 9_000
    takes: int = 0

    def __post_init__(self) -> None:
        """Throw its own dice."""
        self.dice = self.world.dice.of(f"gang {self.run[0]}/{self.run[1]}")
        self.trip = Trip(self.clock, self.plan.step, self.world.now)

    # --- what the world tells ---------------------------------------------------------------------

    @property
    def members(self) -> tuple[NodeName, ...]:
        """Nodes of the last generation."""
        latest = self._latest
        return () if latest is None else tuple(NodeName(m.node) for m in latest.members)

    @property
    def training(self) -> bool:
        """Whether steps are being made."""
        return self.clock.since is not None

    def began(self, agent: SimAgent) -> None:
        """Hear that an agent was started."""
        self._wake()
        node = NodeName(agent.member.node)
        alone = self.spec.when_alone is WhenAlone.STOP_AFTER
        terms = t.Terms(
            job=self.run[0],
            attempt=self.run[1],
            member=agent.member,
            born=self.time,
            register=self.spec.register is not None,
            stop_after=self.spec.stop_after.total_seconds() if alone else None,
        )
        self.seats[node] = Seat(agent, Membership(terms, self.time))
        self._feed(node, t.Tick() if agent.grant is None else t.Granted(agent.grant))

    def ended(self, node: NodeName) -> None:
        """Hear that the agent of a node and its ranks are no more."""
        self._wake()
        self.seats.pop(node, None)
        self._review()

    def give(self, node: NodeName, grant: Grant) -> str | None:
        """Give a grant to an agent; return its objection, if it has one."""
        self._wake()
        objection = self.seats[node].machine.objection(grant)
        if objection is None:
            self._keep(node, grant)
        return objection

    def struck(self, node: NodeName, kind: Kind) -> None:
        """Hear that something befell a node's ranks or network, or that it is over."""
        self._wake()
        seat, machine = self.seats.get(node), self.world.machines[node]
        if seat is not None and seat.running is not None and seat.up:
            if kind is Kind.GPU and not machine.sound:
                seat.up = False
                delay = self.dice.uniform(0.2, 3.0)
                self._trouble(node, seat.running, Cause.RANK_EXIT, "exit 1: CUDA error", delay)
            elif kind is Kind.HANG:
                seat.hung = True
                detect = self.world.plan.times.detect
                self._trouble(node, seat.running, Cause.HANG, "no progress", detect)
        self._review()

    def network_changed(self) -> None:
        """Hear that some nodes can or cannot speak with each other, or with a register, now."""
        self._wake()
        self._review()

    def register_changed(self) -> None:
        """Hear that the register came, went, or was written by somebody else."""
        self._wake()
        self._review()

    def confirmed(self, node: NodeName) -> None:
        """Hear that the controller keeps an answer of this agent."""
        if self._awake:
            self._feed(node, t.Confirmed(self.time))

    def retune(self, interval: float) -> None:
        """Take another interval between durable checkpoints."""
        self._commit()
        self.clock.interval = interval

    def close(self) -> None:
        """Bring the books up to now: the world ends here."""
        if self.training:
            self._commit()
            self.world.reach(self.run[0], self.clock.work)

    def report(self, node: NodeName) -> AgentReport:
        """Return what the agent of a node says of itself."""
        seat = self.seats[node]
        machine, latest = seat.machine, seat.machine.latest
        failure = machine.failure
        return report_of(
            self.world.machines[node],
            seat.agent,
            self.world.now,
            stage=machine.stage,
            generation=latest,
            members=() if latest is None else tuple(m.node for m in latest.members),
            lost=machine.peers_lost,
            failure={} if failure is None else {**asdict(failure), "cause": failure.cause.value},
        )

    # --- the gang's clock -------------------------------------------------------------------------

    def _wake(self) -> None:
        self._calm_since = self.time
        if self._awake:
            self.time = self.world.now - self._offset
            self._calm_since = self.time
            return
        self._awake, self._offset = True, self.world.now - self.time
        self._keep_confirming()
        self._catch_up()
        self._schedule()

    def _catch_up(self) -> None:
        """Let the machines know what they read while the gang's clock stood."""
        self._commit()
        lineage = self._register.lineage
        for node, seat in list(self.seats.items()):
            known = seat.machine.lineage
            if seat.read_on and known is not None and known.next_seq < lineage.next_seq:
                self._feed(node, t.Read(lineage, self.time))

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self.time + seconds, self._count, act))
        self._schedule()

    def _schedule(self) -> None:
        if not self._awake or not self._queue:
            return
        at = self._queue[0][0] + self._offset
        if self._next is not None and not self._next.cancelled:
            if self._next.at <= at:
                return
            self._next.cancel()
        self._next = self.world.agenda.at(at, self._turn)

    def _turn(self) -> None:
        """Let everything of the gang's clock happen that is due."""
        self._next = None
        self.time = max(self.time, self.world.now - self._offset)
        while self._queue and self._queue[0][0] <= self.time + 1e-9:
            _, _, act = heapq.heappop(self._queue)
            act()
        calm = self.time - self._calm_since
        if (calm >= CALM and self._may_stand()) or (calm >= STILL and not self._pends()):
            self._awake = False
            for node, seat in self.seats.items():
                seat.read_on = self.world.writes(node, self.run[0])
            self._keep_books(trains=self.training)
            return
        self._schedule()

    def _may_stand(self) -> bool:
        """Say whether nothing but pings would happen: everybody where he should be, in touch."""
        seats = self.seats
        if not seats:
            return True
        latest, lineage = self._latest, self._register.lineage
        if latest is None or lineage.latest is not latest:
            return lineage.attempt > self.run[1] and not any(s.running for s in seats.values())
        here = [node for node in seats if not self.world.machines[node].cut]
        for node, seat in seats.items():
            machine, stage = seat.machine, seat.machine.stage
            if node not in here:
                if stage is not Stage.WAITING or seat.running is not None:
                    return False
                continue
            if stage not in STAGES or machine.latest is not latest:
                return False
            if not self.world.writes(node, self.run[0]) or self.world.apart(here[0], node):
                return False
            if stage is Stage.RUNNING and seat.machine.phase is Phase.RUNNING and not seat.up:
                return False
        grants = {g.number for node in here if (g := seats[node].machine.grant) is not None}
        hung = any(seat.hung for seat in seats.values())
        return len(grants) <= 1 and not hung and (self.training or self._over())

    def _pends(self) -> bool:
        """Say whether ranks would stop by themselves: nobody is heard, and that has a limit."""
        if self.spec.when_alone is not WhenAlone.STOP_AFTER:
            return False
        return any(
            seat.running is not None
            and not self.world.hears(node)
            and not self.world.writes(node, self.run[0])
            for node, seat in self.seats.items()
        )

    def _over(self) -> bool:
        final = (Stage.FINISHED, Stage.FAILED, Stage.REVOKED)
        return all(seat.machine.stage in final for seat in self.seats.values())

    def _keep_confirming(self) -> None:
        """Let agents hear the controller where they stop without it; elsewhere it means nothing."""
        if self.spec.when_alone is WhenAlone.STOP_AFTER and not self._confirming:
            self._confirming = True
            self._after(CONFIRM_EVERY, self._confirm)

    def _confirm(self) -> None:
        self._confirming = False
        for node in list(self.seats):
            if self.world.hears(node):
                self._feed(node, t.Confirmed(self.time))
        if self._awake:
            self._keep_confirming()

    # --- turns of the machines --------------------------------------------------------------------

    def _feed(self, node: NodeName, given: t.Given) -> None:
        seat = self.seats.get(node)
        if seat is None:
            return
        self.takes += 1
        wishes = seat.machine.take(given, self.time)
        if seat.failed_at is None and seat.machine.failure is not seat.failure:
            seat.failed_at = self.world.now
            self._notice(seat.running)
        for wish in wishes:
            self._carry_out(node, seat, wish)
        wake = seat.machine.wake_at
        if wake < float("inf") and (wake < seat.ticking_at or seat.ticking_at <= self.time):
            seat.ticking_at = at = max(wake, self.time)
            self._after(at - self.time + 1e-6, lambda: self._tick(node, seat, at))
        self._show(node, seat)

    def _tick(self, node: NodeName, seat: Seat, at: float) -> None:
        if self.seats.get(node) is seat and seat.ticking_at == at:  # else another came in between
            seat.ticking_at = float("inf")
            self._feed(node, t.Tick())

    def _answer(self, node: NodeName, given: t.Given, seconds: float) -> None:
        seat = self.seats.get(node)

        def come() -> None:
            if self.seats.get(node) is seat:
                self._feed(node, given)

        self._after(seconds, come)

    def _show(self, node: NodeName, seat: Seat) -> None:
        """Tell the world if the agent would answer something else now."""
        machine, latest = seat.machine, seat.machine.latest
        number = machine.grant.number if machine.grant else 0
        shown = (
            machine.stage,
            number,
            None if latest is None else latest.mark,
            machine.peers_lost,
            seat.agent.told,
        )
        if shown != seat.shown:
            seat.shown = shown
            self._calm_since = self.time
            self.world.touch_agent(node, self.run)

    def _carry_out(self, node: NodeName, seat: Seat, wish: t.Wish) -> None:
        match wish:
            case t.Send(to=to, word=word):
                self._send(node, to, word)
            case t.KeepGrant(grant=grant):
                self._after(0.0, lambda: self._keep(node, grant))
            case t.ReadRegister():
                self._read(node)
            case t.BindStore():
                self._stores += 1
                self._answer(node, t.Bound(self._stores, held=True), self.dice.uniform(0.0, 0.1))
            case t.Append(draft=draft, lineage=lineage):
                self._append(node, draft, lineage)
            case t.StartRanks(generation=generation):
                self._start_ranks(node, seat, generation)
            case t.EndRanks(why=why):
                self._end_ranks(node, seat, why)
            case t.Tell(kind=kind, text=text, data=data):
                seat.agent.note(kind, text, EPOCH + self.world.now, data)
                if kind == "alone":
                    self.world.left_alone(node, self.run)

    def _keep(self, node: NodeName, grant: Grant) -> None:
        seat = self.seats.get(node)
        if seat is not None:
            seat.agent.grant = self.world.machines[node].disk[self.run] = grant
            self._feed(node, t.Granted(grant))

    def _send(self, node: NodeName, to: Member, word: Word) -> None:
        other = NodeName(to.node)
        if self.world.apart(node, other):
            self._answer(node, t.Broken(to), 1.0)
            return
        seat = self.seats.get(other)
        if seat is None or seat.machine.me != to:
            proven = self.run in self.world.machines[other].gone
            self._answer(node, t.Gone(to) if proven else t.Broken(to), 0.005)
            return
        self._answer(other, t.Heard(word), self.dice.uniform(0.001, 0.01))

    # --- register ---------------------------------------------------------------------------------

    @property
    def _register(self) -> Any:
        return self.world.registers[self.run[0]]

    @property
    def _latest(self) -> Generation | None:
        """The last generation of this attempt: recorded, or formed while no record could be."""
        formed = [
            seat.machine.latest
            for seat in self.seats.values()
            if seat.machine.latest is not None and seat.running is not None
        ]
        lineage: Lineage = self._register.lineage
        counted = lineage.latest if lineage.attempt == self.run[1] else None
        newest = max(formed, key=lambda one: one.number, default=counted)
        if counted is not None and (newest is None or counted.number >= newest.number):
            return counted
        return newest

    def _read(self, node: NodeName) -> None:
        if not self.world.writes(node, self.run[0]):
            self._answer(node, t.Unread("no answer"), self.dice.uniform(0.5, 2.0))
            return
        lineage, began = self._register.lineage, self.time
        self._answer(node, t.Read(lineage, began), self.dice.uniform(0.0, 0.05))

    def _append(self, node: NodeName, draft: Generation, lineage: Lineage) -> None:
        takes, register = self.dice.uniform(0.0, 0.1), self._register
        if not self.world.writes(node, self.run[0]):
            self._answer(node, t.Unsure("no answer"), takes)
        elif lineage.next_seq != register.lineage.next_seq:
            self._answer(node, t.Overtaken(register.lineage), takes)
        else:

            def make(seq: int) -> Record:
                at = EPOCH + self.world.now
                return replace(draft, seq=seq, nonce=f"g{seq}", at=at, by=node)

            register.append(make)
            self.world.touch_register(self.run[0])
            lost = self.dice.random() < 0.02
            answer = t.Unsure("lost") if lost else t.Appended(register.lineage)
            self._answer(node, answer, takes)

    # --- ranks ------------------------------------------------------------------------------------

    def _start_ranks(self, node: NodeName, seat: Seat, generation: Generation) -> None:
        if seat.running is not None:
            raise AssertionError(f"{node} runs two generations of {self.run}")
        seat.running, seat.up, seat.hung = generation, False, False
        seat.failure, seat.failed_at = seat.machine.failure, None
        self._after(
            self.dice.uniform(*RANKS_TAKE), lambda: self._ranks_begin(node, seat, generation)
        )

    def _ranks_begin(self, node: NodeName, seat: Seat, generation: Generation) -> None:
        if self.seats.get(node) is not seat or seat.running is not generation:
            return
        if not self.world.machines[node].sound:
            self._trouble(node, generation, Cause.RANK_EXIT, "exit 1: CUDA error", 0.1)
        elif generation.resume in self._register.damaged:
            self._trouble(node, generation, Cause.VERIFICATION, "it does not verify", 0.1)
        else:
            seat.up = True
            self._review()

    def _end_ranks(self, node: NodeName, seat: Seat, why: str) -> None:
        generation = seat.running
        if generation is None:
            raise AssertionError(f"ranks of {self.run} on {node} ended twice")
        because = None if seat.machine.failure is seat.failure else seat.machine.failure
        trained = generation.mark == self._trained and generation.mark != self._mourned
        if trained and because is not None:
            self._mourned = generation.mark
            since = self._stood_at if not self.training else self.world.now
            if seat.failed_at is not None:
                since = min(since, seat.failed_at)
            self.world.stopped(self.run, because, since)
        seat.up = False
        self._notice(generation)
        self._review()
        self._tell_end(node, seat, generation, why)
        self._after(ENDING_TAKES, lambda: self._ranks_gone(node, seat, generation))

    def _ranks_gone(self, node: NodeName, seat: Seat, generation: Generation) -> None:
        if self.seats.get(node) is seat and seat.running is generation:
            seat.running, seat.hung = None, False
            self._feed(node, t.RanksGone())

    def _trouble(
        self, node: NodeName, generation: Generation, cause: Cause, words: str, delay: float
    ) -> None:
        seat = self.seats[node]
        started = self._trained == generation.mark
        step = int(self.clock.at(self.world.now) / self.plan.step) if started else None
        commit = generation.resume if cause is Cause.VERIFICATION else None
        because = Because(cause, step, words, node, 0, commit)

        def tell() -> None:
            if self.seats.get(node) is seat and seat.running is generation:
                self._feed(node, t.RanksTroubled(because, self.time))

        self._after(delay, tell)

    # --- training ---------------------------------------------------------------------------------

    def _review(self) -> None:
        """See from the level whether steps are made now, and keep clock and books to it."""
        latest = self._latest
        trains = latest is not None and latest.mark != self._done and self._all_up(latest)
        if self.training and (not trains or latest is None or latest.mark != self._trained):
            self._stand()
        if trains and not self.training and latest is not None:
            self._go(latest)
        elif self.training and latest is not None:
            self._pace(latest)
        self._keep_books(trains=self.training)

    def _all_up(self, latest: Generation) -> bool:
        nodes = [NodeName(member.node) for member in latest.members]
        for node in nodes:
            seat = self.seats.get(node)
            if seat is None or not seat.up or seat.hung or seat.running is None:
                return False
            if seat.running.mark != latest.mark or self.world.apart(nodes[0], node):
                return False
        return True

    def _go(self, latest: Generation) -> None:
        register = self._register
        if self._trained == latest.mark:
            work = self.world.reached(self.run[0])  # the very ranks go on
        else:
            work = register.work.get(latest.resume or 0, 0.0)
            self.world.books_of(self.run).lose(self.world.reached(self.run[0]) - work)
        goes_on = self._trained == latest.mark
        self._trained = latest.mark
        self.world.resumed(self.run, work)
        self._pace(latest)
        self.clock.start(self.world.now, work)
        if not goes_on:
            self.trip = Trip(self.clock, self.plan.step, self.world.now)
            step = int(work / self.plan.step)
            for member in latest.members[:TELLERS]:
                self._note(member, latest, "recovered", f"step {step}", {"step": step})
        if self.plan.work is not None:
            left = (self.plan.work - work) / self.clock.speed
            left *= 1.0 + self.clock.stall / self.clock.interval
            self._finish = self.world.agenda.after(left, lambda: self._finished(latest))

    def _pace(self, latest: Generation) -> None:
        nodes = [NodeName(member.node) for member in latest.members]
        speed = min(self.world.machines[node].pace for node in nodes)
        writes = self.world.writes(nodes[0], self.run[0])
        if (speed, writes) != (self.clock.speed, self.clock.committing):
            self._commit()
            self.clock.speed, self.clock.committing = speed, writes

    def _stand(self) -> None:
        if self._finish is not None:
            self._finish.cancel()
        self.world.reach(self.run[0], self.clock.at(self.world.now))
        self._write(self.clock.stop(self.world.now))
        self._stood_at = self.world.now
        self.world.books_of(self.run).stops += 1

    def _commit(self) -> None:
        if self.training:
            self._write(self.clock.settle(self.world.now))

    def _write(self, saved: list[Any]) -> None:
        """Write commits as the leader did, mostly after a look at who rules.

        They come from the clock, which counts only those of times at which they could be written.
        """
        register = self._register
        mark = self._trained
        generation = next(
            (one for one in reversed(register.lineage.generations) if one.mark == mark), None
        )
        if generation is None or not saved:
            return
        rules = register.lineage.ruler == generation.seq
        if (rules or self.dice.random() < RACES) and record(register, generation, self.plan, saved):
            self.world.touch_register(self.run[0])
            self._tell_commit(generation, register.records[-1])

    # --- notes ------------------------------------------------------------------------------------

    def _note(
        self,
        member: Member,
        generation: Generation,
        kind: str,
        text: str,
        data: Mapping[str, object],
        at: float | None = None,
    ) -> None:
        """Let a member's agent note something about a generation, if that agent lives."""
        node = NodeName(member.node)
        seat = self.seats.get(node)
        if seat is not None:
            moment = EPOCH + self.world.now if at is None else at
            seat.agent.note(kind, text, moment, {"generation": generation.number, **data})
            self.world.touch_agent(node, self.run)

    def _tell_commit(self, generation: Generation, made: Record) -> None:
        """Let the leader's agent note what a checkpoint costs, as the vault measures it."""
        took = {"stall_seconds": self.clock.stall, "lag_seconds": self.clock.lag}
        if isinstance(made, Commit):
            named = {"step": made.step, "seq": made.seq, "stalled_seconds": self.trip.stalled}
            text, data = "a checkpoint is durable", {**took, **named}
            self._note(generation.members[0], generation, "commit", text, data, made.at)

    def _tell_end(self, node: NodeName, seat: Seat, generation: Generation, why: str) -> None:
        """Let one of the first members note how far its generation came, if it trained at all."""
        first = [member.node for member in generation.members[:TELLERS]]
        if generation.mark == self._trained and node in first:
            done = generation.mark == self._done
            facts = {**self.trip.facts(self._stood_at), "finished": done}
            self._note(seat.agent.member, generation, "ranks-ended", why, facts)

    def _finished(self, latest: Generation) -> None:
        if self._trained != latest.mark or not self.training:
            return
        self._wake()
        self._done = latest.mark
        self._review()
        for member in latest.members[:TELLERS]:
            facts = {**self.trip.facts(self.world.now), "finished": True}
            self._note(member, latest, "ranks-ended", "every rank ended with exit code 0", facts)
        for member in latest.members:
            self._feed(NodeName(member.node), t.RanksFinished())

    def _notice(self, generation: Generation | None) -> None:
        """Hear that somebody knows that the ranks of a generation stand."""
        if generation is not None and generation.mark == self._trained:
            self._noticed = generation.mark
            self._keep_books(trains=self.training)

    def _keep_books(self, *, trains: bool) -> None:
        books = self.world.books_of(self.run)
        if trains:
            doing = Doing.TRAINING
        elif self._trained is not None and self._trained == self._done:
            doing = Doing.NOTHING
        elif books.first_step_at is None:
            doing = Doing.STARTING if self.seats else Doing.NOTHING
        else:
            waiting = any(s.machine.stage is Stage.WAITING for s in self.seats.values())
            unnoticed = self._trained is not None and self._trained != self._noticed
            doing = Doing.UNNOTICED if unnoticed else Doing.RESTARTING
            doing = Doing.SHORT if waiting or not self.seats else doing
        members = self.members
        if doing is not books.doing or members != self._booked:
            self._booked = members
            self.world.turn(self.run, doing, members=members)
