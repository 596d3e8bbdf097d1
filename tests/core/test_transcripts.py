"""Golden transcripts: two whole stories, word for word, as `holdfast why` would tell them.

After a deliberate change, `python -m tests.core.test_transcripts` writes them anew; read the diff.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.test_stories import TWO, started
from tests.core.world import World

FOLDER = Path(__file__).with_name("transcripts")


def a_broken_gpu() -> World:
    world = started({"a": 4})
    world.fault("a-2")
    return world.run(20)


def a_lost_cluster() -> World:
    world = World({"a": 3, "b": 3})
    world.submit("train", TWO, steps=60)
    world.run(14)
    for node in ("a-1", "a-2", "a-3"):
        world.stop_power(node, for_good=True)
    return world.run(25)


STORIES = {"a-broken-gpu": a_broken_gpu, "a-lost-cluster": a_lost_cluster}


@pytest.mark.parametrize("name", STORIES)
def test_the_story_is_told_word_for_word(name: str) -> None:
    told = STORIES[name]().story
    assert told == (FOLDER / f"{name}.txt").read_text().splitlines()


if __name__ == "__main__":
    for name, story in STORIES.items():
        (FOLDER / f"{name}.txt").write_text("\n".join(story().story) + "\n")
