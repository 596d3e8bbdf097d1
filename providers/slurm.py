"""Nodes of a Slurm cluster, as `sinfo --json` and `scontrol` know them.

Slurm 22.05 and 23.02+ print different JSON: a state is a word with flags there, a list here; both
are read. A node is drained with a reason that begins with our name, and only such a drain is lifted
again. `down` proves nothing: slurmd is silent, ranks may go on. Only `POWERED_DOWN` is proof.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import PermanentError, TransientError, UserError
from providers.api import OWNER, Capability, Limited, MachineListed, Power, Run

LIMIT = 8.0  #: seconds for one of Slurm's commands
REASON_MAX = 200  #: characters of a reason
_GPUS = re.compile(r"gpu(?::[^:,()]+)?:(\d+)")


@dataclass(frozen=True, slots=True)
class SlurmNodes:
    """Which nodes are ours and what we know of them."""

    cluster: str
    nodes: tuple[str, ...]
    sku: str
    accelerators: int
    cohort: str
    price_per_hour: float | None = None
    reboot: bool = False  #: RebootProgram is set there
    serials: Mapping[str, tuple[str, ...]] | None = None


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """One node of `sinfo --json`, of either version."""

    name: str
    states: frozenset[str]  #: upper case: IDLE, ALLOCATED, DRAIN, NOT_RESPONDING, ...
    address: str
    reason: str
    reason_by: str
    gpus: int

    @property
    def drained(self) -> bool:
        """Say whether Slurm puts no new work there because somebody said so."""
        return bool(self.states & {"DRAIN", "DRAINED", "DRAINING"})

    @property
    def ours(self) -> bool:
        """Say whether the drain is ours to lift."""
        return self.drained and self.reason.startswith(f"{OWNER}: ")


class SlurmProvider(Limited):
    """The provider of some nodes of a Slurm cluster."""

    name = "slurm"

    def __init__(self, about: SlurmNodes, run: Run) -> None:
        """`run` runs Slurm's commands, here or on a login node."""
        self._about, self._run = about, run
        self.capabilities = capabilities(about)

    def machines(self) -> tuple[MachineListed, ...]:
        """List our nodes; raises `TransientError` if slurmctld does not answer."""
        seen = self.seen()
        return tuple(self._listed(seen[node]) for node in self._about.nodes if node in seen)

    def reboot(self, node: str) -> str:
        """Let Slurm reboot a node as soon as nothing runs on it."""
        if not self._about.reboot:
            self._cannot("reboot", node)
        self._known(node)
        self._do("scontrol", "reboot", "ASAP", "nextstate=RESUME", f"reason={OWNER}: reboot", node)
        return ""

    def cordon(self, node: str, reason: str) -> None:
        """Drain a node, unless it is drained already."""
        if not self._known(node).drained:
            self._update(node, "State=DRAIN", f"Reason={_reason(reason)}")

    def uncordon(self, node: str) -> bool:
        """Resume a node that we drained."""
        seen = self._known(node)
        if not seen.drained:
            return True
        if not seen.ours:
            return False
        self._update(node, "State=RESUME")
        return True

    def address(self, node: str) -> str:
        """Return the address of a node as Slurm has it."""
        return self._known(node).address

    def seen(self) -> dict[str, NodeSeen]:
        """Return every node of the Slurm cluster by name."""
        return {node.name: node for node in parse_nodes(self._do("sinfo", "--json"))}

    def _known(self, node: str) -> NodeSeen:
        if node not in self._about.nodes:
            raise UserError(f"there is no node {node!r:.80} in {self._about.cluster}")
        seen = self.seen().get(node)
        if seen is None:
            raise PermanentError(f"Slurm knows no node {node}")
        return seen

    def _listed(self, seen: NodeSeen) -> MachineListed:
        about = self._about
        serials = (about.serials or {}).get(seen.name, ())
        return MachineListed(
            node=seen.name,
            id=f"slurm-{about.cluster}-{seen.name}",
            cohort=about.cohort,
            sku=about.sku,
            accelerators=about.accelerators or seen.gpus,
            serials=serials,
            power=Power.STOPPED if "POWERED_DOWN" in seen.states else Power.RUNNING,
            boot_id="",
            price_per_hour=about.price_per_hour,
            cordon=seen.reason or "no reason given" if seen.drained else "",
            cordoned_by="" if not seen.drained else OWNER if seen.ours else seen.reason_by,
        )

    def _update(self, node: str, *words: str) -> None:
        self._do("scontrol", "update", f"NodeName={node}", *words)

    def _do(self, *argv: str) -> bytes:
        ended = self._run(argv, limit=LIMIT)
        if ended.code != 0:
            said = _clean(ended.err.decode(errors="replace"))
            raise TransientError(f"{argv[0]}: {said or f'exit {ended.code}'}")
        return ended.out


def capabilities(about: SlurmNodes) -> frozenset[Capability]:
    """Return what can be done with nodes of Slurm."""
    can = {Capability.CORDON}
    if about.reboot:
        can.add(Capability.REBOOT)
    if about.price_per_hour is not None:
        can.add(Capability.PRICE)
    return frozenset(can)


def parse_nodes(out: bytes) -> list[NodeSeen]:
    """Read `sinfo --json` or `scontrol show nodes --json`; raises `TransientError` if it is none.

    23.02's sinfo lists partitions of nodes under `sinfo`; 22.05's lists nodes under `nodes`.
    """
    body = _json(out)
    try:
        return list(_nodes(body))
    except (TypeError, ValueError, AttributeError) as error:
        raise TransientError(f"Slurm's JSON is not as we know it: {error}") from error


def _nodes(body: Mapping[str, Any]) -> Iterator[NodeSeen]:
    for node in body.get("nodes") or ():
        if isinstance(node, dict) and isinstance(node.get("name"), str):
            yield _node(node["name"], node)
    for row in body.get("sinfo") or ():
        if isinstance(row, dict):
            names = row.get("nodes", {}).get("nodes", ())
            about = {
                "state": row.get("node", {}).get("state", ()),
                "reason": row.get("reason", {}).get("description", ""),
                "reason_set_by_user": row.get("reason", {}).get("user", ""),
                "gres": row.get("gres", {}).get("total", ""),
            }
            for name, address in zip(names, _addresses(row, names), strict=True):
                yield _node(str(name), {**about, "address": address})


def _addresses(row: Mapping[str, Any], names: Any) -> list[str]:
    found = row.get("nodes", {}).get("addresses", ())
    return list(map(str, found)) if len(found) == len(names) else list(map(str, names))


def _node(name: str, body: Mapping[str, Any]) -> NodeSeen:
    state = body.get("state", "")
    words = [state] if isinstance(state, str) else list(state)
    words += body.get("state_flags") or []
    return NodeSeen(
        name=_clean(name),
        states=frozenset(str(word).strip("*~#!%$@^-+ ").upper() for word in words if word),
        address=str(body.get("address") or name),
        reason=_clean(str(body.get("reason") or "")),
        reason_by=_clean(str(body.get("reason_set_by_user") or "")) or "somebody",
        gpus=sum(int(count) for count in _GPUS.findall(str(body.get("gres") or ""))),
    )


def _json(out: bytes) -> dict[str, Any]:
    try:
        body = json.loads(out)
    except (ValueError, RecursionError) as error:
        raise TransientError(f"Slurm said no JSON: {error}") from error
    if not isinstance(body, dict):
        raise TransientError("Slurm said no JSON object")
    refuse_errors(body)
    return body


def refuse_errors(body: Mapping[str, Any]) -> None:
    """Raise `TransientError` if an answer names errors.

    With a controller that is down, 22.05 prints an empty list, the error beside it, and exits 0.
    """
    errors = body.get("errors")
    if errors:
        first = errors[0] if isinstance(errors, list) else errors
        about = first if isinstance(first, dict) else {"error": first}
        said = about.get("description") or about.get("error") or "no reason given"
        raise TransientError(f"Slurm answered with an error: {_clean(str(said))}")


def _reason(text: str) -> str:
    """Return a reason that is one line, begins with our name, and cannot be taken for options."""
    return f"{OWNER}: {_clean(text).replace('=', ':') or 'no reason given'}"[:REASON_MAX]


def _clean(text: str) -> str:
    said = "".join(one if one.isprintable() else " " for one in text)
    return said.strip()[:REASON_MAX]
