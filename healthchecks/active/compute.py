"""How fast each device multiplies and copies, and whether it computes the same twice.

A training step from one seed, repeated, must end in the very same bits on the same device; on GPUs
of one model and one software stack they must agree as well. Any difference is silent data
corruption, and the one that differs from the others is at fault.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from healthchecks.active.devices import component, devices, judge_rates, named, torch, wait
from healthchecks.api import Check, Level, Settings
from healthchecks.findings import Fault, Finding, Severity

WARM_UP, SECONDS = 0.5, 2.0  #: of work for one figure on one device
GEMM_GPU, GEMM_CPU = 8192, 512  #: rows and columns
COPY_GPU, COPY_CPU = 1 << 30, 1 << 26  #: bytes
REPEATS = 3
STEPS = 4  #: of the training that is repeated


def _per_second(t: Any, device: str, work: Callable[[], object]) -> float:
    """Return how often a second the work is done, after a warm-up."""
    deadline = time.monotonic() + WARM_UP
    while time.monotonic() < deadline:
        work()
        wait(t, device)
    began, times = time.monotonic(), 0
    while (took := time.monotonic() - began) < SECONDS:
        work()
        times += 1
        wait(t, device)
    return times / took


def probe_gemm(settings: Settings) -> dict[str, Any]:
    """Multiply square matrices: bfloat16 on GPUs, float32 on the CPU; 10^12 operations a second."""
    del settings
    t = torch()
    rates = {}
    for device in devices(t):
        size = GEMM_CPU if device == "cpu" else GEMM_GPU
        kind = t.float32 if device == "cpu" else t.bfloat16
        one, other = (t.ones((size, size), dtype=kind, device=device) for _ in range(2))
        rate = _per_second(t, device, lambda a=one, b=other: a @ b)  # type: ignore[misc]
        rates[device] = {"rate": 2e-12 * size**3 * rate, "name": named(t, device)}
    return {"rates": rates}


def probe_copy(settings: Settings) -> dict[str, Any]:
    """Copy inside a device's memory: 10^9 bytes a second, read and written."""
    del settings
    t = torch()
    rates = {}
    for device in devices(t):
        size = COPY_CPU if device == "cpu" else COPY_GPU
        source, target = (t.ones(size, dtype=t.uint8, device=device) for _ in range(2))
        rate = _per_second(t, device, lambda a=source, b=target: b.copy_(a))  # type: ignore[misc]
        rates[device] = {"rate": 2e-9 * size * rate, "name": named(t, device)}
    return {"rates": rates}


def probe_repeat(settings: Settings) -> dict[str, Any]:
    """Train a small network from one seed, several times on each device; hash what it became."""
    del settings
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only so
    t = torch()
    t.use_deterministic_algorithms(True)
    t.backends.cuda.matmul.allow_tf32 = False
    hashes = {device: [_trained(t, device) for _ in range(REPEATS)] for device in devices(t)}
    names = {device: named(t, device) for device in hashes}
    return {"hashes": hashes, "names": names, "stack": str(t.__version__)}


def _trained(t: Any, device: str) -> str:
    t.manual_seed(1)
    network = t.nn.Sequential(t.nn.Linear(256, 512), t.nn.GELU(), t.nn.Linear(512, 256)).to(device)
    optimiser = t.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    batch = t.randn((128, 256)).to(device)
    for _ in range(STEPS):
        optimiser.zero_grad()
        ((network(batch) - batch) ** 2).mean().backward()
        optimiser.step()
    digest = hashlib.sha256()
    for one in network.parameters():
        digest.update(one.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def judge_gemm(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Judge the rates of multiplication."""
    return judge_rates("gemm", facts["rates"], "TFLOP/s", "gemm_tflops", settings)


def judge_copy(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Judge the bandwidths of memory."""
    return judge_rates("memory-bandwidth", facts["rates"], "GB/s", "memory_gbps", settings)


def judge_repeat(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Say which device does not compute the same twice, or not what its like compute."""
    del settings
    said = []
    for device, hashes in facts["hashes"].items():
        severity, code, evidence = Severity.OK, "", f"{len(hashes)} times the same bits"
        if len(set(hashes)) > 1:
            severity, code = Severity.CRITICAL, "differs"
            evidence = f"{len(set(hashes))} different results of {len(hashes)} equal trainings"
        elif (usual := _usual(device, facts)) and hashes[0] != usual:
            severity, code = Severity.CRITICAL, "odd"
            evidence = "computes other bits than the other GPUs of its model"
        remedy = "replace" if code else ""
        said.append(
            Finding("repeat", component(device), severity, Fault.HARDWARE, evidence, code, remedy)
        )
    return said


def _usual(device: str, facts: dict[str, Any]) -> str | None:
    """Return what most GPUs of the same model computed, if there are enough to say."""
    name = facts["names"][device]
    alike = [one[0] for other, one in facts["hashes"].items() if facts["names"][other] == name]
    (usual, count), *_ = Counter(alike).most_common(1)
    return usual if len(alike) > 2 and count > len(alike) / 2 else None


GEMM = Check("gemm", Level.ACTIVE, 180.0, probe_gemm, judge_gemm)
COPY = Check("memory-bandwidth", Level.ACTIVE, 180.0, probe_copy, judge_copy)
REPEAT = Check("repeat", Level.ACTIVE, 180.0, probe_repeat, judge_repeat)
