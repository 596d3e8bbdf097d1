from __future__ import annotations

import os
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from orchestrator.runtime.cadence import Cadence  # noqa: E402
from orchestrator.runtime.capture import Flat, Snapshotter, packed, rebuild  # noqa: E402
from orchestrator.runtime.ladder import Image  # noqa: E402
from orchestrator.runtime.live import Live  # noqa: E402
from orchestrator.runtime.memory import Segment, segment_bytes  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture
def segment() -> Segment:
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, segment_bytes(20_000_000))
    return Segment(descriptor, populate=True)


def state() -> dict[str, Any]:
    a = torch.rand(300, 70)
    return {
        "model": {"a": a, "t": a.t(), "half": torch.rand(5).bfloat16(), "none": torch.empty(0, 3)},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "groups": [{"betas": (0.9, 1)}]},
        "n": (1, None, "x", torch.tensor(7)),
        "large": torch.rand(1_500_000),
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and bool(torch.equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        pairs = zip(one, other, strict=True)
        return type(one) is type(other) and all(same(a, b) for a, b in pairs)
    return bool(one == other)


def test_a_state_comes_back_as_it_was(segment: Segment) -> None:
    snapshotter, saved = Snapshotter(segment, "j.1"), state()
    for step in (1, 2, 3):
        saved = state()
        assert snapshotter.begin(Image(1, step), Flat.of(saved), {"step": step})
        assert snapshotter.settle() == Image(1, step)
        slot = next(s for s, head in segment.heads().items() if head.step == step)
        head, body = segment.read(slot)
        assert same(saved, rebuild(body, head.tree_bytes))
    flat = Flat.of(saved)
    whole = packed(flat)
    assert same(saved, rebuild(memoryview(bytearray(whole.tolist())), whole.numel() - flat.bytes))


def test_what_changes_meanwhile_is_torn_and_then_copied_at_once(segment: Segment) -> None:
    saved = {"weights": torch.rand(1_000_000), "mean": torch.zeros(10)}
    snapshotter = Snapshotter(segment, "j.1")
    snapshotter.begin(Image(1, 1), Flat.of(saved), {})
    saved["mean"].add_(1)
    assert snapshotter.settle() is None
    assert segment.heads() == {}
    snapshotter.begin(Image(1, 2), Flat.of(saved), {})
    saved["mean"].add_(1)  # known to be restless by now
    assert snapshotter.settle() == Image(1, 2)
    (slot,) = segment.heads()
    head, body = segment.read(slot)
    assert rebuild(body, head.tree_bytes)["mean"].tolist() == [1.0] * 10


def test_what_does_not_fit_is_refused_and_the_last_one_stays(segment: Segment) -> None:
    snapshotter = Snapshotter(segment, "j.1")
    snapshotter.begin(Image(1, 1), Flat.of({"a": torch.rand(9)}), {})
    assert snapshotter.settle()
    assert not snapshotter.begin(Image(1, 2), Flat.of({"a": torch.rand(9_000_000)}), {})
    assert [head.step for head in segment.heads().values()] == [1]


def parts() -> dict[str, Any]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    return {"model": model, "optimizer": torch.optim.AdamW(model.parameters(), fused=True)}


def step(parts: dict[str, Any], *, update: bool = True) -> None:
    parts["optimizer"].zero_grad()
    parts["model"](torch.rand(8, 4)).square().sum().backward()
    if update:
        parts["optimizer"].step()


def test_a_state_is_live_until_an_optimizer_begins() -> None:
    made = parts()
    live = Live(made, lambda: None)
    for _ in range(5):
        live.mark()
        step(made)
    assert not live.restore()  # fused: no version tells, the hook does
    live.mark()
    before = Flat.of(made["model"].state_dict()).tensors
    kept = [one.clone() for one in before]
    step(made, update=False)
    assert not torch.equal(before[5], kept[5]) or not torch.equal(before[4], kept[4])
    assert live.restore()
    assert all(torch.equal(a, b) for a, b in zip(before, kept, strict=True))
    assert all(p.grad is None for p in made["model"].parameters())


def test_a_change_by_hand_is_no_live_state() -> None:
    made = parts()
    live = Live(made, lambda: None)
    live.mark()
    with torch.no_grad():
        next(made["model"].parameters()).add_(1)
    assert not live.restore()


def test_snapshots_come_as_often_as_their_cost_allows() -> None:
    cadence = Cadence(0.005)
    due: list[bool] = []
    for _ in range(40):
        snapshot = bool(due) and due[-1]
        cadence.took(1.02 if snapshot else 1.0, snapshot=snapshot)
        due.append(cadence.due())
    assert cadence.cost_s == pytest.approx(0.02)
    assert cadence.every == 4  # 20 ms in 4 s
    free = Cadence(1.0)
    for number in range(40):
        free.took(1.0, snapshot=number % 2 == 0)
    assert free.every == 1
