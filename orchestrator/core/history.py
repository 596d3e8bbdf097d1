"""What a machine went through, and which machine it is: troubles and repairs, kept by serials.

A history belongs to the machine, not to the name: it follows the serials when a machine comes back
under another name, and stays behind when another machine is put under an old one. Kept inside
`Node`; written by `enact`, read by `repair`, `trust` and `kinship`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

TROUBLES_MAX = 32  #: remembered per machine
STEPS_MAX = 32
#: Faults that are no detector's: what a node was taken from its place for.
LOST = "lost"  #: its provider said that it was off
UNSEEN = "unseen"  #: its gang missed it and nobody could reach it
AGENT = "agent"  #: its agent did not stay up
ACCUSED = "accused"  #: one of a group that localisation named
RENAMED = "renamed"  #: another machine stood under its name
#: Troubles that say nothing about how often this machine itself will break.
BLAMELESS = frozenset({UNSEEN, RENAMED, ACCUSED})


class RepairStep(StrEnum):
    """The repair ladder, from its lowest rung."""

    RESET = "reset"  #: the accelerators, by a command on the node
    REBOOT = "reboot"
    REPROVISION = "reprovision"  #: the same machine, installed anew
    REPLACE = "replace"  #: another machine


LADDER = tuple(RepairStep)


@dataclass(frozen=True, slots=True)
class Trouble:
    """One time at which the machine was taken out of service."""

    at: datetime
    fault: str  #: the detector ("xid:79") or one of the words above
    serial: str = ""  #: of the component that was blamed, where it is known
    acquitted_at: datetime | None = None  #: it passed its checks: the suspicion was wrong
    trained: bool = False  #: its gang made steps on it until it was taken out


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the repair ladder that was begun."""

    at: datetime
    step: RepairStep
    fault: str


@dataclass(frozen=True, slots=True)
class History:
    """What a machine went through: newest last."""

    troubles: tuple[Trouble, ...] = ()
    steps: tuple[Step, ...] = ()
    owed: str = ""  #: the fault that it was put away for and never repaired, if it came back so

    @property
    def accused(self) -> bool:
        """Say whether the last trouble is a suspicion that nothing has decided yet."""
        if not self.troubles or self.troubles[-1].fault != ACCUSED:
            return False
        last = self.troubles[-1]
        done = bool(self.steps) and self.steps[-1].at >= last.at
        return last.acquitted_at is None and not done

    def troubled(
        self, at: datetime, fault: str, serial: str = "", *, trained: bool = False
    ) -> History:
        """Return the history after one more trouble."""
        troubles = (*self.troubles, Trouble(at, fault, serial, trained=trained))[-TROUBLES_MAX:]
        return replace(self, troubles=troubles)

    def stepped(self, at: datetime, step: RepairStep, fault: str) -> History:
        """Return the history after a step of the ladder was begun: nothing is owed any more."""
        return replace(self, steps=(*self.steps, Step(at, step, fault))[-STEPS_MAX:], owed="")

    def acquitted(self, at: datetime) -> History:
        """Return the history after the last trouble turned out to be none."""
        if not self.troubles or self.troubles[-1].acquitted_at is not None:
            return self
        last = replace(self.troubles[-1], acquitted_at=at)
        return replace(self, troubles=(*self.troubles[:-1], last))


def join(one: History, other: History) -> History:
    """Return two histories of one machine as one."""
    troubles = {(t.at, t.fault, t.serial): t for t in (*one.troubles, *other.troubles)}
    steps = {(s.at, s.step, s.fault): s for s in (*one.steps, *other.steps)}
    return History(
        tuple(troubles[key] for key in sorted(troubles))[-TROUBLES_MAX:],
        tuple(steps[key] for key in sorted(steps))[-STEPS_MAX:],
        one.owed or other.owed,
    )


#: Serials that makers leave in place of one: they name nobody.
BLANK = frozenset({"", "0", "none", "n/a", "unknown", "default string", "not specified"})
BOARD = "board:"  #: prefix of the serial of a machine's own board, where a provider tells it


def serials(listed: tuple[str, ...]) -> frozenset[str]:
    """Return the serials that may name a machine: no blanks, no fillers of one character."""
    told = (serial.strip() for serial in listed)
    return frozenset(one for one in told if not _filler(one.rpartition(":")[2]))


def same_machine(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Say whether two sets of serials belong to one machine.

    Boards decide where both tell theirs: accelerators and cards are swapped, a board is the
    machine. Otherwise at least half of the smaller set must be shared. Nothing known is nobody.
    """
    left, right = serials(one), serials(other)
    boards = [{s for s in side if s.startswith(BOARD)} for side in (left, right)]
    if all(boards):
        return bool(boards[0] & boards[1])
    shared = len(left & right)
    return shared > 0 and 2 * shared >= min(len(left), len(right))


def _filler(serial: str) -> bool:
    plain = serial.strip().lower()
    return plain in BLANK or plain.startswith("to be filled") or len(set(plain)) <= 1
