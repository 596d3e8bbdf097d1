"""With what we enter a cluster's nodes: user, keys, limits; and where a host is."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import paramiko

from orchestrator.errors import UserError


@dataclass(frozen=True, slots=True)
class HostAddress:
    """One sshd."""

    name: str  #: ours, for people
    address: str
    port: int = 22

    @property
    def host(self) -> str:
        """Return the name that known_hosts files use: ADDRESS, or [ADDRESS]:PORT."""
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"


class Identity:
    """Private keys, loaded once: parsing one per connection costs more than the connection."""

    def __init__(
        self, path: Path | None = None, passphrase: Callable[[], str] | None = None
    ) -> None:
        """Remember where the key is; without a path, whatever ssh-agent holds is used."""
        self._path, self._passphrase = path, passphrase
        self._loaded: tuple[paramiko.PKey, ...] = ()
        self._lock = threading.Lock()

    def load(self) -> tuple[paramiko.PKey, ...]:
        """Return the keys; raises `UserError` that names what is missing, never a secret."""
        with self._lock:
            if not self._loaded:
                self._loaded = self._from_agent() if self._path is None else self._read(self._path)
            return self._loaded

    def _read(self, path: Path) -> tuple[paramiko.PKey, ...]:
        try:
            if self._passphrase is None:
                return (paramiko.PKey.from_path(path),)
            return (_unlock(path, self._passphrase()),)
        except (OSError, paramiko.SSHException, ValueError, TypeError) as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"the private key {path} cannot be read: {why}") from None

    def _from_agent(self) -> tuple[paramiko.PKey, ...]:
        found = paramiko.Agent().get_keys() if "SSH_AUTH_SOCK" in os.environ else ()
        if not found:
            raise UserError("no key to log in with: give `ssh.key`, or start ssh-agent with one")
        return tuple(found)


def _unlock(path: Path, passphrase: str) -> paramiko.PKey:
    """Read an encrypted key, trying each kind: `PKey.from_path` of paramiko 5.1 cannot do it."""
    first: paramiko.SSHException | None = None
    kinds: tuple[type[paramiko.PKey], ...] = (
        paramiko.Ed25519Key,
        paramiko.ECDSAKey,
        paramiko.RSAKey,
    )
    for kind in kinds:
        try:
            return kind.from_private_key_file(str(path), password=passphrase)
        except paramiko.SSHException as error:
            first = first or error
    raise first or paramiko.SSHException("no kind of key that we know")


@dataclass(frozen=True, slots=True)
class Access:
    """How connections are made and how long anything may take, in seconds."""

    user: str
    identity: Identity
    connect_limit: float = 10.0  #: TCP, banner, key exchange and login, each
    pause_first: float = 0.5  #: before a second try to connect; doubles, with jitter
    pause_most: float = 15.0
    sessions_max: int = 8  #: commands at once on one connection; sshd's MaxSessions is 10
