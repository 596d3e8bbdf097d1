"""Every page: what can go wrong that a person must know. Each has a runbook of the same name."""

from __future__ import annotations

from enum import StrEnum


class Urgency(StrEnum):
    """How loudly a page is told."""

    PAGE = "page"  #: wakes a person: nothing more will happen by itself
    ALERT = "alert"  #: tells: Holdfast is dealing with it


class Page(StrEnum):
    """The kinds of incidents; the value names the runbook `runbooks/<value>.md`."""

    HARDWARE_FAULT = "hardware-fault"  #: a node was evicted for an explicit fault
    NODE_UNREACHABLE = "node-unreachable"  #: longer than policy.silence_max
    NODE_LOST = "node-lost"  #: proven gone
    SHARED_CAUSE = "shared-cause"  #: many suspects at once; nobody is evicted
    NO_SPARE = "no-spare"  #: a gang lacks nodes and none is left
    CLUSTER_LOST = "cluster-lost"  #: a job was moved to another cluster
    EVICTION_LIMIT = "eviction-limit"  #: the breaker refuses another eviction
    REPAIR_LIMIT = "repair-limit"  #: a node needs more repairs than its budget
    REPAIR_NEEDED = "repair-needed"  #: a node calls for a step that its provider cannot take
    MACHINE_RETURNED = "machine-returned"  #: one that failed before, under another name
    JOB_FAILED = "job-failed"  #: budgets spent
    POISON_CHECKPOINT = "poison-checkpoint"  #: same failure twice; stepped down
    BAD_CHECKPOINT = "bad-checkpoint"  #: a commit did not verify; stepped over
    COMMIT_FAILED = "commit-failed"  #: a checkpoint could not be written (disk full, store down)
    REPLICA_BEHIND = "replica-behind"  #: copies of checkpoints lag more than the declared RPO
    REGISTER_UNREACHABLE = "register-unreachable"
    PROVIDER_API = "provider-api"  #: a provider's API fails
    HANG_SUSPECTED = "hang-suspected"  #: a stall; stacks are attached; nothing was killed
    RESTARTS = "restarts"  #: a gang re-formed by itself
    BAD_COHORT = "bad-cohort"  #: fails too often for weeks; think of returning it


#: Pages that wake a person; all others are alerts.
URGENT = frozenset(
    {
        Page.SHARED_CAUSE,
        Page.NO_SPARE,
        Page.EVICTION_LIMIT,
        Page.REPAIR_LIMIT,
        Page.REPAIR_NEEDED,
        Page.JOB_FAILED,
        Page.REGISTER_UNREACHABLE,
    }
)


def urgency(page: Page) -> Urgency:
    """Say how loudly this kind of incident is told."""
    return Urgency.PAGE if page in URGENT else Urgency.ALERT
