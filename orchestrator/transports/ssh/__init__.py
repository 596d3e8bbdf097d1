"""Commands on nodes over SSH: pinned host keys, persistent connections, a limit on everything."""

from orchestrator.transports.ssh.access import Access, HostAddress, Identity
from orchestrator.transports.ssh.fleet import SshFleet, SshRun
from orchestrator.transports.ssh.hostkeys import (
    ChangedHostKeyError,
    HostKeyError,
    PinnedKeys,
    UnknownHostKeyError,
)

__all__ = [
    "Access",
    "ChangedHostKeyError",
    "HostAddress",
    "HostKeyError",
    "Identity",
    "PinnedKeys",
    "SshFleet",
    "SshRun",
    "UnknownHostKeyError",
]
