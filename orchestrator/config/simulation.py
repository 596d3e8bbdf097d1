"""`holdfast simulate --fleet FILE`: a fleet that does not exist, and what may befall it.

Strict like all our files. `simulation.fleets` makes a world of it.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator, model_validator

from orchestrator.config.documents import read
from orchestrator.config.models import Strict, build
from orchestrator.config.policy import PolicyFile, to_policy
from orchestrator.config.scalars import NAME, Duration, duration
from orchestrator.config.ssh import a_list
from orchestrator.core.policies import Policy

Rate = Annotated[float, Field(ge=0, le=1_000)]
Share = Annotated[float, Field(ge=0, le=1)]
KINDS = ("crash", "gpu", "hang", "link", "degraded")
STEPS = ("reset", "reboot", "reprovision", "replace")


class CohortFile(Strict):
    """One hand-over batch of nodes."""

    name: str = Field(pattern=NAME, description="of the batch")
    nodes: int = Field(ge=1, le=20_000, description="how many")
    failures_per_node_week: Rate = Field(description="of a node in use, in the stable phase")
    early_failures_per_node_week: Rate = Field(default=0.0, description="in the first weeks")
    early: Duration = Field(default=timedelta(0), description="duration of those first weeks")
    lemons: Share = Field(default=0.0, description="share of nodes that fail far more often")
    lemon_factor: float = Field(default=10.0, ge=1, le=1_000, description="how much more often")
    idle_share: Share = Field(default=0.0, description="of the rate, for nodes without ranks")


class ClusterFile(Strict):
    """One simulated cluster."""

    name: str = Field(pattern=NAME, description="of the cluster")
    provider: str = Field(min_length=1, description="who rents it to us")
    cohorts: Annotated[tuple[CohortFile, ...], BeforeValidator(a_list)] = Field(
        min_length=1, description="its batches of nodes"
    )
    sku: str = Field(default="h100", min_length=1, description="kind of machine")
    gpus: int = Field(default=8, ge=1, le=64, description="per node")
    price_per_hour: float = Field(default=16.0, ge=0, description="US dollars for a node")
    can: Annotated[tuple[str, ...], BeforeValidator(a_list)] = Field(
        default=STEPS, description="repair steps that its provider offers"
    )

    @field_validator("can")
    @classmethod
    def _known_steps(cls, can: tuple[str, ...]) -> tuple[str, ...]:
        for step in can:
            if step not in STEPS:
                raise ValueError(f"expected some of {', '.join(STEPS)}, got {step!r}")
        return can


class JobFile(Strict):
    """One simulated training run."""

    name: str = Field(pattern=NAME, description="of the job")
    nodes: int = Field(ge=1, le=20_000, description="of its gang")
    nodes_min: int = Field(default=0, ge=0, description="fewest it can run with; 0: all")
    clusters: Annotated[tuple[str, ...], BeforeValidator(a_list)] = Field(
        default=(), description="that it may use, in order of preference; none: any"
    )
    after: Duration = Field(default=timedelta(0), description="duration until it is submitted")
    interval: Duration = Field(
        default=duration("10m"), description="between checkpoints, until the policy knows better"
    )
    stall: Duration = Field(default=duration("50ms"), description="of training for a checkpoint")
    lag: Duration = Field(default=duration("5s"), description="until one is durable")
    stop_after: Duration | None = Field(default=None, description="`when_alone: stop_after`")
    work: Duration | None = Field(default=None, description="of training until it is done")


class RepairFile(Strict):
    """What mends faults, and how long it takes."""

    easy_share: Share = Field(default=0.8, description="of faults mended by reset or reboot")
    easy: Duration = Field(default=duration("20m"), description="median of such a repair")
    hard: Duration = Field(default=duration("36h"), description="median of a replacement")
    spread: float = Field(default=4.0, gt=1, le=100, description="95th percentile over median")


class TimesFile(Strict):
    """How long things take."""

    detect: Duration = Field(default=duration("10s"), description="until a gang notices")
    recover: Duration = Field(default=duration("30s"), description="with a standby")
    cold: Duration = Field(default=duration("60s"), description="longer without one")


class ProbesFile(Strict):
    """How good the health checks are."""

    miss: Annotated[float, Field(ge=0, le=0.99)] = Field(
        default=0.0, description="chance that one look does not see a fault"
    )
    false_alarms_per_node_year: Rate = Field(default=0.0, description="explicit, and wrong")


class FleetFile(Strict):
    """The whole of a simulated fleet."""

    clusters: Annotated[tuple[ClusterFile, ...], BeforeValidator(a_list)] = Field(
        min_length=1, description="everything that is rented"
    )
    jobs: Annotated[tuple[JobFile, ...], BeforeValidator(a_list)] = Field(
        min_length=1, description="everything that is trained"
    )
    days: float = Field(default=28.0, gt=0, le=3_660, description="simulated days")
    faults: dict[str, Rate] = Field(
        default={"gpu": 0.6, "crash": 0.3, "link": 0.1}, description="weights of what befalls nodes"
    )
    repair: RepairFile = Field(default=RepairFile(), description="of faults")
    times: TimesFile = Field(default=TimesFile(), description="of detection and recovery")
    probes: ProbesFile = Field(default=ProbesFile(), description="errors of the checks")

    @field_validator("faults")
    @classmethod
    def _known_kinds(cls, faults: dict[str, float]) -> dict[str, float]:
        for kind in faults:
            if kind not in KINDS:
                raise ValueError(f"expected some of {', '.join(KINDS)}, got {kind!r}")
        if not sum(faults.values()) > 0:
            raise ValueError("expected at least one weight above zero")
        return faults

    @model_validator(mode="after")
    def _names_agree(self) -> FleetFile:
        names = [cluster.name for cluster in self.clusters]
        jobs = [job.name for job in self.jobs]
        for kind, given in (("cluster", names), ("job", jobs)):
            twice = sorted({name for name in given if given.count(name) > 1})
            if twice:
                raise ValueError(f"{kind} {twice[0]!r} is given twice")
        for job in self.jobs:
            for name in job.clusters:
                if name not in names:
                    raise ValueError(f"job {job.name!r} names cluster {name!r}, which is not given")
        return self


class PolicyOnly(Strict):
    """A file that holds nothing but a `policy:` part."""

    policy: PolicyFile = Field(default=PolicyFile(), description="limits")


def load_fleet(path: Path) -> FleetFile:
    """Read a simulated fleet; raises `UserError` with every mistake, a line each."""
    return build(FleetFile, read(path))


def load_policy(path: Path) -> Policy:
    """Read a policy: the `policy:` part of a file. Raises `UserError` with every mistake."""
    return to_policy(build(PolicyOnly, read(path)).policy)
