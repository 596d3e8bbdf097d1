"""Documents in shards: text, and pictures, videos or sounds with the text that belongs to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.curriculum import Stage
from model.data import objectives, shards
from model.data.samples import Form, Sample
from model.data.sources import pick
from model.media import pictures, sound
from model.media.medium import BadSampleError
from orchestrator.errors import UserError

PICTURES = ("png", "jpg", "jpeg", "webp")
VIDEOS = ("gif",)
SOUNDS = ("wav", "flac", "ogg", "mp3")
DENOISERS = {"prefix": 0.5, "span-r": 0.25, "span-x": 0.25}  #: where a stage says nothing
TEXT_BYTES_MAX = 2 * 2**20
CHARACTERS_PER_TOKEN = 8  #: more than any token has on average; bounds what is tokenized


@dataclass(frozen=True)
class Documents:
    """The samples of one class: caption, transcribe, or a text objective, as their files allow."""

    shards: shards.Shards
    weights: Mapping[str, float]  #: of the text objectives
    language: str

    @classmethod
    def of(cls, name: str, stage: Stage) -> Documents:
        """Open the class `name` in the folder of the stage. Raises UserError without an index."""
        if stage.shards is None:
            raise UserError(f"source shards/{name}: the stage needs the key 'shards', a folder")
        return cls(
            shards.load(Path(stage.shards) / name),
            dict(stage.objectives) or DENOISERS,
            stage.languages[0],
        )

    @property
    def lost(self) -> Sequence[str]:
        """Tars that the index left out."""
        return self.shards.damaged

    def __len__(self) -> int:
        """Return how many samples the shards have."""
        return len(self.shards)

    def sample(self, item: int, dice: np.random.Generator, form: Form) -> Sample:
        """Return what the files of a sample allow."""
        files = self.shards.read(item)
        place = self.shards.places[item]
        name = f"{place.shard}, {place.key}"
        words = _text(files.get("txt"), name)
        for extension, data in files.items():
            if extension in PICTURES:
                picture = pictures.read_picture(data, f"{name}.{extension}")
                media = pictures.images(picture, form.config)
                return objectives.caption(form, media, self.language, words)
            if extension in VIDEOS:
                frames = pictures.read_frames(data, f"{name}.{extension}")
                clip = [pictures.video(frames, form.config)]
                return objectives.caption(form, clip, self.language, words)
            if extension in SOUNDS:
                rate = form.config.sample_rate
                heard = sound.read_sound(data, f"{name}.{extension}", rate)
                return objectives.transcribe(form, sound.sound(heard, form.config), words)
        tokens = form.tokenizer.encode(_window(words, dice, form))
        return objectives.text(form, tokens, dice, pick(self.weights, dice))


def _text(data: bytes | None, name: str) -> str:
    if not data:
        raise BadSampleError("no-text", f"{name}: no text (a member .txt) belongs to it")
    if len(data) > TEXT_BYTES_MAX:
        said = f"{name}.txt: {len(data):,} bytes; at most {TEXT_BYTES_MAX:,} are read, split it"
        raise BadSampleError("too-long", said)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadSampleError("bad-text", f"{name}.txt: no UTF-8 ({error})") from error


def _window(text: str, dice: np.random.Generator, form: Form) -> str:
    """Cut a random window that surely holds enough tokens, before they are counted."""
    wanted = CHARACTERS_PER_TOKEN * (form.prompt_max + form.answer_max)
    if len(text) <= wanted:
        return text
    start = int(dice.integers(0, len(text) - wanted + 1))
    return text[start : start + wanted]
