"""Who a line names: the node, the GPU and the rank, in the forms that logs use."""

from __future__ import annotations

import re
from typing import NamedTuple

_HOST = r"(?P<node>[A-Za-z0-9][A-Za-z0-9_.-]{1,62})"
_NODE = (
    re.compile(rf"\*\*\* (?:JOB|STEP) \S+ ON {_HOST}"),  # slurmstepd
    re.compile(rf"[Nn]ode failure on {_HOST}"),  # salloc, srun
    re.compile(rf"(?:srun|salloc|slurmctld)?: ?error: [Nn]odes? {_HOST}(?:,| not| is| are)"),
    re.compile(rf"(?:srun|slurmstepd): error: {_HOST}: (?:task|tasks)"),
    re.compile(rf"^\s*host\s+: {_HOST}\s*$"),  # torchrun's failure report
    re.compile(rf"[A-Z][a-z]{{2}}\s+\d+ [\d:]{{8}} {_HOST} kernel:"),  # syslog
    re.compile(rf"\d{{4}}-\d\d-\d\dT\S+ {_HOST} kernel:"),  # journalctl -o short-iso
    re.compile(rf"^{_HOST} kernel:"),
    re.compile(rf"(?:^|[\s>]){_HOST}:\d+:\d+ \[(?P<gpu>\d+)\]"),  # NCCL
    re.compile(rf"[Nn]ode(?:Name)?[ :=]+[\"']?{_HOST}[\"']? (?:is|was|went|has)\b"),
)
_GPU = (
    re.compile(r"(?:PCI:)?(?P<gpu>[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.\d)?)"),
    re.compile(r"\bGPU ?#?(?P<gpu>\d{1,2})\b"),
    re.compile(r"\b(?:cuda:|CUDA device )(?P<gpu>\d{1,2})\b"),
)
_RANK = re.compile(r"\[?(?:default|[Rr]ank[ :]*)(?P<rank>\d{1,6})\]?")
_NO_HOST = frozenset({"kernel", "error", "node", "the", "this", "a", "failure"})


class Place(NamedTuple):
    """Where something happened, as far as the text says."""

    node: str | None = None
    gpu: str | None = None  #: an index, or a PCI address
    rank: int | None = None

    def filled(self, other: Place) -> Place:
        """Return this place with its gaps filled from another one."""
        mine, its = self._asdict(), other._asdict()
        return Place(**{key: its[key] if mine[key] is None else mine[key] for key in mine})


def read(text: str) -> Place:
    """Read one line."""
    node, gpu = _node(text)
    if gpu is None:
        gpu = next((found["gpu"] for one in _GPU if (found := one.search(text))), None)
    rank = _RANK.search(text)
    return Place(node, gpu, int(rank["rank"]) if rank else None)


def _node(text: str) -> tuple[str | None, str | None]:
    for one in _NODE:
        if (found := one.search(text)) and found["node"].lower() not in _NO_HOST:
            return found["node"], found.groupdict().get("gpu")
    return None, None
