"""InfiniBand and RoCE ports: state, rate, error counters, flaps.

A port that is disabled by hand is nobody's fault; one that polls for a partner, or trains to less
than its neighbours, is. Down for less than four minutes is a warning (gpud): links are reset at
times. Counters are judged by their growth; 120 symbol errors an hour is the usual limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from healthchecks.api import Check, Level, Settings
from healthchecks.findings import GRAVITY, Fault, Finding, Severity

DOWN_MAX = 240.0  #: seconds
FLAPS = 3  #: in the time that was remembered
PER_HOUR = {
    "symbol_error": 120,
    "port_rcv_errors": 120,
    "link_error_recovery": 10,
    "local_link_integrity_errors": 10,
}
COUNTERS = (*PER_HOUR, "link_downed")
WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL
Wrong = tuple[Severity, str, str, str]


def probe(settings: Settings) -> dict[str, Any]:
    """Read every port of every card."""
    top = Path(settings.root, "sys/class/infiniband")
    ports = {}
    for port in sorted(top.glob("*/ports/*")):
        ports[f"{port.parent.parent.name}:{port.name}"] = {
            "state": _word(port / "state"),
            "physical": _word(port / "phys_state"),
            "rate": _rate(port / "rate"),
            "counters": {name: _number(port / "counters" / name) for name in COUNTERS},
        }
    return {"ports": ports}


def _word(path: Path) -> str:
    """Read "4: ACTIVE" as "ACTIVE"."""
    return path.read_text().partition(":")[2].strip() if path.exists() else ""


def _rate(path: Path) -> float:
    """Read "400 Gb/sec (4X NDR)" as 400.0."""
    found = re.match(r"\s*([\d.]{1,12})", path.read_text()) if path.exists() else None
    try:
        return float(found[1]) if found else 0.0
    except ValueError:
        return 0.0


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # this card does not count it
        return 0


def remember(facts: dict[str, Any]) -> dict[str, Any]:
    """Keep the counters, and for how long each port has been down."""
    before = facts.get("before") or {"seconds": 0.0, "kept": {}}
    kept = {}
    for name, port in facts["ports"].items():
        old = before["kept"].get(name, {})
        down = 0.0
        if not _up(port):
            down = old.get("down", 0.0) + before["seconds"] if old else 0.0
        kept[name] = {"counters": port["counters"], "down": down, "was_up": _up(port)}
        kept[name]["was_up"] = kept[name]["was_up"] or old.get("was_up", False)
    return kept


def _up(port: dict[str, Any]) -> bool:
    return bool(port["state"] == "ACTIVE")


def judge(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Say what is wrong with each port, and whether enough of them are up."""
    ports = facts["ports"]
    said = [one for name in ports if (one := _port(name, facts, settings))]
    active = sum(map(_up, ports.values()))
    wanted = settings.expected("ib_ports")
    if wanted is not None and active < wanted:
        evidence = f"{active} InfiniBand ports are up, {wanted} expected"
        said.append(_finding("host", (CRITICAL, "ports", evidence, "inspect")))
    if said:
        return said
    return [_finding("host", (Severity.OK, "", f"{active} ports up, nothing to say of them", ""))]


def _port(name: str, facts: dict[str, Any], settings: Settings) -> Finding | None:
    wrong = list(_wrong(name, facts, settings))
    return _finding(name, max(wrong, key=lambda one: GRAVITY.index(one[0]))) if wrong else None


def _wrong(name: str, facts: dict[str, Any], settings: Settings) -> Iterator[Wrong]:
    port = facts["ports"][name]
    kept = remember(facts)[name]
    if not _up(port):
        if port["physical"] != "Disabled" or kept["was_up"]:
            severity = CRITICAL if kept["down"] >= DOWN_MAX else WARNING
            evidence = f"{port['state']}, {port['physical']}"
            yield severity, "down", evidence, "inspect"
        return
    wanted = settings.expected("ib_rate") or max(one["rate"] for one in facts["ports"].values())
    if port["rate"] < wanted:
        yield WARNING, "rate", f"{port['rate']:g} Gb/s, {wanted:g} expected", "reseat"
    yield from _grown(name, port, facts)


def _grown(name: str, port: dict[str, Any], facts: dict[str, Any]) -> Iterator[Wrong]:
    before = facts.get("before")
    old = (before or {"kept": {}})["kept"].get(name)
    if not before or not old:
        return
    grown = {one: port["counters"][one] - old["counters"].get(one, 0) for one in COUNTERS}
    if grown["link_downed"] >= FLAPS:
        yield CRITICAL, "flaps", f"the link went down {grown['link_downed']} times", "reseat"
    elif grown["link_downed"] > 0:
        yield WARNING, "flap", f"the link went down {grown['link_downed']} times", ""
    for counter, most in PER_HOUR.items():
        rate = grown[counter] * 3600 / max(60.0, before["seconds"])
        if rate > most:
            yield WARNING, "errors", f"{rate:.0f} {counter} an hour, at most {most}", "reseat"


def _finding(component: str, wrong: Wrong) -> Finding:
    severity, code, evidence, remedy = wrong
    return Finding("infiniband", component, severity, Fault.NETWORK, evidence, code, remedy)


def skip(settings: Settings) -> str | None:
    """Say why nothing is read."""
    there = any(Path(settings.root, "sys/class/infiniband").glob("*"))
    if there or settings.expected("ib_ports"):
        return None
    return "no InfiniBand card is here, and none is known to be expected"


CHECK = Check("infiniband", Level.PASSIVE, 3.0, probe, judge, skip, remember)
