from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from orchestrator.core.decisions import SetCadence
from orchestrator.core.enact import enact
from orchestrator.core.fleet import Fleet
from orchestrator.core.jobs import AttemptState, JobSpec, JobState
from orchestrator.core.nodes import HELD_BACK, IDLE, JobName, NodeName, NodeState
from orchestrator.core.observations import AgentSeen
from orchestrator.daemon.eyes import agents_to_ask, hurry_of, nodes_to_probe, registers_to_read
from orchestrator.daemon.rhythm import Bell, rhythm
from orchestrator.runtime.reports import Note
from tests.core.world import QUICK, World
from tests.daemon.house import BEGIN, House

TWO = JobSpec(nodes_min=2, nodes_max=2, register="/r")


def asked(fleet: Fleet) -> list[str]:
    return [str(one.node) for one in agents_to_ask(fleet, {})]


def running() -> World:
    world = World({"ash": 4})
    world.submit("train", TWO)
    world.until(lambda world: bool(world.fleet.attempts))
    return world.until(lambda world: bool(world.members("train"))).run(2)


def test_exactly_the_agents_that_may_be_alive_are_asked() -> None:
    world = running()
    fleet = world.fleet
    assert asked(fleet) == sorted(world.granted("train")), "members and standbys"
    first = NodeName(asked(fleet)[0])
    belief = fleet.beliefs.nodes[first]
    gone = tuple(replace(agent, gone_at=fleet.now) for agent in belief.agents)
    nodes = {**fleet.beliefs.nodes, first: replace(belief, agents=gone)}
    fleet = replace(fleet, beliefs=replace(fleet.beliefs, nodes=nodes))
    assert first not in asked(fleet)


def test_agents_are_asked_until_their_attempt_is_closed() -> None:
    fleet = running().fleet
    for state in AttemptState:
        attempts = tuple(replace(attempt, state=state) for attempt in fleet.attempts)
        closed = state is AttemptState.CLOSED
        assert bool(asked(replace(fleet, attempts=attempts))) is not closed


def test_an_agent_is_asked_where_it_answered_last_and_hears_what_was_recorded() -> None:
    fleet = running().fleet
    belief = fleet.beliefs.nodes[NodeName(asked(fleet)[0])]
    report = belief.agents[0].report
    assert report is not None
    one = next(agents_to_ask(fleet, {report.agent: 7}))
    assert one.address is not None
    assert (one.address.port, one.address.agent) == (report.port, report.agent)
    assert one.confirm == 7
    assert one.run == "train.1"


def test_an_agent_hears_with_every_look_how_often_its_run_should_be_saved() -> None:
    fleet = running().fleet
    every = {attempt.every for attempt in fleet.attempts}
    assert {one.save_seconds for one in agents_to_ask(fleet, {})} == {
        None if one is None else one.total_seconds() for one in every
    }
    job = fleet.attempts[0]
    for asked_for in (timedelta(minutes=7), timedelta(hours=2)):
        decision = SetCadence(job.job, job.number, asked_for, "a test")
        fleet = enact(fleet, decision, BEGIN)
        heard = {one.save_seconds for one in agents_to_ask(fleet, {})}
        assert heard == {asked_for.total_seconds()}


def test_only_nodes_that_no_agent_speaks_for_are_probed() -> None:
    fleet = running().fleet
    probed = set(nodes_to_probe(fleet, timedelta(0)))
    idle = {*IDLE, *HELD_BACK, NodeState.BURN_IN}
    assert probed == {name for name, node in fleet.nodes.items() if node.state in idle}
    assert probed.isdisjoint(asked(fleet))


def test_a_spare_is_probed_once_in_a_while_and_a_burn_in_whenever_it_may() -> None:
    fleet = running().fleet
    name = next(one for one, node in fleet.nodes.items() if node.state is NodeState.SPARE)
    probed_at = fleet.beliefs.nodes[name].probed_at
    assert probed_at is not None
    early = replace(fleet, now=probed_at + timedelta(seconds=59))
    due = replace(fleet, now=probed_at + timedelta(seconds=60))
    minute = timedelta(minutes=1)
    assert name not in set(nodes_to_probe(early, minute))
    assert name in set(nodes_to_probe(due, minute))
    third = replace(fleet, now=probed_at + timedelta(seconds=20))
    assert name not in set(nodes_to_probe(third, minute))
    on_trial = {name: replace(fleet.nodes[name], state=NodeState.PROBATION)}
    assert name in set(nodes_to_probe(replace(third, nodes=on_trial), minute))
    earning = {name: replace(fleet.nodes[name], state=NodeState.BURN_IN)}
    assert name in set(nodes_to_probe(replace(early, nodes=earning), minute))


def test_nodes_of_a_cohort_that_fails_more_are_probed_sooner() -> None:
    fleet = running().fleet
    name = next(one for one, node in fleet.nodes.items() if node.state is NodeState.SPARE)
    node, probed_at = fleet.nodes[name], fleet.beliefs.nodes[name].probed_at
    assert probed_at is not None
    third = replace(fleet, now=probed_at + timedelta(seconds=20))
    minute, cohort = timedelta(minutes=1), f"{node.cluster}/{node.cohort}"
    assert name not in set(nodes_to_probe(third, minute, {"ash/other": 4.0}))
    assert name not in set(nodes_to_probe(third, minute, {cohort: 2.0}))
    assert name in set(nodes_to_probe(third, minute, {cohort: 3.0}))
    assert hurry_of(node, {cohort: 3.0}) == 3.0
    assert hurry_of(node, {}) == 1.0


def test_a_short_burn_in_is_looked_at_often_enough_to_end() -> None:
    policy = replace(QUICK, burn_in=timedelta(seconds=3), probe_every=timedelta(minutes=1))
    assert rhythm(policy)[Bell.PROBES] == timedelta(seconds=1)


def test_registers_are_read_until_their_job_is_over() -> None:
    fleet = running().fleet
    name = JobName("train")
    for state in JobState:
        jobs = {name: replace(fleet.jobs[name], state=state)}
        over = state in (JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED)
        assert list(registers_to_read(replace(fleet, jobs=jobs))) == ([] if over else [name])
    without = replace(fleet.jobs[name], spec=replace(TWO, register=None))
    assert list(registers_to_read(replace(fleet, jobs={name: without}))) == []


def test_notes_are_confirmed_only_after_they_were_recorded(tmp_path: Path) -> None:
    house = House(tmp_path)
    world = running()
    name = NodeName(asked(world.fleet)[0])
    belief = world.fleet.beliefs.nodes[name]
    report = belief.agents[0].report
    assert report is not None
    notes = (Note(4, 0.0, "commit", "x"), Note(3, 0.0, "commit", "x"))
    house.eyes.remember([AgentSeen(name, BEGIN, replace(report, notes=notes))])
    house.eyes.remember([AgentSeen(name, BEGIN, replace(report, notes=notes[1:]))])
    assert house.eyes.recorded == {report.agent: 4}
    house.pools.close()


def test_every_bell_has_its_rhythm() -> None:
    assert rhythm(QUICK).keys() == set(Bell)
    assert all(every > timedelta(0) for every in rhythm(QUICK).values())
