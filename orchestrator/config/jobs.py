"""A job file: what to run, on how many nodes, and how to tell whether it is well.

`JobFile` is what a person writes; `to_spec` makes what the core decides on. What only agents need
travels inside `JobSpec.launch` as plain data (see `Launch`), and `agent_env` is the one place
where a job's secrets are read, at the moment an agent is started.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NotRequired, Self, TypedDict, cast

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from orchestrator.config.documents import Document, read
from orchestrator.config.models import Strict, build
from orchestrator.config.scalars import (
    VARIABLE,
    Duration,
    Folder,
    Name,
    SecretRef,
    StoreUrl,
    duration,
)
from orchestrator.config.settings import NODES_MAX, a_list
from orchestrator.core.jobs import JobSpec, WhenAlone
from orchestrator.core.nodes import ClusterName

STOP_AFTER = timedelta(minutes=15)  #: default of `when_alone` for scripts that write files

#: Name of a Python module.
Module = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")]

#: Set for each rank by the agent; a job that sets them would break its own gang.
OURS = re.compile(
    r"HOLDFAST_.*|TORCHELASTIC_.*|RANK|LOCAL_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|GROUP_RANK|NNODES|"
    r"MASTER_ADDR|MASTER_PORT"
)


class Launch(TypedDict):
    """`JobSpec.launch`: what an agent needs and the core does not; plain JSON types.

    Its keys are those of `runtime.spec.AgentSpec`, but for `secrets`: see `agent_launch`.
    """

    command: list[str]
    launch: str  #: "ranks" or "command"
    python: str | None
    workdir: str  #: absolute
    env: dict[str, str]
    secrets: NotRequired[dict[str, dict[str, str]]]  #: variable -> reference, never the secret
    progress: dict[str, str]  #: {"kind": heartbeat|stdout|file|none, "pattern": ...}
    limits: dict[str, float]  #: phase -> declared hang limit, seconds; only those given
    hang_floor: NotRequired[float]  #: seconds
    preload: NotRequired[list[str]]  #: modules of the warm parent
    survivors: NotRequired[str]  #: "keep" or "restart"
    memory_max: NotRequired[int]  #: bytes of snapshots per node
    replicas: NotRequired[list[str]]  #: URLs of stores that hold what is in the vault
    replicate: NotRequired[dict[str, float | int | None]]  #: see `runtime.spec.Replicate`
    partner_rate: NotRequired[float]  #: bytes a second of copies in a standby's memory


class ReplicateFile(Strict):
    """How checkpoints are brought to the replicas."""

    rpo: Duration = Field(
        default=duration("1h"),
        description="duration of committed work that may be lost with the vault",
    )
    rate_mb_s: float = Field(
        default=100.0, gt=0, description="megabytes a second to each replica, at most"
    )
    gb_per_day: float | None = Field(
        default=None, gt=0, description="gigabytes a day to each replica; goes before `rpo`"
    )
    keep: int = Field(default=3, ge=1, description="checkpoints that stay in each replica")

    @field_validator("rpo")
    @classmethod
    def _some_time(cls, value: timedelta) -> timedelta:
        if value < timedelta(seconds=1):
            raise ValueError("expected at least 1s: a copy takes time")
        return value

    def to_launch(self) -> dict[str, float | int | None]:
        """Return the arguments of `runtime.spec.Replicate`: seconds and bytes."""
        return {
            "rpo": self.rpo.total_seconds(),
            "rate": self.rate_mb_s * 1e6,
            "bytes_per_day": None if self.gb_per_day is None else self.gb_per_day * 1e9,
            "keep": self.keep,
        }


class Span(Strict):
    """Between how many nodes a gang may have."""

    min: int = Field(ge=1, le=NODES_MAX, description="nodes without which it cannot train")
    max: int = Field(ge=1, le=NODES_MAX, description="nodes it can use")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"expected min <= max, got {self.min} and {self.max}")
        return self


class StdoutProgress(Strict):
    """Progress is read off the output."""

    stdout: str = Field(
        min_length=1,
        max_length=500,
        description="regular expression that matches a line of progress; its group `step`, or its "
        "first group, is the number of the step",
    )

    @field_validator("stdout")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value


class FileProgress(Strict):
    """Progress is a file that changes."""

    file: str = Field(
        min_length=1, description="glob, from the work directory; any change is progress"
    )


class StopAfter(Strict):
    """Ranks that hear nobody end themselves."""

    stop_after: Duration = Field(description="duration without the controller and the register")


class Limits(Strict):
    """Declared hang limits, used until the agents have learned their own (20 samples)."""

    init: Duration | None = Field(
        default=None, description="duration until the first heartbeat (5m)"
    )
    compile: Duration | None = Field(default=None, description="duration of one compilation (30m)")
    first: Duration | None = Field(
        default=None, description="duration of each of the first steps (10m)"
    )
    checkpoint: Duration | None = Field(
        default=None, description="duration of one checkpoint (15m)"
    )
    floor: Duration | None = Field(
        default=None, description="duration below which no learned limit falls (60s)"
    )


def _arm(value: Any, names: Mapping[str, type[Strict]], default: str) -> str:
    """Choose the arm of a union that a mapping was meant for."""
    if isinstance(value, dict):
        return next((name for name in names if name in value), next(iter(names)))
    return next((name for name, cls in names.items() if isinstance(value, cls)), default)


def _words(value: Any) -> Any:
    """Split a command given as one string as a shell would, without ever running one."""
    if not isinstance(value, str):
        return a_list(value)
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise ValueError(f"cannot be split into words: {error}; give a list") from error


def _variables(value: Any) -> Any:
    """Let `OMP_NUM_THREADS: 1` stand; refuse YAML's surprising true and false."""
    if not isinstance(value, dict):
        return value
    for name, text in value.items():
        if not isinstance(name, str) or not re.fullmatch(VARIABLE, name):
            raise ValueError(f"{name!r} is not the name of an environment variable")
        if OURS.fullmatch(name):
            raise ValueError(f"{name} is set by Holdfast for each rank; remove it")
        if isinstance(text, bool | None):
            raise ValueError(  # noqa: TRY004 - pydantic tells ValueErrors only
                f"{name}: expected text; write it in quotes"
            )
    return {k: str(v) if isinstance(v, int | float) else v for k, v in value.items()}


Count = Annotated[int, Field(ge=1, le=NODES_MAX)]
Gang = Annotated[
    Annotated[Count, Tag("count")] | Annotated[Span, Tag("span")],
    Discriminator(lambda value: _arm(value, {"span": Span}, "count")),
]
Progress = Annotated[
    Annotated[Literal["heartbeat", "none"], Tag("word")]
    | Annotated[StdoutProgress, Tag("stdout")]
    | Annotated[FileProgress, Tag("file")],
    Discriminator(
        lambda value: _arm(value, {"stdout": StdoutProgress, "file": FileProgress}, "word")
    ),
]
Alone = Annotated[
    Annotated[Literal["continue"], Tag("word")] | Annotated[StopAfter, Tag("stop_after")],
    Discriminator(lambda value: _arm(value, {"stop_after": StopAfter}, "word")),
]
Register = Annotated[
    Annotated[Literal["none"], Tag("none")] | Annotated[StoreUrl, Tag("url")],
    Discriminator(lambda value: "none" if value == "none" else "url"),
]
Cause = Literal[
    "rank-exit",
    "rank-stopped",
    "hang",
    "node-lost",
    "grant",
    "verification",
    "join-failed",
    "generations",
    "attempts",
]


class JobFile(Strict):
    """The whole of a job file."""

    later: ClassVar[Mapping[str, str]] = {
        "setup": "prepare the environment before you submit, and name its interpreter in `python`",
    }

    name: Name = Field(description="name of the job; one run has one name for ever")
    command: Annotated[tuple[str, ...], BeforeValidator(_words), Field(min_length=1)] = Field(
        description="program and arguments, a list; a string is split into words, without a shell"
    )
    launch: Literal["ranks", "command"] = Field(
        default="ranks",
        description="ranks: the agent starts `ranks_per_node` copies, as torchrun would; "
        "command: one process per node, such as torchrun itself",
    )
    python: str | None = Field(
        default=None,
        min_length=1,
        description="interpreter of the script's own environment, on the nodes",
    )
    workdir: Folder = Field(
        default=Path(),
        validate_default=True,
        description="folder the command runs in, on the nodes; default: the job file's folder",
    )
    nodes: Gang = Field(default=1, description="how many, or {min: N, max: N}")
    ranks_per_node: int = Field(
        default=1, ge=1, le=64, description="copies per node (launch: ranks)"
    )
    accelerator: str | None = Field(
        default=None, min_length=1, description="`sku` that nodes must have"
    )
    clusters: Annotated[tuple[Name, ...], BeforeValidator(a_list)] = Field(
        default=(), description="allowed clusters in order of preference; none given: any"
    )
    checkpoints: StoreUrl | None = Field(
        default=None,
        description="vault: a folder or file:///URL that every allowed cluster can reach",
    )
    replicas: Annotated[tuple[StoreUrl, ...], BeforeValidator(a_list)] = Field(
        default=(),
        description="stores that hold copies of the vault's objects under the same keys; they are "
        "read where the vault has not what was committed",
    )
    replicate: ReplicateFile | None = Field(
        default=None,
        description="have checkpoints copied to `replicas`; without it somebody else does that",
    )
    register_: Register | None = Field(
        default=None,
        alias="register",
        description="commit register; default: in the vault; without one .holdfast/register/NAME "
        "in the work directory; `none`: no standbys",
    )
    progress: Progress | None = Field(
        default=None,
        description="heartbeat | none | {stdout: REGEX} | {file: GLOB}; "
        "default: heartbeat with `checkpoints`, else none (a hang is only reported)",
    )
    when_alone: Alone | None = Field(
        default=None,
        description="continue | {stop_after: DURATION}; "
        "default: continue with `checkpoints`, else {stop_after: 15m}",
    )
    stop_grace: Duration = Field(
        default=duration("10s"), description="duration between SIGTERM and SIGKILL"
    )
    budget: dict[Cause, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict,
        description="new generations in a row without a new checkpoint, for each cause and in all "
        "(`generations`, 50); launches in a row that commit nothing (`attempts`, 10)",
    )
    env: Annotated[dict[str, str], BeforeValidator(_variables)] = Field(
        default_factory=dict, description="environment variables"
    )
    secrets: Annotated[dict[str, SecretRef], BeforeValidator(_variables)] = Field(
        default_factory=dict,
        description="environment variables by reference, read where the controller runs",
    )
    priority: int = Field(default=0, ge=-1000, le=1000, description="higher goes first")
    limits: Limits = Field(default=Limits(), description="declared hang limits")
    preload: Annotated[tuple[Module, ...], BeforeValidator(a_list)] | None = Field(
        default=None,
        description="modules that a warm parent imports once on each node, to fork ranks from; "
        "[]: every rank starts cold; default: torch, where the command is python",
    )
    survivors: Literal["keep", "restart"] = Field(
        default="keep",
        description="keep: a healthy rank that uses `training`'s steady loop goes on in the next "
        "generation; restart: every rank is ended and started again",
    )
    memory_max_gb: float | None = Field(
        default=None, ge=0, description="memory for snapshots per node; default: a quarter of it"
    )
    partner_rate_mb_s: float | None = Field(
        default=None,
        ge=0,
        description="megabytes a second at which snapshots are copied to a standby's memory; "
        "0: they are not; default: 200",
    )

    @model_validator(mode="after")
    def _one_meaning(self) -> Self:
        if self.launch == "command" and self.ranks_per_node != 1:
            raise ValueError("`ranks_per_node` has no meaning with `launch: command`; remove it")
        if self.replicas and self.checkpoints is None:
            raise ValueError("`replicas` are of a vault; name it in `checkpoints`, or remove them")
        if self.replicate is not None and not self.replicas:
            raise ValueError("`replicate` needs places to copy to; name them in `replicas`")
        if self.checkpoints in self.replicas:
            raise ValueError("a vault is no replica of itself; remove it from `replicas`")
        both = sorted(self.env.keys() & self.secrets.keys())
        if both:
            raise ValueError(f"{both[0]} stands in `env` and in `secrets`; keep one")
        return self

    @property
    def register_url(self) -> str | None:
        """Return where the commit register is, or None if the job forbids one."""
        if self.register_ == "none":
            return None
        default = self.workdir / ".holdfast" / "register" / self.name
        return self.register_ or self.checkpoints or default.as_uri()

    def to_spec(self) -> JobSpec:
        """Return what the core decides on."""
        nodes = self.nodes if isinstance(self.nodes, Span) else Span(min=self.nodes, max=self.nodes)
        alone, stop_after = self._when_alone()
        budget = dict(self.budget)
        return JobSpec(
            nodes_min=nodes.min,
            nodes_max=nodes.max,
            ranks_per_node=self.ranks_per_node,
            accelerator=self.accelerator,
            clusters=tuple(ClusterName(name) for name in self.clusters),
            when_alone=alone,
            stop_after=stop_after,
            stop_grace=self.stop_grace,
            generations_max=budget.pop("generations", 50),
            attempts_max=budget.pop("attempts", 10),
            budget={str(cause): count for cause, count in budget.items()},
            priority=self.priority,
            register=self.register_url,
            checkpoints=self.checkpoints,
            launch=cast(dict[str, Any], self._launch()),
        )

    def _when_alone(self) -> tuple[WhenAlone, timedelta]:
        if isinstance(self.when_alone, StopAfter):
            return WhenAlone.STOP_AFTER, self.when_alone.stop_after
        if self.when_alone == "continue" or self.checkpoints is not None:
            return WhenAlone.CONTINUE, STOP_AFTER
        return WhenAlone.STOP_AFTER, STOP_AFTER

    def _launch(self) -> Launch:
        limits = {
            phase: limit.total_seconds()
            for phase in Limits.model_fields
            if (limit := getattr(self.limits, phase)) is not None
        }
        launch = Launch(
            command=list(self.command),
            launch=self.launch,
            python=self.python,
            workdir=str(self.workdir),
            env=dict(self.env),
            progress=self._progress(),
            limits={phase: limit for phase, limit in limits.items() if phase != "floor"},
        )
        if "floor" in limits:
            launch["hang_floor"] = limits["floor"]
        if self._preload:
            launch["preload"] = list(self._preload)
        if self.survivors != "keep":
            launch["survivors"] = self.survivors
        if self.replicas:
            launch["replicas"] = list(self.replicas)
        if self.replicate is not None:
            launch["replicate"] = self.replicate.to_launch()
        if self.memory_max_gb is not None:
            launch["memory_max"] = int(self.memory_max_gb * 1e9)
        if self.partner_rate_mb_s is not None:
            launch["partner_rate"] = self.partner_rate_mb_s * 1e6
        if self.secrets:
            launch["secrets"] = {
                name: one.model_dump(exclude_none=True) for name, one in self.secrets.items()
            }
        return launch

    @property
    def _preload(self) -> tuple[str, ...]:
        if self.preload is not None:
            return self.preload
        forks = self.launch == "ranks" and Path(self.command[0]).name.startswith("python")
        return ("torch",) if forks else ()

    def _progress(self) -> dict[str, str]:
        match self.progress:
            case StdoutProgress(stdout=pattern):
                return {"kind": "stdout", "pattern": pattern}
            case FileProgress(file=pattern):
                return {"kind": "file", "pattern": pattern}
            case str():
                return {"kind": self.progress, "pattern": ""}
            case None:
                return {"kind": "heartbeat" if self.checkpoints else "none", "pattern": ""}


def load_job(path: Path, *, name: str | None = None) -> JobFile:
    """Read a job file, under another name if one is given; raises `UserError` as for settings."""
    document = read(path)
    if name is not None:
        document = Document(path, {**document.data, "name": name}, document.root)
    return build(JobFile, document, context=path.absolute().parent)


def agent_launch(launch: Mapping[str, Any]) -> dict[str, Any]:
    """Return `JobSpec.launch` as arguments of an `AgentSpec`: secrets revealed, in `env`.

    Called where the controller runs, at the moment an agent is started; the result goes to the
    node on stdin and never into the ledger, argv or a log. Raises `UserError` for a secret that
    is not there.
    """
    plain = dict(launch)
    secrets = plain.pop("secrets", {})
    revealed = {name: SecretRef(**reference).reveal() for name, reference in secrets.items()}
    return {**plain, "env": {**plain.get("env", {}), **revealed}}
