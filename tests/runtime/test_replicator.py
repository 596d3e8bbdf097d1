"""The agent of the first member has checkpoints copied by a process of its own."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runtime import packets
from orchestrator.runtime.register import Register
from orchestrator.runtime.replication import last_receipt
from orchestrator.runtime.replicator import Errand, serve
from orchestrator.runtime.reports import AgentReport, Note
from orchestrator.runtime.spec import Replicate
from orchestrator.runtime.store import open_store
from orchestrator.runtime.vault import open_vault
from tests.runtime.gangs import cluster
from tests.runtime.trees import marked, wait_for
from tests.runtime.vaults import Story


def notes(report: AgentReport, kind: str) -> list[Note]:
    return [note for note in report.notes if note.kind == kind]


def pid_of_replicator(home: Path) -> int | None:
    from orchestrator.runtime.place import Place

    for process in marked(Place(home, "j.1")):
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        if b"orchestrator.runtime.replicator" in words:
            return process.pid
    return None


@pytest.mark.system
def test_the_first_member_s_agent_keeps_copies_and_starts_the_copier_again(tmp_path: Path) -> None:
    one = Story(open_store(str(tmp_path / "vault")))
    spec: dict[str, Any] = {
        "checkpoints": str(tmp_path / "vault"),
        "replicas": (str(tmp_path / "copies"), "/proc/nowhere"),
        "replicate": Replicate(rpo=1.0),
        "python": sys.executable,
    }
    with cluster(tmp_path, register=False, **spec) as gang:
        gang.register_url = str(tmp_path / "vault")
        gang.fence(1)
        gang.start("a", "b")
        gang.give(gang.grant(1, "ab"), to="ab")
        gang.wait_running("ab", 1)
        lineage = gang.lineage()
        assert lineage.latest is not None
        first, second = (member.node for member in lineage.latest.members)
        commit = one.commit(7)
        said = gang.wait_report(first, lambda report: bool(notes(report, "replica-behind")))
        assert "/proc/nowhere" in notes(said, "replica-behind")[-1].text
        replica = open_store(str(tmp_path / "copies"))
        wait_for(lambda: (last := last_receipt(replica)) and last.step == 7, limit=20)
        assert Register(replica).read().commits == (commit,)

        pid = wait_for(lambda: pid_of_replicator(gang.home(first)))
        assert pid_of_replicator(gang.home(second)) is None
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: pid_of_replicator(gang.home(first)) not in (None, pid), limit=60)
        one.commit(8)
        wait_for(lambda: (last := last_receipt(replica)) and last.step == 8, limit=20)
        said = gang.report(first)
        copied, behind = notes(said, "replicated"), notes(said, "replica-behind")
        assert all(
            note.number < behind[-1].number for note in copied
        )  # one is behind: no all-clear
        (gang.work / "finish").touch()


def test_a_replica_that_hangs_keeps_no_other(tmp_path: Path) -> None:
    one = Story(open_store(str(tmp_path / "vault")))
    one.fence()
    one.generation()
    one.commit(1)
    hangs = tmp_path / "hangs"
    hangs.mkdir()
    (hangs / "commits").mkdir()
    os.mkfifo(hangs / "commits" / "00000001.json")
    ours, theirs = packets.pair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        errand = Errand(
            checkpoints=str(tmp_path / "vault"),
            register=str(tmp_path / "vault"),
            replicas=(str(hangs), str(tmp_path / "copies")),
            wishes=Replicate(rpo=60.0),
            spool=tmp_path,
            look_every=0.05,
        )
        serve(theirs, errand)
        os._exit(0)
    theirs.close()
    ours.settimeout(20)
    body, _ = packets.receive(ours)
    assert body is not None
    assert (body["say"], body["replica"]) == ("replicated", str(tmp_path / "copies"))
    ours.close()  # hanging up ends it, whatever a store does
    deadline = time.monotonic() + 20
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert open_vault(str(tmp_path / "copies")).register.read().head is not None
