"""A sheet says what was written since a forebear: the same as comparing entry by entry."""

from __future__ import annotations

import pickle
import random

import pytest

from orchestrator.core.sheets import FOREBEARS_MAX, Sheet, but, changed, draft


def compared(old: dict[str, object], new: dict[str, object]) -> set[str]:
    return {name for name in old.keys() | new.keys() if old.get(name) is not new.get(name)}


@pytest.mark.parametrize("seed", range(20))
def test_what_changed_is_found_between_any_two_of_a_line(seed: int) -> None:
    dice = random.Random(seed)
    line: list[Sheet[str, object]] = [draft({f"n{number}": object() for number in range(9)})]
    for _ in range(dice.choice((5, FOREBEARS_MAX + 20))):
        made = draft(dice.choice((line[-1], line[-1], dice.choice(line))))
        for _ in range(dice.randint(0, 3)):
            name = f"n{dice.randint(0, 12)}"
            if name in made and dice.random() < 0.3:
                del made[name]
            else:
                made[name] = dice.choice((object(), line[0].get(name) or object()))
        line.append(made)
    for _ in range(200):
        old, new = dice.choice(line), dice.choice(line)
        found = changed(old, new)
        assert len(found) == len(set(found))
        assert set(found) == compared(old, new)
        assert set(changed(dict(old), new)) == set(changed(old, dict(new))) == compared(old, new)


def test_a_sheet_is_a_map_like_any_other() -> None:
    sheet = but({"a": 1}, "b", 2)
    assert sheet == {"a": 1, "b": 2}
    assert type(pickle.loads(pickle.dumps(sheet))) is dict


def test_a_sheet_is_written_only_where_it_notices() -> None:
    sheet = draft({"a": 1})
    with pytest.raises(TypeError, match="entry by entry"):
        sheet.pop("a")
    with pytest.raises(TypeError, match="entry by entry"):
        sheet.setdefault("b", 2)
    assert sheet == {"a": 1}
