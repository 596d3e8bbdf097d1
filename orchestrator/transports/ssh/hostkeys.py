"""Which key a host must show: pinned in the inventory or in a known_hosts file, never guessed.

An unknown key is refused with its fingerprint, so that a person can compare it and pin it. A key
that differs from a pinned one means that the machine was replaced or that somebody stands in
between: it is an error of its own, on which the node is quarantined.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import paramiko

from orchestrator.errors import PermanentError, UserError

DEFAULT_PORT = 22


class HostKeyError(PermanentError):
    """A host did not show a key that we trust."""


class UnknownHostKeyError(HostKeyError):
    """No key is pinned for this host."""


class ChangedHostKeyError(HostKeyError):
    """The host shows another key than the pinned one: replaced, or intercepted."""


def fingerprint(blob: bytes) -> str:
    """Return the SHA256 fingerprint as OpenSSH prints it."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"


@dataclass(frozen=True, slots=True)
class PinnedKeys:
    """Host -> {key type: key blob}. A dict: looking up hashed known_hosts is slow for hundreds."""

    keys: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)

    def types(self, host: str) -> tuple[str, ...]:
        """Return the types of key pinned for a host, in the order they were given."""
        return tuple(self.keys.get(host, {}))

    def check(self, host: str, kind: str, blob: bytes) -> None:
        """Raise `UnknownHostKeyError` or `ChangedHostKeyError` unless the key is pinned."""
        pinned = self.keys.get(host)
        if not pinned:
            raise UnknownHostKeyError(
                f"{host}: no host key is pinned; it shows {kind} {fingerprint(blob)}. "
                "Compare it with the machine's own, then add it to `host_keys` or known_hosts"
            )
        if pinned.get(kind) != blob:
            known = ", ".join(f"{one} {fingerprint(pinned[one])}" for one in pinned)
            raise ChangedHostKeyError(
                f"{host}: shows host key {kind} {fingerprint(blob)}, pinned is {known}: "
                "the machine was replaced, or the connection is intercepted"
            )


def pin(inventory: Mapping[str, Iterable[str]], known_hosts: Path | None = None) -> PinnedKeys:
    """Return the keys of an inventory ("TYPE BASE64" lines by host), else of a known_hosts file.

    Raises `UserError` if the file cannot be read or a line of it is no key.
    """
    file = _read(known_hosts) if known_hosts is not None else None
    keys: dict[str, dict[str, bytes]] = {}
    for host, lines in inventory.items():
        own = dict(_parse(line) for line in lines)
        keys[host] = own or (_look_up(file, host) if file is not None else {})
    return PinnedKeys(keys)


def _parse(line: str) -> tuple[str, bytes]:
    kind, _, body = line.partition(" ")
    return kind, base64.b64decode(body)


def _read(path: Path) -> paramiko.HostKeys:
    try:
        return paramiko.HostKeys(str(path))
    except (OSError, paramiko.SSHException, ValueError, UnicodeDecodeError) as error:
        raise UserError(f"the known_hosts file {path} cannot be read: {error}") from error


def _look_up(file: paramiko.HostKeys, host: str) -> dict[str, bytes]:
    found = file.lookup(host)
    return {} if found is None else {kind: found[kind].asbytes() for kind in found}
