"""Who holds up a gang that hangs: from what each rank says of its collectives, and from its stack.

All but one wait in the same collective; the one that never came is the culprit, and its own stack
says where it is instead. Records of collectives decide first, because a sequence number cannot be
mistaken; stacks decide if there are none. Nothing is killed for this, and nobody is named if it is
not clear: then the links are suspected, and localisation tests pairs of nodes.

Pure, on plain data. The rules are those of PyTorch's flight-recorder analysis and of ByteRobust's
aggregation of stacks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

#: Functions in which a rank waits for its peers, in torch, NCCL, gloo and MPI.
WAITING = re.compile(
    r"all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|broadcast|barrier|monitored_barrier|"
    r"\brecv\b|\bisend\b|\birecv\b|ncclGroupEnd|MPI_\w+|Work\.wait|\bwait_for_peers\b|"
    r"_allreduce_|_all_gather_|_reduce_scatter_",
    re.IGNORECASE,
)
_FRAME = re.compile(r"^\s+(?P<function>.+?) \((?P<file>[^()]*?)(?::\d+)?\)\s*$")
_THREAD = re.compile(r"^Thread \S+ .*\"(?P<name>[^\"]*)\"|^Thread \S+ \((?P<state>\w+)\)")
Stacks = Mapping[int, str]  #: py-spy's text by rank
MINORITY = 0.5  #: of the ranks: as many or more behind are no culprits


class How(StrEnum):
    """What shows it."""

    BEHIND = "behind"  #: they never entered the collective that the others wait in
    DESYNC = "desync"  #: they entered another one, or with another size
    ELSEWHERE = "elsewhere"  #: the others wait in a collective, their stacks are somewhere else
    LINKS = "links"  #: everybody entered, nobody is done: the network, or a GPU
    UNCLEAR = "unclear"


class Entered(NamedTuple):
    """The last collective that a rank entered."""

    sequence: int
    operation: str
    size: int  #: elements or bytes, the same unit on all ranks
    done: bool


class Hang(NamedTuple):
    """Who holds the gang up."""

    how: How
    ranks: tuple[int, ...]  #: culprits; none if it is not clear
    reason: str
    stacks: Mapping[int, str] = {}  #: of the culprits, as they were taken


def judge(entered: Mapping[int, Entered], stacks: Stacks) -> Hang:
    """Name the culprits by the ranks' last collectives, else by their stacks (py-spy's text)."""
    found = _by_sequence(entered) or _by_kind(entered) or _by_stack(stacks)
    if found is None and len(entered) > 1 and not any(one.done for one in entered.values()):
        last = next(iter(entered.values()))
        reason = f"all {len(entered)} ranks entered {last.operation} {last.sequence}, none is done"
        found = Hang(How.LINKS, (), reason)
    return _with_stacks(found or Hang(How.UNCLEAR, (), "no rank stands out"), stacks)


def _with_stacks(found: Hang, stacks: Stacks) -> Hang:
    return found._replace(stacks={one: stacks[one] for one in found.ranks if one in stacks})


def judge_records(records: Mapping[int, Sequence[Mapping[str, Any]]], stacks: Stacks) -> Hang:
    """Name the culprits by each rank's last record of each process group, else by the stacks.

    Sequences are those of a group. Who is behind in one group, but itself waits in a collective of
    another, is a victim there: the next group is asked.
    """
    groups: dict[str, dict[int, Entered]] = {}
    for rank, mine in records.items():
        for group in {str(one["group"]) for one in mine}:
            last = last_entered([one for one in mine if one["group"] == group])
            if last is not None:
                groups.setdefault(group, {})[rank] = last
    ordered = sorted(groups.items(), key=lambda one: (-len(one[1]), one[0]))
    for name, entered in ordered:
        elsewhere = {
            rank
            for other, theirs in ordered
            for rank, last in theirs.items()
            if other != name and not last.done
        }
        found = _by_sequence(entered) or _by_kind(entered)
        victims = elsewhere.intersection(() if found is None else found.ranks)
        if found is not None and len(victims) < len(found.ranks):
            culprits = tuple(one for one in found.ranks if one not in victims)
            waits = f"; {_names(sorted(victims))} in another group" if victims else ""
            found = found._replace(ranks=culprits, reason=f"{found.reason}{waits}")
            return _with_stacks(found, stacks)
    return judge(ordered[0][1] if len(ordered) == 1 else {}, stacks)


def last_entered(records: Sequence[Mapping[str, Any]]) -> Entered | None:
    """Read a rank's records (sequence, operation, size, entered, done); None if there is none."""
    known = [one for one in records if one.get("entered") is not None]
    if not known:
        return None
    last = max(known, key=lambda one: int(one["sequence"]))
    return Entered(
        int(last["sequence"]),
        str(last["operation"])[:80],
        int(last["size"]),
        last.get("done") is not None,
    )


def _by_sequence(entered: Mapping[int, Entered]) -> Hang | None:
    if len({one.sequence for one in entered.values()}) < 2:
        return None
    most = max(one.sequence for one in entered.values())
    least = min(one.sequence for one in entered.values())
    behind = sorted(rank for rank, one in entered.items() if one.sequence == least)
    if len(behind) >= MINORITY * len(entered) and len(entered) > 2:
        return None
    ahead = next(one for one in entered.values() if one.sequence == most)
    reason = f"{_names(behind)} stopped at {least}, others entered {ahead.operation} {most}"
    return Hang(How.BEHIND, tuple(behind), reason)


def _by_kind(entered: Mapping[int, Entered]) -> Hang | None:
    kinds = Counter((one.operation, one.size) for one in entered.values())
    if len(kinds) < 2 or len({one.sequence for one in entered.values()}) > 1:
        return None
    usual, count = kinds.most_common(1)[0]
    odd = sorted(rank for rank, one in entered.items() if (one.operation, one.size) != usual)
    if count <= len(odd):
        return Hang(How.DESYNC, (), "the ranks entered different collectives, none the usual one")
    mine = entered[odd[0]]
    reason = f"{_names(odd)} entered {mine.operation} of {mine.size}, others {usual[0]} of "
    return Hang(How.DESYNC, tuple(odd), f"{reason}{usual[1]}")


def _by_stack(stacks: Mapping[int, str]) -> Hang | None:
    """Return who is not in a collective while most others are."""
    where = {rank: frames(text) for rank, text in stacks.items()}
    known = {rank: one for rank, one in where.items() if one}
    away = sorted(rank for rank, one in known.items() if not any(map(WAITING.search, one)))
    if not away or len(away) >= MINORITY * len(known):
        return None
    place = known[away[0]][0]
    reason = f"{_names(away)} in {place} while {len(known) - len(away)} others wait for it"
    return Hang(How.ELSEWHERE, tuple(away), reason)


def frames(text: str) -> tuple[str, ...]:
    """Return the functions of the main thread, the innermost first, from py-spy's text."""
    found: list[str] = []
    main: list[str] = []
    inside_main = False
    for line in text.splitlines():
        if thread := _THREAD.match(line):
            inside_main = thread["name"] == "MainThread" or (thread["name"] is None and not found)
        elif frame := _FRAME.match(line):
            found.append(frame["function"])
            if inside_main:
                main.append(frame["function"])
    return tuple(main or found)


def groups(stacks: Mapping[int, str]) -> tuple[tuple[tuple[str, ...], tuple[int, ...]], ...]:
    """Group ranks by equal stacks (functions, not lines), the largest group first."""
    by_stack: dict[tuple[str, ...], list[int]] = {}
    for rank in sorted(stacks):
        by_stack.setdefault(frames(stacks[rank]), []).append(rank)
    ordered = sorted(by_stack.items(), key=lambda one: (-len(one[1]), one[1]))
    return tuple((stack, tuple(ranks)) for stack, ranks in ordered)


def _names(ranks: Sequence[int]) -> str:
    shown = ", ".join(map(str, ranks[:8])) + (" and more" if len(ranks) > 8 else "")
    return f"rank{'s' if len(ranks) > 1 else ''} {shown}"
