"""Kernel-log text, from wherever it comes: files of any usual format, or /dev/kmsg itself.

Only lines that the kernel itself wrote count: a line that an application sent to the journal or
to /dev/kmsg may quote an XID, and quotes evict nobody.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

TAIL_MAX = 4 << 20  #: bytes of a log file that are read, from its end
RECORD_MAX = 8192  #: the kernel's own limit for one /dev/kmsg record

# What may stand before the kernel's own words. `uptime` and the other times are optional:
#   6,1234,5678901,-;               /dev/kmsg: priority and facility, sequence, microseconds
#   <6>[  123.456789]               dmesg --raw
#   [  123.456789]                  dmesg
#   [Sun Feb 23 16:24:18 2025]      dmesg --ctime
#   kern  :warn  : [  123.456789]   dmesg --decode, also with ISO or ctime stamps
#   Aug 29 16:20:11 host kernel: [12201.651836]   syslog, journalctl
_HEAD = re.compile(
    r"""(?: (?P<priority>\d+),\d+,(?P<usec>\d+),[^;]*;
          | (?: [A-Z][a-z]{2}\s+\d+\s[\d:]{8} | \d{4}-\d\d-\d\dT\S+ )\s\S+\s kernel:\s
            (?: \[\s*\d+\.\d+\]\s* )?
          | (?: kern\s*:\w+\s*:\s )?
            (?: <\d+> )?
            (?: \[\s*(?P<uptime>\d+\.\d+)\]\s*
              | \[(?P<ctime>[A-Z][a-z]{2}\s[A-Z][a-z]{2}\s[\s\d]\d\s[\d:]{8}\s\d{4})\]\s*
              | (?P<iso>\d{4}-\d\d-\d\dT[\d:]{8})[.,\d]*(?:Z|\+00:00)\s+
            )?
        )""",
    re.VERBOSE,
)
_BOOT = "Linux version "


class KernelLine(NamedTuple):
    """What the kernel said, and the stamp that stood before it."""

    said: str
    head: re.Match[str]


def read(path: str | None, root: str = "/") -> str:
    """Return kernel-log text: of a file if one is named, else of this machine's own buffer.

    Raises OSError where there is none or it may not be read (/dev/kmsg wants root or CAP_SYSLOG).
    """
    return _tail(Path(path)) if path else _kmsg(Path(root) / "dev/kmsg")


def booted_at(root: str = "/") -> float | None:
    """Return when this machine booted, in epoch seconds, to date lines that count from there."""
    stat = Path(root, "proc/stat")
    found = re.search(r"^btime (\d+)$", stat.read_text(), re.MULTILINE) if stat.exists() else None
    return float(found[1]) if found else None


def of_this_boot(lines: Iterable[str]) -> Iterator[KernelLine]:
    """Yield what the kernel said since the last start of it that the text shows."""
    said: list[KernelLine] = []
    for line in lines:
        one = parse(line)
        if one is None:
            continue
        if one.said.startswith(_BOOT):
            said.clear()
        said.append(one)
    yield from said


def parse(line: str) -> KernelLine | None:
    """Split one line into its stamp and the kernel's words; None if others wrote it."""
    head = _HEAD.match(line)
    if head is None or (head["priority"] and int(head["priority"]) >> 3 != 0):
        return None  # facility 0 is the kernel; anything else was written to /dev/kmsg by a program
    return KernelLine(line[head.end() :].strip(), head)


def said_at(line: KernelLine, booted: float | None) -> float | None:
    """Return when the kernel said it, in epoch seconds; None if the line does not tell.

    Syslog stamps name no year, so they tell nothing; nor does a stamp that is no moment.
    """
    try:
        return _said_at(line.head, booted)
    except (ValueError, OverflowError):  # digits that are no time of day, or far too many
        return None


def _said_at(head: re.Match[str], booted: float | None) -> float | None:
    if head["usec"] and booted is not None:
        return booted + int(head["usec"]) / 1e6
    if head["uptime"] and booted is not None:
        return booted + float(head["uptime"])
    if head["iso"]:
        import calendar  # here only: few logs have such stamps, and it loads slowly

        return float(calendar.timegm(time.strptime(head["iso"], "%Y-%m-%dT%H:%M:%S")))
    if head["ctime"]:
        return time.mktime(time.strptime(head["ctime"]))
    return None


def _tail(path: Path) -> str:
    with path.open("rb") as log:
        log.seek(0, os.SEEK_END)
        log.seek(max(0, log.tell() - TAIL_MAX))
        return log.read(TAIL_MAX).decode(errors="replace")


def _kmsg(path: Path) -> str:
    """Read every record that is in the kernel's ring buffer now."""
    records: list[bytes] = []
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            try:
                record = os.read(fd, RECORD_MAX)
            except BlockingIOError:  # the end, for now
                break
            except BrokenPipeError:  # overwritten while we read: the next read goes on behind it
                continue
            if not record:
                break
            records.append(record.splitlines()[0])  # continuation lines hold key=value pairs
    finally:
        os.close(fd)
    return b"\n".join(records).decode(errors="replace")
