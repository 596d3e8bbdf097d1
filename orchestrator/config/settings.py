"""`holdfast.yaml`: what we rent, how patient we are, whom we tell.

One file per fleet. Paths in it start from its own folder. Nothing else of Holdfast reads it; the
rest gets `Settings`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
)

from orchestrator.config.clusters import NODES_MAX, ClusterSettings
from orchestrator.config.documents import Document, parse, read
from orchestrator.config.models import Strict, build
from orchestrator.config.policy import PolicyFile, to_policy
from orchestrator.config.scalars import Duration, Folder, SecretRef, absolute, duration
from orchestrator.config.ssh import NodePath, a_list
from orchestrator.core.nodes import ClusterName
from orchestrator.core.policies import Policy


def _ledger(value: Any, details: ValidationInfo) -> Any:
    """Make the path of an SQLite ledger absolute; refuse what is no ledger's URL."""
    if not isinstance(value, str) or not value:
        return value
    scheme, _, rest = value.partition("://")
    if scheme == "sqlite" and len(rest) > 1 and rest.startswith("/") and ":memory:" not in rest:
        return f"sqlite:///{absolute(rest[1:], Path(details.context or '.'))}"
    if scheme not in ("postgresql", "postgresql+psycopg"):
        raise ValueError("expected sqlite:///PATH of a file, or postgresql://HOST/DATABASE")
    if urlsplit(value).password:
        raise ValueError(
            "a password is never written in the file: "
            "expected {env: NAME} or {file: PATH} that holds the whole URL"
        )
    return value


Ledger = Annotated[
    Annotated[str, BeforeValidator(_ledger), Tag("url")] | Annotated[SecretRef, Tag("reference")],
    Discriminator(lambda value: "url" if isinstance(value, str) else "reference"),
]


class SlackSettings(Strict):
    """Where incidents are told."""

    token: SecretRef = Field(description="bot token, by reference")
    channel: str = Field(min_length=1, description="channel id, such as C0123456789")
    base_url: str = Field("https://slack.com/api/", description="of Slack's API")


class AlertSettings(Strict):
    """Who is told; without any, incidents go to the log only."""

    slack: SlackSettings | None = Field(default=None, description="one thread per incident")


class HealthSettings(Strict):
    """The passive health checks that run on each node."""

    expect_gpus: int | None = Field(
        default=None, ge=0, description="GPUs per node; fewer is a finding"
    )
    kernel_log: NodePath | None = Field(
        default=None,
        description="file with the kernel's log on nodes of other computers; default: /dev/kmsg",
    )
    every: Duration = Field(
        default=duration("60s"), description="duration between two runs of the checks"
    )
    limit: Duration = Field(
        default=duration("30s"), description="duration after which a run is ended"
    )


class Settings(Strict):
    """The whole of holdfast.yaml."""

    state: Folder = Field(
        default=Path("holdfast-state"),
        validate_default=True,
        description="folder of the ledger, the controller's secret and the local nodes",
    )
    ledger: Ledger = Field(
        default="",
        description="URL: sqlite:///PATH or postgresql://...; with a password: {env: NAME}; "
        "default: ledger.db in the state folder",
    )
    clusters: Annotated[tuple[ClusterSettings, ...], BeforeValidator(a_list)] = Field(
        default=(), description="everything we rent"
    )
    policy: PolicyFile = Field(default=PolicyFile(), description="limits")
    alerts: AlertSettings = Field(default=AlertSettings(), description="who is told")
    health: HealthSettings = Field(default=HealthSettings(), description="checks on nodes")

    @field_validator("clusters")
    @classmethod
    def _names_once(cls, clusters: tuple[ClusterSettings, ...]) -> tuple[ClusterSettings, ...]:
        _once("cluster", [cluster.name for cluster in clusters])
        _once("node", [node for cluster in clusters for node in cluster.node_names])
        return clusters

    @property
    def core_policy(self) -> Policy:
        """Return the limits as the core knows them."""
        return to_policy(self.policy)

    @property
    def ledger_url(self) -> str:
        """Return the ledger's URL; raises `UserError` where it is a reference to nothing."""
        if isinstance(self.ledger, SecretRef):
            return self.ledger.reveal()
        return self.ledger or f"sqlite:///{self.state / 'ledger.db'}"

    @property
    def ledger_shown(self) -> str:
        """Return the ledger's URL as it may be shown: a reference stays a reference."""
        return str(self.ledger) if isinstance(self.ledger, SecretRef) else self.ledger_url

    @property
    def secret_file(self) -> Path:
        """Return the file of the controller's own secret, from which agents' keys are made."""
        return self.state / "secret"

    def cluster_folder(self, cluster: str) -> Path:
        """Return the folder of a local cluster: one folder per node in it."""
        return self.state / "clusters" / cluster

    def cluster(self, name: ClusterName) -> ClusterSettings | None:
        """Return one cluster, or None if there is none of this name."""
        return next((cluster for cluster in self.clusters if cluster.name == name), None)


def load_settings(path: Path) -> Settings:
    """Read holdfast.yaml; raises `UserError` with the line and path of every mistake."""
    return _settings(read(path))


def parse_settings(text: str, path: Path) -> Settings:
    """Read text as if it stood in `path`; raises `UserError` as `load_settings` does."""
    return _settings(parse(text, path))


def _settings(document: Document) -> Settings:
    return build(Settings, document, context=document.path.absolute().parent)


def _once(what: str, names: Sequence[str]) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(f"the {what} name {twice[0]!r} is given twice")


__all__ = ["NODES_MAX", "ClusterSettings", "Settings", "SlackSettings", "a_list", "load_settings"]
