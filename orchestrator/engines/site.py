"""One cluster as the daemon touches it: its provider, its engine, its transports, its keys."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.core.nodes import ClusterName, JobName
from orchestrator.engines.api import AgentAddress, Engine
from orchestrator.engines.footing import Footing
from orchestrator.errors import PermanentError
from orchestrator.runtime.wire import Connection, call, direct
from providers.api import Provider, Run


def _no_checks(node: str) -> tuple[str, ...]:
    raise PermanentError(f"{node}: how its health checks are started is not known")


def _direct(node: str, host: str, port: int, limit: float) -> AbstractContextManager[Connection]:
    del node
    return direct(host, port, limit)


@dataclass(frozen=True, slots=True)
class Site:
    """The hands and eyes of one cluster."""

    cluster: ClusterName
    provider: Provider
    engine: Engine
    run: Callable[[str], Run]  #: the transport of a node
    home: Callable[[str], Path]  #: a node's folder, on the node
    host: Callable[[str], str]  #: the interface that agents bind on a node
    health: Callable[[str, str], tuple[str, ...]]  #: (node, boot id) -> argv of the passive checks
    footing: Footing  #: our private folder there
    #: (node, host, port, limit) -> a connection to what listens there
    reach: Callable[[str, str, int, float], AbstractContextManager[Connection]] = _direct
    #: node -> argv of the health checks, to which a level and what it needs are added
    checks: Callable[[str], tuple[str, ...]] = _no_checks
    #: asks the engine's own service for its version; None: the engine has none
    ask_engine: Callable[[], str] | None = None
    health_every: float = 30.0  #: seconds between two runs by an agent
    health_limit: float = 20.0  #: seconds one run may take

    def call(
        self, node: str, address: AgentAddress, key: str, body: Mapping[str, Any], timeout: float
    ) -> dict[str, Any]:
        """Ask an agent of a node; raises as `runtime.wire.call` does."""

        def connect(host: str, port: int, limit: float) -> AbstractContextManager[Connection]:
            return self.reach(node, host, port, limit)

        return call(address.host, address.port, key, body, timeout, connect)


class Keys:
    """The per-attempt keys of agents, derived from one secret that never leaves its file."""

    def __init__(self, path: Path) -> None:
        """Read the secret, or make one (mode 0600) where there is none yet."""
        self._secret = _read_or_make(path)

    def key(self, job: JobName, attempt: int) -> str:
        """Return the key of one attempt's agents, hex."""
        run = f"holdfast agent {job}.{attempt}".encode()
        return hmac.new(self._secret, run, hashlib.sha256).hexdigest()


def _read_or_make(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(32).encode())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)  # never replaces a secret that is already in use
    finally:
        fresh.unlink()
    secret = path.read_bytes().strip()
    if len(secret) < 32:
        raise PermanentError(f"{path} holds no usable secret; restore it from a backup")
    return secret
