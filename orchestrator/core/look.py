"""One look at the fleet: a working copy, the decisions made so far, and when to look again.

The modules of `reconcile` (orders, custody, eviction, recovery, placement, incidents) share one
`Look`. A decision that changes only the ledger is enacted on the working copy at once, so that the
next module sees it; the others are collected. Every comparison with time goes through `due`, so
that `look_again_at` names exactly the moments at which the same snapshot would decide otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from orchestrator.core.beliefs import AgentBelief, NodeBelief, RegisterBelief
from orchestrator.core.decisions import Decision, Effect, LedgerOnly, RepairStep, StartAgent, key
from orchestrator.core.enact import enact, start_subject
from orchestrator.core.fleet import Cluster, Fleet
from orchestrator.core.jobs import Attempt, AttemptState
from orchestrator.core.judge import Judgement, judge
from orchestrator.core.nodes import SEATED, ClusterName, JobName, Node, NodeName
from orchestrator.core.policies import Policy

LIVE = frozenset({AttemptState.OPENING, AttemptState.OPEN})
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Look:
    """The fleet while it is being thought about. Lives for one call of `reconcile`."""

    def __init__(self, fleet: Fleet, policy: Policy) -> None:
        """Begin a look at this snapshot."""
        self.fleet, self.policy = fleet, policy
        self.decisions: list[Decision] = []
        self.moments: set[datetime] = set()
        self._asked: set[str] = {intent.key for intent in fleet.intents}
        self._settled = {settled.key: settled for settled in fleet.settled}
        self._clusters = {cluster.name: cluster for cluster in fleet.clusters}

    # --- time ---------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The moment of the snapshot."""
        return self.fleet.now

    def due(self, moment: datetime) -> bool:
        """Say whether this moment has come; if not, look again then."""
        if self.now >= moment:
            return True
        self.moments.add(moment)
        return False

    def lasts(self, since: datetime | None, limit: timedelta) -> bool:
        """Say whether something has lasted that long; None has not begun."""
        return since is not None and self.due(since + limit)

    def recent(self, at: datetime | None, window: timedelta) -> bool:
        """Say whether something happened within the last `window`; look again when it ends."""
        return at is not None and not self.due(at + window)

    # --- deciding -----------------------------------------------------------------------------

    def do(self, decision: LedgerOnly) -> None:
        """Decide what changes only the ledger; the working copy shows it at once."""
        self.decisions.append(decision)
        self.fleet = enact(self.fleet, decision, self.now)

    def ask(self, effect: Effect) -> None:
        """Decide what touches the world, unless it is under way or was settled just now."""
        name = key(effect)
        if name in self._asked:
            return
        settled = self._settled.get(name)
        if settled is not None and not self.due(settled.at + self.policy.look_every):
            return
        self._asked.add(name)
        self.decisions.append(effect)

    def outcome(self, effect: Effect) -> bool | None:
        """Say how this very effect ended: well, badly, or None if it did not yet."""
        settled = self._settled.get(key(effect))
        return None if settled is None else settled.ok

    def under_way(self, kind: type, node: NodeName) -> bool:
        """Say whether an effect of this kind is in flight for this node."""
        return any(
            isinstance(intent.decision, kind) and getattr(intent.decision, "node", None) == node
            for intent in self.fleet.intents
        )

    # --- looking up ---------------------------------------------------------------------------

    def belief(self, node: NodeName) -> NodeBelief:
        """Return what we hold of a node, or the belief that holds nothing."""
        return self.fleet.beliefs.nodes.get(node) or NodeBelief(node)

    def register(self, job: JobName) -> RegisterBelief:
        """Return what we hold of a job's register."""
        return self.fleet.beliefs.registers.get(job) or RegisterBelief(job)

    def judge(self, node: Node) -> Judgement:
        """Return the verdict on a node."""
        return judge(self.belief(node.name), self.policy, node.pardoned_at)

    def cluster(self, name: ClusterName) -> Cluster | None:
        """Return a configured cluster."""
        return self._clusters.get(name)

    def nodes(self) -> list[Node]:
        """Return all nodes by name."""
        return [self.fleet.nodes[name] for name in sorted(self.fleet.nodes)]

    def seats(self, attempt: Attempt) -> list[Node]:
        """Return the nodes seated in an attempt, by name."""
        key = (attempt.job, attempt.number)
        return [n for n in self.nodes() if n.state in SEATED and (n.job, n.attempt) == key]

    def attempts(self, states: Iterable[AttemptState]) -> list[Attempt]:
        """Return the attempts in these states, by job and number."""
        wanted = frozenset(states)
        found = (attempt for attempt in self.fleet.attempts if attempt.state in wanted)
        return sorted(found, key=lambda attempt: (attempt.job, attempt.number))

    def attempt(self, job: JobName, number: int) -> Attempt | None:
        """Return an attempt that is in the snapshot."""
        named = (job, number)
        return next((a for a in self.fleet.attempts if (a.job, a.number) == named), None)

    def agents(self, attempt: Attempt) -> list[tuple[NodeName, AgentBelief]]:
        """Return what we hold of the attempt's agents, by node."""
        found = []
        for name in sorted(self.fleet.beliefs.nodes):
            agent = self.fleet.beliefs.nodes[name].agent(attempt.job, attempt.number)
            if agent is not None:
                found.append((name, agent))
        return found

    # --- what was done before -----------------------------------------------------------------

    def used(self, kind: str, subject: str, window: timedelta) -> list[datetime]:
        """Return when something was done within the window, oldest first."""
        moments = [
            used.at
            for used in self.fleet.used
            if used.kind == kind and used.subject == subject and used.at > self.now - window
        ]
        return sorted(moments)

    def exhausted(self, moments: list[datetime], most: int, window: timedelta) -> bool:
        """Say whether a budget is spent; if so, look again when its oldest use runs out."""
        if len(moments) < most:
            return False
        self.moments.add(moments[len(moments) - most] + window)
        return True

    def reboots(self, node: NodeName) -> list[datetime]:
        """Return when this node was rebooted within the last day."""
        return self.used(str(RepairStep.REBOOT), node, DAY)

    def starts(self, node: NodeName, attempt: Attempt) -> list[datetime]:
        """Return when this attempt's agent was started there within the last day."""
        subject = start_subject(node, attempt.job, attempt.number)
        return self.used("agent-start", subject, DAY)

    # --- what is proven -----------------------------------------------------------------------

    def unreached(self, node: NodeName) -> bool:
        """Say whether the node cannot be reached at the moment."""
        return self.belief(node).unreached_since is not None

    def starting(self, node: NodeName, attempt: Attempt) -> bool:
        """Say whether a start of this attempt's agent there is in flight."""
        return any(
            isinstance(intent.decision, StartAgent)
            and intent.decision.node == node
            and (intent.decision.job, intent.decision.attempt) == (attempt.job, attempt.number)
            for intent in self.fleet.intents
        )

    def gone(self, node: NodeName, attempt: Attempt) -> bool:
        """Say whether it is proven that nothing of the attempt runs there (or ever began to)."""
        if self.starting(node, attempt):
            return False
        starts = self.starts(node, attempt)
        agent = self.belief(node).agent(attempt.job, attempt.number)
        if agent is None:
            return not starts
        return agent.gone_at is not None and not (starts and starts[-1] > agent.gone_at)

    def all_gone(self, attempt: Attempt) -> bool:
        """Say whether nothing of the attempt runs anywhere."""
        nodes = {name for name, _ in self.agents(attempt)}
        nodes |= {node.name for node in self.seats(attempt)}
        return all(self.gone(node, attempt) for node in sorted(nodes))
