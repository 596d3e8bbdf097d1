"""What the commands of one command line share: the configuration and the ledger, opened late."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.config import Settings
    from orchestrator.core.fleet import Cluster, Fleet
    from orchestrator.ledger.api import Ledger

DEFAULT = Path("holdfast.yaml")


def _default_config() -> Path:
    return Path(os.environ.get("HOLDFAST_CONFIG") or DEFAULT)


@dataclass
class Session:
    """One command line; `click.pass_obj` gives it to a command."""

    config: Path = field(default_factory=_default_config)

    @cached_property
    def settings(self) -> Settings:
        """Return what the configuration says; raises `UserError`."""
        from orchestrator.config import load_settings

        if self.config == DEFAULT and not self.config.exists():
            raise UserError(
                "there is no holdfast.yaml in this folder; give --config FILE, "
                "or write one: holdfast init"
            )
        return load_settings(self.config)

    @cached_property
    def ledger(self) -> Ledger:
        """Return the ledger; raises `UserError` if it is not ours to open."""
        from orchestrator.ledger import open_ledger

        return open_ledger(self.settings.ledger_url)

    @cached_property
    def clusters(self) -> tuple[Cluster, ...]:
        """Return the clusters as the core knows them."""
        from orchestrator.core.fleet import Cluster
        from orchestrator.core.nodes import ClusterName, ProviderName
        from orchestrator.daemon.sites import abilities

        return tuple(
            Cluster(
                ClusterName(cluster.name),
                ProviderName(cluster.provider),
                frozenset(one.value for one in abilities(cluster)),
            )
            for cluster in self.settings.clusters
        )

    def now(self) -> datetime:
        """Return this moment."""
        return datetime.now(UTC)

    def fleet(self) -> Fleet:
        """Return the snapshot of this moment, from the ledger."""
        return self.ledger.snapshot(self.now(), self.clusters)
