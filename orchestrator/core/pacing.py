"""How often an attempt is asked to write a checkpoint, kept up as the outlook changes.

Called by `reconcile` for each open attempt. The interval is the best one for the rate at which its
nodes fail (`outlook`); a new one is asked for only when it differs clearly, so that it does not
follow every failure.
"""

from __future__ import annotations

from datetime import timedelta
from math import log, log1p

from orchestrator.core.decisions import SetCadence
from orchestrator.core.jobs import Attempt, AttemptState
from orchestrator.core.look import Look
from orchestrator.core.outlook import checkpoint_interval, gang_rate, measured


def pace_checkpoints(look: Look, attempt: Attempt) -> None:
    """Ask for another checkpoint interval if the best one differs clearly from the present one."""
    spec = look.job(attempt.job).spec
    if attempt.state is not AttemptState.OPEN or spec.register is None:
        return
    every = checkpoint_interval(look, attempt)
    if attempt.every is None or _differs(attempt.every, every, look.policy.checkpoint_change):
        look.do(SetCadence(attempt.job, attempt.number, every, _reason(look, attempt)))


def _differs(old: timedelta, new: timedelta, share: float) -> bool:
    return abs(log(new / old)) >= log1p(share) - 1e-9


def _reason(look: Look, attempt: Attempt) -> str:
    stall, lag = measured(look, attempt)
    return (
        f"{gang_rate(look, attempt):.2g} failures a week are expected of its nodes; a checkpoint "
        f"stops it for {stall.total_seconds():.2g} s and is durable after "
        f"{lag.total_seconds():.2g} s"
    )
