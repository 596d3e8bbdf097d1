"""Ranks that outlive their generation: asked to leave it, and handed to the next one.

A survivor leaves by itself (`training`'s steady loop does): it drops its process group, stops
saving, says "parked" and waits. One that does not within its limit is no survivor.

Standard library only, Python 3.10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.runtime.paces import Paces
from orchestrator.runtime.rankprocess import RankProcess


class Survivors:
    """The survivors of one ending."""

    def __init__(self) -> None:
        """Keep nobody."""
        self._asked: list[RankProcess] = []
        self._until = 0.0
        self.dismissed = False  #: they were kept and are being ended after all

    def __contains__(self, rank: RankProcess) -> bool:
        return any(one is rank for one in self._asked)

    @property
    def pids(self) -> frozenset[int]:
        """The processes that must not be ended."""
        return frozenset(one.child.pid for one in self._asked)

    @property
    def all_left(self) -> bool:
        """Whether everybody who was asked has left the generation."""
        return all(one.parked for one in self._asked)

    def left(self) -> list[RankProcess]:
        """Return those that have left, and live."""
        return [one for one in self._asked if one.parked and not one.ended]

    def ask(self, ranks: Sequence[RankProcess], generation: int, until: float) -> None:
        """Ask those that can, and are not stopped, to leave a generation before `until`."""
        self._until = until
        order = {"do": "park", "generation": generation}
        for rank in ranks:
            able = rank.survives and not rank.ended and rank.stopped_since is None
            rank.parked = rank.parked and able
            if able and (rank.parked or rank.say(order)):
                self._asked.append(rank)

    def look(self, now: float) -> list[RankProcess]:
        """Return those that will not leave any more: they died, or took too long."""
        lost = [one for one in self._asked if one.ended or (not one.parked and now >= self._until)]
        self._asked = [one for one in self._asked if all(one is not other for other in lost)]
        return [one for one in lost if not one.ended]

    def rejoin(self, rank: RankProcess, number: int, env: Mapping[str, str], log: Path) -> bool:
        """Hand a survivor its seat in the next generation; False if it cannot be told."""
        rank.parked, rank.mourned = False, False
        if not rank.say({"do": "join", "env": dict(env), "log": str(log)}):
            return False
        rank.rank, rank.log = number, log
        rank.beat = rank.beat_at = rank.stopped_since = None
        rank.paces = Paces()
        return True

    def dismiss(self) -> None:
        """Keep nobody any more."""
        self._asked, self.dismissed = [], True

    def forget(self) -> None:
        """Begin anew."""
        self._asked, self.dismissed = [], False
