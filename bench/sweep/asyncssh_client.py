"""asyncssh: one event loop, one connection a host."""

from __future__ import annotations

import asyncio
import sys
import time

import asyncssh

from bench.sweep.client import serve
from bench.sweep.hosts import read


def main() -> None:
    """Serve sweeps."""
    told = read(sys.argv[1])
    loop = asyncio.new_event_loop()
    open_to: dict[str, asyncssh.SSHClientConnection] = {}

    async def one(name: str, began: float, width: asyncio.Semaphore) -> tuple[str, float | None]:
        async with width:
            try:
                async with asyncio.timeout(told.limit):
                    if name not in open_to:
                        open_to[name] = await asyncssh.connect(
                            told.hosts[name],
                            username=told.user,
                            client_keys=[told.key],
                            known_hosts=told.known_hosts,
                            agent_path=None,
                            config=None,
                        )
                    done = await open_to[name].run(told.line)
            except (OSError, asyncssh.Error, TimeoutError):
                return name, None
            return name, time.perf_counter() - began if done.exit_status == 0 else None

    async def all_of_them() -> dict[str, float]:
        began, width = time.perf_counter(), asyncio.Semaphore(told.width)
        answered = await asyncio.gather(*(one(name, began, width) for name in told.hosts))
        return {name: seconds for name, seconds in answered if seconds is not None}

    serve(lambda: loop.run_until_complete(all_of_them()))


if __name__ == "__main__":
    main()
