"""What a job's GPU-seconds truly went to: worked out from what befell it, not from what was told.

The other side of `core.accounts`, which are made from the ledger and must come to the same: the
world logs who was seated, what the gang did, each stretch of its training and from where it went on
(`truth.Log`). It shares nothing with the accounts but the names of the causes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from orchestrator.core.accounts import us
from orchestrator.core.nodes import JobName, NodeName, NodeState
from orchestrator.core.timeline import Cause
from orchestrator.simulation.agenda import moment
from orchestrator.simulation.training import Stretch
from orchestrator.simulation.truth import Doing, Log, Turn
from orchestrator.simulation.world import World

SECOND = 1_000_000
BARE = Turn(0.0, 0, Doing.NOTHING, ())


@dataclass(slots=True)
class Bill:
    """The true books of one job."""

    paid_us: int = 0  #: GPU-microseconds held, exactly
    gpu_us: Counter[Cause] = field(default_factory=Counter)  #: of each cause


@dataclass(frozen=True, slots=True)
class _Part:
    """A stretch of training, or the piece of one that was thrown away."""

    start: float
    end: float
    shares: dict[Cause, float]


def bill(world: World, job: JobName) -> Bill:
    """Return where the GPU-seconds of a job went, from its beginning to now."""
    log, until = world.books[job].log, us(moment(world.now))
    gpus = {name: machine.gpus for name, machine in world.machines.items()}
    parts = {
        run[1]: _parts(gang.clock.stretches, _went_back(world, job))
        for run, gang in world.gangs.items()
        if run[0] == job
    }
    made = Bill()
    seated: dict[NodeName, NodeState] = {}
    for start, end, turn, opening in _pieces(log, until, seated):
        held = sum(gpus[node] for node in seated)
        aside = sum(
            gpus[node]
            for node, state in seated.items()
            if state is NodeState.STANDBY and node not in turn.members
        )
        made.paid_us += held * (end - start)
        mine = parts.get(turn.attempt, [])
        for cause, share in _causes(turn, mine, start, end, opening=opening).items():
            gang = held if cause is Cause.IDLE else held - aside
            if cause in OF_MEMBERS:
                gang = min(held, sum(gpus[node] for node in turn.members))
            spare = 0 if cause is Cause.IDLE else min(aside, held - gang)
            lasted = share * (end - start)
            made.gpu_us[cause] += round(gang * lasted)
            made.gpu_us[Cause.SPARE] += round(spare * lasted)
            made.gpu_us[Cause.IDLE] += round((held - gang - spare) * lasted)
    return made


#: What only the members of the last generation do; whoever else is held idles beside them.
OF_MEMBERS = frozenset(
    {
        Cause.PRODUCTIVE,
        Cause.CHECKPOINT_STALL,
        Cause.DEGRADED,
        Cause.LOST_WORK,
        Cause.DETECT,
    }
)


def _pieces(
    log: Log, until: int, seated: dict[NodeName, NodeState]
) -> Iterator[tuple[int, int, Turn, bool]]:
    """Yield (from, to, what was done, an attempt is being started); keep `seated` up to date."""
    turns = [(us(moment(turn.at)), turn) for turn in log.turns]
    opened = [us(at) for at in log.opened]
    edges = {*(us(one.at) for one in log.seats), *(at for at, _ in turns), *opened, until}
    seats = iter([*log.seats, None])
    coming, starts = next(seats), [at for at, _ in turns]
    for start, end in pairwise(sorted(edges)):
        while coming is not None and us(coming.at) <= start:
            if coming.state is None:
                seated.pop(coming.node, None)
            else:
                seated[coming.node] = coming.state
            coming = next(seats)
        if end <= until:
            index = bisect_right(starts, start)
            turn = turns[index - 1][1] if index else BARE
            yield start, end, turn, bisect_right(opened, start) > turn.attempt


def _causes(
    turn: Turn, parts: list[_Part], start: int, end: int, *, opening: bool
) -> dict[Cause, float]:
    """Return the shares of a piece of time in which nothing changed but the training."""
    match turn.doing:
        case _ if opening:
            return {Cause.RESTART: 1.0}
        case Doing.TRAINING:
            return _trained(parts, start, end)
        case Doing.UNNOTICED:
            return {Cause.DETECT: 1.0}
        case Doing.STARTING | Doing.RESTARTING:
            return {Cause.RESTART: 1.0}
        case Doing.SHORT:
            return {Cause.OUTAGE: 1.0}
        case Doing.NOTHING:
            return {Cause.IDLE: 1.0}


def _trained(parts: list[_Part], start: int, end: int) -> dict[Cause, float]:
    """Return the shares of training time; a fenced gang's, of which the clock stands, restarts."""
    shares: defaultdict[Cause, float] = defaultdict(float)
    left = 1.0
    index = bisect_right(parts, start, key=lambda one: us(moment(one.end)))
    for part in parts[index:]:
        first, last = us(moment(part.start)), us(moment(part.end))
        if first >= end:
            break
        share = (min(last, end) - max(first, start)) / (end - start)
        left -= share
        for cause, one in part.shares.items():
            shares[cause] += share * one
    shares[Cause.RESTART] += max(0.0, left)
    return dict(shares)


# --- what was thrown away -----------------------------------------------------------------------


def _went_back(world: World, job: JobName) -> list[tuple[float, float]]:
    """Return (when, to which work) of each moment after which earlier work never counted again.

    From the last to the first, each with the least work that anything later went back to.
    """
    least, found = float("inf"), []
    for at, work in reversed(world.books[job].log.resumed):
        least = min(least, work)
        found.append((at, least))
    return found[::-1]


def _parts(stretches: list[Stretch], back: list[tuple[float, float]]) -> list[_Part]:
    """Cut each stretch where what followed was thrown away."""
    moments = [at for at, _ in back]
    parts = []
    for one in stretches:
        index = bisect_right(moments, one.start)
        kept = back[index][1] if index < len(back) else float("inf")
        cut = one.end if kept >= one.done else one.reached(max(kept, one.work))
        trained = (min(kept, one.done) - one.work) / one.speed if kept > one.work else 0.0
        if cut > one.start:
            stalled = max(0.0, cut - one.start - trained) / (cut - one.start)
            shares = {
                Cause.PRODUCTIVE: one.speed * (1.0 - stalled),
                Cause.DEGRADED: (1.0 - one.speed) * (1.0 - stalled),
                Cause.CHECKPOINT_STALL: stalled,
            }
            parts.append(_Part(one.start, cut, shares))
        if one.end > cut:
            parts.append(_Part(max(cut, one.start), one.end, {Cause.LOST_WORK: 1.0}))
    return parts
