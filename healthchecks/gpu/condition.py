"""The condition a GPU was left in: modes, left-over work, what the driver wants, who it is.

None of this is broken hardware but for a corrupted InfoROM; a job on such a node fails or is slow
all the same. Left-over processes are judged only where the caller says the node is idle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from healthchecks.api import Settings
from healthchecks.findings import Fault, Severity
from healthchecks.gpu.judging import Wrong, check

MIB = 1 << 20
LEFT_OVER_MAX = 512 * MIB  #: used without a process, the driver's reserve apart
DEFAULT_MODE = 0  #: NVML_COMPUTEMODE_DEFAULT
CORRUPTED = 14  #: NVML_ERROR_CORRUPTED_INFOROM
WARNING, CRITICAL, CONFIG = Severity.WARNING, Severity.CRITICAL, Fault.CONFIG
#: NVML's recovery actions: name, severity, remedy. Sources: nvml.h; Xid 154.
ACTIONS = {
    1: ("GPU reset", CRITICAL, "reset"),
    2: ("node reboot", CRITICAL, "reboot"),
    3: ("drain P2P", WARNING, "reset"),
    4: ("drain and reset", WARNING, "reset"),
    6: ("bus reset", CRITICAL, "reboot"),
    7: ("system reboot", CRITICAL, "reboot"),
}


def recovery(gpu: dict[str, Any], settings: Settings) -> Iterator[Wrong]:
    """Say what the driver itself wants done."""
    del settings
    wish = gpu.get("recovery_action", 0)
    if wish:
        name, severity, remedy = ACTIONS.get(wish, (f"action {wish}", WARNING, "reset"))
        yield Wrong(severity, remedy, f"the driver asks for: {name}", remedy)


def modes(gpu: dict[str, Any], settings: Settings) -> Iterator[Wrong]:
    """Judge settings that a former user may have changed."""
    del settings
    if gpu.get("persistence") == 0:
        yield Wrong(WARNING, "persistence", "persistence mode is off", "nvidia-smi -pm 1", CONFIG)
    current, pending = gpu.get("mig", (0, 0))
    if current or pending:
        word = "on" if current else "pending"
        yield Wrong(WARNING, "mig", f"MIG is {word}", "nvidia-smi -mig 0", CONFIG)
    if gpu.get("compute_mode", DEFAULT_MODE) != DEFAULT_MODE:
        evidence = f"compute mode {gpu['compute_mode']}, the default is {DEFAULT_MODE}"
        yield Wrong(WARNING, "compute-mode", evidence, "nvidia-smi -c 0", CONFIG)


def inforom(gpu: dict[str, Any], settings: Settings) -> Iterator[Wrong]:
    """Judge the board's own memory of itself."""
    del settings
    if gpu["failed"].get("inforom_valid") == CORRUPTED:
        yield Wrong(WARNING, "corrupted", "the InfoROM is corrupted", "replace")


def left_over(gpu: dict[str, Any], settings: Settings) -> Iterator[Wrong]:
    """Judge what an idle GPU still holds."""
    if not settings.idle:
        return
    if pids := gpu.get("processes"):
        evidence = f"processes on an idle node: {', '.join(map(str, pids[:8]))}"
        yield Wrong(WARNING, "process", evidence, "kill, then reset", CONFIG)
    elif "memory" in gpu:
        held = gpu["memory"]["used"] - _reserved(gpu["memory"])
        if held > LEFT_OVER_MAX:
            evidence = f"{held // MIB} MiB held by no process"
            yield Wrong(WARNING, "memory", evidence, "reset")


def _reserved(memory: dict[str, int]) -> int:
    """Return the driver's own share: NVML counts it as used in one version, apart in the other."""
    return memory["reserved"] if memory["used"] >= memory["reserved"] else 0


def skew(facts: dict[str, Any], settings: Settings) -> Iterator[tuple[str, Wrong]]:
    """Compare versions with the cluster's, and the GPUs of the node with each other."""
    for name in ("driver", "cuda"):
        wanted, seen = settings.expected(name), facts[name]
        if wanted is not None and str(seen) != str(wanted):
            evidence = f"{name} {seen}, the cluster has {wanted}"
            yield "host", Wrong(WARNING, name, evidence, "install the cluster's version", CONFIG)
    for name in ("vbios", "name"):
        seen_by = {gpu["index"]: gpu[name] for gpu in facts["gpus"] if name in gpu}
        wanted = settings.expected(name) or _usual(list(seen_by.values()))
        for index, seen in seen_by.items():
            if seen != wanted:
                evidence = f"{name} {seen}, the others have {wanted}"
                yield f"gpu{index}", Wrong(WARNING, name, evidence, "", CONFIG)


def _usual(values: list[str]) -> str | None:
    return Counter(values).most_common(1)[0][0] if values else None


def inventory(facts: dict[str, Any], settings: Settings) -> Iterator[tuple[str, Wrong]]:
    """Compare the boards with those that passed acceptance: a swapped one is a new one."""
    for name in ("serial", "uuid"):
        wanted = settings.expected(f"gpu_{name}s")
        for gpu in facts["gpus"] if wanted else ():
            if name in gpu and gpu[name] not in wanted:
                evidence = f"{name} {gpu[name]} is not of those that passed acceptance"
                yield f"gpu{gpu['index']}", Wrong(WARNING, name, evidence, "accept again", CONFIG)


def nothing(*_: object) -> Iterator[Wrong]:
    """Say nothing of one GPU alone."""
    return iter(())


RECOVERY = check("recovery", recovery, fine="the driver asks for nothing")
MODES = check("modes", modes, fine="persistent, no MIG, default compute mode")
INFOROM = check("inforom", inforom, fine="InfoROM valid")
LEFT_OVER = check("left-over", left_over, fine="nothing left over, or not idle")
VERSIONS = check("versions", nothing, fine="versions agree", together=skew)
INVENTORY = check("inventory", nothing, fine="the boards that are known", together=inventory)
