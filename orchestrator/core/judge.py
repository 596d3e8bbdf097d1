"""Findings -> verdict: what we hold a node to be, and on whose evidence.

Called by the modules of `reconcile`. An explicit hardware fault (one that the driver names itself,
`policy.explicit`) makes a node UNFIT alone, and so does a detector that earned it (`detectors`);
anything else is a suspicion, until a second channel says so too, and one of both calls it CRITICAL.
`policy.observe` silences a detector. UNKNOWN, a check that could not look, weighs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.core.beliefs import NodeBelief
from orchestrator.core.detectors import Authority, Detector
from orchestrator.core.firings import accuses
from orchestrator.core.policies import Policy
from orchestrator.core.verdicts import Channel, FaultClass, Finding, Severity, Verdict

LIKELY, CERTAIN = 0.5, 0.99  #: posteriors from which an accusation is evidence, and explicit
NAMED = "named"  #: the code of a certain one: "localise:named" stands among `policy.explicit`
OK = Severity.OK


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


FIT, UNKNOWN = Judgement(Verdict.FIT), Judgement(Verdict.UNKNOWN)


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
    heard: Sequence[Finding] = belief.findings
    if belief.accused:
        heard = (*heard, *_accusations(belief))
    if pardoned_at is not None:
        heard = [finding for finding in heard if finding.observed_at > pardoned_at]
    bad = [f for f in heard if f.severity is not OK]
    if not bad:
        return FIT if heard and belief.probed_at is not None else UNKNOWN
    evidence = tuple(sorted((f for f in bad if _speaks(f, policy)), key=_gravity))
    if evidence:
        acts = policy.explicit - policy.observe if acting is None else acting
        return conclude(evidence, acts)
    if belief.probed_at is None or len(bad) == len(heard):
        return UNKNOWN
    return FIT


def conclude(evidence: tuple[Finding, ...], acting: frozenset[str]) -> Judgement:
    """Return what findings that speak against a node amount to, the gravest first."""
    if any(is_explicit(finding, acting) for finding in evidence):
        return Judgement(Verdict.UNFIT, evidence, explicit=True)
    grave = any(finding.severity is Severity.CRITICAL for finding in evidence)
    if grave and len({finding.channel for finding in evidence}) > 1:
        return Judgement(Verdict.UNFIT, evidence)
    return Judgement(Verdict.SUSPECT if evidence else Verdict.FIT, evidence)


def _accusations(belief: NodeBelief) -> tuple[Finding, ...]:
    """Return the accusations of this node alone, since its present boot, newest per channel.

    A group is evidence against none of its nodes (see `eviction.suspects`).
    """
    found: dict[Channel, Finding] = {}
    for one in belief.accused:
        fresh = belief.booted_at is None or one.at > belief.booted_at
        if len(one.nodes) == 1 and one.posterior >= LIKELY and fresh:
            code = NAMED if one.posterior >= CERTAIN else "likely"
            found[one.channel] = Finding(
                check="localise",
                component="host",
                severity=Severity.CRITICAL,
                fault=FaultClass.HARDWARE,
                evidence=f"{one.evidence}; posterior {one.posterior:.3g}",
                channel=one.channel,
                observed_at=one.at,
                boot_id=belief.boot_id,
                code=code,
                told_at=one.at,
            )
    return tuple(found[channel] for channel in sorted(found))


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
    """Say whether a finding counts against its node.

    Not one that the operator silenced, nor a symptom: an NCCL time-out says that something waits,
    not why.
    """
    silenced = finding.detector in policy.observe
    symptom = not policy.symptoms.isdisjoint((finding.check, finding.detector))
    return accuses(finding) and not silenced and not symptom


def _gravity(finding: Finding) -> tuple[bool, bool, tuple[str, str, str]]:
    critical = finding.severity is Severity.CRITICAL
    return (not critical, finding.fault is not FaultClass.HARDWARE, finding.key)
