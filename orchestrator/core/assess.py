"""Observations -> beliefs: a pure fold that does not care in which order the facts come.

Called by the daemon in the transaction that records the observations, by the simulator and by
tests. For each key the fact with the newest `at` wins; a repeated fact changes nothing; replaying
everything gives the same beliefs (within `contact.LATENESS`). What follows from several facts
together (a machine that is off runs no agent; a new boot ended every older process; findings of an
older boot are history) is derived again after each fact, in `_settled`. What counts for a cohort's
phase is collected on nodes and clusters, and drawn into the cohorts at a listing (`cohorts`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from orchestrator.core.beliefs import (
    AgentBelief,
    Beliefs,
    Boot,
    ClusterBelief,
    LinkBelief,
    NodeBelief,
    RegisterBelief,
)
from orchestrator.core.cohorts import announced, draw, listed, signed
from orchestrator.core.contact import Contact
from orchestrator.core.firings import heard
from orchestrator.core.links import accusations, with_round
from orchestrator.core.nodes import ClusterName, JobName, NodeName
from orchestrator.core.observations import (
    Accused,
    AgentGone,
    AgentSeen,
    AgentSilent,
    Examined,
    InventorySeen,
    MachineSeen,
    NodeReached,
    NodeUnreached,
    Observation,
    Ordered,
    OrderKind,
    PairsTested,
    Power,
    Probed,
    ProviderFailed,
    RegisterSeen,
    RegisterSilent,
)
from orchestrator.core.policies import EXPLICIT
from orchestrator.core.sheets import draft
from orchestrator.core.verdicts import FaultClass, Finding, Severity
from orchestrator.runtime.reports import AgentReport, Note, Stage

#: Kinds of notes whose newest is remembered: what incidents are made of.
KEPT = frozenset(
    {
        "commit",
        "commit-failed",
        "failed",
        "generation-formed",
        "hang",
        "rank-exited",
        "replica-behind",
        "replicated",
        "suspected",
        "verification-failed",
    }
)
STALL = "suspected"  #: of these the newest of each rank is remembered: the stacks of a gang
STALLS_MAX = 16  #: of one agent
BOOTS_MAX = 4  #: boots remembered per node
CLOCK_STEP = timedelta(seconds=15)  #: of what a node's clock is corrected by
DATED_MAX = timedelta(days=30)  #: age of a finding, on its node's clock, that is corrected
FORGET = timedelta(days=1)  #: an agent proven gone, an accusation: forgotten after that long
NEVER = datetime.max.replace(tzinfo=UTC)
ACCUSED_MAX = 16  #: accusations remembered per node
POWER_PROOF = "its provider vouches that the machine is off"


def assess(beliefs: Beliefs, observations: Iterable[Observation], now: datetime) -> Beliefs:
    """Return the beliefs after more observations, in whatever order they are listed."""
    fold = _Fold(beliefs)
    for observation in sorted(observations, key=lambda one: one.at):
        fold.take(observation)
    return fold.done(now)


class _Fold:
    """The beliefs while they are being folded: copied once, then changed in place."""

    def __init__(self, beliefs: Beliefs) -> None:
        self._nodes = draft(beliefs.nodes)
        self._clusters = dict(beliefs.clusters)
        self._registers = dict(beliefs.registers)
        self._orders = {order.number: order for order in beliefs.orders}
        self._answered = beliefs.answered
        self._forget_at = beliefs.forget_at
        self._cohorts = beliefs.cohorts
        self._detectors = beliefs.detectors
        self._links = beliefs.links
        self._listed: set[ClusterName] = set()
        self._offs = beliefs.offs

    def done(self, now: datetime) -> Beliefs:
        if self._forget_at is None or self._forget_at <= now:
            self._forget(now)
        self._witness()
        for cluster in sorted(self._listed):
            self._draw(cluster)
        orders = tuple(self._orders[number] for number in sorted(self._orders))
        return Beliefs(
            self._nodes,
            self._clusters,
            self._registers,
            orders,
            self._answered,
            self._cohorts,
            self._detectors,
            self._links,
            forget_at=self._forget_at,
            offs=self._offs,
        )

    def _forget(self, now: datetime) -> None:
        """Forget agents that are gone for long, and find out when the next one will be."""
        next_at = NEVER
        for name, node in self._nodes.items():
            if not node.agents and not node.accused:
                continue
            kept = tuple(a for a in node.agents if a.gone_at is None or a.gone_at > now - FORGET)
            accused = tuple(one for one in node.accused if one.at > now - FORGET)
            if len(kept) < len(node.agents) or len(accused) < len(node.accused):
                self._nodes[name] = node = replace(node, agents=kept, accused=accused)
            next_at = min([next_at, *_forgotten_at(node)])
        if any(one.tested_at <= now - FORGET for one in self._links.values()):
            kept_links = ((k, v) for k, v in self._links.items() if v.tested_at > now - FORGET)
            self._links = dict(kept_links)
        self._forget_at = min([next_at, *(one.tested_at + FORGET for one in self._links.values())])

    def _keep(self, node: NodeBelief) -> None:
        """Hold a node to be so; one of which nothing new was learned stays the same object."""
        if node == self._nodes.get(node.node):
            return
        self._nodes[node.node] = node
        if self._offs is not None and _seems_off(node) != (node.node in self._offs):
            self._offs ^= {node.node}
        if self._forget_at is not None:
            self._forget_at = min([self._forget_at, *_forgotten_at(node)])

    def _witness(self) -> None:
        """Find out whether the gangs of nodes that are called off and out of reach hear them."""
        if self._offs is None:
            seem_off = (name for name, node in self._nodes.items() if _seems_off(node))
            self._offs = frozenset(seem_off)
        for name in sorted(self._offs):
            node = self._nodes[name]
            witnessed = any(self._heard(node, agent) for agent in node.agents)
            if witnessed != node.witnessed:
                self._keep(_settled(replace(node, witnessed=witnessed)))

    def _heard(self, node: NodeBelief, agent: AgentBelief) -> bool:
        """Say whether a member that watches this one, and answers us, still runs with it.

        The leader, first of the members, watches all, and all watch the leader. One that died is
        told as lost by them within seconds; before that their last word stands.
        """
        for peer in agent.report.members if agent.report is not None else ():
            other = self._nodes.get(NodeName(peer))
            theirs = other.agent(agent.job, agent.attempt) if other is not None else None
            report = theirs.report if theirs is not None else None
            if peer == node.node or theirs is None or report is None:
                continue
            answers = theirs.silent_since is None and theirs.gone_at is None
            watches = bool(report.members) and report.members[0] in (peer, node.node)
            hears = node.node in report.members and node.node not in report.peers_lost
            if answers and watches and hears and report.stage is Stage.RUNNING:
                return True
        return False

    def _draw(self, cluster: ClusterName) -> None:
        mine = (node for node in self._nodes.values() if node.cluster == cluster)
        drawn = draw(self._clusters[cluster], mine, self._cohorts)
        if drawn is None:
            return
        self._clusters[cluster] = drawn.cluster
        self._nodes.update((node.node, node) for node in drawn.nodes)
        if drawn.cohorts:
            self._cohorts = {**self._cohorts, **{one.key: one for one in drawn.cohorts}}

    def take(self, observation: Observation) -> None:  # noqa: C901 - one case per observation
        match observation:
            case InventorySeen():
                self._take_inventory(observation)
            case ProviderFailed(cluster=name, at=at, error=error):
                cluster = self._clusters.get(name, ClusterBelief(name))
                contact = _cluster_contact(cluster).failed(at, error)
                self._clusters[name] = _with_cluster_contact(cluster, contact)
            case RegisterSeen(job=job) | RegisterSilent(job=job):
                register = self._registers.get(job, RegisterBelief(job))
                self._registers[job] = _registered(register, observation)
            case Accused(nodes=named):
                for one in set(named):
                    self._keep(_accused(self._node(one), observation))
            case PairsTested():
                self._take_pairs(observation)
            case Ordered(number=number):
                if number not in self._answered:
                    if number not in self._orders:
                        self._announce(observation)
                    self._orders[number] = observation
            case (
                AgentSeen()
                | AgentSilent()
                | AgentGone()
                | NodeReached()
                | NodeUnreached()
                | Probed()
                | Examined()
            ):
                node = self._node(observation.node)
                self._keep(_settled(_learned(node, observation)))

    def _announce(self, order: Ordered) -> None:
        name = ClusterName(order.subject.partition("/")[0])
        if order.kind is OrderKind.ANNOUNCE and name in self._clusters:
            self._clusters[name] = announced(self._clusters[name], order)

    def _take_pairs(self, tested: PairsTested) -> None:
        """Add a round; once the localisation is over, its nodes are accused of what it found."""
        name = tested.inquiry.name
        links = with_round(self._links.get(name, LinkBelief(tested.inquiry)), tested)
        if links == self._links.get(name):
            return
        self._links = {**self._links, name: links}
        if self._forget_at is not None:
            self._forget_at = min(self._forget_at, links.tested_at + FORGET)
        for accusation in accusations(links):
            for one in accusation.nodes:
                self._keep(_accused(self._node(one), accusation))

    def _node(self, name: NodeName) -> NodeBelief:
        return self._nodes.get(name) or NodeBelief(name)

    def _take_inventory(self, listing: InventorySeen) -> None:
        cluster = self._clusters.get(listing.cluster, ClusterBelief(listing.cluster))
        cluster = _with_cluster_contact(cluster, _cluster_contact(cluster).answered(listing.at))
        if listing.machines:
            cluster = replace(cluster, filled_at=_latest(cluster.filled_at, listing.at))
            cluster = listed(cluster, listing.at, listing.provider, _running(listing))
            self._listed.add(listing.cluster)
        self._clusters[listing.cluster] = cluster
        for seen in listing.machines:
            node = _listed(self._node(seen.node), seen, listing.at)
            if node.seen_at == listing.at:
                cluster_name = ClusterName(listing.cluster)
                node = replace(node, cluster=cluster_name, provider=listing.provider)
            self._keep(_settled(node))


def _running(listing: InventorySeen) -> Iterable[tuple[str, int]]:
    """Return how many machines of each cohort run; 0 for one of which none does."""
    running = dict.fromkeys((seen.cohort for seen in listing.machines), 0)
    for seen in listing.machines:
        running[seen.cohort] += seen.power is Power.RUNNING
    return running.items()


# --- nodes ----------------------------------------------------------------------------------


def _learned(
    node: NodeBelief,
    seen: AgentSeen | AgentSilent | AgentGone | NodeReached | NodeUnreached | Probed | Examined,
) -> NodeBelief:
    match seen:
        case NodeReached(at=at, boot_id=boot_id):
            return _with_contact(_booted(node, boot_id, at, own=True), _contact(node).answered(at))
        case NodeUnreached(at=at, error=error):
            return _with_contact(node, _contact(node).failed(at, error))
        case Probed(at=at):
            return _with_contact(_probed(node, seen), _contact(node).answered(at))
        case Examined(at=at, boot_id=boot_id, findings=findings, stopped=stopped):
            node = _probed(node, Probed(seen.node, at, boot_id, findings, complete=False))
            if not stopped:
                node = replace(node, examined_at=_latest(node.examined_at, at))
            return _with_contact(node, _contact(node).answered(at))
        case AgentSeen(at=at, report=report):
            agent = _agent(node, JobName(report.job), report.attempt)
            node = _booted(node, report.boot_id, at, own=True)
            node = _with_agent(node, _reported(agent, report, at))
            return _with_contact(node, _contact(node).answered(at))
        case AgentSilent(job=job, attempt=attempt, at=at, error=error):
            agent = _agent(node, job, attempt)
            return _with_agent(node, _with_silence(agent, _silence(agent).failed(at, error)))
        case AgentGone(job=job, attempt=attempt, at=at, proof=proof):
            return _with_agent(node, _proven(_agent(node, job, attempt), at, proof))


def _listed(node: NodeBelief, seen: MachineSeen, at: datetime) -> NodeBelief:
    if seen.power is Power.STOPPED:
        node = signed(replace(node, stopped_at=_latest(node.stopped_at, at)), at, "off")
    elif seen.power is Power.RUNNING:
        node = _ran(_booted(node, seen.boot_id, at), seen, at)
    if node.seen is None or node.seen_at is None:
        return replace(node, seen=seen, seen_at=at)
    newer = (at, seen.power.value, seen.boot_id)
    if newer > (node.seen_at, node.seen.power.value, node.seen.boot_id):
        return replace(node, seen=seen, seen_at=at)
    return node


def _ran(node: NodeBelief, seen: MachineSeen, at: datetime) -> NodeBelief:
    """Remember when this machine was listed as running first; another machine begins anew."""
    if node.running_at is None or at < node.running_at:
        return replace(node, running_at=at)
    swapped = node.seen is not None and node.seen.machine.id != seen.machine.id
    if swapped and node.seen_at is not None and at > node.seen_at:
        return replace(node, running_at=at)
    return node


def _booted(
    node: NodeBelief,
    boot_id: str,
    at: datetime,
    probed_at: datetime | None = None,
    *,
    own: bool = False,
) -> NodeBelief:
    """Remember that this boot was seen.

    A boot that the node itself named outranks one that only its provider lists, whose data may be
    stale; a boot with a name outranks one without.
    """
    if not boot_id and probed_at is None:
        return node
    boots = {boot.id: boot for boot in node.boots}
    old = boots.get(boot_id, Boot(boot_id, at, at))
    first_at = min(old.first_at, at)
    if own:
        last_at = at if old.own_at is None else max(old.last_at, at)
    else:
        last_at = first_at if old.own_at is None else old.last_at
    boots[boot_id] = Boot(
        boot_id,
        first_at=first_at,
        last_at=last_at,
        probed_at=old.probed_at if probed_at is None else _latest(old.probed_at, probed_at),
        own_at=min(old.own_at or at, at) if own else old.own_at,
    )
    ranked = sorted(boots.values(), key=_rank)
    node = replace(node, boots=tuple(ranked[-BOOTS_MAX:]))
    named = sorted((boot.first_at, boot.id) for boot in node.boots if boot.id)
    for first_at, name in named[1:]:
        node = signed(node, first_at, f"boot:{name}")
    return node


def _rank(boot: Boot) -> tuple[bool, bool, datetime, str]:
    return (boot.own_at is not None, boot.id != "", boot.last_at, boot.id)


def _probed(node: NodeBelief, probe: Probed) -> NodeBelief:
    probed_at = probe.at if probe.complete else None
    node = _booted(node, probe.boot_id, probe.at, probed_at, own=True)
    named = [_told(f, probe) for f in probe.findings]
    for finding in named:
        if _explicit(finding) and finding.boot_id == probe.boot_id:
            node = signed(node, probe.at, "fault")
    present = _present(node)
    known = {f.key: f for f in node.findings if f.boot_id in present}
    for finding in named:
        if finding.boot_id in present and _weight(finding) > _weight(known.get(finding.key)):
            known[finding.key] = finding
    findings = tuple(known[key] for key in sorted(known))
    return replace(node, findings=findings, firings=heard(node.firings, named, probe.at))


def _explicit(finding: Finding) -> bool:
    """Say whether this is a hardware fault that the driver names itself."""
    return (
        finding.severity is Severity.CRITICAL
        and finding.fault is FaultClass.HARDWARE
        and finding.detector in EXPLICIT
    )


def _accused(node: NodeBelief, accusation: Accused) -> NodeBelief:
    """Remember an accusation; of several of the same moment the most certain one."""
    named = {_occasion(one): one for one in node.accused}
    known = named.get(_occasion(accusation))
    if known is None or _certainty(accusation) > _certainty(known):
        named[_occasion(accusation)] = accusation
    kept = tuple(named[key] for key in sorted(named))
    return replace(node, accused=kept[-ACCUSED_MAX:])


def _occasion(one: Accused) -> tuple[datetime, str, int, str]:
    return (one.at, one.job, one.attempt, one.channel.value)


def _certainty(one: Accused) -> tuple[float, tuple[str, ...], str]:
    return (one.posterior, one.nodes, one.evidence)


def _present(node: NodeBelief) -> tuple[str, ...]:
    """Return the boot ids whose findings are of the present boot: its own, or none named."""
    return ("", node.boots[-1].id) if node.boots else ("",)


def _told(finding: Finding, probe: Probed) -> Finding:
    """Enter when we were told, and on our clock when it was found: never in the future."""
    observed_at = min(finding.observed_at + _behind(finding, probe), probe.at)
    boot_id = finding.boot_id or probe.boot_id
    return replace(finding, boot_id=boot_id, observed_at=observed_at, told_at=probe.at)


def _behind(finding: Finding, probe: Probed) -> timedelta:
    """Return how far the clock that dated a finding is behind ours (ahead: negative).

    In steps, so that a finding that is told again and again keeps its moment: how long an answer
    was on its way is different each time. What a node calls older than `DATED_MAX`, or to come, is
    left as it is: its clock was another one then.
    """
    if probe.clock_at is None or abs(probe.clock_at - finding.observed_at) > DATED_MAX:
        return timedelta(0)
    return round((probe.at - probe.clock_at) / CLOCK_STEP) * CLOCK_STEP


def _weight(finding: Finding | None) -> tuple[bool, float, int, str, float]:
    """Order findings of one key: the newest counts, and one that could not look never does."""
    if finding is None:
        return (False, float("-inf"), 0, "", 0.0)
    looked = finding.severity is not Severity.UNKNOWN
    told_at = finding.told_at.timestamp() if finding.told_at is not None else 0.0
    observed_at = finding.observed_at.timestamp()
    return (looked, observed_at, int(finding.severity), finding.evidence, told_at)


def _seems_off(node: NodeBelief) -> bool:
    return node.unreached_since is not None and node.called_off


def _forgotten_at(node: NodeBelief) -> Iterator[datetime]:
    """Yield when something of a node will be forgotten."""
    yield from (agent.gone_at + FORGET for agent in node.agents if agent.gone_at is not None)
    if node.accused:
        yield node.accused[0].at + FORGET


def _settled(node: NodeBelief) -> NodeBelief:
    """Draw what follows from all facts of a node together."""
    if node.witnessed and not _seems_off(node):
        node = replace(node, witnessed=False)
    boot = node.boots[-1] if node.boots else None
    present = _present(node)
    return replace(
        node,
        boot_id=boot.id if boot else "",
        probed_at=boot.probed_at if boot else None,
        findings=tuple(f for f in node.findings if f.boot_id in present),
        agents=tuple(_ended(agent, node, boot) for agent in node.agents),
    )


def _ended(agent: AgentBelief, node: NodeBelief, boot: Boot | None) -> AgentBelief:
    """Believe the newest proof that an agent is gone, if it is not older than its last answer.

    A provider's listing may be stale: that it calls a machine off counts while neither we nor its
    gang hear the node, and a new boot counts once the node itself names it.
    """
    proofs = [agent.told] if agent.told is not None else []
    if node.stopped_at is not None and node.unreached_since is not None and not node.witnessed:
        proofs.append((node.stopped_at, POWER_PROOF))
    ran_in = agent.report.boot_id if agent.report is not None else ""
    if boot is not None and boot.id and boot.own_at and ran_in and ran_in != boot.id:
        proofs.append((boot.own_at, f"the node booted again ({boot.id})"))
    answered_at = agent.answered_at
    valid = [proof for proof in proofs if answered_at is None or proof[0] >= answered_at]
    gone_at, proof = max(valid, default=(None, ""))
    return replace(agent, gone_at=gone_at, proof=proof)


# --- agents ---------------------------------------------------------------------------------


def _agent(node: NodeBelief, job: JobName, attempt: int) -> AgentBelief:
    return node.agent(job, attempt) or AgentBelief(job, attempt)


def _with_agent(node: NodeBelief, agent: AgentBelief) -> NodeBelief:
    key = (agent.job, agent.attempt)
    others = [one for one in node.agents if (one.job, one.attempt) != key]
    agents = sorted([*others, agent], key=lambda one: (one.job, one.attempt))
    return replace(node, agents=tuple(agents))


def _reported(agent: AgentBelief, report: AgentReport, at: datetime) -> AgentBelief:
    if agent.report is None or agent.answered_at is None:
        newer, same = True, False
    else:
        newer = (at, report.at, report.agent) > (
            agent.answered_at,
            agent.report.at,
            agent.report.agent,
        )
        same = report.agent == agent.report.agent
    if newer or same:
        agent = replace(agent, notes=_notes(agent.notes if same else (), report.notes))
    if newer:
        agent = replace(agent, report=replace(report, notes=()))
    return _with_silence(agent, _silence(agent).answered(at))


def _notes(known: tuple[Note, ...], more: Iterable[Note]) -> tuple[Note, ...]:
    newest = {_slot(note): note for note in known}
    for note in more:
        slot = _slot(note)
        if note.kind in KEPT and (slot not in newest or note.number > newest[slot].number):
            newest[slot] = note
    kept = sorted(newest.values(), key=lambda one: (one.kind, one.number))
    stalls = [one for one in kept if one.kind == STALL]
    old = {one.number for one in stalls[:-STALLS_MAX]}
    return tuple(one for one in kept if one.kind != STALL or one.number not in old)


def _slot(note: Note) -> tuple[str, str]:
    """Return what a newer note replaces: the last one of its kind, of stalls that of its rank."""
    return note.kind, str(note.data.get("rank")) if note.kind == STALL else ""


def _proven(agent: AgentBelief, at: datetime, proof: str) -> AgentBelief:
    """Remember the newest proof; whether it still says anything is drawn in `_ended`."""
    newest = (at, proof) if agent.told is None else max(agent.told, (at, proof))
    return replace(agent, told=newest)


# --- registers ------------------------------------------------------------------------------


def _registered(register: RegisterBelief, told: RegisterSeen | RegisterSilent) -> RegisterBelief:
    ok_at = register.seen.at if register.seen else None
    contact = Contact(ok_at, register.silent_since, register.error, register.lately)
    if isinstance(told, RegisterSilent):
        contact = contact.failed(told.at, told.error)
    else:
        contact = contact.answered(told.at)
        register = _read(register, told)
    return replace(register, silent_since=contact.since, error=contact.error, lately=contact.lately)


def _read(register: RegisterBelief, seen: RegisterSeen) -> RegisterBelief:
    formed = seen.generations[-1].seq if seen.generations else 0
    fence = seen.fence.seq if seen.fence else 0
    commit = seen.commit.seq if seen.commit else 0
    register = replace(
        register,
        formed=_first_seen(register.formed, formed, seen.at),
        advanced=_first_seen(register.advanced, max(fence, formed, commit), seen.at),
    )
    known = register.seen
    if known is None or (seen.at, seen.commits, seen.void) > (known.at, known.commits, known.void):
        return replace(register, seen=seen)
    return register


def _first_seen(
    known: tuple[int, datetime] | None, seq: int, at: datetime
) -> tuple[int, datetime] | None:
    """Return the highest seq and the moment at which it was seen first."""
    if seq == 0 or (known is not None and known[0] > seq):
        return known
    if known is None or known[0] < seq:
        return (seq, at)
    return (seq, min(at, known[1]))


# --- contacts -------------------------------------------------------------------------------


def _contact(node: NodeBelief) -> Contact:
    return Contact(node.reached_at, node.unreached_since, node.unreached_error, node.lately)


def _with_contact(node: NodeBelief, contact: Contact) -> NodeBelief:
    return replace(
        node,
        reached_at=contact.ok_at,
        unreached_since=contact.since,
        unreached_error=contact.error,
        lately=contact.lately,
    )


def _silence(agent: AgentBelief) -> Contact:
    return Contact(agent.answered_at, agent.silent_since, agent.silence, agent.lately)


def _with_silence(agent: AgentBelief, contact: Contact) -> AgentBelief:
    return replace(
        agent,
        answered_at=contact.ok_at,
        silent_since=contact.since,
        silence=contact.error,
        lately=contact.lately,
    )


def _cluster_contact(cluster: ClusterBelief) -> Contact:
    return Contact(cluster.listed_at, cluster.failing_since, cluster.error, cluster.lately)


def _with_cluster_contact(cluster: ClusterBelief, contact: Contact) -> ClusterBelief:
    return replace(
        cluster,
        listed_at=contact.ok_at,
        failing_since=contact.since,
        error=contact.error,
        lately=contact.lately,
    )


def _latest(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else max(one, other)
