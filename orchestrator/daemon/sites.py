"""A cluster's settings -> its provider, engine and transports, wired together."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from orchestrator.config.settings import ClusterSettings, Settings
from orchestrator.config.slurm import SlurmSettings
from orchestrator.config.ssh import MachineSettings, SshSettings
from orchestrator.core.nodes import ClusterName
from orchestrator.daemon.pools import WORKERS
from orchestrator.daemon.raysites import on_ray, ray_head_beside
from orchestrator.engines.bundle import bundle
from orchestrator.engines.footing import Footing, installed_footing, nothing
from orchestrator.engines.installed import Installed
from orchestrator.engines.launched import LaunchedEngine
from orchestrator.engines.local import LocalEngine
from orchestrator.engines.site import Site
from orchestrator.engines.slurm import Holding, SlurmHolds
from orchestrator.errors import PermanentError
from orchestrator.runtime.wire import Connection
from orchestrator.transports.child import OwnRun
from orchestrator.transports.local import LocalTransport
from orchestrator.transports.ssh import Access, HostAddress, Identity, SshFleet
from orchestrator.transports.ssh.hostkeys import pin
from providers.api import Capability, MachineListed, Power, Run
from providers.local import LocalMachines, LocalProvider
from providers.slurm import SlurmNodes, SlurmProvider
from providers.slurm import capabilities as slurm_capabilities
from providers.ssh import SshInventory, SshProvider, Switch, capabilities

WORKERS_MAX = 32  #: threads of one cluster's pool; more only wait for the interpreter's lock


def build_site(settings: Settings, cluster: ClusterSettings, *, visiting: bool = False) -> Site:
    """Return the hands and eyes of a cluster; opens no connection.

    Who is only `visiting` takes no node of a scheduler that is not ours already.
    """
    match cluster.provider:
        case "local":
            return _local(settings, cluster)
        case "ssh":
            return _ssh(settings, cluster)
        case "slurm":
            return _slurm(settings, cluster, visiting=visiting)
        case other:
            raise PermanentError(f"no provider is called {other}")


def abilities(cluster: ClusterSettings) -> frozenset[Capability]:
    """Return what the provider of a cluster can do, without building it."""
    match cluster.provider:
        case "ssh":
            return capabilities(_inventory(cluster, cluster.ssh or SshSettings()))
        case "slurm":
            return slurm_capabilities(_slurm_nodes(cluster, cluster.slurm or SlurmSettings()))
        case _:
            return LocalProvider.capabilities


def pool_sizes(settings: Settings) -> dict[str, int]:
    """Return the threads of each cluster's pool: a hanging node must not starve its neighbours."""
    return {
        one.name: max(WORKERS, min(WORKERS_MAX, len(one.node_names))) for one in settings.clusters
    }


def _local(settings: Settings, cluster: ClusterSettings) -> Site:
    """Return the hands and eyes of a cluster of this computer."""
    folder = settings.cluster_folder(cluster.name)
    machines = LocalMachines(
        nodes=tuple(cluster.node_names),
        sku=cluster.sku,
        accelerators=cluster.accelerators,
        cohort=cluster.cohort,
        price_per_hour=cluster.price_per_hour,
    )

    def home(node: str) -> Path:
        return folder / node

    def run(node: str) -> Run:
        return LocalTransport(home(node))

    gpus = _gpus(settings, cluster)

    def options(node: str) -> list[str]:
        argv = ["-o", "json", "--expect-gpus", str(gpus)]
        return [*argv, "--kernel-log", str(home(node) / "kernel.log"), "--disk", str(home(node))]

    def health(node: str, boot_id: str) -> tuple[str, ...]:
        argv = [*_healthchecks(gpus), *options(node), *_state(gpus, home(node))]
        return tuple([*argv, "--boot-id", boot_id] if boot_id else argv)

    provider = LocalProvider(folder, machines)
    return Site(
        cluster=ClusterName(cluster.name),
        provider=provider,
        engine=LocalEngine(run, home),
        run=run,
        home=home,
        host=lambda node: "127.0.0.1",
        health=health,
        checks=lambda node: (*_healthchecks(1), *options(node)),  # torch needs the site
        health_every=settings.health.every.total_seconds(),
        health_limit=settings.health.limit.total_seconds(),
        footing=Footing(run, sys.executable, folder, nothing, nothing),
    )


def _ssh(settings: Settings, cluster: ClusterSettings) -> Site:
    """Return the hands and eyes of a list of hosts."""
    ssh = cluster.ssh or SshSettings()
    fleet = ssh_fleet(cluster)
    installed = Installed(bundle(), ssh.node_folder, ssh.python)
    run = installed.wrapped(fleet.run)
    listens = {one.name: one.cluster_address or _address(one).address for one in cluster.machines}

    def home(node: str) -> Path:
        return ssh.node_folder / "nodes" / node

    def checks(node: str) -> tuple[str, ...]:
        del node  # all alike
        return (*installed.checks, *_options(settings, cluster), "--disk", str(ssh.node_folder))

    def health(node: str, boot_id: str) -> tuple[str, ...]:
        del boot_id  # the kernel's own is the truth there
        return (*checks(node), *_state(_gpus(settings, cluster), home(node)))

    def tunnel(node: str, host: str, port: int, limit: float) -> AbstractContextManager[Connection]:
        return fleet.connect(node, host, port, limit)

    site = Site(
        cluster=ClusterName(cluster.name),
        provider=SshProvider(_inventory(cluster, ssh), fleet.run, OwnRun()),
        engine=LaunchedEngine(run, home, lambda node: installed.launch),
        run=run,
        home=home,
        host=lambda node: listens[node],
        health=health,
        checks=checks,
        health_every=settings.health.every.total_seconds(),
        health_limit=settings.health.limit.total_seconds(),
        footing=installed_footing(installed, fleet.run, ssh.python),
    )
    site = site if ssh.direct else replace(site, reach=tunnel)
    return site if cluster.ray is None else on_ray(site, cluster, cluster.ray, fleet, installed)


def _slurm(settings: Settings, cluster: ClusterSettings, *, visiting: bool) -> Site:
    """Return the hands and eyes of nodes of a Slurm cluster."""
    slurm = cluster.slurm or SlurmSettings()
    own = _slurms_own(slurm)
    installed = Installed(bundle(), Path(slurm.folder), slurm.python)
    holds = SlurmHolds(_holding(slurm), installed, own, submits=not visiting)
    provider = SlurmProvider(_slurm_nodes(cluster, slurm), own)
    listens = {one.name: one.cluster_address for one in cluster.machines}

    def host(node: str) -> str:
        return listens.get(node) or provider.address(node)

    def checks(node: str) -> tuple[str, ...]:
        del node  # all alike
        return (*installed.checks, *_options(settings, cluster), "--disk", slurm.folder)

    def health(node: str, boot_id: str) -> tuple[str, ...]:
        del boot_id  # the kernel's own is the truth there
        return (*checks(node), *_state(_gpus(settings, cluster), holds.home(node)))

    return Site(
        cluster=ClusterName(cluster.name),
        provider=provider,
        engine=LaunchedEngine(holds.run, holds.home, lambda node: installed.launch),
        run=holds.run,
        home=holds.home,
        host=host,
        health=health,
        checks=checks,
        health_every=settings.health.every.total_seconds(),
        health_limit=settings.health.limit.total_seconds(),
        footing=replace(
            installed_footing(installed, holds.bare, slurm.python), release=holds.release
        ),
    )


def _slurms_own(slurm: SlurmSettings) -> Run:
    return OwnRun({"SLURM_CONF": str(slurm.conf)} if slurm.conf else None)


def _holding(slurm: SlurmSettings) -> Holding:
    named = {"partition": slurm.partition, "account": slurm.account, "qos": slurm.qos}
    options = [f"--{name}={value}" for name, value in named.items() if value is not None]
    minutes = max(1, round(slurm.time.total_seconds() / 60))
    words = (*options, *(slurm.options or ()))
    return Holding(Path(slurm.folder), slurm.python, minutes, words)


def _slurm_nodes(cluster: ClusterSettings, slurm: SlurmSettings) -> SlurmNodes:
    return SlurmNodes(
        cluster=cluster.name,
        nodes=tuple(one.name for one in cluster.machines),
        sku=cluster.sku,
        accelerators=cluster.accelerators,
        cohort=cluster.cohort,
        price_per_hour=cluster.price_per_hour,
        reboot=slurm.reboot,
        serials={one.name: one.serials for one in cluster.machines},
    )


def ssh_fleet(cluster: ClusterSettings) -> SshFleet:
    """Return the connections of a list of hosts; raises `UserError` if keys cannot be read."""
    ssh = cluster.ssh or SshSettings()
    machines = [*cluster.machines, *ray_head_beside(cluster)]
    hosts = {one.name: _address(one, ssh.port) for one in machines}
    pinned = {hosts[one.name].host: one.host_keys for one in machines}
    access = Access(
        user=ssh.user,
        identity=Identity(ssh.key, ssh.passphrase.reveal if ssh.passphrase else None),
        connect_limit=ssh.connect_limit.total_seconds(),
    )
    jump = None
    if ssh.jump is not None:
        through = HostAddress("the jump host", ssh.jump.address, ssh.jump.port)
        pinned[through.host] = ssh.jump.host_keys
        jump = (through, replace(access, user=ssh.jump.user or ssh.user, sessions_max=64))
    return SshFleet(hosts, access, pin(pinned, ssh.known_hosts), jump)


def _address(machine: MachineSettings, port: int = 22) -> HostAddress:
    return HostAddress(machine.name, machine.address or machine.name, machine.port or port)


def _inventory(cluster: ClusterSettings, ssh: SshSettings) -> SshInventory:
    price = cluster.price_per_hour
    machines = tuple(
        MachineListed(
            node=one.name,
            id=f"ssh-{cluster.name}-{one.name}",
            cohort=one.cohort or cluster.cohort,
            sku=one.sku or cluster.sku,
            accelerators=cluster.accelerators if one.accelerators is None else one.accelerators,
            serials=one.serials,
            power=Power.RUNNING,
            boot_id="",
            price_per_hour=price if one.price_per_hour is None else one.price_per_hour,
        )
        for one in cluster.machines
    )
    power = ssh.power
    return SshInventory(
        machines=machines,
        addresses={one.name: _address(one).address for one in cluster.machines},
        reboot=ssh.reboot or (),
        switch=Switch(power.status or (), power.cycle or (), power.limit.total_seconds()),
    )


def _options(settings: Settings, cluster: ClusterSettings) -> tuple[str, ...]:
    """Return what the checks are told on nodes of other computers."""
    log = settings.health.kernel_log
    options = ("-o", "json", "--expect-gpus", str(_gpus(settings, cluster)))
    return options if log is None else (*options, "--kernel-log", log)


def _state(gpus: int, home: Path) -> tuple[str, ...]:
    """Return where the checks of nodes with GPUs leave what the next run, or a listener, needs."""
    return ("--state", str(home / "checks")) if gpus else ()


def _gpus(settings: Settings, cluster: ClusterSettings) -> int:
    expect = settings.health.expect_gpus
    return cluster.accelerators if expect is None else expect


def _healthchecks(gpus: int) -> list[str]:
    """Return how the checks are started on this computer; without site where no driver is asked."""
    package = importlib.util.find_spec("healthchecks")
    if package is None or package.origin is None:
        raise PermanentError("the package healthchecks is not installed; install holdfast again")
    flags = ["-E"] if gpus else ["-S", "-E"]
    return [sys.executable, *flags, str(Path(package.origin).with_name("__main__.py"))]
