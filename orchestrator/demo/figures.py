"""The demo's two pictures: which rank did which step when, and the loss of both runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.demo.director import Broken
from orchestrator.demo.watch import Watch
from orchestrator.errors import UserError

COLOURS = ("#2a6f97", "#e07a5f")


def draw(folder: Path, undisturbed: Watch, disturbed: Watch, broken: Sequence[Broken]) -> None:
    """Write `timeline.png` and `loss.png`; raises `UserError` without the extra `demo`."""
    try:
        import matplotlib as mpl  # here: the command line must start without it
    except ImportError as error:
        raise UserError("pictures need the extra: pip install 'holdfast[demo]'") from error
    mpl.use("Agg")
    _timeline(folder / "timeline.png", disturbed, broken)
    _loss(folder / "loss.png", undisturbed, disturbed)


def _timeline(path: Path, watch: Watch, broken: Sequence[Broken]) -> None:
    from matplotlib import pyplot

    start, _ = watch.span()
    figure, axes = pyplot.subplots(figsize=(11, 4.5), layout="constrained")
    for rank in range(watch.world):
        beats = [beat for beat in watch.beats if beat.rank == rank]
        axes.scatter(
            [beat.at - start for beat in beats],
            [beat.step for beat in beats],
            s=14 if rank else 34,
            color=COLOURS[rank % 2],
            label=f"rank {rank}",
            zorder=3 + rank,
        )
    top = max(beat.step for beat in watch.beats)
    for one in broken:
        x = one.injected.at - start
        axes.axvline(x, color="#9d0208", linewidth=1, linestyle=":")
        axes.text(x, top * 1.02, one.injected.kind.value, rotation=35, fontsize=8, color="#9d0208")
    axes.set(xlabel="seconds", ylabel="completed step", ylim=(0, top * 1.28))
    axes.legend(loc="lower right")
    axes.set_title("Seven faults, one run: every completed step of every rank", loc="left")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _loss(path: Path, undisturbed: Watch, disturbed: Watch) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    runs = (("undisturbed", undisturbed, 5.0), ("seven faults", disturbed, 1.6))
    for (name, watch, width), colour in zip(runs, COLOURS, strict=True):
        losses = sorted(watch.losses().items())
        axes.plot(
            [step for step, _ in losses],
            [loss for _, loss in losses],
            label=name,
            color=colour,
            linewidth=width,
            alpha=0.9,
        )
    axes.set(xlabel="step", ylabel="training loss")
    axes.set_title("The same losses, step by step", loc="left")
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
