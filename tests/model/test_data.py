"""The embedded data, the tokenizer, and the order of the samples."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from model import tokenizer
from model.config import IMAGE, PRESETS, TEXT
from model.data import embedded, order, render
from model.data.emoji import select, sprites, table
from model.data.samples import IGNORED, Feed, collate, describe, restore
from orchestrator.errors import PermanentError, UserError

SPRITES = 1_870
LANGUAGES = 32


def feed(data_seed: int = 0, text_share: float = 0.3) -> Feed:
    return Feed(select("food", ["en", "fr"]), PRESETS["demo"], 12, data_seed, text_share)


def test_every_embedded_file_is_the_one_that_was_built() -> None:
    sums = embedded.sums()
    assert len(sums) == 5
    for name, digest in sums.items():
        assert hashlib.sha256((embedded.HERE / name).read_bytes()).hexdigest() == digest
    assert sum((embedded.HERE / name).stat().st_size for name in sums) < 2_000_000


def test_a_damaged_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in embedded.HERE.glob("*.*"):
        shutil.copy(path, tmp_path)
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
    encoding = tokenizer.load()
    names = [name for column in table().captions.values() for name in column[::7]]
    assert [encoding.decode(encoding.encode_ordinary(name)) for name in names] == names


def test_ranks_and_special_tokens_fill_the_vocabulary() -> None:
    encoding = tokenizer.load()
    assert encoding.n_vocab == PRESETS["tiny"].vocabulary == 4_096
    asked = "a<extra_id_0> b<extra_id_63><|endoftext|><image></image>"
    ids = encoding.encode(asked, allowed_special="all")
    assert encoding.decode(ids) == asked
    assert {4_000, tokenizer.special("<extra_id_63>"), tokenizer.special("<image>")} <= set(ids)
    assert max(encoding.encode_ordinary("<image><extra_id_0>")) < tokenizer.RANKS


def test_a_picture_is_asked_for_between_its_tokens() -> None:
    item = select("animals", ["fr"])[0]
    sample = describe(item, render.clean(item.sprite), PRESETS["tiny"])
    assert sample.kinds.count(IMAGE) == 16
    said = tokenizer.load().decode([t for t in sample.prompt if t < tokenizer.RANKS])
    assert said == "fr"
    assert tokenizer.load().decode(list(sample.answer)) == item.caption


@pytest.mark.parametrize("number", range(20))
def test_a_hidden_span_and_its_caption_fit_together(number: int) -> None:
    item = select("food", ["en"])[number]
    sample = restore(item, np.random.default_rng(number))
    hidden = tokenizer.special("<extra_id_0>")
    assert sample.answer[0] == hidden
    assert set(sample.kinds) == {TEXT}
    at = sample.prompt.index(hidden)
    whole = (*sample.prompt[:at], *sample.answer[1:], *sample.prompt[at + 1 :])
    assert tokenizer.load().decode(list(whole)) == f"en{item.caption}"


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_a_step_trains_on_the_same_samples_whatever_the_number_of_ranks(world: int) -> None:
    samples = {
        i: feed().sample(5, i) for rank in range(world) for i in order.share(12, rank, world)
    }
    assert len(samples) == 12
    for index, sample in samples.items():
        alone = feed().sample(5, index)
        assert (sample.prompt, sample.answer) == (alone.prompt, alone.answer)
        if alone.picture is not None and sample.picture is not None:
            assert np.array_equal(alone.picture, sample.picture)


def test_a_pass_sees_every_item_once_and_the_next_in_another_order() -> None:
    first = order.batch_items(1, 100, 100, data_seed=3)
    second = order.batch_items(2, 100, 100, data_seed=3)
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second
    assert order.batch_items(1, 100, 100, data_seed=4) != first


def test_a_step_does_not_depend_on_the_steps_before() -> None:
    items = [order.item_at(position, 7, 0) for position in range(30)]
    assert items[20:30] == order.batch_items(3, 10, 7, 0)


def test_another_data_seed_draws_other_renderings() -> None:
    item = select("food", ["en"])[0].sprite
    one = render.augmented(item, order.sample_dice(0, 1, 0))
    assert np.array_equal(one, render.augmented(item, order.sample_dice(0, 1, 0)))
    assert not np.array_equal(one, render.augmented(item, order.sample_dice(1, 1, 0)))
    assert not np.array_equal(one, render.augmented(item, order.held_out_dice(0, item)))


def test_a_clean_picture_is_the_sprite_on_white() -> None:
    picture = render.clean(0)
    assert picture.shape == (3, 32, 32)
    assert picture[:, 0, 0].tolist() == [1.0, 1.0, 1.0]
    assert -1.0 <= picture.min() < picture.max() <= 1.0


def test_a_batch_pads_prompts_and_answers() -> None:
    batch = collate([feed(text_share=1.0).sample(1, 0), feed(text_share=0.0).sample(1, 1)])
    assert batch.prompt.present is not None
    assert batch.prompt.images is not None
    assert batch.prompt.images.shape == (1, 3, 32, 32)
    assert batch.inputs.shape == batch.targets.shape
    assert int((batch.targets != IGNORED).sum()) == batch.predicted
    assert int(batch.prompt.present.sum()) + batch.predicted == batch.positions
    assert torch.equal(batch.inputs[:, 0], torch.full((2,), tokenizer.special(tokenizer.END)))
