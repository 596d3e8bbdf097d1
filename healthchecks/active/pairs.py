"""The test of a pair of nodes: an all-reduce between two ranks, one on each, timed.

`python -m healthchecks --pair REQUEST` does one test; `python -m healthchecks.active.pairs` serves
tests, one JSON line each way, so that torch is loaded once for all rounds of a localisation. Each
test is done by a process of its own, which is killed at its limit: a link that is dead hangs
whoever uses it. Which pairs are tested, and what their results amount to, is decided elsewhere.

Request: `{"id", "rank": 0|1, "host", "port", "bytes", "limit"}`, and `"gpu"` for a test with NCCL
from that GPU; without it gloo moves the bytes. `"rail"` names the card (NCCL) or the interface
(gloo) that they must take, else it is theirs to choose. Rank 0 listens on host:port for
the rendezvous. Answer: `{"id", "gbps"}` or `{"id", "error"}`. torch's store and gloo have no
encryption: host must be an address on the cluster's own network.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
from typing import Any, NamedTuple, TextIO

from healthchecks.active.devices import reduce_seconds, torch
from healthchecks.api import CannotLookError
from healthchecks.pair_rates import RAIL

ROUNDS = 3  #: of the all-reduce; the median counts
REQUEST_MAX = 4096  #: characters
SIOCGIFADDR = 0x8915  #: ask an interface for its address (Linux)


class Request(NamedTuple):
    """One test, as one of its two nodes is told of it."""

    id: int
    rank: int
    host: str
    port: int
    bytes: int
    limit: float  #: seconds
    gpu: int | None = None  #: None: gloo, between the hosts
    rail: str = ""  #: the card, or interface, that the bytes must take


class BadRequestError(ValueError):
    """A line is no request."""


def parse(line: str) -> Request:
    """Read one request; raises `BadRequestError`."""
    try:
        body = json.loads(line[:REQUEST_MAX])
        gpu, rail = body.get("gpu"), str(body.get("rail", ""))
        if rail and not RAIL.fullmatch(rail):
            raise BadRequestError(f"no rail: {rail!r:.60}")
        return Request(
            id=int(body["id"]),
            rank=int(body["rank"]),
            host=str(body["host"]),
            port=int(body["port"]),
            bytes=int(body["bytes"]),
            limit=float(body["limit"]),
            gpu=None if gpu is None else int(gpu),
            rail=rail,
        )
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise BadRequestError(f"no request: {error!r}") from error


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests, one after another, until there are no more."""
    torch()
    for line in requests:
        answers.write(json.dumps(answer(line)) + "\n")
        answers.flush()


def answer(line: str) -> dict[str, Any]:
    """Do what one request asks for, and return what came of it."""
    try:
        wanted = parse(line)
        torch()
    except (BadRequestError, CannotLookError) as error:
        return {"id": None, "error": str(error)}
    return {"id": wanted.id, **_in_a_process_of_its_own(wanted)}


def _in_a_process_of_its_own(wanted: Request) -> dict[str, Any]:
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reader)
        os.dup2(2, 1)  # gloo tells what it does on the output, where answers are read
        with contextlib.suppress(BaseException):
            os.write(writer, json.dumps(_test(wanted)).encode())
        os._exit(0)
    os.close(writer)
    try:
        if not select.select([reader], [], [], wanted.limit)[0]:
            return {"error": f"not done within {wanted.limit:g} s"}
        said = os.read(reader, 65536)
        return dict(json.loads(said)) if said else {"error": "the test's process died"}
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reader)


def _test(wanted: Request) -> dict[str, Any]:
    """Be one of two ranks; return the rate in 10^9 bytes a second, or the error in a line."""
    from datetime import timedelta

    t = torch()
    patience = timedelta(seconds=wanted.limit)
    if interface := _towards(wanted.host):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
    if wanted.rail and wanted.gpu is None:
        os.environ["GLOO_SOCKET_IFNAME"] = wanted.rail
    elif wanted.rail:
        os.environ["NCCL_IB_HCA"] = f"={wanted.rail}"  # exactly this one
        os.environ["NCCL_NET"] = "IB"  # or NCCL would fall back to sockets, and the rail seem well
    try:
        store = t.distributed.TCPStore(
            wanted.host, wanted.port, 2, is_master=wanted.rank == 0, timeout=patience
        )
        device = "cpu" if wanted.gpu is None else f"cuda:{wanted.gpu}"
        if device != "cpu":
            t.cuda.set_device(device)
        t.distributed.init_process_group(
            "gloo" if device == "cpu" else "nccl",
            store=store,
            rank=wanted.rank,
            world_size=2,
            timeout=patience,
        )
        data = t.full((max(1, wanted.bytes // 4),), float(wanted.rank + 1), device=device)
        t.distributed.all_reduce(data)
        if not bool((data == 3.0).all()):
            return {"error": "the sum of two ranks is wrong"}
        seconds = reduce_seconds(t, data, device, ROUNDS)
        store.set(f"done{wanted.rank}", "")
        if wanted.rank == 0:  # the store lives here: it must outlive the other's last word
            store.wait(["done1"], patience)
        return {"gbps": 1e-9 * wanted.bytes / seconds}
    except Exception as error:  # noqa: BLE001 (gloo raises whatever it likes; it is the answer)
        return {"error": str(error).splitlines()[0][:300] if str(error) else repr(error)}


def _towards(host: str) -> str | None:
    """Return the network interface that leads to a host (or has its address); None: no idea.

    gloo takes the one that this computer's name resolves to, which need not be the cluster's.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.connect((host, 9))  # sends nothing: only asks for the route
            mine = one.getsockname()[0]
            for _, name in socket.if_nameindex():
                asked = struct.pack("256s", name.encode()[:15])
                with contextlib.suppress(OSError):  # an interface without an address
                    told = fcntl.ioctl(one.fileno(), SIOCGIFADDR, asked)
                    if socket.inet_ntoa(told[20:24]) == mine:
                        return name
    except OSError:
        return None
    return None


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
