"""The demo from beginning to end: train undisturbed, train again while things break, compare."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.core.jobs import JobState
from orchestrator.demo.account import account, as_json, ettr, save_losses
from orchestrator.demo.director import RESTART_AFTER, Director
from orchestrator.demo.figures import draw
from orchestrator.demo.stage import Stage, policy_text
from orchestrator.demo.troupe import Troupe
from orchestrator.errors import PermanentError, UserError
from orchestrator.runtime.weights import weights_digest

MARK = ".holdfast-demo"  #: a file that says: this folder is a demo's and may be replaced
TURN = 0.05  #: seconds between two looks
LINE_MAX = 200  #: characters of one sentence on the screen
RUN_LIMIT = 240.0  #: seconds one run may take before the demo gives up

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for."""

    out: Path
    steps: int
    seed: int
    data_seed: int


@dataclass(slots=True)
class Played:
    """One run that came to its end."""

    troupe: Troupe
    director: Director | None
    digest: str
    orphans: int


def play(wishes: Wishes, say: Say, progress: Callable[[str, int], None]) -> dict[str, Any]:
    """Run the whole demo and return its result; `say` gets sentences, `progress` steps done."""
    _clear(wishes.out)
    say(f"Three local clusters of three nodes. Their policy, no special code:\n{policy_text()}")
    calm = _play(wishes, "undisturbed", say, lambda step: progress("undisturbed", step))
    rough = _play(wishes, "disturbed", say, lambda step: progress("disturbed", step))
    assert rough.director is not None
    events = rough.troupe.ledger.story(None, limit=100_000)
    rows = account(rough.director.broken, rough.troupe.watch, events)
    draw(wishes.out, calm.troupe.watch, rough.troupe.watch, rough.director.broken)
    return as_json(rows, _facts(wishes, calm, rough))


def _facts(wishes: Wishes, calm: Played, rough: Played) -> dict[str, Any]:
    step = calm.troupe.watch.median_step()
    return {
        "steps": rough.troupe.watch.done,
        "step_s": round(step, 4),
        "ettr": round(ettr(rough.troupe.watch, step), 4),
        "final_digest": rough.digest,
        "undisturbed_digest": calm.digest,
        "identical": rough.digest == calm.digest and rough.troupe.watch.done == wishes.steps,
        "orphans": calm.orphans + rough.orphans,
        "out": str(wishes.out),
    }


def _clear(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose another --out")
    if out.exists() and any(out.iterdir()):
        if not (out / MARK).exists():
            raise UserError(f"{out} is not empty and not a demo's folder; choose another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()


def _play(wishes: Wishes, name: str, say: Say, progress: Callable[[int], None]) -> Played:
    stage = Stage(wishes.out / name, wishes.steps, wishes.seed, wishes.data_seed)
    say(f"The {name} run begins: {wishes.steps} steps on two nodes of one of three clusters.")
    troupe = Troupe.assemble(stage)
    director = None
    try:
        troupe.begin()
        if name == "disturbed":
            director = Director(troupe, random.Random(wishes.seed))
        _until_over(troupe, director, say, progress)
    finally:
        troupe.dismiss()
    troupe.watch.look()
    save_losses(stage.folder / "loss.json", troupe.watch)
    digest = weights_digest(str(stage.checkpoints))
    return Played(troupe, director, digest, troupe.orphans())


def _until_over(
    troupe: Troupe, director: Director | None, say: Say, progress: Callable[[int], None]
) -> None:
    end, news = time.time() + RUN_LIMIT, News(troupe, say)
    while not troupe.over:
        if time.time() > end:
            raise PermanentError(
                f"the run did not end within {RUN_LIMIT:.0f} s; see {troupe.stage.folder}"
            )
        troupe.watch.look()
        progress(troupe.watch.done)
        news.tell()
        if director is not None:
            fault = director.turn()
            if fault is not None:
                one = director.broken[-1]
                say(f"[bold red]✂ {fault.value}[/] at step {one.at_step}: {one.injected.target}")
        _keep_controller(troupe, say)
        time.sleep(TURN)
    if troupe.job_state() is not JobState.SUCCEEDED:
        raise PermanentError(f"the job ended as {troupe.job_state()}; see {troupe.stage.folder}")


def _keep_controller(troupe: Troupe, say: Say) -> None:
    """Start the controller again when somebody killed it."""
    if troupe.daemon_lives:
        troupe.stopped_at = 0.0
        return
    now = time.time()
    troupe.stopped_at = troupe.stopped_at or now
    if now >= troupe.stopped_at + RESTART_AFTER:
        say("The controller is gone; it is started again and adopts what runs.")
        troupe.start_daemon()


class News:
    """Says the events that people care about, each once however often it comes."""

    def __init__(self, troupe: Troupe, say: Say) -> None:
        """Begin at the ledger's first event."""
        self._troupe, self._say = troupe, say
        self._last = 0  #: number of the last event looked at
        self._said: set[str] = set()

    def tell(self) -> None:
        """Say what is new."""
        events = self._troupe.ledger.story(None, limit=200)
        for event in events:
            fresh = event.number > self._last and event.text not in self._said
            if fresh and event.kind in WORTH_TELLING:
                self._said.add(event.text)
                self._say(event.text[:LINE_MAX])
        self._last = max([self._last, *(event.number for event in events)])


WORTH_TELLING = frozenset(
    {
        "rank-exited",
        "rank-stopped",
        "generation-formed",
        "verification-failed",
        "peer-lost",
        "finding",
        "node-lost",
        "OpenAttempt",
        "OpenIncident",
        "Repair",
        "daemon-started",
    }
)


def table_rows(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return the closing table's cells."""

    def seconds(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f} s"

    return [
        (
            row["kind"],
            seconds(row["noticed_s"]),
            seconds(row["resumed_s"]),
            str(row["steps_repeated"]),
            row["decision"],
        )
        for row in rows
    ]


__all__ = ["Wishes", "play", "table_rows"]
