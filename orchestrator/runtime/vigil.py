"""Watching over a node's ranks: whose silence is suspicious, whose is a hang, and their stacks.

It holds one `progress.Watch` for each rank that can be told apart; those of a `launch: command` by
the number under which they speak. What was learned of their pace is kept from generation to
generation. The rule itself is in `progress.py`; here it meets the job's declaration and py-spy.

Standard library only, Python 3.10.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.runtime.progress import HangPolicy, Stall, Verdict, Watch, first_to_stall
from orchestrator.runtime.rankplan import RankPlan
from orchestrator.runtime.spec import AgentSpec
from orchestrator.runtime.stacks import Dump

SUSPECT_EVERY = 30.0  #: seconds between two suspicions of one rank
UNSEEN_MAX = 2.0  #: seconds without a look after which that time proves nothing about ranks
PARK_MIN, PARK_MAX = 2.0, 60.0  #: seconds that a rank has to leave its generation
PARK_STEPS = 3.0  #: the same, in 99th percentiles of the rank's own steps
SPEAKERS_MAX = 64  #: ranks that may speak through one opaque command


@dataclass(frozen=True)
class Suspicion:
    """A stall with the stacks that were taken of it."""

    rank: int
    stall: Stall
    pid: int
    stack: str


@dataclass
class _Look:
    slot: int
    stall: Stall
    dump: Dump


class Vigil:
    """Watches one node's ranks, generation after generation. A *slot* is one that is watched."""

    def __init__(self, spec: AgentSpec, stacks: Path) -> None:
        """Watch as the job declared; stacks are kept in the folder `stacks`."""
        self._spec, self._stacks = spec, stacks
        self._plan: RankPlan | None = None
        self._watches: dict[int, Watch] = {}
        self._looks: list[_Look] = []
        self._suspected_at: dict[int, float] = {}
        self._now: float | None = None

    def begin(self, plan: RankPlan) -> None:
        """Start over with the ranks of a new generation."""
        self.close()
        self._plan, self._now, self._suspected_at = plan, None, {}

    @property
    def _opaque(self) -> bool:
        return self._spec.launch == "command"

    def look(self, now: float) -> bool:
        """Note that somebody looks; False if nobody did for so long that it must be forgiven.

        An agent that was frozen, or had no processor, cannot say that nothing happened meanwhile.
        """
        before, self._now = self._now, now
        if before is None:
            for slot in self._own_slots():
                self._watch(slot)
            for watch in self._watches.values():
                watch.begin(now)
        elif now - before > UNSEEN_MAX:
            for watch in self._watches.values():
                watch.excuse(now - before)
            return False
        return True

    def _own_slots(self) -> list[int]:
        """Return the slots that are watched from the start."""
        if self._plan is None:
            return []
        return [self._plan.group_rank] if self._opaque else list(range(self._plan.ranks_per_node))

    def slot(self, rank: int) -> int | None:
        """Return the slot of a global rank; None if no such rank is on this node."""
        plan = self._plan
        if plan is None:
            return None
        if self._opaque:
            known = rank in self._watches or len(self._watches) < SPEAKERS_MAX
            return rank if known and rank < plan.world_size else None
        local = rank - plan.group_rank * plan.ranks_per_node
        return local if 0 <= local < plan.ranks_per_node else None

    def rank(self, slot: int) -> int:
        """Return the global rank of a slot."""
        return slot if self._opaque or self._plan is None else self._plan.rank(slot)

    def _watch(self, slot: int) -> Watch:
        if slot not in self._watches:
            watch = Watch(self._policy(slot))
            watch.begin(0.0 if self._now is None else self._now)
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

    # progress

    def beat(self, slot: int, now: float, phase: str, step: int | None) -> bool:
        """Take in a sign of life of one slot; say whether it is progress."""
        return self._watch(slot).beat(now, phase, step)

    def tick(self, slot: int, now: float) -> None:
        """Take in a sign of progress of one slot that names no step."""
        self._watch(slot).tick(now)

    def tick_all(self, now: float) -> None:
        """Take in a sign of progress of the whole node."""
        for watch in self._watches.values():
            watch.tick(now)

    # silence

    def judge(self, now: float, pid: Callable[[int], int | None]) -> tuple[int, Stall] | None:
        """Return the rank whose hang began first, and its stall; None if none hangs.

        `pid` names the running process behind a slot. Suspicions are opened on the way.
        """
        pids = {slot: found for slot in self._watches if (found := pid(slot)) is not None}
        stalls = {slot: self._watches[slot].judge(now) for slot in sorted(pids)}
        for slot, stall in stalls.items():
            if stall.verdict is not Verdict.FINE:
                self._suspect(slot, stall, pids[slot], now)
        culprit = first_to_stall(stalls)
        return None if culprit is None else (self.rank(culprit), stalls[culprit])

    def _suspect(self, slot: int, stall: Stall, pid: int, now: float) -> None:
        """Begin to take stacks: once for a stall, again when it is called a hang."""
        lately = now - self._suspected_at.get(slot, float("-inf")) < SUSPECT_EVERY
        if lately and stall.verdict is not Verdict.HANG:
            return
        if any(look.slot == slot for look in self._looks):
            return
        self._suspected_at[slot] = now
        generation = 0 if self._plan is None else self._plan.generation
        file = self._stacks / f"g{generation}.r{self.rank(slot)}.{stall.step}.txt"
        self._looks.append(_Look(slot, stall, Dump(pid, file, now)))

    def suspicions(self, now: float) -> list[Suspicion]:
        """Return those whose stacks have come in since the last call."""
        ready = [look for look in self._looks if look.dump.done(now)]
        self._looks = [look for look in self._looks if look not in ready]
        return [
            Suspicion(self.rank(look.slot), look.stall, look.dump.pid, look.dump.text())
            for look in ready
        ]

    def dumps(self) -> list[Dump]:
        """Return the dumps under way, for an ending that waits for them."""
        return [look.dump for look in self._looks]

    def park_limit(self) -> float:
        """Return how many seconds a rank has to leave its generation: it may be within a step."""
        paces = [watch.pace() for watch in self._watches.values()]
        return min(max([PARK_MIN, *(PARK_STEPS * pace for pace in paces)]), PARK_MAX)

    def limits(self) -> dict[str, float]:
        """Return the hang limit in seconds of each phase, the longest of the ranks'."""
        merged: dict[str, float] = {}
        for watch in self._watches.values():
            for phase, limit in watch.limits().items():
                merged[phase] = max(limit, merged.get(phase, 0.0))
        return merged

    def close(self) -> None:
        """End the dumps under way."""
        for dump in self.dumps():
            dump.cancel()
        self._looks = []
