"""`python -m bench.phases [-o json] [--share 0.1] [--only PART]`: how well phases are found.

The engine (`orchestrator.core.phases`) knows no rate beforehand; its peers know everything: a CUSUM
that knows the rate before and after the change, tuned to the same false changes in the same run,
and an oracle that writes checkpoints at the best interval for the true rate. Failures are drawn
with the seeds that are printed. `--share` makes it shorter by doing that share of the runs.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import exp, log

from orchestrator.core.cadence import exact, waste
from orchestrator.core.phases import SURE, WEEK, Phases
from orchestrator.core.policies import Policy

BEGIN = datetime(2026, 1, 5, tzinfo=UTC)
LEARN, YEAR = 26.0, 52.0  #: weeks
#: row, nodes, failures a week: Table 4 of the source
TABLE4 = (
    ("A-stable", 250.0, 3.0),
    ("A-early", 250.0, 20.0),
    ("B", 37.5, 0.2),
    ("C-300-stable", 37.5, 3.0),
    ("C-100-stable", 12.5, 3.0),
    ("C-100-early", 12.5, 30.0),
    ("D", 37.5, 2.0),
)
COSTS = (5.0, 60.0, 300.0)  #: seconds that a blocking write takes
FIXED = (15.0, 30.0, 60.0, 180.0)  #: minutes


def moment(week: float) -> datetime:
    """Return the moment that many weeks after the beginning."""
    return BEGIN + WEEK * week


def failures(dice: random.Random, rate: float, begin: float, end: float) -> Iterator[float]:
    """Yield the weeks of a Poisson process."""
    week = begin + dice.expovariate(rate)
    while week < end:
        yield week
        week += dice.expovariate(rate)


# --- changes of phase ---------------------------------------------------------------------------


@dataclass
class Cusum:
    """The peer: knows both rates, alarms when the log-likelihood ratio has risen by `limit`."""

    before: float
    after: float
    limit: float
    week: float = 0.0
    height: float = 0.0

    def failed(self, week: float) -> bool:
        """Take one failure, and say whether the alarm is on behind it."""
        fall = (self.after - self.before) * (week - self.week)
        self.height = max(0.0, self.height - fall)
        self.on_before = self.height > self.limit
        self.height += log(self.after / self.before)
        self.week = week
        return self.height > self.limit


def crossings(base: float, ratio: float, limit: float, quiet: list[list[float]]) -> float:
    """Return the false alarms of a CUSUM per cohort-year on quiet weeks behind the first 26."""
    total = 0
    for weeks in quiet:
        peer = Cusum(base, base * ratio, limit)
        for week in weeks:
            on = peer.failed(week)
            total += on and not peer.on_before and week > LEARN
    return total / len(quiet)


def tuned(base: float, ratio: float, false: float, quiet: list[list[float]]) -> float:
    """Return the lowest limit at which the CUSUM raises no more false alarms than the engine."""
    low, high = 0.0, 14.0
    for _ in range(12):
        middle = (low + high) / 2
        if crossings(base, ratio, middle, quiet) <= false:
            high = middle
        else:
            low = middle
    return high


def quiet_years(
    base: float, nodes: float, runs: int, seed: int
) -> tuple[list[list[float]], list[Phases], float]:
    """Return (failures, what is held after 26 weeks, false changes per cohort-year after that)."""
    drawn, learnt, false = [], [], 0
    for run in range(runs):
        dice = random.Random(f"quiet {seed} {base} {nodes} {run}")
        weeks = list(failures(dice, base, 0.0, LEARN + YEAR))
        drawn.append(weeks)
        phases, held = Phases.begin(BEGIN, nodes), None
        for week in weeks:
            if held is None and week > LEARN:
                held = phases
            now = moment(week)
            before = phases.at(now).p_chaotic > SURE
            phases = phases.failed(now)
            false += phases.p_chaotic > SURE and not before and week > LEARN
        learnt.append(held or phases)
    return drawn, learnt, false / runs


def delay(phases: Phases, base: float, ratio: float, dice: random.Random) -> float:
    """Return the days until P(chaotic) > .9 after the rate has risen at week 26."""
    for week in failures(dice, base * ratio, LEARN, LEARN + YEAR):
        phases = phases.failed(moment(week))
        if phases.p_chaotic > SURE:
            return (week - LEARN) * 7
    return float("inf")


def peer_delay(
    quiet: list[float], base: float, ratio: float, limit: float, dice: random.Random
) -> float:
    """Return the days until the CUSUM alarms on the same failures."""
    peer = Cusum(base, base * ratio, limit)
    for week in quiet:
        if week < LEARN:
            peer.failed(week)
    for week in failures(dice, base * ratio, LEARN, LEARN + YEAR):
        if peer.failed(week):
            return (week - LEARN) * 7
    return float("inf")


def detection(runs: int, seed: int) -> list[dict[str, object]]:
    """Measure how soon changes are found, beside the CUSUM."""
    grid = [
        (f"{base:g}/week x{r}", 100.0, base, float(r)) for base in (2, 3) for r in (3, 4, 6, 10)
    ]
    cases = [("A: 3 -> 20", 250.0, 3.0, 20 / 3), ("C-100: 3 -> 30", 12.5, 3.0, 10.0), *grid]
    histories: dict[tuple[float, float], tuple[list[list[float]], list[Phases], float]] = {}
    rows = []
    for name, nodes, base, ratio in cases:
        if (base, nodes) not in histories:
            histories[base, nodes] = quiet_years(base, nodes, runs, seed)
        quiet, learnt, false = histories[base, nodes]
        limit = tuned(base, ratio, false, quiet)
        ours, peers = [], []
        for run in range(runs):
            name_of_dice = f"change {seed} {base} {nodes} {ratio} {run}"
            ours.append(delay(learnt[run], base, ratio, random.Random(name_of_dice)))
            dice = random.Random(name_of_dice)
            peers.append(peer_delay(quiet[run], base, ratio, limit, dice))
        mine, other = statistics.median(ours), statistics.median(peers)
        rows.append(
            {
                "case": name,
                "runs": runs,
                "days": round(mine, 2),
                "cusum_days": round(other, 2),
                "times_cusum": round(mine / other, 2),
                "false_per_year": round(false, 3),
                "cusum_false_per_year": round(crossings(base, ratio, limit, quiet), 3),
            }
        )
    return rows


# --- the interval of the rate -------------------------------------------------------------------


def eras(dice: random.Random, rate: float, end: float) -> Iterator[tuple[float, float, float]]:
    """Yield (begin, end, rate) of a cohort that changes its phase: ten weeks calm, two wild."""
    week, wild = 0.0, dice.random() < 0.5
    ratio = dice.choice((3.0, 4.0, 6.0, 10.0))
    while week < end:
        until = min(end, week + dice.expovariate(0.5 if wild else 0.1))
        yield week, until, rate * ratio if wild else rate
        week, wild = until, not wild


def covered(run: int, seed: int, *, changing: bool) -> tuple[str, bool, float]:
    """Return (row, whether the interval held the true rate, mean over truth) at a random moment."""
    dice = random.Random(f"interval {seed} {run} {changing}")
    rows = [row for row in TABLE4 if not (changing and row[0].endswith("early"))]
    name, nodes, rate = rows[run % len(rows)]
    end = dice.uniform(4.0, 52.0)
    spans = list(eras(dice, rate, end)) if changing else [(0.0, end, rate)]
    phases = Phases.begin(BEGIN, nodes)
    for begin, until, present in spans:
        for week in failures(dice, present, begin, until):
            phases = phases.failed(moment(week))
    truth = spans[-1][2] / nodes
    now = phases.at(moment(end))
    low, high = now.interval()
    return name, low <= truth <= high, now.rate / truth


def intervals(runs: int, seed: int) -> dict[str, object]:
    """Measure how often the 90 % interval of the present rate holds the true one."""
    told: dict[str, object] = {"moments": runs}
    every: list[bool] = []
    for changing in (False, True):
        found = [covered(run, seed, changing=changing) for run in range(runs // 2)]
        held = [one[1] for one in found]
        every += held
        rows = {}
        for name in dict.fromkeys(one[0] for one in found):
            mine = [one for one in found if one[0] == name]
            rows[name] = {
                "covered": round(statistics.mean(one[1] for one in mine), 3),
                "mean_over_truth": round(exp(statistics.mean(log(one[2]) for one in mine)), 2),
            }
        kind = "two_phases" if changing else "steady"
        told[kind] = {"covered": round(statistics.mean(held), 3), "rows": rows}
    told["covered"] = round(statistics.mean(every), 3)
    return told


# --- what it is worth ---------------------------------------------------------------------------


def asked(phases: Phases, nodes: float, cost: float, policy: Policy) -> float:
    """Return the interval in hours that would be asked for."""
    mtbf = 168 / (phases.rate * nodes)
    hours = exact(cost / 3600, mtbf)
    low, high = (one / timedelta(hours=1) for one in (policy.checkpoint_min, policy.checkpoint_max))
    return max(low, min(high, hours))


def year(
    nodes: float, spans: list[tuple[float, float, float]], dice: random.Random
) -> dict[float, dict[str, float]]:
    """Return per cost of a write the share of a year that goes into writes and lost work.

    The interval follows the outlook as `pacing` does: renewed after each failure and then in steps
    that grow, and changed only if it differs by the policy's share.
    """
    policy = Policy()
    total = {cost: dict.fromkeys(("learned", "oracle", *map(str, FIXED)), 0.0) for cost in COSTS}
    every: dict[float, float] = {}
    phases = Phases.begin(BEGIN, nodes)
    end = spans[-1][1]
    for begin, until, rate in spans:
        mtbf = 168 / rate
        best = {cost: exact(cost / 3600, mtbf) for cost in COSTS}
        moments = [*failures(dice, rate, begin, until), until]
        last = begin
        for week in moments:
            for start, stop in steps(phases, last, week):
                now = phases.at(moment(start))
                for cost in COSTS:
                    wish = asked(now, nodes, cost, policy)
                    old = every.get(cost)
                    if old is None or abs(log(wish / old)) >= log(1 + policy.checkpoint_change):
                        every[cost] = wish
                    share, hours = (stop - start) / end, cost / 3600
                    mine = total[cost]
                    mine["learned"] += share * waste(every[cost], hours, mtbf)
                    mine["oracle"] += share * waste(best[cost], hours, mtbf)
                    for minutes in FIXED:
                        mine[str(minutes)] += share * waste(minutes / 60, hours, mtbf)
            if week < until:
                phases = phases.failed(moment(week))
            last = week
    return total


def steps(phases: Phases, begin: float, end: float) -> Iterator[tuple[float, float]]:
    """Yield the spans between which the outlook of a cohort is not renewed (see `outlook`)."""
    from orchestrator.core.outlook import STEP_FIRST, STEP_GROWTH

    start = (phases.seen_at - BEGIN) / WEEK
    step, last = STEP_FIRST / WEEK, begin
    while start + step < end:
        if start + step > last:
            yield last, start + step
            last = start + step
        step *= STEP_GROWTH
    yield last, end


def worth(seeds: int, seed: int) -> list[dict[str, object]]:
    """Measure overhead and lost work with the learned interval, the oracle's, and fixed ones."""
    rows = [(name, nodes, [(0.0, YEAR, rate)]) for name, nodes, rate in TABLE4]
    rows.append(("two phases", 250.0, [(0.0, 12.0, 20.0), (12.0, YEAR, 3.0)]))
    found = {}
    for name, nodes, spans in rows:
        years = [
            year(nodes, spans, random.Random(f"worth {seed} {name} {n}")) for n in range(seeds)
        ]
        found[name] = {
            cost: {way: statistics.mean(y[cost][way] for y in years) for way in years[0][cost]}
            for cost in COSTS
        }
    table4 = [name for name, _, _ in TABLE4]
    told = []
    for cost in COSTS:
        ways = found["D"][cost]
        means = {way: statistics.mean(found[n][cost][way] for n in table4) for way in ways}
        told.append(
            {
                "cost_seconds": cost,
                "years_per_row": seeds,
                "lost_percent": {way: round(100 * share, 3) for way, share in means.items()},
                "times_oracle": round(means["learned"] / means["oracle"], 3),
                "times_oracle_rows": {
                    name: round(found[name][cost]["learned"] / found[name][cost]["oracle"], 3)
                    for name in found
                },
            }
        )
    return told


PARTS: dict[str, Callable[[float, int], object]] = {
    "detection": lambda share, seed: detection(max(4, round(300 * share)), seed),
    "intervals": lambda share, seed: intervals(max(14, round(1000 * share)), seed),
    "worth": lambda share, seed: worth(max(1, round(8 * share)), seed),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.phases", description=__doc__)
    parser.add_argument("-o", choices=("json", "text"), default="text", dest="form")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=tuple(PARTS), help="one part of it")
    wish = parser.parse_args()
    names = (wish.only,) if wish.only else tuple(PARTS)
    found = {name: PARTS[name](wish.share, wish.seed) for name in names}
    indent = None if wish.form == "json" else 1
    print(json.dumps({"seed": wish.seed, "share": wish.share, **found}, indent=indent))


if __name__ == "__main__":
    main()
