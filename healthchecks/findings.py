"""The wire schema of findings: what every check says, and how it crosses to the controller.

One JSON object per line. The keys are the fields of `Finding`, except that `fault` is written as
`"class"`, and every line starts with `"version"`. After the findings comes one coverage record,
`{"version": 1, "coverage": {...}}` (see `Coverage`); a stream without it was cut short and says
nothing about the checks that are absent. Readers ignore unknown keys of the same version.

NamedTuples rather than dataclasses: nodes run these checks every few seconds beside training, and
importing `dataclasses` alone costs a third of the CPU time of a whole passive run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

VERSION = 1  #: of the lines; a reader refuses a newer one
EVIDENCE_MAX = 400  #: characters of evidence in one finding; kernel logs are untrusted text


class Severity(IntEnum):
    """The Nagios exit codes. UNKNOWN is never read as OK, nor as CRITICAL."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


#: From harmless to grave: what the exit code of a run, and the worst of several lines, go by.
GRAVITY = (Severity.OK, Severity.WARNING, Severity.UNKNOWN, Severity.CRITICAL)


class Fault(StrEnum):
    """What kind of thing is wrong."""

    HARDWARE = "hardware"
    CONFIG = "config"
    APPLICATION = "application"
    NETWORK = "network"


class Finding(NamedTuple):
    """One judged fact of one check. A newer one with the same check and component replaces it."""

    check: str  #: the check's name, e.g. "xid"
    component: str  #: "host", "gpu5", "nic0", or "pci-0000:9b:00" where no index is known
    severity: Severity
    fault: Fault  #: "class" on the wire
    evidence: str  #: what was seen, in words or verbatim
    code: str = ""  #: e.g. "79" for an XID; "check:code" is what a policy calls explicit
    remedy: str = ""  #: "reset", "reboot", "replace", "restart-app", or "" for none
    serial: str = ""  #: of the component, where it is known
    channel: str = "node"  #: two checks of one channel are one piece of evidence
    observed_at: float = 0.0  #: when the check looked: epoch seconds on the node's clock
    boot_id: str = ""  #: of the boot in which it looked
    cost: float = 0.0  #: seconds that the check's probe took


class Coverage(NamedTuple):
    """What a run covered: each expected check either passed, failed, or was skipped for a reason.

    A check that could not tell (all it found is UNKNOWN) counts as skipped, never as passed.
    """

    expected: tuple[str, ...]
    passed: tuple[str, ...]
    failed: tuple[str, ...]  #: with a WARNING or CRITICAL finding
    skipped: Mapping[str, str]  #: check -> why

    @property
    def complete(self) -> bool:
        """Whether every expected check is accounted for exactly once."""
        told = [*self.passed, *self.failed, *self.skipped]
        return sorted(told) == sorted(self.expected)


class BadFindingError(ValueError):
    """A line is not a finding of this version."""


def encode(finding: Finding) -> dict[str, Any]:
    """Return the wire form of a finding."""
    body: dict[str, Any] = {"version": VERSION, **finding._asdict()}
    body["severity"] = finding.severity.name
    body["class"] = body.pop("fault").value
    body["evidence"] = _printable(finding.evidence)
    return body


def encode_coverage(coverage: Coverage) -> dict[str, Any]:
    """Return the wire form of the coverage record that ends a stream."""
    body = coverage._asdict()
    return {"version": VERSION, "coverage": {**body, "complete": coverage.complete}}


def encode_figures(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the wire form of what was measured, see `healthchecks.figures`."""
    return {"version": VERSION, "figures": figures}


def decode(body: Mapping[str, Any]) -> Finding:
    """Read the wire form of a finding; raises `BadFindingError` on anything else."""
    try:
        if body["version"] != VERSION:
            raise BadFindingError(f"version {body['version']}; this reader knows {VERSION}")
        known = {name: body[name] for name in Finding._fields if name in body}
        known["severity"] = Severity[body["severity"]]
        known["fault"] = Fault(body["class"])
        return Finding(**known)
    except (KeyError, TypeError, ValueError) as error:
        raise BadFindingError(f"not a finding: {error}") from error


def line(body: Mapping[str, Any]) -> str:
    """Return one line of the stream, without its end."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False)


def worst(severities: Iterable[Severity]) -> Severity:
    """Return the gravest of these, OK if there is none: CRITICAL > UNKNOWN > WARNING > OK."""
    return max(severities, key=GRAVITY.index, default=Severity.OK)


def _printable(text: str) -> str:
    """Cut to the limit, and replace what could disturb a terminal or a log."""
    return "".join(one if one.isprintable() else " " for one in text[:EVIDENCE_MAX])
