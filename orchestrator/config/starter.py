"""The first holdfast.yaml: a few answers -> the text of a file that says what its lines mean."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `holdfast init` was told of one cluster and of who is to be told."""

    cluster: str
    provider: str  #: "local", "ssh" or "slurm"
    nodes: tuple[str, ...] | int  #: names or addresses; a count for local ones
    user: str = "root"  #: ssh: on the nodes
    key: str | None = None  #: ssh: file of the private key; None: the keys of ssh-agent
    accelerators: int = 0  #: per node
    sku: str = ""
    price_per_hour: float | None = None  #: US dollars per node
    channel: str = ""  #: of Slack


def text(wanted: Wanted) -> str:
    """Return the file, with a comment where a person would ask."""
    parts = [
        "# What Holdfast looks after. Every key: docs/configuration.md. After a change:",
        "#",
        "#     holdfast config check",
        "#",
        "# Paths are relative to this file.",
        "",
        "state: holdfast-state # the ledger and the controller's secret: keep it, back it up",
        "",
        "clusters:",
        *(f"  {line}".rstrip() for line in _cluster(wanted)),
        "",
        *_policy(wanted),
        "",
        *_health(wanted),
        "",
        *_alerts(wanted),
    ]
    return "\n".join(parts) + "\n"


def _cluster(wanted: Wanted) -> list[str]:
    lines = [f"- name: {_word(wanted.cluster)}", f"  provider: {wanted.provider}"]
    if wanted.sku:
        lines.append(f"  sku: {_word(wanted.sku)} # kind of machine; jobs ask for it by name")
    if wanted.accelerators:
        lines.append(f"  accelerators: {wanted.accelerators} # GPUs per node")
    if wanted.price_per_hour is not None:
        lines.append(f"  price_per_hour: {wanted.price_per_hour:g} # US dollars per node")
    if wanted.provider != "local":
        lines.append("  # cohort: 2026-11 # the batch in which the provider handed these over")
    return [*lines, *_NODES[wanted.provider](wanted)]


def _local(wanted: Wanted) -> list[str]:
    return [f"  nodes: {wanted.nodes} # folders and processes of this computer"]


def _ssh(wanted: Wanted) -> list[str]:
    assert not isinstance(wanted.nodes, int)
    names = _names(wanted.nodes)
    key = [f"    key: {_word(wanted.key)}"] if wanted.key else ["    # without `key`: ssh-agent's"]
    return [
        "  nodes:",
        *(
            f"    - {{name: {_word(name)}, address: {_word(address)}}}"
            for name, address in zip(names, wanted.nodes, strict=True)
        ),
        "  ssh:",
        f"    user: {_word(wanted.user)}",
        *key,
        "    # Host keys are pinned; an unknown one is refused, with its fingerprint.",
        "    known_hosts: ~/.ssh/known_hosts # or `host_keys` of each node",
        "    # reboot: [sudo, reboot] # lets the repair ladder reboot a node",
        "    # power: # out-of-band power: lets it prove that a silent node is off",
        "    #   status: [ipmitool, -H, '{address}', power, status]",
        "    #   cycle: [ipmitool, -H, '{address}', power, cycle]",
    ]


def _slurm(wanted: Wanted) -> list[str]:
    assert not isinstance(wanted.nodes, int)
    return [
        "  nodes: " + json.dumps(list(wanted.nodes)),
        "  slurm: # nodes are held by one job each, which ends when the node is given back",
        "    folder: /var/tmp/holdfast # on the nodes' own disks",
        "    # partition: main",
        "    # account: research",
        "    # options: ['--gres=gpu:8'] # further words for sbatch",
    ]


_NODES = {"local": _local, "ssh": _ssh, "slurm": _slurm}


def _policy(wanted: Wanted) -> list[str]:
    if wanted.provider == "local":  # to try it out: nobody waits half an hour for trust
        return [
            "policy:",
            "  burn_in: 5s # healthy time before a node is trusted; on real machines 30m",
            "  patience: 30s # without enough nodes for that long, a job moves to another cluster",
        ]
    return [
        "# policy: # the defaults are meant for real machines",
        "#   burn_in: 30m # healthy time before a node is trusted",
        "#   evictions_per_hour: 4 # beyond it nothing is evicted, and people are asked",
    ]


def _health(wanted: Wanted) -> list[str]:
    return [
        "health:",
        f"  expect_gpus: {wanted.accelerators} # fewer on a node is a finding",
        "  every: 60s",
    ]


def _alerts(wanted: Wanted) -> list[str]:
    about = [
        "alerts: # a secret is named here, never written",
        "  slack:",
        "    token: {env: SLACK_BOT_TOKEN} # of the daemon's environment; needs chat:write",
        f"    channel: {_word(wanted.channel or 'C0123456789')}",
    ]
    return about if wanted.channel else [f"# {line}" for line in about]


def _names(addresses: tuple[str, ...]) -> list[str]:
    """Name each machine by its host part; where that is taken or no name, by its number."""
    names: list[str] = []
    for number, address in enumerate(addresses, 1):
        host = address.lower() if _numeric(address) else address.lower().partition(".")[0]
        name = "".join(one if one.isalnum() else "-" for one in host).strip("-")[:41]
        plain = name.isascii() and name and not _numeric(address) and name not in names
        names.append(name if plain else f"node-{number:03d}")
    return names


def _numeric(address: str) -> bool:
    return ":" in address or address.replace(".", "").isdigit()


def _word(value: str) -> str:
    """Return a value as YAML reads it back: plain where that is safe, else quoted as JSON."""
    safe = value and all(one.isascii() and (one.isalnum() or one in "-_./~@") for one in value)
    plain = safe and value[0].isalpha() and value.lower() not in _NO_TEXT
    return value if plain or (safe and value[0] in "/~" and len(value) > 1) else json.dumps(value)


_NO_TEXT = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
