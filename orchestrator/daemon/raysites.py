"""A cluster of hosts whose nodes Ray holds: the same transports, another engine."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace

from orchestrator.config.clusters import ClusterSettings
from orchestrator.config.ray import RaySettings
from orchestrator.config.ssh import MachineSettings, SshSettings
from orchestrator.engines.installed import Installed
from orchestrator.engines.ray import Placing, RayEngine, RayHolds
from orchestrator.engines.rayjobs import RayJobs
from orchestrator.engines.site import Site
from orchestrator.runtime.wire import Connection
from orchestrator.transports.ssh import SshFleet

LOOPBACK = "127.0.0.1"  #: the only interface that Ray's dashboard and jobs API may listen on


def on_ray(
    site: Site,
    cluster: ClusterSettings,
    ray: RaySettings,
    fleet: SshFleet,
    installed: Installed,
) -> Site:
    """Return the site of a cluster of hosts with Ray as its engine; opens no connection."""
    ssh = cluster.ssh or SshSettings()
    head = cluster.machines[0].name if ray.head is None else ray.head.name

    def tunnel(limit: float) -> AbstractContextManager[Connection]:
        return fleet.connect(head, LOOPBACK, ray.port, limit)

    placing = Placing(
        known_as={one.name: _known_as(one) for one in cluster.machines},
        folder=ssh.node_folder,
        driver=ray.python,
        resources={one.name: ray.resources or _all_of(cluster, one) for one in cluster.machines},
        linger=ray.linger.total_seconds(),
    )
    jobs = RayJobs(tunnel, ray.token.reveal)
    holds = RayHolds(placing, installed, fleet.run, jobs)

    def release(node: str) -> str:
        given_back = holds.release(node)
        removed = site.footing.release(node)
        return removed if given_back == "nothing" else f"{given_back}, {removed}"

    return replace(
        site,
        engine=RayEngine(holds),
        footing=replace(site.footing, release=release),
        ask_engine=lambda: f"Ray {jobs.version()} answers",
    )


def ray_head_beside(cluster: ClusterSettings) -> tuple[MachineSettings, ...]:
    """Return the host of Ray's head if it is none of the cluster's nodes."""
    head = cluster.ray.head if cluster.ray is not None else None
    if head is None or head.name in cluster.node_names:
        return ()
    return (head,)


def _known_as(machine: MachineSettings) -> tuple[str, ...]:
    """Return what Ray may know a node as, best first."""
    words = (machine.cluster_address, machine.address, machine.name)
    return tuple(dict.fromkeys(word for word in words if word))


def _all_of(cluster: ClusterSettings, machine: MachineSettings) -> dict[str, float]:
    own = machine.accelerators
    gpus = cluster.accelerators if own is None else own
    return {"CPU": 1.0, **({"GPU": float(gpus)} if gpus else {})}
