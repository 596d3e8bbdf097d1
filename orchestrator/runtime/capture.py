"""A state as one run of bytes: copied into a segment beside the training, and read back.

The copy runs in a thread while the next forward and backward pass does; `settle` waits for it, and
is called before the optimizer changes anything. What such a pass changes by itself is copied at
once: the buffers of modules (the kernel of a batch norm does not even count its writes), and any
other tensor whose version was once seen to go up meanwhile.

torch is imported by whoever imports this. Python 3.10.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from orchestrator.runtime import snapshots
from orchestrator.runtime.ladder import Image
from orchestrator.runtime.memory import Head, Segment, hasher
from orchestrator.runtime.pinned import Pin

PIECE_BYTES = 4 * 1024 * 1024  #: copied and hashed in one go, while it is in the cache
ALIGN = 64
_MARK = "\0tensor"


@dataclass(frozen=True)
class Flat:
    """A state taken apart: the tree without its tensors, and these."""

    tree: Any
    tensors: tuple[torch.Tensor, ...]
    offsets: tuple[int, ...]
    bytes: int  #: of the tensors, aligned
    restless: frozenset[int] = frozenset()  #: which of them change without an update

    @classmethod
    def of(cls, state: Any, buffers: Collection[int] = ()) -> Flat:
        """Take a nested state of dicts, lists and tuples apart; nothing is copied.

        `buffers` are addresses of tensors that change without an update, see `buffers_of`.
        """
        tensors: list[torch.Tensor] = []
        tree = _strip(state, tensors, {})
        offsets, total = [], 0
        for tensor in tensors:
            offsets.append(total)
            total += -(-tensor.numel() * tensor.element_size() // ALIGN) * ALIGN
        restless = frozenset(i for i, one in enumerate(tensors) if one.data_ptr() in buffers)
        return cls(tree, tuple(tensors), tuple(offsets), total, restless)

    def encoded_tree(self) -> memoryview:
        """Return the tree and the tensors' shapes, as `torch.save` writes plain data."""
        shapes = [
            (str(one.dtype).partition(".")[2], list(one.shape), at)
            for one, at in zip(self.tensors, self.offsets, strict=True)
        ]
        return snapshots.to_bytes({"tree": self.tree, "tensors": shapes})


def buffers_of(parts: Mapping[str, Any]) -> frozenset[int]:
    """Return the addresses of all buffers of the modules among some parts."""
    modules = (part for part in parts.values() if isinstance(part, torch.nn.Module))
    return frozenset(one.data_ptr() for module in modules for one in module.buffers())


def _strip(value: Any, tensors: list[torch.Tensor], seen: dict[int, int]) -> Any:
    if isinstance(value, torch.Tensor):
        if id(value) not in seen:
            seen[id(value)] = len(tensors)
            tensors.append(value.detach())
        return (_MARK, seen[id(value)])
    if isinstance(value, Mapping):
        return {key: _strip(item, tensors, seen) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_strip(item, tensors, seen) for item in value)
    return value


def rebuild(body: memoryview, tree_bytes: int) -> Any:
    """Return the state in a verified body; its tensors are views of it: copy what is kept."""
    content = snapshots.from_bytes(bytes(body[len(body) - tree_bytes :]))
    tensors = [_view(body, at, name, shape) for name, shape, at in content["tensors"]]
    return _fill(content["tree"], tensors)


def packed(flat: Flat) -> torch.Tensor:
    """Return a state as one tensor of bytes, for `rebuild`; `flat.encoded_tree()` is its end."""
    tree = flat.encoded_tree()
    buffer = bytearray(flat.bytes + len(tree))
    body = memoryview(buffer)
    for index in range(len(flat.tensors)):
        _copy_one(body, flat, index, None)
    body[flat.bytes :] = tree
    return torch.frombuffer(buffer, dtype=torch.uint8)


def _view(body: memoryview, at: int, name: str, shape: Sequence[int]) -> torch.Tensor:
    dtype: torch.dtype = getattr(torch, name)
    count = 1
    for length in shape:
        count *= length
    if count == 0:
        return torch.empty(tuple(shape), dtype=dtype)
    return torch.frombuffer(body, dtype=dtype, count=count, offset=at).view(tuple(shape))


def _fill(tree: Any, tensors: Sequence[torch.Tensor]) -> Any:
    if isinstance(tree, dict):
        return {key: _fill(item, tensors) for key, item in tree.items()}
    if type(tree) is tuple and len(tree) == 2 and tree[0] == _MARK:
        return tensors[tree[1]]
    if type(tree) in (list, tuple):
        return type(tree)(_fill(item, tensors) for item in tree)
    return tree


def versions(tensors: Sequence[torch.Tensor]) -> list[int]:
    """Return how often each tensor was changed in place; 0 where torch does not count."""
    return [0 if one.is_inference() else one._version for one in tensors]


@dataclass
class _Copy:
    """One snapshot under way."""

    image: Image
    flat: Flat
    attestation: Mapping[str, Any]
    slot: int
    before: list[int]
    tree: memoryview = field(default_factory=lambda: memoryview(b""))
    digest: str = ""
    hash: str = ""
    seconds: float = 0.0
    error: BaseException | None = None
    thread: threading.Thread | None = field(default=None, repr=False)


class Snapshotter:
    """Writes one rank's segment."""

    def __init__(self, segment: Segment, run: str) -> None:
        """Write into `segment`, for JOB.ATTEMPT `run`."""
        self._segment, self._run = segment, run
        self._copy: _Copy | None = None
        self._restless: set[int] = set()  #: tensors that a forward pass changes
        self._shape: tuple[int, int] = (0, 0)
        self._pin = Pin(segment.address, segment.bytes)
        self._side: Any = None  #: the CUDA stream of the copies
        self.torn = 0  #: snapshots that were given up because something changed meanwhile
        self.copy_s = 0.0  #: seconds that the last copy took in its thread

    @property
    def pinned(self) -> bool:
        """Whether a GPU copies into the segment by itself."""
        return self._pin.held

    def fits(self, flat: Flat) -> bool:
        """Say whether a state has room in the segment."""
        return flat.bytes < self._segment.body_max

    def begin(self, image: Image, flat: Flat, attestation: Mapping[str, Any]) -> bool:
        """Begin to copy a state that stays as it is until `settle`; False if it does not fit."""
        self.settle()
        if flat.bytes >= self._segment.body_max:
            return False
        slot = self._segment.spare_slot()
        self._segment.erase(slot)
        shape = (len(flat.tensors), flat.bytes)
        if shape != self._shape:
            self._shape, self._restless = shape, set(flat.restless)
        copy = _Copy(image, flat, attestation, slot, versions(flat.tensors))
        body = self._segment.body(slot)
        for index in sorted(self._restless):
            _copy_one(body, flat, index, None)
        ready = None
        device = next((one.device for one in flat.tensors if one.is_cuda), None)
        if device is not None:
            self._pin.hold()
            if self._side is None:
                self._side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            ready = torch.cuda.current_stream(device).record_event()
        target = self._write
        copy.thread = threading.Thread(target=target, args=(copy, body, ready), daemon=True)
        copy.thread.start()
        self._copy = copy
        return True

    def _write(self, copy: _Copy, body: memoryview, ready: Any) -> None:
        started = time.perf_counter()
        try:
            if ready is not None:
                with torch.cuda.stream(self._side):
                    self._side.wait_event(ready)
                    self._fill(copy, body)
            else:
                self._fill(copy, body)
        except (RuntimeError, ValueError, TypeError, OSError) as error:
            copy.error = error
        copy.seconds = time.perf_counter() - started

    def _fill(self, copy: _Copy, body: memoryview) -> None:
        name, digest = hasher()
        flat = copy.flat
        end = 0
        arrivals = self._send(body, flat)
        for index, at in enumerate(flat.offsets):
            if index in arrivals:
                arrivals[index].synchronize()
                end = _hash_to(body, digest, at, _end(flat, index))
            elif index in self._restless:
                end = _hash_to(body, digest, at, _end(flat, index))
            else:
                end = _copy_one(body, flat, index, digest)
        end = _hash_to(body, digest, end, flat.bytes)
        copy.tree = flat.encoded_tree()
        total = flat.bytes + len(copy.tree)
        if total > self._segment.body_max:
            raise ValueError(f"{total} bytes do not fit")
        body[flat.bytes : total] = copy.tree
        digest.update(copy.tree)
        copy.hash, copy.digest = name, digest.hexdigest()

    def _send(self, body: memoryview, flat: Flat) -> dict[int, Any]:
        """Let every tensor of a GPU set off; return an event for each, when it has arrived."""
        arrivals = {}
        for index, tensor in enumerate(flat.tensors):
            if tensor.is_cuda and tensor.numel() and index not in self._restless:
                _copy_one(body, flat, index, None, later=True)
                arrivals[index] = self._side.record_event()
        return arrivals

    def close(self) -> None:
        """Let go of the segment, which is about to be unmapped."""
        self.settle()
        self._pin.release()

    def settle(self) -> Image | None:
        """Wait for the copy under way; return what it made, None if there is none or it is torn.

        Call it before the state changes; afterwards nothing that was begun is unfinished.
        """
        copy, self._copy = self._copy, None
        if copy is None or copy.thread is None:
            return None
        copy.thread.join()
        self.copy_s = copy.seconds
        after = versions(copy.flat.tensors)
        changed = {i for i, (a, b) in enumerate(zip(copy.before, after, strict=True)) if a != b}
        torn = changed - self._restless
        self._restless |= torn
        if torn or copy.error is not None:
            self.torn += 1
            return None
        size = copy.flat.bytes + len(copy.tree)
        head = Head(
            run=self._run,
            generation=copy.image.generation,
            step=copy.image.step,
            tree_bytes=len(copy.tree),
            bytes=size,
            hash=copy.hash,
            digest=copy.digest,
            attestation=copy.attestation,
        )
        self._segment.publish(copy.slot, head)
        return copy.image


def _end(flat: Flat, index: int) -> int:
    return flat.offsets[index + 1] if index + 1 < len(flat.offsets) else flat.bytes


def _hash_to(body: memoryview, digest: Any, start: int, end: int) -> int:
    for at in range(start, end, PIECE_BYTES):
        digest.update(body[at : min(at + PIECE_BYTES, end)])
    return end


def _copy_one(body: memoryview, flat: Flat, index: int, digest: Any, *, later: bool = False) -> int:
    """Copy one tensor, and hash it with its padding piece by piece; return where it ended.

    `later`: what comes from a GPU may arrive after this returned; the stream says when.
    """
    tensor, start, end = flat.tensors[index], flat.offsets[index], _end(flat, index)
    size = tensor.numel() * tensor.element_size()
    body[start + size : end] = bytes(end - start - size)
    if tensor.is_cpu and tensor.is_contiguous():
        source, target = tensor.data_ptr(), _address(body) + start
        for at in range(0, size, PIECE_BYTES):
            length = min(PIECE_BYTES, size - at)
            ctypes.memmove(target + at, source + at, length)  # without the GIL
            if digest is not None:
                digest.update(body[start + at : start + at + length])
        if digest is not None:
            digest.update(body[start + size : end])
        return end
    if size:
        whole = torch.frombuffer(body, dtype=tensor.dtype, count=tensor.numel(), offset=start)
        whole.view(tensor.shape).copy_(tensor, non_blocking=later)
    return end if digest is None else _hash_to(body, digest, start, end)


def _address(body: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(body))
