"""What an agent is told when it is put on a node: one attempt of one job, one node, one key.

The controller writes it, an engine hands it to `launch start` on standard input, and the launcher
keeps it (mode 0600, for it holds the attempt's key and the job's secrets) as `spec.json` in the
attempt's folder. It never appears in an argument list or a log.

Standard library only, Python 3.10.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from orchestrator.errors import PermanentError

VERSION = 1  #: of the wire format

#: declared hang limits in seconds by phase, used until 20 samples of the phase were seen
LIMITS: Mapping[str, float] = {
    "init": 300.0,
    "compile": 1800.0,
    "first": 600.0,  #: the first steps
    "checkpoint": 900.0,
}
LAUNCHES = ("ranks", "command")
PROGRESS = ("heartbeat", "stdout", "file", "none")
ALONE = ("continue", "stop_after")
SURVIVORS = ("keep", "restart")  #: what becomes of healthy ranks when a generation ends

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_KEY = re.compile(r"(?:[0-9a-f]{2}){16,}")


class BadSpecError(PermanentError):
    """A spec that this version cannot read, or that makes no sense."""


@dataclass(frozen=True)
class Replicate:
    """How far copies of checkpoints in the replicas may be behind, and what they may cost."""

    rpo: float = 3600.0  #: seconds of work that may be lost with the vault
    rate: float = 100e6  #: bytes a second
    bytes_per_day: float | None = None  #: egress budget, spread evenly over the day
    keep: int = 3  #: copies that stay, see `retention.py`


@dataclass(frozen=True)
class AgentSpec:
    """Everything an agent needs to know before its first grant."""

    node: str
    job: str
    attempt: int
    token: int  #: the controller's lease token
    key: str = field(repr=False)  #: hex, new for each attempt
    command: tuple[str, ...]
    workdir: str
    host: str = "127.0.0.1"  #: the interface to listen on
    boot_id: str = ""  #: the boot that the controller saw; "" if it does not matter
    ranks_per_node: int = 1
    launch: str = "ranks"  #: one of LAUNCHES
    python: str | None = None  #: the job's interpreter; None for the agent's own
    env: Mapping[str, str] = field(default_factory=dict, repr=False)  #: may hold secrets
    progress: Mapping[str, str] = field(default_factory=lambda: {"kind": "heartbeat"})
    preload: tuple[str, ...] = ()  #: modules of the warm parent; without any, ranks start cold
    survivors: str = "keep"  #: one of SURVIVORS
    memory_max: int | None = None  #: bytes of snapshots on this node; None: a quarter of it
    partner_rate: float = 200e6  #: bytes a second of copies in a standby's memory; 0: no copies
    stop_grace: float = 10.0  #: seconds between SIGTERM and SIGKILL
    limits: Mapping[str, float] = field(default_factory=lambda: dict(LIMITS))
    hang_floor: float = 60.0  #: seconds; no learned hang limit is below it
    checkpoints: str | None = None  #: URL of the vault
    replicas: tuple[str, ...] = ()  #: URLs of stores that hold what is in the vault
    replicate: Replicate | None = None  #: None: somebody else brings them there
    register: str | None = None  #: URL of the commit register
    when_alone: str = "continue"  #: one of ALONE
    stop_after: float = 900.0  #: seconds without controller and register, with `stop_after`
    health: tuple[str, ...] | None = None  #: argv of the node's own checks
    health_every: float = 30.0
    health_limit: float = 20.0

    @property
    def run(self) -> str:
        """Return JOB.ATTEMPT, the name of the attempt on a node and the value of HOLDFAST_RUN."""
        return f"{self.job}.{self.attempt}"


def encode(spec: AgentSpec) -> dict[str, Any]:
    """Return the spec as plain JSON types. It holds the key: mind where it goes."""
    body: dict[str, Any] = {"version": VERSION, **asdict(spec)}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in body.items()}


def decode(body: Any) -> AgentSpec:
    """Read a spec; raises `BadSpecError` naming the field that is wrong.

    Limits that are absent are the defaults, so that a job declares only what it knows better.
    """
    try:
        fields = dict(body)
        version = fields.pop("version")
        if version != VERSION:
            raise BadSpecError(f"spec of version {version}; this agent reads {VERSION}")
        fields["command"] = _argv("command", fields["command"])
        fields["preload"] = _argv("preload", fields.get("preload", ()))
        fields["replicas"] = _argv("replicas", fields.get("replicas", ()))
        if fields.get("health") is not None:
            fields["health"] = _argv("health", fields["health"])
        if fields.get("replicate") is not None:
            fields["replicate"] = Replicate(**fields["replicate"])
        fields["limits"] = {**LIMITS, **fields.get("limits", {})}
        spec = AgentSpec(**fields)
        objection = _objection(spec)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadSpecError(f"spec cannot be read: {error}") from error
    if objection is not None:
        raise BadSpecError(f"spec: {objection}")
    return spec


def check_run(run: str) -> str:
    """Return `run` if it is JOB.ATTEMPT; raises `BadSpecError` otherwise. It names a folder."""
    job, _, attempt = run.rpartition(".")
    if not _NAME.fullmatch(job) or not attempt.isdecimal():
        raise BadSpecError(f"{run!r} is not JOB.ATTEMPT")
    return run


def _argv(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
        raise BadSpecError(f"spec: {name} must be a list of strings")
    return tuple(value)


def _objection(spec: AgentSpec) -> str | None:
    """Say what is wrong with a spec of the right shape; None if nothing is."""
    for name in ("node", "job"):
        if not _NAME.fullmatch(getattr(spec, name)):
            return f"{name} {getattr(spec, name)!r} is no name (letters, digits, . _ -)"
    if not _KEY.fullmatch(spec.key):
        return "key must be 16 bytes or more in hexadecimal"
    if not spec.command:
        return "command is empty"
    for module in spec.preload:
        if not all(part.isidentifier() for part in module.split(".")):
            return f"preload {module!r} is no name of a module"
    if spec.memory_max is not None and not (_is_whole(spec.memory_max) and spec.memory_max >= 0):
        return f"memory_max must be a number of bytes, not {spec.memory_max!r}"
    known_values = (("launch", LAUNCHES), ("when_alone", ALONE), ("survivors", SURVIVORS))
    for name, known in known_values:
        if getattr(spec, name) not in known:
            return f"{name} is {getattr(spec, name)!r}, not one of {', '.join(known)}"
    return _object_to_progress(spec.progress) or _object_to_numbers(spec)


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 < value < float("inf")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _object_to_progress(progress: Mapping[str, str]) -> str | None:
    if progress.get("kind") not in PROGRESS:
        return f"progress.kind is {progress.get('kind')!r}, not one of {', '.join(PROGRESS)}"
    pattern = progress.get("pattern", "")
    if progress["kind"] in ("stdout", "file") and not pattern:
        return f"progress.pattern is missing for kind {progress['kind']}"
    if progress["kind"] == "stdout":
        try:
            re.compile(pattern)
        except re.error as error:
            return f"progress.pattern is no regular expression: {error}"
    return None


def _object_to_numbers(spec: AgentSpec) -> str | None:
    for name, least in (("attempt", 1), ("ranks_per_node", 1), ("token", 0)):
        value = getattr(spec, name)
        if not isinstance(value, int) or value < least:
            return f"{name} must be {least} or more, not {value!r}"
    seconds: dict[str, object] = {
        name: getattr(spec, name)
        for name in ("stop_grace", "hang_floor", "stop_after", "health_every", "health_limit")
    }
    seconds.update(spec.limits)
    rate: object = spec.partner_rate
    copies = spec.replicate
    if copies is not None:
        for name, number in asdict(copies).items():
            if not _is_positive(number) and not (name == "bytes_per_day" and number is None):
                return f"replicate.{name} must be a number above 0, not {number!r}"
    if not isinstance(rate, (int, float)) or not 0 <= rate < float("inf"):
        return f"partner_rate must be a number of bytes a second, not {rate!r}"
    for name, number in seconds.items():
        if not isinstance(number, (int, float)) or not 0 <= number < float("inf"):
            return f"{name} must be a number of seconds, not {number!r}"
    return None
