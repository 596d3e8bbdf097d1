"""Spoken numbers: 165 recordings in five languages, one speaker each, disturbed at random."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from model.data import objectives
from model.data.embedded import read_embedded
from model.data.samples import Form, Sample
from model.media import sound
from model.media.sound import Samples

RATE = 8_000  #: Hz of the recordings
SPEED = 0.10  #: faster or slower by at most this share
LOUDNESS_DB = 6.0
NOISE_DB = (-45.0, -25.0)  #: of full scale
SILENCE_S = 0.20  #: put before the words at most
BEYOND_S = 0.05  #: and cut off at most


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording."""

    language: str
    number: int
    words: str
    samples: Samples


@cache
def clips() -> tuple[Clip, ...]:
    """Return every recording, decoded once."""
    whole = {}
    found = []
    for line in read_embedded("speech/clips.tsv").decode().splitlines():
        language, start, length, number, words = line.split("\t")
        if language not in whole:
            name = f"speech/{language}.wav"
            whole[language] = sound.read_sound(read_embedded(name), name, RATE)
        cut = whole[language][int(start) : int(start) + int(length)]
        found.append(Clip(language, int(number), words, cut))
    return tuple(found)


@dataclass(frozen=True)
class Numbers:
    """*transcribe*: a number spoken in one of five languages, nobody says which."""

    def __len__(self) -> int:
        """Return how many recordings there are."""
        return len(clips())

    def sample(self, item: int, dice: np.random.Generator, form: Form) -> Sample:
        """Return a disturbed recording and its words."""
        clip = clips()[item]
        heard = sound.resampled(disturbed(clip.samples, dice), RATE, form.config.sample_rate)
        return objectives.transcribe(form, sound.sound(heard, form.config), clip.words)


def disturbed(samples: Samples, dice: np.random.Generator) -> Samples:
    """Return the recording at another speed, loudness and moment, in noise."""
    length = round(len(samples) * (1.0 + dice.uniform(-SPEED, SPEED)))
    spoken = sound.stretched(samples, length)
    early, late = dice.uniform(-BEYOND_S, SILENCE_S, 2)
    spoken = spoken[max(0, round(-early * RATE)) :]
    spoken = np.pad(spoken, (max(0, round(early * RATE)), max(0, round(late * RATE))))
    gain = 10.0 ** (dice.uniform(-LOUDNESS_DB, LOUDNESS_DB) / 20.0)
    noise = 10.0 ** (dice.uniform(*NOISE_DB) / 20.0)
    heard: Samples = (gain * spoken + noise * dice.standard_normal(len(spoken))).astype(np.float32)
    return heard
