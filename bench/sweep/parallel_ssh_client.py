"""parallel-ssh: greenlets over libssh2, its client kept from one sweep to the next."""

from __future__ import annotations

import sys
import time

from pssh.clients import ParallelSSHClient

from bench.sweep.client import serve
from bench.sweep.hosts import read


def main() -> None:
    """Serve sweeps."""
    told = read(sys.argv[1])
    names = {address: name for name, address in told.hosts.items()}
    client = ParallelSSHClient(
        list(names),
        user=told.user,
        pkey=told.key,
        pool_size=told.width,
        timeout=told.limit,
        num_retries=1,
        allow_agent=False,
    )

    def sweep() -> dict[str, float]:
        began = time.perf_counter()
        outputs = client.run_command(told.line, stop_on_errors=False, read_timeout=told.limit)
        client.join(outputs, timeout=told.limit)
        answered = {}
        for output in outputs:
            if output.exception is None and output.exit_code == 0:
                list(output.stdout)
                answered[names[output.host]] = time.perf_counter() - began
        return answered

    serve(sweep)


if __name__ == "__main__":
    main()
