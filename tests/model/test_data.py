"""The embedded data, the tokenizer, and the order of the samples."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from model import tokenizer
from model.config import IMAGE, PRESETS
from model.curriculum import Stage
from model.data import embedded, order, render, sources
from model.data.emoji import select, sprites, table
from model.data.feed import Feed, Tally
from model.data.order import Stream
from model.data.samples import IGNORED, Form, Sample, collate
from model.data.sources.pictures import Pictures
from orchestrator.errors import PermanentError, UserError

unhurried = given_settings(deadline=None)  # the machine may be busy

SPRITES = 1_870
LANGUAGES = 32


FORM = Form(PRESETS["demo"], tokenizer.load(), prompt_max=256)


def feed(data_seed: int = 0, names: float = 0.3) -> Feed:
    mixture = {"pictures": 1.0 - names, "names": names}
    stage = Stage(
        name="test",
        steps=9,
        mixture={k: v for k, v in mixture.items() if v},
        subset="food",
        languages=("en", "fr"),
    )
    stream = Stream(data_seed, 0, tuple(stage.mixture.values()))
    return Feed(sources.of_stage(stage), stream, 12, FORM)


def drawn(one: Feed, number: int, index: int) -> Sample:
    return one.sample(number, index, Tally())


def test_every_embedded_file_is_the_one_that_was_built() -> None:
    sums = embedded.sums()
    assert len(sums) == 12
    for name, digest in sums.items():
        assert hashlib.sha256((embedded.HERE / name).read_bytes()).hexdigest() == digest
    assert sum((embedded.HERE / name).stat().st_size for name in sums) < 2_000_000


def test_a_damaged_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(embedded.HERE, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(embedded, "HERE", tmp_path)
    (tmp_path / "sprites.png").write_bytes(b"not a picture")
    with pytest.raises(PermanentError, match=r"sprites\.png: SHA-256 .*, expected"):
        embedded.read_embedded("sprites.png")


def test_there_are_1870_sprites_named_in_32_languages() -> None:
    assert sprites().shape == (SPRITES, 32, 32, 4)
    assert len(table().codepoints) == SPRITES
    assert len(table().captions) == LANGUAGES
    assert all(len(set(column)) > 1_800 for column in table().captions.values())


def test_the_subset_of_the_demonstration_has_533_english_names() -> None:
    items = select("animals-food-objects", ["en"])
    assert len(items) == 533
    assert items[0].caption == "monkey face"


@pytest.mark.parametrize(("subset", "language"), [("cars", "en"), ("food", "tlh")])
def test_an_unknown_group_or_language_is_named(subset: str, language: str) -> None:
    with pytest.raises(UserError, match=r"unknown (group 'cars'|language 'tlh'); choose from:"):
        select(subset, [language])


def test_the_tokenizer_gives_back_every_caption() -> None:
    ranks = tokenizer.load()
    names = [name for column in table().captions.values() for name in column[::7]]
    assert [ranks.decode(ranks.encode(name)) for name in names] == names


def test_ranks_and_special_tokens_fill_the_vocabulary() -> None:
    ranks = tokenizer.load()
    assert ranks.encoding.n_vocab == ranks.vocabulary == PRESETS["tiny"].vocabulary == 4_096
    assert {ranks.special(one) for one in tokenizer.SPECIAL} == set(range(4_000, 4_096))
    assert ranks.decode([ranks.special("<image>")]) == "<image>"


def test_a_text_never_becomes_a_special_token() -> None:
    ranks = tokenizer.load()
    assert max(ranks.encode("<image><extra_id_0><|endoftext|><extra_id_99>")) < 4_000


def test_any_rank_file_makes_a_tokenizer_of_a_bigger_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "ranks.tiktoken"
    path.write_bytes(embedded.read_embedded("bpe-4096.tiktoken"))
    big = tokenizer.from_file(path, 100_352)
    assert big.encode("monkey face") == tokenizer.load().encode("monkey face")
    assert big.special("<extra_id_63>") == 100_351
    assert big.special(tokenizer.END) == 100_256  # cl100k_base has as many ranks


@pytest.mark.parametrize(
    ("body", "vocabulary", "says"),
    [
        (None, 4_096, "name a tiktoken rank file"),
        (b"what is this?\n", 4_096, "line 1: expected 'base64 rank'"),
        (b"YQ== 0\nYg== 2\n", 4_096, "ranks must run from 0 without gaps"),
        (embedded.read_embedded("bpe-4096.tiktoken"), 4_000, "4,000 ranks; the model has ids"),
    ],
)
def test_a_bad_rank_file_is_named(
    tmp_path: Path, body: bytes | None, vocabulary: int, says: str
) -> None:
    path = tmp_path / "ranks.tiktoken"
    if body is not None:
        path.write_bytes(body)
    with pytest.raises(UserError, match=says):
        tokenizer.from_file(path, vocabulary)


def test_an_unknown_token_is_named() -> None:
    with pytest.raises(UserError, match="4096 is not in the vocabulary"):
        tokenizer.load().decode([4_096])


def test_a_picture_is_asked_for_between_its_tokens() -> None:
    item = select("animals", ["fr"])[0]
    sample = Pictures.of(item, render.clean(item.sprite), FORM)
    assert sample.kinds.count(IMAGE) == 16
    assert FORM.tokenizer.text(sample.prompt) == "fr"
    assert FORM.tokenizer.decode(sample.answer) == item.caption


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_a_step_trains_on_the_same_samples_whatever_the_number_of_ranks(world: int) -> None:
    samples = {
        i: drawn(feed(), 5, i) for rank in range(world) for i in order.share(12, rank, world)
    }
    assert len(samples) == 12
    for index, sample in samples.items():
        alone = drawn(feed(), 5, index)
        assert (sample.prompt, sample.answer) == (alone.prompt, alone.answer)
        for one, other in zip(sample.media, alone.media, strict=True):
            assert np.array_equal(one.rows, other.rows)


def test_a_pass_sees_every_item_once_and_the_next_in_another_order() -> None:
    stream = Stream(3, 0, (1.0,))
    first, second = ([stream.item(0, at + part, 100) for at in range(100)] for part in (0, 100))
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second
    for other in (Stream(4, 0, (1.0,)), Stream(3, 1, (1.0,))):
        assert [other.item(0, at, 100) for at in range(100)] != first


def test_a_mixture_is_exact_in_every_cycle_and_loses_no_item() -> None:
    stream = Stream(0, 0, (0.5, 0.3, 0.2))
    drawn = [stream.at(place) for place in range(3 * order.CYCLE)]
    for start in range(0, len(drawn), order.CYCLE):
        chosen = [source for source, _ in drawn[start : start + order.CYCLE]]
        assert [chosen.count(source) for source in range(3)] == [120, 72, 48]
    for source in range(3):
        ordinals = [ordinal for one, ordinal in drawn if one == source]
        assert ordinals == list(range(len(ordinals)))


@unhurried
@given(st.lists(st.floats(0.001, 100.0), min_size=1, max_size=20))
def test_every_source_gets_its_share_of_a_cycle(wanted: list[float]) -> None:
    places = order.quotas(tuple(wanted))
    assert sum(places) == order.CYCLE
    assert min(places) >= 1
    if min(wanted) / sum(wanted) > 1 / order.CYCLE:
        for got, share in zip(places, wanted, strict=True):
            assert abs(got - order.CYCLE * share / sum(wanted)) <= 1.0


def test_another_data_seed_draws_other_renderings() -> None:
    item = select("food", ["en"])[0].sprite
    stream, other = Stream(0, 0, (1.0,)), Stream(1, 0, (1.0,))
    one = render.augmented(item, stream.dice(1, 0))
    assert np.array_equal(one, render.augmented(item, stream.dice(1, 0)))
    assert not np.array_equal(one, render.augmented(item, other.dice(1, 0)))
    assert not np.array_equal(one, render.augmented(item, order.held_out_dice(0, 0, item)))


def test_a_clean_picture_is_the_sprite_on_white() -> None:
    picture = render.clean(0)
    assert picture.shape == (3, 32, 32)
    assert picture[:, 0, 0].tolist() == [1.0, 1.0, 1.0]
    assert -1.0 <= picture.min() < picture.max() <= 1.0


def test_a_batch_pads_prompts_and_answers() -> None:
    one = [drawn(feed(names=1.0), 1, 0), drawn(feed(names=0.0), 1, 1)]
    batch = collate(one, FORM.tokenizer)
    assert batch.prompt.present is not None
    assert batch.prompt.vision is not None
    assert batch.prompt.vision.rows.shape == (16, 192)
    assert batch.inputs.shape == batch.targets.shape
    assert int((batch.targets != IGNORED).sum()) == batch.predicted
    assert int(batch.prompt.present.sum()) + batch.predicted == batch.positions
    end = FORM.tokenizer.special(tokenizer.END)
    assert torch.equal(batch.inputs[:, 0], torch.full((2,), end))


def test_lengths_can_be_made_to_divide() -> None:
    batch = collate([drawn(feed(), 1, index) for index in range(3)], FORM.tokenizer, multiple=16)
    assert batch.prompt.tokens.shape[1] % 16 == batch.inputs.shape[1] % 16 == 0
