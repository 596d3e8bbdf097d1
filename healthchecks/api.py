"""What a check is: a probe that touches the machine, and a judge that thinks about what it saw.

A probe returns plain JSON types, runs in a process of its own, and may be killed at any moment. A
judge is pure: the cases in `tests/healthchecks/cases` feed it facts and compare what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from healthchecks.findings import Finding


class Level(StrEnum):
    """How far a check may go."""

    PASSIVE = "passive"  #: reads only; may run beside training
    ACTIVE = "active"  #: uses the GPU or moves data: only on idle nodes
    ACCEPTANCE = "acceptance"  #: takes long as well: before a node is taken over


class CannotLookError(Exception):
    """A probe could not see what it came for; the message becomes the UNKNOWN finding."""


class Settings(NamedTuple):
    """Where to look and what to expect; all of it comes from the command line."""

    root: str = "/"  #: where proc, sys and dev are; tests point it at a folder of their own
    kernel_log: str | None = None  #: a file of kernel-log text; None is /dev/kmsg of this machine
    since: float = 0.0  #: epoch seconds: kernel lines known to be older are history
    gpus_expected: int | None = None  #: None: as many as the PCI bus shows
    disks: tuple[str, ...] = ("/tmp",)  #: each is examined by itself
    fast: bool = False  #: leave out what touches the disk or asks the time service
    idle: bool = False  #: no job is here: whatever still runs on a GPU was left over
    state: str | None = None  #: folder of what earlier runs, and a listener, left here
    boot_id: str = ""  #: of the present boot
    soak: float = 0.0  #: seconds under load, at the level of acceptance
    cluster: Mapping[str, Any] = {}  #: what is expected of a node of this cluster, see `catalog`

    def expected(self, name: str) -> Any:
        """Return what the cluster's file expects under this name, or None."""
        return self.cluster.get(name)


class Check(NamedTuple):
    """One check."""

    name: str
    level: Level
    limit: float  #: seconds after which its probe is killed
    probe: Callable[[Settings], dict[str, Any]]  #: touches; raises OSError or CannotLookError
    judge: Callable[[dict[str, Any], Settings], Sequence[Finding]]  #: thinks; pure
    skip: Callable[[Settings], str | None] = lambda _: None  #: why it has no business here
    #: What the next run shall find in `facts["before"]["kept"]`, as plain JSON.
    remember: Callable[[dict[str, Any]], Any] | None = None
