"""What a run leaves for the next one: counters grow, and a flicker is told from a fault by time.

One small JSON file per check in a folder of the caller's, replaced whole. What belongs to another
boot is forgotten, since the kernel's and the driver's counters begin anew with it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from healthchecks.api import Check
from healthchecks.runner import Answer


class Memory(NamedTuple):
    """The folder, and the boot that its contents must be of."""

    folder: Path
    boot_id: str

    def recall(self, check: Check, answer: Answer, now: float) -> Answer:
        """Add what the last run left to the facts, and leave for the next one."""
        if check.remember is None or answer.facts is None:
            return answer
        before = self._read(check.name, now)
        facts = {**answer.facts, "before": before}
        self._write(check.name, now, check.remember(facts))
        return answer._replace(facts=facts)

    def _read(self, name: str, now: float) -> dict[str, Any] | None:
        try:
            body = json.loads((self.folder / f"{name}.json").read_text())
            if body["boot_id"] != self.boot_id or body["at"] > now:
                return None
            return {"seconds": now - body["at"], "kept": body["kept"]}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None  # never written, torn, or not ours: the first look

    def _write(self, name: str, now: float, kept: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.json"
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps({"boot_id": self.boot_id, "at": now, "kept": kept}))
        draft.replace(path)
