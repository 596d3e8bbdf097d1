"""Which nodes, or which leaf switch, make tests between pairs of nodes fail. Pure.

A test of a pair fails if one of the two is bad; it may also fail for nothing, or miss. Rounds of
disjoint pairs run in parallel: first everybody, then suspects against nodes that proved good. After
each round every explanation is weighed (Bayes): nothing, up to three bad nodes, one bad leaf
switch. It stops when one explanation is sure, and says so when none is; if more fails than three
nodes or one leaf explain, the cause is shared by all and no node is accused.

Adaptive group testing with noise; disjoint pairs as in DLRover's network check, which always stops
after two rounds. Rails of NICs are localised one by one (`rails.py`).
Explanations with the same nodes cannot be told apart by any test of pairs; their weights add up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import combinations

BAD_MAX = 3  #: bad nodes that an explanation may have
CANDIDATES = 20  #: nodes that explanations are built of; with more nodes, the most suspicious
SURE = 0.997  #: of an explanation, to stop
NAMED = 0.99  #: of an explanation, to be named when the rounds are used up
LEAK = 0.002  #: of suspicion left on nodes that are no candidates, to stop
PRIOR_NOTHING, PRIOR_LEAF = 0.25, 0.2  #: the rest belongs to nodes, one to three alike
PROVEN = 0.999  #: suspicion of one node more than an explanation may have: too many are bad
UNEXPLAINED = 1e-4  #: chance of as many unexplained failures: below, the cause is shared


class Outcome(StrEnum):
    """What came of it."""

    FOUND = "found"
    NOTHING = "nothing"  #: no node is bad
    SHARED = "shared"  #: no set of at most three nodes and no leaf explains it
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class Noise:
    """How far a single test can be trusted."""

    alarm: float = 0.05  #: chance that a good pair fails
    miss: float = 0.05  #: chance that a bad pair passes

    def weight(self, failed: bool) -> float:
        """Return the logarithm of how much likelier this outcome is with a bad node."""
        if failed:
            return math.log((1 - self.miss) / self.alarm)
        return math.log(self.miss / (1 - self.alarm))


@dataclass(frozen=True, slots=True)
class PairTest:
    """One test that was run."""

    left: str
    right: str
    failed: bool


@dataclass(frozen=True, slots=True)
class Culprits:
    """What the tests say, with the posterior of it."""

    outcome: Outcome
    nodes: frozenset[str] = frozenset()  #: accused; of a leaf, all its nodes
    leaf: str | None = None  #: the switch that explains it as well
    posterior: float = 0.0  #: of the best explanation
    suspicion: Mapping[str, float] = field(default_factory=dict)  #: chance that a node is bad
    reason: str = ""
    guess: frozenset[str] = frozenset()  #: the best explanation where none is sure
    rails: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  #: bad ones, see `rails`

    @property
    def explicit(self) -> bool:
        """Say whether this set alone is evidence enough against its nodes."""
        return self.outcome is Outcome.FOUND and self.posterior >= NAMED


def rounds_max(nodes: int) -> int:
    """Return how many rounds are enough: 2 log2 N + 6."""
    return int(2 * math.log2(max(2, nodes)) + 6)


@dataclass(frozen=True)
class Localisation:
    """The state between two rounds: who is tested, and what came of the tests so far.

    `leaves` maps a leaf switch to its nodes; nodes of no leaf are allowed.
    """

    nodes: tuple[str, ...]
    leaves: Mapping[str, frozenset[str]] = field(default_factory=dict)
    noise: Noise = Noise()
    tests: tuple[PairTest, ...] = ()
    rounds: int = 0

    def __post_init__(self) -> None:
        """Refuse nodes that are named twice, and leaves with strangers."""
        if len(set(self.nodes)) != len(self.nodes):
            raise ValueError("a node is named twice")
        strangers = {one for leaf in self.leaves.values() for one in leaf} - set(self.nodes)
        if strangers:
            raise ValueError(f"a leaf has nodes that are not tested: {sorted(strangers)}")

    def after(self, results: Iterable[PairTest]) -> Localisation:
        """Return the state after another round; pairs that could not be tested are left out."""
        return Localisation(
            self.nodes, self.leaves, self.noise, (*self.tests, *results), self.rounds + 1
        )

    def next_round(self) -> tuple[tuple[str, str], ...]:
        """Return the disjoint pairs to test next; none if it is decided or the rounds are spent."""
        if len(self.nodes) < 2 or self.rounds >= rounds_max(len(self.nodes)):
            return ()
        if self.rounds < self._screenings:
            return self._circle(self.rounds)
        if self._sure is not None or self._shared:
            return ()
        return self._doubtful_pairs()

    def conclude(self) -> Culprits:
        """Say what the tests so far amount to."""
        suspicion = dict(zip(self.nodes, self._book.suspicion, strict=True))
        if not self.tests:
            return Culprits(Outcome.UNSURE, suspicion=suspicion, reason="nothing was tested")
        if self._shared:
            reason = "more pairs fail than three nodes or one leaf explain"
            return Culprits(Outcome.SHARED, suspicion=suspicion, reason=reason)
        if self._sure is not None:
            return self._found(self._sure, suspicion)
        return self._unsure(suspicion)

    # --- deciding

    @cached_property
    def _book(self) -> _Book:
        return _Book.of(self)

    @property
    def _screenings(self) -> int:
        """Everybody is tested so often before suspects are: a miss must not clear a bad node."""
        return 1 if len(self.nodes) <= CANDIDATES else 3

    @property
    def _sure(self) -> frozenset[int] | None:
        best, posterior = self._book.best
        spent = self.rounds >= rounds_max(len(self.nodes))
        enough = posterior >= (NAMED if spent else SURE)
        return best if enough and self._book.leak <= LEAK else None

    @cached_property
    def _shared(self) -> bool:
        """Whether failures that the best explanation leaves unexplained are too many for chance."""
        if self.rounds < max(2, self._screenings):
            return False
        best, _ = self._book.best
        if any(one > PROVEN for one in self._book.beyond.values()):
            return True
        rest = [failed for i, j, failed in self._book.tests if not best & {i, j}]
        return _at_least(sum(rest), len(rest), self.noise.alarm) < UNEXPLAINED

    def _found(self, best: frozenset[int], suspicion: Mapping[str, float]) -> Culprits:
        _, posterior = self._book.best
        accused = frozenset(self.nodes[one] for one in best)
        if not accused:
            return Culprits(Outcome.NOTHING, posterior=posterior, suspicion=suspicion)
        leaf = next((name for name, of in self.leaves.items() if of == accused), None)
        where = f"leaf {leaf}" if leaf else ", ".join(sorted(accused))
        reason = f"{where}: posterior {posterior:.4f} after {len(self.tests)} tests of pairs"
        return Culprits(Outcome.FOUND, accused, leaf, posterior, suspicion, reason)

    def _unsure(self, suspicion: Mapping[str, float]) -> Culprits:
        """Name nobody, and say what the best guess is."""
        best, posterior = self._book.best
        names = ", ".join(sorted(self.nodes[one] for one in best)) or "no node"
        reason = f"best guess {names}, posterior {posterior:.2f} only"
        guess = frozenset(self.nodes[one] for one in best)
        unsure = Outcome.UNSURE
        return Culprits(unsure, frozenset(), None, posterior, suspicion, reason, guess)

    # --- choosing pairs

    def _circle(self, number: int) -> tuple[tuple[str, str], ...]:
        """Return one round of a round robin (circle method): everybody meets somebody new."""
        ring: list[str | None] = [*self.nodes, *([None] if len(self.nodes) % 2 else [])]
        first, rest = ring[0], ring[1:]
        turned = [first, *rest[number:], *rest[:number]]
        half = len(ring) // 2
        pairs = zip(turned[:half], reversed(turned[half:]), strict=True)
        return tuple((a, b) for a, b in pairs if a is not None and b is not None)

    def _doubtful_pairs(self) -> tuple[tuple[str, str], ...]:
        book = self._book
        chosen = book.best_pairs() if len(self.nodes) <= CANDIDATES else book.suspects_with_good()
        return tuple((self.nodes[i], self.nodes[j]) for i, j in chosen)


@dataclass(frozen=True)
class _Book:
    """The weights of all explanations, by the nodes' places."""

    count: int
    tests: tuple[tuple[int, int, bool], ...]
    noise: Noise
    leaves: tuple[frozenset[int], ...]

    @staticmethod
    def of(state: Localisation) -> _Book:
        place = {name: number for number, name in enumerate(state.nodes)}
        tests = tuple((place[one.left], place[one.right], one.failed) for one in state.tests)
        leaves = tuple(frozenset(place[one] for one in of) for of in state.leaves.values())
        return _Book(len(state.nodes), tests, state.noise, leaves)

    @cached_property
    def single(self) -> list[float]:
        """For each node the weight of "it alone is bad", against "none is"."""
        weights = [0.0] * self.count
        for i, j, failed in self.tests:
            weight = self.noise.weight(failed)
            weights[i] += weight
            weights[j] += weight
        return weights

    @cached_property
    def loose(self) -> list[float]:
        """For each node roughly the chance that it is bad, a partner's guilt explaining its own.

        A few turns of belief propagation; good enough to know whom to look at.
        """
        prior = math.log((1 + BAD_MAX) / 2 / self.count)
        chance = [math.exp(prior)] * self.count
        alarm, hit = self.noise.alarm, 1 - self.noise.miss
        for _ in range(4):
            odds = [prior] * self.count
            for i, j, failed in self.tests:
                for one, other in ((i, j), (j, i)):
                    innocent = alarm + (hit - alarm) * min(chance[other], 0.98)
                    guilty = hit
                    odds[one] += math.log(
                        guilty / innocent if failed else (1 - guilty) / (1 - innocent)
                    )
            chance = [1 / (1 + math.exp(-max(-60.0, min(60.0, one)))) for one in odds]
        return chance

    @cached_property
    def candidates(self) -> list[int]:
        order = sorted(range(self.count), key=lambda one: -self.loose[one])
        return sorted(order[:CANDIDATES])

    @cached_property
    def between(self) -> dict[tuple[int, int], float]:
        """For each pair that was tested, the weight that both nodes' weights count twice."""
        twice: dict[tuple[int, int], float] = {}
        for i, j, failed in self.tests:
            key = (min(i, j), max(i, j))
            twice[key] = twice.get(key, 0.0) + self.noise.weight(failed)
        return twice

    @cached_property
    def posterior(self) -> dict[frozenset[int], float]:
        """The chance of each explanation that is built of candidates, by its set of nodes."""
        weights: dict[frozenset[int], float] = {frozenset(): math.log(PRIOR_NOTHING)}
        most = min(BAD_MAX, self.count - 1)
        share = (1 - PRIOR_NOTHING - (PRIOR_LEAF if self.leaves else 0.0)) / most
        for size in range(1, most + 1):
            prior = math.log(share / math.comb(self.count, size))
            for group in combinations(self.candidates, size):
                weights[frozenset(group)] = prior + self._weight(group)
        for leaf in self.leaves:
            own = math.log(PRIOR_LEAF / len(self.leaves)) + self._weight_of_many(leaf)
            weights[leaf] = _log_sum(weights[leaf], own) if leaf in weights else own
        top = max(weights.values())
        total = sum(math.exp(one - top) for one in weights.values())
        return {of: math.exp(one - top) / total for of, one in weights.items()}

    def _weight(self, group: tuple[int, ...]) -> float:
        alone = sum(self.single[one] for one in group)
        return alone - sum(self.between.get(pair, 0.0) for pair in combinations(group, 2))

    def _weight_of_many(self, group: frozenset[int]) -> float:
        return sum(
            self.noise.weight(failed) for i, j, failed in self.tests if i in group or j in group
        )

    @cached_property
    def best(self) -> tuple[frozenset[int], float]:
        return max(self.posterior.items(), key=lambda one: one[1])

    @cached_property
    def leaf_fits(self) -> bool:
        return any(self.posterior[one] > 0.5 for one in self.leaves)

    @cached_property
    def beyond(self) -> dict[int, float]:
        """Who else is suspected, of those that no explanation can hold: one bad node too many.

        Empty for explanations that could hold another node, and for leaves.
        """
        best, _ = self.best
        if self.leaf_fits or len(best) < BAD_MAX or self.count <= 2 * BAD_MAX + 1:
            return {}
        return {one: chance for one, chance in enumerate(self.loose) if one not in best}

    @cached_property
    def leak(self) -> float:
        """How much suspicion rests on nodes that the explanations leave out."""
        if self.leaf_fits:
            return 0.0
        if self.beyond:
            return sum(self.beyond.values())
        return sum(one for number, one in enumerate(self.loose) if number not in self.candidates)

    @cached_property
    def suspicion(self) -> list[float]:
        """For each node the chance that it is bad."""
        inside = set(self.candidates)
        chance = [0.0 if one in inside else self.loose[one] for one in range(self.count)]
        if self.leaf_fits:
            chance = [0.0] * self.count
        for group, weight in self.posterior.items():
            for one in group:
                chance[one] += weight
        for one, loose in self.beyond.items():
            chance[one] = max(chance[one], loose)
        return [min(1.0, one) for one in chance]

    def best_pairs(self) -> list[tuple[int, int]]:
        """Return disjoint pairs, those that tell the most first (mutual information)."""
        both: dict[tuple[int, int], float] = {}
        for group, weight in self.posterior.items():
            for pair in combinations(sorted(group), 2):
                both[pair] = both.get(pair, 0.0) + weight
        met = self._meetings()
        told = []
        for i, j in combinations(range(self.count), 2):
            touched = self.suspicion[i] + self.suspicion[j] - both.get((i, j), 0.0)
            told.append((-self._information(touched), met.get((i, j), 0), i, j))
        return _disjoint((i, j) for _, _, i, j in sorted(told))

    def suspects_with_good(self) -> list[tuple[int, int]]:
        """Return each suspect with a node that proved good and that it has not met."""
        doubt = [min(one, 1 - one) for one in self.suspicion]
        suspects = [one for one in range(self.count) if doubt[one] > LEAK / (2 * self.count)]
        suspects.sort(key=lambda one: -doubt[one])
        suspects = suspects[: max(2, self.count // 2)]
        good = sorted(set(range(self.count)) - set(suspects), key=lambda one: self.suspicion[one])
        good = [one for one in good if self.suspicion[one] < 0.5]
        met = self._meetings()
        pairs = []
        for suspect in suspects:
            free = [one for one in good[:8] if (min(one, suspect), max(one, suspect)) not in met]
            if not good:
                break
            partner = free[0] if free else good[0]
            good.remove(partner)
            pairs.append((suspect, partner))
        return pairs

    def _meetings(self) -> dict[tuple[int, int], int]:
        met: dict[tuple[int, int], int] = {}
        for i, j, _ in self.tests:
            key = (min(i, j), max(i, j))
            met[key] = met.get(key, 0) + 1
        return met

    def _information(self, touched: float) -> float:
        """Return what a test tells of an explanation that holds with this chance, in nats."""
        alarm, hit = self.noise.alarm, 1 - self.noise.miss
        touched = min(1.0, max(0.0, touched))
        fails = alarm + (hit - alarm) * touched
        known = touched * _entropy(hit) + (1 - touched) * _entropy(alarm)
        return round(_entropy(fails) - known, 12)


def _disjoint(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    used: set[int] = set()
    chosen = []
    for i, j in pairs:
        if i not in used and j not in used:
            used |= {i, j}
            chosen.append((i, j))
    return chosen


def _entropy(chance: float) -> float:
    if not 0 < chance < 1:
        return 0.0
    return -chance * math.log(chance) - (1 - chance) * math.log(1 - chance)


def _log_sum(one: float, other: float) -> float:
    top = max(one, other)
    return top + math.log(math.exp(one - top) + math.exp(other - top))


def _at_least(seen: int, of: int, chance: float) -> float:
    """Return the chance of this many or more, by the binomial distribution."""
    if seen <= of * chance:
        return 1.0
    terms = (
        math.lgamma(of + 1)
        - math.lgamma(k + 1)
        - math.lgamma(of - k + 1)
        + k * math.log(chance)
        + (of - k) * math.log(1 - chance)
        for k in range(seen, of + 1)
    )
    return min(1.0, sum(math.exp(one) for one in terms))
