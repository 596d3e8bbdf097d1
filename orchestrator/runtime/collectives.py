"""A rank's records of its collectives: what it entered, what is done, how long it waited there.

`watch` wraps the functions of `torch.distributed`, in the rank. Each outermost call is a record in
a small ring that lies in a mapped file of the attempt: the agent reads it there without the rank's
help, also when that is stuck and holds the interpreter's lock. `healthchecks.hangs` compares the
last records of all ranks; the seconds of waiting are what a step's own time leaves out.

What torch does without these functions is not seen: the reducer of DistributedDataParallel calls
NCCL or gloo from C++. On a GPU a call only enqueues: "done" means that it returned, and how long
the rank waited is not known.

Standard library only until `watch` finds torch imported by the script. Python 3.10.
"""

from __future__ import annotations

import functools
import inspect
import math
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SLOTS = 64  #: records that are kept, the newest
GROUPS_MAX = 8  #: process groups whose last record is told
PENDING_MAX = 256  #: asynchronous collectives that are followed up
EPOCH_MAX = 4e9  #: seconds; a later moment is none
_RECORD = struct.Struct("<QQdd48s32s")  #: sequence, size, entered, done (0: not), group, operation
#: Collectives, and the argument whose size all ranks share; None where sizes may differ by right.
WATCHED: Mapping[str, str | None] = {
    "all_reduce": "tensor",
    "all_gather": "tensor",
    "all_gather_into_tensor": "input_tensor",
    "all_gather_object": None,
    "all_to_all": None,
    "all_to_all_single": None,
    "barrier": None,
    "broadcast": "tensor",
    "broadcast_object_list": None,
    "gather": "tensor",
    "gather_object": None,
    "monitored_barrier": None,
    "reduce": "tensor",
    "reduce_scatter": "output",
    "reduce_scatter_tensor": "output",
    "scatter": "tensor",
}
_MARK = "_holdfast_watched"


@dataclass
class _Call:
    """One collective under way."""

    slot: int
    began: float


class Recorder:
    """Writes the records of one rank, and sums up its waiting. Safe to use from several threads."""

    def __init__(
        self,
        path: Path | None,
        *,
        clock: Callable[[], float] = time.time,
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`path` is where the agent reads; None, or one that cannot be made: no records."""
        self._clock, self._stopwatch = clock, stopwatch
        self._lock = threading.Lock()
        self._depth = threading.local()
        self._map: mmap.mmap | None = None
        self.open(path)

    def open(self, path: Path | None) -> None:
        """Begin anew, for another generation: sequences start at 1."""
        with self._lock:
            if self._map is not None:
                self._map.close()
            self._map = None if path is None else _mapped(path)
            self._count, self._sequences = 0, dict[str, int]()
            self._pending: list[tuple[int, Any]] = []
            self._waited, self._hidden = 0.0, False

    def enter(self, group: str, operation: str, size: int) -> _Call:
        """Note that this rank enters a collective of `size` elements in a process group."""
        with self._lock:
            self._follow_up()
            slot, self._count = self._count % SLOTS, self._count + 1
            sequence = self._sequences[group] = self._sequences.get(group, 0) + 1
            facts = (sequence, size, self._clock(), 0.0, _named(group), _named(operation))
            if self._map is not None:
                _RECORD.pack_into(self._map, slot * _RECORD.size, *facts)
            return _Call(slot, self._stopwatch())

    def leave(self, call: _Call, work: Any = None) -> None:
        """Note that the call returned; of an asynchronous one `work` tells when it is done."""
        with self._lock:
            self._waited += self._stopwatch() - call.began
            if work is None:
                self._mark_done(call.slot)
            elif len(self._pending) < PENDING_MAX:
                self._pending.append((call.slot, work))

    def hide(self) -> None:
        """Note that a collective went on after its call returned: its waiting cannot be told."""
        with self._lock:
            self._hidden = True

    def take_waited(self) -> float | None:
        """Return the seconds spent in collectives since the last call; None if some are hidden."""
        with self._lock:
            self._follow_up()
            waited, hidden = self._waited, self._hidden
            self._waited, self._hidden = 0.0, False
        return None if hidden else waited

    @property
    def outermost(self) -> bool:
        """Whether this thread is in no collective: those that others are made of do not count."""
        return getattr(self._depth, "calls", 0) == 0

    def deepen(self, by: int) -> None:
        """Count the collectives that this thread is in."""
        self._depth.calls = getattr(self._depth, "calls", 0) + by

    def _follow_up(self) -> None:
        still = []
        for slot, work in self._pending:
            if work.is_completed():
                self._mark_done(slot)
            else:
                still.append((slot, work))
        self._pending = still

    def _mark_done(self, slot: int) -> None:
        if self._map is not None:
            struct.pack_into("<d", self._map, slot * _RECORD.size + 24, self._clock())


def _mapped(path: Path) -> mmap.mmap | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, SLOTS * _RECORD.size)
            return mmap.mmap(descriptor, SLOTS * _RECORD.size)
        finally:
            os.close(descriptor)
    except OSError:  # records are a help, never a reason not to train
        return None


def _named(name: str) -> bytes:
    return name.encode(errors="replace")


def file_of(folder: Path, generation: int, rank: int) -> Path:
    """Return where one rank keeps its records in one generation."""
    return folder / f"g{generation}.r{rank}.bin"


# --- in the rank ------------------------------------------------------------------------------


def watch(recorder: Recorder) -> bool:
    """Wrap the functions of `torch.distributed` if the script has imported it; say if they are.

    Called again before it was imported, it costs a look into a dictionary.
    """
    module = sys.modules.get("torch.distributed.distributed_c10d")
    public = sys.modules.get("torch.distributed")
    if module is None or public is None or not hasattr(public, "barrier"):
        return False
    for name, sized in WATCHED.items():
        original = getattr(module, name, None)
        if original is None:
            continue
        if hasattr(original, _MARK):  # by an earlier run of this process
            setattr(original, _MARK, recorder)
            continue
        wrapped = _wrapped(recorder, module, name, original, sized)
        for owner in (module, public):
            if getattr(owner, name, None) is original:
                setattr(owner, name, wrapped)
    return True


def _wrapped(
    recorder: Recorder, module: Any, name: str, original: Callable[..., Any], sized: str | None
) -> Callable[..., Any]:
    places = {one: at for at, one in enumerate(inspect.signature(original).parameters)}

    def argument(which: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        at = places.get(which, len(args))
        return kwargs.get(which, args[at] if at < len(args) else None)

    @functools.wraps(original)
    def collective(*args: Any, **kwargs: Any) -> Any:
        recorder: Recorder = getattr(collective, _MARK)
        group = argument("group", args, kwargs)
        mine = group is not module.GroupMember.NON_GROUP_MEMBER
        if not recorder.outermost or not mine or not module.is_initialized():
            return original(*args, **kwargs)
        tensor: Any = None if sized is None else argument(sized, args, kwargs)
        size = tensor.numel() if hasattr(tensor, "numel") else 0
        call = recorder.enter(_group_name(module, group), name, size)
        recorder.deepen(1)
        work = None
        try:
            result = original(*args, **kwargs)
            work = result if hasattr(result, "is_completed") else None
        finally:
            recorder.deepen(-1)  # what raised is over as well: the rank is not in it any more
            recorder.leave(call, work)
        if work is not None or getattr(tensor, "is_cuda", False):
            recorder.hide()
        return result

    setattr(collective, _MARK, recorder)
    return collective


def _group_name(module: Any, group: Any) -> str:
    if group is None or group is module.GroupMember.WORLD:
        return "world"
    return str(getattr(group, "group_name", "unnamed"))


# --- in the agent -----------------------------------------------------------------------------


def last_records(path: Path) -> list[dict[str, Any]]:
    """Return a rank's last record of each process group, the newest first; [] if there are none.

    A rank wrote the file, so nothing in it is taken for granted. Each has group, sequence,
    operation, size (elements), entered and done (epoch seconds; None while it is not done).
    """
    try:
        with path.open("rb") as file:
            raw = file.read(SLOTS * _RECORD.size)
    except OSError:
        return []
    newest: dict[str, dict[str, Any]] = {}
    for record in _records(raw):
        known = newest.get(record["group"])
        if known is None or record["sequence"] > known["sequence"]:
            newest[record["group"]] = record
    ordered = sorted(newest.values(), key=lambda one: (-float(one["entered"]), str(one["group"])))
    return ordered[:GROUPS_MAX]


def _records(raw: bytes) -> Iterator[dict[str, Any]]:
    for at in range(0, len(raw) - _RECORD.size + 1, _RECORD.size):
        sequence, size, entered, done, group, operation = _RECORD.unpack_from(raw, at)
        with suppress(UnicodeDecodeError):
            names = group.rstrip(b"\0").decode("ascii"), operation.rstrip(b"\0").decode("ascii")
            if not 0 < sequence < 2**53 or not size < 2**53 or names[1] not in WATCHED:
                continue
            if not (_is_moment(entered) and (done == 0 or _is_moment(done))):
                continue
            yield {
                "group": names[0],
                "sequence": sequence,
                "operation": names[1],
                "size": size,
                "entered": entered,
                "done": done or None,
            }


def _is_moment(value: float) -> bool:
    return math.isfinite(value) and 0 < value < EPOCH_MAX
