"""Who belongs to the gang: the state machine of grants and generations that every agent runs.

The controller owns grants, the gang owns generations: inside a grant the agents repair alone. The
rules are in ARCHITECTURE.md ("who owns membership", "fencing"); what decides in the end is the
commit register, read by `lineage.py`. Agents, the simulator and property tests run this very
machine: it is told what happened (`turns.Given`) and the time, it says what it wants done
(`turns.Wish`), when it wants to be told the time next (`wake_at`), and touches nothing.

It looks at the level, not at the edge: after each turn `_settle` derives everything from what is
known now (grant, lineage, own ranks, the peers' newest statuses), so that lost, repeated and late
words, and agents that die at any moment, leave nothing to be undone.

Pure, standard library only, Python 3.10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from orchestrator.runtime import doubts, rounds
from orchestrator.runtime import turns as t
from orchestrator.runtime.doubts import Doubt
from orchestrator.runtime.forming import Formed, Forming, Spent, Table
from orchestrator.runtime.grants import Grant
from orchestrator.runtime.lineage import Because, Cause, Generation, Lineage, Member
from orchestrator.runtime.neighbours import Alarm, Peer, Peers
from orchestrator.runtime.reports import Stage
from orchestrator.runtime.voice import Scene, Voice
from orchestrator.runtime.words import Phase, Status, Trouble, Word

_REREAD_AFTER = 0.1  #: seconds between two reads of the register when a peer knows more
_RANKS = (Phase.RUNNING, Phase.FINISHED)


class Membership:
    """One agent's place in its attempt."""

    def __init__(self, terms: t.Terms, now: float) -> None:
        """Begin a life without grant; `now` is in seconds on a clock that never goes back."""
        self.terms = terms
        self.grant: Grant | None = None
        self.phase = Phase.CLEAR
        self.current: Generation | None = None  #: whose ranks are here
        self.failure: Because | None = None  #: how the last generation ended
        self._alarm = Alarm(now)
        self._peers = Peers(terms, self._alarm)
        self._voice = Voice(terms, self._peers, self._alarm)
        self._forming = Forming()
        self._wishes: list[t.Wish] = []
        self._lineage: Lineage | None = None if terms.register else Lineage()
        self._counted: Generation | None = None  #: the last of this attempt with a record
        self._known_at_birth = 1  #: records below this seq are older than this life
        self._formed: Generation | None = None
        self._latest_mark: str | None = None
        self._latest_at = now
        self._trouble: Trouble | None = None
        self._noticed_at = now
        self._left: set[str] = set()  #: generations whose ranks were ended here
        self._done: str | None = None
        self._failed: str | None = None
        self._foreign = self._stopping = self._alone = False
        self._unsure_at: float | None = None
        self._confirmed_at = self._read_at = now
        self._reading = False
        self._reread_at = now
        self._unread_since: float | None = None
        self._epoch = terms.born - now
        self._kept = 0
        self._waits = False  #: it was told that the gang cannot form within its grant

    # ---- what others may ask ---------------------------------------------------------------------

    @property
    def wake_at(self) -> float:
        """When to tell the time next, if nothing else happens before."""
        return self._alarm.wake_at

    @property
    def me(self) -> Member:
        """The node this machine runs for, and where its agent listens."""
        return self.terms.member

    @property
    def latest(self) -> Generation | None:
        """The last generation of this attempt that is known, with or without a record."""
        return self._formed if self._formed is not None else self._counted

    @property
    def lineage(self) -> Lineage | None:
        """What was last read of the register; None before the first read."""
        return self._lineage

    @property
    def read_at(self) -> float:
        """When the last successful reading of the register began, on the machine's clock."""
        return self._read_at

    @property
    def obstacle(self) -> str:
        """Say what the forming of a generation waits for; "" if it waits for nothing."""
        return self._forming.short or self._forming.obstacle

    @property
    def deadline(self) -> float | None:
        """When the ranks have to end if neither controller nor register is heard; None: never."""
        if self.terms.stop_after is None:
            return None
        return max(self._confirmed_at, self._read_at) + self.terms.stop_after

    @property
    def peers_lost(self) -> tuple[str, ...]:
        """Granted nodes that this agent asks and that do not answer."""
        grant = self.grant
        seats = () if grant is None else grant.seats
        lost = self._voice.lost
        return tuple(seat.node for seat in seats if seat in lost)

    @property
    def may_go_on(self) -> bool:
        """Whether this node may be in a next generation, so that survivors are worth keeping."""
        grant, latest = self.grant, self.latest
        if self._foreign or self._stopping or self._alone or self._failed or self._done:
            return False
        if grant is None or self.me not in grant.seats:
            return False
        return latest is None or self.me in latest.members

    @property
    def stage(self) -> Stage:
        """Where this agent stands, for the controller."""
        final = self._final_stage()
        if final is not None:
            return final
        if self.grant is None:
            return Stage.IDLE
        if self.me not in self.grant.seats:
            if self.grant.seat(self.me.node) is not None:
                return Stage.IDLE  # the seat of an earlier life; a grant for this one will come
            return Stage.REVOKED if self.phase is Phase.CLEAR else Stage.RUNNING
        if self.phase in _RANKS:
            return Stage.RUNNING
        return self._stage_without_ranks(self.grant)

    def _final_stage(self) -> Stage | None:
        if self._done is not None:
            return Stage.FINISHED
        clear = self.phase is Phase.CLEAR
        if self._foreign:
            return Stage.REVOKED if clear else Stage.FORMING
        if self._failed is not None:
            return Stage.FAILED if clear else Stage.FORMING
        return None

    def _stage_without_ranks(self, grant: Grant) -> Stage:
        if self._alone or self._stopping:
            return Stage.WAITING
        latest = self.latest
        inside = self.me in (grant.nodes if latest is None else latest.members)
        if not inside and (self._forming.round is None or not self._forming.busy):
            return Stage.STANDBY
        return Stage.WAITING if self._forming.short else Stage.FORMING

    def objection(self, grant: Grant) -> str | None:
        """Say why a grant must be refused; None if it may be persisted and fed as `Granted`."""
        terms, mine = self.terms, self.grant
        if (grant.job, grant.attempt) != (terms.job, terms.attempt):
            return f"it is for {grant.job}.{grant.attempt}, this is {terms.job}.{terms.attempt}"
        if mine is None or grant == mine:
            return None
        if grant.token < mine.token:
            return f"its token {grant.token} is below {mine.token}"
        if grant.number <= mine.number:
            return f"grant {mine.number} was accepted before"
        return None

    # ---- turns -----------------------------------------------------------------------------------

    def take(self, given: t.Given, now: float) -> tuple[t.Wish, ...]:
        """Be told one thing and the time; return what is wanted now, in order."""
        self._alarm.wind(now)
        self._wishes = []
        self._learn(given)
        self._settle()
        wishes, self._wishes = self._wishes, []
        return tuple(wishes)

    def _learn(self, given: t.Given) -> None:  # noqa: C901 - one flat table of what can be told
        match given:
            case t.Granted(grant=grant):
                if self.objection(grant) is None and grant != self.grant:
                    self.grant, self._kept = grant, grant.number
                    self._say("grant-accepted", f"grant {grant.number}", {"grant": grant.number})
            case t.Heard(word=word):
                self._hear(word)
            case t.Broken(member=member):
                self._peers.of(member).broken = True
            case t.Gone(member=member):
                self._peers.of(member).gone = True
            case t.Read(lineage=lineage, began_at=began_at):
                self._read(lineage, began_at)
            case t.Unread():
                self._reading, self._reread_at = False, self._alarm.now
                if self._unread_since is None:
                    self._unread_since = self._alarm.now
            case t.Appended(lineage=lineage):
                self._forming.busy = False
                self._know(lineage)
                self._note_formed()
            case t.Overtaken(lineage=lineage):
                self._forming.busy = False
                self._know(lineage)
            case t.Unsure():
                self._forming.busy, self._unsure_at = False, self._alarm.now
            case t.Bound():
                self._forming.busy, self._forming.port = False, given
            case t.RanksTroubled(because=because, at=at):
                if self.current is not None:
                    self._suspect(Trouble(self.current.mark, because, at))
            case t.RanksFinished():
                if self.phase is Phase.RUNNING:
                    self.phase = Phase.FINISHED
            case t.RanksGone():
                self.phase, self.current = Phase.CLEAR, None
            case t.Confirmed(sent_at=sent_at):
                self._confirmed_at = max(self._confirmed_at, min(sent_at, self._alarm.now))
            case t.StopAsked(reason=reason):
                if not self._stopping:
                    self._stopping = True
                    self._say("stopped", f"told to stop: {reason}")
            case t.Tick():
                pass

    def _hear(self, word: Word) -> None:
        if word.status.member == self.me:
            return
        self._voice.hear(word)
        grant = word.grant
        if grant is not None and grant.number > self._kept and self.objection(grant) is None:
            self._kept = grant.number
            self._wishes.append(t.KeepGrant(grant))

    def _read(self, lineage: Lineage, began_at: float) -> None:
        if self._lineage is None:
            self._known_at_birth = lineage.next_seq
        self._reading, self._reread_at = False, self._alarm.now
        self._unread_since = None
        if self._unsure_at is not None and began_at >= self._unsure_at:
            self._unsure_at = None
        self._read_at = max(self._read_at, began_at)
        self._know(lineage)

    @property
    def _unsure(self) -> bool:
        """Whether a record may exist that no reading since could have shown."""
        return self._unsure_at is not None

    def _know(self, lineage: Lineage) -> None:
        """Keep the longer of two readings: they may come back in any order."""
        if self._lineage is None or lineage.next_seq >= self._lineage.next_seq:
            mine = lineage.attempt == self.terms.attempt
            self._lineage, self._counted = lineage, lineage.latest if mine else None

    # ---- what follows ----------------------------------------------------------------------------

    def _settle(self) -> None:
        self._follow()
        self._heed()
        self._doubt()
        self._keep_company()
        self._finish()
        self._form()
        self._record()
        self._look()
        self._talk()

    def _follow(self) -> None:
        """See which generation is the last, and whether another attempt has begun."""
        lineage = self._lineage
        if lineage is not None and lineage.attempt > self.terms.attempt and not self._foreign:
            self._foreign = True
            self._say("foreign-fence", f"attempt {lineage.attempt} has begun")
        self._check_formed()
        latest = self.latest
        mark = None if latest is None else latest.mark
        if mark != self._latest_mark:
            self._latest_mark, self._latest_at = mark, self._alarm.now
            self._trouble = None
        deadline = self.deadline
        alone = deadline is not None and self._alarm.due(deadline)
        if alone and not self._alone:
            self._say("alone", "neither controller nor register was heard for too long")
        self._alone = alone

    def _check_formed(self) -> None:
        """Drop a generation without a record once it has one, or never can have one."""
        formed, counted, lineage = self._formed, self._counted, self._lineage
        if formed is None or lineage is None or not self.terms.register:
            return
        if counted is not None and counted.mark == formed.mark:
            self._formed = None
            return
        after = None if counted is None else counted.seq
        if after != formed.after or lineage.next_seq != formed.seq or self._foreign:
            self._formed = None
            self._left.add(formed.mark)
            self._say("generation-void", f"generation {formed.number} never got its record")

    def _heed(self) -> None:
        """Take over what peers know: a generation without record, its end, its failure."""
        for peer in self._peers:
            said = peer.status
            if said is None:
                continue
            if said.formed is not None:
                self._adopt(peer, said.formed)
            if self._latest_mark is None:
                continue
            if said.trouble is not None and said.trouble.mark == self._latest_mark:
                self._suspect(said.trouble)
            if said.done == self._latest_mark:
                self._finished_all(said.done)
            if said.failed == self._latest_mark and self._failed is None:
                self._failed = said.failed
                self._say("failed", f"{said.member.node} says that a budget is spent")

    def _adopt(self, peer: Peer, formed: Generation) -> None:
        latest, grant = self.latest, self.grant
        newer = latest is None or formed.number > latest.number
        old = grant is not None and formed.grant < grant.number
        if not newer or old or peer.member not in formed.members or formed.mark in self._left:
            return
        if self.terms.register:
            lineage, counted = self._lineage, self._counted
            after = None if counted is None else counted.seq
            reached = self._unread_since is None
            if lineage is None or reached or self._unsure or formed.after != after:
                return
            if formed.seq != lineage.next_seq:
                return
        self._formed = formed
        self._follow()

    def _suspect(self, trouble: Trouble) -> None:
        """Remember why the last generation ends: the first failure, not what it brought."""
        if trouble.mark != self._latest_mark or self._done == trouble.mark:
            return
        known = self._trouble
        if known is None:
            self._noticed_at = self._alarm.now
            self._trouble = trouble
        else:
            self._trouble = rounds.first_failure((known, trouble))
        self.failure = self._trouble.because if self._trouble is not None else None

    def _blame(self, doubt: Doubt | None) -> None:
        if doubt is None or self._latest_mark is None:
            return
        because = Because(doubt.cause, None, doubt.fingerprint, doubt.node)
        self._suspect(Trouble(self._latest_mark, because, self._epoch + self._alarm.now))

    # ---- what is wrong with the last generation --------------------------------------------------

    def _doubt(self) -> None:
        latest, grant = self.latest, self.grant
        if latest is None or grant is None or self.me not in latest.members or self._stopping:
            return
        joined = self.current is not None and self.current.mark == latest.mark
        if self._trouble is None:
            self._blame(doubts.about_grant(latest, grant, self.me, joined=joined))
        if self._trouble is None and not joined and self._cannot_join(latest):
            self._blame(Doubt(Cause.NODE_LOST, self.me.node, "its ranks are gone"))
        if joined and self.phase in _RANKS and self._done != latest.mark:
            finished = self.phase is Phase.FINISHED
            members = doubts.watched(latest, self.me, all_of_them=finished)
            join_by = self._latest_at + self.terms.join_limit
            for doubt in doubts.about_members(latest, members, self._peers, join_by):
                self._blame(doubt)

    def _cannot_join(self, latest: Generation) -> bool:
        """Say whether the generation is over for this node: it left it, or is in another life."""
        recorded = latest is self._counted and self.terms.register
        return latest.mark in self._left or (recorded and latest.seq < self._known_at_birth)

    # ---- this node's ranks -----------------------------------------------------------------------

    def _keep_company(self) -> None:
        """Start the ranks of the generation that wants this node; end those of any other."""
        reason = self._against_ranks()
        latest, current = self.latest, self.current
        if self.phase in _RANKS and current is not None:
            if reason is None and latest is not None and latest.mark != current.mark:
                reason = f"generation {latest.number} follows"
            if reason is not None and not self._is_over(current):
                self._left.add(current.mark)
                self.phase = Phase.ENDING
                self._wishes.append(t.EndRanks(reason, keep=self._may_keep(current)))
        elif self.phase is Phase.CLEAR and latest is not None and reason is None:
            self.phase, self.current = Phase.RUNNING, latest
            self._wishes.append(t.StartRanks(latest))

    def _may_keep(self, current: Generation) -> bool:
        """Say whether healthy ranks may live on: not after a hang, nor when nothing may follow."""
        trouble = self._trouble
        if not self.may_go_on:
            return False
        if trouble is None:
            return True
        poison = trouble.because.repeats(current.because)
        return trouble.because.cause not in (Cause.HANG, Cause.VERIFICATION) and not poison

    def _is_over(self, current: Generation) -> bool:
        """Say whether nothing is left to be ended: all ranks of all members finished."""
        return self._done == current.mark and not self._stopping and not self._foreign

    def _against_ranks(self) -> str | None:
        """Say why no rank of the last generation may run here; None if ranks may."""
        latest, grant, trouble = self.latest, self.grant, self._trouble
        if self._foreign:
            return "another attempt has begun"
        if self._stopping:
            return "told to stop"
        if self._alone:
            return "alone for too long"
        if latest is None or self.me not in latest.members:
            return "not a member of the last generation"
        if trouble is not None:
            return f"{trouble.because.cause.value}: {trouble.because.fingerprint}"
        if grant is None or self.me not in grant.seats:
            return "the seat was taken away"
        joined = self.current is not None and self.current.mark == latest.mark
        if not joined and (self._cannot_join(latest) or self._failed or self._done):
            return "it cannot be joined any more"
        return None

    def _finish(self) -> None:
        """See whether every rank of every member has finished."""
        latest, current = self.latest, self.current
        if self.phase is not Phase.FINISHED or latest is None or current is None:
            return
        if current.mark != latest.mark or self._done is not None:
            return
        others = (self._peers.of(member) for member in latest.members if member != self.me)
        if all(peer.has(latest.mark, Phase.FINISHED) for peer in others):
            self._finished_all(latest.mark)

    def _finished_all(self, mark: str) -> None:
        if self._done is None:
            self._done = mark
            number = None if self.latest is None else self.latest.number
            text = "every rank of the generation ended with exit code 0"
            self._say("finished", text, {"generation": number})

    # ---- the next generation ---------------------------------------------------------------------

    def _form(self) -> None:
        if not self._needs_round() or self.grant is None or self._lineage is None:
            self._forming.rest()
            self._waits = False
            return
        table = Table(
            terms=self.terms,
            grant=self.grant,
            lineage=self._lineage,
            latest=self.latest,
            trouble=self._trouble,
            noticed_at=self._noticed_at,
            peers=self._peers,
            alarm=self._alarm,
            unread_since=self._unread_since,
            unsure=self._unsure,
        )
        outcome = self._forming.step(table)
        if self._forming.short and not self._waits:
            self._say("waiting", self._forming.short)
        self._waits = bool(self._forming.short)
        if isinstance(outcome, Formed):
            self._formed = outcome.generation
            self._forming.port = None
            self._note_formed()
            self._follow()
            self._keep_company()
        elif isinstance(outcome, Spent):
            self._failed = self._latest_mark or "none"
            self.failure = outcome.because
            self._say("failed", outcome.reason, {"because": _plain(outcome.because)})
        elif outcome is not None:
            self._wishes.append(outcome)

    def _needs_round(self) -> bool:
        grant, latest, lineage = self.grant, self.latest, self._lineage
        if grant is None or self.me not in grant.seats or self.phase is not Phase.CLEAR:
            return False
        if self._foreign or self._stopping or self._alone or self._failed or self._done:
            return False
        if lineage is None or (self.terms.register and lineage.attempt != self.terms.attempt):
            return False
        if latest is None:
            return self.me in grant.nodes
        if self.me in latest.members:
            return self._trouble is not None
        return grant.number > latest.grant and self.me in grant.nodes

    def _record(self) -> None:
        """Give a generation that was formed without the register its record, once it answers."""
        formed, lineage = self._formed, self._lineage
        if formed is None or lineage is None or not self.terms.register:
            return
        leads = formed.members[0] == self.me and not self._forming.busy and not self._unsure
        if leads and self._unread_since is None:
            self._forming.busy = True
            self._wishes.append(t.Append(formed, lineage))

    def _note_formed(self) -> None:
        latest = self.latest
        if latest is None:
            return
        names = [member.node for member in latest.members]
        text = f"generation {latest.number} of {', '.join(names)}: {latest.because.cause.value}"
        facts = {"number": latest.number, "seq": latest.seq, "members": names}
        commit = None if self._lineage is None else self._lineage.commit(latest.resume)
        more = {
            "resume": latest.resume,
            "step": None if commit is None else commit.step,
            "why": latest.why,
            "because": _plain(latest.because),
        }
        self._say("generation-formed", text, {**facts, **more})

    def _look(self) -> None:
        """Read the register now and then, and at once when a peer knows of more."""
        if not self.terms.register or self._reading:
            return
        mine = 0 if self._counted is None else self._counted.seq
        known = max((p.status.latest or 0 for p in self._peers if p.status), default=0)
        pause = _REREAD_AFTER if known > mine else self.terms.read_every
        if self._lineage is None or self._alarm.due(self._reread_at + pause):
            self._reading = True
            self._wishes.append(t.ReadRegister())

    # ---- words -----------------------------------------------------------------------------------

    def _talk(self) -> None:
        over = self._stopping or self._foreign
        scene = Scene(
            status=self._status(),
            grant=self.grant,
            latest=self.latest,
            forming=self._forming.round is not None,
            short=bool(self._forming.short),
            over=over or self._done is not None or self._failed is not None,
        )
        self._wishes += self._voice.talk(scene)

    def _status(self) -> Status:
        counted = self._counted
        trouble = self._trouble
        return Status(
            member=self.me,
            born=self.terms.born,
            count=0,
            grant=0 if self.grant is None else self.grant.number,
            ready=self._lineage is not None,
            latest=None if counted is None else counted.seq,
            phase=self.phase,
            mark=None if self.current is None else self.current.mark,
            trouble=trouble,
            done=self._done,
            failed=self._failed,
            reached=self._unread_since is None,
            unsure=self._unsure,
            stopping=self._stopping,
            formed=self._formed,
        )

    def _say(self, kind: str, text: str, data: Mapping[str, Any] | None = None) -> None:
        self._wishes.append(t.Tell(kind, text, data or {}))


def _plain(because: Because) -> dict[str, Any]:
    return {**asdict(because), "cause": because.cause.value}
