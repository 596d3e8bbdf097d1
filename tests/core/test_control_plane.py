"""What only the control plane gets wrong ends no job and gives no node away: one test per fault.

The gang itself is well in every one of these stories. Nothing may be evicted, quarantined, stopped
or swept, no seat may change, and the gang steps on.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.core.decisions import MoveNode, Repair, StopAgent, SweepNode
from orchestrator.core.jobs import JobSpec
from orchestrator.core.nodes import (
    HELD_BACK,
    ClusterName,
    Machine,
    MachineId,
    NodeName,
    NodeState,
)
from orchestrator.core.observations import (
    AgentSeen,
    InventorySeen,
    MachineSeen,
    NodeUnreached,
    Observation,
    Power,
    Probed,
    ProviderFailed,
    RegisterSilent,
)
from orchestrator.core.verdicts import Channel, FaultClass, Finding, Severity
from tests.core.test_stories import running
from tests.core.world import World

A = ClusterName("a")
SPEC = JobSpec(nodes_min=3, nodes_max=3, register="/r")
LONG = 60  #: seconds: longer than every limit of the policy that could strike


class Flawed(World):
    """A world whose observations pass through a faulty control plane once it begins."""

    flaw: Callable[[Flawed, list[Observation]], list[Observation]] | None = None

    def _look(self) -> list[Observation]:
        seen = super()._look()
        return seen if self.flaw is None else type(self).flaw(self, seen)  # type: ignore[misc]


def suffers(flaw: Callable[[Flawed, list[Observation]], list[Observation]]) -> Flawed:
    """Run a healthy gang of three, a standby and two spares through a flaw, and judge."""

    class Suffering(Flawed):
        pass

    world = Suffering({"a": 6})
    world.submit("train", SPEC)
    world.until(running).run(5)
    states, before, done = world.states(), world.steps("train"), len(world.done)
    Suffering.flaw = flaw
    world.run(LONG)
    for decision in world.done[done:]:
        assert not isinstance(decision, StopAgent | SweepNode | Repair), decision
        assert not (isinstance(decision, MoveNode) and decision.end in HELD_BACK), decision
    seated = {name for name, state in states.items() if state == "in-use"}
    now = world.states()
    assert {name for name, state in now.items() if state == "in-use"} == seated
    assert set(now.values()) <= {"in-use", "standby", "spare"}  # more may be made to stand by
    assert world.steps("train") == before + LONG
    assert world.attempt("train").number == 1
    Suffering.flaw = None
    world.run(10)
    assert {name for name, state in world.states().items() if state == "in-use"} == seated
    assert world.pages() == set()
    return world


def listings(
    world: Flawed, seen: list[Observation], change: Callable[[MachineSeen], MachineSeen | None]
) -> list[Observation]:
    """Change every machine of every listing; None takes it out."""
    out: list[Observation] = []
    for one in seen:
        if isinstance(one, InventorySeen):
            changed = (change(machine) for machine in one.machines)
            out.append(replace(one, machines=tuple(m for m in changed if m is not None)))
        else:
            out.append(one)
    return out


def unreached(world: Flawed, seen: list[Observation]) -> list[Observation]:
    """Take every answer of a node away: the controller is cut off from all of them."""
    kept: list[Observation] = [
        one for one in seen if not isinstance(one, Probed | AgentSeen | InventorySeen)
    ]
    now = world.fleet.now
    return [*kept, *(NodeUnreached(NodeName(name), now, "no route") for name in world.nodes)]


def test_a_black_out_of_the_whole_provider() -> None:
    def flaw(world: Flawed, seen: list[Observation]) -> list[Observation]:
        now = world.fleet.now
        failed = [ProviderFailed(A, now, "time-out")]
        return [
            *unreached(world, seen),
            *failed,
            RegisterSilent(next(iter(world.fleet.jobs)), now, "x"),
        ]

    suffers(flaw)


def test_an_empty_list_with_status_200() -> None:
    suffers(lambda world, seen: listings(world, seen, lambda machine: None))


def test_an_empty_list_makes_no_spare_missing() -> None:
    class Emptied(Flawed):
        pass

    world = Emptied({"a": 3})
    world.run(5)
    Emptied.flaw = lambda world, seen: listings(world, seen, lambda machine: None)
    world.run(2).submit("train", SPEC)
    world.until(running)


def test_a_list_that_names_only_some() -> None:
    dice = random.Random(1)
    suffers(lambda w, seen: listings(w, seen, lambda m: m if dice.random() < 0.5 else None))


@pytest.mark.parametrize("error", ["500", "503 Service Unavailable", "429 Too Many Requests"])
def test_an_api_that_fails(error: str) -> None:
    def flaw(world: Flawed, seen: list[Observation]) -> list[Observation]:
        kept: list[Observation] = [one for one in seen if not isinstance(one, InventorySeen)]
        return [*kept, ProviderFailed(A, world.fleet.now, error)]

    suffers(flaw)


def test_stale_data_that_calls_every_machine_off() -> None:
    stopped = lambda machine: replace(machine, power=Power.STOPPED)  # noqa: E731
    suffers(lambda world, seen: listings(world, seen, stopped))


def test_stale_data_and_a_partition_at_once_do_not_outweigh_the_gang_s_own_word() -> None:
    """The provider calls a node off and we cannot reach it: its peers still hear it."""

    def flaw(world: Flawed, seen: list[Observation]) -> list[Observation]:
        def off(machine: MachineSeen) -> MachineSeen:
            return replace(machine, power=Power.STOPPED) if machine.node == "a-1" else machine

        cut = [one for one in seen if getattr(one, "node", None) != "a-1"]
        return [*listings(world, cut, off), NodeUnreached(NodeName("a-1"), world.fleet.now, "cut")]

    class Suffering(Flawed):
        pass

    world = Suffering({"a": 6})
    world.submit("train", SPEC)
    world.until(running).run(5)
    before = world.steps("train")
    Suffering.flaw = flaw
    world.run(LONG)
    assert world.states()["a-1"] == "in-use"
    assert world.steps("train") == before + LONG


def test_stale_data_of_a_former_boot() -> None:
    old = lambda machine: replace(machine, boot_id=f"{machine.node}/0")  # noqa: E731
    suffers(lambda world, seen: listings(world, seen, old))


def test_stale_data_of_a_former_machine() -> None:
    def other(machine: MachineSeen) -> MachineSeen:
        return replace(machine, machine=Machine(MachineId(f"old-{machine.node}"), "sim"))

    suffers(lambda world, seen: listings(world, seen, other))


@pytest.mark.parametrize("hours", [-24, -1, 1, 24])
def test_the_nodes_clocks_are_wrong(hours: int) -> None:
    def skewed(world: Flawed, seen: list[Observation]) -> list[Observation]:
        out: list[Observation] = []
        for one in seen:
            if isinstance(one, AgentSeen):
                at = one.report.at + hours * 3600
                out.append(replace(one, report=replace(one.report, at=at)))
            elif isinstance(one, Probed):
                moved = timedelta(hours=hours)
                shifted = (replace(f, observed_at=f.observed_at + moved) for f in one.findings)
                out.append(replace(one, findings=tuple(shifted)))
            else:
                out.append(one)
        return out

    suffers(skewed)


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_true_fault_of_a_node_with_a_wrong_clock_evicts_all_the_same(hours: int) -> None:
    world = World({"a": 6})
    world.submit("train", SPEC)
    world.until(running)
    world.fault("a-1", observed_at=world.fleet.now + timedelta(hours=hours))
    world.until(lambda w: w.told("evicted a-1"), limit=5)


@pytest.mark.parametrize("seed", range(5))
def test_reports_that_come_late_twice_and_in_any_order(seed: int) -> None:
    dice, waiting = random.Random(seed), list[tuple[int, Observation]]()

    def flaw(world: Flawed, seen: list[Observation]) -> list[Observation]:
        second = int(world.fleet.now.timestamp())
        for one in seen:
            for _ in range(dice.choice((1, 1, 2))):
                waiting.append((second + dice.randrange(0, 5), one))
        ready = [one for due, one in waiting if due <= second]
        waiting[:] = [(due, one) for due, one in waiting if due > second]
        dice.shuffle(ready)
        return ready

    suffers(flaw)


def test_a_partition_between_controller_and_half_the_gang() -> None:
    def flaw(world: Flawed, seen: list[Observation]) -> list[Observation]:
        cut = ("a-1", "a-2")
        kept = [one for one in seen if getattr(one, "node", None) not in cut]
        return [*kept, *(NodeUnreached(NodeName(n), world.fleet.now, "cut") for n in cut)]

    suffers(flaw)


def stale(world: World, **how: object) -> Finding:
    one = Finding(
        "xid",
        "gpu0",
        Severity.CRITICAL,
        FaultClass.HARDWARE,
        "off the bus",
        Channel.NODE,
        world.fleet.now - timedelta(days=1),
        code="79",
    )
    return replace(one, **how)  # type: ignore[arg-type]


def test_a_finding_of_an_older_boot_never_evicts() -> None:
    world = World({"a": 4})
    world.submit("train", SPEC)
    world.until(running)
    found = stale(world, boot_id="a-1/0")
    world.see(Probed(NodeName("a-1"), world.fleet.now, "a-1/1", (found,), complete=True))
    world.run(5)
    assert world.states()["a-1"] == "in-use"


def test_a_replayed_report_of_an_older_boot_never_evicts() -> None:
    world = World({"a": 4})
    world.submit("train", SPEC)
    world.until(running)
    then = world.fleet.now - timedelta(seconds=9)
    found = stale(world, boot_id="a-1/0", observed_at=then)
    world.see(Probed(NodeName("a-1"), then, "a-1/0", (found,), complete=True))
    world.run(5)
    assert world.states()["a-1"] == "in-use"


def test_evidence_that_nobody_repeats_goes_stale_and_evicts_nobody() -> None:
    """The check could not look since: what it said an hour ago evicts nobody now."""
    policy = replace(World({}).policy, evictions_per_hour=1, evidence_age=timedelta(seconds=30))
    world = World({"a": 8}, policy)
    world.submit("train", SPEC)
    world.until(running)
    world.fault("a-1").fault("a-2")
    world.run(3)
    assert world.told("evicted a-1")
    assert ("eviction-limit", "a") in world.pages()
    world.nodes["a-2"].findings = [
        replace(one, severity=Severity.UNKNOWN) for one in world.nodes["a-2"].findings
    ]
    world.run(40)
    world.fleet = replace(world.fleet, now=world.fleet.now + timedelta(hours=1))
    world.run(10)
    assert not world.told("evicted a-2")
    assert world.state("a-2") is NodeState.IN_USE


@pytest.mark.parametrize("check", ["nccl-timeout", "nccl", "watchdog", "hang", "stall"])
@pytest.mark.parametrize("channels", [(Channel.NODE,), (Channel.GANG,), tuple(Channel)])
def test_an_nccl_time_out_never_evicts_whoever_says_so(
    check: str, channels: tuple[Channel, ...]
) -> None:
    world = World({"a": 4})
    world.submit("train", SPEC)
    world.until(running)
    for place, channel in enumerate(channels):
        world.fault("a-1", check=check, code="", channel=channel, component=f"gpu{place}")
    world.run(20)
    assert world.states()["a-1"] == "in-use"
    assert not world.told("evicted")


def test_a_symptom_makes_no_second_channel_for_a_suspicion() -> None:
    world = World({"a": 4})
    world.submit("train", SPEC)
    world.until(running)
    world.fault("a-1", check="net", code="", fault=FaultClass.NETWORK)
    world.fault("a-1", check="nccl-timeout", code="", channel=Channel.GANG)
    world.run(20)
    assert world.states()["a-1"] == "in-use"
    world.fault("a-1", check="bandwidth", code="", channel=Channel.PEERS)
    world.until(lambda w: w.told("evicted a-1"))


def test_two_warnings_are_no_positive_evidence() -> None:
    world = World({"a": 4})
    world.submit("train", SPEC)
    world.until(running)
    for check, channel in (("net", Channel.NODE), ("bandwidth", Channel.PEERS)):
        world.fault("a-1", check=check, code="", channel=channel, severity=Severity.WARNING)
    world.run(20)
    assert world.states()["a-1"] == "in-use"
