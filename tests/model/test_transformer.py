"""The network: its size, what it reads, and that the decoder never looks ahead."""

from __future__ import annotations

import pytest
import torch

from model.config import AUDIO, IMAGE, PRESETS, TEXT, VIDEO, count_parameters
from model.transformer import EncoderDecoder, Prompt, build

CONFIG = PRESETS["demo"]
PATCHES = 4  # a 16x16 picture in 8x8 patches


@pytest.fixture(scope="module")
def model() -> EncoderDecoder:
    return build(CONFIG, seed=1)


def pixels(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(2)) * 2 - 1


def prompt_of(kinds: list[int], **media: torch.Tensor) -> Prompt:
    return Prompt(torch.arange(len(kinds))[None] + 300, torch.tensor([kinds]), **media)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_closed_form_counts_every_parameter_of_every_preset(preset: str) -> None:
    with torch.device("meta"):
        model = EncoderDecoder(PRESETS[preset])
    assert sum(p.numel() for p in model.parameters()) == count_parameters(PRESETS[preset]).total


def test_the_sizes_are_those_of_the_names() -> None:
    millions = {name: count_parameters(PRESETS[name]).total / 1e6 for name in PRESETS}
    assert millions["tiny"] == pytest.approx(7.83, abs=0.01)
    assert millions["edge-7b"] == pytest.approx(7_000, rel=0.02)
    assert millions["flash-21b"] == pytest.approx(21_000, rel=0.02)


def test_text_images_video_and_sound_interleave_in_one_prompt(model: EncoderDecoder) -> None:
    kinds = [TEXT, *[IMAGE] * PATCHES, TEXT, *[VIDEO] * 2 * PATCHES, TEXT, *[AUDIO] * 3]
    kinds += [TEXT, *[IMAGE] * PATCHES]
    prompt = prompt_of(
        kinds,
        images=pixels(2, 3, 16, 16),
        videos=pixels(1, 2, 3, 16, 16),
        audio=pixels(1, 13, CONFIG.mels),
    )
    logits = model(prompt, torch.tensor([[1, 2, 3]]))
    assert logits.shape == (1, 3, CONFIG.vocabulary)
    assert model.encode(prompt).states.shape == (1, len(kinds), CONFIG.d_model)


@pytest.mark.parametrize("medium", ["images", "videos", "audio"])
def test_every_stem_is_reached_by_gradients(model: EncoderDecoder, medium: str) -> None:
    shapes = {"images": (1, 3, 16, 16), "videos": (1, 1, 3, 16, 16), "audio": (1, 16, CONFIG.mels)}
    kind = {"images": IMAGE, "videos": VIDEO, "audio": AUDIO}[medium]
    prompt = prompt_of([TEXT, *[kind] * 4], **{medium: pixels(*shapes[medium])})
    model.zero_grad()
    model(prompt, torch.tensor([[1, 2]])).sum().backward()
    stem = model.audio if medium == "audio" else model.vision
    assert stem.project.weight.grad is not None
    assert stem.project.weight.grad.abs().sum() > 0
    assert model.kind.weight.grad is not None
    assert model.kind.weight.grad[kind].abs().sum() > 0


def test_an_answer_depends_on_the_picture(model: EncoderDecoder) -> None:
    kinds = [TEXT, *[IMAGE] * PATCHES]
    one = model(prompt_of(kinds, images=pixels(1, 3, 16, 16)), torch.tensor([[1]]))
    other = model(prompt_of(kinds, images=-pixels(1, 3, 16, 16)), torch.tensor([[1]]))
    assert not torch.allclose(one, other)


def test_the_decoder_never_looks_ahead(model: EncoderDecoder) -> None:
    prompt = prompt_of([TEXT] * 3)
    before = model(prompt, torch.tensor([[5, 6, 7, 8]]))
    after = model(prompt, torch.tensor([[5, 6, 7, 99]]))
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])


def test_the_encoder_looks_both_ways(model: EncoderDecoder) -> None:
    before = model.encode(Prompt(torch.tensor([[5, 6, 7]]), torch.tensor([[TEXT] * 3]))).states
    after = model.encode(Prompt(torch.tensor([[5, 6, 9]]), torch.tensor([[TEXT] * 3]))).states
    assert not torch.allclose(before[:, 0], after[:, 0])


def test_padding_changes_nothing(model: EncoderDecoder) -> None:
    kinds = torch.tensor([[TEXT] * 5])
    present = torch.tensor([[True, True, True, False, False]])
    padded = Prompt(torch.tensor([[5, 6, 7, 1, 2]]), kinds, present)
    bare = Prompt(torch.tensor([[5, 6, 7]]), kinds[:, :3])
    answer = torch.tensor([[1, 2]])
    assert torch.allclose(model(padded, answer), model(bare, answer), atol=1e-5)


def test_media_must_fill_their_positions(model: EncoderDecoder) -> None:
    with pytest.raises(ValueError, match="3 image positions in the prompt, but its media have 4"):
        model.encode(prompt_of([TEXT, *[IMAGE] * 3], images=pixels(1, 3, 16, 16)))


def test_a_picture_that_does_not_divide_into_patches_is_refused(model: EncoderDecoder) -> None:
    with pytest.raises(ValueError, match="20x16 pixels"):
        model.encode(prompt_of([IMAGE] * 4, images=pixels(1, 3, 20, 16)))


def test_a_seed_gives_the_same_bits_and_another_does_not() -> None:
    one, same, other = build(CONFIG, 7), build(CONFIG, 7), build(CONFIG, 8)
    pairs = zip(one.parameters(), same.parameters(), strict=True)
    assert all(torch.equal(left, right) for left, right in pairs)
    assert not torch.equal(one.kind.weight, other.kind.weight)
    assert one.head.weight is one.embedding.weight
