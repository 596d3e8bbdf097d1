"""The daemon as a process: signals, the lease, systemd's notifications.

SIGTERM and SIGINT stop it cleanly and leave the training running: agents need no controller to
keep a gang alive. Only the holder of the lease acts; another daemon waits for it, ready.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from types import FrameType

from orchestrator.daemon.bells import Bells
from orchestrator.daemon.clock import Clock
from orchestrator.daemon.loop import Loop
from orchestrator.errors import TransientError
from orchestrator.ledger.api import Ledger, StaleTokenError

LOG = logging.getLogger("holdfast")
LEASE = timedelta(seconds=20)
RENEW_BELOW = 16.0  #: seconds left; more than a provider's call may take (actuators.hands)
ERROR_PAUSE = 1.0  #: seconds after a tick that failed
STOP_WAIT = 3.0  #: seconds that calls under way get to end before the lease is kept on purpose


class Lease:
    """The single-writer lease: who holds it acts. Its token grows with each holder."""

    def __init__(
        self, ledger: Ledger, holder: str, clock: Clock, is_dead: Callable[[str], bool]
    ) -> None:
        """Hold nothing yet. `is_dead` says of a holder's name that its process surely ended."""
        self._ledger, self._holder, self._clock = ledger, holder, clock
        self._is_dead = is_dead
        self._renewed = -LEASE.total_seconds()
        self.token = 0

    def take(self) -> bool:
        """Try to get the lease; one whose holder is surely dead is given back first."""
        held = self._ledger.holder()
        if held is not None and self._is_dead(held.name):
            self._ledger.release(held.token)
        asked = self._clock.elapsed()
        token = self._ledger.acquire(self._holder, LEASE, self._clock.now())
        if token is None:
            return False
        self.token, self._renewed = token, asked
        return True

    def renew(self) -> None:
        """Keep it; raises `StaleTokenError` if somebody else has it by now."""
        if self.left() > RENEW_BELOW:
            return
        asked = self._clock.elapsed()
        if not self._ledger.renew(self.token, LEASE, self._clock.now()):
            raise StaleTokenError(f"the lease with token {self.token} is no longer ours")
        self._renewed = asked

    def left(self) -> float:
        """Seconds until it may be somebody else's, counted from when the renewal was *asked*."""
        return self._renewed + LEASE.total_seconds() - self._clock.elapsed()

    def release(self) -> None:
        """Let another daemon take it at once."""
        self._ledger.release(self.token)


class Service:
    """Runs the loop while it holds the lease, until it is told to stop."""

    def __init__(self, loop: Loop, lease: Lease, bells: Callable[[], Bells]) -> None:
        """Wire it up; nothing runs yet."""
        self._loop, self._lease, self._bells = loop, lease, bells
        self._stop = threading.Event()

    def stop(self, *_: int | FrameType | None) -> None:
        """Ask it to stop; safe in a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Wait for the lease, reign, and begin again if it was lost."""
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)
        while not self._stop.is_set():
            try:
                if self._lease.take():
                    self._reign()
                else:
                    # Ready, as far as systemd is concerned: it would kill one that is not.
                    notify("READY=1\nWATCHDOG=1\nSTATUS=another daemon holds the lease; waiting")
                    self._stop.wait(1.0)
            except StaleTokenError as error:
                LOG.warning("lost the lease: %s", error)
            except TransientError as error:
                LOG.warning("the ledger does not answer: %s", error)
                self._stop.wait(ERROR_PAUSE)

    def _reign(self) -> None:
        token = self._lease.token
        LOG.info("this daemon holds the lease, token %d", token)
        self._loop.first_look(token)
        bells = self._bells()
        bells.start()
        notify(f"READY=1\nSTATUS=acting with token {token}")
        try:
            while not self._stop.is_set():
                self._turn(token)
                notify("WATCHDOG=1")
        finally:
            bells.stop()
        notify("STOPPING=1")
        self._leave()
        LOG.info("stopped; the training goes on")

    def _leave(self) -> None:
        """Give the lease back, unless a call is still under way: a provider compares no tokens.

        Then it ends with this process, which outlives its calls.
        """
        pools = self._loop.eyes.pools
        pools.close()
        if pools.wait(STOP_WAIT):
            self._lease.release()
        else:
            LOG.info("calls are still under way: the lease is not given back before they end")

    def _turn(self, token: int) -> None:
        try:
            self._lease.renew()
            self._loop.turn(token)
        except StaleTokenError:
            raise
        except TransientError as error:
            LOG.warning("this look failed, the next may not: %s", error)
            self._stop.wait(ERROR_PAUSE)
        except Exception:  # the one place: a bug in one look must not leave the fleet alone
            LOG.exception("this look failed")
            self._stop.wait(ERROR_PAUSE)


def notify(text: str) -> None:
    """Tell systemd (sd_notify(3)): a datagram to $NOTIFY_SOCKET, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        try:
            out.sendto(text.encode(), address)
        except OSError as error:
            LOG.debug("systemd does not listen: %s", error)
