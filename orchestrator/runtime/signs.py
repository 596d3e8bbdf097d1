"""Signs of progress of a script that sends no heartbeats: its output, or files it writes.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

READ_MAX = 65_536  #: bytes of a log taken in one look; of a flood only the end is read
LINE_MAX = 2_000  #: characters of a line that are matched
FILES_MAX = 1_000  #: files of a glob that are compared


class OutputSteps:
    """Finds the job's pattern in one log as it grows."""

    def __init__(self, pattern: str, log: Path) -> None:
        """`pattern` names the step as group `step`, or as its first group, or not at all."""
        self._pattern, self._log = re.compile(pattern), log
        self._offset, self._rest = 0, ""
        self.last: int | None = None

    def look(self) -> int:
        """Return how many lines matched since the last look; `last` is the newest step."""
        *lines, self._rest = (self._rest + self._read()).split("\n")
        self._rest = self._rest[-LINE_MAX:]
        return sum(self._matches(line[:LINE_MAX]) for line in lines)

    def _read(self) -> str:
        try:
            with self._log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                self._offset = max(self._offset, size - READ_MAX)
                file.seek(self._offset)
                data = file.read(READ_MAX)
        except OSError:
            return ""
        self._offset += len(data)
        return data.decode(errors="replace")

    def _matches(self, line: str) -> bool:
        found = self._pattern.search(line)
        if found is None:
            return False
        named = "step" if "step" in self._pattern.groupindex else 1
        if self._pattern.groups:
            with suppress(ValueError, TypeError):
                self.last = int(found.group(named))
        return True


class FileSigns:
    """Notices that files under a glob were written or appeared."""

    def __init__(self, pattern: str, workdir: str) -> None:
        """`pattern` is relative to the job's working directory, unless absolute."""
        absolute = pattern.startswith("/")
        self._folder = Path("/" if absolute else workdir)
        self._pattern = pattern.lstrip("/")
        self._seen = self._look()

    def look(self) -> bool:
        """Say whether anything changed since the last look."""
        seen = self._look()
        changed = seen != self._seen
        self._seen = seen
        return changed

    def _look(self) -> frozenset[tuple[str, int, int]]:
        found: set[tuple[str, int, int]] = set()
        for path in self._folder.glob(self._pattern):
            with suppress(OSError):
                entry = path.stat()
                found.add((str(path), entry.st_mtime_ns, entry.st_size))
            if len(found) >= FILES_MAX:
                break
        return frozenset(found)
