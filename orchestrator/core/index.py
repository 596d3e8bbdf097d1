"""The fleet, by every question that `reconcile` asks of it; kept up as the fleet changes.

Used by `Look` alone. `turn` compares two fleets part by part, by identity (what did not change is
the same object: see `enact`, `assess` and the ledger), brings the indices up to date with what
differs, and says which *cells* that touches. A cell names something a decision may rest on: a node
with its belief, a job with its attempts and its register, the seats of one attempt, one budget.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from operator import is_
from typing import Any

from orchestrator.core.beliefs import AgentBelief, Beliefs, NodeBelief
from orchestrator.core.decisions import Incident, Intent, Settled
from orchestrator.core.fleet import Cluster, Fleet, Used
from orchestrator.core.history import RepairStep, serials
from orchestrator.core.jobs import Attempt
from orchestrator.core.nodes import SEATED, ClusterName, JobName, Node, NodeName, NodeState
from orchestrator.core.pages import Page
from orchestrator.core.sheets import changed, differing

Cell = Hashable
Run = tuple[JobName, int]  #: an attempt's job and number

NODES, JOBS, ATTEMPTS, CLUSTERS = ("nodes",), ("jobs",), ("attempts",), ("clusters",)
ORDERS, INCIDENTS, UNLISTED = ("orders",), ("incidents",), ("unlisted",)
SIZE, HELD, COHORTS = ("size",), ("held",), ("cohorts",)
DETECTORS, LINKS = ("beliefs", "detectors"), ("beliefs", "links")  #: cells by the rule of `OTHERS`
#: Kinds of `Used` that the whole fleet has a budget of.
FLEETWIDE = frozenset({"eviction", *(str(step) for step in RepairStep)})
#: What has no index here: who reads it has read the whole snapshot (`Look.fleet`).
OTHERS = tuple(
    {one.name for one in fields(Beliefs) if one.compare}
    - {"nodes", "clusters", "registers", "orders", "answered", "cohorts"}
)
MORE = tuple(
    {one.name for one in fields(Fleet)}
    - {"now", "clusters", "nodes", "jobs", "attempts", "beliefs"}
    - {"intents", "incidents", "used", "settled"}
)
NOTHING = Fleet(datetime(1970, 1, 1, tzinfo=UTC))


@dataclass(slots=True)
class Touched:
    """What differs between two fleets."""

    nodes: set[NodeName] = field(default_factory=set)  #: node or belief; its name is its cell
    jobs: set[JobName] = field(default_factory=set)  #: job, or an attempt of it
    runs: set[Run] = field(default_factory=set)  #: the attempts of these jobs, old and new
    clusters: set[ClusterName] = field(default_factory=set)
    cells: set[Cell] = field(default_factory=set)  #: everything else

    def __bool__(self) -> bool:
        """Say whether anything differs."""
        return bool(self.nodes or self.jobs or self.clusters or self.cells)


class Index:
    """One fleet, looked up by name, place and use."""

    def __init__(self) -> None:
        """Begin with no fleet at all."""
        self.fleet = NOTHING
        self.clusters: dict[ClusterName, Cluster] = {}
        self.here: dict[ClusterName, dict[NodeName, Node]] = {}  #: by cluster
        self.seats: dict[Run, dict[NodeName, Node]] = {}
        self.agents: dict[Run, dict[NodeName, AgentBelief]] = {}
        self.attempts: dict[JobName, tuple[Attempt, ...]] = {}  #: by number
        self.used: dict[tuple[str, str], list[datetime]] = {}  #: oldest first
        self.intents: dict[str, Intent] = {}
        self.intents_at: dict[NodeName, tuple[Intent, ...]] = {}
        self.settled: dict[str, Settled] = {}
        self.incidents: dict[tuple[Page, str], Incident] = {}
        self.unlisted: set[NodeName] = set()  #: believed in, not enlisted
        self.fleet_used: dict[str, list[datetime]] = {}  #: by kind (`FLEETWIDE`), oldest first
        self.retired: set[NodeName] = set()
        self.held: set[NodeName] = set()  #: on judgement
        self._holders: dict[str, set[NodeName]] | None = None  #: by serial, once anybody asks

    def holders(self, serial: str) -> set[NodeName]:
        """Return the names whose machine has or had a serial, or was blamed for it."""
        if self._holders is None:
            self._holders = {}
            for node in self.fleet.nodes.values():
                self._hold(node.name, frozenset(), known_serials(node))
        return self._holders.get(serial, set())

    def _hold(self, name: NodeName, old: frozenset[str], new: frozenset[str]) -> frozenset[str]:
        """Enter under which serials a name is known; return those that this changes."""
        holders = self._holders if self._holders is not None else {}
        for serial in old - new:
            holders[serial].discard(name)
        for serial in new - old:
            holders.setdefault(serial, set()).add(name)
        return old ^ new

    def turn(self, fleet: Fleet) -> Touched:
        """Take this fleet instead, and return what differs from the one before."""
        old, self.fleet = self.fleet, fleet
        touched = Touched()
        if fleet.clusters is not old.clusters:
            self._turn_clusters(old.clusters, fleet.clusters, touched)
        if fleet.nodes is not old.nodes:
            self._turn_nodes(old.nodes, fleet.nodes, touched)
        if fleet.beliefs is not old.beliefs:
            self._turn_beliefs(old, fleet, touched)
        if fleet.attempts is not old.attempts:
            self._turn_attempts(old.attempts, fleet.attempts, touched)
        if fleet.jobs is not old.jobs:
            touched.jobs.update(jobs := changed(old.jobs, fleet.jobs))
            touched.cells.update([JOBS] if jobs else ())
        self._turn_deeds(old, fleet, touched)
        for job in touched.jobs:
            touched.runs.update((job, one.number) for one in self.attempts.get(job, ()))
        return touched

    # --- one kind of part each ------------------------------------------------------------------

    def _turn_clusters(
        self, old: Sequence[Cluster], new: Sequence[Cluster], touched: Touched
    ) -> None:
        before, self.clusters = self.clusters, {one.name: one for one in new}
        touched.clusters.update(differing(before, self.clusters))
        if tuple(old) != tuple(new):
            touched.cells.add(CLUSTERS)

    def _turn_nodes(
        self, old: Mapping[NodeName, Node], new: Mapping[NodeName, Node], touched: Touched
    ) -> None:
        names = changed(old, new)
        if not names:
            return
        cells, here, seats = touched.cells, self.here, self.seats
        for name in names:
            was, node = old.get(name), new.get(name)
            self._list(name, touched, listed=node is not None)
            retired = node is not None and node.state is NodeState.RETIRED
            held = node is not None and node.held_on_judgement
            cells.update([SIZE] if _mark(self.retired, name, wanted=retired) else ())
            cells.update([HELD] if _mark(self.held, name, wanted=held) else ())
            if self._holders is not None:
                both = known_serials(was), known_serials(node)
                cells.update(("serial", one) for one in self._hold(name, *both))
            if was is not None:
                cells.add(("nodes", was.cluster))
                _drop(here, was.cluster, name)
                if was.state in SEATED and was.job is not None and was.attempt is not None:
                    _drop(seats, (was.job, was.attempt), name)
                    cells.add(("seats", was.job, was.attempt))
            if node is not None:
                cells.add(("nodes", node.cluster))
                here.setdefault(node.cluster, {})[name] = node
                if node.state in SEATED and node.job is not None and node.attempt is not None:
                    seats.setdefault((node.job, node.attempt), {})[name] = node
                    cells.add(("seats", node.job, node.attempt))
        cells.add(NODES)
        cells.update([SIZE] if len(old) != len(new) else ())
        touched.nodes.update(names)

    def _list(self, name: NodeName, touched: Touched, *, listed: bool) -> None:
        if listed == (name in self.unlisted):
            touched.cells.add(UNLISTED)
            (self.unlisted.discard if listed else self.unlisted.add)(name)

    def _turn_beliefs(self, old: Fleet, new: Fleet, touched: Touched) -> None:
        was, now = old.beliefs, new.beliefs
        touched.cells.update(
            ("beliefs", name) for name in OTHERS if getattr(was, name) is not getattr(now, name)
        )
        if now.nodes is not was.nodes:
            names = changed(was.nodes, now.nodes)
            for name in names:
                self._turn_agents(name, was.nodes.get(name), now.nodes.get(name), touched)
                self._list(name, touched, listed=name in new.nodes)
            touched.nodes.update(names)
        if now.clusters is not was.clusters:
            touched.clusters.update(changed(was.clusters, now.clusters))
        if now.registers is not was.registers:
            names = changed(was.registers, now.registers)
            touched.cells.update(("register", name) for name in names)
        if now.cohorts is not was.cohorts:
            cohorts = changed(was.cohorts, now.cohorts)
            touched.cells.update(("cohort", name) for name in cohorts)
            touched.cells.update([COHORTS] if cohorts else ())
        if now.orders is not was.orders or now.answered is not was.answered:
            touched.cells.add(ORDERS)

    def _turn_agents(
        self, name: NodeName, was: NodeBelief | None, now: NodeBelief | None, touched: Touched
    ) -> None:
        old, new = was.agents if was is not None else (), now.agents if now is not None else ()
        if old is new or (not old and not new):
            return
        kept = set(map(id, new))
        for agent in old:
            if id(agent) not in kept:
                touched.cells.add(("agents", agent.job, agent.attempt))
                _drop(self.agents, (agent.job, agent.attempt), name)
        known = set(map(id, old))
        for agent in new:
            if id(agent) not in known:
                touched.cells.add(("agents", agent.job, agent.attempt))
                self.agents.setdefault((agent.job, agent.attempt), {})[name] = agent

    def _turn_attempts(
        self, old: Sequence[Attempt], new: Sequence[Attempt], touched: Touched
    ) -> None:
        before, after = {id(one): one for one in old}, {id(one): one for one in new}
        gone = [one for number, one in before.items() if number not in after]
        come = [one for number, one in after.items() if number not in before]
        touched.runs.update((one.job, one.number) for one in (*gone, *come))
        for job in {one.job for one in (*gone, *come)}:
            mine = sorted((one for one in new if one.job == job), key=lambda one: one.number)
            self.attempts[job] = tuple(mine)
            touched.jobs.add(job)
        touched.cells.update([ATTEMPTS] if gone or come else ())

    def _turn_deeds(self, old: Fleet, new: Fleet, touched: Touched) -> None:
        touched.cells.update(
            ("fleet", name) for name in MORE if getattr(old, name) is not getattr(new, name)
        )
        if new.intents is not old.intents:
            self._turn_intents(new.intents, touched)
        if new.settled is not old.settled:
            settled = {one.key: one for one in new.settled}
            touched.cells.update(("key", key) for key in differing(self.settled, settled))
            self.settled = settled
        if new.incidents is not old.incidents:
            incidents = {(one.page, one.subject): one for one in new.incidents}
            named = differing(self.incidents, incidents)
            touched.cells.update(("incident", *name) for name in named)
            touched.cells.update([INCIDENTS] if named else ())
            self.incidents = incidents
        if new.used is not old.used:
            self._turn_used(old.used, new.used, touched)

    def _turn_intents(self, new: Sequence[Intent], touched: Touched) -> None:
        before, self.intents = self.intents, {one.key: one for one in new}
        for key in differing(before, self.intents):
            touched.cells.add(("key", key))
            for intent in (before.get(key), self.intents.get(key)):
                node = getattr(intent.decision, "node", None) if intent is not None else None
                if node is not None:
                    touched.nodes.add(node)
        self.intents_at = {}
        for intent in new:
            node = getattr(intent.decision, "node", None)
            if node is not None:
                self.intents_at[node] = (*self.intents_at.get(node, ()), intent)

    def _turn_used(self, old: Sequence[Used], new: Sequence[Used], touched: Touched) -> None:
        gone, come = _window(old, new)
        for one in gone:
            name = (one.kind, one.subject)
            self.used[name].remove(one.at)
            if not self.used[name]:
                del self.used[name]
            touched.cells.add(("used", *name))
            if one.kind in FLEETWIDE:
                self.fleet_used[one.kind].remove(one.at)
                touched.cells.add(("fleet-used", one.kind))
        for one in come:
            name = (one.kind, one.subject)
            self.used.setdefault(name, []).append(one.at)
            self.used[name].sort()
            touched.cells.add(("used", *name))
            if one.kind in FLEETWIDE:
                self.fleet_used.setdefault(one.kind, []).append(one.at)
                self.fleet_used[one.kind].sort()
                touched.cells.add(("fleet-used", one.kind))


def _mark(marked: set[NodeName], name: NodeName, *, wanted: bool) -> bool:
    """Put a name into a set or take it out; say whether that changed anything."""
    if wanted == (name in marked):
        return False
    (marked.add if wanted else marked.discard)(name)
    return True


def known_serials(node: Node | None) -> frozenset[str]:
    """Return the serials under which a name is or was known, and those that were blamed there."""
    if node is None:
        return frozenset()
    told = set(serials(node.machine.serials))
    for former in node.former:
        told |= serials(former.machine.serials)
    return frozenset(told.union(one.serial for one in node.history.troubles if one.serial))


def _drop(groups: dict[Any, dict[NodeName, Any]], group: Any, name: NodeName) -> None:
    del groups[group][name]
    if not groups[group]:
        del groups[group]


def _window(old: Sequence[Used], new: Sequence[Used]) -> tuple[Iterable[Used], Iterable[Used]]:
    """Return what left at the front and what came at the end; all of both if it is not so."""
    if not old or not new:
        return old, new
    start = next((place for place, one in enumerate(old) if one == new[0]), len(old))
    kept = len(old) - start
    same = all(map(is_, old[start:], new)) or list(old[start:]) == list(new[:kept])
    return (old[:start], new[kept:]) if same and kept <= len(new) else (old, new)
