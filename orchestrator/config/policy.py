"""The `policy:` part of holdfast.yaml: every field of `core.policies.Policy`, none twice.

The model is made from the dataclass, so that a limit added to the core can be configured at once
and its default stands in one place only.
"""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from pydantic import AfterValidator, BeforeValidator, Field, create_model

from orchestrator.config.models import Strict
from orchestrator.config.scalars import Duration
from orchestrator.core.policies import Policy

#: What each limit means and in which unit; shown in the schema and in docs/configuration.md.
MEANINGS: dict[str, str] = {
    "explicit": "detectors that may evict alone until their labels speak; replaces the list",
    "observe": "detectors that only report, whatever they have earned (a new rule, tried out)",
    "symptoms": "checks and detectors that never speak against a node; replaces the built-in list",
    "evidence_age": "duration: evidence that was not told again for longer evicts nobody",
    "burn_in": "duration: healthy time before a node is trusted",
    "probe_every": "duration: between two health looks of the controller at an idle node",
    "active_checks": "true or false: run active checks on nodes that are idle",
    "active_every": "duration: between two runs of them on a node; shorter in a chaotic cohort",
    "active_after": "duration: a node is idle for so long before the first",
    "active_share": "share (0 to 1) of a cluster's nodes examined at once; one always may be",
    "look_every": "duration: between two looks at agents and registers",
    "inventory_every": "duration: between two listings of a provider's machines",
    "silence_max": "duration: a node unreachable for longer is an incident",
    "patience": "duration: how long a job waits for nodes before it moves to another cluster",
    "alone_margin": "duration: waited on top of a job's `stop_after` before ranks count as stopped",
    "seat_wait": "duration: waited for a new agent before a grant without it is issued",
    "standbys": "nodes: granted to each attempt on top of its gang, if there are any",
    "evictions_per_hour": "nodes per cluster and hour; one is always allowed",
    "cohort_evictions_per_hour": "nodes per cohort and hour; one is always allowed",
    "fleet_evictions_per_hour": "nodes per hour in the whole fleet; one is always allowed",
    "cohort_share": "share (0 to 1) of a cohort held back; one node is always allowed",
    "fleet_share": "share (0 to 1) of the fleet held back on judgement; one node always may be",
    "over_evict_after": "accusations of a group until all of it is taken out; 0: never",
    "over_evict_window": "duration: within which the accusations must lie",
    "revalidation": "duration: healthy time in burn-in that acquits a suspect",
    "quarantine_share": "share (0 to 1) of a cluster in quarantine; one node is always allowed",
    "relapse_mean": "duration: mean service until a node that is not well shows it; probation",
    "doubt_max": "probability (0 to 1) that a node is not well at which probation ends; 1: none",
    "lemon_after": "times out of service within 28 days from which a node is a lemon",
    "resets_per_day": "resets of the accelerators per node and day",
    "reboots_per_day": "reboots per node and day",
    "reprovisions_per_day": "new installations per node and day",
    "replaces_per_day": "orders to replace its machine per node and day",
    "fleet_repairs_per_hour": "steps of the repair ladder per hour in the whole fleet",
    "fleet_repairs_share": "share (0 to 1) of the fleet's nodes per hour; the larger counts",
    "relapse_window": "duration: a fault that returns within it calls for the next rung",
    "rung_tries": "times per fault that a lower rung is taken where the right one is impossible",
    "repair": "true or false: let the provider repair quarantined and lost nodes",
    "localisations_per_hour": "per job: times that its nodes' links are tested; 0: never",
    "suspects_share": "share (0 to 1) of a gang: more suspects at once have a shared cause",
    "pages_per_hour": "pages per hour; the rest is told in one",
    "agent_starts_max": "starts per node and attempt within `agent_starts_window`",
    "agent_starts_window": "duration: see `agent_starts_max`",
    "sweep_after": "duration: an agent silent that long on a node that answers is swept",
    "repair_wait": "duration: how long a node may take to come back from a reset or a reboot",
    "reprovision_wait": "duration: how long a node may take to come back installed anew",
    "replace_wait": "duration: how long a provider may take to bring another machine",
    "restarts_window": "duration: how long people are told that a gang repaired itself",
    "suspicion_min": "duration: a stall that is suspected for longer is told as an incident",
    "checkpoint_min": "duration: least interval between checkpoints that is asked for",
    "checkpoint_max": "duration: greatest interval between checkpoints that is asked for",
    "checkpoint_change": "share (0 to 1): a new interval is asked for if it differs by that",
    "checkpoint_stall": "duration: how long a checkpoint stops a job, until that is measured",
    "checkpoint_lag": "duration: until a checkpoint is durable, until that is measured",
    "restart_expected": "duration: detection and recovery of a gang, as expected",
    "repair_expected": "duration: mean time that a failed node is away, as expected",
    "absence_expected": "duration: standbys are to last that long while the controller is away",
    "standbys_max": "nodes: most standbys that a chaotic cohort makes us grant",
    "return_after": "duration: a cohort that is bad for that long may be recommended for return",
    "return_share": "share (0 to 1) of a cohort in repair from which its return is recommended",
    "intent_limit": "duration: an action without an outcome is looked at again after this",
}


def _a_set(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return frozenset(value)
    raise ValueError("expected a list of detectors, such as [xid:79]")


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("expected a duration above zero")
    return value


def _type(name: str, annotation: Any) -> Any:
    if annotation is timedelta:
        above_zero = name.endswith(("_every", "_limit"))
        return Annotated[Duration, AfterValidator(_positive)] if above_zero else Duration
    if annotation == frozenset[str]:
        return Annotated[frozenset[str], BeforeValidator(_a_set)]
    if annotation is float:
        return Annotated[float, Field(ge=0, le=1)]
    return Annotated[int, Field(ge=0)] if annotation is int else annotation


def _model() -> type[Strict]:
    hints = get_type_hints(Policy)
    keys: dict[str, Any] = {
        one.name: (
            _type(one.name, hints[one.name]),
            Field(default=getattr(_DEFAULT, one.name), description=MEANINGS.get(one.name)),
        )
        for one in fields(Policy)
    }
    return create_model("PolicyFile", __base__=Strict, __module__=__name__, **keys)


_DEFAULT = Policy()

if TYPE_CHECKING:

    class PolicyFile(Strict):
        """The `policy:` part; its fields are those of `core.policies.Policy`."""

else:
    PolicyFile = _model()


def to_policy(file: PolicyFile) -> Policy:
    """Return the core's policy from its part of the file."""
    return Policy(**{one.name: getattr(file, one.name) for one in fields(Policy)})
