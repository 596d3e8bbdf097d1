"""Heat, clocks and power.

Bits of the clocks event reasons: 0x08 hardware slowdown flickers when a board changes its state, so
a bit counts only if it is set in every sample of a run. 0x01 idle, 0x02 application clocks, 0x04
software power cap, 0x10 sync boost and 0x100 display are normal. A power brake on half
the GPUs is the node's supply.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import and_
from statistics import median
from typing import Any

from healthchecks.api import Settings
from healthchecks.findings import Fault, Severity
from healthchecks.gpu.judging import Wrong, check

HW_SLOWDOWN, SW_THERMAL, HW_THERMAL, POWER_BRAKE = 0x08, 0x20, 0x40, 0x80
BUSY = 50  #: percent of utilisation: below, clocks and power say nothing
CLOCK_SHARE = 0.85  #: of the maximum, under load (NVSentinel)
POWER_SHARE = 0.60  #: of the median of the node's busy GPUs
MANY = 0.5  #: of the GPUs under a power brake: the node's power supply
WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL


def thermal(gpu: dict[str, Any], settings: Settings) -> Iterator[Wrong]:
    """Judge temperatures against the board's own limits."""
    del settings
    for name, code in (("temperature", "gpu"), ("memory_temperature", "memory")):
        now, most = gpu.get(name), gpu.get(f"{name}_max")
        if now is not None and most and now > most:
            severity = CRITICAL if code == "gpu" else WARNING
            yield Wrong(severity, code, f"{now} C at the {code}, at most {most} C", "cool")


def clocks(gpu: dict[str, Any], settings: Settings) -> Iterator[Wrong]:
    """Judge why clocks are held down, and how far they are under load."""
    del settings
    held = reduce(and_, gpu["reasons"]) if gpu.get("reasons") else 0
    if held & HW_THERMAL:
        yield Wrong(CRITICAL, "hw-thermal", f"hardware slows it for heat ({held:#x})", "cool")
    elif held & HW_SLOWDOWN and not held & POWER_BRAKE:
        yield Wrong(WARNING, "hw-slowdown", f"hardware slows it ({held:#x})", "inspect")
    if held & SW_THERMAL:
        yield Wrong(WARNING, "sw-thermal", f"the driver slows it for heat ({held:#x})", "cool")
    if gpu.get("utilisation", 0) > BUSY:
        for name in ("sm", "memory"):
            now, most = gpu.get(f"clock_{name}"), gpu.get(f"clock_{name}_max")
            if now is not None and most and now < CLOCK_SHARE * most:
                evidence = f"{name} clock {now} of {most} MHz at {gpu['utilisation']} % load"
                yield Wrong(WARNING, f"slow-{name}", evidence, "reset")


def brakes(facts: dict[str, Any], settings: Settings) -> Iterator[tuple[str, Wrong]]:
    """Judge power brakes: on one GPU its own fault, on many the node's power supply."""
    del settings
    known = [one for one in facts["gpus"] if one.get("reasons")]
    braked = [one for one in known if reduce(and_, one["reasons"]) & POWER_BRAKE]
    if len(braked) > 1 and len(braked) >= MANY * len(known):
        evidence = f"{len(braked)} of {len(known)} GPUs under a power brake: the node's supply"
        yield "host", Wrong(CRITICAL, "power-supply", evidence, "replace")
        return
    for gpu in braked:
        yield f"gpu{gpu['index']}", Wrong(CRITICAL, "power-brake", "under a power brake", "inspect")


def power(gpu: dict[str, Any], settings: Settings) -> Iterator[Wrong]:
    """Judge the limit that is set."""
    del settings
    limit, default = gpu.get("power_limit"), gpu.get("power_limit_default")
    if limit is not None and default and limit < default:
        evidence = f"power limited to {limit:g} W, {default:g} W by default"
        yield Wrong(WARNING, "limit", evidence, "restore the default limit", Fault.CONFIG)


def draws(facts: dict[str, Any], settings: Settings) -> Iterator[tuple[str, Wrong]]:
    """Judge what busy GPUs draw, one against the others of the node."""
    del settings
    busy = [one for one in facts["gpus"] if one.get("utilisation", 0) > BUSY and "power" in one]
    usual = median(one["power"] for one in busy) if len(busy) > 2 else 0.0
    for gpu in busy:
        if gpu["power"] < POWER_SHARE * usual:
            evidence = f"draws {gpu['power']:g} W under load, the node's median is {usual:g} W"
            yield f"gpu{gpu['index']}", Wrong(WARNING, "draw", evidence, "inspect")


THERMAL = check("thermal", thermal, reads=("temperature",), fine="none too hot")
CLOCKS = check("clocks", clocks, reads=("reasons",), fine="none slowed down")
BRAKE = check("brake", lambda *_: (), fine="none under a power brake", together=brakes)
POWER = check("power", power, fine="no limit below the default")
DRAW = check("draw", lambda *_: (), fine="all busy ones draw alike", together=draws)
