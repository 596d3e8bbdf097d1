"""The `clusters:` part of holdfast.yaml: what we rent, from whom, and how we get in."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from orchestrator.config.models import Strict, nearest
from orchestrator.config.ray import RaySettings
from orchestrator.config.scalars import Name
from orchestrator.config.slurm import SlurmSettings
from orchestrator.config.ssh import MachineSettings, SshSettings, a_list
from orchestrator.core.nodes import NodeName

NODES_MAX = 4096  #: in one cluster
PROVIDERS = ("local", "ssh", "slurm")
PROVIDERS_LATER = ("kubernetes",)
#: provider -> engines that can put agents on its nodes, the default first
ENGINES = {"local": ("local",), "ssh": ("ssh", "ray"), "slurm": ("slurm",)}


def _provider(value: str) -> str:
    if value in PROVIDERS_LATER:
        raise ValueError(
            f"provider {value!r} comes with a later version; now: {', '.join(PROVIDERS)}"
        )
    if value not in PROVIDERS:
        raise ValueError(f"unknown provider {value!r}{nearest(value, PROVIDERS)}")
    return value


def _nodes(value: Any) -> str:
    if not isinstance(value, list | tuple):
        return "count"
    mapped = any(isinstance(one, dict | MachineSettings) for one in value)
    return "machines" if mapped else "names"


def _machine(value: Any) -> Any:
    """Let a bare name stand among machines."""
    return {"name": value} if isinstance(value, str) else value


Names = Annotated[tuple[Name, ...], BeforeValidator(a_list), Field(min_length=1)]
Machine = Annotated[MachineSettings, BeforeValidator(_machine)]
Machines = Annotated[tuple[Machine, ...], BeforeValidator(a_list), Field(min_length=1)]
Nodes = Annotated[
    Annotated[Annotated[int, Field(ge=1, le=NODES_MAX)], Tag("count")]
    | Annotated[Names, Tag("names")]
    | Annotated[Machines, Tag("machines")],
    Discriminator(_nodes),
]


class ClusterSettings(Strict):
    """Nodes that share one fabric and one provider."""

    name: Name = Field(description="name of the cluster")
    provider: Annotated[str, AfterValidator(_provider)] = Field(
        description="who rents it to us: local (folders and processes of this computer), "
        "ssh (a list of hosts), slurm (nodes of a Slurm cluster)"
    )
    engine: str | None = Field(
        default=None,
        description="what puts agents on its nodes: that of the provider, or ray (on hosts)",
    )
    nodes: Nodes = Field(
        description="how many, or a list of their names, or (ssh) of machines with addresses"
    )
    sku: str = Field(
        default="local", min_length=1, description="kind of machine; jobs ask by `accelerator`"
    )
    accelerators: int = Field(default=0, ge=0, le=64, description="per machine")
    cohort: str = Field(default="first", min_length=1, description="hand-over batch")
    price_per_hour: float | None = Field(
        default=None, ge=0, description="US dollars per machine and hour"
    )
    ssh: SshSettings | None = Field(default=None, description="how nodes are reached by SSH")
    slurm: SlurmSettings | None = Field(default=None, description="how nodes are taken from Slurm")
    ray: RaySettings | None = Field(default=None, description="how Ray holds nodes (engine: ray)")

    @field_validator("engine")
    @classmethod
    def _an_engine(cls, value: str | None) -> str | None:
        known = {engine for engines in ENGINES.values() for engine in engines}
        if value is not None and value not in known:
            raise ValueError(f"unknown engine {value!r}{nearest(value, known)}")
        return value

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        for part in ("ssh", "slurm"):
            if getattr(self, part) is not None and self.provider != part:
                raise ValueError(f"`{part}` has no meaning with provider {self.provider}")
        if self.engine is not None and self.engine not in ENGINES[self.provider]:
            can = ", ".join(ENGINES[self.provider])
            raise ValueError(f"engine {self.engine!r} cannot start agents there; it can: {can}")
        if (self.ray is not None) != (self.engine == "ray"):
            raise ValueError("engine ray and the part `ray` belong together; give both")
        if self.provider != "ssh" and any(one.address for one in self.machines):
            raise ValueError(f"machines with addresses have no meaning with {self.provider}")
        return self

    @property
    def engine_name(self) -> str:
        """Return what puts agents on its nodes."""
        return self.engine or ENGINES[self.provider][0]

    @property
    def machines(self) -> tuple[MachineSettings, ...]:
        """Return the machines; a count gives NAME-001, NAME-002, ..."""
        if isinstance(self.nodes, int):
            names = (f"{self.name}-{i:03d}" for i in range(1, self.nodes + 1))
            return tuple(MachineSettings(name=name) for name in names)
        return tuple(
            one if isinstance(one, MachineSettings) else MachineSettings(name=one)
            for one in self.nodes
        )

    @property
    def node_names(self) -> tuple[NodeName, ...]:
        """Return the nodes' names."""
        return tuple(NodeName(one.name) for one in self.machines)
