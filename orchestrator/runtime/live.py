"""Whether what is in the parts is still the state of the last step's end.

A survivor may offer its live state only then. Two signs say that it changed: an optimizer began to
step (a hook tells; fused kernels do not count their writes), or a tensor's version went up. What a
forward pass changes by itself (buffers, and what was once seen to change) is put back from a copy.

torch is imported by whoever imports this. Python 3.10.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from orchestrator.runtime.capture import Flat, buffers_of, versions

FRESH = 3  #: boundaries at which tensors are looked for anew: moments are made at the first step


class Live:
    """Watches the parts between two boundaries."""

    def __init__(self, parts: Mapping[str, Any], before_update: Callable[[], None]) -> None:
        """Call `before_update` before any optimizer among the parts changes something."""
        self._parts, self._before_update = dict(parts), before_update
        self._updating = False
        self._tensors: tuple[torch.Tensor, ...] = ()
        self._versions: list[int] = []
        self._marks = 0
        self._restless: dict[int, torch.Tensor] = {}  #: copies of what a forward pass changes
        for part in self._parts.values():
            if isinstance(part, torch.optim.Optimizer):
                part.register_step_pre_hook(lambda *_: self.update())

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Yield the parameters of all modules among the parts, in their order."""
        for part in self._parts.values():
            if isinstance(part, torch.nn.Module):
                yield from part.parameters()

    @property
    def learning_rate(self) -> float:
        """The rate of the first optimizer's first group; 0 if there is none."""
        for part in self._parts.values():
            groups = getattr(part, "param_groups", None)
            if groups:
                return float(groups[0]["lr"])
        return 0.0

    def update(self) -> None:
        """Note that the state is about to change."""
        self._before_update()
        if not self._updating:  # so far only a forward and backward pass was here
            for index in self.changed():
                self._restless[index] = self._tensors[index].clone()
        self._updating = True

    def mark(self) -> None:
        """Note that the state is that of a step's end."""
        self._updating = False
        if self._marks < FRESH:
            self._marks += 1
            state = {name: part.state_dict() for name, part in self._parts.items()}
            flat = Flat.of(state, buffers_of(self._parts))
            self._tensors = flat.tensors
            self._restless = {index: flat.tensors[index].clone() for index in flat.restless}
        with torch.no_grad():
            self._copy_restless()
        self._versions = versions(self._tensors)

    def renew(self) -> None:
        """Look for the tensors anew: a state was loaded."""
        self._marks = 0

    def _copy_restless(self) -> None:
        for index, copy in self._restless.items():
            copy.copy_(self._tensors[index])

    def changed(self) -> set[int]:
        """Return which tensors were changed since the mark."""
        now = versions(self._tensors)
        return {i for i, (a, b) in enumerate(zip(self._versions, now, strict=True)) if a != b}

    def restore(self) -> bool:
        """Put the state of the mark back; False if that cannot be done any more."""
        for part in self._parts.values():
            if isinstance(part, torch.optim.Optimizer):
                part.zero_grad(set_to_none=True)
        if self._updating or self.changed() - self._restless.keys():
            return False
        with torch.no_grad():
            for index, copy in self._restless.items():
                self._tensors[index].copy_(copy)
        return True
