"""Is a cohort that was handed over fit for work? All checks of all nodes, and of their links.

Pure. A node is *accepted* if everything that was to be looked at was looked at, and nothing speaks
against it. New hardware has no excuse: what elsewhere is a warning rejects it here, but for rates,
where a few percent below the table is the lottery of silicon: those are compared with the cohort's
median, in units of its own spread. What a person can put right (a mode, a version, a mount) is
neither accepted nor rejected. Coverage below 100 % is never a pass.

Robust outliers: median and MAD, since a bad node shifts the mean of a small cohort (SuperBench).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median

from orchestrator.core.localise import Culprits, Outcome
from orchestrator.core.verdicts import FaultClass, Finding, Severity

RATED = frozenset({"gemm", "memory-bandwidth", "transfer", "all-reduce", "storage", "soak"})
BEHIND = 0.05  #: of the cohort's median: below is too slow, however alike the others are
#: Of a few figures the spread is not well known, and disks differ by nature.
BEHIND_BY_KIND = {"all-reduce": 0.08, "storage": 0.2}
SPREADS = 5.0  #: standard deviations (from the MAD) below the median that are too slow as well
PEERS_MIN = 8  #: figures of one kind; with fewer a median says nothing
MAD_TO_SIGMA = 1.4826
LINKS = "links"  #: the check between nodes

#: Checks that need accelerators, as the health checks name them.
OF_GPUS = frozenset(
    {
        "xid",
        "sxid",
        "nvml",
        "ecc",
        "remap",
        "thermal",
        "clocks",
        "brake",
        "power",
        "draw",
        "pcie",
        "nvlink",
        "fabric",
        "recovery",
        "modes",
        "inforom",
        "left-over",
        "versions",
        "inventory",
        "transfer",
    }
)
#: What a check is excused from unless the expected values name it: (check, key).
IF_EXPECTED = (("infiniband", "ib_ports"), ("smart", "nvme"), ("mounts", "mounts"), ("dns", "dns"))


class Stage(StrEnum):
    """What is done, in this order."""

    PASSIVE = "passive"  #: inventory against what is expected, and everything that only looks
    ACTIVE = "active"  #: rates of each device, and of each node's own all-reduce
    LOAD = "load"  #: all devices at once, for long, looked at meanwhile
    STORAGE = "storage"
    TRAINING = "training"  #: one golden training step: the same bits everywhere
    LINKS = "links"  #: tests between pairs of nodes
    AFTER = "after"  #: what only looks, again: what the load has brought out


#: The checks of each stage; None: every passive one.
CHECKS: Mapping[Stage, tuple[str, ...] | None] = {
    Stage.PASSIVE: None,
    Stage.ACTIVE: ("gemm", "memory-bandwidth", "transfer", "all-reduce"),
    Stage.LOAD: ("soak",),
    Stage.STORAGE: ("storage",),
    Stage.TRAINING: ("repeat",),
    Stage.LINKS: (),
    Stage.AFTER: None,
}


class Standing(StrEnum):
    """What is held of a node."""

    ACCEPTED = "accepted"
    TO_CORRECT = "to correct"  #: a person can put it right; then accept again
    INCOMPLETE = "incomplete"  #: not everything was looked at
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of checks on one node, as the node told it."""

    findings: tuple[Finding, ...] = ()
    expected: frozenset[str] = frozenset()  #: checks that it was to run, by its own account
    covered: frozenset[str] = frozenset()  #: passed or failed
    skipped: Mapping[str, str] = field(default_factory=dict)  #: check -> why
    figures: Mapping[str, Mapping[str, float | str]] = field(default_factory=dict)
    error: str = ""  #: why there is no whole answer


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that speaks against a node."""

    detector: str  #: "check:code"
    component: str
    evidence: str
    remedy: str = ""
    correctable: bool = False


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of one node."""

    node: str
    standing: Standing
    faults: tuple[Fault, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)  #: "stage/check" -> why
    remarks: tuple[str, ...] = ()
    figures: Mapping[str, Mapping[str, float | str]] = field(default_factory=dict)
    coverage: float = 0.0  #: of what was to be looked at


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What came of a cohort."""

    nodes: tuple[Examined, ...]
    links: Culprits | None = None  #: None: nothing to test, or not tested
    why_no_links: str = ""

    @property
    def passed(self) -> bool:
        """Whether every node is accepted."""
        return bool(self.nodes) and all(one.standing is Standing.ACCEPTED for one in self.nodes)

    def named(self, standing: Standing) -> tuple[str, ...]:
        """Return the nodes of which this is held."""
        return tuple(one.node for one in self.nodes if one.standing is standing)


@dataclass(frozen=True, slots=True)
class Plan:
    """What must have been looked at on every node."""

    passive: frozenset[str]  #: names of all passive checks
    accelerators: int
    expected: Mapping[str, object] = field(default_factory=dict)  #: the cluster's file

    def checks(self, stage: Stage) -> frozenset[str]:
        """Return the checks of a stage."""
        chosen = CHECKS[stage]
        return self.passive if chosen is None else frozenset(chosen)

    def excuse(self, check: str) -> str | None:
        """Say why a node may leave a check out; None if it may not. Never the node's own word."""
        if check in OF_GPUS and self.accelerators == 0:
            return "no accelerators are in this cohort"
        if check == "all-reduce" and self.accelerators == 1:
            return "one accelerator has nobody to reduce with"
        for name, key in IF_EXPECTED:
            if check == name and not self.expected.get(key):
                return f"the expected values do not name {key}"
        return None


def judge(
    plan: Plan, runs: Mapping[str, Mapping[Stage, Ran]], links: Culprits | None, why: str = ""
) -> Acceptance:
    """Judge a cohort; `why` says why there is no answer about its links.

    The links of a single node are nobody's, and not asked for; nor are those of nodes that are
    `broken` already.
    """
    told = {node: _merged(of) for node, of in runs.items()}
    slow = _slow(told)
    odd = _odd(told)
    linked = len(runs) < 2 or (
        links is not None and links.outcome in (Outcome.FOUND, Outcome.NOTHING)
    )
    unsure = why or (links.reason if links is not None else "not tested")
    nodes = []
    for node, of in sorted(runs.items()):
        faults = [
            *_faults(of.values()),
            *slow.get(node, ()),
            *odd.get(node, ()),
            *_behind_links(node, links),
        ]
        missing = dict(_missing(plan, of))
        if not linked:
            missing[LINKS] = unsure
        elif len(runs) > 1 and broken(of):
            missing[LINKS] = "rejected before its links were tested"
        wanted = sum(len(plan.checks(stage)) for stage in Stage) + (len(runs) > 1)
        nodes.append(
            Examined(
                node=node,
                standing=_standing(faults, missing),
                faults=tuple(faults),
                missing=missing,
                remarks=tuple(_remarks(of.values())),
                figures=told[node],
                coverage=1 - len(missing) / wanted,
            )
        )
    return Acceptance(tuple(nodes), links, "" if linked else unsure)


def _standing(faults: Sequence[Fault], missing: Mapping[str, str]) -> Standing:
    if any(not one.correctable for one in faults):
        return Standing.REJECTED
    if faults:
        return Standing.TO_CORRECT
    return Standing.INCOMPLETE if missing else Standing.ACCEPTED


def broken(runs: Mapping[Stage, Ran]) -> bool:
    """Say whether a node is rejected already: it would only spoil the tests of its links."""
    return any(not one.correctable for one in _faults(runs.values()))


def _faults(runs: Iterable[Ran]) -> Iterator[Fault]:
    """Yield each fault once, as it was told first."""
    seen: set[tuple[str, str]] = set()
    for ran in runs:
        for one in ran.findings:
            if not _speaks(one) or (one.detector, one.component) in seen:
                continue
            seen.add((one.detector, one.component))
            correctable = one.fault in (FaultClass.CONFIG, FaultClass.APPLICATION)
            correctable = correctable and one.severity is not Severity.CRITICAL
            yield Fault(one.detector, one.component, one.evidence, one.remedy, correctable)


def _speaks(finding: Finding) -> bool:
    if finding.severity is Severity.WARNING:
        return finding.check not in RATED or finding.fault is FaultClass.CONFIG
    return finding.severity is Severity.CRITICAL


def _remarks(runs: Iterable[Ran]) -> Iterator[str]:
    for ran in runs:
        for one in ran.findings:
            if one.severity is Severity.WARNING and not _speaks(one):
                yield f"{one.detector} on {one.component}: {one.evidence}"


def _missing(plan: Plan, runs: Mapping[Stage, Ran]) -> Iterator[tuple[str, str]]:
    """Yield what was not looked at, whatever the node says of its own coverage."""
    for stage in Stage:
        ran = runs.get(stage, Ran(error="not run"))
        for check in sorted(plan.checks(stage)):
            if check not in ran.covered and plan.excuse(check) is None:
                why = ran.skipped.get(check) or ran.error or "the node does not tell of it"
                yield f"{stage}/{check}", why


def _merged(runs: Mapping[Stage, Ran]) -> dict[str, Mapping[str, float | str]]:
    return {check: of for ran in runs.values() for check, of in ran.figures.items()}


def _slow(
    told: Mapping[str, Mapping[str, Mapping[str, float | str]]],
) -> dict[str, list[Fault]]:
    """Return, by node, the rates that are too far below the cohort's median."""
    found: dict[str, list[Fault]] = {}
    for check in sorted(RATED):
        rates = [
            (node, part, value)
            for node, figures in told.items()
            for part, value in figures.get(check, {}).items()
            if isinstance(value, int | float)
        ]
        if len(rates) < PEERS_MIN:
            continue
        usual = median(value for *_, value in rates)
        spread = MAD_TO_SIGMA * median(abs(value - usual) for *_, value in rates)
        least = usual - max(BEHIND_BY_KIND.get(check, BEHIND) * usual, SPREADS * spread)
        for node, part, value in rates:
            if value < least:
                evidence = f"{value:.4g}, the cohort's median is {usual:.4g} (least {least:.4g})"
                found.setdefault(node, []).append(
                    Fault(f"{check}:behind", part, evidence, "inspect")
                )
    return found


def _odd(
    told: Mapping[str, Mapping[str, Mapping[str, float | str]]],
) -> dict[str, list[Fault]]:
    """Return, by node, the devices whose golden step ended in other bits than that of most.

    Devices of one model and one software stack must agree; of hosts' processors nobody says so.
    """
    ended: dict[str, list[tuple[str, str, str]]] = {}
    for node, figures in told.items():
        for part, value in figures.get("repeat", {}).items():
            kind, _, digest = str(value).rpartition("/")
            if part != "host":
                ended.setdefault(kind, []).append((node, part, digest))
    found: dict[str, list[Fault]] = {}
    for devices in ended.values():
        usual, count = Counter(digest for *_, digest in devices).most_common(1)[0]
        if 2 * count <= len(devices):
            continue
        for node, part, digest in devices:
            if digest != usual:
                evidence = f"other bits than {count} of {len(devices)} like it: silent corruption"
                found.setdefault(node, []).append(
                    Fault("repeat:differs", part, evidence, "replace")
                )
    return found


def _behind_links(node: str, links: Culprits | None) -> Iterator[Fault]:
    if links is None or not links.explicit or node not in links.nodes:
        return
    where = f"behind the leaf switch {links.leaf}" if links.leaf else "its link"
    for part in links.rails.get(node, ("host",)):
        yield Fault(LINKS, part, f"{where}: {links.reason}", "inspect")
