"""How fast data moves: between host and GPU, between the GPUs of a node, and to each disk."""

from __future__ import annotations

import os
import time
from typing import Any

from healthchecks.active.devices import devices, judge_rates, named, reduce_seconds, torch, wait
from healthchecks.api import CannotLookError, Check, Level, Settings
from healthchecks.findings import Fault, Finding, Severity

TRANSFER = 1 << 28  #: bytes
REDUCE_GPU, REDUCE_CPU = 1 << 30, 1 << 22  #: bytes
ROUNDS = 5
STORE = 64 << 20  #: bytes
JOIN_MAX = 60  #: seconds for the ranks of the all-reduce to find each other
SHARE_MIN = 0.9  #: of what is expected


def probe_transfer(settings: Settings) -> dict[str, Any]:
    """Copy pinned memory to each GPU and back; the slower direction, in 10^9 bytes a second."""
    del settings
    t = torch()
    found = [one for one in devices(t) if one != "cpu"]
    if not found:
        raise CannotLookError("no GPU to move data to")
    rates = {}
    for device in found:
        host = t.ones(TRANSFER, dtype=t.uint8, pin_memory=True)
        there = t.empty(TRANSFER, dtype=t.uint8, device=device)
        ways = ((there, host), (host, there))
        rates[device] = {
            "rate": min(_fastest(t, device, target, source) for target, source in ways),
            "name": named(t, device),
        }
    return {"rates": rates}


def _fastest(t: Any, device: str, target: Any, source: Any) -> float:
    took = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        target.copy_(source, non_blocking=True)
        wait(t, device)
        took.append(time.monotonic() - began)
    return float(1e-9 * TRANSFER / min(took))


def probe_all_reduce(settings: Settings) -> dict[str, Any]:
    """Sum over all GPUs of the node (NCCL), or over two processes on CPUs (gloo)."""
    del settings
    t = torch()
    found = devices(t)
    ranks = max(2, len(found))
    backend = "gloo" if found == ["cpu"] else "nccl"
    if backend == "nccl" and len(found) < 2:
        raise CannotLookError("a single GPU has nobody to reduce with")
    context = t.multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    store = t.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    started = [
        context.Process(
            target=_reduce, args=(one, ranks, backend, store.port, answers), daemon=True
        )
        for one in range(ranks)
    ]
    for one in started:
        one.start()
    for one in started:
        one.join(JOIN_MAX)
    if answers.empty():
        raise CannotLookError("the ranks of the all-reduce did not finish")
    rate, right = answers.get()
    return {"ranks": ranks, "backend": backend, "rate": rate, "right": right, "name": found[0]}


def _reduce(rank: int, ranks: int, backend: str, port: int, answers: Any) -> None:
    """Be one rank; rank 0 tells the bus bandwidth (as nccl-tests define it) and if it is right."""
    _die_with_the_probe()
    t = torch()
    device = "cpu" if backend == "gloo" else f"cuda:{rank}"
    store = t.distributed.TCPStore("127.0.0.1", port, is_master=False)
    t.distributed.init_process_group(backend, store=store, rank=rank, world_size=ranks)
    size = REDUCE_CPU if device == "cpu" else REDUCE_GPU
    data = t.full((size // 4,), float(rank + 1), device=device)
    t.distributed.all_reduce(data)
    right = bool((data == ranks * (ranks + 1) / 2).all())
    seconds = reduce_seconds(t, data, device, ROUNDS)
    if rank == 0:
        answers.put((1e-9 * size / seconds * 2 * (ranks - 1) / ranks, right))
    t.distributed.barrier()
    t.distributed.destroy_process_group()


def _die_with_the_probe() -> None:
    """Let the kernel end this rank when the probe is killed at its limit."""
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def probe_storage(settings: Settings) -> dict[str, Any]:
    """Write, sync and read back a file on each disk; 10^6 bytes a second each way."""
    return {"disks": {path: _store(path) for path in settings.disks}}


def _store(path: str) -> dict[str, Any]:
    name = os.path.join(path, f".holdfast-storage-{os.getpid()}")  # noqa: PTH118
    piece = os.urandom(1 << 20)
    try:
        began = time.monotonic()
        with open(name, "xb") as out:  # noqa: PTH123
            for _ in range(STORE >> 20):
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())
            os.posix_fadvise(out.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        written = time.monotonic() - began
        began = time.monotonic()
        right = True
        with open(name, "rb") as back:  # noqa: PTH123
            while chunk := back.read(1 << 20):
                right = right and chunk == piece
        read = time.monotonic() - began
        return {"write": 1e-6 * STORE / written, "read": 1e-6 * STORE / read, "right": right}
    except OSError as error:
        return {"error": error.strerror or str(error)}
    finally:
        if os.path.exists(name):  # noqa: PTH110
            os.unlink(name)  # noqa: PTH108


def judge_transfer(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Judge the bandwidth between host and GPU."""
    return judge_rates("transfer", facts["rates"], "GB/s", "transfer_gbps", settings)


def judge_all_reduce(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Judge the sum, and the bus bandwidth."""
    evidence = f"{facts['ranks']} ranks, {facts['backend']}: {facts['rate']:.4g} GB/s on the bus"
    wanted = settings.expected("all_reduce_gbps")
    severity, code, remedy = Severity.OK, "", ""
    if not facts["right"]:
        severity, code, remedy = Severity.CRITICAL, "wrong", "replace"
        evidence = f"the sum over {facts['ranks']} ranks is wrong"
    elif wanted and facts["rate"] < SHARE_MIN * wanted:
        severity, code, remedy = Severity.CRITICAL, "slow", "inspect"
        evidence = f"{evidence}, {wanted:g} expected"
    return [Finding("all-reduce", "host", severity, Fault.HARDWARE, evidence, code, remedy)]


def judge_storage(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Judge each disk: what was read must be what was written, and fast enough."""
    return [_disk(path, seen, settings) for path, seen in facts["disks"].items()]


def _disk(path: str, seen: dict[str, Any], settings: Settings) -> Finding:
    severity, code, fault = Severity.OK, "", Fault.HARDWARE
    if "error" in seen:
        evidence, severity, code, fault = seen["error"], Severity.WARNING, "error", Fault.CONFIG
    elif not seen["right"]:
        evidence, severity, code = "read other bytes than it wrote", Severity.CRITICAL, "wrong"
    else:
        evidence = f"writes {seen['write']:.0f} MB/s, reads {seen['read']:.0f} MB/s"
        wanted = settings.expected("storage_mbps")
        if wanted and seen["write"] < SHARE_MIN * wanted:
            severity, code, evidence = Severity.WARNING, "slow", f"{evidence}, {wanted:g} expected"
    return Finding("storage", path[:60], severity, fault, evidence, code)


TRANSFER_CHECK = Check("transfer", Level.ACTIVE, 120.0, probe_transfer, judge_transfer)
ALL_REDUCE = Check("all-reduce", Level.ACTIVE, 120.0, probe_all_reduce, judge_all_reduce)
STORAGE = Check("storage", Level.ACTIVE, 120.0, probe_storage, judge_storage)
