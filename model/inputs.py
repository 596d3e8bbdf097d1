"""What a person asks of a model: text and files, in the order of the command line.

`<image>`, `<video>` and `<audio>` in the text say where a medium stands; without them the media
come first. Whatever else the text says is text: nobody writes a special token from outside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.data.samples import Form, Sample, sample
from model.media import pictures, sound
from model.media.medium import Medium
from orchestrator.errors import UserError

BYTES_MAX = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Asked:
    """One file of a prompt."""

    marker: str  #: "<image>", "<video>" or "<audio>"
    path: Path


def prompt(form: Form, text: str, files: Sequence[Asked]) -> Sample:
    """Return a prompt without an answer. Raises UserError or BadSampleError, naming the file."""
    media = {
        marker: [_opened(one, form) for one in files if one.marker == marker] for marker in _OPENERS
    }
    parts: list[Sequence[int] | Medium] = []
    for piece in re.split(f"({'|'.join(_OPENERS)})", text):
        if media.get(piece):
            parts += media[piece].pop(0)
        elif piece in media:
            raise UserError(f"the text has a {piece} more than there are files for it")
        elif piece:
            parts.append(form.tokenizer.encode(piece))
    first = [medium for waiting in media.values() for one in waiting for medium in one]
    return sample(form, [*first, *parts], ())


def _opened(one: Asked, form: Form) -> list[Medium]:
    try:
        if one.path.stat().st_size > BYTES_MAX:
            raise UserError(f"{one.path}: larger than {BYTES_MAX:,} bytes")
        data = one.path.read_bytes()
    except OSError as error:
        raise UserError(f"{one.path}: {error.strerror}") from error
    return _OPENERS[one.marker](data, str(one.path), form)


def _image(data: bytes, name: str, form: Form) -> list[Medium]:
    return pictures.images(pictures.read_picture(data, name), form.config)


def _video(data: bytes, name: str, form: Form) -> list[Medium]:
    return [pictures.video(pictures.read_frames(data, name), form.config)]


def _audio(data: bytes, name: str, form: Form) -> list[Medium]:
    rate = form.config.sample_rate
    return [sound.sound(sound.read_sound(data, name, rate), form.config)]


_OPENERS: Mapping[str, Callable[[bytes, str, Form], list[Medium]]] = {
    "<image>": _image,
    "<video>": _video,
    "<audio>": _audio,
}
