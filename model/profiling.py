"""A profile of one step, whenever somebody asks: `kill -USR2` the rank."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class OnDemand:
    """Writes what torch's profiler saw of the step after each SIGUSR2, in Chrome's format."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._asked = False
        self._number = 0
        signal.signal(signal.SIGUSR2, self._ask)

    def _ask(self, *_: Any) -> None:
        self._asked = True

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Wrap a step."""
        if not self._asked:
            yield
            return
        self._asked = False
        from torch.profiler import profile

        with profile() as seen:
            yield
        self._number += 1
        seen.export_chrome_trace(str(self._folder / f"step-{self._number}.json"))
