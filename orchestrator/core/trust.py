"""How long a node is on probation: until it is unlikely enough that its fault is still in it.

After delivery and after every repair there are two cases: the node is well, or something is still
wrong with it. The prior odds of the second come from what its machine went through lately, and are
higher while its cohort is chaotic. A bad node shows itself after `policy.relapse_mean` of service
in the mean, exponentially; each hour without a failure divides the odds. Probation ends when they
are below `policy.doubt_max`, wherever the node is: idle or seated. A new boot begins it anew.

Bayes for two exponential hazards, the well node's neglected (weeks against hours):
odds(t) = odds(0) exp(-t / relapse_mean).
"""

from __future__ import annotations

from datetime import timedelta
from math import log

from orchestrator.core import outlook
from orchestrator.core.history import BLAMELESS, Trouble
from orchestrator.core.look import Look
from orchestrator.core.nodes import Node
from orchestrator.core.verdicts import Verdict

#: Beta prior of "something is still wrong", in nodes: one in ten, before anything is known.
PRIOR_BAD, PRIOR_ALL = 1.0, 10.0
LEMON_WINDOW = timedelta(days=28)  #: as in Meta's study of lemon nodes (2024)


def doubt(look: Look, node: Node) -> float:
    """Return the prior probability that something is still wrong with a node."""
    bad = len(troubles(look, node))
    return (PRIOR_BAD + bad) / (PRIOR_ALL + bad)


def trial_length(look: Look, node: Node) -> timedelta:
    """Return how long a node must serve without a failure before it is trusted."""
    most = look.policy.doubt_max
    if most >= 1:
        return timedelta(0)
    prior = doubt(look, node)
    odds = prior / (1 - prior) * strictness(look, node)
    return look.policy.relapse_mean * max(0.0, log(odds) - log(most / (1 - most)))


def strictness(look: Look, node: Node) -> float:
    """Return by what the odds against a node are multiplied in the phase of its cohort."""
    return outlook.strictness(look, node)


def trusted(look: Look, node: Node) -> str | None:
    """Return why a node on probation is trusted by now; None if it is not."""
    since, belief = node.trial_since, look.belief(node.name)
    if since is None or belief.unreached_since is not None:
        return None
    if look.judge(node).verdict is not Verdict.FIT:
        return None
    if belief.booted_at is not None:
        since = max(since, belief.booted_at)
    length = trial_length(look, node)
    if not look.due(since + length):
        return None
    hours = length.total_seconds() / 3600
    return f"{hours:.3g} h of service without a failure"


def troubles(look: Look, node: Node) -> tuple[Trouble, ...]:
    """Return what a machine was taken out of service for in the last four weeks, and guilty."""
    return tuple(
        one
        for one in node.history.troubles
        if one.acquitted_at is None
        and one.fault not in BLAMELESS
        and look.recent(one.at, LEMON_WINDOW)
    )


def lemon(look: Look, node: Node) -> str | None:
    """Return why a node is a lemon: one that fails again and again; None if it is not."""
    lately = troubles(look, node)
    if len(lately) < max(1, look.policy.lemon_after):
        return None
    faults = ", ".join(dict.fromkeys(one.fault for one in lately))
    return f"out of service {len(lately)} times within four weeks ({faults})"
