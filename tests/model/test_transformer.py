"""The network: its size, what it reads, and that the decoder never looks ahead."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model import accounting, kernels
from model.accounting import Positions, count_parameters
from model.config import AUDIO, IMAGE, PRESETS, TEXT, VIDEO
from model.optimizer import Optimizer
from model.transformer import EncoderDecoder, Pieces, Prompt, build

CONFIG = PRESETS["demo"]
PATCHES = 4  # a 16x16 picture in 8x8 patches


@pytest.fixture(scope="module")
def model() -> EncoderDecoder:
    return build(CONFIG, seed=1)


def random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(2)) * 2 - 1


def prompt_of(kinds: list[int], *, flip: bool = False) -> Prompt:
    """A prompt of text and random media: a picture or a frame is 2 x 2 patches."""
    held = torch.tensor(kinds)
    vision = ((held == IMAGE) | (held == VIDEO)).nonzero()[:, 0]
    sound = (held == AUDIO).nonzero()[:, 0]
    places = torch.stack([vision // PATCHES, vision // 2 % 2, vision % 2], 1)
    rows = random(len(vision), CONFIG.patch_features) * (-1 if flip else 1)
    return Prompt(
        torch.arange(len(kinds))[None] + 300,
        held[None],
        vision=Pieces(rows, places, vision) if len(vision) else None,
        sound=Pieces(random(len(sound), CONFIG.audio_features), sound, sound)
        if len(sound)
        else None,
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_the_closed_form_counts_every_parameter_of_every_preset(preset: str) -> None:
    with torch.device("meta"):
        model = EncoderDecoder(PRESETS[preset])
    assert sum(p.numel() for p in model.parameters()) == count_parameters(PRESETS[preset]).total


def test_the_sizes_are_those_of_the_names() -> None:
    millions = {name: count_parameters(PRESETS[name]).total / 1e6 for name in PRESETS}
    assert millions["tiny"] == pytest.approx(7.79, abs=0.01)
    assert millions["edge-7b"] == pytest.approx(7_000, rel=0.02)
    assert millions["flash-21b"] == pytest.approx(21_000, rel=0.02)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_closed_form_knows_the_bytes_of_a_checkpoint(preset: str) -> None:
    with torch.device("meta"):
        model = EncoderDecoder(PRESETS[preset])
        moments = Optimizer(model.named_parameters()).state_dict()
    tensors = [*model.parameters(), *moments.values()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert size == accounting.checkpoint_bytes(PRESETS[preset])


@pytest.mark.parametrize(
    ("preset", "rows", "texts", "images", "sounds", "answer"),
    [
        ("demo", 1, 7, 0, 0, 5),
        ("demo", 3, 6, 4, 3, 9),
        ("tiny", 2, 16, 8, 0, 11),
        ("edge-7b", 1, 64, 32, 16, 48),  # on the meta device: nothing is computed
        ("flash-21b", 2, 100, 0, 20, 30),
    ],
)
def test_the_closed_form_counts_what_torch_counts(
    preset: str, rows: int, texts: int, images: int, sounds: int, answer: int
) -> None:
    config = PRESETS[preset]
    kinds = torch.tensor([[TEXT] * texts + [IMAGE] * images + [AUDIO] * sounds] * rows)
    with torch.device("meta"):
        model = EncoderDecoder(config)
    prompt = Prompt(
        torch.zeros_like(kinds).to("meta"),
        kinds.to("meta"),
        vision=meta_pieces(rows * images, config.patch_features, 3),
        sound=meta_pieces(rows * sounds, config.audio_features, 0),
    )
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(prompt, torch.zeros(rows, answer, dtype=torch.long, device="meta")).sum().backward()
    at = Positions(texts + images + sounds, answer, images, sounds)
    assert counter.get_total_flops() == rows * accounting.training_flops(config, at)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(prompt, torch.zeros(rows, answer, dtype=torch.long, device="meta"))
    assert counter.get_total_flops() == rows * accounting.forward_flops(config, at)


def meta_pieces(count: int, features: int, axes: int) -> Pieces | None:
    if not count:
        return None
    shape = (count, axes) if axes else (count,)
    places = torch.zeros(shape, dtype=torch.long, device="meta")
    at = torch.zeros(count, dtype=torch.long, device="meta")
    return Pieces(torch.zeros(count, features, device="meta"), places, at)


def test_a_token_costs_about_half_of_six_times_the_parameters() -> None:
    edge = PRESETS["edge-7b"]
    ratio = accounting.flops_per_token(edge) / (6 * count_parameters(edge).total)
    assert 0.5 < ratio < 0.65  # it visits one stack


def test_text_images_video_and_sound_interleave_in_one_prompt(model: EncoderDecoder) -> None:
    kinds = [TEXT, *[IMAGE] * PATCHES, TEXT, *[VIDEO] * 2 * PATCHES, TEXT, *[AUDIO] * 3]
    kinds += [TEXT, *[IMAGE] * PATCHES]
    prompt = prompt_of(kinds)
    logits = model(prompt, torch.tensor([[1, 2, 3]]))
    assert logits.shape == (1, 3, CONFIG.vocabulary)
    assert model.encode(prompt).states.shape == (1, len(kinds), CONFIG.d_model)


@pytest.mark.parametrize("kind", [IMAGE, VIDEO, AUDIO])
def test_every_stem_is_reached_by_gradients(model: EncoderDecoder, kind: int) -> None:
    model.zero_grad()
    model(prompt_of([TEXT, *[kind] * 4]), torch.tensor([[1, 2]])).sum().backward()
    stem = model.audio if kind == AUDIO else model.vision
    assert stem.project.weight.grad is not None
    assert stem.project.weight.grad.abs().sum() > 0
    assert model.kind.weight.grad is not None
    assert model.kind.weight.grad[kind].abs().sum() > 0


def test_an_answer_depends_on_the_picture(model: EncoderDecoder) -> None:
    kinds = [TEXT, *[IMAGE] * PATCHES]
    one = model(prompt_of(kinds), torch.tensor([[1]]))
    other = model(prompt_of(kinds, flip=True), torch.tensor([[1]]))
    assert not torch.allclose(one, other)


def test_activations_computed_again_change_nothing(model: EncoderDecoder) -> None:
    gradients = []
    for recompute in (False, True):
        model.recompute = recompute
        model.zero_grad()
        model(prompt_of([TEXT, *[IMAGE] * 4]), torch.tensor([[1, 2]])).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    model.recompute = False
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


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


def test_media_must_fill_their_positions() -> None:
    with pytest.raises(ValueError, match="3 positions in the prompt, but its media have 4 pieces"):
        Pieces(random(4, 192), torch.zeros(4, 3), torch.arange(3))


def test_a_seed_gives_the_same_bits_and_another_does_not() -> None:
    one, same, other = build(CONFIG, 7), build(CONFIG, 7), build(CONFIG, 8)
    pairs = zip(one.parameters(), same.parameters(), strict=True)
    assert all(torch.equal(left, right) for left, right in pairs)
    assert not torch.equal(one.kind.weight, other.kind.weight)
    assert one.head.weight is one.embedding.weight


@pytest.mark.parametrize("shown", ["all", "causal", "padded"])
def test_both_kernels_of_attention_agree(shown: str) -> None:
    dice = torch.Generator().manual_seed(3)
    query = torch.randn(2, 6, 5, 8, generator=dice, requires_grad=True)
    keys, values = (torch.randn(2, 3, 5, 8, generator=dice, requires_grad=True) for _ in range(2))
    mask = (
        (torch.arange(5) < torch.tensor([[5], [3]]))[:, None, None] if shown == "padded" else None
    )
    found = []
    for kernel in (kernels.mix, kernels.plain):  # in float32, mix takes torch's
        out = kernel(query, keys, values, mask, shown == "causal")
        gradients = torch.autograd.grad(out.square().sum(), (query, keys, values))
        found.append((out, *gradients))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
