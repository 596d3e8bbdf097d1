"""Holdfast's own SSH transport: pinned keys, one connection a host, threads."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.sweep.client import serve
from bench.sweep.hosts import read
from orchestrator.errors import HoldfastError
from orchestrator.transports.ssh import Access, HostAddress, Identity, SshFleet
from orchestrator.transports.ssh.hostkeys import pin


def main() -> None:
    """Serve sweeps."""
    told = read(sys.argv[1])
    hosts = {name: HostAddress(name, address, 22) for name, address in told.hosts.items()}
    keys = pin({hosts[name].host: [key] for name, key in told.host_keys.items()})
    fleet = SshFleet(hosts, Access(told.user, Identity(Path(told.key))), keys)
    pool = ThreadPoolExecutor(told.width)

    def sweep() -> dict[str, float]:
        began = time.perf_counter()

        def one(name: str) -> tuple[str, float | None]:
            try:
                done = fleet.run(name)(told.command, limit=told.limit)
            except HoldfastError:
                return name, None
            return name, time.perf_counter() - began if done.code == 0 else None

        answered = dict(pool.map(one, hosts))
        return {name: seconds for name, seconds in answered.items() if seconds is not None}

    serve(sweep)


if __name__ == "__main__":
    main()
