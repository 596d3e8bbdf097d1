"""Findings of health checks as the core knows them, and the verdict a node gets from them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum


class Severity(IntEnum):
    """The Nagios exit codes. UNKNOWN is never read as OK, nor as CRITICAL."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


class FaultClass(StrEnum):
    """What kind of thing is wrong."""

    HARDWARE = "hardware"
    CONFIG = "config"
    APPLICATION = "application"
    NETWORK = "network"


class Channel(StrEnum):
    """Where evidence comes from. Two checks in one channel are one piece of evidence."""

    NODE = "node"  #: the node's own checks
    PEERS = "peers"  #: tests between nodes
    PROVIDER = "provider"  #: the provider's API
    GANG = "gang"  #: the reports of the gang's agents
    OPERATOR = "operator"


class Verdict(StrEnum):
    """What we hold a node to be."""

    FIT = "fit"
    SUSPECT = "suspect"  #: evidence in one channel that is not explicit
    UNFIT = "unfit"  #: an explicit hardware fault, or evidence in two channels
    UNKNOWN = "unknown"  #: nothing has been seen, or nothing lately


@dataclass(frozen=True, slots=True)
class Finding:
    """One judged fact of one check; the wire form is `healthchecks/findings.py`."""

    check: str  #: e.g. "xid"
    component: str  #: "gpu5", "nic0", "host"
    severity: Severity
    fault: FaultClass
    evidence: str
    channel: Channel
    observed_at: datetime
    boot_id: str = ""
    serial: str = ""
    code: str = ""  #: e.g. "79" for an XID; with `check` it names an explicit fault
    remedy: str = ""  #: e.g. "reboot", "reset", "replace"
    cost: float = 0.0  #: seconds the check took
    told_at: datetime | None = None  #: when we were told last, on the controller's clock

    @property
    def key(self) -> tuple[str, str, str]:
        """What a newer finding of the same check, told through the same channel, replaces."""
        return (self.check, self.component, self.channel)

    @property
    def detector(self) -> str:
        """The name under which this finding's authority is kept: "xid:79"."""
        return f"{self.check}:{self.code}" if self.code else self.check
