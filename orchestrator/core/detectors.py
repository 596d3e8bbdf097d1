"""Authority is earned: which detector (`check:code`) may evict a node on its word alone.

A detector's firings are labelled later (`labels.py`): right, wrong, or never. After every label two
running tests are looked at. Both may be looked at as often as one likes, which no fixed-sample test
and no interval around the mean may.

*Promotion* (observe -> act) is a test martingale against "its precision is at most
`PRECISION_MIN`". Each label multiplies a bet on `PRECISION_GOOD` by its likelihood ratio (Wald's
sequential probability ratio test, one-sided). The bet of a whole life is 1: half is placed on the
first label, the rest is spread over all later ones (`_unspent`), so that a bad youth can be made up
for. By Ville's inequality a detector that is never better than `PRECISION_MIN`, whatever the
dependence between its labels, is promoted *ever* with a probability of at most `ALPHA`. A demotion
throws the winnings away and gives nothing back: that is a loss at a fair game, so the bound holds
over any number of demotions and second chances.

*Demotion* (act -> observe) is a Shiryaev-Roberts change detector, the sum over all moments at which
the precision may have fallen below `PRECISION_KEPT`, averaged over three depths of the fall
(`PRECISIONS_LOST`). One that is as good as `PRECISION_KEPT` is demoted after `DOUBT_MAX` labels on
average at the earliest (an e-detector's run length).

Sources: Wald 1945; Ville 1939; Shin, Ramdas, Rinaldo, "E-detectors" 2022. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

PRECISION_MIN = 0.94  #: at most this good: promoted with a probability of at most ALPHA, ever
PRECISION_GOOD = 0.995  #: what a promotion bets on
ALPHA = 0.005
PRECISION_KEPT = 0.98  #: at least this good: demoted once in DOUBT_MAX labels at most
PRECISIONS_LOST = (0.9, 0.8, 0.5)  #: how far a detector may have fallen
DOUBT_MAX = 1_000.0
LATELY_MAX = 20  #: labels that are remembered one by one, for people
Z_90 = 1.6449  #: of the normal distribution, for an interval of 90 %


class Authority(StrEnum):
    """What a detector's CRITICAL finding may do."""

    OBSERVE = "observe"  #: it is a suspicion: it needs a second channel
    ACT = "act"  #: it evicts alone, within the limits


@dataclass(frozen=True, slots=True)
class Prior:
    """What is held of a detector before its first label, in labels that never were."""

    right: float
    wrong: float


#: Of a fault that the driver or the device names itself (`policy.explicit`); of all others.
DECLARED, UNKNOWN = Prior(99.0, 1.0), Prior(1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Label:
    """What came of one firing."""

    node: str
    fired_at: datetime
    at: datetime  #: when it was known
    right: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Detector:
    """The record of one detector. `authority` None: never promoted nor demoted, as declared."""

    name: str
    authority: Authority | None = None
    since: datetime | None = None  #: of the last promotion or demotion
    reason: str = ""
    right: int = 0
    wrong: int = 0
    unlabelled: int = 0
    wealth: float = 0.0  #: what the promotion's bets are worth, of 1 at birth; 1 / ALPHA promotes
    doubt: tuple[float, ...] = (0.0,) * len(PRECISIONS_LOST)
    lately: tuple[Label, ...] = ()  #: the last labels, oldest first

    @property
    def labels(self) -> int:
        """How many firings were labelled right or wrong."""
        return self.right + self.wrong

    @property
    def doubted(self) -> float:
        """How strongly the labels say that it got worse; `DOUBT_MAX` demotes."""
        return sum(self.doubt) / len(self.doubt)

    def learn(self, *, right: bool) -> Detector:
        """Return the record after one more label."""
        good = _ratio(PRECISION_GOOD, PRECISION_MIN, right=right)
        stake = _unspent(self.labels) - _unspent(self.labels + 1)
        return replace(
            self,
            right=self.right + right,
            wrong=self.wrong + (not right),
            wealth=min((self.wealth + stake) * good, 1 / ALPHA),
            doubt=tuple(
                min((one + 1) * _ratio(lost, PRECISION_KEPT, right=right), 1e6 * DOUBT_MAX)
                for one, lost in zip(self.doubt, PRECISIONS_LOST, strict=True)
            ),
        )

    def told(self, label: Label) -> Detector:
        """Return the record after a label, which is also remembered for people."""
        return replace(self.learn(right=label.right), lately=(*self.lately, label)[-LATELY_MAX:])

    def due(self, authority: Authority) -> tuple[Authority, str] | None:
        """Return (other authority, why) if the labels call for it; `authority` is the present."""
        if authority is Authority.OBSERVE and self.wealth >= 1 / ALPHA:
            odds = f"at most {PRECISION_MIN:g} would show this in 1 of {1 / ALPHA:g} lives"
            return Authority.ACT, f"{self.score}; a precision of {odds}"
        if authority is Authority.ACT and self.doubted >= DOUBT_MAX:
            odds = f"at least {PRECISION_KEPT:g} shows this once in {DOUBT_MAX:g} labels"
            return Authority.OBSERVE, f"{self.score}; a precision of {odds}"
        return None

    def given(self, authority: Authority, at: datetime, reason: str) -> Detector:
        """Return the record with another authority. What was won is lost with a demotion."""
        moved = replace(self, authority=authority, since=at, reason=reason)
        if authority is Authority.OBSERVE:
            return replace(moved, wealth=0.0)
        return replace(moved, doubt=(0.0,) * len(PRECISIONS_LOST))

    @property
    def score(self) -> str:
        """Say how its labels stand: "93 of 94 labels right, 9 of the last 10"."""
        if not self.labels:
            return "no label yet"
        words = f"{self.right} of {self.labels} labels right"
        last = self.lately[-10:]
        if len(last) == self.labels:
            return words
        return f"{words}, {sum(one.right for one in last)} of the last {len(last)}"

    def precision(self, prior: Prior) -> float:
        """Return the posterior mean of the share of its firings that are right."""
        return (self.right + prior.right) / (self.labels + prior.right + prior.wrong)

    def interval(self) -> tuple[float, float]:
        """Return Wilson's 90 % interval of its precision from its labels alone."""
        n = self.labels
        if n == 0:
            return (0.0, 1.0)
        share, slack = self.right / n, Z_90**2 / n
        middle = (share + slack / 2) / (1 + slack)
        half = Z_90 * math.sqrt(share * (1 - share) / n + slack / (4 * n)) / (1 + slack)
        return (max(0.0, middle - half), min(1.0, middle + half))


def _unspent(labels: int) -> float:
    """Return how much of the bet of a life is not placed yet after so many labels.

    It falls so slowly that a detector that turned good after thousands of labels still has
    something to bet: from 1 to a half with the first label, then as one over the logarithm.
    """
    return 1.0 if labels == 0 else 0.5 / (1 + math.log(labels))


def _ratio(other: float, null: float, *, right: bool) -> float:
    """Return how much likelier a label is under another precision than under the null."""
    return other / null if right else (1 - other) / (1 - null)
