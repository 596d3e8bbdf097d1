"""A sprite becomes a picture: turned, scaled, shifted and put before a background."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from model.data.emoji import SPRITE, sprites

TURN_MAX = 10.0  #: degrees
SHIFT_MAX = 0.15  #: of the side
SCALE_MIN, SCALE_MAX = 0.8, 1.25
WHITE_SHARE = 0.25  #: of the backgrounds; without it, white ones are never learned

Picture = NDArray[np.float32]  #: (3, 32, 32) in [-1, 1]


def clean(sprite: int) -> Picture:
    """Return the sprite as it is, on white."""
    return _compose(sprites()[sprite], np.full((SPRITE, SPRITE, 3), 255.0, np.float32))


def augmented(sprite: int, dice: np.random.Generator) -> Picture:
    """Return a random rendering; equal dice give an equal picture."""
    return _compose(_moved(sprites()[sprite], dice), _background(dice))


def _moved(rgba: NDArray[np.uint8], dice: np.random.Generator) -> NDArray[np.uint8]:
    from PIL import Image  # here: start-up does not wait for it

    angle = math.radians(dice.uniform(-TURN_MAX, TURN_MAX))
    scale = math.exp(dice.uniform(math.log(SCALE_MIN), math.log(SCALE_MAX)))
    shift = dice.uniform(-SHIFT_MAX, SHIFT_MAX, 2) * SPRITE
    cos, sin, centre = math.cos(angle) / scale, math.sin(angle) / scale, (SPRITE - 1) / 2
    x, y = centre + shift[0], centre + shift[1]
    # Pillow maps an output pixel to the input: rotate about the centre of the moved sprite
    inverse = (cos, sin, centre - cos * x - sin * y, -sin, cos, centre + sin * x - cos * y)
    image = Image.fromarray(rgba)
    moved = image.transform(
        (SPRITE, SPRITE), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR
    )
    return np.asarray(moved)


def _background(dice: np.random.Generator) -> NDArray[np.float32]:
    """White, one colour, or a ramp between two, in equal numbers but for white."""
    start, end = dice.uniform(0.0, 255.0, (2, 3)).astype(np.float32)
    direction = dice.uniform(0.0, 2.0 * math.pi)
    choice = dice.random()
    if choice < WHITE_SHARE:
        start = end = np.full(3, 255.0, np.float32)
    elif choice < (1.0 + WHITE_SHARE) / 2.0:
        end = start
    axis = np.linspace(-0.5, 0.5, SPRITE, dtype=np.float32)
    ramp = np.cos(direction) * axis[None, :, None] + np.sin(direction) * axis[:, None, None] + 0.5
    mixed: NDArray[np.float32] = (start + (end - start) * ramp).clip(0.0, 255.0).astype(np.float32)
    return mixed


def _compose(rgba: NDArray[np.uint8], background: NDArray[np.float32]) -> Picture:
    opacity = rgba[..., 3:].astype(np.float32) / 255.0
    shown = rgba[..., :3] * opacity + background * (1.0 - opacity)
    picture: Picture = np.ascontiguousarray((shown / 127.5 - 1.0).transpose(2, 0, 1), np.float32)
    return picture
