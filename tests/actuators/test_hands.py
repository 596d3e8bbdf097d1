"""What each decision does, and what is never done: with dreamt providers and engines."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.actuators.hands import PROVIDER_LIMIT, Hands
from orchestrator.actuators.specs import agent_spec, wire_grant
from orchestrator.core.decisions import (
    AppendFence,
    GiveGrant,
    Repair,
    RepairStep,
    StartAgent,
    StopAgent,
    SweepNode,
)
from orchestrator.core.fleet import Fleet
from orchestrator.core.jobs import JobSpec, WhenAlone
from orchestrator.core.nodes import ClusterName, JobName, NodeName, NodeState
from orchestrator.core.observations import AgentGone, NodeReached, RegisterSeen
from orchestrator.engines.api import Found
from orchestrator.engines.site import Keys
from orchestrator.errors import PermanentError, TransientError
from orchestrator.runtime import grants
from orchestrator.runtime import spec as specs
from orchestrator.runtime.lineage import Fence, Member
from orchestrator.runtime.register import Register
from orchestrator.runtime.store import open_store
from tests.core.world import World
from tests.daemon.house import DreamEngine, DreamProvider, DreamWorkshop, dream_site

ASH1, TRAIN = NodeName("ash-1"), JobName("train")
SPEC = JobSpec(
    nodes_min=2,
    nodes_max=3,
    ranks_per_node=4,
    register="/r",
    checkpoints="/c",
    when_alone=WhenAlone.STOP_AFTER,
    stop_after=timedelta(minutes=2),
    stop_grace=timedelta(seconds=7),
    generations_max=9,
    budget={"hang": 3},
    launch={"command": ["python", "-m", "x"], "workdir": "/w", "env": {"A": "b"}},
)


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    world = World({"ash": 4})
    world.submit("train", SPEC)
    world.until(lambda world: bool(world.fleet.attempts))
    return world.until(lambda world: bool(world.members("train"))).run(2).fleet


class Bench:
    """Hands with a register in a folder and a lease that can be short."""

    def __init__(self, folder: Path) -> None:
        self.left = 20.0
        self.provider, self.engine = DreamProvider(["ash-1"]), DreamEngine()
        self.site = dream_site(self.provider, self.engine)
        self.register = Register(open_store(str(folder / "register")))
        self.keys = Keys(folder / "secret")
        self.hands = Hands(
            {ClusterName("ash"): self.site}, self.keys, lambda job, fleet: self.register, self._left
        )

    def _left(self) -> float:
        return self.left


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_fence_is_appended_once_however_often_it_is_asked_for(bench: Bench, fleet: Fleet) -> None:
    wish = AppendFence(TRAIN, 1, "begin")
    first = bench.hands.carry_out(wish, fleet, 5)
    again = bench.hands.carry_out(wish, fleet, 6)
    (fence,) = [one for one in bench.register.records() if isinstance(one, Fence)]
    assert (fence.attempt, fence.token, fence.by) == (1, 5, fleet.jobs[TRAIN].signature)
    for done in (first, again):
        (seen,) = done.seen
        assert isinstance(seen, RegisterSeen)
        assert seen.fence == fence


def test_a_fence_that_another_job_won_is_no_success(bench: Bench, fleet: Fleet) -> None:
    bench.register.append(lambda seq: Fence(seq, "n", 9, 1, 0.0, "other"), bench.register.read())
    with pytest.raises(TransientError, match="attempt 1 of other"):
        bench.hands.carry_out(AppendFence(TRAIN, 1, "begin"), fleet, 5)


def test_an_attempt_that_was_overtaken_gets_no_fence(bench: Bench, fleet: Fleet) -> None:
    for number in (1, 2, 3):
        bench.hands.carry_out(AppendFence(TRAIN, number, "begin"), fleet, 5)
    with pytest.raises(TransientError, match="at attempt 3"):
        bench.hands.carry_out(AppendFence(TRAIN, 2, "begin"), fleet, 5)


@pytest.mark.parametrize(("attempt", "token"), [(3, 5), (2, 4)])
def test_a_fence_that_would_be_void_is_not_written(
    bench: Bench, fleet: Fleet, attempt: int, token: int
) -> None:
    bench.hands.carry_out(AppendFence(TRAIN, 1, "begin"), fleet, 5)
    with pytest.raises(PermanentError, match="void"):
        bench.hands.carry_out(AppendFence(TRAIN, attempt, "begin"), fleet, token)
    assert len(list(bench.register.records())) == 1


def in_repair(fleet: Fleet) -> Fleet:
    node = replace(fleet.nodes[ASH1], state=NodeState.REPAIRING, job=None, attempt=None)
    return replace(fleet, nodes={**fleet.nodes, ASH1: node})


def test_a_reboot_is_asked_for_only_with_enough_left_of_the_lease(
    bench: Bench, fleet: Fleet
) -> None:
    fleet = in_repair(fleet)
    wish = Repair(ASH1, RepairStep.REBOOT, 0, "hardware")
    bench.left = PROVIDER_LIMIT - 0.1
    with pytest.raises(TransientError, match="lease"):
        bench.hands.carry_out(wish, fleet, 5)
    assert bench.provider.rebooted == []
    bench.left = PROVIDER_LIMIT + 0.1
    (seen,) = bench.hands.carry_out(wish, fleet, 5).seen
    assert bench.provider.rebooted == ["ash-1"]
    assert isinstance(seen, NodeReached)
    assert seen.boot_id == "b2"


@pytest.mark.parametrize("step", [step for step in RepairStep if step is not RepairStep.REBOOT])
def test_a_step_that_no_provider_can_take_is_refused(
    bench: Bench, fleet: Fleet, step: RepairStep
) -> None:
    with pytest.raises(PermanentError, match=f"sim cannot {step.value}"):
        bench.hands.carry_out(Repair(ASH1, step, 0, ""), in_repair(fleet), 5)


def test_each_step_of_the_ladder_is_the_provider_s_method_of_that_name(
    bench: Bench, fleet: Fleet
) -> None:
    bench.site = dream_site(DreamWorkshop(["ash-1"]), bench.engine)
    hands = replace(bench.hands, sites={ClusterName("ash"): bench.site})
    for step in RepairStep:
        done = hands.carry_out(Repair(ASH1, step, 0, ""), in_repair(fleet), 5)
        replaced = step is RepairStep.REPLACE
        assert ("i-new" if replaced else step.value) in done.text
        assert len(done.seen) == (not replaced)  # a new machine is found when it is listed


def test_a_node_that_is_not_in_repair_is_never_touched(bench: Bench, fleet: Fleet) -> None:
    assert fleet.nodes[ASH1].state is NodeState.IN_USE
    with pytest.raises(PermanentError, match="is in-use"):
        bench.hands.carry_out(Repair(ASH1, RepairStep.REBOOT, 0, ""), fleet, 5)
    assert bench.provider.rebooted == []


def test_a_sweep_carries_the_token_and_proves_the_end(bench: Bench, fleet: Fleet) -> None:
    (seen,) = bench.hands.carry_out(SweepNode(ASH1, TRAIN, 1, "silent"), fleet, 5).seen
    assert bench.engine.swept == ["ash-1 train.1 5"]
    assert isinstance(seen, AgentGone)
    assert (seen.node, seen.job, seen.attempt) == (ASH1, TRAIN, 1)


def closer(fleet: Fleet, port: int) -> Fleet:
    """Return the fleet with its agents said to listen on a port of this computer."""
    nodes = {}
    for name, belief in fleet.beliefs.nodes.items():
        agents = tuple(
            replace(one, report=replace(one.report, host="127.0.0.1", port=port))
            for one in belief.agents
            if one.report is not None
        )
        nodes[name] = replace(belief, agents=agents)
    return replace(fleet, beliefs=replace(fleet.beliefs, nodes=nodes))


def test_an_agent_that_does_not_answer_its_stop_is_swept(bench: Bench, fleet: Fleet) -> None:
    wish = StopAgent(ASH1, TRAIN, 1, "over")
    (seen,) = bench.hands.carry_out(wish, closer(fleet, 1), 5).seen
    assert isinstance(seen, AgentGone)
    assert bench.engine.swept == ["ash-1 train.1 5"]


def test_a_grant_is_not_given_to_another_life_of_the_agent(bench: Bench, fleet: Fleet) -> None:
    wish = GiveGrant(ASH1, TRAIN, 1, 1, "another", "")
    with pytest.raises(TransientError, match="another one by now"):
        bench.hands.carry_out(wish, closer(fleet, 1), 5)


def test_a_started_agent_that_does_not_answer_yet_is_not_a_failure(
    bench: Bench, fleet: Fleet
) -> None:
    bench.engine.found = Found(None, None, "b1")
    done = bench.hands.carry_out(StartAgent(ASH1, TRAIN, 1, 0, "seat"), fleet, 5)
    assert done.text == "listens on 127.0.0.1:1"
    assert bench.engine.started == ["ash-1"]


# --- what agents are told -----------------------------------------------------------------------


def test_a_spec_says_everything_the_job_wishes_and_its_agent_can_read_it(
    bench: Bench, fleet: Fleet
) -> None:
    key = bench.keys.key(TRAIN, 1)
    spec = agent_spec(fleet, bench.site, StartAgent(ASH1, TRAIN, 1, 0, ""), 5, key)
    assert (spec.node, spec.job, spec.attempt, spec.token, spec.key) == (ASH1, TRAIN, 1, 5, key)
    assert (spec.checkpoints, spec.register) == ("/c", fleet.jobs[TRAIN].spec.register)
    assert (spec.when_alone, spec.stop_after, spec.stop_grace) == ("stop_after", 120.0, 7.0)
    assert (spec.host, spec.ranks_per_node) == ("127.0.0.1", 4)
    assert spec.boot_id == fleet.beliefs.nodes[ASH1].boot_id
    assert spec.health == ("checks", "ash-1", spec.boot_id)
    body = specs.encode(spec)
    read = specs.decode(body)
    assert (read.command, read.workdir, read.env) == (("python", "-m", "x"), "/w", {"A": "b"})


def test_a_grant_names_its_seats_and_its_budgets(fleet: Fleet) -> None:
    (attempt,) = fleet.attempts
    grant = wire_grant(fleet, attempt, 5)
    assert attempt.grant is not None
    assert tuple(member.node for member in grant.nodes) == attempt.grant.nodes
    assert tuple(member.node for member in grant.standbys) == attempt.grant.standbys
    assert (grant.nodes_min, grant.nodes_max, grant.generations_max) == (2, 3, 9)
    assert (grant.budget, grant.token, grant.number) == ({"hang": 3}, 5, attempt.grant.number)
    assert grants.decode(grants.encode(grant)) == grant


@pytest.mark.parametrize("nonce", ["a1", "a:b", "x#7", "[::1]:9#y", ""])
def test_no_name_of_an_agent_changes_where_its_peers_look_for_it(fleet: Fleet, nonce: str) -> None:
    (attempt,) = fleet.attempts
    assert attempt.grant is not None
    addresses = tuple((node, f"10.0.0.1:4000#{nonce}") for node in attempt.grant.seats)
    named = replace(attempt, grant=replace(attempt.grant, addresses=addresses))
    first, *_ = wire_grant(fleet, named, 5).nodes
    assert first == Member(first.node, "10.0.0.1", 4000)


def test_an_attempt_without_a_grant_has_nothing_to_give(fleet: Fleet) -> None:
    (attempt,) = fleet.attempts
    with pytest.raises(PermanentError, match="no grant"):
        wire_grant(fleet, replace(attempt, grant=None), 5)
