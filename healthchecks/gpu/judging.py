"""From a rule about one GPU to a check of all of them.

A GPU gets one finding per check: its gravest, which names the others. If nothing is wrong with any,
the host says so in one line. What could not be read is told as UNKNOWN, once for the GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from healthchecks.api import Check, Level, Settings
from healthchecks.findings import GRAVITY, Fault, Finding, Severity
from healthchecks.gpu import reading

LIMIT = 10.0  #: seconds for the one probe: NVML blocks for ever on a GPU that hangs


class Wrong(NamedTuple):
    """What a rule has to say of one GPU, or of the host."""

    severity: Severity
    code: str
    evidence: str
    remedy: str = ""
    fault: Fault = Fault.HARDWARE


Rule = Callable[[dict[str, Any], Settings], Iterable[Wrong]]
Rules = Callable[[dict[str, Any], Settings], Iterable[tuple[str, Wrong]]]


def check(
    name: str,
    rule: Rule,
    *,
    reads: Sequence[str] = (),
    fine: str,
    together: Rules | None = None,
    remember: Callable[[dict[str, Any]], Any] | None = None,
) -> Check:
    """Make a check of a rule for one GPU.

    `reads`: the readings it cannot do without; `together`: a rule over all GPUs, which names the
    component itself; `remember`: what the next run shall find in `facts["before"]`.
    """

    def judge(facts: dict[str, Any], settings: Settings) -> list[Finding]:
        said: list[Finding] = []
        for gpu in facts["gpus"]:
            component, serial = f"gpu{gpu['index']}", str(gpu.get("serial", ""))
            seen = {**gpu, "before": _before(facts, gpu)}
            wrong = [_finding(name, component, one, serial) for one in rule(seen, settings)]
            if blind := _blind(gpu, reads):
                wrong.append(_finding(name, component, blind, serial))
            said += [gravest(wrong)] if wrong else []
        for component, one in together(facts, settings) if together else ():
            said.append(_finding(name, component, one))
        if said:
            return said
        evidence = f"{len(facts['gpus'])} GPUs: {fine}"
        return [Finding(name, "host", Severity.OK, Fault.HARDWARE, evidence)]

    return Check(name, Level.PASSIVE, LIMIT, reading.probe, judge, reading.skip, remember)


def gravest(findings: Sequence[Finding]) -> Finding:
    """Return the gravest of one component's findings; of equally grave ones the first."""
    first = max(findings, key=lambda one: GRAVITY.index(one.severity))
    others = [one.code or one.evidence for one in findings if one is not first]
    if not others:
        return first
    return first._replace(evidence=f"{first.evidence}; also {', '.join(others)}")


def _finding(name: str, component: str, wrong: Wrong, serial: str = "") -> Finding:
    return Finding(
        check=name,
        component=component,
        severity=wrong.severity,
        fault=wrong.fault,
        evidence=wrong.evidence,
        code=wrong.code,
        remedy=wrong.remedy,
        serial=serial,
    )


def _blind(gpu: dict[str, Any], reads: Sequence[str]) -> Wrong | None:
    failed = gpu["failed"]
    missing = [one for one in reads if one in failed or (failed and one not in gpu)]
    if not missing:
        return None
    codes = ", ".join(f"{name}: NVML code {code}" for name, code in failed.items())
    return Wrong(Severity.UNKNOWN, "", f"could not read {', '.join(missing)} ({codes})")


def _before(facts: dict[str, Any], gpu: dict[str, Any]) -> dict[str, Any] | None:
    """Return what was remembered of this very GPU, with the seconds since; None if nothing was."""
    before = facts.get("before")
    if not before:
        return None
    kept = before["kept"].get(str(gpu.get("uuid")))
    return None if kept is None else {"seconds": before["seconds"], "kept": kept}


def keep(*names: str) -> Callable[[dict[str, Any]], Any]:
    """Remember these readings of every GPU, by its UUID."""

    def remember(facts: dict[str, Any]) -> dict[str, Any]:
        return {
            str(gpu["uuid"]): {name: gpu[name] for name in names if name in gpu}
            for gpu in facts["gpus"]
            if "uuid" in gpu
        }

    return remember
