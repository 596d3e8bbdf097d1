"""What a person prepares, looks at and gives back on nodes, whatever their engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.engines.installed import INSTALL_LIMIT, Installed
from orchestrator.errors import PermanentError
from providers.api import Run

#: Runs on the node: removes our programs. What ranks wrote stays.
REMOVER = """
import os, shutil, sys
place = os.path.join(sys.argv[1], "bundles")
if os.path.islink(place):
    sys.exit("%s is a link; nothing is removed" % place)
away = "%s.away.%d" % (place, os.getpid())
try:  # nodes may share the folder: exactly one of them takes it
    os.rename(place, away)
except FileNotFoundError:
    print("nothing")
else:
    shutil.rmtree(away)
    print("removed")
"""


@dataclass(frozen=True, slots=True)
class Footing:
    """Our private folder on each node of a cluster."""

    run: Callable[[str], Run]  #: the transport of a node as it is, with nothing of ours needed
    python: str  #: the interpreter there
    folder: Path  #: private to us, on the node
    prepare: Callable[[str], str]  #: puts there what is missing; says what was done
    release: Callable[[str], str]  #: gives back what was taken; says what was done


def nothing(node: str) -> str:
    """Say that a node of this computer needs nothing."""
    del node
    return "nothing to do"


def installed_footing(installed: Installed, bare: Callable[[str], Run], python: str) -> Footing:
    """Return the footing on hosts that a transport reaches."""

    def prepare(node: str) -> str:
        return "installed" if installed.ensure(node, bare(node)) else "there already"

    def release(node: str) -> str:
        argv = [python, "-c", REMOVER, str(installed.folder)]
        ended = bare(node)(argv, limit=INSTALL_LIMIT)
        said = ended.err.decode(errors="replace").strip()[-300:]
        if ended.code != 0:
            raise PermanentError(f"{node}: our programs cannot be removed: {said}")
        return ended.out.decode(errors="replace").strip()[:40]

    return Footing(bare, python, installed.folder, prepare, release)
