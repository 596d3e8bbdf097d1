"""Links: PCIe, NVLink, and the fabric of NVSwitches.

Generation 1 at idle is how a PCIe link saves power, so generations are judged under load only; a
narrow link is a fault at any time. Counters are judged by what they grew by since the last look,
where something was remembered, and by their value only where growth alone is no fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from healthchecks.api import Settings
from healthchecks.findings import Severity
from healthchecks.gpu.heat import BUSY
from healthchecks.gpu.judging import Wrong, check, keep

REPLAYS_PER_HOUR = 100
CRC_MAX = 5  #: errors on a link, corrected by a replay (imbue warns from 5 on)
COMPLETED = 3  #: NVML_GPU_FABRIC_STATE_COMPLETED
NOT_SUPPORTED = 0  #: NVML_GPU_FABRIC_STATE_NOT_SUPPORTED: a board without NVSwitches
DEGRADED, UNHEALTHY_ROUTE = 0x3, 0x3 << 4  #: two-bit fields of the fabric's health; 1 is "true"
WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL


def pcie(gpu: dict[str, Any], settings: Settings) -> Iterator[Wrong]:
    """Judge width, generation under load, and replays."""
    del settings
    width, widest = gpu.get("pcie_width"), gpu.get("pcie_width_max")
    if width is not None and widest and width < widest:
        yield Wrong(CRITICAL, "width", f"PCIe x{width} of x{widest}", "reseat")
    now, best = gpu.get("pcie_generation"), gpu.get("pcie_generation_max")
    if now is not None and best and now < best and gpu.get("utilisation", 0) > BUSY:
        evidence = f"PCIe generation {now} of {best} at {gpu['utilisation']} % load"
        yield Wrong(WARNING, "generation", evidence, "reset")
    if (rate := _growth_per_hour(gpu)) > REPLAYS_PER_HOUR:
        yield Wrong(WARNING, "replays", f"{rate:.0f} PCIe replays an hour", "reseat")


def _growth_per_hour(gpu: dict[str, Any]) -> float:
    before, now = gpu["before"], gpu.get("pcie_replays")
    if not before or now is None or "pcie_replays" not in before["kept"]:
        return 0.0
    grown = int(now) - int(before["kept"]["pcie_replays"])
    return max(0, grown) * 3600 / max(60.0, float(before["seconds"]))


def nvlink(gpu: dict[str, Any], settings: Settings) -> Iterator[Wrong]:
    """Judge the state and the errors of each link."""
    del settings
    links = gpu.get("nvlinks", [])
    if down := [number for number, one in enumerate(links) if not one["state"]]:
        evidence = f"{len(down)} of {len(links)} NVLinks inactive: {_numbers(down)}"
        yield Wrong(CRITICAL, "inactive", evidence, "reset")
    if tired := [number for number, one in enumerate(links) if one.get("recovery")]:
        yield Wrong(WARNING, "recovery", f"NVLinks that had to recover: {_numbers(tired)}", "reset")
    noisy = [n for n, one in enumerate(links) if _crc(one) >= CRC_MAX]
    if noisy:
        most = max(_crc(links[one]) for one in noisy)
        evidence = f"up to {most} CRC errors on NVLinks {_numbers(noisy)}"
        yield Wrong(WARNING, "errors", evidence, "inspect")


def _crc(link: dict[str, int]) -> int:
    return sum(link.get(name, 0) for name in ("replay", "crc_flit", "crc_data"))


def _numbers(links: list[int]) -> str:
    return ", ".join(map(str, links))


def fabric(gpu: dict[str, Any], settings: Settings) -> Iterator[Wrong]:
    """Judge whether the GPU has joined the NVSwitch fabric, and how healthy that is."""
    del settings
    seen = gpu.get("fabric")
    if seen is None or seen["state"] == NOT_SUPPORTED:
        return
    if seen["state"] != COMPLETED:
        evidence = f"fabric state {seen['state']}, completed is {COMPLETED}"
        yield Wrong(CRITICAL, "state", evidence, "restart the fabric manager, then reboot")
    elif seen["status"]:
        evidence = f"joining the fabric ended with NVML code {seen['status']}"
        yield Wrong(CRITICAL, "status", evidence, "reboot")
    if seen["health"] & DEGRADED == 1:
        yield Wrong(WARNING, "degraded", "the fabric's bandwidth is degraded", "reset")
    if (seen["health"] & UNHEALTHY_ROUTE) >> 4 == 1:
        yield Wrong(CRITICAL, "route", "a route of the fabric is unhealthy", "reboot")


PCIE = check(
    "pcie", pcie, reads=("pcie_width",), fine="full PCIe width", remember=keep("pcie_replays")
)
NVLINK = check("nvlink", nvlink, reads=("nvlinks",), fine="all NVLinks active")
FABRIC = check("fabric", fabric, reads=("fabric",), fine="in the fabric, or without one")
