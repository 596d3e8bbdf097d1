"""One checkpoint at a time is written beside the training; its failures never end the training.

Standard library only, Python 3.10; what is written is the caller's.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
from collections.abc import Callable

from orchestrator.errors import HoldfastError
from orchestrator.runtime.heartbeats import Heart
from orchestrator.runtime.vault import FencedError

LOG = logging.getLogger(__name__)
_SERIALISING = (OSError, RuntimeError, TypeError, ValueError, AttributeError, pickle.PicklingError)


class SaveTimes:
    """How long one save stops the training, and how long it takes until it is durable."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin now, at a boundary of a step."""
        self._clock = clock
        self._began = clock()
        self._stall: float | None = None

    def goes_on(self) -> None:
        """Note that the training goes on; if it is not called, it does when all is durable."""
        self._stall = self._clock() - self._began

    def told(self) -> dict[str, float]:
        """Return both in seconds, the save being durable now."""
        lag = self._clock() - self._began
        return {"stall_seconds": lag if self._stall is None else self._stall, "lag_seconds": lag}


class Saver:
    """Runs one piece of writing at a time in a thread of its own."""

    def __init__(self, heart: Heart) -> None:
        """Failures are told through `heart`."""
        self._heart = heart
        self._thread: threading.Thread | None = None
        self.fenced: FencedError | None = None  #: this writer stops for good
        self._retired = False

    @property
    def busy(self) -> bool:
        """True while a save is in flight."""
        return self._thread is not None and self._thread.is_alive()

    def retire(self) -> None:
        """Say nothing any more: the generation is over, and what is in flight will be void."""
        self._retired = True

    def start(self, step: int, write: Callable[[], None]) -> None:
        """Begin writing; the caller has waited for the save before."""
        if self.busy:
            raise ValueError("a save is in flight")
        # A daemon thread: a store that hangs must not keep a finished process alive for ever.
        name = f"save-{step}"
        self._thread = threading.Thread(
            target=self._write, args=(step, write), name=name, daemon=True
        )
        self._thread.start()

    def wait(self, limit_s: float) -> bool:
        """Wait for the save in flight; False if it is still in flight after `limit_s`."""
        if self._thread is not None:
            self._thread.join(limit_s)
        return not self.busy

    def fail(self, step: int, error: BaseException) -> None:
        """Tell that a save did not become a commit; training goes on."""
        LOG.warning("checkpoint of step %d was not committed: %s", step, error)
        if self._retired:
            return
        self._heart.event("commit-failed", step=step, text=f"{type(error).__name__}: {error}")

    def fence(self, step: int, error: FencedError) -> None:
        """Tell that this writer stops for good."""
        if self._retired:
            return
        self.fenced = error
        self._heart.event("fenced", step=step, text=str(error))

    def _write(self, step: int, write: Callable[[], None]) -> None:
        try:
            write()
        except FencedError as error:
            self.fence(step, error)
        except (HoldfastError, MemoryError, *_SERIALISING) as error:
            self.fail(step, error)
