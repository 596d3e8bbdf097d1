"""Which failures of nodes count for their cohort's phase, and when: part of the fold `assess`.

A *sign* is one fact that says that a node failed: an explicit hardware finding, its provider's word
that it is off, a boot that followed another one. Signs are collected on the node and drawn into
its cohort only once nothing earlier can come any more: `contact.LATENESS` before the newest listing
of its cluster. So the order in which facts arrive changes nothing. Signs of one *trouble* (the
finding, the power, the reboot that mends it) are one failure, at the moment of the first.

Exposure is what the provider lists as running. A list that names nothing is not believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from orchestrator.core.contact import LATENESS
from orchestrator.core.nodes import ClusterName, CohortName, NodeName, ProviderName
from orchestrator.core.phases import Phases

if TYPE_CHECKING:
    from orchestrator.core.beliefs import ClusterBelief, NodeBelief
    from orchestrator.core.observations import Ordered

TROUBLE_GAP = timedelta(hours=1)  #: signs that follow sooner belong to the same trouble
MENDING = timedelta(days=7)  #: within it one boot is the repair of a trouble, not a new one
BEAT = timedelta(minutes=10)  #: a sign that goes on is noted once per beat
REMEMBERED = timedelta(weeks=13)  #: failures are kept that long, to tell lemons
FAILURES_MAX = 400  #: per cohort, the newest
SIGNS_MAX = 64  #: per node, the newest; reached only where no listing comes for hours
WEEKS_MAX = 1_000.0  #: of a count that a person tells
GROWN = 0.1  #: share of new machines from which a cohort counts as changed


@dataclass(frozen=True, slots=True)
class Sign:
    """One fact that says that a node failed."""

    at: datetime
    what: str  #: "off", "fault", or "boot:ID"


@dataclass(frozen=True, slots=True)
class Trouble:
    """A failure of a node, from its first sign on."""

    failed_at: datetime
    until: datetime  #: signs were seen up to here
    mended: bool = False  #: the boot that repaired it was seen
    booted_at: datetime | None = None  #: the newest boot that was drawn, in it or before it


@dataclass(frozen=True, slots=True)
class Listing:
    """How many machines of each cohort ran at a moment."""

    at: datetime
    provider: str
    running: tuple[tuple[str, int], ...]  #: (cohort, machines), sorted


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a person told of a cohort: that it was changed, or how often it failed before."""

    at: datetime
    number: int  #: of the order
    cohort: str  #: its name; "" for all of the cluster
    at_least: int = 0  #: failures counted ("20 or more"); 0: it was changed
    weeks: float = 0.0  #: in which they were counted, on as many machines as run


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure of a node, as it counted."""

    at: datetime
    node: NodeName


@dataclass(frozen=True, slots=True)
class CohortBelief:
    """What we hold of one cohort: a hand-over batch of nodes in a cluster."""

    cluster: ClusterName
    cohort: CohortName
    provider: ProviderName
    phases: Phases
    begun_at: datetime
    failures: tuple[Failure, ...] = ()  #: the last `REMEMBERED`, oldest first

    @property
    def key(self) -> str:
        """The name under which it is kept: "cluster/cohort"."""
        return cohort_key(self.cluster, self.cohort)


def cohort_key(cluster: str, cohort: str) -> str:
    """Return the key of a cohort in `Beliefs.cohorts`: names of cohorts repeat in clusters."""
    return f"{cluster}/{cohort}"


# --- collecting -----------------------------------------------------------------------------


def signed(node: NodeBelief, at: datetime, what: str) -> NodeBelief:
    """Return the node with one more sign, unless it is known."""
    new = Sign(at, what)
    if node.trouble is not None and _drawn(new, node.trouble):
        return node
    signs = {_place(sign): sign for sign in node.signs}
    known = signs.get(_place(new))
    if known is not None and known.at <= at:
        return node
    signs[_place(new)] = new
    ordered = sorted(signs.values(), key=lambda sign: (sign.at, sign.what))
    return replace(node, signs=tuple(ordered[-SIGNS_MAX:]))


def listed(
    cluster: ClusterBelief, at: datetime, provider: str, running: Iterable[tuple[str, int]]
) -> ClusterBelief:
    """Return the cluster with one more listing that named machines, not yet drawn upon."""
    if cluster.filled_at is not None and at < cluster.filled_at - LATENESS:
        return cluster
    new = Listing(at, provider, tuple(sorted(running)))
    known = {*cluster.listings, new}
    if len(known) == len(cluster.listings):
        return cluster
    ordered = sorted(known, key=lambda one: (one.at, one.provider, one.running))
    return replace(cluster, listings=tuple(ordered))


def announced(cluster: ClusterBelief, order: Ordered) -> ClusterBelief:
    """Return the cluster with what a person told of it; what cannot be read is left out."""
    cohort, at_least, weeks = order.subject.partition("/")[2], 0, 0.0
    if order.body:
        try:
            at_least, weeks = int(order.body["at_least"]), float(order.body["weeks"])
        except (KeyError, TypeError, ValueError, OverflowError):
            return cluster
        if at_least < 1 or not 0 < weeks <= WEEKS_MAX:
            return cluster
    new = Announcement(order.at, order.number, cohort, at_least, weeks)
    known = sorted((*cluster.announced, new), key=lambda one: (one.at, one.number))
    return replace(cluster, announced=tuple(known))


def _place(sign: Sign) -> tuple[str, datetime | None]:
    """Return what makes two signs one: the same boot, or the same kind within one beat."""
    return (sign.what, None if sign.what.startswith("boot:") else _beat(sign.at))


def _drawn(sign: Sign, trouble: Trouble) -> bool:
    """Say whether a sign was drawn before, or says nothing beyond what was."""
    if sign.what.startswith("boot:"):
        return trouble.booted_at is not None and sign.at <= trouble.booted_at
    return sign.at < trouble.until


def _beat(at: datetime) -> datetime:
    """Return the end of the beat in which a moment lies."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + ((at - epoch) // BEAT + 1) * BEAT


# --- drawing --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Drawn:
    """What became of a cluster's signs and listings."""

    cluster: ClusterBelief
    nodes: tuple[NodeBelief, ...]  #: those that changed
    cohorts: tuple[CohortBelief, ...]  #: those that changed


def draw(
    cluster: ClusterBelief, nodes: Iterable[NodeBelief], cohorts: dict[str, CohortBelief]
) -> Drawn | None:
    """Draw into the cohorts what nothing earlier can precede any more; None before any listing.

    `nodes` are those that this cluster's provider named last.
    """
    if cluster.filled_at is None:
        return None
    until = cluster.filled_at - LATENESS
    ripe = [listing for listing in cluster.listings if listing.at < until]
    mine = list(nodes)
    events = list(_exposures(ripe, mine))
    changed = []
    for node in mine:
        if node.signs and node.seen is not None:
            new, failures = _troubled(node, until)
            if new is not node:
                changed.append(new)
            events += [(at, 1, node.seen.cohort, 0, node.node) for at in failures]
    events += [
        (one.at, 2, one.cohort, one.at_least, str(one.weeks))
        for one in cluster.announced
        if one.at < until
    ]
    events.sort()
    known = dict(cohorts)
    provider = ripe[-1].provider if ripe else ""
    for event in events:
        _enter(known, cluster.cluster, provider, event)
    rest = tuple(listing for listing in cluster.listings if listing.at >= until)
    told = tuple(one for one in cluster.announced if one.at >= until)
    if len(rest) < len(cluster.listings) or len(told) < len(cluster.announced):
        cluster = replace(cluster, listings=rest, announced=told)
    return Drawn(
        cluster,
        tuple(changed),
        tuple(one for key, one in known.items() if one is not cohorts.get(key)),
    )


#: moment, kind, cohort, and for 0 (exposure) machines and how many of them are new, for 1 (failure)
#: 0 and the node, for 2 (announcement) failures counted and the weeks.
Event = tuple[datetime, int, str, int, str]


def _exposures(ripe: list[Listing], nodes: list[NodeBelief]) -> Iterator[Event]:
    moments = {listing.at for listing in ripe}
    new: dict[tuple[datetime, str], int] = {}
    for node in nodes:
        if node.running_at in moments and node.seen is not None:
            key = (node.running_at, node.seen.cohort)
            new[key] = new.get(key, 0) + 1
    for listing in ripe:
        for cohort, running in listing.running:
            joined = new.get((listing.at, cohort), 0)
            yield (listing.at, 0, cohort, running, str(joined))


def _enter(
    cohorts: dict[str, CohortBelief], cluster: ClusterName, provider: str, event: Event
) -> None:
    at, kind, name, running, detail = event
    key = cohort_key(cluster, name)
    belief = cohorts.get(key)
    if kind == 1:
        if belief is not None:
            cohorts[key] = _failed(belief, at, NodeName(detail))
        return
    if kind == 2:
        for one in [one for one in cohorts.values() if one.cluster == cluster]:
            if name in ("", one.cohort):
                cohorts[one.key] = _told(one, at, running, float(detail))
        return
    if belief is None:
        phases = Phases.begin(at, float(running))
        named = (cluster, CohortName(name), ProviderName(provider))
        cohorts[key] = CohortBelief(*named, phases, at)
        return
    phases = belief.phases
    if int(detail) >= max(1.0, GROWN * running):
        phases = phases.announced(at)
    phases = phases.exposed(at, float(running))
    if phases is not belief.phases:
        cohorts[key] = replace(belief, phases=phases)


def _told(belief: CohortBelief, at: datetime, at_least: int, weeks: float) -> CohortBelief:
    phases = belief.phases
    if at_least == 0:
        return replace(belief, phases=phases.announced(at))
    if phases.nodes < 1:
        return belief
    return replace(belief, phases=phases.at(at).counted(at_least, phases.nodes, weeks))


def _failed(belief: CohortBelief, at: datetime, node: NodeName) -> CohortBelief:
    kept = tuple(one for one in belief.failures if one.at > at - REMEMBERED)
    failures = (*kept, Failure(at, node))[-FAILURES_MAX:]
    return replace(belief, phases=belief.phases.failed(at), failures=failures)


def _troubled(node: NodeBelief, until: datetime) -> tuple[NodeBelief, list[datetime]]:
    """Return the node without its ripe signs, and the moments at which it failed."""
    ripe = [sign for sign in node.signs if sign.at < until]
    if not ripe:
        return node, []
    trouble, failures = node.trouble, []
    for sign in ripe:
        boot, end = sign.what.startswith("boot:"), _beat(sign.at)
        delivered_off = node.running_at is None or sign.at < node.running_at
        same = trouble is not None and sign.at <= trouble.until + TROUBLE_GAP
        repair = boot and trouble is not None and not trouble.mended
        repair = repair and trouble is not None and sign.at <= trouble.until + MENDING
        if trouble is not None and (same or repair):
            mended = trouble.mended or boot
            trouble = replace(trouble, until=max(trouble.until, end), mended=mended)
        else:
            booted_at = trouble.booted_at if trouble is not None else None
            trouble = Trouble(sign.at, end, mended=boot, booted_at=booted_at)
            if boot or not delivered_off:
                failures.append(sign.at)
        if boot:
            trouble = replace(trouble, booted_at=sign.at)
    rest = (sign for sign in node.signs if sign.at >= until)
    rest = (sign for sign in rest if trouble is None or not _drawn(sign, trouble))
    return replace(node, signs=tuple(rest), trouble=trouble), failures
