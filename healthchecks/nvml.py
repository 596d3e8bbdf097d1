"""NVML presence: whether the driver answers, all GPUs are there, and each of them answers.

Calls into NVML may block for ever on a GPU that hangs (Xid 79, 119); the runner's limit ends them,
and the finding says so. Return codes are NVML's own (nvml.h): they are told apart by number, so
that the judge needs no library.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from typing import Any

from healthchecks import pci
from healthchecks.api import CannotLookError, Check, Level, Settings
from healthchecks.findings import Fault, Finding, Severity


class Rc(IntEnum):
    """NVML's return codes that mean something to us (nvmlReturn_t)."""

    SUCCESS = 0
    GPU_IS_LOST = 15
    RESET_REQUIRED = 16
    VERSION_MISMATCH = 18  #: library and kernel module are of different versions
    UNKNOWN = 999  #: what a GPU that is about to be lost often says


def probe(settings: Settings) -> dict[str, Any]:
    """Ask NVML for every GPU; without its library say why it is not there."""
    on_bus = pci.gpus(settings.root)
    if settings.gpus_expected == 0 and not on_bus and not _driver_is_loaded(settings.root):
        return {"on_bus": 0, "init": 0, "gpus": []}  # nothing to ask, and nobody: stay cheap
    try:
        import pynvml  # here only: nodes without GPUs do without, and it is slow to load
    except ImportError as error:
        raise CannotLookError(f"nvidia-ml-py is not installed: {error}") from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            raise CannotLookError(f"NVML's library is not there: {error}") from error
        return {"on_bus": len(on_bus), "init": error.value, "error": str(error), "gpus": []}
    count = pynvml.nvmlDeviceGetCount()
    return {"on_bus": len(on_bus), "init": 0, "gpus": [_gpu(pynvml, one) for one in range(count)]}


def _gpu(pynvml: Any, index: int) -> dict[str, Any]:
    """Ask one GPU who it is; a GPU that is lost answers each question with the same error."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        uuid = pynvml.nvmlDeviceGetUUID(handle)
        pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)  # touches the chip
    except pynvml.NVMLError as error:
        return {"index": index, "rc": error.value, "error": str(error)}
    return {"index": index, "rc": 0, "uuid": uuid, "serial": _serial(pynvml, handle)}


def _serial(pynvml: Any, handle: Any) -> str:
    try:
        return str(pynvml.nvmlDeviceGetSerial(handle))
    except pynvml.NVMLError:  # consumer boards have none
        return ""


def _driver_is_loaded(root: str) -> bool:
    return Path(root, "proc/driver/nvidia/version").exists()


def judge(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Compare what answered with what should be there."""
    if facts["init"]:
        return [_no_driver(facts, settings)]
    return [_count(facts, settings), *(_one(gpu) for gpu in facts["gpus"])]


def _no_driver(facts: dict[str, Any], settings: Settings) -> Finding:
    evidence = f"NVML: {facts['error']}; {facts['on_bus']} GPUs on the PCI bus"
    if not facts["on_bus"] and not settings.gpus_expected:
        return _host(Severity.UNKNOWN, f"{evidence}, and none is known to be expected")
    code = "driver-mismatch" if facts["init"] == Rc.VERSION_MISMATCH else "driver"
    return _host(Severity.CRITICAL, evidence, code, "reboot", fault=Fault.CONFIG)


def _count(facts: dict[str, Any], settings: Settings) -> Finding:
    found, on_bus = len(facts["gpus"]), facts["on_bus"]
    expected = settings.gpus_expected if settings.gpus_expected is not None else on_bus
    if found >= expected:
        return _host(Severity.OK, f"{found} GPUs answer NVML, {expected} expected")
    evidence = f"{found} GPUs answer NVML, {expected} expected, {on_bus} on the PCI bus"
    remedy = "reboot" if on_bus >= expected else "replace"
    return _host(Severity.CRITICAL, evidence, "gpu-count", remedy)


def _one(gpu: dict[str, Any]) -> Finding:
    component, error = f"gpu{gpu['index']}", gpu.get("error", "")
    match gpu["rc"]:
        case Rc.SUCCESS:
            severity, evidence, code, remedy = Severity.OK, f"answers as {gpu['uuid']}", "", ""
        case Rc.GPU_IS_LOST | Rc.UNKNOWN:
            severity, evidence, code, remedy = Severity.CRITICAL, error, "gpu-lost", "reboot"
        case Rc.RESET_REQUIRED:
            severity, evidence, code, remedy = Severity.CRITICAL, error, "reset-required", "reset"
        case _:
            severity, evidence, code, remedy = Severity.UNKNOWN, error, "", ""
    return Finding(
        check="nvml",
        component=component,
        severity=severity,
        fault=Fault.HARDWARE,
        evidence=evidence,
        code=code,
        remedy=remedy,
        serial=gpu.get("serial", ""),
    )


def _host(
    severity: Severity,
    evidence: str,
    code: str = "",
    remedy: str = "",
    fault: Fault = Fault.HARDWARE,
) -> Finding:
    return Finding("nvml", "host", severity, fault, evidence, code, remedy)


CHECK = Check("nvml", Level.PASSIVE, 10.0, probe, judge)
