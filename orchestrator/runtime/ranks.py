"""The ranks of one generation on one node: started, watched, ended and proven gone.

The agent owns one `Ranks` for its whole life and calls `look` from its loop. Each rank is a child
of the agent's main thread, or of its warm parent, and dies with it (PR_SET_PDEATHSIG). `look` never
blocks; it reaps, reads heartbeats, judges silence, and drives an ending that is under way. Nothing
is decided here about the gang: `trouble` says what went wrong first on this node, and the agent
tells the others.

A generation ends by proof: every process of it is gone, or is a *survivor* that said it has left
(`parked`): it holds no process group any more, writes nothing, and waits for the next generation.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from orchestrator.errors import PermanentError
from orchestrator.runtime import exits, rankplan
from orchestrator.runtime.collectives import file_of, last_records
from orchestrator.runtime.course import TELLERS, Course
from orchestrator.runtime.ending import Ending, Manner
from orchestrator.runtime.lineage import Because, Cause
from orchestrator.runtime.mailbox import Beat, Event, Journal, Mailbox
from orchestrator.runtime.memorykeeper import MemoryKeeper
from orchestrator.runtime.place import Place
from orchestrator.runtime.processes import Target
from orchestrator.runtime.progress import STEP, Stall
from orchestrator.runtime.rankplan import RankPlan
from orchestrator.runtime.rankprocess import RankProcess
from orchestrator.runtime.reports import RankReport
from orchestrator.runtime.signs import FileSigns
from orchestrator.runtime.spec import AgentSpec
from orchestrator.runtime.stacks import Dump
from orchestrator.runtime.survivors import Survivors
from orchestrator.runtime.vigil import Suspicion, Vigil
from orchestrator.runtime.warm import WarmParent, Warmth

__all__ = ["Jot", "RankPlan", "Ranks"]

STATE_EVERY = 0.2  #: seconds between two looks at the kernel's states
SIGNS_EVERY = 0.2  #: seconds between two looks at logs or files for progress
JOTS_MAX = 500

_EVENT_NOTES = {"fenced": "foreign-fence"}  # the other events are notes of the same name


@dataclass(frozen=True)
class Jot:
    """A note without a number: the agent numbers it and makes it a `reports.Note`."""

    at: float  #: epoch seconds
    kind: str
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)


class Ranks:
    """The processes of one generation on this node; started again for the next one."""

    def __init__(self, spec: AgentSpec, place: Place, guard: int | None = None) -> None:
        """Serve one attempt. `guard` is the pid of the guard, which adopts the ranks' orphans.

        With it, `gone` also covers processes that lost their marker and their parents.
        """
        self._spec, self._place, self._guard = spec, place, guard
        self._mailbox = Mailbox(place.heartbeats)
        self._journal = Journal(place.progress)
        self._vigil = Vigil(spec, place.stacks)
        self._jots: deque[Jot] = deque(maxlen=JOTS_MAX)
        self._warm = WarmParent(spec, place)
        self._lines = select.epoll()  #: readable when the warm parent or a rank says something
        self._plan: RankPlan | None = None
        self._next: RankPlan | None = None  #: starts as soon as what is in its way is gone
        self._ranks: list[RankProcess] = []
        self._survivors = Survivors()
        self._memory = MemoryKeeper(spec.memory_max)
        self._save_seconds: float | None = None
        self._files: FileSigns | None = None
        self._ending: Ending | None = None
        self._state_at = self._signs_at = float("-inf")
        self._unverified = False
        self._course = Course()
        self.trouble: Because | None = None  #: what went wrong first in this generation here
        self.ended_at: float | None = None  #: epoch seconds when that was noticed
        self.fenced = False  #: a rank stopped because another attempt or generation rules

    @property
    def _opaque(self) -> bool:
        return self._spec.launch == "command"

    @property
    def memory(self) -> MemoryKeeper:
        """The memory that this node has for snapshots."""
        return self._memory

    # starting

    def prepare(self) -> None:
        """Make a warm parent, if the job has one; returns at once. From the main thread only."""
        before = self._warm.fileno()
        self._warm.prepare()
        number = self._warm.fileno()
        if number is not None and number != before:
            self._lines.register(number, select.EPOLLIN)

    @property
    def warmth(self) -> str:
        """Say for people how ranks start here: "warm: torch", "cold: WHY", or ""."""
        return self._warm.saying

    def start(self, plan: RankPlan) -> None:
        """Start every rank of `plan`. Call it from the main thread: ranks die with their thread.

        Survivors of the last generation go on in the same process. While a warm parent prepares,
        the start waits for it. A command that cannot be started is trouble, not an exception.
        Raises `PermanentError` if ranks of an earlier generation are not proven gone.
        """
        if self._survivors.dismissed and not self.gone:
            self._next = plan
            return
        if not self.gone:
            raise PermanentError("ranks of the last generation are not proven gone")
        self._mailbox.empty()
        self._vigil.begin(plan)
        self._plan, self._ending, self._next = plan, None, plan
        kept = self._survivors.left()
        for old in self._ranks:
            if all(old is not one for one in kept):
                old.hang_up()
        self._ranks = kept
        self.trouble, self.ended_at, self.fenced = None, None, False
        self._state_at = self._signs_at = float("-inf")
        self._unverified = False
        self._course = Course()
        if self._spec.progress["kind"] == "file":
            self._files = FileSigns(self._spec.progress["pattern"], self._spec.workdir)
        self.prepare()
        self._launch()

    def _launch(self) -> None:
        """Start what waits to be started, unless something is still in its way."""
        plan = self._next
        if plan is None or self._warm.warmth is Warmth.PREPARING:
            return
        if plan is not self._plan:
            if self.gone:
                self._survivors.forget()
                self.start(plan)
            return
        self._next = None
        kept = {one.local_rank: one for one in self._ranks if not one.ended}
        for one in self._ranks:
            if one.ended:
                one.hang_up()
        self._ranks = []
        try:
            for local_rank in range(1 if self._opaque else plan.ranks_per_node):
                survivor = kept.get(local_rank)
                if survivor is not None and self._rejoin(survivor, plan):
                    self._ranks.append(survivor)
                else:
                    self._ranks.append(self._spawn(plan, local_rank))
        except OSError as error:
            self._blame(Cause.RANK_EXIT, None, f"cannot start: {exits.normalised(str(error))}")

    def _spawn(self, plan: RankPlan, local_rank: int) -> RankProcess:
        spawned = RankProcess.spawn(self._spec, self._place, plan, local_rank, self._warm)
        if spawned.line is not None:
            self._lines.register(spawned.line.fileno(), select.EPOLLIN)
        if self._warm.warmth is Warmth.COLD:
            data = {"rank": spawned.rank, "pid": spawned.child.pid}
            self._jot("cold-start", f"rank {spawned.rank} starts {self.warmth}", data)
        return spawned

    def _rejoin(self, rank: RankProcess, plan: RankPlan) -> bool:
        env = rankplan.environment(self._spec, self._place, plan, os.environ)
        env.update(rankplan.seat(plan, rank.local_rank))
        log = self._place.log(plan.generation, plan.rank(rank.local_rank))
        return self._survivors.rejoin(rank, plan.rank(rank.local_rank), env, log)

    def pace(self, save_seconds: float) -> None:
        """Tell ranks how long to wait between two durable checkpoints."""
        if save_seconds == self._save_seconds:
            return
        self._save_seconds = save_seconds
        for rank in self._ranks:
            self._tell_pace(rank)

    def _tell_pace(self, rank: RankProcess) -> None:
        if self._save_seconds is not None and rank.survives:
            rank.say({"do": "pace", "save_seconds": self._save_seconds})

    # looking

    def fds(self) -> list[int]:
        """Return descriptors that become readable when a look is worth while."""
        return [self._mailbox.fileno(), self._lines.fileno()]

    def look(self, now: float) -> tuple[RankReport, ...]:
        """Reap, listen, judge, and go on with an ending; return what each rank is like.

        `now` is in seconds of a clock that does not step back (`time.monotonic()`).
        """
        self._warm.look()
        self.prepare()  # again, if the warm parent has died
        self._hear()
        self._launch()
        if self._plan is not None:
            if not self._vigil.look(now):
                for rank in self._ranks:
                    rank.stopped_since = None
            self._listen(now)
            self._look_for_signs(now)
            self._reap()
            if self.finished:
                self._tell_course("every rank ended with exit code 0", finished=True)
            if self._ending is None:
                self._look_at_states(now)
                self._judge(now)
            else:
                self._go_on_ending(now)
            for suspicion in self._vigil.suspicions(now):
                self._note_suspicion(suspicion)
        gone = self._ending is not None and self._ending.gone
        return tuple(rank.report(gone=gone) for rank in self._ranks)

    def _hear(self) -> None:
        """Take in what ranks say on their lines."""
        for rank in self._ranks:
            for body in rank.heard():
                if self._memory.answer(rank, body):
                    continue
                if body.get("say") == "survivor":
                    rank.survives = True
                    self._tell_pace(rank)
                elif body.get("say") == "parked" and self._plan is not None:
                    rank.parked = body.get("generation") == self._plan.generation

    # heartbeats and other signs

    def _listen(self, now: float) -> None:
        beats: list[dict[str, Any]] = []
        for message in self._mailbox.read():
            slot = self._vigil.slot(message.rank)
            if slot is None:
                self._mailbox.ignored += 1
            elif isinstance(message, Event):
                self._note_event(message)
            elif self._vigil.beat(slot, now, message.phase, message.step):
                self._remember(message)
                beats.append({**asdict(message), "at": time.time(), **self._generation()})
        self._journal.write(beats)

    def _remember(self, beat: Beat) -> None:
        """Keep a rank's last beat; of an opaque command, the last of whoever is ahead."""
        if beat.phase == STEP and beat.step is not None:
            self._course.stepped(beat.step, time.time())
        for rank in self._ranks:
            ahead = rank.beat is None or (beat.step or 0) >= (rank.beat.step or 0)
            if rank.rank == beat.rank or (self._opaque and ahead):
                rank.beat, rank.beat_at = beat, time.time()
            if rank.rank == beat.rank and beat.phase == "step":
                rank.paces.add(beat.step, beat.own)

    def _note_event(self, event: Event) -> None:
        self._unverified |= event.kind == "verification-failed"
        self.fenced |= event.kind == "fenced"
        data: dict[str, Any] = {"rank": event.rank, "step": event.step, "seq": event.seq}
        took = {"stall_seconds": event.stall_seconds, "lag_seconds": event.lag_seconds}
        data |= {name: value for name, value in took.items() if value is not None}
        if event.kind == "commit" and event.stall_seconds is not None:
            data["stalled_seconds"] = self._course.stalled(event.stall_seconds)
        text = event.text or f"rank {event.rank}: {event.kind}"
        self._jot(_EVENT_NOTES.get(event.kind, event.kind), text, data)

    def _look_for_signs(self, now: float) -> None:
        if now - self._signs_at < SIGNS_EVERY:
            return
        self._signs_at = now
        if self._files is not None and self._files.look():
            self._vigil.tick_all(now)
        for rank in self._ranks:
            if rank.output is not None and rank.output.look():
                self._take_step(rank, rank.output.last, now)

    def _take_step(self, rank: RankProcess, step: int | None, now: float) -> None:
        slot = rank.rank if self._opaque else rank.local_rank
        if step is None:
            self._vigil.tick(slot, now)
        elif self._vigil.beat(slot, now, "step", step):
            self._remember(Beat(rank.rank, "step", step))
            line = {"rank": rank.rank, "phase": "step", "step": step, "at": time.time()}
            self._journal.write([{**line, **self._generation()}])

    # what went wrong

    def _reap(self) -> None:
        """Notice who ended. Of several at once, the one that explains the others comes first."""
        ended = [one for one in self._ranks if not one.mourned and one.child.poll() is not None]
        for rank in sorted(ended, key=RankProcess.tells_most):
            rank.mourned = True
            if self._ending is None and rank.child.returncode != 0:
                self._mourn(rank)

    def _mourn(self, rank: RankProcess) -> None:
        code = rank.child.returncode or 0
        fingerprint = exits.fingerprint(code, rank.log)
        data = {"rank": rank.rank, "exit_code": code, "pid": rank.child.pid}
        if code == exits.FENCED:
            self.fenced = True
            self._jot("foreign-fence", f"rank {rank.rank} found itself fenced", data)
            return
        self._jot("rank-exited", f"rank {rank.rank} ended: {fingerprint}", data)
        unverified = code in (exits.VERIFICATION, exits.MEMORY) or self._unverified
        self._blame(Cause.VERIFICATION if unverified else Cause.RANK_EXIT, rank, fingerprint)

    def _look_at_states(self, now: float) -> None:
        if now - self._state_at < STATE_EVERY:
            return
        self._state_at = now
        for rank in self._ranks:
            if rank.is_stopped_at(now) and self.trouble is None:
                text = f"rank {rank.rank} is stopped (pid {rank.child.pid})"
                self._jot("rank-stopped", text, {"rank": rank.rank, "pid": rank.child.pid})
                self._blame(Cause.RANK_STOPPED, rank, "stopped")

    def _judge(self, now: float) -> None:
        if self.trouble is not None:
            return
        hung = self._vigil.judge(now, self._pid)
        if hung is not None:
            self._call_hang(*hung)

    def _running(self, slot: int) -> RankProcess | None:
        """Return the running process behind a slot."""
        running = (rank for rank in self._ranks if not rank.ended)
        return next((one for one in running if self._opaque or one.local_rank == slot), None)

    def _pid(self, slot: int) -> int | None:
        running = self._running(slot)
        return None if running is None else running.child.pid

    def _call_hang(self, rank: int, stall: Stall) -> None:
        learned = "learned" if stall.learned else "declared"
        text = (
            f"rank {rank} made no progress for {stall.seconds:.1f} s in phase {stall.phase} "
            f"({learned} limit {stall.limit:.1f} s)"
        )
        data = {"rank": rank, "step": stall.step, "phase": stall.phase, "seconds": stall.seconds}
        self._jot("hang", text, data)
        culprit = next((one for one in self._ranks if one.rank == rank), None)
        self._blame(Cause.HANG, culprit or self._ranks[0], f"no progress in phase {stall.phase}")

    def _blame(self, cause: Cause, rank: RankProcess | None, fingerprint: str) -> None:
        """Keep the first trouble of the generation; what follows is usually its consequence."""
        if self.trouble is not None:
            return
        beat = None if rank is None else rank.beat
        from_memory = rank is not None and rank.child.returncode == exits.MEMORY
        resume = None if self._plan is None else self._plan.resume
        self.ended_at = time.time()
        self.trouble = Because(
            cause=cause,
            step=None if beat is None else beat.step,
            fingerprint=fingerprint,
            node=self._spec.node,
            rank=None if rank is None else rank.rank,
            commit=resume if cause is Cause.VERIFICATION and not from_memory else None,
        )

    # ending

    @property
    def finished(self) -> bool:
        """Say whether every rank ended with exit code 0."""
        done = bool(self._ranks) and self._next is None
        return done and all(rank.child.returncode == 0 for rank in self._ranks)

    @property
    def gone(self) -> bool:
        """Say whether nothing of the last generation runs on this node, but survivors that left."""
        if self._plan is None:
            return True
        return self._ending is not None and self._ending.gone and self._survivors.all_left

    @property
    def kept(self) -> bool:
        """Whether survivors wait here for a next generation."""
        return self.gone and bool(self._survivors.left())

    def end(self, now: float, why: str, *, keep: bool = False) -> None:
        """Begin to end the generation; `look` goes on with it. A second call changes nothing.

        With `keep`, ranks that can leave by themselves are asked to, and stay; those that do not in
        time are ended like the others. Stacks of a hang that are being taken are waited for, within
        their limit. `why` goes to the agent's log.
        """
        self._next = None
        if self._plan is None or self._ending is not None:
            return
        self._tell_course(why)
        hung = self.trouble is not None and self.trouble.cause is Cause.HANG
        self._survivors.forget()
        if keep and not hung and self._spec.survivors == "keep":
            limit = self._vigil.park_limit()
            self._survivors.ask(self._ranks, self._plan.generation, now + limit)
        self._begin_ending(self._vigil.dumps() if hung else [])
        self._go_on_ending(now)
        print(f"ending generation {self._plan.generation}: {why}", file=sys.stderr, flush=True)

    def dismiss(self, now: float, why: str) -> None:
        """End the survivors too: no generation will want them."""
        if self.kept:
            self._survivors.dismiss()
            self._begin_ending([])
            self._go_on_ending(now)
            print(f"ending survivors: {why}", file=sys.stderr, flush=True)

    def _begin_ending(self, dumps: list[Dump]) -> None:
        """End every rank that is not kept."""
        manner = Manner(grace=self._spec.stop_grace, groups=self._opaque)
        children = [rank.child for rank in self._ranks if rank not in self._survivors]
        self._ending = Ending(children, self._target(), manner, dumps)

    def _go_on_ending(self, now: float) -> None:
        failed = self._survivors.look(now)
        for rank in failed:
            self._jot("not-kept", f"rank {rank.rank} did not leave in time", {"rank": rank.rank})
        if failed:
            self._begin_ending([])
        if self._ending is not None:
            self._ending.step(now)

    def _target(self) -> Target:
        """Mean what carries HOLDFAST_GENERATION or was forked by the warm parent, and orphans.

        The guard has adopted those.
        """
        parents = frozenset(filter(None, (self._guard, self._warm.pid)))
        marked = frozenset({"HOLDFAST_GENERATION"})
        spare = frozenset({os.getpid()}) | parents
        return Target(self._place.marker, marked, parents, spare, self._survivors.pids)

    # saying

    def _tell_course(self, why: str, *, finished: bool = False) -> None:
        """Note once how far the generation came here, when its ranks end."""
        if self._plan is None or self._plan.group_rank >= TELLERS or self._course.told:
            return
        self._course.told = True
        data = {**self._course.facts(), "finished": finished}
        self._jot("ranks-ended", f"generation {self._plan.generation} ends: {why}", data)

    def _note_suspicion(self, suspicion: Suspicion) -> None:
        stall = suspicion.stall
        mute = "; it never sent a heartbeat, so this is only reported" if stall.mute else ""
        text = f"rank {suspicion.rank} is silent for {stall.seconds:.1f} s in {stall.phase}{mute}"
        data = {"rank": suspicion.rank, "step": stall.step, "phase": stall.phase}
        taken = {"pid": suspicion.pid, "stack": suspicion.stack}
        generation = 0 if self._plan is None else self._plan.generation
        records = last_records(file_of(self._place.collectives, generation, suspicion.rank))
        self._jot("suspected", text, {**data, **taken, "collectives": records})

    def _generation(self) -> dict[str, int]:
        return {} if self._plan is None else {"generation": self._plan.generation}

    def _jot(self, kind: str, text: str, data: Mapping[str, Any]) -> None:
        self._jots.append(Jot(time.time(), kind, text, {**data, **self._generation()}))

    def drain_notes(self) -> list[Jot]:
        """Return the notes since the last call; of a flood only the last `JOTS_MAX`."""
        jots = list(self._jots)
        self._jots.clear()
        return jots

    def limits(self) -> dict[str, float]:
        """Return the hang limit in seconds of each phase, the longest of the ranks'."""
        return self._vigil.limits()

    @property
    def ignored(self) -> int:
        """Count what came through the FIFO and was no heartbeat of a rank of this node."""
        return self._mailbox.ignored

    def close(self) -> None:
        """Close the FIFO and the lines, end stack dumps that are under way and the warm parent."""
        for rank in self._ranks:
            rank.hang_up()
        self._warm.stop()
        self._memory.close()
        self._lines.close()
        self._vigil.close()
        self._mailbox.close()
