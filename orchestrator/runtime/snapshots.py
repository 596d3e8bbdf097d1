"""A training state in memory: copied while training waits, turned into bytes while it goes on.

torch is imported only inside the functions: `training.py` imports this file, and a script that
saves nothing needs no torch.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.errors import PermanentError


class BadStateError(PermanentError):
    """A state that a checkpoint cannot hold."""


def copy_state(state: Any) -> Any:
    """Return a copy in this process's memory that later training steps do not touch.

    Tensors go to the CPU; two names of one tensor stay one tensor.
    """
    return _copy(state, {})


def _copy(value: Any, seen: dict[Any, Any]) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        key = (value.device, value.data_ptr(), value.shape, value.stride(), value.dtype)
        if key not in seen or value.numel() == 0:
            seen[key] = value.detach().to("cpu", copy=True)
        return seen[key]
    if type(value) is dict or hasattr(value, "_metadata"):  # a module's state dict is the latter
        return {key: _copy(item, seen) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_copy(item, seen) for item in value)
    return copy.deepcopy(value)


def find_nan(value: Any, name: str = "") -> str | None:
    """Return the name of the first tensor that holds a NaN; None if none does.

    Infinity is let through: attention masks are made of it.
    """
    import torch

    if isinstance(value, torch.Tensor):
        floating = value.is_floating_point() or value.is_complex()
        return name if floating and bool(torch.isnan(value).any()) else None
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    found = (find_nan(item, f"{name}.{key}" if name else str(key)) for key, item in items)
    return next((one for one in found if one is not None), None)


def to_bytes(value: Any) -> memoryview:
    """Return one part's bytes, as `torch.save` writes them."""
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getbuffer()


def from_bytes(data: bytes | memoryview) -> Any:
    """Read a part onto the CPU; raises `BadStateError` if it holds more than plain data.

    `weights_only`: a checkpoint is data, and loading one never runs code.
    """
    import pickle

    import torch

    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise BadStateError(f"cannot be loaded as plain data: {error!s:.300}") from error
