"""The steady loop: a plain training loop that loses no step to the death of another rank.

    run = training.join()
    steady = run.steady({"model": model, "optimizer": optimizer}, seed=0)

    def train():                                   # once for each generation, in the same process
        gang = DistributedDataParallel(model)
        for step in steady.steps(10_000):          # from where all ranks stand
            loss = gang(batch(step)).mean()
            loss.backward()
            optimizer.step()
            steady.told(loss)

    steady.run(train)

When a peer dies, the collective of a survivor raises; the loop leaves the generation, waits for the
next, and goes on from the newest state that any rank has: a survivor's live state, else a snapshot
in memory, else the durable commit. Under torchrun, or alone, it is an ordinary loop.

What makes that exact: the dice are thrown anew from (seed, step, rank) before each step, batches
follow from the step, and a state counts as live only while nothing has changed it since the end of
a step (see `Live`). Gradients must be reduced in a layout that does not depend on the process's
history: `steady.average_gradients()` does; DistributedDataParallel cuts its buckets anew after the
first step, which changes sums from three ranks on.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

import torch
import torch.distributed as dist

from orchestrator.errors import UserError
from orchestrator.runtime import exits, kernel, rescue, snapshots
from orchestrator.runtime.cadence import Cadence
from orchestrator.runtime.capture import Flat, buffers_of
from orchestrator.runtime.ladder import Choice, Image, Offer, choose
from orchestrator.runtime.live import Live
from orchestrator.runtime.manifests import Attestation, AttestationError
from orchestrator.runtime.memory import OWN, PARTNER, TornError
from orchestrator.runtime.rankline import Line, LineCutError
from orchestrator.runtime.rankmemory import Found, RankMemory
from orchestrator.runtime.rescue import UnfitError

if TYPE_CHECKING:
    from orchestrator.runtime.training import Run

LOG = logging.getLogger(__name__)
PARK_LIMIT_S = 3.0  #: a broken collective is the rank's own failure if nobody explains it in time
GROUP_LIMIT = timedelta(seconds=60)  #: for all ranks to come together
_BROKEN = re.compile(
    r"gloo|NCCL|[Cc]onnection (closed|reset|refused)|[Bb]roken pipe|[Tt]imed? ?out|[Ss]ocket|Store"
)


class _Leave(Exception):  # noqa: N818 - not an error
    """The agent wants this rank to leave its generation, at a step boundary."""


@dataclass(frozen=True)
class Wishes:
    """How a steady loop is run."""

    seed: int | None = 0  #: None: the script throws its own dice, from the step alone
    backend: str = "gloo"
    config: Any = None  #: what a resume must find unchanged
    save_every: int | None = None  #: steps between durable checkpoints; None: seconds decide
    save_seconds: float = 300.0  #: between durable checkpoints, unless the agent knows better
    snapshot_budget: float = 0.005  #: part of the step time that snapshots may cost; 0: none


class Steady:
    """The loop of one rank."""

    def __init__(self, run: Run, parts: Mapping[str, Any], wishes: Wishes) -> None:
        """Use `Run.steady`. Each part has `state_dict` and `load_state_dict`."""
        for name, part in parts.items():
            if not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
                raise UserError(f"steady: {name} has no state_dict and load_state_dict")
        self._run, self._parts, self._wishes = run, dict(parts), wishes
        self.step = 0  #: completed
        self.tokens = 0  #: consumed in all
        self.recovered = ""  #: from which rung the present generation went on
        self._loss: float | None = None
        self._speed: float | None = None
        self._line = Line.from_environment()
        self._memory = RankMemory(self._line, run.name)
        self._made: Image | None = None  #: the state in the parts, as of the last boundary
        self._touched = False  #: the parts are not as the script built them
        self._live = Live(self._parts, self._settle)
        self._cadence = Cadence(wishes.snapshot_budget)
        self._copied = False  #: a snapshot was copied during the present step
        self._boundary_at = self._saved_at = time.monotonic()
        self._saved_step = 0
        self._save_seconds = wishes.save_seconds
        self._flat_gradients: torch.Tensor | None = None

    # ---- what the script uses --------------------------------------------------------------------

    def run(self, train: Callable[[], None]) -> None:
        """Call `train` for this generation and, as a survivor, for those that follow."""
        if self._line is not None and self._can_survive:
            self._line.say({"say": "survivor"})
        while True:
            try:
                self._begin()
                train()
                self._finish()
                return
            except (RuntimeError, _Leave) as error:
                if not self._was_left(error):
                    raise
            self._leave()

    @property
    def _can_survive(self) -> bool:
        """NCCL's abort cannot be trusted everywhere: its ranks are started again instead."""
        return self._run.in_holdfast and self._wishes.backend == "gloo"

    def steps(self, until: int) -> Iterator[int]:
        """Yield the numbers of the steps to do, up to `until`; a step is done when asked again."""
        while self.step < until:
            self._leave_if_asked()
            step = self.step + 1
            if self._wishes.seed is not None:
                throw_dice(self._wishes.seed, step, self._run.rank)
            yield step
            self._boundary(step)

    def told(
        self,
        loss: float | torch.Tensor | None = None,
        *,
        tokens: int = 0,
        speed: float | None = None,
    ) -> None:
        """Say how the present step went; `tokens` are those of all ranks, `speed` is per second."""
        if isinstance(loss, torch.Tensor):
            loss = loss.item()
        self._loss = loss
        self._speed = speed
        self.tokens += tokens

    def before_update(self) -> None:
        """Call it before the state changes, if no part is a torch optimizer."""
        self._live.update()

    def average_gradients(self) -> None:
        """Average the gradients of all parts over the ranks, in one buffer of a fixed layout.

        The sum's order depends on the parameters' order alone: bit-identical after any restart.
        """
        world = self._run.world_size
        if world == 1:
            return
        gradients = [
            p.grad for p in self._live.parameters() if p.grad is not None and p.requires_grad
        ]
        if not gradients:
            return
        total = sum(one.numel() for one in gradients)
        flat = self._flat_gradients
        if flat is None or flat.numel() != total:
            flat = self._flat_gradients = torch.empty(total, device=gradients[0].device)
        at = 0
        for one in gradients:
            flat[at : at + one.numel()].view_as(one).copy_(one)
            at += one.numel()
        dist.all_reduce(flat)
        flat /= world
        at = 0
        for one in gradients:
            one.copy_(flat[at : at + one.numel()].view_as(one))
            at += one.numel()

    def save(self) -> None:
        """Save a durable checkpoint of the present boundary, beside the training."""
        self._run.save(self.step, self._state(), **self._facts())
        self._saved_at, self._saved_step = time.monotonic(), self.step

    # ---- at the end of a step --------------------------------------------------------------------

    def _boundary(self, step: int) -> None:
        now = time.monotonic()
        self._cadence.took(now - self._boundary_at, snapshot=self._copied)
        self._boundary_at = now
        self._settle()
        self.step, self._touched = step, True
        self._made = Image(self._run.around.generation, step)
        self._live.mark()
        self._run.heartbeat(step, self._loss, self._speed)
        self._copied = self._snapshot_is_due() and self._snapshot()
        if self._save_is_due():
            self.save()

    def _settle(self) -> None:
        """Let nothing change before the snapshot under way has its copy."""
        self._memory.settle()

    def _snapshot_is_due(self) -> bool:
        """One copy of a replicated state is enough for each node."""
        wanted = self._wishes.snapshot_budget > 0 and not self._memory.refused
        return wanted and self._run.local_rank == 0 and self._cadence.due()

    def _snapshot(self) -> bool:
        """Begin to copy the present boundary; False if there is no memory for it."""
        assert self._made is not None
        return self._memory.begin(self._made, self._flat(), asdict(self._attestation()))

    def _save_is_due(self) -> bool:
        if self._run.vault is None or self.step == self._saved_step:
            return False
        if self._wishes.save_every is not None:
            return self.step % self._wishes.save_every == 0
        return time.monotonic() - self._saved_at >= self._save_seconds

    # ---- what is saved ---------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        return {**parts, "steady": {"step": self.step, "tokens": self.tokens}}

    def _flat(self) -> Flat:
        return Flat.of(self._state(), buffers_of(self._parts))

    def _facts(self) -> dict[str, Any]:
        return {
            "learning_rate": self._live.learning_rate,
            "tokens": self.tokens,
            "cursor": self.step,
            "config": self._wishes.config,
            "rng": {"seed": self._wishes.seed},
        }

    def _attestation(self) -> Attestation:
        return Attestation.of({"step": self.step, **self._facts()})

    def _load(self, state: Mapping[str, Any]) -> None:
        self._touched = True
        for name, part in self._parts.items():
            mine = state[name]
            if not isinstance(part, torch.nn.Module):  # which copies by itself
                mine = snapshots.copy_state(mine)
            part.load_state_dict(mine)
        self.step, self.tokens = state["steady"]["step"], state["steady"]["tokens"]
        self._live.renew()

    # ---- a generation begins ---------------------------------------------------------------------

    def _begin(self) -> None:
        run = self._run
        with run.phase("init"):
            _join_group(self._wishes.backend, run.world_size)
            try:
                choice = self._rescue()
            except (UnfitError, AttestationError) as error:
                self._end_unfit(str(error))
            run.stand(self.step)
        self._made = Image(run.around.generation, self.step)
        self._live.mark()
        self._boundary_at = self._saved_at = time.monotonic()
        self._saved_step, self._copied = self.step, False
        self.recovered = choice.source(run.rank)
        if run.in_holdfast:
            text = f"step {self.step} from {self.recovered}: {choice.why}"
            run.event("recovered", step=self.step, text=text)

    def _rescue(self) -> Choice:
        """Bring the newest state that any rank has into the parts of all."""
        run = self._run
        found = self._memory.heads(run.around.memory_floor) if self._made is None else {}
        while True:
            exposes = not self._memory.refused
            memory, partner = (
                tuple(sorted(image for image, one in found.items() if one.kind == kind))
                for kind in (OWN, PARTNER)
            )
            offer = Offer(run.around.node, self._made, memory, partner, exposes)
            offers = rescue.gather(offer, run.world_size)
            choice = choose(
                dict(enumerate(offers)), run.around.memory_floor, run.around.resume_step
            )
            if self._take(choice, offers, found):
                break
        facts = rescue.gather(asdict(self._attestation()), run.world_size)
        if any(other != facts[0] for other in facts):
            raise UnfitError(f"ranks differ: rank 0 {facts[0]}, rank {run.rank} {facts[run.rank]}")
        return choice

    def _take(self, choice: Choice, offers: Sequence[Offer], found: dict[Image, Found]) -> bool:
        """Take the chosen state; False, on every rank, if a snapshot of it did not verify."""
        run, image = self._run, choice.image
        if image is None:
            self._take_from_vault()
            return True
        sources = [choice.source(rank) for rank in range(run.world_size)]
        if "memory" in sources or "partner" in sources:
            good = True
            if sources[run.rank] in ("memory", "partner"):
                good = self._take_from_memory(found, image)
            if not all(rescue.gather(good, run.world_size)):
                return False
        self._hand_over(rescue.plan(offers, choice), image)
        return True

    def _take_from_vault(self) -> None:
        loaded = self._run.resume()
        if loaded is not None:
            self._load(loaded.state)
            self._run.attest(step=self.step, **self._facts())
        elif self._touched:
            raise UnfitError("all begin from nothing, and only a new process has that")

    def _take_from_memory(self, found: dict[Image, Found], image: Image) -> bool:
        """Load a snapshot; False if it does not verify, and then it is not offered again."""
        try:
            head, state = found[image].read()
        except TornError as error:
            LOG.warning("a snapshot in memory is not used: %s", error)
            del found[image]
            return False
        self._load(state)
        if found[image].kind == PARTNER and not found[image].still_holds(head):
            LOG.warning("a partner's copy changed while it was read: it is not used")
            del found[image]
            return False
        Attestation(**head.attestation).compare(self._attestation())
        return True

    def _hand_over(self, plan: rescue.Plan, image: Image) -> None:
        rank = self._run.rank
        if rank in plan.exposers:
            self._memory.begin(image, self._flat(), asdict(self._attestation()))
            self._settle()
        if plan.by_memory:
            dist.barrier()
        if rank in plan.by_memory:
            near = self._memory.heads(image.generation)
            if image not in near or not self._take_from_memory(near, image):
                raise UnfitError(f"step {image.step} was put into memory and is not there")
        if rank == plan.sender:
            rescue.send(self._state(), asdict(self._attestation()), plan.by_wire)
        elif rank in plan.by_wire and plan.sender is not None:
            state, attestation = rescue.receive(plan.sender)
            self._load(state)
            Attestation(**attestation).compare(self._attestation())

    def _end_unfit(self, why: str) -> NoReturn:
        """End this process: the next generation loads the durable commit."""
        self._run.event("verification-failed", step=self.step, text=why)
        LOG.error("%s", why)
        sys.stderr.flush()
        os._exit(exits.MEMORY)

    def _finish(self) -> None:
        """Leave together: while one rank has steps to do, the others must be there for it."""
        if self._run.vault is not None and self.step != self._saved_step:
            self.save()
        dist.barrier()
        self._run.close()
        dist.destroy_process_group()

    # ---- a generation ends -----------------------------------------------------------------------

    def _leave_if_asked(self) -> None:
        if self._line is not None and self._is_asked_to_leave(0.0):
            raise _Leave

    def _is_asked_to_leave(self, limit_s: float) -> bool:
        """Say whether the agent wants this generation left, waiting for its word so long."""
        assert self._line is not None
        until = time.monotonic() + limit_s
        try:
            while True:
                order = self._line.order(max(0.0, until - time.monotonic()))
                if order is None:
                    return False
                number = order.get("generation")
                if order.get("do") == "park" and number == self._run.around.generation:
                    return True
                self._heed(order)
        except LineCutError:
            os._exit(1)

    def _heed(self, order: Mapping[str, Any]) -> None:
        seconds = order.get("save_seconds")
        if order.get("do") == "pace" and isinstance(seconds, (int, float)) and seconds > 0:
            self._save_seconds = float(seconds)

    def _was_left(self, error: BaseException) -> bool:
        """Say whether an exception means that the generation is over, not a failure here."""
        if isinstance(error, _Leave):
            return True
        if self._line is None or not self._can_survive:
            return False
        distributed = isinstance(error, dist.DistError) or _BROKEN.search(str(error)) is not None
        return distributed and self._is_asked_to_leave(PARK_LIMIT_S)

    def _leave(self) -> None:
        """Drop everything of the generation, say so, and wait for the next one."""
        assert self._line is not None
        if not self._live.restore():
            self._made = None  # it changed after the last boundary: only snapshots know that step
        self._settle()
        self._run.retire()
        try:
            parked = {"say": "parked", "generation": self._run.around.generation}
            self._line.say({**parked, "step": self.step})
            if dist.is_initialized():
                dist.destroy_process_group()
            order = None
            while order is None or order.get("do") != "join":
                order = self._line.order(None)
        except LineCutError:
            os._exit(1)
        _enter(order["env"], order["log"])
        self._run.rejoin(os.environ)


def _join_group(backend: str, world: int) -> None:
    """Make the process group of this generation; a rank alone has one too, with itself."""
    if world > 1:
        dist.init_process_group(backend, timeout=GROUP_LIMIT)
    else:
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)


def _enter(env: Mapping[str, str], log: str) -> None:
    """Take over the environment and the log of the next generation."""
    os.environ.clear()
    os.environ.update(env)
    kernel.show_environment(os.environ)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    for target in (1, 2):
        os.dup2(descriptor, target)
    os.close(descriptor)


def throw_dice(seed: int, step: int, rank: int) -> None:
    """Make every random number of a step a function of (seed, step, rank)."""
    key = hashlib.sha256(f"{seed}:{step}:{rank}".encode()).digest()
    number = int.from_bytes(key[:8], "big")
    torch.manual_seed(number)
    random.seed(number)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(number % 2**32)
