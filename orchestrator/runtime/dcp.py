"""torch.distributed.checkpoint over the vault: sharded states, saved and loaded at any world size.

Each rank writes its share as one part (`shard`), the coordinator writes the index (`index`, JSON)
and commits when every rank's part is there. A reader takes what it needs from verified parts,
whatever the world size; DCP itself has no checksums (a flipped bit loads silently).

    dcp.save(run, step, state, learning_rate=..., tokens=..., cursor=..., config=..., rng=...)
    loaded = dcp.resume(run, state)        # in place, like torch.distributed.checkpoint.load

`state` is what `torch.distributed.checkpoint.state_dict.get_state_dict` gives: nested dicts of
tensors and DTensors under top-level keys such as "model" and "optimizer".
"""

from __future__ import annotations

import io
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Union

import torch
from torch.distributed.checkpoint._traverse import set_element
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.planner import (
    LoadItemType,
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.state_dict_loader import load as load_state
from torch.distributed.checkpoint.state_dict_saver import save as save_state
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from orchestrator.errors import HoldfastError, PermanentError, TransientError
from orchestrator.runtime import dcp_index, snapshots
from orchestrator.runtime.dcp_index import Slice
from orchestrator.runtime.manifests import Attestation, Layout, Part
from orchestrator.runtime.saving import SaveTimes
from orchestrator.runtime.training import Loaded, Run
from orchestrator.runtime.vault import Checkpoint, FencedError, VerificationError

SHARD = "shard"
INDEX = "index"


@dataclass(frozen=True)
class _Seat:
    """What the coordinator tells each rank with its plan."""

    save: str
    rank: int


@dataclass(frozen=True)
class _Written:
    """Where one item lies, and the part around it, on the way to the coordinator."""

    slice: Slice
    part: Part


class VaultWriter(StorageWriter):
    """Writes one sharded checkpoint: a part per rank, then the index, then the commit."""

    def __init__(self, run: Run, attestation: Attestation) -> None:
        """Make one for each save, on every rank."""
        self._run = run
        self._attestation = attestation
        self._coordinator = False
        self._times = SaveTimes()  #: the training stands still until all is durable

    def reset(self, checkpoint_id: Any = None) -> None:
        """DCP calls this before a save; where to write is the run's matter."""
        del checkpoint_id

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Remember whether this rank leads."""
        del args, kwargs
        self._coordinator = is_coordinator

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Leave the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Begin a save (coordinator only), and tell every rank its name and the rank's number.

        Raises `FencedError` before anything is written if the generation is over.
        """
        save = self._run.begin(self._attestation.step)
        return [replace(plan, storage_data=_Seat(save, rank)) for rank, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write the items of this rank as one part, hashed before it is copied."""
        seat: _Seat = plan.storage_data
        assert self._run.vault is not None
        body = io.BytesIO()
        slices = [_append(body, item, planner) for item in plan.items]
        part = self._run.vault.put(seat.save, SHARD, seat.rank, body.getbuffer())
        future: Future[list[WriteResult]] = Future()
        future.set_result(
            [
                WriteResult(
                    index=item.index,
                    size_in_bytes=where.length,
                    storage_data=_Written(replace(where, part=part.key), part),
                )
                for item, where in zip(plan.items, slices, strict=True)
            ]
        )
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write the index and commit; the coordinator has every rank's results."""
        written = [result for rank in results for result in rank]
        metadata.storage_data = {one.index: one.storage_data.slice for one in written}
        parts = {one.storage_data.part for one in written}
        save = next(iter(parts)).key.split("/")[1]
        assert self._run.vault is not None
        index = self._run.vault.put(save, INDEX, 0, dcp_index.encode(metadata))
        named = (*sorted(parts, key=lambda part: part.rank), index)
        manifest = self._run.manifest(save, named, self._attestation, Layout.SHARDED)
        self._run.commit(manifest, self._times)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        """Accept none: the run names its saves."""
        return checkpoint_id is None


def _append(body: io.BytesIO, item: WriteItem, planner: SavePlanner) -> Slice:
    start = body.tell()
    data: Union[torch.Tensor, io.BytesIO] = planner.resolve_data(item)
    if item.type is WriteItemType.BYTE_IO:
        assert isinstance(data, io.BytesIO)
        body.write(data.getbuffer())
    else:
        assert isinstance(data, torch.Tensor)
        if snapshots.find_nan(data, item.index.fqn) is not None:
            raise PermanentError(f"{item.index.fqn} holds NaN")
        torch.save(data.detach().cpu().clone(), body)
    return Slice("", start, body.tell() - start)


class VaultReader(StorageReader):
    """Reads a sharded checkpoint of any world size; only from parts that verified."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """`checkpoint` is what `Vault.open` returned."""
        self._checkpoint = checkpoint
        self._parts = {part.key: part for part in checkpoint.manifest.parts}
        self._storage: Mapping[MetadataIndex, Slice] = {}

    def reset(self, checkpoint_id: Any = None) -> None:
        """DCP calls this before a load; what to read is the checkpoint's matter."""
        del checkpoint_id

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return the index of the checkpoint, verified."""
        del args, kwargs
        part = self._checkpoint.manifest.part(INDEX)
        if part is None:
            raise self._damaged("it has no index")
        return dcp_index.decode(self._checkpoint.read(part))

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        """Remember where the items lie."""
        del is_coordinator, args, kwargs
        self._storage = metadata.storage_data or {}

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Leave the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Leave the plans as they are."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Load part by part: each is read once, verified, and let go."""
        by_part: dict[str, list[ReadItem]] = defaultdict(list)
        for item in plan.items:
            by_part[self._storage[item.storage_index].part].append(item)
        for key, items in sorted(by_part.items()):
            if key not in self._parts:
                raise self._damaged(f"the index names a part {key!r} that the manifest does not")
            whole = memoryview(self._checkpoint.read(self._parts[key]))
            for item in items:
                where = self._storage[item.storage_index]
                _take(whole[where.start : where.start + where.length], item, planner)
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def _damaged(self, problem: str) -> VerificationError:
        return VerificationError(self._checkpoint.commit.seq, (problem,))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        """Accept none: the checkpoint is given."""
        return checkpoint_id is None


def _take(data: memoryview, item: ReadItem, planner: LoadPlanner) -> None:
    if item.type is LoadItemType.BYTE_IO:
        planner.load_bytes(item, io.BytesIO(data))
        return
    saved: torch.Tensor = snapshots.from_bytes(data)
    for dimension, (start, length) in enumerate(
        zip(item.storage_offsets, item.lengths, strict=True)
    ):
        saved = saved.narrow(dimension, start, length)
    target = planner.resolve_tensor(item).detach()
    target.copy_(saved)
    planner.commit_tensor(item, target)


class PlainLoadPlanner(DefaultLoadPlanner):
    """Loads objects beside tensors as plain data only: loading a checkpoint never runs code."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Put one object into the state; raises `BadStateError` if it is more than data."""
        name = read_item.dest_index.fqn
        plain = snapshots.from_bytes(value.getbuffer())
        if self.flatten_state_dict:
            set_element(self.original_state_dict, self.mappings[name], plain)
        else:
            self.state_dict[name] = plain


def save(run: Run, step: int, state: dict[str, Any], **facts: Any) -> None:
    """Save a sharded state; every rank calls it and returns when it is committed or has failed.

    `facts` are those of `Run.save`. As there, a failure is told and training goes on, and the
    process ends (exit 93) if its generation is over.
    """
    attestation = Attestation.of({"step": step, **facts})
    alone = run.world_size == 1
    with run.phase("checkpoint"):
        try:
            with _translated():
                save_state(state, storage_writer=VaultWriter(run, attestation), **_apart(alone))
        except HoldfastError as error:
            run.failed(step, error)


def resume(run: Run, state: dict[str, Any]) -> Loaded | None:
    """Load the commit to resume from into `state`, in place; every rank calls it.

    Like `Run.resume`: under Holdfast exit 92 if it does not verify; None to start from nothing.
    """

    def load_here(checkpoint: Checkpoint) -> Loaded:
        load(checkpoint, state, alone=run.world_size == 1)
        return run.loaded(checkpoint.manifest, state)

    with run.phase("init"):
        return run.try_commits(load_here)


def load(checkpoint: Checkpoint, state: dict[str, Any], *, alone: bool) -> None:
    """Load a sharded checkpoint into `state`, in place; `alone` needs no process group.

    Raises `VerificationError` on every rank if any rank found damage.
    """
    with _translated(checkpoint.commit.seq):
        load_state(
            state,
            storage_reader=VaultReader(checkpoint),
            planner=PlainLoadPlanner(),
            **_apart(alone),
        )


def full_tensors(checkpoint: Checkpoint, kind: str) -> dict[str, torch.Tensor]:
    """Return the whole tensors under one top-level key of a sharded checkpoint, by name."""
    index = VaultReader(checkpoint).read_metadata()
    tensors, names = {}, {}
    for name, item in index.state_dict_metadata.items():
        path = index.planner_data.get(name, (name,))
        if path[0] == kind and isinstance(item, TensorStorageMetadata):
            tensors[name] = torch.empty(item.size, dtype=item.properties.dtype)
            names[name] = ".".join(map(str, path[1:]))
    load(checkpoint, tensors, alone=True)
    return {names[name]: tensor for name, tensor in tensors.items()}


def _apart(alone: bool) -> dict[str, Any]:
    """Return what keeps DCP from asking other ranks (torch 2.4 has no such argument yet)."""
    grouped = torch.distributed.is_available() and torch.distributed.is_initialized()
    return {"no_dist": True} if alone and grouped else {}


@contextmanager
def _translated(seq: int | None = None) -> Iterator[None]:
    """Raise our own error where DCP gathered it from the ranks; the gravest of several.

    `seq` is the commit being loaded: what cannot be read of it is damage.
    """
    try:
        with warnings.catch_warnings():  # a process alone is what was meant
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            yield
    except CheckpointException as gathered:
        errors = [error for error, _ in gathered.failures.values()]
        for kind in (FencedError, VerificationError, TransientError, HoldfastError):
            for error in errors:
                if isinstance(error, kind):  # without the frames, which hold the process group
                    raise error.with_traceback(None) from None
        first = errors[0] if errors else gathered
        text = f"{type(first).__name__}: {first!s:.500}"
        if seq is not None:
            raise VerificationError(seq, (text,)) from gathered
        raise PermanentError(f"the sharded state could not be written: {text}") from gathered
