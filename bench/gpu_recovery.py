"""A killed rank on a GPU: how long until it computes again, and what is left on the GPU.

    python -m bench.gpu_recovery --out FILE [--device cuda] [--limit-s 185] [--kills 3]

Parts, each in a process of its own with a limit of its own, each written to FILE when it ends:

- `gloo`: two ranks on one GPU, gradients over gloo; `kill -9` of rank 1, again and again. The
  survivor keeps its process and its state, so no step is repeated.
- `nccl`: one rank with NCCL; `kill -9` of it. It is forked again from the warm parent and goes on
  from its snapshot in memory.
- `snapshots`: what a snapshot of a state on the GPU adds to a step: ours (pinned memory, a side
  stream, hashed), and a blocking copy into pinned memory.

The breakdown of a kill is in seconds from the kill: the new process enters the script, its device
computes, its model is built, it stands (process group and state), its first new step is completed.
Memory is what NVML says is used on the device: before, while training, after the last kill of all.
On `--device cpu` everything but NVML, CUDA and NCCL is exercised.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.recovery import figures, overlap
from bench.recovery.systems import Holdfast
from orchestrator.runtime import processes
from orchestrator.runtime.place import write_atomically

PARTS = {"gloo": 45.0, "nccl": 60.0, "snapshots": 75.0}  #: name to limit, seconds
JOB = Path(__file__).parent / "recovery" / "gpu_job.py"
ROOT = Path(__file__).parents[1]
CALM = 12  #: steps between two kills
MEGABYTE = 1_000_000
FREE_MB = 512  #: used above the baseline, at most, when all is gone
FREE_LIMIT_S = 15.0  #: to wait for that


# ---- what the GPU says ---------------------------------------------------------------------------


def gpu() -> dict[str, Any]:
    """Return what NVML says of the first device; nothing where there is none."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError as error:
        return {"error": str(error)}
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
        except (AttributeError, nvml.NVMLError):
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        name = nvml.nvmlDeviceGetName(handle)
    except nvml.NVMLError as error:
        return {"error": str(error)}
    return {
        "name": name if isinstance(name, str) else name.decode(),
        "used_mb": round(memory.used / MEGABYTE),  # version 2 leaves the reserved part out
        "processes": [one.pid for one in running],
    }


def await_free(before: dict[str, Any]) -> dict[str, Any]:
    """Wait until the device's memory is as it was; return how long that took."""
    began = time.monotonic()
    while True:
        now = gpu()
        waited = time.monotonic() - began
        if "error" in now or "error" in before:
            return {"said": now, "free": None}
        free = not set(now["processes"]) - set(before["processes"])
        free = free and now["used_mb"] - before["used_mb"] < FREE_MB
        if free or waited > FREE_LIMIT_S:
            return {"said": now, "free": free, "after_s": round(waited, 3)}
        time.sleep(0.01)


# ---- kills ---------------------------------------------------------------------------------------


class OnGpu(Holdfast):
    """The gang of `gpu_job.py`."""

    def __init__(self, *job: str) -> None:
        """Remember the job's arguments."""
        super().__init__()
        self._job = job

    def _command(self, out: Path, pause: float) -> tuple[str, ...]:
        return ("python", str(JOB), str(out), str(pause), *self._job)


def until(what: Callable[[], Any], limit: float, text: str) -> Any:
    """Return the first true answer; raises `TimeoutError` with `text`."""
    end = time.monotonic() + limit
    while True:
        answer = what()
        if answer:
            return answer
        if time.monotonic() > end:
            raise TimeoutError(f"{text}: not within {limit:g} s")
        time.sleep(0.005)


def stages(out: Path, rank: int, killed_at: float) -> dict[str, float]:
    """Return when the new process of a rank reached each stage, in seconds from the kill."""
    found = {}
    for line in (out / f"marks{rank}").read_text().splitlines():
        at, name, _ = line.split()
        if float(at) > killed_at:
            found.setdefault(name, round(float(at) - killed_at, 4))
    return found


def kill_again(out: Path, world: int, rank: int) -> dict[str, Any]:
    """Kill one rank once; return what it cost."""
    aim = figures.common_step(figures.read(out, world)) + CALM
    until(lambda: figures.common_step(figures.read(out, world)) >= aim, 20.0, f"step {aim}")
    pid = figures.pid_of(figures.read(out, world), rank)
    said = gpu()
    at = time.time()
    os.kill(pid, signal.SIGKILL)
    kill = until(
        lambda: figures.judge(figures.read(out, world), at, pid), 20.0, "no new step after the kill"
    )
    return {
        "first_new_step_s": round(kill.first_new_step_s, 4),
        "steps_repeated": kill.steps_repeated,
        "undisturbed_step_s": round(kill.step_s, 4),
        "stages_s": stages(out, rank, at),
        "gpu_before_kill": said,
    }


def kills(report: Callable[[dict[str, Any]], None], ask: argparse.Namespace) -> None:
    """Train, kill again and again, end it, and look at what is left on the device."""
    cuda = ask.device != "cpu"
    gloo = ask.part == "gloo"
    backend = "gloo" if gloo or not cuda else "cpu:gloo,cuda:nccl"
    size = ("256", "6") if gloo or not cuda else ("1024", "12")
    world, rank = (2, 1) if gloo else (1, 0)
    out = Path(ask.folder)
    before = gpu()
    found: dict[str, Any] = {"backend": backend, "ranks": world, "kills": [], "gpu_before": before}
    system = OnGpu(ask.device, backend, *size)
    try:
        began = time.monotonic()
        system.start(out, world, 0.02)
        until(lambda: figures.common_step(figures.read(out, world)) >= 1, 30.0, "first step")
        found["cold_start_s"] = round(time.monotonic() - began, 2)
        for _ in range(ask.kills):
            found["kills"].append(kill_again(out, world, rank))
            report(found)
    except (TimeoutError, OSError) as error:
        found["error"] = f"{type(error).__name__}: {error}"
        found["logs"] = logs(out)
    finally:
        found["gpu_training"] = gpu()
        system.stop()
    found["gpu_after"] = await_free(before)
    if found["kills"]:
        for name in ("first_new_step_s", "steps_repeated", "undisturbed_step_s"):
            found[f"median_{name}"] = statistics.median(one[name] for one in found["kills"])
    report(found)


def logs(out: Path) -> str:
    """Return the ends of what ranks and agent wrote."""
    ends = [
        f"== {path.relative_to(out)}\n{path.read_text(errors='replace')[-1500:]}"
        for path in sorted(out.rglob("*.log"))
    ]
    return "\n".join(ends)[-6000:]


# ---- all parts -----------------------------------------------------------------------------------


def run_part(name: str, ask: argparse.Namespace, limit: float) -> dict[str, Any]:
    """Run one part in a process of its own; whatever it started is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="holdfast-gpu-", ignore_cleanup_errors=True) as folder:
        found = Path(folder) / "found.json"
        command = [sys.executable, "-m", "bench.gpu_recovery", "--part", name, "--out", str(found)]
        command += ["--device", ask.device, "--kills", str(ask.kills), "--folder", folder]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        began = time.monotonic()
        with (Path(folder) / "said").open("wb") as said:
            child = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=said, stderr=said, start_new_session=True
            )
            try:
                problem = child.wait(timeout=limit) and f"exit {child.returncode}"
            except subprocess.TimeoutExpired:
                problem = f"stopped after {limit:.0f} s"
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        processes.kill_home(Path(folder) / "node")
        result = json.loads(found.read_text()) if found.exists() else {}
        if problem:
            result["problem"] = problem
            result["said"] = (Path(folder) / "said").read_text(errors="replace")[-3000:]
            result.setdefault("logs", logs(Path(folder)))
        return {**result, "took_s": round(time.monotonic() - began, 1)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all parts; 1 if one of them gave no figures."""
    parser = argparse.ArgumentParser(prog="bench.gpu_recovery", description=__doc__)
    parser.add_argument("--out", required=True, help="file for the JSON")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--limit-s", type=float, default=185.0, help="seconds for everything")
    parser.add_argument("--kills", type=int, default=3, help="of each kind")
    parser.add_argument("--part", choices=[*PARTS], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    ask = parser.parse_args(arguments)
    out = Path(ask.out)

    def report(found: dict[str, Any]) -> None:
        write_atomically(out, (json.dumps(found, indent=1) + "\n").encode())

    if ask.part is not None:
        if ask.part == "snapshots":
            report(overlap.measure(ask.device))
        else:
            kills(report, ask)
        return 0
    out.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + ask.limit_s
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "gpu": gpu(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "parts": {},
    }
    for name, limit in PARTS.items():
        left = end - time.monotonic()
        if left > 5.0:
            found["parts"][name] = run_part(name, ask, min(limit, left))
        else:
            found["parts"][name] = {"problem": "no time was left"}
        found["load"] = os.getloadavg()[0]
        report(found)
    print(json.dumps(found, indent=1))
    return 1 if any("problem" in one or "error" in one for one in found["parts"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
