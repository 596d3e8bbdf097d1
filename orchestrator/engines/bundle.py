"""What a node needs of ours, as one archive: the runtime and the health checks.

Named by its content, so that a node that has it is never sent it again, and an upgraded controller
puts a new folder beside the old one, which running agents keep using.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from orchestrator.errors import PermanentError

#: Runs on the node, from stdin: checks the archive, unpacks it beside its place, renames it there.
#: Standard library of Python 3.10; a plain `extractall` has no filter in its early releases.
INSTALLER = """
import hashlib, io, os, shutil, sys, tarfile
root, digest = sys.argv[1:3]
data = sys.stdin.buffer.read()
found = hashlib.sha256(data).hexdigest()
if found != digest:
    sys.exit("the archive arrived damaged: %s" % found)
os.makedirs(root, mode=0o700, exist_ok=True)
seen = os.lstat(root)
if seen.st_uid != os.getuid() or seen.st_mode & 0o022 or not os.path.isdir(root):
    sys.exit("%s is not a private folder of this user" % root)
place = os.path.join(root, digest[:16])
if not os.path.isdir(place):
    fresh = "%s.%d" % (place, os.getpid())
    shutil.rmtree(fresh, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive.getmembers():
            parts = member.name.split("/")
            if not member.isfile() or ".." in parts or member.name.startswith("/"):
                sys.exit("the archive holds %r" % member.name)
            target = os.path.join(fresh, *parts)
            os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
            with open(target, "wb") as file:
                shutil.copyfileobj(archive.extractfile(member), file)
                file.flush()
                os.fsync(file.fileno())
    try:
        os.rename(fresh, place)
    except OSError:
        shutil.rmtree(fresh)
        if not os.path.isdir(place):
            raise
print(place)
"""


@dataclass(frozen=True, slots=True)
class Bundle:
    """One archive and its name."""

    data: bytes
    digest: str  #: SHA-256, hex

    def place(self, folder: Path) -> Path:
        """Return where it lies below a node's private folder."""
        return folder / "bundles" / self.digest[:16]


@cache
def bundle() -> Bundle:
    """Return the archive of this installation; the same bytes for the same files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:") as archive:
        for name, path in sorted(_files()):
            about = tarfile.TarInfo(str(name))
            about.size, about.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                archive.addfile(about, file)
    data = buffer.getvalue()
    return Bundle(data, hashlib.sha256(data).hexdigest())


def _files() -> Iterator[tuple[PurePosixPath, Path]]:
    ours = _package("orchestrator")
    for name in ("__init__.py", "errors.py"):
        yield PurePosixPath("orchestrator", name), ours / name
    yield from _tree(ours / "runtime", PurePosixPath("orchestrator/runtime"))
    yield from _tree(_package("healthchecks"), PurePosixPath("healthchecks"))


def _tree(folder: Path, name: PurePosixPath) -> Iterator[tuple[PurePosixPath, Path]]:
    for path in folder.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield name / path.relative_to(folder).as_posix(), path


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise PermanentError(f"the package {name} is not installed; install holdfast again")
    return Path(found.origin).parent
