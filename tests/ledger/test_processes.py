"""Several processes at one ledger: who may write, who waits, and what a kill leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from orchestrator.core.nodes import NodeName
from orchestrator.core.observations import OrderKind
from orchestrator.ledger import open_ledger

NOW = datetime.now(UTC)

BEGIN = """
import sys
from datetime import UTC, datetime, timedelta
from orchestrator.core.decisions import Enlist, SetCordon
from orchestrator.core.nodes import *
from orchestrator.core.observations import MachineSeen, OrderKind, Power
from orchestrator.ledger import StaleTokenError, open_ledger
ledger = open_ledger(sys.argv[1])
now = datetime.now(UTC)
"""
WRITER = """
token = ledger.acquire("a", timedelta(seconds=20), now)
seen = MachineSeen(NodeName("n"), "c", Machine(MachineId("m")), Power.RUNNING, "b")
ledger.apply(token, Enlist(ClusterName("c"), "p", seen, "new"), now)
number = 0
try:
    while True:
        number += 1
        cordon = Cordon("operator:w", str(number), now)
        ledger.apply(token, SetCordon(NodeName("n"), cordon, str(number)), now)
        if number == 3:
            print("writing", flush=True)
            wait()
except StaleTokenError:
    sys.exit(3)
"""
STALE = 3
PACED = f"wait = input\n{WRITER}"  # between two writes, where a freeze holds no lock of SQLite
WRITER = f"wait = int\n{WRITER}"
PERSON = """
for number in range(20):
    ledger.order(OrderKind.CORDON, "n", "ann", str(number), {}, now)
print("asked", flush=True)
"""
OPENER = 'print("open" if ledger.holder() is None else "held", flush=True)\n'


@contextmanager
def process(script: str, url: str) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", BEGIN + script, url]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def says(child: subprocess.Popen[str]) -> str:
    out: IO[str] | None = child.stdout
    assert out is not None
    return out.readline().strip()


def agree(url: str) -> int:
    """Return how often the node was cordoned; state and story must say the same."""
    ledger = open_ledger(url)
    (node,) = ledger.snapshot(NOW, ()).nodes.values()
    told = [one for one in ledger.story("n", limit=100_000) if one.kind == "SetCordon"]
    ledger.close()
    assert node.cordon is not None
    assert told[-1].text.endswith(f": {node.cordon.reason}")
    assert len(told) == int(node.cordon.reason)
    return len(told)


def test_a_controller_that_was_frozen_writes_nothing_after_another_took_over(
    stored_url: str,
) -> None:
    with process(PACED, stored_url) as frozen:
        assert says(frozen) == "writing"
        frozen.send_signal(signal.SIGSTOP)
        other = open_ledger(stored_url)
        token = other.acquire("b", timedelta(hours=1), datetime.now(UTC) + timedelta(seconds=30))
        before = agree(stored_url)
        frozen.send_signal(signal.SIGCONT)
        frozen.communicate("go on\n", timeout=60)
        assert frozen.returncode == STALE
        held = other.holder()
        assert held is not None
        assert (held.name, held.token) == ("b", token)
        assert agree(stored_url) == before
        other.close()


def test_a_writer_killed_in_the_middle_leaves_state_and_story_agreeing(stored_url: str) -> None:
    with process(WRITER, stored_url) as writer:
        assert says(writer) == "writing"
        writer.kill()
        writer.wait()
    assert agree(stored_url) >= 3


def test_people_give_orders_while_the_daemon_writes(stored_url: str) -> None:
    with process(WRITER, stored_url) as daemon, process(PERSON, stored_url) as person:
        assert says(daemon) == "writing"
        assert says(person) == "asked"
    ledger = open_ledger(stored_url)
    assert [one.reason for one in ledger.orders_open()] == [str(number) for number in range(20)]
    asked = [one for one in ledger.story("n", limit=100_000) if one.kind == "Ordered"]
    assert [one.data["order"] for one in asked] == [one.number for one in ledger.orders_open()]
    ledger.close()


def test_processes_that_find_no_ledger_make_one_together(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'ledger.db'}"
    with process(OPENER, url) as one, process(OPENER, url) as two:
        assert [says(one), says(two)] == ["open", "open"]


def test_an_order_is_there_for_whoever_opens_the_ledger_next(stored_url: str) -> None:
    first = open_ledger(stored_url)
    number = first.order(OrderKind.DRAIN, NodeName("n"), "ann", "fans", {"a": [1]}, NOW)
    first.close()
    second = open_ledger(stored_url)
    (order,) = second.orders_open()
    assert (order.number, order.kind, order.body) == (number, OrderKind.DRAIN, {"a": [1]})
    second.close()
