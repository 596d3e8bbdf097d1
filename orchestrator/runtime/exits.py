"""How a rank ended, in a form that is equal for equal failures.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

VERIFICATION = 92  #: exit code: the checkpoint named by HOLDFAST_RESUME did not verify
FENCED = 93  #: exit code: another attempt or generation rules; not a failure of the job
MEMORY = 94  #: exit code: a state in memory was not what its head attests; the vault's is next
TAIL = 8_192  #: bytes of a log that are searched for its last line
TEXT_MAX = 200

# Order matters: a time stamp is made of digits, an address begins with one.
_NOISE = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"), "TIME"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b"), "ADDRESS"),
    (re.compile(r"\d+"), "N"),
)


def fingerprint(code: int, log: Path) -> str:
    """Describe an exit: "signal 9", or "exit 1: " and the last line of the log, normalised."""
    if code < 0:
        return f"signal {-code}"
    line = normalised(last_line(log))
    return f"exit {code}: {line}" if line else f"exit {code}"


def normalised(line: str) -> str:
    """Return a line without what differs between two occurrences of the same failure."""
    for pattern, word in _NOISE:
        line = pattern.sub(word, line)
    return " ".join(line.split())[:TEXT_MAX]


def last_line(log: Path) -> str:
    """Return the last line of a log that is not empty; "" if there is none."""
    lines = [line.strip() for line in tail(log).splitlines()]
    return next((line for line in reversed(lines) if line), "")


def tail(log: Path, size: int = TAIL) -> str:
    """Return the end of a log."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - size))
            return file.read(size).decode(errors="replace")
    except OSError:
        return ""
