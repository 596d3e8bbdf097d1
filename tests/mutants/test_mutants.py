"""The list of mutants matches the code, and the tool that tries them can tell right from wrong."""

from __future__ import annotations

import ast
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from orchestrator.core import recovery
from orchestrator.runtime import rounds
from orchestrator.runtime.lineage import Because, Cause, Generation, Member
from tests.mutants import mechanical
from tests.mutants.coverage_map import CoverageMap
from tests.mutants.mutant import Mutant, NoMatchError, _named, read_named, spanned
from tests.mutants.planting import NotPlantedError, plant
from tests.mutants.trial import forked

ROOT = Path(__file__).resolve().parents[2]
HERE, THERE = Member("a", "a", 1), Member("b", "b", 1)
SMALLER = "smaller-side-does-not-wait"


def test_every_named_mutant_matches_the_code_and_changes_it() -> None:
    mutants = read_named(ROOT)
    assert len(mutants) >= 25
    for mutant in mutants:
        assert mutant.text != (ROOT / mutant.file).read_text(), mutant.name
        assert mutant.lines
        assert mutant.promise
        assert forked(partial(_planted, mutant)) == "planted", mutant.name


@pytest.mark.parametrize("old", ["there is no such text", "    return"])
def test_a_text_that_does_not_stand_once_is_an_error(old: str) -> None:
    entry = {"name": "m", "file": "orchestrator/core/repair.py", "old": old, "new": "pass"}
    with pytest.raises(NoMatchError, match="not once"):
        _named(ROOT, {**entry, "breaks": "", "promise": ""})


def test_a_planted_mutant_changes_the_fork_and_not_this_process() -> None:
    mutant = next(one for one in read_named(ROOT) if one.name == SMALLER)
    alone = frozenset({HERE})

    def minority() -> str:
        plant(mutant)
        return str(rounds.is_minority(_generation(), alone))

    assert forked(minority) == "False"
    assert rounds.is_minority(_generation(), alone)


def test_a_changed_constant_reaches_who_took_it() -> None:
    file = "orchestrator/core/recovery.py"
    text = (ROOT / file).read_text().replace("ALIKE_MAX = 3", "ALIKE_MAX = 4")
    mutant = Mutant("m", file, text, frozenset(), "")

    def alike_max() -> str:
        plant(mutant)
        return str(recovery.ALIKE_MAX)

    assert (forked(alike_max), recovery.ALIKE_MAX) == ("4", 3)


def test_a_mutant_that_changes_nothing_is_an_error() -> None:
    file = "orchestrator/core/recovery.py"
    text = (ROOT / file).read_text()
    with pytest.raises(NotPlantedError, match="neither"):
        plant(Mutant("m", file, text, frozenset(), ""))


def test_a_child_that_hangs_or_dies_is_told_apart_from_one_that_cannot_work() -> None:
    assert forked(signal.pause, limit=0.05) == "it hangs"  # type: ignore[arg-type]
    assert forked(lambda: os._exit(7)) == "its process ended with 7"
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        forked(lambda: str(1 // 0))


def test_the_same_seed_draws_the_same_mutants_and_each_is_another_text() -> None:
    drawn = mechanical.draw(ROOT, 40, seed=7)
    assert drawn == mechanical.draw(ROOT, 40, seed=7)
    every = mechanical.mutants(ROOT, "orchestrator/core/placement.py")
    assert len({one.text for one in every}) == len(every) > 100


def test_words_for_people_are_no_mutants() -> None:
    file = "orchestrator/core/custody.py"
    whole = _strings(ast.parse((ROOT / file).read_text()))
    for mutant in mechanical.mutants(ROOT, file)[::9]:
        assert _strings(ast.parse(mutant.text)) <= whole, mutant.what


def test_lines_of_a_statement_are_all_its_lines_and_of_a_block_its_head() -> None:
    tree = ast.parse("x = f(\n    1,\n    2,\n)\nif (\n    x\n):\n    y = 1\n    z = 2\n")
    assert spanned(tree, {2}) == {1, 2, 3, 4}
    assert spanned(tree, {6}) == {5, 6, 7}
    assert spanned(tree, {9}) == {9}


def test_the_quickest_test_of_a_line_comes_first_and_a_constant_is_for_all() -> None:
    lines = {3: frozenset({"slow", "quick"}), 9: frozenset({"other"})}
    seen = CoverageMap({"f.py": lines}, {"slow": 2.0, "quick": 0.1, "other": 1.0})
    assert seen.tests("f.py", frozenset({3})) == ["quick", "slow"]
    assert seen.tests("f.py", frozenset({1})) == ["quick", "other", "slow"]
    assert seen.tests("g.py", frozenset({3})) == []
    assert seen.tests("f.py", frozenset({3}), within=1.0) == ["quick"]
    own = CoverageMap({"a/f.py": {3: frozenset({"test_f.py::x", "quick"})}}, {"test_f.py::x": 2.0})
    assert own.tests("a/f.py", frozenset({3})) == ["test_f.py::x", "quick"]


def _strings(tree: ast.Module) -> set[str]:
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {node.value for node in nodes if isinstance(node.value, str)}


def _planted(mutant: Mutant) -> str:
    plant(mutant)
    return "planted"


def _generation() -> Generation:
    members = (THERE, HERE, Member("c", "c", 1))
    because = Because(Cause.START)
    return Generation(2, "", 1, None, 1, 1, members, "a:1", None, "", because, 0.0, "a")
