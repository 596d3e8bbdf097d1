"""GPU memory: ECC counters and row remapping.

Thresholds: SRAM uncorrectable errors and more than 512 remapped rows are fatal for Azure NHC; a
remap that failed qualifies for replacement (NVIDIA GPU memory error management, gpud); corrected
floods as in Azure NHC. A pending remap keeps running applications correct: reset at the job's end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from healthchecks.api import Settings
from healthchecks.findings import Fault, Severity
from healthchecks.gpu.judging import Wrong, check

CORRECTED_MAX = {"sram": 10_000, "dram": 20_000_000}
ROWS_MAX = 512  #: remapped for uncorrectable errors, over the board's life
WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL


def ecc(gpu: dict[str, Any], settings: Settings) -> Iterator[Wrong]:
    """Judge error counters since the last reset and over the board's life."""
    del settings
    if "ecc_mode" in gpu and not gpu["ecc_mode"][0]:
        yield Wrong(WARNING, "off", "ECC is off", "enable ECC", Fault.CONFIG)
    count = gpu.get("ecc", {})
    sram, dram = (count.get(f"uncorrected_volatile_{one}", 0) for one in ("sram", "dram"))
    if sram:
        yield Wrong(CRITICAL, "sram", f"{sram} uncorrectable SRAM errors since reset", "reset")
    if dram:
        yield Wrong(WARNING, "dram", f"{dram} uncorrectable DRAM errors since reset", "reset")
    if (old := count.get("uncorrected_aggregate_sram", 0)) and not sram:
        yield Wrong(WARNING, "aggregate", f"{old} uncorrectable SRAM errors in its life")
    for place, most in CORRECTED_MAX.items():
        if (many := count.get(f"corrected_volatile_{place}", 0)) > most:
            evidence = f"{many} corrected {place.upper()} errors since reset, at most {most}"
            yield Wrong(WARNING, "corrected", evidence)


def remap(gpu: dict[str, Any], settings: Settings) -> Iterator[Wrong]:
    """Judge remapped rows and what is left to remap to."""
    del settings
    rows, left = gpu.get("rows", {}), gpu.get("row_histogram", {})
    if rows.get("failure"):
        yield Wrong(CRITICAL, "failure", "a row could not be remapped", "replace")
    if rows.get("uncorrected", 0) > ROWS_MAX:
        evidence = f"{rows['uncorrected']} rows remapped for uncorrectable errors"
        yield Wrong(CRITICAL, "worn", f"{evidence}, at most {ROWS_MAX}", "replace")
    if left.get("none"):
        yield Wrong(CRITICAL, "exhausted", f"{left['none']} banks have no spare row", "replace")
    if rows.get("pending"):
        yield Wrong(WARNING, "pending", "a remapped row waits for a reset of the GPU", "reset")
    if left.get("low"):
        yield Wrong(WARNING, "low", f"{left['low']} banks have few spare rows", "replace")
    if gpu.get("retired_pages_pending"):
        yield Wrong(WARNING, "retired-pending", "a retired page waits for a reset", "reset")


ECC = check("ecc", ecc, reads=("ecc",), fine="no uncorrectable error since the last reset")
REMAP = check("remap", remap, reads=("rows",), fine="no row waits or failed to be remapped")
