"""What is asked: nothing is lost, nothing is shown that should be hidden."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from model import tokenizer
from model.config import AUDIO, IMAGE, PRESETS, TEXT, VIDEO
from model.curriculum import SOURCES, TEXT_OBJECTIVES, Stage
from model.data import objectives, sources
from model.data.samples import Form, Sample, sample
from model.data.sources.motions import MOTIONS, Motions
from model.data.sources.numbers import Numbers, clips
from model.media.medium import BadSampleError

unhurried = given_settings(deadline=None)  # the machine may be busy

RANKS = tokenizer.load()
FORM = Form(PRESETS["tiny"], RANKS, prompt_max=320)
SENTINELS = {RANKS.special(f"<extra_id_{n}>"): n for n in range(tokenizer.SENTINELS)}


def put_together(made: Sample) -> list[int]:
    """Fill every sentinel of the prompt with what the answer says that it hides."""
    hidden: dict[int, list[int]] = {}
    last = 0
    for token in made.answer:
        if token in SENTINELS:
            hidden[token] = []
            last = token
        else:
            hidden[last].append(token)
    assert [SENTINELS[one] for one in hidden] == list(range(len(hidden)))
    whole: list[int] = []
    for token in made.prompt:
        whole += hidden.pop(token) if token in SENTINELS else [token]
    assert not hidden
    return whole


@unhurried
@given(
    st.integers(2, 250),
    st.floats(0.05, 0.6),
    st.floats(1.0, 40.0),
    st.integers(0, 2**32 - 1),
)
def test_hidden_spans_and_what_shows_make_the_text(
    length: int, rate: float, mean: float, seed: int
) -> None:
    roomy = Form(FORM.config, RANKS, prompt_max=256, answer_max=400)
    tokens = list(range(300, 300 + length))
    made = objectives.span(roomy, tokens, np.random.default_rng(seed), rate=rate, mean=mean)
    assert put_together(made) == tokens
    shown = [token for token in made.prompt if token not in SENTINELS]
    assert 1 <= length - len(shown) <= max(1, round(rate * length))


@unhurried
@given(st.integers(2, 200), st.integers(0, 2**32 - 1))
def test_a_prefix_and_its_rest_make_the_text(length: int, seed: int) -> None:
    roomy = Form(FORM.config, RANKS, prompt_max=256, answer_max=256)
    tokens = tuple(range(300, 300 + length))
    made = objectives.prefix(roomy, tokens, np.random.default_rng(seed))
    assert made.prompt + made.answer == tokens
    assert made.prompt
    assert made.answer


@pytest.mark.parametrize("objective", TEXT_OBJECTIVES)
def test_a_long_text_is_cut_to_the_context_of_the_stage(objective: str) -> None:
    tokens = list(range(300, 3_300))
    made = objectives.text(FORM, tokens, np.random.default_rng(1), objective)
    assert len(made.prompt) <= FORM.prompt_max
    assert 0 < len(made.answer) <= FORM.answer_max


@unhurried
@given(st.integers(40, 256), st.floats(0.0, 1.0), st.integers(0, 2**32 - 1))
def test_a_pass_key_lies_where_it_should(length: int, depth: float, seed: int) -> None:
    made = objectives.passkey(FORM, length, depth, np.random.default_rng(seed))
    assert len(made.prompt) == length
    said = RANKS.decode(made.prompt)
    key = RANKS.decode(made.answer)
    assert f"The pass key is {key}. Remember it." in said
    assert said.endswith(objectives.QUESTION)
    assert len(key) == objectives.KEY_DIGITS


def test_a_prompt_that_is_too_long_is_refused() -> None:
    with pytest.raises(BadSampleError, match="321 positions; this stage reads 320"):
        sample(FORM, [[1] * 321], [2])
    with pytest.raises(BadSampleError, match="20 positions cannot hold a pass key"):
        objectives.passkey(FORM, 20, 0.5, np.random.default_rng(0))


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_is_pure(name: str) -> None:
    stage = Stage(name="test", steps=1, mixture={name: 1.0}, languages=("en", "fr"))
    source = sources.of_stage(stage)[name]
    kinds = {"numbers": AUDIO, "motions": VIDEO, "pictures": IMAGE, "groups": IMAGE}
    for item in (0, len(source) // 2, len(source) - 1):
        one, same = (source.sample(item, np.random.default_rng(7), FORM) for _ in range(2))
        assert (one.prompt, one.kinds, one.answer) == (same.prompt, same.kinds, same.answer)
        assert one.answer
        assert kinds.get(name, TEXT) in one.kinds
        for left, right in zip(one.media, same.media, strict=True):
            assert np.array_equal(left.rows, right.rows)
            assert np.isfinite(left.rows).all()
            assert len(left) == one.kinds.count(left.kind)


def test_held_out_pairs_are_new_but_made_of_known_parts() -> None:
    trained, held_out = Motions.of(held_out=False), Motions.of(held_out=True)
    known = {(one.sprite, one.motion.name) for one in trained.scenes}
    asked = {(one.sprite, one.motion.name) for one in held_out.scenes}
    assert len(known) + len(asked) == 40 * len(MOTIONS) == 320
    assert len(asked) == 64
    assert not known & asked
    assert {sprite for sprite, _ in asked} <= {sprite for sprite, _ in known}
    assert {motion for _, motion in asked} == {motion for _, motion in known}


def test_there_are_165_spoken_numbers_in_five_languages() -> None:
    assert len(Numbers()) == len(clips()) == 165
    assert {clip.language for clip in clips()} == {"en", "es", "fr", "it", "ru"}
    words = {(clip.language, clip.number): clip.words for clip in clips()}
    assert words["es", 10] == "diez"
    assert words["ru", 7] == "семь"
    assert all(0.1 < len(clip.samples) / 8_000 < 2.5 for clip in clips())
