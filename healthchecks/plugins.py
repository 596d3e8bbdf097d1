"""Checks of the operator's own: any program that speaks by Nagios exit codes and a line of text.

0 OK, 1 WARNING, 2 CRITICAL; anything else, and a program that cannot be started, is UNKNOWN. It is
given no arguments. Its findings are of the class config, and never explicit: what evicts a node by
itself is not for a script to decide.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from healthchecks.api import Check, Level, Settings
from healthchecks.findings import Fault, Finding, Severity

LIMIT = 30.0  #: seconds; the runner's process is killed with what it started
TEXT_MAX = 4000


def check(program: str) -> Check:
    """Make a check, named after the program's file."""
    name = f"plugin-{Path(program).stem}"[:60]

    def probe(settings: Settings) -> dict[str, Any]:
        del settings
        done = subprocess.run(
            [program], capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=LIMIT
        )
        return {"code": done.returncode, "out": done.stdout[:TEXT_MAX].decode(errors="replace")}

    def judge(facts: dict[str, Any], settings: Settings) -> list[Finding]:
        del settings
        code, said = facts["code"], facts["out"].strip()
        known = code in (0, 1, 2)
        severity = Severity(code) if known else Severity.UNKNOWN
        evidence = said or "it said nothing"
        evidence = evidence if known or code == 3 else f"exit code {code}: {evidence}"
        return [Finding(name, "host", severity, Fault.CONFIG, evidence)]

    return Check(name, Level.PASSIVE, LIMIT + 1, probe, judge)
