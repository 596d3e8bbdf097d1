"""A verified, fenced checkpoint, against torch.save and fsync of the same state."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

MEGABYTES = 64


def pairs(folder: Path) -> Iterator[tuple[str, Callable[[], object], str, Callable[[], object]]]:
    """Yield what is compared; nothing without torch."""
    try:
        import torch
    except ImportError:
        return
    from orchestrator.runtime import training

    torch.set_num_threads(1)
    state = {"w": torch.rand(MEGABYTES * 2**20 // 4)}
    run = training.join(str(folder / "vault"), keep=2)
    steps = count(1)

    def ours() -> None:
        step = next(steps)
        facts: dict[str, Any] = {"learning_rate": 0.1, "tokens": step, "cursor": {}}
        run.save(step, {"model": state}, **facts, config="c", rng="r")
        run.close()

    def peer() -> None:
        path = folder / "plain.pt"
        with path.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())

    yield (
        f"vault: save and commit {MEGABYTES} MB, until durable",
        ours,
        f"torch.save + fsync, {MEGABYTES} MB, no hash, no commit",
        peer,
    )
