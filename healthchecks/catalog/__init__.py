"""Tables of error codes: data with its sources, see SOURCES.md. Judges look codes up here."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from healthchecks.findings import Fault, Severity


class Entry(NamedTuple):
    """What one code means, and what we make of it."""

    name: str
    severity: Severity
    fault: Fault
    remedy: str  #: "reset", "reboot", "replace", "restart-app", or ""


UNLISTED = Entry("not in the catalogue", Severity.WARNING, Fault.HARDWARE, "")


@cache
def xids() -> dict[int, Entry]:
    """Return the XID table by code."""
    table = json.loads(Path(__file__).with_name("xid.json").read_text())
    return {
        int(code): Entry(name, Severity[severity], Fault(fault), remedy)
        for code, (name, severity, fault, remedy) in table["codes"].items()
    }
