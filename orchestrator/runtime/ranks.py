"""The ranks of one generation on one node: started, watched, ended and proven gone.

The agent owns one `Ranks` for its whole life and calls `look` from its loop; what was learned of
the job's pace is kept from generation to generation. Each rank is a child of the agent's main
thread that dies with it (PR_SET_PDEATHSIG). `look` never blocks; it reaps, reads heartbeats, judges
silence, and drives an ending that is under way. Nothing is decided here about the gang: `trouble`
says what went wrong first on this node, and the agent tells the others.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import PermanentError
from orchestrator.runtime import exits, rankplan
from orchestrator.runtime.ending import Ending, Manner, is_stopped
from orchestrator.runtime.kernel import allow_tracing, die_with
from orchestrator.runtime.lineage import Because, Cause
from orchestrator.runtime.mailbox import Beat, Event, Journal, Mailbox
from orchestrator.runtime.place import Place
from orchestrator.runtime.processes import Target, descendants
from orchestrator.runtime.progress import HangPolicy, Stall, Verdict, Watch, first_to_stall
from orchestrator.runtime.rankplan import RankPlan
from orchestrator.runtime.reports import RankReport, RankState
from orchestrator.runtime.signs import FileSigns, OutputSteps
from orchestrator.runtime.spec import AgentSpec
from orchestrator.runtime.stacks import Dump

__all__ = ["Jot", "RankPlan", "Ranks"]

STOPPED_FOR = 0.4  #: seconds between the two looks that call a rank stopped
STATE_EVERY = 0.2  #: seconds between two looks at the kernel's states
SIGNS_EVERY = 0.2  #: seconds between two looks at logs or files for progress
SUSPECT_EVERY = 30.0  #: seconds between two suspicions of one rank
UNSEEN_MAX = 2.0  #: seconds without a look after which that time proves nothing about ranks
JOTS_MAX = 500
SPEAKERS_MAX = 64  #: ranks that may speak through one opaque command

_EVENT_NOTES = {"fenced": "foreign-fence"}  # the other events are notes of the same name


@dataclass(frozen=True)
class Jot:
    """A note without a number: the agent numbers it and makes it a `reports.Note`."""

    at: float  #: epoch seconds
    kind: str
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Rank:
    """One process of ours."""

    rank: int
    local_rank: int
    child: subprocess.Popen[bytes]
    output: OutputSteps | None
    beat: Beat | None = None
    beat_at: float | None = None
    stopped_since: float | None = None
    exit_seen: bool = False

    @property
    def state(self) -> RankState:
        if self.child.returncode is not None:
            return RankState.EXITED
        return RankState.STOPPED if self.stopped_since is not None else RankState.RUNNING

    def report(self, *, gone: bool) -> RankReport:
        beat = self.beat
        return RankReport(
            rank=self.rank,
            local_rank=self.local_rank,
            pid=self.child.pid,
            state=RankState.GONE if gone else self.state,
            phase="init" if beat is None else beat.phase,
            step=None if beat is None else beat.step,
            step_at=self.beat_at,
            loss=None if beat is None else beat.loss,
            tokens_per_second=None if beat is None else beat.tokens_per_second,
            exit_code=self.child.returncode,
        )


class Ranks:
    """The processes of one generation on this node; started again for the next one."""

    def __init__(self, spec: AgentSpec, place: Place, guard: int | None = None) -> None:
        """Serve one attempt. `guard` is the pid of the guard, which adopts the ranks' orphans.

        With it, `gone` also covers processes that lost their marker and their parents.
        """
        self._spec, self._place, self._guard = spec, place, guard
        self._mailbox = Mailbox(place.heartbeats)
        self._journal = Journal(place.progress)
        self._plan: RankPlan | None = None
        self._ranks: list[_Rank] = []
        self._watches: dict[int, Watch] = {}  # by local rank, or by who speaks in a command
        self._files: FileSigns | None = None
        self._ending: Ending | None = None
        self._dumps: list[tuple[int, Stall, Dump]] = []
        self._jots: deque[Jot] = deque(maxlen=JOTS_MAX)
        self._looked_at: float | None = None
        self._state_at = self._signs_at = float("-inf")
        self._suspected_at: dict[int, float] = {}
        self._unverified: int | None = None
        self.trouble: Because | None = None  #: what went wrong first in this generation here
        self.ended_at: float | None = None  #: epoch seconds when that was noticed
        self.fenced = False  #: a rank stopped because another attempt or generation rules

    # starting

    def start(self, plan: RankPlan) -> None:
        """Start every rank of `plan`. Call it from the main thread: ranks die with their thread.

        A command that cannot be started is trouble, not an exception. Raises `PermanentError` if
        ranks of an earlier generation are not proven gone.
        """
        if not self.gone:
            raise PermanentError("ranks of the last generation are not proven gone")
        self._mailbox.empty()
        self._plan, self._ranks, self._ending = plan, [], None
        self.trouble, self.ended_at, self.fenced = None, None, False
        self._looked_at, self._unverified = None, None
        self._dumps, self._suspected_at = [], {}
        if self._spec.progress["kind"] == "file":
            self._files = FileSigns(self._spec.progress["pattern"], self._spec.workdir)
        try:
            for local_rank in range(plan.ranks_per_node if self._by_rank else 1):
                self._ranks.append(self._spawn(plan, local_rank))
        except OSError as error:
            self._blame(Cause.RANK_EXIT, None, f"cannot start: {exits.normalised(str(error))}")

    @property
    def _by_rank(self) -> bool:
        return self._spec.launch == "ranks"

    def _spawn(self, plan: RankPlan, local_rank: int) -> _Rank:
        rank = plan.rank(local_rank) if self._by_rank else plan.group_rank
        env = rankplan.environment(self._spec, self._place, plan, os.environ)
        if self._by_rank:
            env.update(rankplan.seat(plan, local_rank))
        log = self._place.log(plan.generation, rank)
        parent = os.getpid()

        def before_exec() -> None:
            die_with(parent)
            allow_tracing()

        with log.open("ab") as output:
            child = subprocess.Popen(
                rankplan.argv(self._spec),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._spec.workdir,
                env=env,
                start_new_session=True,
                preexec_fn=before_exec,
            )
        pattern = self._spec.progress.get("pattern", "")
        reads = self._spec.progress["kind"] == "stdout"
        return _Rank(rank, local_rank, child, OutputSteps(pattern, log) if reads else None)

    # looking

    def fds(self) -> list[int]:
        """Return descriptors that become readable when a look is worth while."""
        return [self._mailbox.fileno()]

    def look(self, now: float) -> tuple[RankReport, ...]:
        """Reap, listen, judge, and go on with an ending; return what each rank is like.

        `now` is in seconds of a clock that does not step back (`time.monotonic()`).
        """
        if self._plan is not None:
            self._excuse(now)
            self._listen(now)
            self._look_for_signs(now)
            self._reap()
            if self._ending is None:
                self._look_at_states(now)
                self._judge(now)
            else:
                self._ending.step(now)
            self._collect_stacks(now)
        gone = self._ending is not None and self._ending.gone
        return tuple(rank.report(gone=gone) for rank in self._ranks)

    def _excuse(self, now: float) -> None:
        """Begin the watches at the first look; forgive the time in which nobody looked."""
        if self._looked_at is None:
            for watch in self._all_watches():
                watch.begin(now)
        elif now - self._looked_at > UNSEEN_MAX:
            for watch in self._all_watches():
                watch.excuse(now - self._looked_at)
            for rank in self._ranks:
                rank.stopped_since = None
        self._looked_at = now

    def _all_watches(self) -> list[Watch]:
        for rank in self._ranks:
            self._watch(rank.local_rank if self._by_rank else rank.rank)
        return list(self._watches.values())

    def _watch(self, slot: int) -> Watch:
        if slot not in self._watches:
            watch = Watch(self._policy(slot))
            watch.begin(0.0 if self._looked_at is None else self._looked_at)
            self._watches[slot] = watch
        return self._watches[slot]

    def _policy(self, slot: int) -> HangPolicy:
        """Only a sign that this very rank is known to give may be missed.

        Output: usually global rank 0 alone prints. Files: anyone's writing is everyone's progress.
        """
        kind = self._spec.progress["kind"]
        first = self._plan is not None and self._plan.group_rank == 0 and slot == 0
        return HangPolicy(
            declared=self._spec.limits,
            floor=self._spec.hang_floor,
            acts=kind != "none",
            mute_acts=kind == "file" or (kind == "stdout" and first),
        )

    # heartbeats and other signs

    def _listen(self, now: float) -> None:
        beats: list[dict[str, Any]] = []
        for message in self._mailbox.read():
            slot = self._slot(message.rank)
            if slot is None:
                self._mailbox.ignored += 1
            elif isinstance(message, Event):
                self._note_event(message)
            elif self._watch(slot).beat(now, message.phase, message.step):
                self._remember(message)
                beats.append({**asdict(message), "at": time.time(), **self._generation()})
        self._journal.write(beats)

    def _slot(self, rank: int) -> int | None:
        """Return which watch a speaker belongs to; None if no such rank is on this node."""
        plan = self._plan
        if plan is None:
            return None
        if not self._by_rank:
            known = rank in self._watches or len(self._watches) < SPEAKERS_MAX
            return rank if known and rank < plan.world_size else None
        local = rank - plan.group_rank * plan.ranks_per_node
        return local if 0 <= local < plan.ranks_per_node else None

    def _remember(self, beat: Beat) -> None:
        """Keep a rank's last beat; of an opaque command, the last of whoever is ahead."""
        for rank in self._ranks:
            ahead = rank.beat is None or (beat.step or 0) >= (rank.beat.step or 0)
            if rank.rank == beat.rank or (not self._by_rank and ahead):
                rank.beat, rank.beat_at = beat, time.time()

    def _note_event(self, event: Event) -> None:
        if event.kind == "verification-failed":
            self._unverified = event.rank
        if event.kind == "fenced":
            self.fenced = True
        data = {"rank": event.rank, "step": event.step, "seq": event.seq}
        text = event.text or f"rank {event.rank}: {event.kind}"
        self._jot(_EVENT_NOTES.get(event.kind, event.kind), text, data)

    def _look_for_signs(self, now: float) -> None:
        if now - self._signs_at < SIGNS_EVERY:
            return
        self._signs_at = now
        if self._files is not None and self._files.look():
            for watch in self._all_watches():
                watch.tick(now)
        for rank in self._ranks:
            if rank.output is not None and rank.output.look():
                self._take_step(rank, rank.output.last, now)

    def _take_step(self, rank: _Rank, step: int | None, now: float) -> None:
        watch = self._watch(rank.local_rank if self._by_rank else rank.rank)
        if step is None:
            watch.tick(now)
        elif watch.beat(now, "step", step):
            self._remember(Beat(rank.rank, "step", step))
            line = {"rank": rank.rank, "phase": "step", "step": step, "at": time.time()}
            self._journal.write([{**line, **self._generation()}])

    def _generation(self) -> dict[str, int]:
        return {} if self._plan is None else {"generation": self._plan.generation}

    # what went wrong

    def _reap(self) -> None:
        """Notice who ended. Of several at once, the one that speaks for itself comes first."""
        ended = [r for r in self._ranks if not r.exit_seen and r.child.poll() is not None]
        ended.sort(key=self._tells_most)
        for rank in ended:
            rank.exit_seen = True
            if self._ending is None and rank.child.returncode != 0:
                self._mourn(rank)

    def _tells_most(self, rank: _Rank) -> tuple[int, float]:
        """Sort key: failed verification, then signals, then whoever wrote its last words first.

        A rank that is killed takes its peers along by broken connections, within milliseconds.
        """
        code = rank.child.returncode
        order = 0 if code == exits.VERIFICATION else 1 if code < 0 else 2
        try:
            spoke_at = self._log(rank).stat().st_mtime
        except OSError:
            spoke_at = 0.0
        return order, spoke_at

    def _log(self, rank: _Rank) -> Path:
        generation = 0 if self._plan is None else self._plan.generation
        return self._place.log(generation, rank.rank)

    def _mourn(self, rank: _Rank) -> None:
        code = rank.child.returncode
        fingerprint = exits.fingerprint(code, self._log(rank))
        data = {"rank": rank.rank, "exit_code": code, "pid": rank.child.pid}
        if code == exits.FENCED:
            self.fenced = True
            self._jot("foreign-fence", f"rank {rank.rank} found itself fenced", data)
            return
        self._jot("rank-exited", f"rank {rank.rank} ended: {fingerprint}", data)
        unverified = code == exits.VERIFICATION or self._unverified is not None
        self._blame(Cause.VERIFICATION if unverified else Cause.RANK_EXIT, rank, fingerprint)

    def _blame(self, cause: Cause, rank: _Rank | None, fingerprint: str) -> None:
        """Keep the first trouble of the generation; what follows is usually its consequence."""
        if self.trouble is not None:
            return
        beat = None if rank is None else rank.beat
        resume = None if self._plan is None else self._plan.resume
        self.ended_at = time.time()
        self.trouble = Because(
            cause=cause,
            step=None if beat is None else beat.step,
            fingerprint=fingerprint,
            node=self._spec.node,
            rank=None if rank is None else rank.rank,
            commit=resume if cause is Cause.VERIFICATION else None,
        )

    def _look_at_states(self, now: float) -> None:
        if now - self._state_at < STATE_EVERY:
            return
        self._state_at = now
        for rank in self._ranks:
            if rank.child.returncode is not None or not self._stopped(rank):
                rank.stopped_since = None
            elif rank.stopped_since is None:
                rank.stopped_since = now
            elif now - rank.stopped_since >= STOPPED_FOR and self.trouble is None:
                text = f"rank {rank.rank} is stopped (pid {rank.child.pid})"
                self._jot("rank-stopped", text, {"rank": rank.rank, "pid": rank.child.pid})
                self._blame(Cause.RANK_STOPPED, rank, "stopped")

    def _stopped(self, rank: _Rank) -> bool:
        """Say whether a rank is stopped; of an opaque command, any process of it."""
        if is_stopped(rank.child.pid):
            return True
        return not self._by_rank and any(one.state == "T" for one in descendants(rank.child.pid))

    def _judge(self, now: float) -> None:
        if self.trouble is not None:
            return
        stalls = {
            slot: self._watches[slot].judge(now)
            for slot in sorted(self._watches)
            if self._process_of(slot) is not None
        }
        culprit = first_to_stall(stalls)
        if culprit is not None:
            self._call_hang(culprit, stalls[culprit])
        for slot, stall in stalls.items():
            if stall.verdict is not Verdict.FINE:
                self._suspect(slot, stall, now)

    def _process_of(self, slot: int) -> _Rank | None:
        """Return the running process behind a watch."""
        running = (rank for rank in self._ranks if rank.child.returncode is None)
        return next((r for r in running if not self._by_rank or r.local_rank == slot), None)

    def _call_hang(self, slot: int, stall: Stall) -> None:
        rank = self._process_of(slot)
        number = self._number(slot)
        learned = "learned" if stall.learned else "declared"
        text = (
            f"rank {number} made no progress for {stall.seconds:.1f} s in phase {stall.phase} "
            f"({learned} limit {stall.limit:.1f} s)"
        )
        self._jot("hang", text, {"rank": number, "step": stall.step, "phase": stall.phase})
        self._blame(Cause.HANG, rank, f"no progress in phase {stall.phase}")

    def _number(self, slot: int) -> int:
        return slot if not self._by_rank or self._plan is None else self._plan.rank(slot)

    # suspicion and stacks

    def _suspect(self, slot: int, stall: Stall, now: float) -> None:
        """Take a rank's stacks, in a process of its own; the note follows when they are there."""
        rank = self._process_of(slot)
        lately = now - self._suspected_at.get(slot, float("-inf")) < SUSPECT_EVERY
        if rank is None or (lately and stall.verdict is not Verdict.HANG):
            return
        if any(dumped == slot for dumped, _, _ in self._dumps):
            return
        self._suspected_at[slot] = now
        generation = 0 if self._plan is None else self._plan.generation
        name = f"g{generation}.r{self._number(slot)}.{stall.step}.txt"
        file = self._place.stacks / name
        self._dumps.append((slot, stall, Dump(rank.child.pid, file, now)))

    def _collect_stacks(self, now: float) -> None:
        for entry in [entry for entry in self._dumps if entry[2].done(now)]:
            self._dumps.remove(entry)
            slot, stall, dump = entry
            number = self._number(slot)
            mute = "; it never sent a heartbeat, so this is only reported" if stall.mute else ""
            text = f"rank {number} is silent for {stall.seconds:.1f} s in {stall.phase}{mute}"
            data = {"rank": number, "step": stall.step, "phase": stall.phase, "pid": dump.pid}
            self._jot("suspected", text, {**data, "stack": dump.text()})

    # ending

    @property
    def finished(self) -> bool:
        """Say whether every rank ended with exit code 0."""
        return bool(self._ranks) and all(rank.child.returncode == 0 for rank in self._ranks)

    @property
    def gone(self) -> bool:
        """Say whether nothing of the last generation is left on this node."""
        return self._plan is None or (self._ending is not None and self._ending.gone)

    def end(self, now: float, why: str) -> None:
        """Begin to end the generation; `look` goes on with it. A second call changes nothing.

        Stacks of a hang that are being taken are waited for, within their limit. `why` goes to the
        agent's log.
        """
        if self._plan is None or self._ending is not None:
            return
        hung = self.trouble is not None and self.trouble.cause is Cause.HANG
        dumps = [dump for _, _, dump in self._dumps] if hung else []
        manner = Manner(grace=self._spec.stop_grace, groups=not self._by_rank)
        children = [rank.child for rank in self._ranks]
        self._ending = Ending(children, self._target(), manner, dumps)
        self._ending.step(now)
        print(f"ending generation {self._plan.generation}: {why}", file=sys.stderr, flush=True)

    def _target(self) -> Target:
        """Mean what carries HOLDFAST_GENERATION, and orphans that the guard has adopted."""
        mine = os.getpid()
        below = frozenset() if self._guard is None else frozenset({self._guard})
        marked = frozenset({"HOLDFAST_GENERATION"})
        return Target(self._place.marker, marked, below, spare=frozenset({mine}) | below)

    # saying

    def _jot(self, kind: str, text: str, data: Mapping[str, Any]) -> None:
        self._jots.append(Jot(time.time(), kind, text, {**data, **self._generation()}))

    def drain_notes(self) -> list[Jot]:
        """Return the notes since the last call; of a flood only the last `JOTS_MAX`."""
        jots = list(self._jots)
        self._jots.clear()
        return jots

    def limits(self) -> dict[str, float]:
        """Return the hang limit in seconds of each phase, the longest of the ranks'."""
        merged: dict[str, float] = {}
        for watch in self._watches.values():
            for phase, limit in watch.limits().items():
                merged[phase] = max(limit, merged.get(phase, 0.0))
        return merged

    @property
    def ignored(self) -> int:
        """Count what came through the FIFO and was no heartbeat of a rank of this node."""
        return self._mailbox.ignored

    def close(self) -> None:
        """Close the FIFO, and end stack dumps that are under way."""
        for _, _, dump in self._dumps:
            dump.cancel()
        self._mailbox.close()
