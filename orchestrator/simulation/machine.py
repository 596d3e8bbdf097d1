"""One machine of the simulated world: its power, its faults, the agents on it, what checks see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.core.decisions import RepairStep
from orchestrator.core.nodes import ClusterName, JobName, Machine, MachineId, NodeName
from orchestrator.core.observations import MachineSeen, Power
from orchestrator.core.verdicts import Channel, FaultClass, Finding, Severity
from orchestrator.runtime.grants import Grant
from orchestrator.runtime.lineage import Member
from orchestrator.runtime.reports import Note
from orchestrator.simulation.agenda import moment
from orchestrator.simulation.plan import Kind

Run = tuple[JobName, int]  #: a job and the number of its attempt
RUNGS = tuple(RepairStep)  #: the ladder, lowest first

#: What checks say of each kind, once they see it: (check, component, code, severity, class,
#: channel, words). Two channels for what no single check proves.
SIGNS: dict[Kind, tuple[tuple[str, str, str, Severity, FaultClass, Channel, str], ...]] = {
    Kind.GPU: (
        (
            "xid",
            "gpu0",
            "79",
            Severity.CRITICAL,
            FaultClass.HARDWARE,
            Channel.NODE,
            "GPU has fallen off the bus",
        ),
    ),
    Kind.DEGRADED: (
        (
            "clocks",
            "gpu0",
            "hw-slowdown",
            Severity.WARNING,
            FaultClass.HARDWARE,
            Channel.NODE,
            "clocks are held low by the hardware",
        ),
        (
            "straggler",
            "host",
            "",
            Severity.WARNING,
            FaultClass.HARDWARE,
            Channel.GANG,
            "its steps take longer than its peers'",
        ),
    ),
    Kind.PROBE: (
        (
            "nvml",
            "gpu1",
            "gpu-count",
            Severity.CRITICAL,
            FaultClass.HARDWARE,
            Channel.NODE,
            "7 GPUs seen, 8 expected",
        ),
    ),
}


@dataclass(slots=True, eq=False)
class Fault:
    """Something wrong with one machine, until it is mended."""

    kind: Kind
    at: float
    fixed_by: RepairStep = RepairStep.REBOOT
    takes: float = 1_200.0  #: seconds, of the step that mends it
    seen_from: float = 0.0  #: moment from which checks see it
    until: float | None = None  #: of a trace: no repair ends before, and then it is over


@dataclass(slots=True, eq=False)
class SimAgent:
    """One agent process, the same for both kinds of gang."""

    nonce: str
    member: Member
    run: Run
    born: float
    token: int
    grant: Grant | None = None
    notes: list[Note] = field(default_factory=list)
    told: int = 0  #: notes ever written

    def note(
        self, kind: str, text: str, at: float, data: Mapping[str, object] | None = None
    ) -> None:
        """Write a note for the controller."""
        self.told += 1
        self.notes.append(Note(self.told, at, kind, text, data or {}))


@dataclass(slots=True, eq=False)
class SimMachine:
    """A machine; its node keeps the name when the machine behind it is replaced."""

    node: NodeName
    cluster: ClusterName
    cohort: str
    sku: str
    gpus: int
    price: float
    frailty: float = 1.0
    boot: int = 1
    serial: int = 1
    on: bool = True
    cut: int = 0  #: how many faults cut its network off from everybody
    deaf: int = 0  #: how many faults keep the controller alone from reaching it
    unregistered: int = 0  #: how many faults keep it from every register
    skew: float = 0.0  #: seconds that its clock is ahead
    repairing: bool = False
    faults: list[Fault] = field(default_factory=list)
    agents: dict[Run, SimAgent] = field(default_factory=dict)
    gone: dict[Run, str] = field(default_factory=dict)  #: proofs of the guard
    disk: dict[Run, Grant] = field(default_factory=dict)
    tokens: dict[Run, int] = field(default_factory=dict)  #: highest controller token seen
    alarmed: dict[tuple[str, str], int] = field(default_factory=dict)  #: keys -> boot

    @property
    def boot_id(self) -> str:
        """The kernel's id of this boot."""
        return f"{self.node}/{self.serial}.{self.boot}"

    @property
    def up(self) -> bool:
        """Whether the machine runs and its network works."""
        return self.on and not self.cut

    @property
    def reachable(self) -> bool:
        """Whether the controller can reach it."""
        return self.up and not self.deaf

    @property
    def sound(self) -> bool:
        """Whether ranks can run on it."""
        return self.on and not any(fault.kind is Kind.GPU for fault in self.faults)

    @property
    def pace(self) -> float:
        """The speed at which ranks run on it."""
        return 0.6 if any(fault.kind is Kind.DEGRADED for fault in self.faults) else 1.0

    def listed(self) -> MachineSeen:
        """Return how its provider lists it."""
        machine = Machine(
            MachineId(f"i-{self.node}-{self.serial}"),
            self.sku,
            self.gpus,
            (f"sn-{self.node}-{self.serial}",),
            self.price,
        )
        power = Power.RUNNING if self.on else Power.STOPPED
        return MachineSeen(self.node, self.cohort, machine, power, self.boot_id)

    def symptoms(self, now: float) -> tuple[Kind, ...]:
        """Return what checks can see now, kind by kind."""
        return tuple(fault.kind for fault in self.faults if fault.seen_from <= now)

    def findings(self, now: float) -> tuple[Finding, ...]:
        """Return what a whole look of the checks says now, on the machine's own clock."""
        signs = {
            (sign[0], sign[1]): sign
            for fault in self.faults
            if fault.seen_from <= now  # by the world's clock
            for sign in SIGNS.get(fault.kind, ())
        }
        self.alarmed.update(dict.fromkeys(signs, self.boot))
        fine = {key for key, boot in self.alarmed.items() if boot == self.boot} - signs.keys()
        at = now + self.skew
        said = [self._fine("disk", "host", at), *(self._fine(*key, at) for key in sorted(fine))]
        return (*said, *(self._wrong(sign, at) for sign in signs.values()))

    def _fine(self, check: str, component: str, now: float) -> Finding:
        return Finding(
            check,
            component,
            Severity.OK,
            FaultClass.HARDWARE,
            "",
            Channel.NODE,
            moment(now),
            self.boot_id,
        )

    def _wrong(
        self, sign: tuple[str, str, str, Severity, FaultClass, Channel, str], now: float
    ) -> Finding:
        check, component, code, severity, fault, channel, words = sign
        return Finding(
            check,
            component,
            severity,
            fault,
            words,
            channel,
            moment(now),
            self.boot_id,
            code=code,
            remedy="reboot",
        )
