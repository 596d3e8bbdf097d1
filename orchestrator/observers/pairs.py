"""Tests between pairs of nodes: one all-reduce of two ranks, started on both at once.

Which pairs are tested is decided by `core.localise`; here its rounds are carried out, over the
transports of a cluster. A pair that could not be started on a node that is not reached counts as
failed: the transport is how jobs get there as well.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from healthchecks.pair_rates import SLOW_GLOO, failed, slowest_of
from orchestrator.core.localise import Culprits, Localisation, PairTest
from orchestrator.engines.site import Site
from orchestrator.errors import HoldfastError

SIDE_BY_SIDE = 32  #: pairs at once; each has two threads
PORTS = (20_000, 30_000)  #: below those that kernels give to clients
START_MAX = 30.0  #: seconds for torch to be loaded, on top of a test's own limit
RATE_MAX = 1e6  #: 10^9 bytes a second; what a node says is untrusted
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class PairTester:
    """The hands that test pairs of nodes of one cluster."""

    site: Site
    bytes: int = 64 << 20
    limit: float = 20.0  #: seconds of one test
    gpu: int | None = None  #: where NCCL sends from; None: gloo between the hosts
    rail: str = ""  #: the card, or interface, that it must take; "": any

    def test(self, pairs: Sequence[Pair]) -> dict[Pair, float | None]:
        """Test disjoint pairs side by side; their rates in 10^9 bytes a second, None: failed."""
        return {pair: slowest_of(both) for pair, both in self._both(pairs).items()}

    def test_reached(self, pairs: Sequence[Pair]) -> dict[Pair, float | None]:
        """Test as `test` does; pairs of which one could not even be asked are left out.

        That we do not reach a node says nothing about its links to its peers.
        """
        asked = self._both(pairs).items()
        return {
            pair: slowest_of(both)
            for pair, both in asked
            if not any(one.get("unasked") for one in both)
        }

    def _both(self, pairs: Sequence[Pair]) -> dict[Pair, list[dict[str, Any]]]:
        if not pairs:
            return {}
        with ThreadPoolExecutor(min(SIDE_BY_SIDE, len(pairs)), "pairs") as pool:
            return dict(zip(pairs, pool.map(self._pair, pairs), strict=True))

    def _pair(self, pair: Pair) -> list[dict[str, Any]]:
        port = PORTS[0] + secrets.randbelow(PORTS[1] - PORTS[0])
        base = {"id": 1, "host": self.site.host(pair[0]), "port": port}
        base |= {"bytes": self.bytes, "limit": self.limit}
        if self.gpu is not None:
            base["gpu"] = self.gpu
        if self.rail:
            base["rail"] = self.rail
        with ThreadPoolExecutor(2, "pair") as pool:
            both = [
                pool.submit(self._one, node, {**base, "rank": rank})
                for rank, node in enumerate(pair)
            ]
            return [one.result() for one in both]

    def _one(self, node: str, request: Mapping[str, Any]) -> dict[str, Any]:
        argv = [*self.site.checks(node), "--pair", json.dumps(request)]
        try:
            ended = self.site.run(node)(argv, limit=self.limit + START_MAX)
            body = json.loads(ended.out)
            if not isinstance(body, dict):
                return {"error": "no answer", "unasked": True}
            rate = body.get("gbps")
            if isinstance(rate, int | float) and not isinstance(rate, bool) and 0 < rate < RATE_MAX:
                return {"gbps": float(rate)}
            return {"error": "failed", "unasked": body.get("id") is None}  # e.g. it has no torch
        except (HoldfastError, ValueError, RecursionError) as error:
            return {"error": str(error)[:200], "unasked": True}


def localise(
    nodes: Sequence[str],
    leaves: Mapping[str, frozenset[str]],
    test: Callable[[Sequence[Pair]], Mapping[Pair, float | None]],
    go_on: Callable[[], bool],
    slow: float = SLOW_GLOO,
) -> Culprits:
    """Run rounds until it is decided, the rounds are spent, or `go_on` says no.

    Rates are judged against the usual one of all tests so far.
    """
    state = Localisation(tuple(nodes), leaves)
    rates: dict[Pair, float | None] = {}
    while (pairs := state.next_round()) and go_on():
        now = dict(test(pairs))
        verdicts = failed({**rates, **now}, slow)
        rates |= now
        state = state.after(PairTest(*pair, failed=verdicts[pair]) for pair in pairs)
    return state.conclude()
