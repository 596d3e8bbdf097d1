"""Runs the checks: each probe in a process of its own, all at once, each with a hard limit.

A probe may block in the kernel for ever (NVML on a dead GPU, a file on a dead server). Such a
process cannot even be killed, so nobody waits for it: it is sent SIGKILL, left behind, and its
check says UNKNOWN, "timed out". It holds none of our own streams, so whoever reads our output is
not held up either.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from healthchecks.api import CannotLookError, Check, Level, Settings
from healthchecks.findings import Coverage, Fault, Finding, Severity, worst

if TYPE_CHECKING:
    from healthchecks.memory import Memory

#: Every check: where it is defined, and under which name there.
CHECKS = {
    "nvml": "nvml:CHECK",
    "xid": "xid:CHECK",
    "sxid": "sxid:CHECK",
    "disk": "disk:CHECK",
    "clock": "clock:CHECK",
    "kernel": "kernel:CHECK",
    "mounts": "mounts:CHECK",
    "limits": "limits:CHECK",
    "edac": "edac:CHECK",
    "stuck": "stuck:CHECK",
    "smart": "smart:CHECK",
    "dns": "dns:CHECK",
    "infiniband": "infiniband:CHECK",
    "ecc": "gpu.memory:ECC",
    "remap": "gpu.memory:REMAP",
    "thermal": "gpu.heat:THERMAL",
    "clocks": "gpu.heat:CLOCKS",
    "brake": "gpu.heat:BRAKE",
    "power": "gpu.heat:POWER",
    "draw": "gpu.heat:DRAW",
    "pcie": "gpu.links:PCIE",
    "nvlink": "gpu.links:NVLINK",
    "fabric": "gpu.links:FABRIC",
    "recovery": "gpu.condition:RECOVERY",
    "modes": "gpu.condition:MODES",
    "inforom": "gpu.condition:INFOROM",
    "left-over": "gpu.condition:LEFT_OVER",
    "versions": "gpu.condition:VERSIONS",
    "inventory": "gpu.condition:INVENTORY",
    "gemm": "active.compute:GEMM",
    "memory-bandwidth": "active.compute:COPY",
    "repeat": "active.compute:REPEAT",
    "transfer": "active.movement:TRANSFER_CHECK",
    "all-reduce": "active.movement:ALL_REDUCE",
    "storage": "active.movement:STORAGE",
    "soak": "active.soak:CHECK",
}
NAMES = tuple(CHECKS)
ANSWER_MAX = 8 << 20  #: bytes of facts from one probe
ERRORS_MAX = 4096  #: bytes of its error output that are looked at, the last ones


class Answer(NamedTuple):
    """What came of one probe: its facts, or why there are none."""

    facts: dict[str, Any] | None
    failure: str
    cost: float  #: seconds


class Ran(NamedTuple):
    """One run: all findings, and what they cover."""

    findings: tuple[Finding, ...]
    coverage: Coverage
    facts: dict[str, dict[str, Any] | None]  #: what each check saw, None where it could not look


def load(names: Iterable[str], level: Level = Level.PASSIVE) -> tuple[Check, ...]:
    """Import the named checks; those above the level are left out. KeyError: no such check."""
    wanted = [CHECKS[name] for name in names]
    if level is Level.PASSIVE:
        wanted = [where for where in wanted if not where.startswith("active.")]
    if level is Level.ACTIVE:
        wanted = [where for where in wanted if not where.startswith("active.soak")]
    return tuple(map(_load, wanted))


def _load(where: str) -> Check:
    module, _, attribute = where.partition(":")
    check: Check = getattr(import_module(f"healthchecks.{module}"), attribute)
    return check


def run(
    checks: Sequence[Check],
    settings: Settings,
    *,
    boot_id: str = "",
    limit: float = 60.0,
    memory: Memory | None = None,
) -> Ran:
    """Run these checks; none gets more than its own limit, nor more than `limit` seconds.

    Checks with the same probe share one process and what it saw. With a `memory` they find what
    they left there in the run before.
    """
    skipped = {check.name: why for check in checks if (why := check.skip(settings))}
    wanted = [check for check in checks if check.name not in skipped]
    observed_at = time.time()
    findings: list[Finding] = []
    facts: dict[str, dict[str, Any] | None] = {}
    for check, answer in _answers(wanted, settings, limit):
        if memory is not None:
            answer = memory.recall(check, answer, observed_at)
        facts[check.name] = answer.facts
        for said in conclude(check, answer, settings):
            stamped = said._replace(
                observed_at=observed_at, boot_id=boot_id, cost=round(answer.cost, 4)
            )
            findings.append(stamped)
    return Ran(tuple(findings), cover(checks, findings, skipped), facts)


def _answers(
    checks: Sequence[Check], settings: Settings, limit: float
) -> Iterator[tuple[Check, Answer]]:
    """Ask each different probe once, with the longest limit of its checks."""
    first: dict[Any, Check] = {}
    for check in checks:
        known = first.setdefault(check.probe, check)
        first[check.probe] = known._replace(limit=max(known.limit, check.limit))
    quiet = [one for one in first.values() if one.level is Level.PASSIVE]
    answers = dict(zip([one.probe for one in quiet], ask(quiet, settings, limit), strict=True))
    for one in first.values():
        if one.level is not Level.PASSIVE:  # alone: figures of checks side by side mean nothing
            answers[one.probe] = next(ask([one], settings, limit))
    for check in checks:
        yield check, answers[check.probe]


def look(checks: Sequence[Check], settings: Settings, limit: float) -> dict[str, Any]:
    """Return what each check's probe saw, None where it could not look or has no business here."""
    wanted = [check for check in checks if check.skip(settings) is None]
    return {check.name: answer.facts for check, answer in _answers(wanted, settings, limit)}


def conclude(check: Check, answer: Answer, settings: Settings) -> Sequence[Finding]:
    """Judge the facts; without facts the check does not know, and says why."""
    if answer.facts is not None:
        return check.judge(answer.facts, settings)
    return [Finding(check.name, "host", Severity.UNKNOWN, Fault.CONFIG, answer.failure)]


def cover(
    checks: Sequence[Check], findings: Sequence[Finding], skipped: dict[str, str]
) -> Coverage:
    """Account for every expected check: passed, failed, or skipped with the reason."""
    passed, failed, why = [], [], dict(skipped)
    for check in checks:
        said = [one for one in findings if one.check == check.name]
        bad = worst(one.severity for one in said if one.severity is not Severity.UNKNOWN)
        if bad is not Severity.OK:
            failed.append(check.name)
        elif any(one.severity is Severity.OK for one in said):
            passed.append(check.name)
        elif check.name not in why:
            why[check.name] = said[0].evidence if said else "it said nothing"
    return Coverage(tuple(check.name for check in checks), tuple(passed), tuple(failed), why)


def this_boot(root: str = "/") -> str:
    """Return the kernel's name for the present boot, or "" where it has none."""
    path = Path(root, "proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def ask(checks: Sequence[Check], settings: Settings, limit: float) -> Iterator[Answer]:
    """Probe all at once, in one process each; yield their answers in the order of `checks`."""
    began = time.monotonic()
    started = [(check, *_start(check, settings)) for check in checks]
    for check, pid, pipe, errors in started:
        deadline = began + min(check.limit, limit)
        answer, ended_at = _hear(pipe, deadline)
        os.close(pipe)
        said = _last_line(errors)
        if ended_at is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, os.WNOHANG)  # it may never end: do not wait
            yield Answer(None, f"timed out after {min(check.limit, limit):g} s", deadline - began)
        else:
            _, status = os.waitpid(pid, 0)
            yield _read(answer, os.waitstatus_to_exitcode(status), said, ended_at - began)


def _start(check: Check, settings: Settings) -> tuple[int, int, int]:
    """Fork a probe; return its process id, the pipe of its answer, and the file of its errors.

    Libraries chatter on the error output (torch warns of names that it cannot look up): that must
    not get into the answer.
    """
    reader, writer = os.pipe()
    errors = os.memfd_create("errors")
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader, errors
    code = 1
    try:  # the child: it never returns from here
        _take_streams(errors)
        _say(writer, _probe(check, settings))
        code = 0
    finally:
        if error := sys.exception():  # nobody foresaw it
            os.write(2, f"{type(error).__name__}: {error}".encode())
        os._exit(code)


def _take_streams(errors: int) -> None:
    """Let go of the caller's streams: a probe that hangs must not hold them open."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(errors, 2)


def _probe(check: Check, settings: Settings) -> dict[str, Any]:
    began = time.monotonic()
    try:
        facts = check.probe(settings)
    except (OSError, CannotLookError) as error:
        return {"failure": str(error)}
    return {"facts": facts, "cost": time.monotonic() - began}


def _say(writer: int, body: dict[str, Any]) -> None:
    with os.fdopen(writer, "wb") as out:
        out.write(json.dumps(body).encode())


def _hear(pipe: int, deadline: float) -> tuple[bytes, float | None]:
    """Read until the other side ends, and say when that was; None if the deadline came first."""
    heard = bytearray()
    while (left := deadline - time.monotonic()) > 0 and len(heard) <= ANSWER_MAX:
        if select.select([pipe], [], [], left)[0]:
            piece = os.read(pipe, 65536)
            if not piece:
                return bytes(heard), time.monotonic()
            heard += piece
    return bytes(heard), None


def _last_line(errors: int) -> str:
    """Return the last line of a probe's error output, and let go of it."""
    size = os.fstat(errors).st_size
    tail = os.pread(errors, ERRORS_MAX, max(0, size - ERRORS_MAX))
    os.close(errors)
    return "".join(tail.decode(errors="replace").strip().splitlines()[-1:])


def _read(answer: bytes, exit_code: int, said: str, cost: float) -> Answer:
    if exit_code == 0:
        body = json.loads(answer)
        return Answer(body.get("facts"), body.get("failure", ""), body.get("cost", cost))
    how = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
    return Answer(None, f"the probe ended by {how}" + (f": {said}" if said else ""), cost)
