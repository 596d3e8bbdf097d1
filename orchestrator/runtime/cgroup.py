"""A control group for one attempt on one node, where the kernel and the rights allow it.

`cgroup.kill` ends every process of a group at once, also those that lost their marker and their
parents. It is the better means, not the only one: without a writable unified hierarchy there is no
group, and the sweep by marker does the work; with one, the sweep is the audit.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.runtime.place import Place, write_atomically

PROC = Path("/proc")
_PREFIX = "holdfast-"


@dataclass(frozen=True)
class ControlGroup:
    """One group, by its folder in the unified hierarchy."""

    folder: Path

    @classmethod
    def make(cls, place: Place) -> ControlGroup | None:
        """Make the attempt's group below this process's own; None where that is not allowed.

        Its folder is written down in the attempt's folder, so that a later sweep finds it.
        """
        parent = _own_folder()
        if parent is None:
            return None
        digest = hashlib.sha256(f"{place.home}\0{place.run}".encode()).hexdigest()[:16]
        group = cls(parent / f"{_PREFIX}{digest}")
        try:
            group.folder.mkdir(exist_ok=True)
            if not (group.folder / "cgroup.kill").exists():  # Linux before 5.14
                group.remove()
                return None
            write_atomically(_memo(place), str(group.folder).encode())
        except OSError:
            return None
        return group

    @classmethod
    def of(cls, place: Place) -> ControlGroup | None:
        """Return the group that an earlier guard of the attempt made, if it is still there."""
        try:
            folder = Path(_memo(place).read_text())
        except (OSError, ValueError):
            return None
        mount = mounts().get("cgroup2")
        ours = mount is not None and mount in folder.parents and folder.name.startswith(_PREFIX)
        return cls(folder) if ours and folder.is_dir() else None

    @property
    def door(self) -> bytes:
        """Return the file to which a process writes "0" to enter."""
        return str(self.folder / "cgroup.procs").encode()

    def kill(self, *, limit: float) -> bool:
        """Kill everything inside; say whether the group is empty within `limit` seconds."""
        until = time.monotonic() + limit
        while True:
            with suppress(OSError):
                (self.folder / "cgroup.kill").write_text("1")
            if not self._populated():
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(0.002)

    def _populated(self) -> bool:
        try:
            return "populated 1" in (self.folder / "cgroup.events").read_text()
        except OSError:
            return False  # removed by a sweep beside us

    def remove(self) -> None:
        """Remove the empty group and those that its processes made inside."""
        for inner in sorted(self.folder.rglob("*/"), reverse=True):
            with suppress(OSError):
                inner.rmdir()
        with suppress(OSError):
            self.folder.rmdir()


def _memo(place: Place) -> Path:
    return place.folder / "cgroup"


def _own_folder() -> Path | None:
    mount = mounts().get("cgroup2")
    if mount is None:
        return None
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                return mount / line[3:].lstrip("/")
    return None


def frozen(pid: int) -> bool:
    """Say whether the process sits in a frozen control group (v2 freezer, or v1's)."""
    return any(_is_frozen(folder) for folder in _cgroup_folders(pid))


def _is_frozen(folder: Path) -> bool:
    with suppress(OSError):
        if "frozen 1" in (folder / "cgroup.events").read_text():
            return True
    with suppress(OSError):
        return (folder / "freezer.state").read_text().strip() == "FROZEN"
    return False


def _cgroup_folders(pid: int) -> Iterator[Path]:
    """Yield the folders of the process's groups that a freezer could act on."""
    try:
        lines = (PROC / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return
    where = mounts()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        kind = controllers or "cgroup2"
        if kind in ("cgroup2", "freezer") and kind in where:
            yield where[kind] / path.lstrip("/")


def mounts() -> dict[str, Path]:
    """Return where the unified hierarchy ("cgroup2") and v1's "freezer" are mounted."""
    found: dict[str, Path] = {}
    with suppress(OSError), (PROC / "self" / "mounts").open() as table:
        for line in table:
            _, where, kind, options, *_ = line.split()
            if kind == "cgroup2":
                found["cgroup2"] = Path(where)
            elif kind == "cgroup" and "freezer" in options.split(","):
                found["freezer"] = Path(where)
    return found
