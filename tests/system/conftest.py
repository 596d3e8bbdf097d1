from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.fleet import LocalFleet


@pytest.fixture
def make_fleet(tmp_path: Path) -> Iterator[Callable[..., LocalFleet]]:
    made: list[LocalFleet] = []

    def make(**keys: Any) -> LocalFleet:
        fleet = LocalFleet(tmp_path / f"fleet{len(made)}", **keys)
        made.append(fleet)
        return fleet

    yield make
    for fleet in made:
        fleet.close()
