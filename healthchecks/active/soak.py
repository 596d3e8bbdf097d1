"""All devices at work at once, for as long as the caller says: what heat and load bring out.

A board that multiplies well for two seconds may throttle after five minutes, and a power supply may
carry one busy GPU but not eight. Rates are taken piece by piece; the last third is compared with
the best third. Passive checks that run meanwhile see clocks, links and temperatures under load.
"""

from __future__ import annotations

import time
from typing import Any

from healthchecks.active.compute import GEMM_CPU, GEMM_GPU
from healthchecks.active.devices import component, devices, named, torch, wait
from healthchecks.api import Check, Level, Settings
from healthchecks.findings import Fault, Finding, Severity

SHORTEST = 2.0  #: seconds
PIECES = 30  #: that the time is cut into
TOGETHER = 4  #: multiplications between two looks at the clock
FADES = 0.93  #: of the best third: below, the device throttles
LIMIT = 3600.0  #: seconds; the caller gives a nearer one


def probe(settings: Settings) -> dict[str, Any]:
    """Multiply on every device at once; 10^12 operations a second, piece by piece."""
    t = torch()
    found = devices(t)
    pairs = {}
    for device in found:
        size = GEMM_CPU if device == "cpu" else GEMM_GPU
        kind = t.float32 if device == "cpu" else t.bfloat16
        pairs[device] = tuple(t.rand((size, size), device=device).to(kind) for _ in range(2))
    rates: dict[str, list[float]] = {device: [] for device in found}
    piece = max(SHORTEST, settings.soak) / PIECES
    for _ in range(PIECES):
        for device, rate in _piece(t, pairs, piece).items():
            rates[device].append(rate)
    return {"pieces": rates, "names": {one: named(t, one) for one in found}}


def _piece(t: Any, pairs: dict[str, Any], seconds: float) -> dict[str, float]:
    """Keep every device busy for a while; the time of each is its own."""
    began = time.monotonic()
    done, took = dict.fromkeys(pairs, 0), dict.fromkeys(pairs, 0.0)
    while time.monotonic() - began < seconds:
        for device, (one, other) in pairs.items():
            for _ in range(TOGETHER):
                one @ other
            done[device] += TOGETHER
        for device in pairs:  # the launches return at once; all work while the first is waited for
            wait(t, device)
            took[device] = time.monotonic() - began
    sizes = {device: one.shape[0] for device, (one, _) in pairs.items()}
    return {device: 2e-12 * sizes[device] ** 3 * done[device] / took[device] for device in pairs}


def judge(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Say which device fades under load. A busy host may fade for its neighbours' sake."""
    del settings
    said = []
    for device, rates in facts["pieces"].items():
        third = max(1, len(rates) // 3)
        parts = [_mean(rates[at : at + third]) for at in range(0, third * 3, third)]
        share = parts[-1] / max(parts) if max(parts) > 0 else 0.0
        severity, code, remedy = Severity.OK, "", ""
        evidence = f"{parts[-1]:.4g} TFLOP/s at the end, {100 * share:.0f} % of its best third"
        if share < FADES and device != "cpu":
            severity, code, remedy = Severity.CRITICAL, "fades", "cool"
        one = Finding("soak", component(device), severity, Fault.HARDWARE, evidence, code, remedy)
        said.append(one)
    return said


def _mean(rates: list[float]) -> float:
    return sum(rates) / len(rates) if rates else 0.0


CHECK = Check("soak", Level.ACCEPTANCE, LIMIT, probe, judge)
