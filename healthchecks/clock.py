"""The clock: whether the year is believable, and whether a time service holds it.

TLS, logs of several nodes side by side, and time-outs by the wall clock all need it. The kernel
tells by adjtimex(2), which any user may call, whether a time service disciplines the clock and
how far off it may be; no daemon is asked.
"""

from __future__ import annotations

import time
from typing import Any

from healthchecks.api import Check, Level, Settings
from healthchecks.findings import Fault, Finding, Severity

YEAR_2025 = 1735689600.0  #: nothing of ours ran before; a clock that says so was never set
YEAR_2100 = 4102444800.0
OFF_WARNING, OFF_CRITICAL = 0.05, 1.0  #: seconds: logs stop lining up; TLS and tickets may fail
_UNSYNC, _NANO = 0x0040, 0x2000  #: STA_UNSYNC and STA_NANO of timex.h


def probe(settings: Settings) -> dict[str, Any]:
    """Read the wall clock twice around the monotonic one, and ask the kernel about its keeper."""
    facts: dict[str, Any] = {"now": time.time(), "uptime": time.clock_gettime(time.CLOCK_BOOTTIME)}
    return facts if settings.fast else {**facts, "kept": _kept()}


def _kept() -> dict[str, Any]:
    """Return what adjtimex(2) says: offset in seconds, and whether anybody steers the clock."""
    import ctypes  # here only, because fast runs do without

    # struct timex begins with: modes, offset, freq, maxerror, esterror, status (see timex.h)
    fields: list[tuple[str, Any]] = [("modes", ctypes.c_uint)]
    fields += [(name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")]
    fields += [("status", ctypes.c_int), ("rest", ctypes.c_long * 32)]
    timex = type("Timex", (ctypes.Structure,), {"_fields_": fields})()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(ctypes.byref(timex)) < 0:
        return {"error": f"adjtimex: errno {ctypes.get_errno()}"}
    unit = 1e-9 if timex.status & _NANO else 1e-6
    return {"synchronised": not timex.status & _UNSYNC, "offset": timex.offset * unit}


def judge(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Say whether the clock can be believed, and by how much it is off if anybody knows."""
    del settings
    sane = _sane(facts)
    return [sane, _offset(facts["kept"])] if "kept" in facts else [sane]


def _sane(facts: dict[str, Any]) -> Finding:
    if YEAR_2025 <= facts["now"] <= YEAR_2100:
        evidence = f"the year is believable; up for {facts['uptime']:.0f} s"
        return Finding("clock", "host", Severity.OK, Fault.CONFIG, evidence)
    said = time.strftime("%Y-%m-%d", time.gmtime(facts["now"]))
    evidence = f"the clock says {said}: it was never set"
    return Finding("clock", "host", Severity.CRITICAL, Fault.CONFIG, evidence, "unset")


def _offset(kept: dict[str, Any]) -> Finding:
    severity, evidence, code = Severity.OK, "", ""
    if "error" in kept:
        severity, evidence = Severity.UNKNOWN, kept["error"]
    elif not kept["synchronised"]:
        severity, evidence = Severity.UNKNOWN, "the kernel knows of no time service: offset unknown"
    else:
        off = abs(kept["offset"])
        evidence = f"{off * 1000:.1f} ms off its time service"
        if off > OFF_WARNING:
            severity, code = Severity.WARNING, "offset"
        if off > OFF_CRITICAL:
            severity = Severity.CRITICAL
    return Finding("clock", "ntp", severity, Fault.CONFIG, evidence, code)


CHECK = Check("clock", Level.PASSIVE, 3.0, probe, judge)
