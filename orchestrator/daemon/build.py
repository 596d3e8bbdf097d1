"""Settings -> a daemon ready to run: ledger, sites, eyes, hands, bells."""

from __future__ import annotations

import json
import os
import queue
from collections.abc import Callable
from pathlib import Path

from orchestrator.actuators.hands import Hands
from orchestrator.config.settings import Settings
from orchestrator.core.fleet import Cluster, Fleet
from orchestrator.core.jobs import Attempt, AttemptState
from orchestrator.core.nodes import ClusterName, JobName, ProviderName
from orchestrator.daemon.bells import Bells
from orchestrator.daemon.clock import SystemClock
from orchestrator.daemon.eyes import Eyes
from orchestrator.daemon.holder import holder, is_dead
from orchestrator.daemon.loop import Loop, Message, Saw
from orchestrator.daemon.pools import Pools
from orchestrator.daemon.rhythm import Bell
from orchestrator.daemon.service import Lease, Service
from orchestrator.daemon.sites import build_site, pool_sizes
from orchestrator.daemon.tell import build_teller
from orchestrator.engines.site import Keys, Site
from orchestrator.errors import PermanentError
from orchestrator.ledger import open_ledger
from orchestrator.runtime.place import write_atomically
from orchestrator.runtime.register import Register
from orchestrator.runtime.store import open_store

PID_FILE = "daemon.json"  #: in the state folder: who runs, for people and for `holdfast chaos`


def build_service(settings: Settings) -> Service:
    """Wire a daemon up; nothing runs and nothing is started yet."""
    clock = SystemClock()
    ledger = open_ledger(settings.ledger_url)
    sites = {ClusterName(c.name): build_site(settings, c) for c in settings.clusters}
    keys, pools = Keys(settings.secret_file), Pools(pool_sizes(settings))
    inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
    register_of = registers()
    lease = Lease(ledger, holder(), clock, is_dead)
    loop = Loop(
        ledger=ledger,
        eyes=Eyes(
            sites=sites,
            keys=keys,
            pools=pools,
            clock=clock,
            post=lambda seen: inbox.put(Saw(seen)),
            register=register_of,
            probe_every=settings.core_policy.probe_every,
        ),
        hands=Hands(sites, keys, register_of, lease.left),
        policy=settings.core_policy,
        clusters=core_clusters(settings, sites),
        clock=clock,
        inbox=inbox,
        tell=build_teller(settings, ledger, pools, lease.left),
    )

    def ring(bell: Bell) -> None:
        inbox.put(bell)

    def bells() -> Bells:
        _write_pid(settings.state)
        return Bells(loop.policy, ring)

    return Service(loop, lease, bells)


def core_clusters(settings: Settings, sites: dict[ClusterName, Site]) -> tuple[Cluster, ...]:
    """Return the clusters as the core knows them."""
    return tuple(
        Cluster(
            name,
            ProviderName(site.provider.name),
            frozenset(one.value for one in site.provider.capabilities),
        )
        for name, site in sites.items()
    )


def registers() -> Callable[[JobName, Fleet], Register]:
    """Return what finds a job's register, and keeps what was read of it.

    A register is made by the fence of the first attempt. Once an attempt of the job has been open
    there is one: if its folder is not there then, it does not answer.
    """
    known: dict[str, Register] = {}

    def register(job: JobName, fleet: Fleet) -> Register:
        url = fleet.jobs[job].spec.register
        if url is None:
            raise PermanentError(f"{job} has no commit register")
        if url not in known:
            known[url] = Register(open_store(url))
        if any(one.job == job and _was_open(one) for one in fleet.attempts):
            known[url].must_exist()
        return known[url]

    return register


def _was_open(attempt: Attempt) -> bool:
    return attempt.state is AttemptState.OPEN or attempt.grant is not None


def _write_pid(state: Path) -> None:
    body = {"pid": os.getpid(), "holder": holder()}
    write_atomically(state / PID_FILE, (json.dumps(body) + "\n").encode())
