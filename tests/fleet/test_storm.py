"""Eleven faults on real hosts: sshd, PostgreSQL, Ceph's gateway; the weights end as without them.

Two jobs that compute the same thing run side by side: one on hosts that nothing happens to, one on
a cluster that is broken in every way we know, and at last lost.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from orchestrator.core.jobs import JobState
from orchestrator.runtime import processes
from orchestrator.runtime.register import Register
from orchestrator.runtime.store import open_store
from tests.fleet.ceph import Ceph
from tests.fleet.conftest import credentials
from tests.fleet.rack import Rack
from tests.system.fleet import LocalFleet

#: 301 s on two idle cores (2026-11-26): more than `make test-fleet` has left.
pytestmark = [pytest.mark.root, pytest.mark.soak, pytest.mark.system, pytest.mark.timeout(1800)]

STEPS = 150
XID_79 = "[{uptime:12.6f}] NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', GPU has fallen off.\n"
POLICY: dict[str, Any] = {
    "burn_in": "2s",
    "patience": "4s",
    "silence_max": "8s",
    "sweep_after": "20s",
    "seat_wait": "30s",
    "standbys": 1,
    "evictions_per_hour": 50,
    "quarantine_share": 0.5,
    "intent_limit": "30s",
    "inventory_every": "3s",  # each look at a host's power is a program of its own
}


@dataclass
class Storm:
    """The job that is broken, and how it is seen."""

    fleet: LocalFleet
    rack: Rack
    url: str
    dice: random.Random

    @property
    def register(self) -> Register:
        return Register(open_store(self.url))

    def ranks(self) -> list[tuple[str, int]]:
        """Return (host, pid out here) of every rank of the job that runs."""
        found = []
        for process in processes.every():
            env = processes.environment(process.pid) or {}
            parent = processes.environment(process.parent) or {}
            ours = env.get("HOLDFAST_RUN", "").startswith("storm.") and process.state != "T"
            if ours and "RANK" in env and "RANK" not in parent:
                found.append((env["HOLDFAST_NODE"], process.pid))
        return sorted(found)

    def a_rank(self) -> tuple[str, int]:
        found: list[tuple[str, int]] = self.fleet.until("two ranks run", self.both, 240)
        return self.dice.choice(found)

    def both(self) -> list[tuple[str, int]] | None:
        found = self.ranks()
        return found if len(found) >= 2 else None

    def recovered(self, since: float, what: str, limit: float = 300) -> None:
        """Wait for a commit that counts, written after a moment."""
        register = self.register

        def committed() -> bool:
            return any(commit.at > since for commit in register.read().commits)

        self.fleet.until(f"a commit after {what}", committed, limit)

    def over(self) -> bool:
        job = self.fleet.job("storm")
        return job is not None and job.state is JobState.SUCCEEDED


def job(name: str, url: str, clusters: list[str], ceph: Ceph, fleet: LocalFleet) -> dict[str, Any]:
    train = [
        "--device",
        "cpu",
        "--steps",
        STEPS,
        "--data-seed",
        3,
        "--preset",
        "demo",
        "--batch",
        8,
    ]
    train += ["--lr", 0.012, "--checkpoint-every", 3, "--seed", 0]
    return {
        "name": name,
        "command": ["python", "-m", "model.train", *map(str, train)],
        "workdir": str(fleet.folder),
        "nodes": 2,
        "clusters": clusters,
        "checkpoints": url,
        "stop_grace": "1s",
        "budget": {"generations": 60, "attempts": 20},
        "env": {"AWS_ACCESS_KEY_ID": ceph.access, "OMP_NUM_THREADS": "1"},
        "secrets": {"AWS_SECRET_ACCESS_KEY": {"env": "AWS_SECRET_ACCESS_KEY"}},
    }


def test_eleven_faults_leave_the_weights_as_they_were(
    make_fleet: Callable[..., LocalFleet],
    lan: Rack,
    ceph: Ceph,
    vault_url: str,
    postgres: str,
) -> None:
    seed = int(os.environ.get("HOLDFAST_SEED", "5"))
    print(f"seed {seed} (HOLDFAST_SEED)")
    calm_url, storm_url = (vault_url.replace("/run/1", f"/{name}") for name in ("calm", "storm"))
    fleet = make_fleet(
        clusters={"oak": lan.cluster(*lan.names[:4]), "elm": lan.cluster(*lan.names[4:])},
        policy=POLICY,
        ledger_url=postgres,
        health={"kernel_log": "/mnt/kernel.log", "every": "4s"},
        env=credentials(ceph),
    )
    fleet.start_daemon()
    fleet.submit(**job("calm", calm_url, ["elm"], ceph, fleet))
    fleet.submit(**job("storm", storm_url, ["oak", "elm"], ceph, fleet))
    storm = Storm(fleet, lan, storm_url, random.Random(seed))
    storm.recovered(0.0, "the start", limit=180)
    took: dict[str, float] = {}
    for fault in FAULTS:
        began = time.time()
        storm.a_rank()
        fault(storm)
        storm.recovered(time.time(), fault.__name__)
        took[fault.__name__] = round(time.time() - began, 1)
        print(f"{fault.__name__}: {took[fault.__name__]} s", flush=True)
        assert not storm.over(), f"the job ended before {fault.__name__} could hit it"
    for name in ("calm", "storm"):
        assert fleet.finish(name, limit=600).state is JobState.SUCCEEDED, fleet.job(name)
    assert digest(fleet, calm_url) == digest(fleet, storm_url)
    assert_no_double_commit(storm.register)
    verified = fleet.holdfast("checkpoint", "verify", storm_url, limit=300)
    assert verified.returncode in (0, 1), verified.stderr
    fleet.until("nothing is left", lambda: not left_behind(), 60)
    log = (fleet.folder / "daemon.log").read_text()
    assert ceph.secret not in log


# --- the faults


def kill(storm: Storm, number: signal.Signals = signal.SIGKILL) -> str:
    """Send a signal to a rank; return its host."""
    while True:
        host, pid = storm.a_rank()
        try:
            os.kill(pid, number)
            return host
        except ProcessLookupError:  # it ended by itself a moment ago
            continue


def kill_rank(storm: Storm) -> None:
    kill(storm)


def stop_rank(storm: Storm) -> None:
    kill(storm, signal.SIGSTOP)


def lose_power(storm: Storm) -> None:
    storm.rack.do("kill", storm.a_rank()[0])


def gpu_falls_off(storm: Storm) -> None:
    host = storm.a_rank()[0]
    line = XID_79.format(uptime=time.clock_gettime(time.CLOCK_BOOTTIME))
    storm.rack.do("write", host, line.strip())
    storm.fleet.until(f"{host} is evicted", lambda: host not in {h for h, _ in storm.ranks()})


def corrupt_checkpoint(storm: Storm) -> None:
    """Flip a bit of the newest checkpoint; if a newer one came meanwhile, of that one."""
    store, register = open_store(storm.url), storm.register
    for _ in range(5):
        head = register.read().head
        assert head is not None
        part = storm.dice.choice(json.loads(store.get_range(head.manifest))["parts"])
        data = bytearray(store.get_range(part["key"]))
        data[storm.dice.randrange(len(data))] ^= 1 << storm.dice.randrange(8)
        store.put_part(part["key"], bytes(data))
        if register.read().head == head:
            break
    kill(storm)


def cut_the_link(storm: Storm) -> None:
    host = storm.a_rank()[0]
    storm.rack.do("cut", host)
    since = time.time()
    storm.recovered(since, "the partition began")
    storm.rack.do("heal", host)


def slow_the_link(storm: Storm) -> None:
    host = storm.a_rank()[0]
    storm.rack.do("slow", host, "2mbit")
    storm.recovered(time.time(), "the link became slow")
    storm.rack.do("heal", host)


def fill_the_disk(storm: Storm) -> None:
    host = storm.a_rank()[0]
    storm.rack.do("fill", host, "all")
    kill(storm)
    storm.recovered(time.time(), "the disk was full")
    storm.rack.do("fill", host, "empty")


def provider_is_down(storm: Storm) -> None:
    host = storm.a_rank()[0]
    storm.rack.do("board", host, "broken")
    kill(storm)
    storm.recovered(time.time(), "the provider was down")
    storm.rack.do("board", host, "well")


def kill_the_controller(storm: Storm) -> None:
    storm.fleet.daemons[-1].kill()
    storm.fleet.daemons[-1].wait()
    kill(storm)
    storm.recovered(time.time(), "the controller was dead")
    storm.fleet.start_daemon()


def lose_the_cluster(storm: Storm) -> None:
    for host in storm.rack.names[:4]:
        storm.rack.do("lose", host)


FAULTS: tuple[Callable[[Storm], None], ...] = (
    kill_rank,
    stop_rank,
    lose_power,
    gpu_falls_off,
    corrupt_checkpoint,
    cut_the_link,
    slow_the_link,
    fill_the_disk,
    provider_is_down,
    kill_the_controller,
    lose_the_cluster,
)


# --- what is checked


def digest(fleet: LocalFleet, url: str) -> str:
    done = fleet.holdfast("checkpoint", "digest", url, limit=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def assert_no_double_commit(register: Register) -> None:
    """Every step that counts was committed once on the line that leads to the end."""
    lineage = register.read()
    line, commit = [], lineage.head
    while commit is not None:
        line.append(commit.step)
        commit = lineage.commit(commit.parent) if commit.parent is not None else None
    assert line == sorted(set(line), reverse=True)
    assert line[0] == STEPS


def left_behind() -> list[int]:
    found = []
    for process in processes.every():
        env = processes.environment(process.pid) or {}
        if env.get("HOLDFAST_RUN"):
            found.append(process.pid)
    return found
