"""Defects of GPUs and their fabric: the scenario that has one, and what must be said of it."""

from __future__ import annotations

from typing import NamedTuple


class Defect(NamedTuple):
    """One defect, alone on a healthy node of eight GPUs."""

    scenario: str  #: lines of the stand-in's file, ";" between them
    component: str
    detector: str  #: check:code
    severity: str
    remedy: str


LOADED = "*.utilisation=98;*.clock.sm=1980;*.power=650000;"
C, W = "CRITICAL", "WARNING"
DEFECTS = (
    Defect("3.rc=15", "gpu3", "nvml:gpu-lost", C, "reboot"),
    Defect("3.rc=16", "gpu3", "nvml:reset-required", C, "reset"),
    Defect("3.rc.GetHandleByIndex_v2=999", "gpu3", "nvml:gpu-lost", C, "reboot"),
    Defect("count=7", "host", "nvml:gpu-count", C, "replace"),
    Defect("count=0", "host", "nvml:gpu-count", C, "replace"),
    Defect("rc.Init=9", "host", "nvml:driver", C, "reboot"),
    Defect("rc.Init=18", "host", "nvml:driver-mismatch", C, "reboot"),
    Defect("2.ecc.uncorrected.volatile.sram=1", "gpu2", "ecc:sram", C, "reset"),
    Defect("2.ecc.uncorrected.volatile.dram=2", "gpu2", "ecc:dram", W, "reset"),
    Defect("2.ecc.uncorrected.aggregate.sram=5", "gpu2", "ecc:aggregate", W, ""),
    Defect("2.ecc.corrected.volatile.sram=10001", "gpu2", "ecc:corrected", W, ""),
    Defect("2.ecc.corrected.volatile.dram=30000000", "gpu2", "ecc:corrected", W, ""),
    Defect("2.ecc.mode=0", "gpu2", "ecc:off", W, "enable ECC"),
    Defect("6.rows.pending=1", "gpu6", "remap:pending", W, "reset"),
    Defect("6.rows.failure=1", "gpu6", "remap:failure", C, "replace"),
    Defect("6.rows.uncorrected=513", "gpu6", "remap:worn", C, "replace"),
    Defect("6.histogram.none=1", "gpu6", "remap:exhausted", C, "replace"),
    Defect("6.histogram.low=2", "gpu6", "remap:low", W, "replace"),
    Defect("6.retired.pending=1", "gpu6", "remap:retired-pending", W, "reset"),
    Defect("6.rows.pending=1;6.rows.failure=1", "gpu6", "remap:failure", C, "replace"),
    Defect("1.temperature=91", "gpu1", "thermal:gpu", C, "cool"),
    Defect("1.field.82=99", "gpu1", "thermal:memory", W, "cool"),
    Defect("1.reasons=0x48", "gpu1", "clocks:hw-thermal", C, "cool"),
    Defect("1.reasons=0x08", "gpu1", "clocks:hw-slowdown", W, "inspect"),
    Defect("1.reasons=0x24", "gpu1", "clocks:sw-thermal", W, "cool"),
    Defect("1.reasons=0x88", "gpu1", "brake:power-brake", C, "inspect"),
    Defect("*.reasons=0x80", "host", "brake:power-supply", C, "replace"),
    Defect(LOADED + "1.clock.sm=1200", "gpu1", "clocks:slow-sm", W, "reset"),
    Defect(LOADED + "1.clock.memory=1593", "gpu1", "clocks:slow-memory", W, "reset"),
    Defect("1.power.limit=350000", "gpu1", "power:limit", W, "restore the default limit"),
    Defect(LOADED + "1.power=200000", "gpu1", "draw:draw", W, "inspect"),
    Defect("4.pcie.width=8", "gpu4", "pcie:width", C, "reseat"),
    Defect(LOADED + "4.pcie.generation=3", "gpu4", "pcie:generation", W, "reset"),
    Defect("5.nvlink.7.state=0", "gpu5", "nvlink:inactive", C, "reset"),
    Defect("5.nvlink.7.crc_flit=9", "gpu5", "nvlink:errors", W, "inspect"),
    Defect("5.nvlink.2.crc_data=5", "gpu5", "nvlink:errors", W, "inspect"),
    Defect("5.nvlink.7.replay=40", "gpu5", "nvlink:errors", W, "inspect"),
    Defect("5.nvlink.7.recovery=1", "gpu5", "nvlink:recovery", W, "reset"),
    Defect(
        "0.fabric.state=2", "gpu0", "fabric:state", C, "restart the fabric manager, then reboot"
    ),
    Defect("0.fabric.status=999", "gpu0", "fabric:status", C, "reboot"),
    Defect("0.fabric.health=1", "gpu0", "fabric:degraded", W, "reset"),
    Defect("0.fabric.health=0x12", "gpu0", "fabric:route", C, "reboot"),
    Defect("7.field.230=1", "gpu7", "recovery:reset", C, "reset"),
    Defect("7.field.230=2", "gpu7", "recovery:reboot", C, "reboot"),
    Defect("7.field.230=3", "gpu7", "recovery:reset", W, "reset"),
    Defect("7.field.230=4", "gpu7", "recovery:reset", W, "reset"),
    Defect("7.persistence=0", "gpu7", "modes:persistence", W, "nvidia-smi -pm 1"),
    Defect("7.mig=1", "gpu7", "modes:mig", W, "nvidia-smi -mig 0"),
    Defect("7.mig.pending=1", "gpu7", "modes:mig", W, "nvidia-smi -mig 0"),
    Defect("7.compute.mode=3", "gpu7", "modes:compute-mode", W, "nvidia-smi -c 0"),
    Defect("7.rc.ValidateInforom=14", "gpu7", "inforom:corrupted", W, "replace"),
    Defect("7.process=4242", "gpu7", "left-over:process", W, "kill, then reset"),
    Defect("7.memory.used=2000000000", "gpu7", "left-over:memory", W, "reset"),
    Defect("7.vbios=96.00.00.00.02", "gpu7", "versions:vbios", W, ""),
    Defect("driver=535.1", "host", "versions:driver", W, "install the cluster's version"),
    Defect("cuda=12020", "host", "versions:cuda", W, "install the cluster's version"),
    Defect("7.name=NVIDIA H100 PCIe", "gpu7", "versions:name", W, ""),
    Defect("7.serial=999", "gpu7", "inventory:serial", W, "accept again"),
    Defect("7.uuid=GPU-new", "gpu7", "inventory:uuid", W, "accept again"),
)
#: What the cluster's file says of its nodes.
CLUSTER = {
    "driver": "550.90.07",
    "cuda": 12040,
    "gpu_serials": [f"165{one}" for one in range(8)],
    "gpu_uuids": [f"GPU-{one}" for one in range(8)],
}
