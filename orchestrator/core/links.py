"""What the rounds of a localisation amount to: beliefs of links -> its state, and accusations.

Pure; `assess` folds rounds into beliefs with it, `localising` asks it for the next pairs. Rates are
judged against the usual rate of all tests so far, so each new round may correct what an older test
was taken for.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count, takewhile

from healthchecks.pair_rates import SLOW_GLOO, SLOW_NCCL, failed
from orchestrator.core.beliefs import LinkBelief
from orchestrator.core.judge import LIKELY
from orchestrator.core.localise import Culprits, Localisation, Outcome, PairTest
from orchestrator.core.nodes import NodeName
from orchestrator.core.observations import Accused, PairsTested
from orchestrator.core.verdicts import Channel


def with_round(links: LinkBelief, tested: PairsTested) -> LinkBelief:
    """Return what is held after one more round; of one that is told twice the first stands."""
    rounds = {one.round: one for one in links.rounds}
    known = rounds.get(tested.round)
    if known is None or tested.at < known.at:
        rounds[tested.round] = tested
    return replace(links, rounds=tuple(rounds[number] for number in sorted(rounds)))


def state_of(links: LinkBelief) -> Localisation:
    """Return the localisation after the rounds that are known without a gap, from the first."""
    inquiry = links.inquiry
    known = {one.round: one for one in links.rounds}
    whole = [known[number] for number in takewhile(known.__contains__, count())]
    slow = SLOW_GLOO if inquiry.gpu is None else SLOW_NCCL
    rates: dict[tuple[int, str, str], float | None] = {
        (one.round, rate.left, rate.right): rate.gbps for one in whole for rate in one.rates
    }
    verdicts = failed(rates, slow)
    leaves = {name: frozenset(map(str, nodes)) for name, nodes in inquiry.leaves}
    tests = tuple(PairTest(left, right, bad) for (_, left, right), bad in verdicts.items())
    return Localisation(inquiry.nodes, leaves, tests=tests, rounds=len(whole))


def verdict(links: LinkBelief) -> Culprits | None:
    """Return what came of a localisation; None while there are pairs to be tested."""
    state = state_of(links)
    return None if not state.rounds or state.next_round() else state.conclude()


def accusations(links: LinkBelief) -> tuple[Accused, ...]:
    """Return whom a localisation that is over accuses.

    A set that is sure is evidence against each of its nodes. A best guess that is only likely
    counts as well: one node as a suspicion, several as a group.
    """
    found = verdict(links)
    if found is None or found.outcome in (Outcome.SHARED, Outcome.NOTHING):
        return ()
    named = found.nodes if found.outcome is Outcome.FOUND else found.guess
    if not named or found.posterior < LIKELY:
        return ()
    nodes = tuple(NodeName(one) for one in sorted(named))
    groups = tuple((one,) for one in nodes) if found.explicit else (nodes,)
    return tuple(_accused(links, group, found.posterior) for group in groups)


def _accused(links: LinkBelief, nodes: tuple[NodeName, ...], posterior: float) -> Accused:
    state, inquiry = state_of(links), links.inquiry
    mine = [one.failed for one in state.tests if {one.left, one.right} & set(nodes)]
    rest = [one.failed for one in state.tests if not {one.left, one.right} & set(nodes)]
    evidence = (
        f"{sum(mine)} of {len(mine)} tests with it failed, {sum(rest)} of {len(rest)} without it"
    )
    run = (inquiry.job, inquiry.attempt)
    return Accused(*run, nodes, posterior, Channel.PEERS, evidence, links.tested_at)
