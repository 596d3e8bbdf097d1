"""One round: ask everybody, see who may be named, bind a store, create the record.

`membership.py` says when a round is needed and what is known (`Table`); this decides, look after
look, what still stands in the way. Nothing here remembers more than the round itself, so that a
round may be dropped and begun again at any moment.

Pure, standard library only, Python 3.10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Union

from orchestrator.runtime import rounds
from orchestrator.runtime.grants import Grant
from orchestrator.runtime.lineage import Because, Cause, Generation, Lineage, Member
from orchestrator.runtime.neighbours import Alarm, Peers
from orchestrator.runtime.turns import Append, BindStore, Bound, Terms
from orchestrator.runtime.words import Phase, Status, Trouble


@dataclass(frozen=True)
class Table:
    """What is known when a round is looked at."""

    terms: Terms
    grant: Grant
    lineage: Lineage
    latest: Generation | None  #: the last generation, with or without a record
    trouble: Trouble | None
    noticed_at: float  #: when the trouble was first noticed, machine's clock
    peers: Peers
    alarm: Alarm
    unread_since: float | None  #: since when the register does not answer
    unsure: bool

    @property
    def me(self) -> Member:
        """Who looks: the node this machine runs on."""
        return self.terms.member

    @cached_property
    def others(self) -> tuple[Member, ...]:
        """Everybody that a round asks."""
        old = () if self.latest is None else self.latest.members
        everybody = dict.fromkeys((*self.grant.seats, *old))
        return tuple(member for member in everybody if member != self.me)


@dataclass
class Round:
    """One question to everybody."""

    key: tuple[str | None, int]  #: what the round follows: a generation, under a grant
    first: int  #: number of its first question
    began_at: float
    ready_at: float | None = None  #: since when nothing but waiting stands in the way


@dataclass(frozen=True)
class Formed:
    """A generation that comes into being without a record."""

    generation: Generation


@dataclass(frozen=True)
class Spent:
    """No generation may be formed any more."""

    reason: str
    because: Because


Outcome = Union[BindStore, Append, Formed, Spent, None]


class Forming:
    """The present round, if there is one."""

    def __init__(self) -> None:
        """Begin without a round."""
        self.round: Round | None = None
        self.port: Bound | None = None
        self.busy = False  #: a port is being bound or a record created
        self.short = ""  #: why the gang cannot form within its grant; "" if it can
        self.obstacle = ""  #: what the round waits for, for people

    def rest(self) -> None:
        """Drop the round: none is needed."""
        self.round, self.short, self.obstacle = None, "", ""

    def step(self, table: Table) -> Outcome:
        """Look again; return what to do next, None while something stands in the way."""
        latest = table.latest
        key = (None if latest is None else latest.mark, table.grant.number)
        if self.round is None or self.round.key != key:
            self.round = Round(key, table.peers.next_number, table.alarm.now)
            self.port = None
            for member in table.others:
                table.peers.of(member).ask_at = table.alarm.now
        self.short = ""
        look = _Look(table, self.round)
        self.obstacle = look.obstacle()
        if self.obstacle:
            self.round.ready_at = None
        elif self.round.ready_at is None:
            self.round.ready_at = table.alarm.now
        self.short = look.short
        if self.busy or self.obstacle or not look.is_my_turn():
            return None
        return self._propose(table, look)

    def _propose(self, table: Table, look: _Look) -> Outcome:
        because = look.because()
        number = 1 if table.latest is None else table.latest.number + 1
        objection = rounds.spent(table.lineage, table.grant, because, number)
        if objection is not None:
            return Spent(objection, because)
        if self.port is None:
            self.busy = True
            return BindStore()
        draft = _draft(table, look.chosen, because, self.port)
        if not table.terms.register:
            return Formed(replace(draft, seq=number, after=None))
        if table.unread_since is not None:
            return Formed(draft)
        self.busy = True
        return Append(draft, table.lineage)


def _draft(table: Table, members: tuple[Member, ...], because: Because, port: Bound) -> Generation:
    fence, counted, latest = table.lineage.fence, table.lineage.latest, table.latest
    resume, why = rounds.choose_bounded(table.lineage, because, table.grant.resume_max)
    return Generation(
        seq=table.lineage.next_seq,
        nonce="",
        under=0 if fence is None else fence.seq,
        after=None if counted is None else counted.seq,
        number=1 if latest is None else latest.number + 1,
        grant=table.grant.number,
        members=members,
        store=f"{table.me.host}:{port.port}",
        resume=resume,
        why=why,
        because=because,
        at=0.0,
        by=table.me.node,
        held=port.held,
    )


class _Look:
    """One look at the table: who answered, who can be named, what stands in the way."""

    def __init__(self, table: Table, round_: Round) -> None:
        self._table, self._round = table, round_
        self.short = ""
        self.answers: Mapping[Member, Status] = table.peers.answers_since(
            round_.first, table.others
        )
        self._silent = {one for one in table.others if table.peers.silent(one)}
        self._missing = {one for one in table.others if one not in self.answers}
        self.candidates = {table.me}
        self.candidates |= {one for one, said in self.answers.items() if self._may_be_named(said)}
        self.chosen = rounds.choose(table.me, table.latest, self._choice(), table.grant)

    def _may_be_named(self, said: Status) -> bool:
        # Who cannot read the register would not learn that it was named, and never join.
        informed = said.reached or not self._by_register
        return (
            said.phase is Phase.CLEAR
            and said.ready
            and informed
            and said.grant == self._table.grant.number
            and not said.stopping
            and said.member in self._table.grant.seats
        )

    @property
    def _by_register(self) -> bool:
        return self._table.terms.register and self._table.unread_since is None

    def _choice(self) -> set[Member]:
        """Leave out whom this kind of formation may not name, though it could."""
        table = self._table
        if not table.terms.register:
            return self.candidates & set(table.grant.nodes)
        if table.unread_since is not None and table.latest is not None:
            return self.candidates & set(table.latest.members)
        return self.candidates

    @property
    def _order(self) -> tuple[Member, ...]:
        table = self._table
        if not table.terms.register:
            return table.grant.nodes[:1]
        return rounds.proposers(table.latest, table.grant, self._lost)

    @property
    def _lost(self) -> set[Member]:
        """Return whose place others may take: proven gone, or silent and given up by the grant.

        Silence alone is not enough. Where a network falls apart each side would take the gang from
        the other with each new grant, for ever.
        """
        table, latest = self._table, self._table.latest
        if latest is None or table.grant.gives_up(latest.seq):
            return self._missing
        return {one for one in self._missing if table.peers.of(one).gone}

    def obstacle(self) -> str:
        """Say what the round waits for; "" if only turns and settling are left."""
        return (
            self._foreign_to_me()
            or self._unanswered()
            or self._unready()
            or self._unregistered()
            or self._too_few()
            or self._not_mine()
        )

    def _due(self, seconds: float) -> bool:
        return self._table.alarm.due(self._round.began_at + seconds)

    def _foreign_to_me(self) -> str:
        """Somebody knows more than this node: a newer grant or generation."""
        table = self._table
        counted = table.lineage.latest
        mine = 0 if counted is None else counted.seq
        for said in self.answers.values():
            if said.grant > table.grant.number and not self._due(table.terms.join_limit):
                return f"{said.member.node} has a newer grant"
            if (said.latest or 0) > mine:
                return f"{said.member.node} knows a newer generation"
        return ""

    def _unanswered(self) -> str:
        """Somebody may still answer, or still has ranks of the last generation."""
        table, limit = self._table, self._table.terms.answer_limit
        for member in table.others:
            waited = member in self._missing - self._silent and self._matters(member)
            if waited and not self._due(limit):
                return f"{member.node} has not answered yet"
        old = () if table.latest is None else table.latest.members
        for member in old:
            said = self.answers.get(member)
            # One that the grant leaves out is on its way out: nobody waits for it to come back.
            if member in table.grant.seats and table.peers.is_held(member):
                return f"{member.node} was told to stop"
            ranks = said is not None and said.phase is not Phase.CLEAR
            if ranks and not self._due(table.terms.clear_limit):
                return f"the ranks of {member.node} are not gone yet"
        return ""

    def _matters(self, member: Member) -> bool:
        """Say whether its answer can change who is named; a standby's cannot if all seats are."""
        latest, grant = self._table.latest, self._table.grant
        old = latest is not None and member in latest.members
        return old or member in grant.nodes or len(self.chosen) < grant.nodes_max

    def _unready(self) -> str:
        """Give nodes that are there a moment; at a start, wait for all that are wanted."""
        table = self._table
        wanted: set[Member] = set()
        if table.latest is None or not table.terms.register:
            wanted |= set(table.grant.nodes)
        wanted |= {one for one in self.answers if one in table.grant.seats}
        for member in table.others:
            waited = member in wanted - self.candidates and self._matters(member)
            if waited and not self._due(table.terms.join_limit):
                return f"{member.node} is not ready yet"
        return ""

    def _unregistered(self) -> str:
        """Say what the lack of a register forbids."""
        table, latest = self._table, self._table.latest
        if not table.terms.register:
            if latest is not None and table.grant.number <= latest.grant:
                self.short = "without a register each new generation needs a new grant"
            return self.short
        if table.unsure:
            return "it is not known whether a record was created"
        if table.unread_since is None:
            return ""
        if latest is None:
            self.short = "the register cannot be reached"
        elif not table.alarm.due(table.unread_since + table.terms.register_limit):
            return "the register does not answer"
        else:
            absent = [one.node for one in latest.members if not self._accounted_for(one)]
            if absent:
                self.short = f"the register cannot be reached, and {', '.join(absent)} is missing"
        return self.short

    def _accounted_for(self, member: Member) -> bool:
        """Present with the same knowledge, or proven gone."""
        table, counted = self._table, self._table.lineage.latest
        if member == table.me or table.peers.of(member).gone:
            return True
        said = self.answers.get(member)
        mine = None if counted is None else counted.seq
        return said is not None and said.latest == mine and not said.unsure

    def _too_few(self) -> str:
        if len(self.chosen) < self._table.grant.nodes_min:
            names = ", ".join(member.node for member in self.chosen)
            self.short = f"only {names}; the grant wants {self._table.grant.nodes_min} or more"
        return self.short

    def _not_mine(self) -> str:
        return "" if self._table.me in self._order else "others propose"

    def is_my_turn(self) -> bool:
        """Wait for those ahead in the order, on the smaller side longer, and for a first cause."""
        table, terms, ready_at = self._table, self._table.terms, self._round.ready_at
        if ready_at is None:
            return False
        ahead = self._order[: self._order.index(table.me)]
        able = [one for one in ahead if one in self.candidates and self._can_propose(one)]
        wait = terms.turn * len(able)
        if rounds.is_minority(table.latest, {table.me, *self.answers}):
            wait += terms.minority_wait
        settled = True
        if table.trouble is not None and rounds.is_plain(table.trouble):
            settled = table.alarm.due(table.noticed_at + terms.settle)
        return table.alarm.due(ready_at + wait) and settled

    def _can_propose(self, member: Member) -> bool:
        return not self._by_register or self.answers[member].reached

    def because(self) -> Because:
        """Return why the next generation is formed."""
        table, latest, trouble = self._table, self._table.latest, self._table.trouble
        if latest is None:
            return Because(Cause.START)
        lost = next((one for one in latest.members if one in self._missing), None)
        if trouble is not None and (lost is None or not rounds.is_plain(trouble)):
            return trouble.because
        if lost is not None:
            step = None if trouble is None else trouble.because.step
            return Because(Cause.NODE_LOST, step, f"{lost.node} is silent", lost.node)
        return Because(Cause.GRANT, fingerprint=f"grant {table.grant.number}")
