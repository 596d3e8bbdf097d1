"""Six nodes in network namespaces, one behind a slow or dead link: it is named, and nobody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from healthchecks.pair_rates import failed, slowest_of
from orchestrator.core.localise import Localisation, Outcome, PairTest

pytestmark = [pytest.mark.root, pytest.mark.torch]

COUNT = 6
BAD = "n4"
BYTES = 1 << 20
LIMIT = 12.0
PORT = 29_600


def ip(*argv: str) -> None:
    subprocess.run(["ip", *argv], check=True, capture_output=True, timeout=30)


class Node:
    """One node: a namespace with a link to the common bridge, and a server of pair tests."""

    def __init__(self, number: int, mark: str) -> None:
        self.name, self.address = f"n{number}", f"10.213.7.{number + 1}"
        self.space, self.link = f"{mark}n{number}", f"{mark}v{number}"
        ip("netns", "add", self.space)
        ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.space)
        ip("link", "set", self.link, "master", f"{mark}br", "up")
        for argv in (
            ("addr", "add", f"{self.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
        ):
            ip("-n", self.space, *argv)
        self.server: subprocess.Popen[str] | None = None

    def serve(self) -> None:
        self.server = subprocess.Popen(
            ["ip", "netns", "exec", self.space, sys.executable, "-m", "healthchecks.active.pairs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def ask(self, request: dict[str, Any]) -> None:
        assert self.server is not None
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.server is not None
        assert self.server.stdout is not None
        return dict(json.loads(self.server.stdout.readline()))

    def close(self) -> None:
        if self.server is not None:
            self.server.kill()
            self.server.wait()
            for stream in (self.server.stdin, self.server.stdout):
                if stream is not None:
                    stream.close()
        subprocess.run(["ip", "netns", "del", self.space], check=False, capture_output=True)


@pytest.fixture
def nodes() -> Iterator[dict[str, Node]]:
    mark = f"hf{os.getpid() % 10_000}"
    made: list[Node] = []
    try:
        ip("link", "add", f"{mark}br", "type", "bridge")
        ip("link", "set", f"{mark}br", "up")
        for number in range(COUNT):
            made.append(Node(number, mark))
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    else:
        for one in made:
            one.serve()
        yield {one.name: one for one in made}
    finally:
        for one in made:
            one.close()
        subprocess.run(["ip", "link", "del", f"{mark}br"], check=False, capture_output=True)


def slow_down(node: Node) -> None:
    shape = ["tc", "qdisc", "add", "dev", node.link, "root", "tbf", "rate", "16mbit"]
    done = subprocess.run([*shape, "burst", "64kbit", "latency", "400ms"], check=False)
    if done.returncode:
        pytest.skip("no traffic shaping here (tc tbf)")


def cut(node: Node) -> None:
    ip("link", "set", node.link, "down")


def run_round(nodes: dict[str, Node], pairs: tuple[tuple[str, str], ...], number: int) -> Any:
    """Test disjoint pairs side by side."""
    for place, (left, right) in enumerate(pairs):
        base = {"id": number, "host": nodes[left].address, "port": PORT + number * 8 + place}
        for rank, name in enumerate((left, right)):
            nodes[name].ask({**base, "rank": rank, "bytes": BYTES, "limit": LIMIT})
    heard = {pair: [nodes[name].hear() for name in pair] for pair in pairs}
    return {pair: slowest_of(answers) for pair, answers in heard.items()}


@pytest.mark.parametrize("harm", [slow_down, cut], ids=["slow", "dead"])
def test_the_node_behind_a_bad_link_is_named(nodes: dict[str, Node], harm: Any) -> None:
    harm(nodes[BAD])
    state = Localisation(tuple(nodes))
    rates: dict[tuple[str, str], float | None] = {}
    while pairs := state.next_round():
        now = run_round(nodes, pairs, state.rounds)
        verdicts = failed({**rates, **now})  # against what all pairs so far reached
        rates |= now
        state = state.after(PairTest(*pair, failed=verdicts[pair]) for pair in pairs)
    found = state.conclude()
    assert found.outcome is Outcome.FOUND, (found, rates)
    assert found.nodes == {BAD}
    assert found.posterior >= 0.99
