"""Breaks the code on purpose and says who noticed.

    python -m tests.mutants named                     # the list of named.yaml; tests, then the soak
    python -m tests.mutants sample --count 120        # mechanical mutants of five files

Exit code 1 if a named mutant is caught by neither, or fewer mechanical ones than `--least`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from math import inf
from pathlib import Path

import pytest

from tests.mutants.coverage_map import SUITES, measure
from tests.mutants.mechanical import draw
from tests.mutants.mutant import Mutant, read_named
from tests.mutants.trial import Court, Soak, Trial

CHECKOUT = Path(__file__).resolve().parents[2]
CAUGHT = {True: "caught", False: "-"}


def main(words: list[str] | None = None) -> int:
    """Run what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="where to keep the measured coverage")
    parser.add_argument("--part", default="1/1", help="every how many-th mutant only, as 2/3")
    parser.add_argument(
        "--within", type=float, default=inf, help="seconds of tests per mutant, as measured"
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    named = kinds.add_parser("named")
    named.add_argument("--only", nargs="*", default=[], help="names of mutants")
    named.add_argument("--schedules", type=int, default=24, help="of the soak; 0: leave it out")
    named.add_argument("--no-tests", action="store_true", help="the soak alone")
    sample = kinds.add_parser("sample")
    sample.add_argument("--count", type=int, default=120)
    sample.add_argument("--seed", type=int, default=1)
    sample.add_argument("--least", type=float, default=0.85, help="share to be caught")
    wanted = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        keep = wanted.keep.resolve() if wanted.keep else Path(place)
        if wanted.kind == "named":
            return run_named(wanted, keep)
        return run_sample(wanted, keep)


def in_court(
    mutants: list[Mutant], keep: Path, within: float, tell: Callable[[Mutant, Trial], None]
) -> None:
    """Try mutants before the tests that run their lines, and tell of each trial."""
    seen = measure(CHECKOUT, keep)

    def work(court: Court) -> None:
        for mutant in mutants:
            tests = seen.tests(mutant.file, mutant.lines, within)
            tell(mutant, court.try_tests(mutant, tests))

    words = ["-qq", "-s", "--no-summary", "-n", "0", "-p", "no:cacheprovider", *SUITES]
    code = pytest.main(words, plugins=[Court(work)])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"pytest ended with {code}")


def part_of(mutants: list[Mutant], part: str) -> list[Mutant]:
    """Return one part of a list, e.g. "2/3", so that several processes share it."""
    number, of = (int(word) for word in part.split("/"))
    return mutants[number - 1 :: of]


def run_named(wanted: argparse.Namespace, keep: Path) -> int:
    """Try the listed mutants one by one."""
    mutants = [one for one in read_named(CHECKOUT) if not wanted.only or one.name in wanted.only]
    mutants = part_of(mutants, wanted.part)
    by_tests: dict[str, Trial] = {}
    by_soak: dict[str, Trial] = {}

    def tell(mutant: Mutant, trial: Trial) -> None:
        by_tests[mutant.name] = trial
        print(f"{mutant.name:38} tests {CAUGHT[trial.caught]:6} {trial.by}", flush=True)

    if not wanted.no_tests:
        in_court(mutants, keep, wanted.within, tell)
    for mutant in mutants if wanted.schedules else ():
        trial = by_soak[mutant.name] = Soak(wanted.schedules).try_soak(mutant)
        print(f"{mutant.name:38} soak  {CAUGHT[trial.caught]:6} {trial.by}", flush=True)
    caught = [{name for name, one in found.items() if one.caught} for found in (by_tests, by_soak)]
    missed = [one.name for one in mutants if one.name not in caught[0] | caught[1]]
    print(f"{len(mutants)} mutants: {len(caught[0])} caught by tests, {len(caught[1])} by the soak")
    print(f"caught by neither: {', '.join(missed) or 'none'}")
    return 1 if missed else 0


def run_sample(wanted: argparse.Namespace, keep: Path) -> int:
    """Try a sample of mechanical mutants."""
    mutants = part_of(draw(CHECKOUT, wanted.count, wanted.seed), wanted.part)
    began, caught = time.monotonic(), []

    def tell(mutant: Mutant, trial: Trial) -> None:
        caught.append(trial.caught)
        word = "caught  " if trial.caught else "survived"
        print(f"{word} {mutant.name.split(' ')[0]} {mutant.what}; {trial.by}", flush=True)

    in_court(mutants, keep, wanted.within, tell)
    share = sum(caught) / len(caught) if caught else 1.0
    took = time.monotonic() - began
    print(f"{sum(caught)} of {len(caught)} caught ({share:.1%}), seed {wanted.seed}, {took:.0f} s")
    return 0 if share >= wanted.least else 1


if __name__ == "__main__":
    sys.exit(main())
