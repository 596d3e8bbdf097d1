"""The one probe of all GPU checks: every NVML reading of every GPU as plain JSON.

A reading that a board or driver does not have is absent; one that failed stands under `failed` with
NVML's return code. Keys are ours, the functions that give them stand in `_READINGS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from healthchecks import pci
from healthchecks.api import CannotLookError, Settings

NOT_THERE = (3, 13)  #: NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_FUNCTION_NOT_FOUND
LOST = (15, 16)  #: NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED
LINKS_MAX = 18  #: NVLinks of one GPU (H100)
SAMPLES, SAMPLE_PAUSE = 3, 0.1  #: of the clocks event reasons: one alone may be a flicker
RECOVERY_ACTION, MEMORY_TEMPERATURE = 230, 82  #: NVML field identifiers

Reading = Callable[[Any, Any], Any]  #: (pynvml, handle) -> plain JSON


def _ecc(n: Any, h: Any) -> dict[str, int]:
    """Read error counters: corrected and uncorrected, volatile and aggregate, SRAM and DRAM."""
    kinds = {"corrected": n.NVML_MEMORY_ERROR_TYPE_CORRECTED}
    kinds["uncorrected"] = n.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
    spans = {"volatile": n.NVML_VOLATILE_ECC, "aggregate": n.NVML_AGGREGATE_ECC}
    places = {"sram": n.NVML_MEMORY_LOCATION_SRAM, "dram": n.NVML_MEMORY_LOCATION_DRAM}
    return {
        f"{kind}_{span}_{place}": n.nvmlDeviceGetMemoryErrorCounter(h, kinds[kind], at, where)
        for kind in kinds
        for span, at in spans.items()
        for place, where in places.items()
    }


def _rows(n: Any, h: Any) -> dict[str, int]:
    names = ("corrected", "uncorrected", "pending", "failure")
    return dict(zip(names, map(int, n.nvmlDeviceGetRemappedRows(h)), strict=True))


def _histogram(n: Any, h: Any) -> dict[str, int]:
    found = n.nvmlDeviceGetRowRemapperHistogram(h)
    return {name: int(getattr(found, name)) for name in ("max", "high", "partial", "low", "none")}


def _field(n: Any, h: Any, number: int) -> int:
    value = n.nvmlDeviceGetFieldValues(h, [number])[0]
    if value.nvmlReturn:
        raise n.NVMLError(value.nvmlReturn)
    return int(value.value.uiVal)


def _links(n: Any, h: Any) -> list[dict[str, int]]:
    """Read the state and the error counters of every NVLink there is."""
    found: list[dict[str, int]] = []
    for link in range(LINKS_MAX):
        try:
            state = n.nvmlDeviceGetNvLinkState(h, link)
        except n.NVMLError as error:
            if error.value in (n.NVML_ERROR_INVALID_ARGUMENT, *NOT_THERE):
                break  # no such link on this board
            raise
        counters = {"state": int(state)}
        for number, name in enumerate(("replay", "recovery", "crc_flit", "crc_data")):
            try:
                counters[name] = int(n.nvmlDeviceGetNvLinkErrorCounter(h, link, number))
            except n.NVMLError as error:
                if error.value not in NOT_THERE:
                    raise
        found.append(counters)
    return found


def _fabric(n: Any, h: Any) -> dict[str, int]:
    import ctypes

    known = n.c_nvmlGpuFabricInfoV_t()
    n.nvmlDeviceGetGpuFabricInfoV(h, ctypes.byref(known))
    mask = int(getattr(known, "healthMask", 0))
    return {"state": int(known.state), "status": int(known.status), "health": mask}


def _processes(n: Any, h: Any) -> list[int]:
    return [int(one.pid) for one in n.nvmlDeviceGetComputeRunningProcesses(h)]


def _memory(n: Any, h: Any) -> dict[str, int]:
    try:
        found = n.nvmlDeviceGetMemoryInfo(h, version=n.nvmlMemory_v2)
        return {"total": found.total, "used": found.used, "reserved": found.reserved}
    except n.NVMLError as error:
        if error.value not in NOT_THERE:
            raise
        found = n.nvmlDeviceGetMemoryInfo(h)
        return {"total": found.total, "used": found.used, "reserved": 0}


_READINGS: dict[str, Reading] = {
    "name": lambda n, h: n.nvmlDeviceGetName(h),
    "uuid": lambda n, h: n.nvmlDeviceGetUUID(h),
    "serial": lambda n, h: n.nvmlDeviceGetSerial(h),
    "pci": lambda n, h: n.nvmlDeviceGetPciInfo(h).busId,
    "vbios": lambda n, h: n.nvmlDeviceGetVbiosVersion(h),
    "inforom_valid": lambda n, h: n.nvmlDeviceValidateInforom(h) is None,
    "ecc_mode": lambda n, h: list(n.nvmlDeviceGetEccMode(h)),
    "ecc": _ecc,
    "rows": _rows,
    "row_histogram": _histogram,
    "retired_pages_pending": lambda n, h: int(n.nvmlDeviceGetRetiredPagesPendingStatus(h)),
    "recovery_action": lambda n, h: _field(n, h, RECOVERY_ACTION),
    "temperature": lambda n, h: n.nvmlDeviceGetTemperature(h, n.NVML_TEMPERATURE_GPU),
    "temperature_max": lambda n, h: n.nvmlDeviceGetTemperatureThreshold(
        h, n.NVML_TEMPERATURE_THRESHOLD_GPU_MAX
    ),
    "memory_temperature": lambda n, h: _field(n, h, MEMORY_TEMPERATURE),
    "memory_temperature_max": lambda n, h: n.nvmlDeviceGetTemperatureThreshold(
        h, n.NVML_TEMPERATURE_THRESHOLD_MEM_MAX
    ),
    "clock_sm": lambda n, h: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_SM),
    "clock_sm_max": lambda n, h: n.nvmlDeviceGetMaxClockInfo(h, n.NVML_CLOCK_SM),
    "clock_memory": lambda n, h: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_MEM),
    "clock_memory_max": lambda n, h: n.nvmlDeviceGetMaxClockInfo(h, n.NVML_CLOCK_MEM),
    "power": lambda n, h: n.nvmlDeviceGetPowerUsage(h) / 1000,
    "power_limit": lambda n, h: n.nvmlDeviceGetEnforcedPowerLimit(h) / 1000,
    "power_limit_default": lambda n, h: n.nvmlDeviceGetPowerManagementDefaultLimit(h) / 1000,
    "utilisation": lambda n, h: int(n.nvmlDeviceGetUtilizationRates(h).gpu),
    "pcie_width": lambda n, h: n.nvmlDeviceGetCurrPcieLinkWidth(h),
    "pcie_width_max": lambda n, h: n.nvmlDeviceGetMaxPcieLinkWidth(h),
    "pcie_generation": lambda n, h: n.nvmlDeviceGetCurrPcieLinkGeneration(h),
    "pcie_generation_max": lambda n, h: n.nvmlDeviceGetMaxPcieLinkGeneration(h),
    "pcie_replays": lambda n, h: n.nvmlDeviceGetPcieReplayCounter(h),
    "nvlinks": _links,
    "fabric": _fabric,
    "persistence": lambda n, h: n.nvmlDeviceGetPersistenceMode(h),
    "mig": lambda n, h: list(n.nvmlDeviceGetMigMode(h)),
    "compute_mode": lambda n, h: n.nvmlDeviceGetComputeMode(h),
    "processes": _processes,
    "memory": _memory,
}


def probe(settings: Settings) -> dict[str, Any]:
    """Read everything of every GPU; CannotLookError where NVML itself does not answer."""
    try:
        import pynvml as n
    except ImportError as error:
        raise CannotLookError(f"nvidia-ml-py is not installed: {error}") from error
    try:
        n.nvmlInit()
        count = n.nvmlDeviceGetCount()
        facts = {
            "driver": n.nvmlSystemGetDriverVersion(),
            "cuda": n.nvmlSystemGetCudaDriverVersion(),
            "gpus": [],
        }
    except n.NVMLError as error:
        raise CannotLookError(f"NVML: {error}") from error
    handles = [_handle(n, one) for one in range(count)]
    gpus = [_gpu(n, one, handle) for one, handle in enumerate(handles)]
    _sample_reasons(n, handles, gpus)
    return {**facts, "gpus": gpus}


def _handle(n: Any, index: int) -> Any:
    """Return the handle of a GPU, or NVML's code for why there is none."""
    try:
        return n.nvmlDeviceGetHandleByIndex(index)
    except n.NVMLError as error:
        return int(error.value)


def _gpu(n: Any, index: int, handle: Any) -> dict[str, Any]:
    """Read one GPU; a lost one fails in every reading, so the first such failure ends it."""
    gpu: dict[str, Any] = {"index": index, "failed": {}}
    if isinstance(handle, int):
        return {**gpu, "failed": {"handle": handle}}
    for name, read in _READINGS.items():
        try:
            gpu[name] = read(n, handle)
        except n.NVMLError as error:
            if error.value not in NOT_THERE:
                gpu["failed"][name] = error.value
            if error.value in LOST:
                break
        except AttributeError:  # an older nvidia-ml-py does not know it
            continue
    return gpu


def _sample_reasons(n: Any, handles: list[Any], gpus: list[dict[str, Any]]) -> None:
    """Add some samples of why the clocks are what they are, a pause apart."""
    for one in range(SAMPLES):
        if one:
            time.sleep(SAMPLE_PAUSE)
        for handle, gpu in zip(handles, gpus, strict=True):
            if isinstance(handle, int) or set(gpu["failed"].values()) & set(LOST):
                continue
            try:
                sample = int(n.nvmlDeviceGetCurrentClocksEventReasons(handle))
                gpu.setdefault("reasons", []).append(sample)
            except n.NVMLError as error:
                if error.value not in NOT_THERE:
                    gpu["failed"]["reasons"] = error.value


def skip(settings: Settings) -> str | None:
    """Say why a machine without GPUs is not asked for them."""
    if settings.gpus_expected == 0:
        return "no GPU is expected here"
    if settings.gpus_expected is None and not pci.gpus(settings.root):
        return "no GPU is on the PCI bus, and none is known to be expected"
    return None
