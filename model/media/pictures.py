"""Pictures of any size: opened, brought to a whole number of patches, tiled when large.

A picture up to `config.tile` pixels wide and high is read as it is, rounded to whole patches. A
larger one becomes an overview of one tile, then the tiles of the grid (at most 9) whose shape is
nearest, each an image of its own in the prompt: details stay visible at a bounded length.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.config import IMAGE, VIDEO, ModelConfig
from model.media.medium import BadSampleError, Medium, patches

TILES_MAX = 9
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")  #: no others: fewer decoders that foreign bytes reach
PIXELS_MAX = 50_000_000  #: a picture that claims more is refused before it is unpacked
ASPECT_MAX = 20.0  #: longer side against shorter
FRAMES_MAX = 32  #: of a video, spread evenly over it
VIDEO_PIXELS_MAX = 100_000_000  #: of all frames that are kept

Pixels = NDArray[np.uint8]  #: (height, width, 3)


def read_picture(data: bytes, name: str) -> Pixels:
    """Decode a picture in one of `FORMATS`. Raises BadSampleError, which names it."""
    image = _opened(data, name)
    with _decoding("corrupt-image", name):
        return np.asarray(image.convert("RGB"))


def read_frames(data: bytes, name: str) -> list[Pixels]:
    """Decode an animated GIF, WebP or PNG into at most `FRAMES_MAX` frames.

    Raises BadSampleError, which names it.
    """
    image = _opened(data, name)
    frames: list[Pixels] = []
    with _decoding("corrupt-video", name):
        count = int(getattr(image, "n_frames", 1))
        kept = min(count, FRAMES_MAX)
        if kept * image.width * image.height > VIDEO_PIXELS_MAX:
            said = f"{name}: {kept} frames of {image.width}x{image.height} pixels"
            raise BadSampleError("huge-video", f"{said}; at most {VIDEO_PIXELS_MAX:,} are read")
        for index in range(kept):
            image.seek(index * count // kept)
            frames.append(np.asarray(image.convert("RGB")))
    return frames


def _opened(data: bytes, name: str) -> Image.Image:
    if not data:
        raise BadSampleError("empty-file", f"{name}: 0 bytes; expected a picture")
    with _decoding("corrupt-image", name):
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _refuse_shape(image, name)
        image.load()
    return image


@contextmanager
def _decoding(flaw: str, name: str) -> Iterator[None]:
    """Turn whatever a decoder raises at foreign bytes into a BadSampleError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of big pictures
            yield
    except BadSampleError:
        raise
    except Image.DecompressionBombError as error:
        raise BadSampleError("huge-image", f"{name}: {error}") from error
    except Exception as error:  # struct.error, EOFError, KeyError: Pillow's decoders raise anything
        why = str(error) or type(error).__name__
        said = f"{name}: no picture that Pillow can read ({why}); use PNG, JPEG, WebP or GIF"
        raise BadSampleError(flaw, said) from error


def _refuse_shape(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > PIXELS_MAX:
        said = f"{name}: {width}x{height} pixels; at most {PIXELS_MAX:,} are read"
        raise BadSampleError("huge-image", said)
    if max(width, height) > ASPECT_MAX * min(width, height):
        said = f"{name}: {width}x{height} pixels; one side is over {ASPECT_MAX:.0f} times the other"
        raise BadSampleError("odd-shape", said)


def images(picture: Pixels, config: ModelConfig) -> list[Medium]:
    """Return what a picture is in a prompt: itself, or an overview and its tiles."""
    tile = config.tile
    height, width = picture.shape[:2]
    if max(height, width) <= tile:
        return [_image([_resized(picture, *_whole(height, width, config))], IMAGE, config)]
    rows, columns = grid(height, width, tile)
    overview = _resized(picture, *_fitted(height, width, config))
    whole = _resized(picture, rows * tile, columns * tile)
    cut = [
        whole[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
        for row in range(rows)
        for column in range(columns)
    ]
    return [_image([part], IMAGE, config) for part in (overview, *cut)]


def video(frames: list[Pixels], config: ModelConfig) -> Medium:
    """Return a video: its frames in one size, at most a tile each."""
    height, width = _fitted(frames[0].shape[0], frames[0].shape[1], config)
    return _image([_resized(frame, height, width) for frame in frames], VIDEO, config)


def grid(height: int, width: int, tile: int) -> tuple[int, int]:
    """Return rows and columns of tiles: nearest in shape, then no more than the pixels fill."""
    shapes = [(r, c) for r in range(1, TILES_MAX + 1) for c in range(1, TILES_MAX // r + 1)]
    wanted = min(TILES_MAX, math.ceil(height / tile) * math.ceil(width / tile))

    def misfit(shape: tuple[int, int]) -> tuple[float, int]:
        rows, columns = shape
        skew = abs(math.log(height * columns / (width * rows)))
        return (round(skew, 6), abs(rows * columns - wanted))

    return min(shapes, key=misfit)


def _image(frames: list[Pixels], kind: int, config: ModelConfig) -> Medium:
    pixels = np.stack(frames).astype(np.float32) / 127.5 - 1.0
    return Medium(kind, *patches(pixels.transpose(0, 3, 1, 2), config.patch))


def _whole(height: int, width: int, config: ModelConfig) -> tuple[int, int]:
    """Round to whole patches, at least one."""
    side = config.patch
    return max(side, round(height / side) * side), max(side, round(width / side) * side)


def _fitted(height: int, width: int, config: ModelConfig) -> tuple[int, int]:
    """Shrink into one tile, if larger, keeping the shape."""
    scale = min(1.0, config.tile / max(height, width))
    return _whole(round(height * scale), round(width * scale), config)


def _resized(picture: Pixels, height: int, width: int) -> Pixels:
    if picture.shape[:2] == (height, width):
        return picture
    image = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)
