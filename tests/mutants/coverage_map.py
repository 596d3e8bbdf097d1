"""Which tests run which lines, and how long each takes: measured once, on the whole tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from math import inf
from pathlib import Path

from coverage import CoverageData

SUITES = (
    "tests/core",
    "tests/runtime/test_membership_stories.py",
    "tests/runtime/test_membership_properties.py",
    "tests/runtime/test_lineage.py",
    "tests/runtime/test_rounds.py",
    "tests/daemon/test_loop.py",
)


class BaselineError(RuntimeError):
    """The tests fail without any mutant: nothing can be learned."""


@dataclass(frozen=True, slots=True)
class CoverageMap:
    """Tests by file and line, and their durations in seconds."""

    by_line: dict[str, dict[int, frozenset[str]]]
    took: dict[str, float]

    def tests(self, file: str, lines: frozenset[int], within: float = inf) -> list[str]:
        """Return the tests that run one of these lines: those named after the file, then by time.

        Only as many as took `within` seconds together, if that is told. What only the import of the
        file runs (a constant) may matter to every test of that file.
        """
        here = self.by_line.get(file, {})
        found = {test for line in lines for test in here.get(line, ())}
        if not found:
            found = {test for tests in here.values() for test in tests}
        stem = Path(file).stem
        ranked = sorted(
            found,
            key=lambda test: (stem not in test.partition("::")[0], self.took.get(test, 0.0), test),
        )
        chosen, spent = [], 0.0
        for test in ranked:
            if spent + self.took.get(test, 0.0) <= within:
                chosen.append(test)
                spent += self.took.get(test, 0.0)
        return chosen


def measure(tree: Path, keep: Path) -> CoverageMap:
    """Run the suites once under coverage; `keep` takes the measurement, and serves it again."""
    keep.mkdir(parents=True, exist_ok=True)
    data, clock = keep / "lines.coverage", keep / "clock.json"
    if not (data.exists() and clock.exists()):
        words = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
        words += ["-p", "tests.mutants.clocking", "--cov=orchestrator", "--cov-context=test"]
        done = subprocess.run(
            [*words, "--cov-report=", *SUITES],
            cwd=tree,
            env={**os.environ, "COVERAGE_FILE": str(data), "MUTANTS_CLOCK": str(clock)},
            capture_output=True,
            text=True,
            timeout=3_600,
            check=False,
        )
        if done.returncode != 0:
            raise BaselineError(f"the tests fail without a mutant:\n{done.stdout[-2_000:]}")
    return _read(data, json.loads(clock.read_text()))


def _read(path: Path, took: dict[str, float]) -> CoverageMap:
    data = CoverageData(str(path))
    data.read()
    by_line: dict[str, dict[int, frozenset[str]]] = {}
    for file in data.measured_files():
        name = "orchestrator/" + file.rpartition("/orchestrator/")[2]
        by_line[name] = {
            line: frozenset(one.rpartition("|")[0] for one in contexts if "|" in one)
            for line, contexts in data.contexts_by_lineno(file).items()
        }
    return CoverageMap(by_line, took)
