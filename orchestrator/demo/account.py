"""What the demo found out: each fault's cost, ETTR, and whether the weights are identical."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.chaos import Fault
from orchestrator.demo.director import Broken
from orchestrator.demo.watch import Watch
from orchestrator.ledger.api import Event
from orchestrator.runtime.place import write_atomically

#: The events that tell of each fault; the first one after the injection is when it was noticed.
NOTICED: dict[Fault, frozenset[str]] = {
    Fault.KILL_RANK: frozenset({"rank-exited"}),
    Fault.HANG_RANK: frozenset({"rank-stopped"}),
    Fault.KILL_NODE: frozenset({"peer-lost", "agent-silent", "node-unreached", "node-lost"}),
    Fault.GPU_FAULT: frozenset({"finding"}),
    Fault.CORRUPT_CHECKPOINT: frozenset({"verification-failed"}),
    Fault.LOSE_CLUSTER: frozenset({"agent-silent", "node-unreached", "node-lost"}),
    Fault.KILL_CONTROLLER: frozenset({"daemon-started"}),
}

#: The events that tell what was done about it.
DECIDED: dict[Fault, frozenset[str]] = {
    Fault.KILL_RANK: frozenset({"generation-formed"}),
    Fault.HANG_RANK: frozenset({"generation-formed"}),
    Fault.KILL_NODE: frozenset({"generation-formed"}),
    Fault.GPU_FAULT: frozenset({"IssueGrant"}),
    Fault.CORRUPT_CHECKPOINT: frozenset({"verification-failed", "generation-formed"}),
    Fault.LOSE_CLUSTER: frozenset({"OpenAttempt"}),
    Fault.KILL_CONTROLLER: frozenset({"daemon-started"}),
}


@dataclass(frozen=True, slots=True)
class FaultRow:
    """One fault and what it cost."""

    kind: str
    target: str | list[str]
    pid: int | None
    at_step: int
    noticed_s: float | None  #: from the injection to the moment written by who noticed first
    resumed_s: float | None  #: to the first step completed by all ranks that was new
    steps_repeated: int
    decision: str


def account(
    broken: Sequence[Broken], watch: Watch, events: Sequence[Event]
) -> tuple[FaultRow, ...]:
    """Return one row per fault, in the order of their injection."""
    ends = [one.injected.at for one in broken[1:]] + [float("inf")]
    return tuple(_row(one, end, watch, events) for one, end in zip(broken, ends, strict=True))


def _row(one: Broken, end: float, watch: Watch, events: Sequence[Event]) -> FaultRow:
    fault = one.injected
    within = [event for event in events if fault.at < event.at.timestamp() <= end]
    noticed = [event.at.timestamp() for event in within if event.kind in NOTICED[fault.kind]]
    resumed = watch.resumed_at(fault.at)
    return FaultRow(
        kind=fault.kind.value,
        target=fault.target,
        pid=fault.pid,
        at_step=one.at_step,
        noticed_s=_since(fault.at, min(noticed, default=None)),
        resumed_s=_since(fault.at, resumed),
        steps_repeated=watch.repeated(fault.at, resumed or end),
        decision=_decision(fault.kind, within),
    )


def _decision(kind: Fault, events: Sequence[Event]) -> str:
    texts = [event.text for event in events if event.kind in DECIDED[kind]]
    if kind is Fault.CORRUPT_CHECKPOINT:
        texts = [text for text in texts if "did not verify" in text] or texts
    return texts[0] if texts else ""


def _since(start: float, moment: float | None) -> float | None:
    return None if moment is None else round(moment - start, 3)


def ettr(watch: Watch, median_step: float) -> float:
    """Return the effective training time ratio: productive time over wall time.

    Productive is what an undisturbed run takes for the same steps (its median step each); the wall
    runs from one step before the first completed step to the last.
    """
    first, last = watch.span()
    wall = last - first + median_step
    return min(1.0, watch.done * median_step / wall) if wall > 0 else 0.0


def save_losses(path: Path, watch: Watch) -> None:
    """Write loss per step as JSON: {"1": 7.9, ...}."""
    losses = {str(step): loss for step, loss in sorted(watch.losses().items())}
    write_atomically(path, (json.dumps(losses, indent=1) + "\n").encode())


def as_json(rows: Sequence[FaultRow], facts: dict[str, Any]) -> dict[str, Any]:
    """Return the demo's result as plain JSON types."""
    return {"steps": facts["steps"], "faults": [asdict(row) for row in rows], **facts}
