"""`holdfast cluster doctor | up | down`: the nodes of one cluster, looked at or prepared."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

from orchestrator.cli.ask import confirm
from orchestrator.cli.output import clean, say, show_rows
from orchestrator.core.jobs import AttemptState
from orchestrator.daemon.sites import build_site
from orchestrator.errors import HoldfastError, TransientError, UserError
from orchestrator.observers.footing import Finding, Verdict, judge, probe

if TYPE_CHECKING:
    from orchestrator.cli.session import Session
    from orchestrator.config.settings import ClusterSettings
    from orchestrator.engines.site import Site

AT_ONCE = 32  #: nodes at the same time
TELL_EVERY = 15.0  #: seconds between two words about a node that waits
PAUSE = 1.0  #: seconds between two tries of a node that waits
T = TypeVar("T")
COLUMNS = {"NODE": "node", "CHECK": "check", "STATE": "verdict", "SAYS": "says", "DO": "remedy"}


def examine(session: Session, name: str, output: str, *, all_: bool) -> None:
    """Show what is wrong with the nodes of a cluster; exits with 1 if one cannot be used."""
    cluster = _settings(session, name)
    site = build_site(session.settings, cluster, visiting=True)
    gpus = {one.name: one.accelerators for one in cluster.machines}
    expected = session.settings.health.expect_gpus

    def look(node: str) -> list[Finding]:
        wanted = gpus[node] if expected is None else expected
        wanted = cluster.accelerators if wanted is None else wanted
        return judge(node, probe(site.footing, node), wanted)

    found = [*_of_provider(site, cluster), *_of_engine(site, cluster)]
    found += [one for _, many in _each(gpus, look) for one in many]
    found.sort(key=lambda one: one.node)
    shown = [one for one in found if all_ or one.verdict is not Verdict.OK]
    show_rows([{**asdict(one), "verdict": one.verdict.value} for one in shown], COLUMNS, output)
    bad = {one.node for one in found if one.verdict is Verdict.BAD}
    say(f"{len(gpus)} nodes: {len(gpus) - len(bad)} can be used, {len(bad)} cannot")
    if bad:
        sys.exit(1)


def prepare(session: Session, name: str, limit: float) -> None:
    """Prepare every node of a cluster; exits with 1 if some are not ready within `limit`."""
    cluster = _settings(session, name)
    site = build_site(session.settings, cluster)
    end = time.monotonic() + limit

    def ready(node: str) -> str:
        tell_at = time.monotonic()
        while True:
            try:
                return site.footing.prepare(node)
            except TransientError as error:
                if time.monotonic() >= end:
                    raise
                if time.monotonic() >= tell_at:
                    say(f"{node}: not yet: {clean(str(error))}")
                    tell_at = time.monotonic() + TELL_EVERY
                time.sleep(PAUSE)

    _tell(_each(map(str, cluster.node_names), _said(ready)), len(cluster.node_names))


def release(session: Session, name: str, *, yes: bool) -> None:
    """Give every node of a cluster back; raises `UserError` while an attempt is open there."""
    cluster = _settings(session, name)
    for one in session.ledger.attempts():
        if str(one.cluster) == name and one.state is not AttemptState.CLOSED:
            raise UserError(
                f"{one.job} runs on {name} (attempt {one.number}): "
                f"`holdfast job stop {one.job}` first, or wait for its end"
            )
    confirm(f"Remove Holdfast from the nodes of {name}?", yes=yes)
    footing = build_site(session.settings, cluster, visiting=True).footing
    _tell(_each(map(str, cluster.node_names), _said(footing.release)), len(cluster.node_names))


def _settings(session: Session, name: str) -> ClusterSettings:
    return next(one for one in session.settings.clusters if one.name == name)


def _of_provider(site: Site, cluster: ClusterSettings) -> Iterator[Finding]:
    """Yield what the provider's own list says against nodes of ours."""
    try:
        listed = {one.node: one for one in site.provider.machines()}
    except HoldfastError as error:
        yield Finding(str(cluster.name), "provider", Verdict.BAD, clean(str(error)), "")
        return
    for node in map(str, cluster.node_names):
        machine = listed.get(node)
        if machine is None:
            yield Finding(node, "provider", Verdict.BAD, "not in the provider's list", "")
        elif machine.cordon:
            says = clean(f"cordoned by {machine.cordoned_by}: {machine.cordon}")
            yield Finding(node, "provider", Verdict.WARN, says, "")


def _of_engine(site: Site, cluster: ClusterSettings) -> Iterator[Finding]:
    """Yield whether the engine's own service answers, where it has one."""
    if site.ask_engine is None:
        return
    try:
        says, verdict = site.ask_engine(), Verdict.OK
    except HoldfastError as error:
        says, verdict = str(error), Verdict.BAD
    yield Finding(str(cluster.name), cluster.engine_name, verdict, clean(says), "")


def _said(act: Callable[[str], str]) -> Callable[[str], tuple[bool, str]]:
    def safely(node: str) -> tuple[bool, str]:
        try:
            return True, act(node)
        except HoldfastError as error:
            return False, str(error)

    return safely


def _each(nodes: Iterable[str], act: Callable[[str], T]) -> Iterator[tuple[str, T]]:
    """Do something on all nodes at once; yield each node's result as it comes."""
    names = list(nodes)
    with ThreadPoolExecutor(max(1, min(AT_ONCE, len(names)))) as pool:
        waiting = {pool.submit(act, node): node for node in names}
        for done in as_completed(waiting):
            yield waiting[done], done.result()


def _tell(results: Iterable[tuple[str, tuple[bool, str]]], count: int) -> None:
    """Say each result as it comes; exits with 1 if one is bad."""
    tally: Counter[bool] = Counter()
    for node, (good, said) in results:
        tally[good] += 1
        say(f"[{tally.total()}/{count}] {node}: {clean(said if good else f'not ready: {said}')}")
    if tally[False]:
        say(f"{tally[False]} of {count} nodes are not ready")
        sys.exit(1)
