"""One mutant before the tests that run its lines, or before the simulated soak: in a fork each."""

from __future__ import annotations

import logging
import os
import resource
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from orchestrator.runtime.kernel import die_with
from tests.mutants.mutant import Mutant
from tests.mutants.planting import plant

LIMIT = 600  #: seconds of CPU; a mutant that takes more hangs, and was noticed
SLEEPS = 7_200.0  #: seconds until a child that uses no CPU is given up, on however busy a machine


@dataclass(frozen=True, slots=True)
class Trial:
    """What noticed a mutant."""

    caught: bool
    by: str  #: a test, a broken promise, or that it hung


class Court:
    """A pytest plugin: when all tests are collected, tries mutants instead of running the tests."""

    def __init__(self, work: Callable[[Court], None]) -> None:
        """Remember what is to be done once the tests are there."""
        self._work = work
        self._items: dict[str, pytest.Item] = {}
        self._failed: list[str] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Do the work; nothing else runs."""
        self._items = {item.nodeid: item for item in session.items}
        self._work(self)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that failed."""
        if report.failed:
            self._failed.append(report.nodeid)

    def try_tests(self, mutant: Mutant, tests: list[str]) -> Trial:
        """Run tests in their order until one fails."""
        chosen = [self._items[test] for test in tests if test in self._items]
        if not chosen:
            return Trial(False, "no test runs it")
        found = forked(lambda: self._first_failed(mutant, chosen))
        return Trial(True, found) if found else Trial(False, f"{len(chosen)} tests pass")

    def _first_failed(self, mutant: Mutant, chosen: list[pytest.Item]) -> str:
        plant(mutant)
        for item, after in zip(chosen, [*chosen[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if self._failed:
                return self._failed[0]
        return ""


@dataclass
class Soak:
    """Plays schedules of the simulated soak until one breaks a promise; nothing is shrunk."""

    schedules: int
    played: int = field(default=0)

    def try_soak(self, mutant: Mutant) -> Trial:
        """Play the schedules with the mutant."""
        found = forked(lambda: self._first_broken(mutant))
        return Trial(True, found) if found else Trial(False, f"{self.schedules} schedules pass")

    def _first_broken(self, mutant: Mutant) -> str:
        from tests.simulation.promises import judge_seed

        plant(mutant)
        logging.disable(logging.CRITICAL)
        for seed in range(1, self.schedules + 1):
            try:
                broken = judge_seed(seed).broken
            except Exception as error:  # noqa: BLE001 - whatever a mutant raises, it is noticed
                return f"seed {seed}: {type(error).__name__}: {error}"
            if broken:
                return f"seed {seed}: {broken[0][:100]}"
        return ""


def forked(work: Callable[[], str], limit: float = SLEEPS) -> str:
    """Do something in a fork of this process; returns its word, or that it hung or raised."""
    reading, writing = os.pipe()
    parent, child = os.getpid(), os.fork()
    if child == 0:
        die_with(parent)
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 5))
        _tell(writing, work)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        if not select.select([pipe], [], [], limit)[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "it hangs"
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) == ERROR:
        raise RuntimeError(said)
    if os.waitstatus_to_exitcode(status) != 0:
        return f"its process ended with {os.waitstatus_to_exitcode(status)}"
    return said


ERROR = 3  #: exit code of a child that could not do its work


def _tell(writing: int, work: Callable[[], str]) -> None:
    """Do the work, say the word into the pipe, and end without any farewell."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    code = 0
    try:
        said = work()
    except BaseException as error:  # noqa: BLE001 - the parent tells it
        said, code = f"{type(error).__name__}: {error}", ERROR
    os.write(writing, said.encode()[:60_000])
    os._exit(code)
