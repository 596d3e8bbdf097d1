"""Tables of error codes: data with its sources, see SOURCES.md. Judges look codes up here."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    return {int(code): entry(row) for code, row in table["codes"].items()}


def entry(row: Sequence[str]) -> Entry:
    """Read one row: name, severity, class, remedy. ValueError: it is none."""
    try:
        name, severity, fault, remedy = row
        return Entry(name, Severity[severity], Fault(fault), remedy)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{row!r} is no row of name, severity, class, remedy") from error


@cache
def sxids() -> dict[str, frozenset[int]]:
    """Return the codes of NVSwitch errors that are known better than by their own word."""
    table = json.loads(Path(__file__).with_name("sxid.json").read_text())
    return {name: frozenset(table[name]) for name in ("always_fatal", "warning", "harmless")}


class Detector(NamedTuple):
    """What one `check:code` means: the row that people and policies look up."""

    severity: Severity  #: as a rule; time or number may make it graver, see `about`
    fault: Fault
    remedy: str
    explicit: bool  #: the device or driver names the fault itself, and no application can cause it
    needs: str  #: what the check cannot do without
    caution: str  #: when not to believe it, or not to act yet
    about: str


@cache
def detectors() -> dict[str, Detector]:
    """Return every detector, those of XIDs too, by its name."""
    table = json.loads(Path(__file__).with_name("detectors.json").read_text())
    found = {
        name: Detector(Severity[severity], Fault(fault), *rest)
        for name, (severity, fault, *rest) in table["detectors"].items()
    }
    for code, one in xids().items():
        explicit = code in table["explicit_xids"]
        needs = "root or CAP_SYSLOG"
        found[f"xid:{code}"] = Detector(
            one.severity, one.fault, one.remedy, explicit, needs, "", one.name
        )
    return found


@cache
def _skus() -> dict[str, dict[str, float]]:
    body = json.loads(Path(__file__).with_name("expected.yaml").read_text())
    skus: dict[str, dict[str, float]] = body["skus"]
    return skus


def expected(name: str) -> dict[str, float]:
    """Return the rates expected of a GPU of this name (the longest entry it contains), or none."""
    known = [one for one in _skus() if one in name]
    return _skus()[max(known, key=len)] if known else {}
