"""One look at the fleet: a working copy, the decisions made so far, and when to look again.

The modules of `reconcile` (orders, custody, eviction, recovery, placement, incidents) share one
`Look`. A decision that changes only the ledger is enacted on the working copy at once, so that the
next module sees it; the others are collected. Every comparison with time goes through `due`, so
that `look_again_at` names exactly the moments at which the same snapshot would decide otherwise.
Everything is read through the methods below: they are quick, and they note what was read, so that
the next look need not think it again (see `parts`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from orchestrator.core.beliefs import (
    AgentBelief,
    ClusterBelief,
    LinkBelief,
    NodeBelief,
    RegisterBelief,
)
from orchestrator.core.cohorts import CohortBelief
from orchestrator.core.decisions import (
    Decision,
    Effect,
    Incident,
    LedgerOnly,
    Repair,
    RepairStep,
    StartAgent,
    key,
)
from orchestrator.core.detectors import Authority, Detector
from orchestrator.core.enact import enact, start_subject
from orchestrator.core.fleet import Cluster, Fleet
from orchestrator.core.history import same_machine, serials
from orchestrator.core.index import (
    ATTEMPTS,
    CLUSTERS,
    COHORTS,
    DETECTORS,
    HELD,
    INCIDENTS,
    JOBS,
    LINKS,
    NODES,
    ORDERS,
    SIZE,
    UNLISTED,
    Cell,
    Index,
)
from orchestrator.core.jobs import Attempt, AttemptState, Job
from orchestrator.core.judge import Judgement, acting, authority, judge
from orchestrator.core.nodes import ClusterName, JobName, Node, NodeName
from orchestrator.core.observations import Ordered
from orchestrator.core.pages import Page
from orchestrator.core.parts import (
    EVERYTHING,
    WRONGS,
    Key,
    Kind,
    Notes,
    Parts,
    Phase,
    Wrong,
    run,
)
from orchestrator.core.policies import Policy

LIVE = frozenset({AttemptState.OPENING, AttemptState.OPEN})
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NODE = Kind.NODE
T = TypeVar("T")


class Look:
    """The fleet while it is being thought about, in one `reconcile` or one after the other."""

    def __init__(self, fleet: Fleet, policy: Policy, phases: Iterable[Phase] = ()) -> None:
        """Begin with a look at this snapshot."""
        self.policy = policy
        self.decisions: list[Decision] = []
        self._now = fleet.now
        self._index = Index()
        self._parts = Parts(phases)
        self._notes = Notes()
        self._asked: set[str] = set()
        self._asked_of: dict[str, int] = {}  #: steps of the ladder asked for, by name
        self._judged: dict[NodeName, tuple[NodeBelief, datetime | None, Judgement]] = {}
        self._blank: dict[NodeName, NodeBelief] = {}
        self._acting: tuple[dict[str, Detector], frozenset[str]] | None = None
        self._names: list[NodeName] | None = None  #: of all nodes, sorted
        self._turn(fleet)

    def goes_on(self, fleet: Fleet, policy: Policy) -> bool:
        """Say whether what this look found out may serve for that snapshot."""
        same = policy == self.policy and fleet.clusters == self._index.fleet.clusters
        return same and fleet.now >= self._now

    def turn(self, fleet: Fleet) -> None:
        """Look at the next snapshot; what rests on nothing that changed is not thought again."""
        self.decisions = []
        asked, self._asked = self._asked, set()
        steps, self._asked_of = self._asked_of, {}
        self._now = fleet.now
        self._turn(fleet)
        for name in asked:
            self._parts.touch_cell(("key", name))
        for step in steps:
            self._parts.touch_cell(("fleet-used", str(step)))
        self._parts.wake(self._now)

    def _turn(self, fleet: Fleet) -> None:
        touched = self._index.turn(fleet)
        self._nodes, self._beliefs = fleet.nodes, fleet.beliefs.nodes
        if NODES in touched.cells:
            self._names = None
        self._parts.touch(touched)

    # --- parts ----------------------------------------------------------------------------------

    def ordered(self, phase: Phase, keys: set[Key]) -> list[tuple[Any, Key]]:
        """Return the subjects of parts in the order of their phase, each with its place."""
        if phase.order is not None:
            return sorted((self.order(phase, one), one) for one in keys)
        nodes = self._index.fleet.nodes
        if phase.kind is not Kind.NODE or len(keys) < len(nodes) // 4:
            return [(name, name) for name in sorted(keys)]
        if self._names is None:
            self._names = sorted(nodes)
        names = [name for name in self._names if name in keys]
        return [(name, name) for name in (*names, *(keys - nodes.keys()))]

    def order(self, phase: Phase, name: Key) -> Any:
        """Return the place of a subject in its phase."""
        if phase.order is None:
            return name
        mine, self._notes = self._notes, Notes()  # what the order rests on, the part does not
        place = phase.order(self, name)
        self._notes = mine
        return place

    def run(self, phase: Phase, name: Key) -> bool:
        """Run one part, note what it rested on, and say whether it decided anything."""
        before, notes = len(self.decisions), self._notes
        if phase.kind is NODE:
            subject, own = self._nodes.get(name), name
        else:
            subject, own = self._subject(phase, name), phase.cell(name)
        if subject is not None:
            phase.work(self, subject)
        decided, part = len(self.decisions) > before, (phase, name)
        notes.reads.discard(own)
        if notes.reads or notes.moments or decided or notes or self._parts.rests(part):
            self._parts.rested(part, notes, self._now, again=decided)
        return decided

    def _subject(self, phase: Phase, name: Key) -> Any:
        index = self._index
        match phase.kind:
            case Kind.NODE:
                return index.fleet.nodes.get(name)
            case Kind.JOB:
                return index.fleet.jobs.get(name)
            case Kind.CLUSTER:
                return index.clusters.get(name)
            case Kind.RUN:
                mine = index.attempts.get(name[0], ())
                return next((one for one in mine if one.number == name[1]), None)
            case Kind.FLEET:
                return name

    def go_round(self) -> bool:
        """Run every part that must run, phase by phase; say whether anything was decided."""
        before = len(self.decisions)
        for phase in self._parts.phases:
            run(self, self._parts, phase)
        return len(self.decisions) > before

    def resting_on(self, cell: Cell) -> set[tuple[Phase, Key]]:
        """Return the parts that read a cell themselves: for tests."""
        return self._parts.readers(cell)

    def again(self) -> datetime | None:
        """Return when this very snapshot would decide something else; None if never."""
        return self._parts.again()

    def once(self, question: Cell, work: Callable[[], T]) -> T:
        """Answer a question that several parts ask, once until something it rests on changes."""
        answer = self._parts.answer(question, self._now)
        if answer is None:
            mine, self._notes = self._notes, Notes()
            try:
                value = work()
                answer = self._parts.answered(question, value, self._notes)
            finally:
                self._notes = mine
        notes = self._notes
        notes.reads.add(question)
        if answer.again is not None:
            notes.moments.add(answer.again)
        if answer.end is not None:
            notes.ends.add(answer.end)
        return answer.value  # type: ignore[no-any-return]

    def wrong(self, page: Page, subject: str, reason: str) -> None:
        """Say that something is wrong: people are told of it as long as its part says so."""
        self._notes.wrongs.append((page, subject, reason))

    def wrongs(self) -> list[Wrong]:
        """Return everything that is wrong now, in order."""
        self._notes.reads.add(WRONGS)
        return list(self._parts.wrongs(self))

    # --- time -----------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The moment of the snapshot. Who reads it bare is asked again at every look."""
        self._notes.ends.add(self._now)
        return self._now

    def due(self, moment: datetime) -> bool:
        """Say whether this moment has come; if not, look again then."""
        if self._now >= moment:
            return True
        self._notes.moments.add(moment)
        return False

    def lasts(self, since: datetime | None, limit: timedelta) -> bool:
        """Say whether something has lasted that long; None has not begun."""
        return since is not None and self.due(since + limit)

    def recent(self, at: datetime | None, window: timedelta) -> bool:
        """Say whether something happened within the last `window`; look again when it ends."""
        return at is not None and not self.due(at + window)

    def lately(self, moments: Iterable[datetime], window: timedelta) -> list[datetime]:
        """Return those of the moments that lie within the last `window`, in their order."""
        kept = [moment for moment in moments if moment > self._now - window]
        if kept:
            self._notes.ends.add(min(kept) + window)
        return kept

    # --- deciding -------------------------------------------------------------------------------

    def do(self, decision: LedgerOnly) -> None:
        """Decide what changes only the ledger; the working copy shows it at once."""
        self.decisions.append(decision)
        self._turn(enact(self._index.fleet, decision, self._now))

    def ask(self, effect: Effect) -> None:
        """Decide what touches the world, unless it is under way or was settled just now."""
        name = key(effect)
        self._notes.reads.add(("key", name))
        if name in self._asked or name in self._index.intents:
            return
        settled = self._index.settled.get(name)
        if settled is not None and not self.due(settled.at + self.policy.look_every):
            return
        self._asked.add(name)
        self._parts.touch_cell(("key", name))
        self.decisions.append(effect)
        if isinstance(effect, Repair):
            self._asked_of[effect.step] = self._asked_of.get(effect.step, 0) + 1
            self._parts.touch_cell(("fleet-used", str(effect.step)))

    def outcome(self, effect: Effect) -> bool | None:
        """Say how this very effect ended: well, badly, or None if it did not yet."""
        name = key(effect)
        self._notes.reads.add(("key", name))
        settled = self._index.settled.get(name)
        return None if settled is None else settled.ok

    def refused(self, effect: Effect) -> bool:
        """Say whether this very effect failed for a reason that passes by itself."""
        name = key(effect)
        self._notes.reads.add(("key", name))
        settled = self._index.settled.get(name)
        return settled is not None and not settled.ok and settled.passing

    def under_way(self, kind: type, node: NodeName) -> bool:
        """Say whether an effect of this kind is in flight for this node."""
        self._notes.reads.add(node)
        intents = self._index.intents_at.get(node, ())
        return any(isinstance(intent.decision, kind) for intent in intents)

    # --- looking up -----------------------------------------------------------------------------

    @property
    def fleet(self) -> Fleet:
        """The whole working copy. Who reads it is asked again whenever anything changes."""
        self._notes.reads.add(EVERYTHING)
        self._notes.ends.add(self._now)
        return self._index.fleet

    def belief(self, node: NodeName) -> NodeBelief:
        """Return what we hold of a node, or the belief that holds nothing."""
        self._notes.reads.add(node)
        return self._beliefs.get(node) or self._nothing(node)

    def _nothing(self, node: NodeName) -> NodeBelief:
        if node not in self._blank:
            self._blank[node] = NodeBelief(node)
        return self._blank[node]

    def register(self, job: JobName) -> RegisterBelief:
        """Return what we hold of a job's register."""
        self._notes.reads.add(("register", job))
        return self._index.fleet.beliefs.registers.get(job) or RegisterBelief(job)

    def listing(self, cluster: ClusterName) -> ClusterBelief | None:
        """Return what we hold of a cluster's provider."""
        self._notes.reads.add(("cluster", cluster))
        return self._index.fleet.beliefs.clusters.get(cluster)

    def cohort(self, key: str) -> CohortBelief | None:
        """Return what we hold of a cohort; the key is "cluster/cohort"."""
        self._notes.reads.add(("cohort", key))
        return self._index.fleet.beliefs.cohorts.get(key)

    def cohorts(self) -> list[CohortBelief]:
        """Return what we hold of every cohort, by key."""
        self._notes.reads.add(COHORTS)
        cohorts = self._index.fleet.beliefs.cohorts
        return [cohorts[key] for key in sorted(cohorts)]

    def detectors(self) -> dict[str, Detector]:
        """Return the records of all detectors with a label; not to be changed."""
        self._notes.reads.add(DETECTORS)
        return self._index.fleet.beliefs.detectors

    def links(self) -> dict[str, LinkBelief]:
        """Return the localisations of the last day, by name; not to be changed."""
        self._notes.reads.add(LINKS)
        return self._index.fleet.beliefs.links

    def authority(self, name: str) -> Authority:
        """Return what a detector may do: what it earned, else what the policy declares."""
        return authority(name, self.detectors(), self.policy)

    def acting(self) -> frozenset[str]:
        """Return the detectors whose finding alone evicts."""
        detectors = self.detectors()
        if self._acting is None or self._acting[0] is not detectors:
            found = acting(detectors, self.policy)
            if self._acting is not None and self._acting[1] != found:
                self._judged.clear()
            self._acting = (detectors, found)
        return self._acting[1]

    def judge(self, node: Node) -> Judgement:
        """Return the verdict on a node."""
        belief, pardoned_at = self.belief(node.name), node.pardoned_at
        acting = self.acting()
        known = self._judged.get(node.name)
        if known is not None and known[0] is belief and known[1] is pardoned_at:
            return known[2]
        judgement = judge(belief, self.policy, pardoned_at, acting)
        self._judged[node.name] = (belief, pardoned_at, judgement)
        return judgement

    def cluster(self, name: ClusterName) -> Cluster | None:
        """Return a configured cluster."""
        self._notes.reads.add(("cluster", name))
        return self._index.clusters.get(name)

    def clusters(self) -> list[Cluster]:
        """Return the configured clusters by name."""
        self._notes.reads.add(CLUSTERS)
        return [self._index.clusters[name] for name in sorted(self._index.clusters)]

    def node(self, name: NodeName) -> Node | None:
        """Return a node that is enlisted."""
        self._notes.reads.add(name)
        return self._index.fleet.nodes.get(name)

    def nodes(self) -> list[Node]:
        """Return all nodes by name."""
        self._notes.reads.add(NODES)
        nodes = self._index.fleet.nodes
        return [nodes[name] for name in sorted(nodes)]

    def size(self) -> int:
        """Return how many nodes the fleet has that were not retired. A fact of the whole fleet."""
        self._notes.reads.add(SIZE)
        return len(self._index.fleet.nodes) - len(self._index.retired)

    def held(self) -> int:
        """Return how many nodes of the fleet are held back on judgement. A fact of the fleet."""
        self._notes.reads.add(HELD)
        return len(self._index.held)

    def nodes_in(self, cluster: ClusterName) -> list[Node]:
        """Return the nodes of a cluster, by name; not to be changed."""
        return self.once(("nodes-in", cluster), lambda: self._nodes_in(cluster))

    def _nodes_in(self, cluster: ClusterName) -> list[Node]:
        self._notes.reads.add(("nodes", cluster))
        here = self._index.here.get(cluster, {})
        return [here[name] for name in sorted(here)]

    def unlisted(self) -> list[NodeName]:
        """Return the names of nodes that somebody told us of and that are not enlisted."""
        self._notes.reads.add(UNLISTED)
        return sorted(self._index.unlisted)

    def seats(self, attempt: Attempt) -> list[Node]:
        """Return the nodes seated in an attempt, by name; not to be changed."""
        run = (attempt.job, attempt.number)
        return self.once(("seats-of", *run), lambda: self._seats(run))

    def _seats(self, run: tuple[JobName, int]) -> list[Node]:
        self._notes.reads.add(("seats", *run))
        seats = self._index.seats.get(run, {})
        return [seats[name] for name in sorted(seats)]

    def orders(self) -> list[Ordered]:
        """Return what people asked for and were not answered yet, by number."""
        self._notes.reads.add(ORDERS)
        return sorted(self._index.fleet.beliefs.orders, key=lambda one: one.number)

    def job(self, name: JobName) -> Job:
        """Return a job; raises `KeyError` if there is none of this name."""
        self._notes.reads.add(("job", name))
        return self._index.fleet.jobs[name]

    def jobs(self) -> list[Job]:
        """Return all jobs by name."""
        self._notes.reads.add(JOBS)
        return [self._index.fleet.jobs[name] for name in sorted(self._index.fleet.jobs)]

    def attempts(self, states: Iterable[AttemptState]) -> list[Attempt]:
        """Return the attempts in these states, by job and number."""
        self._notes.reads.add(ATTEMPTS)
        wanted = frozenset(states)
        found = (attempt for attempt in self._index.fleet.attempts if attempt.state in wanted)
        return sorted(found, key=lambda attempt: (attempt.job, attempt.number))

    def attempts_of(self, job: JobName) -> tuple[Attempt, ...]:
        """Return the attempts of a job by number: not closed ones, and the last."""
        self._notes.reads.add(("job", job))
        return self._index.attempts.get(job, ())

    def attempt(self, job: JobName, number: int) -> Attempt | None:
        """Return an attempt that is in the snapshot."""
        for one in self.attempts_of(job):
            if one.number == number:
                return one
        return None

    def agents(self, attempt: Attempt) -> list[tuple[NodeName, AgentBelief]]:
        """Return what we hold of the attempt's agents, by node; not to be changed."""
        run = (attempt.job, attempt.number)
        return self.once(("agents-of", *run), lambda: self._agents(run))

    def _agents(self, run: tuple[JobName, int]) -> list[tuple[NodeName, AgentBelief]]:
        self._notes.reads.add(("agents", *run))
        return sorted(self._index.agents.get(run, {}).items(), key=lambda one: one[0])

    def incident(self, page: Page, subject: str) -> Incident | None:
        """Return the open incident of this name."""
        self._notes.reads.add(("incident", page, subject))
        return self._index.incidents.get((page, subject))

    def incidents(self) -> set[tuple[Page, str]]:
        """Return the names of all open incidents."""
        self._notes.reads.add(INCIDENTS)
        return set(self._index.incidents)

    def missing(self, node: Node) -> bool:
        """Say whether the newest list that named anything does not name this node."""
        belief, cluster = self.belief(node.name), self.listing(node.cluster)
        if belief.seen_at is None or cluster is None or cluster.filled_at is None:
            return False
        return belief.seen_at < cluster.filled_at

    def holders(self, serial: str) -> list[NodeName]:
        """Return the names whose machine has or had a serial, or was blamed for it, sorted."""
        self._notes.reads.add(("serial", serial))
        return sorted(self._index.holders(serial))

    def heir(self, node: Node) -> NodeName | None:
        """Return the name under which the machine of this node stands now, if it is another."""
        for serial in sorted(serials(node.machine.serials)):
            for name in self.holders(serial):
                other = self.node(name)
                if name == node.name or other is None or other.kin != node.name:
                    continue
                if same_machine(other.machine.serials, node.machine.serials):
                    return name
        return None

    # --- what was done before -------------------------------------------------------------------

    def used(self, kind: str, subject: str, window: timedelta) -> list[datetime]:
        """Return when something was done within the window, oldest first."""
        self._notes.reads.add(("used", kind, subject))
        moments = self._index.used.get((kind, subject))
        return [] if moments is None else self.lately(moments, window)

    def exhausted(self, moments: list[datetime], most: int, window: timedelta) -> bool:
        """Say whether a budget is spent; if so, look again when its oldest use runs out."""
        if len(moments) < most:
            return False
        if moments and most > 0:
            self._notes.moments.add(moments[len(moments) - most] + window)
        return True

    def repairs(self, node: NodeName, step: RepairStep) -> list[datetime]:
        """Return when this step of the ladder was asked for within the last day, oldest first."""
        return self.used(str(step), node, DAY)

    def fleet_used(self, kinds: Iterable[str], window: timedelta) -> list[datetime]:
        """Return when such things were done anywhere in the fleet, oldest first.

        A fact of the whole fleet; effects that this very look asks for are included.
        """
        moments = []
        for kind in kinds:
            self._notes.reads.add(("fleet-used", kind))
            moments += self.lately(self._index.fleet_used.get(kind, ()), window)
            moments += [self._now] * self._asked_of.get(kind, 0)
        return sorted(moments)

    def starts(self, node: NodeName, attempt: Attempt) -> list[datetime]:
        """Return when this attempt's agent was started there within the last day."""
        subject = start_subject(node, attempt.job, attempt.number)
        return self.used("agent-start", subject, DAY)

    # --- what is proven -------------------------------------------------------------------------

    def unreached(self, node: NodeName) -> bool:
        """Say whether the node cannot be reached at the moment."""
        return self.belief(node).unreached_since is not None

    def starting(self, node: NodeName, attempt: Attempt) -> bool:
        """Say whether a start of this attempt's agent there is in flight."""
        self._notes.reads.add(node)
        return any(
            isinstance(intent.decision, StartAgent)
            and (intent.decision.job, intent.decision.attempt) == (attempt.job, attempt.number)
            for intent in self._index.intents_at.get(node, ())
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


class Recall:
    """What the last look found out, for the next one. One thread at a time may use it."""

    def __init__(self, phases: Iterable[Phase]) -> None:
        """Begin with nothing to remember."""
        self._phases = tuple(phases)
        self._look: Look | None = None

    def take(self, fleet: Fleet, policy: Policy) -> Look:
        """Return a look at this snapshot, and keep it no longer: an error must not be remembered.

        The reuse ends where it would be hard to believe: with another policy, other clusters, or a
        clock that went back.
        """
        look, self._look = self._look, None
        if look is not None and look.goes_on(fleet, policy):
            look.turn(fleet)
            return look
        return Look(fleet, policy, self._phases)

    def keep(self, look: Look) -> None:
        """Remember this look, which is over."""
        self._look = look
