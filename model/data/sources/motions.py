"""Moving sprites: 8 motions of 40 sprites, named together; some pairs are never trained on.

The held-out pairs ask for composition: each motion and each sprite was seen, their pair was not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.config import VIDEO
from model.data import objectives
from model.data.emoji import SPRITE, select, sprites
from model.data.samples import Form, Sample
from model.media.medium import Medium, patches

FRAMES = 4
SPRITES = 40
SIZE = 20  #: pixels of the sprite in the frame, at rest
STRIDE = 4.0  #: pixels from one frame to the next
GROWTH = 0.25  #: of the size, from one frame to the next
JITTER = 3  #: pixels that the whole scene is shifted by at most
HELD_OUT_EVERY = 5  #: one pair in five is held out: 64 of 320


@dataclass(frozen=True, slots=True)
class Motion:
    """What changes from frame to frame."""

    name: str
    across: int = 0  #: strides to the right per frame
    down: int = 0
    growth: int = 0
    blinks: bool = False


MOTIONS = (
    Motion("moves left", across=-1),
    Motion("moves right", across=1),
    Motion("moves up", down=-1),
    Motion("moves down", down=1),
    Motion("grows", growth=1),
    Motion("shrinks", growth=-1),
    Motion("blinks", blinks=True),
    Motion("stays still"),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """A sprite that does something."""

    sprite: int
    motion: Motion
    caption: str


@dataclass(frozen=True)
class Motions:
    """*caption*: four frames, what moves and how."""

    scenes: tuple[Scene, ...]

    @classmethod
    def of(cls, *, held_out: bool) -> Motions:
        """Return the trained pairs, or those that are held out."""
        chosen = _sprites()
        scenes = tuple(
            Scene(sprite, motion, f"{name} {motion.name}")
            for row, (sprite, name) in enumerate(chosen)
            for column, motion in enumerate(MOTIONS)
            # a diagonal: every sprite and every motion loses about as many
            if ((3 * row + column) % HELD_OUT_EVERY == 0) == held_out
        )
        return cls(scenes)

    def __len__(self) -> int:
        """Pairs of a sprite and a motion."""
        return len(self.scenes)

    def sample(self, item: int, dice: np.random.Generator, form: Form) -> Sample:
        """Return a clip and what it shows."""
        scene = self.scenes[item]
        frames = clip(scene, dice)
        medium = Medium(VIDEO, *patches(frames, form.config.patch))
        return objectives.caption(form, [medium], "en", scene.caption)


def clip(scene: Scene, dice: np.random.Generator) -> NDArray[np.float32]:
    """Return (FRAMES, 3, 32, 32) in [-1, 1]: a plain background, a scene shifted a little."""
    background = dice.uniform(0.0, 255.0, 3).astype(np.float32)
    shift = dice.integers(-JITTER, JITTER + 1, 2)
    frames = np.broadcast_to(background, (FRAMES, SPRITE, SPRITE, 3)).copy()
    for number in range(FRAMES):
        if scene.motion.blinks and number % 2:
            continue
        _draw(frames[number], scene, number - (FRAMES - 1) / 2, shift)
    return np.ascontiguousarray((frames / 127.5 - 1.0).transpose(0, 3, 1, 2), np.float32)


def _draw(
    frame: NDArray[np.float32], scene: Scene, moment: float, shift: NDArray[np.int64]
) -> None:
    motion = scene.motion
    size = round(SIZE * (1.0 + GROWTH * motion.growth * moment))
    nearest = np.arange(size) * SPRITE // size
    sprite = sprites()[scene.sprite][nearest][:, nearest].astype(np.float32)
    left = int((SPRITE - size) / 2 + STRIDE * motion.across * moment) + int(shift[0])
    top = int((SPRITE - size) / 2 + STRIDE * motion.down * moment) + int(shift[1])
    rows, columns = _overlap(top, size), _overlap(left, size)
    seen = sprite[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    opacity = seen[..., 3:] / 255.0
    frame[rows, columns] = frame[rows, columns] * (1.0 - opacity) + seen[..., :3] * opacity


def _overlap(start: int, size: int) -> slice:
    return slice(max(0, start), min(SPRITE, start + size))


def _sprites() -> list[tuple[int, str]]:
    """Return 40 animals and foods with an English name of one word."""
    named = select("animals-food", ["en"])
    short = [(one.sprite, one.caption) for one in named if " " not in one.caption]
    return [short[index * len(short) // SPRITES] for index in range(SPRITES)]
