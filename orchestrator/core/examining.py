"""When an idle node is examined with active checks: rates, bandwidths, repeats, storage.

They make a node work, so they run where no job is: on a node that has been idle for a while, once
in `policy.active_every`, more often in a chaotic cohort, after each new boot, and again soon after
they found something. Few of a cluster's nodes at once. Nothing here keeps a node from being seated:
what starts an agent on it ends them first (`runtime.launch`).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.core.acceptance import CHECKS, Stage
from orchestrator.core.beliefs import NodeBelief
from orchestrator.core.decisions import Examine
from orchestrator.core.enact import EXAMINATION
from orchestrator.core.look import Look
from orchestrator.core.nodes import IDLE, ClusterName, Node
from orchestrator.core.outlook import active_every
from orchestrator.core.verdicts import Severity, Verdict

LASTS = timedelta(minutes=10)  #: one examination, for the count of those under way
NAMES = frozenset(
    name for stage in (Stage.ACTIVE, Stage.STORAGE, Stage.TRAINING) for name in CHECKS[stage] or ()
)


def examine_idle(look: Look, node: Node) -> None:
    """Ask for active checks of a node that is idle and due."""
    policy = look.policy
    if not policy.active_checks or node.state not in IDLE or node.cordon is not None:
        return
    belief = look.belief(node.name)
    if belief.unreached_since is not None or look.under_way(Examine, node.name):
        return
    if any(agent.gone_at is None for agent in belief.agents):
        return
    if look.judge(node).verdict not in (Verdict.FIT, Verdict.SUSPECT):
        return
    since, reason = _since(look, node, belief)
    if not look.due(since) or not _room(look, node.cluster):
        return
    look.ask(Examine(node.name, node.cluster, since, reason))


def _since(look: Look, node: Node, belief: NodeBelief) -> tuple[datetime, str]:
    """Return from when on a node is to be examined, and why."""
    policy, last = look.policy, belief.examined_at
    idle = node.since + policy.active_after
    if last is None or (belief.booted_at is not None and belief.booted_at > last):
        return idle, "idle, and not examined in this boot"
    if any(_bad(one.check, one.severity) for one in belief.findings):
        return max(idle, last + policy.active_after), "whether what was found is still so"
    return max(idle, last + active_every(look, node)), f"idle, last examined at {last:%F %H:%M}"


def _bad(check: str, severity: Severity) -> bool:
    return check in NAMES and severity in (Severity.WARNING, Severity.CRITICAL)


def _room(look: Look, cluster: ClusterName) -> bool:
    """Say whether another node of a cluster may be examined: a share of them, but always one."""
    most = max(1, int(look.policy.active_share * len(look.nodes_in(cluster)) + 1e-9))
    return not look.exhausted(look.used(EXAMINATION, cluster, LASTS), most, LASTS)
