"""SXid errors of NVSwitches, from the kernel log.

A fatal one concerns every GPU of the node, so the whole node is drained. The line itself says Fatal
or Non-fatal; `catalog/sxid.json` knows codes that deserve another judgement. On virtual machines
only the host sees them: the fabric check is then the eye.
"""

from __future__ import annotations

import re
from typing import Any

from healthchecks import catalog, kernel_log
from healthchecks.api import Check, Level, Settings
from healthchecks.findings import GRAVITY, Fault, Finding, Severity

_SXID = re.compile(
    r"nvidia-(?P<switch>nvswitch\d+): SXid \(PCI:[^)]{1,40}\): (?P<code>\d{1,6}),\s*"
    r"(?P<word>Fatal|Non-fatal)\b,?\s*(?P<text>.*)",
    re.IGNORECASE,
)


def probe(settings: Settings) -> dict[str, Any]:
    """Read what the kernel said of NVSwitches since its last start."""
    text = kernel_log.read(settings.kernel_log, settings.root)
    lines = text.splitlines()
    ours = [one.said for one in kernel_log.of_this_boot(lines) if "SXid" in one.said]
    return {"lines": len(lines), "said": ours[-2000:]}


def judge(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Say for each switch what its gravest SXid means."""
    del settings
    by_switch: dict[str, list[Finding]] = {}
    for line in facts["said"]:
        if found := _SXID.match(line):
            finding = classify(int(found["code"]), found["word"].lower() == "fatal", found["text"])
            if finding.severity is not Severity.OK:
                by_switch.setdefault(found["switch"], []).append(finding)
    if not by_switch:
        evidence = f"no SXid of note in {facts['lines']} lines of the kernel log"
        return [Finding("sxid", "host", Severity.OK, Fault.HARDWARE, evidence)]
    return [
        max(said, key=lambda one: GRAVITY.index(one.severity))._replace(component=switch)
        for switch, said in sorted(by_switch.items())
    ]


def classify(code: int, fatal: bool, text: str) -> Finding:
    """Judge one SXid by the word on its line, but for the codes that are known better."""
    known = catalog.sxids()
    severity = Severity.CRITICAL if fatal else Severity.WARNING
    if code in known["always_fatal"]:
        severity = Severity.CRITICAL
    elif code in known["harmless"]:
        severity = Severity.OK
    elif code in known["warning"]:
        severity = Severity.WARNING
    evidence = f"SXid {code}, {'fatal' if fatal else 'non-fatal'}: {text}"
    remedy = "reboot" if severity is Severity.CRITICAL else ""
    return Finding("sxid", "host", severity, Fault.HARDWARE, evidence, str(code), remedy)


CHECK = Check("sxid", Level.PASSIVE, 5.0, probe, judge)
