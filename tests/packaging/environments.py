"""Environments with only what one extra needs, made offline from the distributions of this one."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = "options.extras_require"


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg")
    return parser


def declared(*extras: str) -> list[Requirement]:
    """Return what setup.cfg asks for: the base, and these extras."""
    parser = setup_cfg()
    texts = [parser["options"]["install_requires"], *(parser[EXTRAS][extra] for extra in extras)]
    return [Requirement(line) for text in texts for line in text.splitlines() if line.strip()]


def closure(requirements: Iterable[Requirement]) -> dict[str, metadata.Distribution]:
    """Return the installed distributions that these requirements need, also those of others."""
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = list(requirements)
    while todo:
        wanted = todo.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        found[key[0]] = metadata.distribution(wanted.name)
        todo.extend(_needs(found[key[0]], wanted.extras))
    return found


def _needs(distribution: metadata.Distribution, extras: Iterable[str]) -> Iterator[Requirement]:
    for text in distribution.requires or ():
        need = Requirement(text)
        if need.marker is None or any(
            need.marker.evaluate({"extra": one}) for one in ("", *extras)
        ):
            yield need


@dataclass(frozen=True)
class Environment:
    """A virtual environment that holds the project's wheel and nothing it did not ask for."""

    folder: Path

    @property
    def python(self) -> Path:
        """Return its interpreter."""
        return self.folder / "bin" / "python"

    def run(self, *argv: str, cwd: Path, told: str = "") -> subprocess.CompletedProcess[str]:
        """Run one of its programs, with nothing of the caller's Python in the environment."""
        path = f"{self.folder / 'bin'}:/usr/bin:/bin"
        return subprocess.run(
            [self.folder / "bin" / argv[0], *argv[1:]],
            cwd=cwd,
            input=told,
            env={"PATH": path, "HOME": str(cwd), "LANG": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def make(folder: Path, wheel: Path, *extras: str) -> Environment:
    """Make an environment with the wheel, the base requirements and those of some extras."""
    environment, site = _make(folder, wheel, sys.executable)
    for distribution in closure(declared(*extras)).values():
        _link(distribution, site, folder / "bin")
    return environment


def make_bare(folder: Path, wheel: Path, python: str) -> Environment:
    """Make an environment with the wheel and not even its requirements, of any Python."""
    return _make(folder, wheel, python)[0]


def _make(folder: Path, wheel: Path, python: str) -> tuple[Environment, Path]:
    argv = [python, "-m", "venv", "--without-pip", "--symlinks", str(folder)]
    subprocess.run(argv, check=True, timeout=60)
    environment = Environment(folder)
    (site,) = folder.glob("lib/python3*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    _write_scripts(environment, site)
    return environment, site


def _link(distribution: metadata.Distribution, site: Path, programs: Path) -> None:
    """Link what a distribution installed: its top folders and modules, and programs like py-spy."""
    for file in distribution.files or ():
        found = Path(os.path.abspath(str(distribution.locate_file(file))))  # noqa: PTH100 - keeps links
        if ".." not in file.parts:
            depth, place = len(file.parts) - 1, site / file.parts[0]
            target = found.parents[depth - 1] if depth else found
        elif found.parent.name == "bin":
            place, target = programs / found.name, found
        else:
            continue
        if target.name != "__pycache__" and not place.is_symlink():
            place.symlink_to(target)


def _write_scripts(environment: Environment, site: Path) -> None:
    """Write the project's console scripts, as an installer makes them."""
    (info,) = site.glob("holdfast-*.dist-info")
    for script in metadata.Distribution.at(info).entry_points.select(group="console_scripts"):
        place = environment.folder / "bin" / script.name
        call = f"import sys\nfrom {script.module} import {script.attr}\nsys.exit({script.attr}())\n"
        place.write_text(f"#!{environment.python}\n{call}")
        place.chmod(0o755)
