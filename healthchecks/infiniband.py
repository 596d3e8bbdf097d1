"""InfiniBand and RoCE ports: state, rate, error counters, flaps.

A port that is disabled by hand is nobody's fault; one that polls for a partner, or trains to less
than its neighbours, is. Down for less than four minutes is a warning (gpud): links are reset at
times. Counters are judged by their growth; 120 symbol errors an hour is the usual limit. A file
that says what no kernel writes is no fault of its port: UNKNOWN, and compared with nothing.
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
STATES = ("NOP", "DOWN", "INIT", "ARMED", "ACTIVE", "ACTIVE_DEFER")  #: as Linux writes them
WARNING, CRITICAL, UNKNOWN = Severity.WARNING, Severity.CRITICAL, Severity.UNKNOWN
_WORD = re.compile(r"\d{1,2}: ([ \w<>]{1,40}?)\s*")
_RATE = re.compile(r"(\d{1,6}(?:\.\d{1,3})?) Gb/sec \(\d{1,2}X \w{2,8}\)\s*")
_COUNT = re.compile(r"\d{1,20}\s*", re.ASCII)
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
    """Read "4: ACTIVE" as "ACTIVE", anything else as ""."""
    found = _WORD.fullmatch(_text(path))
    return found[1] if found else ""


def _rate(path: Path) -> float | None:
    """Read "400 Gb/sec (4X NDR)" as 400.0, anything else as None."""
    found = _RATE.fullmatch(_text(path))
    return float(found[1]) if found else None


def _number(path: Path) -> int | None:
    """Read a counter; None where this card has none of that name, or the file says no number."""
    text = _text(path)
    return int(text) if _COUNT.fullmatch(text) else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def remember(facts: dict[str, Any]) -> dict[str, Any]:
    """Keep the counters, and for how long each port has been down."""
    before = facts.get("before") or {"seconds": 0.0, "kept": {}}
    kept = {}
    for name, port in facts["ports"].items():
        old = before["kept"].get(name, {})
        down = 0.0
        if not _known(port):
            down = old.get("down", 0.0)
        elif not _up(port):
            down = old.get("down", 0.0) + before["seconds"] if old else 0.0
        kept[name] = {"counters": port["counters"], "down": down, "was_up": _up(port)}
        kept[name]["was_up"] = kept[name]["was_up"] or old.get("was_up", False)
    return kept


def _up(port: dict[str, Any]) -> bool:
    return bool(port["state"] == "ACTIVE")


def _known(port: dict[str, Any]) -> bool:
    return port["state"] in STATES


def judge(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Say what is wrong with each port, and whether enough of them are up."""
    ports = facts["ports"]
    said = [one for name in ports if (one := _port(name, facts, settings))]
    active = sum(map(_up, ports.values()))
    wanted = settings.expected("ib_ports")
    unread = sum(not _known(port) for port in ports.values())
    if wanted is not None and active + unread < wanted:
        evidence = f"{active} InfiniBand ports are up, {wanted} expected"
        said.append(_finding("host", (CRITICAL, "ports", evidence, "inspect")))
    if said:
        return said
    return [_finding("host", (Severity.OK, "", f"{active} ports up, nothing to say of them", ""))]


def _port(name: str, facts: dict[str, Any], settings: Settings) -> Finding | None:
    """Return the gravest of what is known to be wrong, else what could not be told."""
    wrong = list(_wrong(name, facts, settings))
    wrong = [one for one in wrong if one[0] is not UNKNOWN] or wrong
    return _finding(name, max(wrong, key=lambda one: GRAVITY.index(one[0]))) if wrong else None


def _wrong(name: str, facts: dict[str, Any], settings: Settings) -> Iterator[Wrong]:
    port = facts["ports"][name]
    kept = remember(facts)[name]
    if not _known(port):
        yield UNKNOWN, "", "the state of the port cannot be read", ""
        return
    if not _up(port):
        if port["physical"] != "Disabled" or kept["was_up"]:
            severity = CRITICAL if kept["down"] >= DOWN_MAX else WARNING
            evidence = f"{port['state']}, {port['physical']}"
            yield severity, "down", evidence, "inspect"
        return
    rates = [one["rate"] for one in facts["ports"].values() if one["rate"] is not None]
    wanted = settings.expected("ib_rate") or max(rates, default=0.0)
    if port["rate"] is None:
        yield UNKNOWN, "", "the rate of the port cannot be read", ""
    elif port["rate"] < wanted:
        yield WARNING, "rate", f"{port['rate']:g} Gb/s, {wanted:g} expected", "reseat"
    yield from _grown(name, port, facts)


def _grown(name: str, port: dict[str, Any], facts: dict[str, Any]) -> Iterator[Wrong]:
    before = facts.get("before")
    old = (before or {"kept": {}})["kept"].get(name)
    if not before or not old:
        return
    now = port["counters"]
    told = [one for one in COUNTERS if None not in (now[one], old["counters"].get(one))]
    grown = {one: now[one] - old["counters"][one] for one in told}
    downed = grown.get("link_downed", 0)
    if downed >= FLAPS:
        yield CRITICAL, "flaps", f"the link went down {downed} times", "reseat"
    elif downed > 0:
        yield WARNING, "flap", f"the link went down {downed} times", ""
    for counter, most in PER_HOUR.items():
        rate = grown.get(counter, 0) * 3600 / max(60.0, before["seconds"])
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
