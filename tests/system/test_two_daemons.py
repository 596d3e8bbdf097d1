"""A daemon that was stopped and comes back is a stranger: nothing of what it meant to do lands."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from orchestrator.runtime.place import read_token
from orchestrator.runtime.register import Register
from orchestrator.runtime.store import open_store
from tests.system.fleet import LocalFleet

pytestmark = pytest.mark.system

SCRIPT = """
import time
from orchestrator.runtime import training
run = training.join()
for step in range(1, 100_000):
    time.sleep(0.05)
    run.heartbeat(step, loss=1.0)
"""


def test_nothing_of_a_daemon_that_lost_its_lease_lands(
    make_fleet: Callable[..., LocalFleet],
) -> None:
    fleet = make_fleet()
    work = fleet.folder / "work"
    work.mkdir()
    (work / "train.py").write_text(SCRIPT)
    first = fleet.start_daemon()
    fleet.submit(
        name="long",
        command=["python", "train.py"],
        workdir=str(work),
        nodes=2,
        progress="heartbeat",
        register=str(fleet.folder / "register"),
        stop_grace="1s",
    )
    ranks = fleet.until("two ranks run", lambda: len(r := fleet.ranks("long")) == 2 and r)
    os.kill(first.pid, signal.SIGSTOP)
    fleet.start_daemon()
    fleet.until(
        "the second daemon acts, once the lease has run out",
        lambda: len(fleet.events("daemon-started")) == 2,
        limit=60,
    )
    os.kill(first.pid, signal.SIGCONT)
    log = fleet.folder / "daemon.log"
    fleet.until("the first one notices", lambda: "lost the lease" in log.read_text())
    tokens = [one.intent.token for one in fleet.ledger.settlements()]
    after = tokens[tokens.index(2) :] if 2 in tokens else []
    assert set(after) <= {2}  # no intent of the first one after the second began
    homes = {rank.home for rank in ranks}
    fleet.until("the nodes know the second", lambda: {read_token(home) for home in homes} == {2})
    lineage = Register(open_store(str(fleet.folder / "register"))).read()
    assert lineage.attempt == 1
    assert not lineage.void
    now = fleet.ranks("long")
    assert [one.pid for one in now] == [one.pid for one in ranks]  # nobody touched the gang
    stopped = fleet.holdfast("job", "stop", "long", "--yes", "--reason", "enough")
    assert stopped.returncode == 0, stopped.stderr
    fleet.until("nothing is left", lambda: not fleet.survivors(), limit=60)
