"""Findings -> verdict: what we hold a node to be, and on whose evidence.

Called by the modules of `reconcile`. An explicit hardware fault (one that the driver names itself,
`policy.explicit`) makes a node UNFIT alone, and so does a detector that earned it (`detectors`);
anything else is a suspicion, until a second channel says so too. `policy.observe` silences a
detector. UNKNOWN, a check that could not look, weighs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from orchestrator.core.beliefs import NodeBelief
from orchestrator.core.detectors import Authority, Detector
from orchestrator.core.firings import accuses
from orchestrator.core.policies import Policy
from orchestrator.core.verdicts import FaultClass, Finding, Severity, Verdict


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and the findings that it rests on, the gravest first."""

    verdict: Verdict
    evidence: tuple[Finding, ...] = ()
    explicit: bool = False  #: a fault that the driver names itself

    @property
    def words(self) -> str:
        """The gravest evidence in words: "XID 79 on gpu0 (GPU has fallen off the bus)"."""
        return describe(self.evidence[0]) if self.evidence else f"verdict {self.verdict}"

    @property
    def broken(self) -> bool:
        """Say whether a check calls the hardware broken, explicitly or not."""
        return any(
            one.severity is Severity.CRITICAL and one.fault is FaultClass.HARDWARE
            for one in self.evidence
        )


def authority(name: str, detectors: Mapping[str, Detector], policy: Policy) -> Authority:
    """Return what a detector may do: what it earned, else what the policy declares."""
    known = detectors.get(name)
    if known is not None and known.authority is not None:
        return known.authority
    return Authority.ACT if name in policy.explicit else Authority.OBSERVE


def acting(detectors: Mapping[str, Detector], policy: Policy) -> frozenset[str]:
    """Return the detectors whose CRITICAL finding alone evicts; the operator's word comes first."""
    known = policy.explicit | detectors.keys()
    acts = {one for one in known if authority(one, detectors, policy) is Authority.ACT}
    return frozenset(acts - policy.observe)


def judge(
    belief: NodeBelief,
    policy: Policy,
    pardoned_at: datetime | None = None,
    acting: frozenset[str] | None = None,
) -> Judgement:
    """Judge a node by the findings of its present boot, newer than a person's pardon.

    `acting`: the detectors whose finding alone evicts; None: those that the policy declares.
    """
    acts = policy.explicit - policy.observe if acting is None else acting
    heard = [f for f in belief.findings if pardoned_at is None or f.observed_at > pardoned_at]
    evidence = tuple(sorted((f for f in heard if _speaks(f, policy)), key=_gravity))
    if any(is_explicit(finding, acts) for finding in evidence):
        return Judgement(Verdict.UNFIT, evidence, explicit=True)
    if len({finding.channel for finding in evidence}) > 1:
        return Judgement(Verdict.UNFIT, evidence)
    if evidence:
        return Judgement(Verdict.SUSPECT, evidence)
    fine = any(finding.severity is Severity.OK for finding in heard)
    if belief.probed_at is None or not fine:
        return Judgement(Verdict.UNKNOWN)
    return Judgement(Verdict.FIT)


def is_explicit(finding: Finding, acting: frozenset[str]) -> bool:
    """Say whether this finding alone evicts."""
    return (
        finding.severity is Severity.CRITICAL
        and finding.fault is FaultClass.HARDWARE
        and finding.detector in acting
    )


def describe(finding: Finding) -> str:
    """Return a finding in a few words."""
    what = f"{finding.check} {finding.code}".strip()
    what = what.upper() if finding.check in ("xid", "sxid") else what
    return f"{what} on {finding.component} ({finding.evidence})"


def _speaks(finding: Finding, policy: Policy) -> bool:
    """Say whether a finding counts against its node: not one that the operator silenced."""
    return accuses(finding) and finding.detector not in policy.observe


def _gravity(finding: Finding) -> tuple[bool, bool, tuple[str, str]]:
    critical = finding.severity is Severity.CRITICAL
    return (not critical, finding.fault is not FaultClass.HARDWARE, finding.key)
