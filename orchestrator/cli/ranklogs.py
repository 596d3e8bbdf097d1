"""Where the ranks' logs of one attempt lie: folders of this computer, or nodes that are asked."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from orchestrator.errors import HoldfastError
from orchestrator.runtime import ranklogs
from orchestrator.runtime.place import Place
from orchestrator.runtime.ranklogs import Piece, Which

if TYPE_CHECKING:
    from orchestrator.cli.session import Session
    from orchestrator.core.jobs import Attempt
    from orchestrator.engines.api import Engine

AT_ONCE = 16  #: nodes asked at the same time


@dataclass(frozen=True, slots=True, order=True)
class Log:
    """One rank's output in one generation."""

    generation: int
    rank: int
    node: str

    @property
    def which(self) -> Which:
        """What the node calls it."""
        return self.generation, self.rank


class Source(Protocol):
    """The logs of one attempt, on all nodes that had a part in it."""

    def look(self) -> list[Log]:
        """Return every log there is, oldest generation first."""
        ...

    def read(self, wanted: Mapping[Log, int]) -> dict[Log, Piece]:
        """Return what is in some logs from a byte on; below zero it counts from the end."""
        ...


def open_source(session: Session, attempt: Attempt) -> Source:
    """Return where an attempt's logs are; opens no connection yet."""
    from orchestrator.daemon.sites import build_site

    run = f"{attempt.job}.{attempt.number}"
    cluster = next((one for one in session.settings.clusters if one.name == attempt.cluster), None)
    if cluster is None or cluster.provider == "local":  # also of machines without power
        return Folders(session.settings.cluster_folder(attempt.cluster), run)
    site = build_site(session.settings, cluster, visiting=True)
    return Nodes(site.engine, tuple(map(str, cluster.node_names)), run)


@dataclass(frozen=True, slots=True)
class Folders:
    """Nodes that are folders of this computer."""

    folder: Path
    run: str

    def look(self) -> list[Log]:
        """Return every log below the folder."""
        return sorted(
            Log(piece.generation, piece.rank, home.name)
            for home in self.folder.glob("*")
            for piece in self._told(home, None)
        )

    def read(self, wanted: Mapping[Log, int]) -> dict[Log, Piece]:
        """Return what is in some logs from a byte on."""
        return {
            log: piece
            for log, at in wanted.items()
            for piece in self._told(self.folder / log.node, {log.which: at})
        }

    def _told(self, home: Path, wanted: Mapping[Which, int] | None) -> list[Piece]:
        return ranklogs.heard(ranklogs.tell(Place(home, self.run), wanted))


@dataclass(slots=True)
class Nodes:
    """Nodes that are asked, all at once; what those say that do not answer is kept, once each."""

    engine: Engine
    nodes: tuple[str, ...]
    run: str
    silent: dict[str, str] = field(default_factory=dict)  #: node -> why it was not heard

    def look(self) -> list[Log]:
        """Return every log of the nodes that answer."""
        found = self._ask(dict.fromkeys(self.nodes))
        return sorted(
            Log(piece.generation, piece.rank, node)
            for node, pieces in found.items()
            for piece in pieces
        )

    def read(self, wanted: Mapping[Log, int]) -> dict[Log, Piece]:
        """Return what is in some logs from a byte on; nothing of nodes that do not answer."""
        by_node: dict[str, dict[Which, int] | None] = {}
        for log, at in wanted.items():
            by_node[log.node] = {**(by_node.get(log.node) or {}), log.which: at}
        return {
            log: piece
            for node, pieces in self._ask(by_node).items()
            for piece in pieces
            if (log := Log(piece.generation, piece.rank, node)) in wanted
        }

    def _ask(self, wanted: Mapping[str, Mapping[Which, int] | None]) -> dict[str, list[Piece]]:
        with ThreadPoolExecutor(max(1, min(AT_ONCE, len(wanted)))) as pool:
            answers = pool.map(functools.partial(self._one, wanted), wanted)
            return dict(zip(wanted, answers, strict=True))

    def _one(self, wanted: Mapping[str, Mapping[Which, int] | None], node: str) -> list[Piece]:
        try:
            pieces = self.engine.logs(node, self.run, wanted[node])
        except HoldfastError as error:
            self.silent.setdefault(node, str(error))
            return []
        self.silent.pop(node, None)
        return pieces


def newest(logs: Iterable[Log]) -> int:
    """Return the newest generation of which anything was written; 0 if there is none."""
    return max((log.generation for log in logs), default=0)
