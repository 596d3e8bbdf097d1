"""Emoji: their pictures named, sorted into groups, and their names with a span hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.config import IMAGE
from model.data import objectives, render
from model.data.emoji import Captioned, table
from model.data.samples import Form, Sample
from model.media.medium import Medium, patches

GROUP_QUESTION = "Which group?"


def named(
    name: str, items: Sequence[Captioned], weights: Mapping[str, float]
) -> Pictures | Groups | Names:
    """Return the source of a name."""
    match name:
        case "groups":
            return Groups(items)
        case "names":
            return Names(items, weights)
        case _:
            return Pictures(items)


def shown(picture: render.Picture, form: Form) -> Medium:
    """Return a rendering, (3, height, width) in [-1, 1], as a medium."""
    return Medium(IMAGE, *patches(picture[None], form.config.patch))


@dataclass(frozen=True)
class Pictures:
    """*caption*: a random rendering, named in the item's language."""

    items: Sequence[Captioned]

    def __len__(self) -> int:
        """Pairs of a sprite and a language."""
        return len(self.items)

    def sample(self, item: int, dice: np.random.Generator, form: Form) -> Sample:
        """Return a picture and its name."""
        return self.of(self.items[item], render.augmented(self.items[item].sprite, dice), form)

    @staticmethod
    def of(item: Captioned, picture: render.Picture, form: Form) -> Sample:
        """Return a given rendering and its name."""
        return objectives.caption(form, [shown(picture, form)], item.language, item.caption)


@dataclass(frozen=True)
class Groups:
    """*question*: which of Unicode's groups does a random rendering belong to."""

    items: Sequence[Captioned]

    def __len__(self) -> int:
        """Sprites."""
        return len(self.items)

    def sample(self, item: int, dice: np.random.Generator, form: Form) -> Sample:
        """Return a picture, the question and the answer."""
        sprite = self.items[item].sprite
        media = [shown(render.augmented(sprite, dice), form)]
        return objectives.question(form, media, GROUP_QUESTION, table().groups[sprite])


@dataclass(frozen=True)
class Names:
    """*span-r* and *prefix* on the names alone, without pictures."""

    items: Sequence[Captioned]
    weights: Mapping[str, float]  #: of the text objectives; span-r where there are none

    def __len__(self) -> int:
        """Pairs of a sprite and a language."""
        return len(self.items)

    def sample(self, item: int, dice: np.random.Generator, form: Form) -> Sample:
        """Return a name with something hidden."""
        from model.data.sources import pick

        one = self.items[item]
        tokens = form.tokenizer.encode(f"{one.language} {one.caption}")
        chosen = pick(self.weights or {"span-r": 1.0}, dice)
        return objectives.text(form, tokens, dice, chosen)
