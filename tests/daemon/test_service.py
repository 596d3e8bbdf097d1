from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.daemon import service
from orchestrator.daemon.bells import Bells
from orchestrator.daemon.clock import SystemClock
from orchestrator.daemon.service import LEASE, RENEW_BELOW, Lease, Service, notify
from orchestrator.errors import TransientError
from orchestrator.ledger.api import StaleTokenError
from tests.core.world import QUICK
from tests.daemon.house import HandClock, House, WilfulLedger


class Systemd:
    """The other end of $NOTIFY_SOCKET; acts when it hears something."""

    def __init__(self) -> None:
        self.name = f"@holdfast-test-{os.getpid()}-{threading.get_ident()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + self.name[1:])
        self._socket.settimeout(20)
        self.heard: list[str] = []

    def wait_for(self, words: str) -> str:
        while True:
            text = self._socket.recv(4096).decode()
            self.heard.append(text)
            if words in text:
                return text

    def rest(self) -> list[str]:
        self._socket.settimeout(0)
        try:
            while True:
                self.heard.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return self.heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    made = Systemd()
    monkeypatch.setenv("NOTIFY_SOCKET", made.name)
    monkeypatch.setattr(service, "ERROR_PAUSE", 0.01)
    monkeypatch.setattr(service, "STOP_WAIT", 0.2)
    kept = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    yield made
    signal.signal(signal.SIGTERM, kept[0])
    signal.signal(signal.SIGINT, kept[1])
    made.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    made.loop.clock = SystemClock()  # a service waits in real time
    yield made
    made.pools.close()


def wired(house: House) -> tuple[Service, Lease]:
    lease = Lease(house.ledger, "me", SystemClock(), lambda name: False)
    ring = house.inbox.put
    return Service(house.loop, lease, lambda: Bells(QUICK, ring)), lease


def run_until(run: Service, then: Callable[[], object]) -> None:
    """Run the service here, where signals arrive, and stop it after `then` has returned."""
    failures: list[Exception] = []

    def watch() -> None:
        try:
            then()
        except (AssertionError, OSError) as error:
            failures.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=watch)
    signal.signal(signal.SIGTERM, run.stop)
    watcher.start()
    run.run()
    watcher.join()
    assert not failures


def test_systemd_hears_ready_then_the_watchdog_then_stopping(
    house: House, systemd: Systemd
) -> None:
    run, _ = wired(house)
    run_until(run, lambda: systemd.wait_for("WATCHDOG=1"))
    heard = systemd.rest()
    assert heard[0].startswith("READY=1\nSTATUS=acting with token 1")
    assert heard[-1] == "STOPPING=1"
    assert set(heard[1:-1]) == {"WATCHDOG=1"}
    assert house.ledger.holder() is None, "the lease was given back"


def test_who_waits_for_the_lease_is_ready_and_alive_for_systemd(
    house: House, systemd: Systemd
) -> None:
    held = house.ledger.acquire("elsewhere/b/1/1", timedelta(hours=1), SystemClock().now())
    run, lease = wired(house)
    run_until(run, lambda: systemd.wait_for("waiting"))
    assert "READY=1" in systemd.heard[0]
    assert "WATCHDOG=1" in systemd.heard[0]
    assert lease.token == 0
    holder = house.ledger.holder()
    assert holder is not None
    assert holder.token == held


@pytest.mark.parametrize("call", ["snapshot", "record"])
def test_a_ledger_that_fails_at_first_is_asked_again(
    house: House, systemd: Systemd, call: str
) -> None:
    house.ledger.failing.append(call)
    run, _ = wired(house)
    run_until(run, lambda: systemd.wait_for("READY=1"))
    assert house.ledger.failing == []


def test_a_bug_in_one_look_does_not_end_the_daemon(house: House, systemd: Systemd) -> None:
    told: list[int] = []

    def tell(token: int, now: object) -> None:
        told.append(token)
        if len(told) == 1:
            raise ZeroDivisionError("a bug")

    house.tell = tell
    run, _ = wired(house)
    run_until(run, lambda: [systemd.wait_for("WATCHDOG=1") for _ in range(3)])
    assert len(told) > 1


def test_the_lease_is_kept_while_a_call_is_under_way(house: House, systemd: Systemd) -> None:
    release = threading.Event()
    run, lease = wired(house)

    def reboots() -> None:
        release.wait(20)

    def then() -> None:
        systemd.wait_for("READY=1")
        house.pools.submit("ash", "act Repair", reboots)

    run_until(run, then)
    holder = house.ledger.holder()
    release.set()
    assert holder is not None
    assert holder.token == lease.token


def test_a_daemon_that_lost_its_lease_begins_again_when_it_can(
    house: House, systemd: Systemd
) -> None:
    run, lease = wired(house)

    def then() -> None:
        systemd.wait_for("READY=1")
        house.ledger.release(lease.token)
        other = house.ledger.acquire("other", timedelta(seconds=0), SystemClock().now())
        systemd.wait_for(f"token {(other or 0) + 1}")

    run_until(run, then)
    assert lease.token == 3


def test_without_systemd_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    notify("READY=1")


# --- the lease ----------------------------------------------------------------------------------


class SlowLedger(WilfulLedger):
    """Answers late."""

    clock: HandClock

    def renew(self, token: int, ttl: timedelta, now: object) -> bool:
        self.clock.turn(4)
        return super().renew(token, ttl, self.clock.now())


def a_lease(ledger: WilfulLedger, clock: HandClock, *dead: str) -> Lease:
    return Lease(ledger, "me", clock, lambda name: name in dead)


def test_nothing_is_left_of_a_lease_that_was_never_taken() -> None:
    assert a_lease(WilfulLedger(), HandClock()).left() <= 0


def test_what_is_left_counts_from_when_it_was_asked_for() -> None:
    ledger, clock = SlowLedger(), HandClock()
    ledger.clock = clock
    lease = a_lease(ledger, clock)
    assert lease.take()
    assert lease.left() == LEASE.total_seconds()
    clock.turn(10)
    lease.renew()
    assert lease.left() == LEASE.total_seconds() - 4


def test_a_lease_is_renewed_only_when_enough_of_it_has_passed() -> None:
    ledger, clock = WilfulLedger(), HandClock()
    lease = a_lease(ledger, clock)
    lease.take()
    clock.turn(LEASE.total_seconds() - RENEW_BELOW - 0.01)
    lease.renew()
    assert "renew" not in ledger.calls
    clock.turn(0.02)
    lease.renew()
    assert ledger.calls.count("renew") == 1


def test_a_renewal_that_fails_counts_for_nothing() -> None:
    ledger, clock = WilfulLedger(), HandClock()
    lease = a_lease(ledger, clock)
    lease.take()
    clock.turn(10)
    ledger.failing.append("renew")
    with pytest.raises(TransientError):
        lease.renew()
    assert lease.left() == LEASE.total_seconds() - 10


def test_a_dead_holder_is_succeeded_at_once_and_others_are_waited_for() -> None:
    ledger, clock = WilfulLedger(), HandClock()
    ledger.acquire("late", LEASE, clock.now())
    assert not a_lease(ledger, clock).take()
    lease = a_lease(ledger, clock, "late")
    assert lease.take()
    assert lease.token == 2


def test_an_expired_lease_is_anybodys_and_its_holder_learns_it() -> None:
    ledger, clock = WilfulLedger(), HandClock()
    mine = a_lease(ledger, clock)
    mine.take()
    clock.turn(LEASE.total_seconds() + 1)
    assert mine.left() < 0
    assert Lease(ledger, "other", clock, lambda name: False).take()
    with pytest.raises(StaleTokenError):
        mine.renew()
    mine.release()
    holder = ledger.holder()
    assert holder is not None
    assert holder.name == "other", "a stale release takes nothing from anybody"
