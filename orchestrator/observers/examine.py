"""Burn-in of delivered nodes, stage by stage: runs the checks on all nodes, then tests their links.

Every command has its limit, the whole has one too: what is not done by then was not looked at, and
that is no pass. A check that could not tell is asked once more. Nothing is judged here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from healthchecks.pair_rates import SLOW_GLOO, SLOW_NCCL
from orchestrator.core.acceptance import CHECKS, Plan, Ran, Stage, broken
from orchestrator.core.localise import Culprits
from orchestrator.core.rails import Rail
from orchestrator.core.rails import joined as joined_rails
from orchestrator.engines.site import Site
from orchestrator.errors import HoldfastError
from orchestrator.observers.coverage import read
from orchestrator.observers.pairs import PairTester, localise

WORKERS = 64  #: nodes at once
LIMITS = {  #: seconds for one node's run of a stage
    Stage.PASSIVE: 90.0,
    Stage.ACTIVE: 600.0,
    Stage.LOAD: 300.0,  # on top of the soak itself
    Stage.STORAGE: 180.0,
    Stage.TRAINING: 300.0,
    Stage.AFTER: 90.0,
}
LAST = 1.0  #: seconds: less is not worth a start


@dataclass(frozen=True, slots=True)
class Wish:
    """How thoroughly, and for how long at most."""

    soak: float = 600.0  #: seconds under load
    limit: float = 3600.0  #: seconds for everything
    pair_bytes: int = 64 << 20
    pair_limit: float = 20.0  #: seconds of one test of a pair
    leaves: Mapping[str, frozenset[str]] = field(default_factory=dict)
    rails: tuple[Rail, ...] = ()  #: of every node, where they are known


@dataclass(slots=True)
class Examination:
    """One cohort under examination."""

    site: Site
    plan: Plan
    wish: Wish
    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    runs: dict[str, dict[Stage, Ran]] = field(default_factory=dict)

    def examine(self, nodes: Sequence[str]) -> tuple[Culprits | None, str]:
        """Look at all nodes; return what their links amount to, or why nothing is known of them."""
        until = self.clock() + self.wish.limit
        self.runs = {node: {} for node in nodes}
        links: Culprits | None = None
        why = ""
        for stage in Stage:
            if self.clock() >= until:
                self.say(f"{stage}: no time is left")
                continue
            self.say(f"{stage}: {len(nodes)} nodes")
            if stage is Stage.LINKS:
                links, why = self._links(nodes, until)
                continue
            with ThreadPoolExecutor(min(WORKERS, max(1, len(nodes))), "examine") as pool:
                ran = pool.map(lambda node, of=stage: self._stage(node, of, until), nodes)
                for node, one in zip(nodes, ran, strict=True):
                    self.runs[node][stage] = one
        return links, why

    def _links(self, nodes: Sequence[str], until: float) -> tuple[Culprits | None, str]:
        good = [node for node in nodes if not broken(self.runs[node])]
        if len(good) < 2:
            return None, f"{len(good)} of {len(nodes)} nodes were left to test links between"
        gpu = 0 if self.plan.accelerators else None
        leaves = {name: of & set(good) for name, of in self.wish.leaves.items()}
        leaves = {name: of for name, of in leaves.items() if of}
        if not self.wish.rails:
            return self._over(Rail("", gpu), good, leaves, until), ""
        return joined_rails(
            {one.name: self._over(one, good, leaves, until) for one in self.wish.rails}
        ), ""

    def _over(
        self, rail: Rail, nodes: Sequence[str], leaves: Mapping[str, frozenset[str]], until: float
    ) -> Culprits:
        """Localise over one rail; one without a name is whatever the network takes."""
        size, limit = self.wish.pair_bytes, self.wish.pair_limit
        tester = PairTester(self.site, size, limit, rail.gpu, rail.name)
        slow = SLOW_GLOO if rail.gpu is None else SLOW_NCCL
        return localise(nodes, leaves, tester.test, lambda: self.clock() < until, slow)

    def _stage(self, node: str, stage: Stage, until: float) -> Ran:
        wanted = sorted(self.plan.checks(stage))
        if stage is Stage.LOAD:
            return self._under_load(node, wanted, until)
        first = self._run(node, stage, wanted, until)
        blind = [
            one for one in wanted if one not in first.covered and self.plan.excuse(one) is None
        ]
        return joined(first, self._run(node, stage, blind, until)) if blind else first

    def _under_load(self, node: str, wanted: Sequence[str], until: float) -> Ran:
        """Look at the accelerators while all of them work."""
        with ThreadPoolExecutor(1, "load") as pool:
            load = pool.submit(self._run, node, Stage.LOAD, wanted, until)
            meanwhile = Ran()
            if self.plan.accelerators:
                time.sleep(min(self.wish.soak / 2, max(0.0, until - self.clock())))
                names = ["clocks", "brake", "draw", "pcie", "thermal", "nvlink"]
                meanwhile = self._run(node, Stage.PASSIVE, names, until)
            return joined(load.result(), meanwhile)

    def _run(self, node: str, stage: Stage, checks: Sequence[str], until: float) -> Ran:
        soak = self.wish.soak if stage is Stage.LOAD else 0.0
        limit = min(LIMITS[stage] + soak, until - self.clock())
        if limit < LAST:
            return Ran(error="no time was left")
        level = "passive" if CHECKS[stage] is None else "acceptance"
        argv = [*self.site.checks(node), "--level", level, "--only", ",".join(checks), "--idle"]
        argv += ["--soak", f"{soak:g}", "--limit", f"{limit:g}", "--cluster", "-"]
        told = json.dumps(dict(self.plan.expected)).encode()
        try:
            ended = self.site.run(node)(argv, stdin=told, limit=limit)
        except HoldfastError as error:
            return Ran(error=str(error)[:200])
        if not ended.out:
            return Ran(error=ended.err.decode(errors="replace").strip()[-200:] or "no answer")
        return read(ended.out)


def joined(one: Ran, other: Ran) -> Ran:
    """Add a second run to a first: what either covers is covered, all findings stand."""
    kept = {key: why for key, why in one.skipped.items() if key not in other.covered}
    return replace(
        one,
        findings=(*one.findings, *other.findings),
        expected=one.expected | other.expected,
        covered=one.covered | other.covered,
        skipped=kept,
        figures={**one.figures, **other.figures},
        error=one.error or other.error,
    )
