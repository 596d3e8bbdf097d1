"""A copy of the runtime on the node: the only thing of ours that a rank can import.

It holds `orchestrator/{__init__,errors}.py` and `orchestrator/runtime/`, taken from the running
installation. A user's script with a `model.py` of its own finds that; and an installation that is
upgraded under a running job does not change what the job imports.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent


def stage(site: Path) -> None:
    """Bring `site` up to date with this installation; nothing is copied that is there already.

    Compiled files go along, so that the first agent on a node starts as fast as the next.
    """
    if site / "orchestrator" == PACKAGE:
        return  # this very process runs from the staged copy
    wanted = {path.relative_to(PACKAGE): path for path in _sources()}
    target = site / "orchestrator"
    for name, source in wanted.items():
        _copy(source, target / name)
    for path in [*target.rglob("*.py")]:
        if path.relative_to(target) not in wanted:
            path.unlink(missing_ok=True)


def _sources() -> Iterator[Path]:
    for name in ("__init__", "errors"):
        yield from _with_compiled(PACKAGE / f"{name}.py")
    for path in (PACKAGE / "runtime").rglob("*.py"):
        yield from _with_compiled(path)


def _with_compiled(path: Path) -> Iterator[Path]:
    yield path
    yield from (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")


def _copy(source: Path, target: Path) -> None:
    """Copy one file with its time, whole or not at all."""
    wanted = source.stat()
    try:
        there = target.stat()
        if (there.st_size, there.st_mtime_ns) == (wanted.st_size, wanted.st_mtime_ns):
            return
    except FileNotFoundError:
        target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.new")
    try:
        shutil.copy2(source, temporary)
        temporary.replace(target)
    except FileNotFoundError:
        return  # a compiled file that was replaced while we looked; it is made again when needed
