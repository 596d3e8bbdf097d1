"""Whether a node has what Holdfast needs: one short program on it tells, rules here judge.

`probe` touches the node and changes nothing there; `judge` thinks. What a node says is untrusted:
anything that is not as expected is a finding, never an exception.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchestrator.engines.footing import Footing
from orchestrator.errors import HoldfastError
from orchestrator.transports.ssh.hostkeys import ChangedHostKeyError, UnknownHostKeyError

PROBE_LIMIT = 15.0  #: seconds
PYTHON_MIN = (3, 10)
FREE_MIN = 1 << 30  #: bytes: logs of ranks need room
CLOCK_OFF = 2.0  #: seconds beyond the round trip that are worth a word
SAYS_MAX = 300  #: characters of what a node says
SLOW = 2.0  #: seconds for one answer

#: Runs on the node. Standard library of Python 3, of any version that can tell its version.
PROBE = """
import json, os, shutil, sys, time
folder = sys.argv[1]
there = folder
while not os.path.lexists(there) and there != os.path.dirname(there):
    there = os.path.dirname(there)
seen = os.lstat(folder) if os.path.lexists(folder) else None
disk = os.statvfs(there)
print(json.dumps({
    "python": list(sys.version_info[:2]),
    "clock": time.time(),
    "free": disk.f_bavail * disk.f_frsize,
    "inodes": disk.f_favail,
    "files": disk.f_files,
    "writable": os.access(there, os.W_OK | os.X_OK),
    "private": seen is None or (seen.st_uid == os.getuid() and not seen.st_mode & 0o022
                                and os.path.isdir(folder) and not os.path.islink(folder)),
    "made": seen is not None,
    "programs": {name: shutil.which(name) is not None for name in ("timeout", "env", "test")},
    "gpus": len([name for name in os.listdir("/dev")
                 if name.startswith("nvidia") and name[6:].isdigit()]),
}))
"""


class Verdict(StrEnum):
    """How a finding is meant."""

    OK = "ok"
    WARN = "warn"  #: works, but somebody should know
    BAD = "bad"  #: no job can run there


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of what was found about a node."""

    node: str
    check: str
    verdict: Verdict
    says: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a node said, and how long that took."""

    said: dict[str, Any]
    seconds: float
    midway: float  #: our clock, epoch seconds, in the middle of the round trip


def probe(footing: Footing, node: str) -> Seen | HoldfastError:
    """Ask a node; return the error if it cannot be asked."""
    began, wall = time.monotonic(), time.time()
    argv = [footing.python, "-c", PROBE, str(footing.folder)]
    try:
        ended = footing.run(node)(argv, limit=PROBE_LIMIT)
    except HoldfastError as error:
        return error
    seconds = time.monotonic() - began
    try:
        said = json.loads(ended.out)
    except (ValueError, RecursionError):
        said = None
    if ended.code != 0 or not isinstance(said, dict):
        words = _plain((ended.err or ended.out).decode(errors="replace"))
        return HoldfastError(f"{node}: {footing.python} ended with {ended.code}: {words}")
    return Seen(said, seconds, wall + seconds / 2)


def judge(node: str, seen: Seen | HoldfastError, gpus: int) -> list[Finding]:
    """Return what is to be said of a node that should have `gpus` accelerators."""
    if isinstance(seen, HoldfastError):
        return [Finding(node, "reach", Verdict.BAD, _plain(str(seen)), _way_in(seen))]
    findings = []
    for check, rule in RULES.items():
        try:
            verdict, says, remedy = rule(seen, gpus)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            verdict, says = Verdict.BAD, f"the answer cannot be read: {error!r}"
            remedy = "look at the node"
        findings.append(Finding(node, check, verdict, _plain(says), remedy if says else ""))
    return findings


Said = tuple[Verdict, str, str]


def _reach(seen: Seen, _: int) -> Said:
    slow = seen.seconds > SLOW
    remedy = "look at its network and load, or at its user's start-up files" if slow else ""
    return Verdict.WARN if slow else Verdict.OK, f"answered in {seen.seconds:.2f} s", remedy


def _python(seen: Seen, _: int) -> Said:
    major, minor = (int(one) for one in seen.said["python"])
    if (major, minor) >= PYTHON_MIN:
        return Verdict.OK, f"Python {major}.{minor}", ""
    wanted = ".".join(map(str, PYTHON_MIN))
    return Verdict.BAD, f"Python {major}.{minor}; {wanted} is needed", "set `python` of the cluster"


def _programs(seen: Seen, _: int) -> Said:
    lacks = sorted(name for name, there in dict(seen.said["programs"]).items() if not there)
    if not lacks:
        return Verdict.OK, "all there", ""
    return Verdict.BAD, f"not found: {', '.join(lacks)}", "install coreutils there"


def _folder(seen: Seen, _: int) -> Said:
    if not seen.said["private"]:
        remedy = "remove it, or name another `folder`: whoever can write there runs our programs"
        return Verdict.BAD, "not a private folder of our user", remedy
    if not seen.said["writable"]:
        return Verdict.BAD, "cannot be written", "name another `folder` of the cluster"
    return Verdict.OK, "ours" if seen.said["made"] else "can be made", ""


def _disk(seen: Seen, _: int) -> Said:
    free, inodes, files = (int(seen.said[key]) for key in ("free", "inodes", "files"))
    says = f"{free / (1 << 30):.1f} GiB free"
    if free < FREE_MIN:
        return Verdict.BAD, says, "free some room: ranks' logs need it"
    if files and inodes < 1000:
        return Verdict.BAD, f"{inodes} inodes left", "remove files there"
    return Verdict.OK, says, ""


def _clock(seen: Seen, _: int) -> Said:
    off = float(seen.said["clock"]) - seen.midway
    beyond = abs(off) - seen.seconds / 2
    if beyond <= CLOCK_OFF:
        return Verdict.OK, "as ours", ""
    side = "ahead of" if off > 0 else "behind"
    remedy = "set its clock (chrony, ntp): nothing is decided by it, but logs mislead"
    return Verdict.WARN, f"{abs(off):.0f} s {side} ours", remedy


def _gpus(seen: Seen, gpus: int) -> Said:
    found = int(seen.said["gpus"])
    if found == gpus:
        return Verdict.OK, f"{found} devices", ""
    worse = Verdict.BAD if found < gpus else Verdict.WARN
    return worse, f"{found} devices, {gpus} expected", "see `accelerators`, and the node's driver"


#: In the order in which they are told.
RULES: dict[str, Callable[[Seen, int], Said]] = {
    "reach": _reach,
    "python": _python,
    "programs": _programs,
    "folder": _folder,
    "disk": _disk,
    "clock": _clock,
    "gpus": _gpus,
}


def _way_in(error: HoldfastError) -> str:
    match error:
        case UnknownHostKeyError():
            return "compare that fingerprint with the host's console, then pin it in `host_keys`"
        case ChangedHostKeyError():
            return "replaced or intercepted: ask who rents it to you before you pin the new key"
        case _:
            return "log in by hand with the same user and key"


def _plain(text: str) -> str:
    return "".join(one if one.isprintable() else " " for one in text).strip()[:SAYS_MAX]
