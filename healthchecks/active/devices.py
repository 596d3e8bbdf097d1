"""The devices that active checks work on, and how their figures are judged.

A rate below 90 % of what is expected is critical, below 95 % a warning; so is 5 % below the median
of the node's other GPUs (SuperBench's rule; the silicon lottery alone spreads GEMM rates by some
percent, so 3 % would be noise).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median
from typing import Any

from healthchecks import catalog
from healthchecks.api import CannotLookError, Settings
from healthchecks.findings import Fault, Finding, Severity

CRITICAL_SHARE, WARNING_SHARE = 0.90, 0.95  #: of the expected rate
PEERS_SHARE = 0.95  #: of the node's median


def torch() -> Any:
    """Return torch; CannotLookError where it is not installed."""
    try:
        import torch as found
    except ImportError as error:
        raise CannotLookError(f"torch is not installed: {error}") from error
    return found


def devices(t: Any) -> list[str]:
    """Return the names of all GPUs as torch knows them, or the CPU alone."""
    count = t.cuda.device_count() if t.cuda.is_available() else 0
    return [f"cuda:{one}" for one in range(count)] or ["cpu"]


def named(t: Any, device: str) -> str:
    """Return the model of a device."""
    return str(t.cuda.get_device_name(device)) if device != "cpu" else "cpu"


def component(device: str) -> str:
    """Return how findings name a device."""
    return "host" if device == "cpu" else f"gpu{device.partition(':')[2]}"


def wait(t: Any, device: str) -> None:
    """Wait until a device has done what it was told."""
    if device != "cpu":
        t.cuda.synchronize(device)


def reduce_seconds(t: Any, data: Any, device: str, rounds: int) -> float:
    """Return the median time of an all-reduce of a tensor among the ranks that stand."""
    took = []
    for _ in range(rounds):
        wait(t, device)
        began = time.monotonic()
        t.distributed.all_reduce(data)
        wait(t, device)
        took.append(time.monotonic() - began)
    return median(took)


def judge_rates(
    check: str, rates: Mapping[str, Any], unit: str, key: str, settings: Settings
) -> list[Finding]:
    """Judge one rate per device: against what is expected, and against the node's other GPUs."""
    gpus = [one["rate"] for device, one in rates.items() if device != "cpu"]
    usual = median(gpus) if len(gpus) > 2 else 0.0
    return [
        _rate(check, device, one, (unit, key, usual), settings) for device, one in rates.items()
    ]


def _rate(
    check: str,
    device: str,
    seen: Mapping[str, Any],
    about: tuple[str, str, float],
    settings: Settings,
) -> Finding:
    unit, key, usual = about
    rate = float(seen["rate"])
    wanted = settings.expected(key) or catalog.expected(str(seen["name"])).get(key)
    severity, code, remedy = Severity.OK, "", ""
    evidence = f"{rate:.4g} {unit}"
    if wanted and rate < WARNING_SHARE * wanted:
        severity = Severity.CRITICAL if rate < CRITICAL_SHARE * wanted else Severity.WARNING
        code, remedy, evidence = "slow", "inspect", f"{evidence}, {wanted:.4g} expected"
    elif rate < PEERS_SHARE * usual:
        severity, code, remedy = Severity.WARNING, "behind", "inspect"
        evidence = f"{evidence}, the node's median is {usual:.4g}"
    return Finding(check, component(device), severity, Fault.HARDWARE, evidence, code, remedy)
