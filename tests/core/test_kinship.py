"""Which machine stands under a name: boomerangs, swapped machines, and what they bring along."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.decisions import Repair, RepairStep
from orchestrator.core.history import History, join, same_machine, serials
from orchestrator.core.nodes import NodeName
from orchestrator.core.observations import OrderKind
from tests.core.test_stories import TWO, running
from tests.core.world import BEGIN, QUICK, SimNode, World

BOARD, GPUS = "board:B1", tuple(f"gpu:s{n}" for n in range(4))
A1, A2, A9 = NodeName("a-1"), NodeName("a-2"), NodeName("a-9")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((BOARD, *GPUS), (BOARD, *GPUS), True),
        ((BOARD, *GPUS), (BOARD, "gpu:s9"), True),  # its accelerators were swapped
        ((BOARD, *GPUS), ("board:B2", *GPUS), False),  # they were put into another machine
        (GPUS, GPUS[:2], True),
        (GPUS, ("gpu:s0", "gpu:s7", "gpu:s8", "gpu:s9"), False),  # one card moved
        (GPUS, (BOARD, *GPUS), True),  # somebody tells the board, somebody does not
        ((), (), False),
        ((), GPUS, False),
        (("",), ("",), False),
        (("board:Default string",), ("board:Default string",), False),
        (("To be filled by O.E.M.",), ("To be filled by O.E.M.",), False),
        (("0000000",), ("0000000",), False),
    ],
)
def test_serials_say_which_machine_it_is(
    one: tuple[str, ...], other: tuple[str, ...], same: bool
) -> None:
    assert same_machine(one, other) is same
    assert same_machine(other, one) is same


@given(st.lists(st.text(max_size=6), max_size=4))
def test_a_machine_with_any_serial_is_itself(listed: list[str]) -> None:
    told = tuple(listed)
    assert same_machine(told, told) is bool(serials(told))


def test_two_histories_of_one_machine_are_one() -> None:
    one = History().troubled(BEGIN, "xid:79").stepped(BEGIN, RepairStep.REBOOT, "xid:79")
    other = one.troubled(BEGIN + timedelta(1), "xid:48")
    assert join(one, other) == join(other, one) == other
    many = History()
    for day in range(100):
        many = many.troubled(BEGIN + timedelta(day), "x").stepped(BEGIN, RepairStep.RESET, "x")
    assert (len(many.troubles), len(many.steps)) == (32, 32)


def world(*, can: tuple[str, ...] = ("reboot",)) -> World:
    made = World({"a": 3}, can=can)
    for name in made.nodes:
        made.nodes[name].serials = (f"board:{name}", f"gpu:{name}")
    return made.run(5)


def comes_back(made: World, old: str, new: str) -> None:
    """The provider takes a machine back and delivers it again under another name."""
    before = made.nodes[old]
    made.nodes[new] = SimNode("a", serials=before.serials, id=f"{new}-instance", boot=77)
    before.unlisted, before.reachable, before.on = True, False, False
    before.serials = ()


def test_a_machine_that_comes_back_brings_its_history_and_is_told_of() -> None:
    made = world()
    made.fault("a-1").until(lambda w: w.states()["a-1"] == "repairing")
    made.until(lambda w: w.states()["a-1"] == "spare")
    comes_back(made, "a-1", "a-9")
    made.run(1)
    node = made.fleet.nodes[A9]
    assert node.kin == "a-1"
    assert [one.fault for one in node.history.troubles] == ["xid:79"]
    assert ("machine-returned", "a-9") in made.pages()
    assert made.told("it is the machine that was a-1, 1 times out of service")
    made.until(lambda w: w.states()["a-9"] == "spare")
    assert ("machine-returned", "a-9") not in made.pages()
    assert made.states()["a-1"] == "retired"
    assert made.told("its machine is a-9 now")


def test_what_it_was_put_away_for_is_repaired_before_it_serves() -> None:
    made = world(can=())
    made.fault("a-1").until(lambda w: w.states()["a-1"] == "quarantined")
    made.fleet = replace(made.fleet, clusters=(replace(made.fleet.clusters[0], can=frozenset()),))
    comes_back(made, "a-1", "a-9")
    made.run(2)
    assert made.states()["a-9"] == "quarantined"
    assert ("repair-needed", "a-9") in made.pages()
    able = replace(made.fleet.clusters[0], can=frozenset({"reboot"}))
    made.fleet = replace(made.fleet, clusters=(able,))
    made.until(lambda w: w.states()["a-9"] == "spare")
    assert [(d.node, d.step) for d in made.done if isinstance(d, Repair)] == [("a-9", "reboot")]


def test_the_ladder_goes_on_where_it_stood_under_the_old_name() -> None:
    made = world(can=("reboot", "reprovision"))
    made.nodes["a-1"].needs = RepairStep.REPROVISION
    made.fault("a-1").until(lambda w: any(isinstance(d, Repair) for d in w.done))
    made.until(lambda w: w.states()["a-1"] == "burn-in")
    comes_back(made, "a-1", "a-9")
    made.run(5)
    made.fault("a-9").until(lambda w: sum(isinstance(d, Repair) for d in w.done) == 2)
    assert [d.step for d in made.done if isinstance(d, Repair)] == ["reboot", "reprovision"]


def test_a_person_s_cordon_goes_where_the_machine_goes_and_stays_theirs() -> None:
    made = world()
    made.order(OrderKind.CORDON, "a-1", by="ann")
    made.run(1)
    comes_back(made, "a-1", "a-9")
    made.run(8)
    cordon = made.fleet.nodes[A9].cordon
    assert cordon is not None
    assert cordon.owner == "operator:ann"
    made.order(OrderKind.UNCORDON, "a-9", by="bob")
    made.run(1)
    assert made.fleet.nodes[A9].cordon == cordon
    made.order(OrderKind.UNCORDON, "a-9", by="ann")
    made.run(1)
    assert made.fleet.nodes[A9].cordon is None


def test_a_serial_that_two_running_machines_claim_names_neither() -> None:
    made = world()
    made.fault("a-1").until(lambda w: w.states()["a-1"] == "repairing")
    made.until(lambda w: w.states()["a-1"] == "spare")
    made.nodes["a-9"] = SimNode("a", serials=made.nodes["a-1"].serials)
    made.run(6)
    node = made.fleet.nodes[A9]
    assert (node.kin, node.history) == (None, History())
    assert made.states() == {"a-1": "spare", "a-2": "spare", "a-3": "spare", "a-9": "spare"}


def test_a_card_that_was_blamed_is_known_in_another_machine() -> None:
    made = world()
    made.fault("a-1", serial="gpu:a-1").until(lambda w: w.states()["a-1"] == "repairing")
    made.until(lambda w: w.states()["a-1"] == "spare")
    made.nodes["a-9"] = SimNode("a", serials=("board:other", "gpu:a-1"))
    made.run(1)
    assert made.fleet.nodes[A9].history.troubles[0].serial == "gpu:a-1"
    assert made.fleet.nodes[A9].kin is None


def test_another_machine_under_an_old_name_begins_anew_and_the_old_one_is_remembered() -> None:
    made = world()
    made.fault("a-1").until(lambda w: w.states()["a-1"] == "repairing")
    made.until(lambda w: w.states()["a-1"] == "spare")
    old = made.fleet.nodes[A1]
    sim = made.nodes["a-1"]
    sim.id, sim.serials, sim.boot = "other", ("board:new",), 9
    made.run(1)
    node = made.fleet.nodes[A1]
    assert (node.state.value, node.incarnation, node.history) == ("burn-in", 2, History())
    assert [(one.machine, one.history) for one in node.former] == [(old.machine, old.history)]
    made.nodes["a-9"] = SimNode("a", serials=old.machine.serials, id="again")
    made.run(1)
    assert made.fleet.nodes[A9].history.troubles == old.history.troubles
    assert made.fleet.nodes[A9].kin == "a-1"


def test_what_was_found_on_the_old_machine_says_nothing_about_the_new_one() -> None:
    """The listing shows another machine before that has said a word of its own."""
    made = world()
    sim = made.nodes["a-1"]
    sim.slow = True
    made.fault("a-1", remedy="replace").until(lambda w: w.states()["a-1"] == "repairing")
    sim.reachable = False
    sim.id, sim.serials = "other", ("board:new",)
    made.until(lambda w: w.fleet.nodes[A1].incarnation == 2)
    made.run(3)
    assert made.states()["a-1"] == "burn-in"
    sim.reachable, sim.boot = True, 9  # and it has the very same fault, found anew
    made.until(lambda w: w.states()["a-1"] != "burn-in")
    assert made.told("put a-1 in quarantine: XID 79")


def test_the_same_machine_described_anew_goes_on_as_it_is() -> None:
    made = world()
    made.submit("train", TWO)
    made.until(running)
    made.nodes["a-1"].serials = ("board:a-1", "gpu:swapped")
    made.run(2)
    node = made.fleet.nodes[A1]
    assert node.machine.serials == ("board:a-1", "gpu:swapped")
    assert (node.state.value, node.incarnation) == ("in-use", 1)


def test_a_listing_alone_never_takes_a_seat_from_a_gang() -> None:
    """The provider names another machine, but the node goes on with the boot it had."""
    made = world()
    made.submit("train", TWO)
    made.until(running)
    made.nodes["a-1"].id, made.nodes["a-1"].serials = "other", ("board:other",)
    before = made.steps("train")
    made.run(30)
    assert made.states()["a-1"] == "in-use"
    assert made.steps("train") == before + 30
    assert made.attempt("train").grant is not None


def test_another_machine_that_booted_under_a_seat_goes_through_burn_in() -> None:
    made = world()
    made.submit("train", TWO)
    made.until(running)
    sim = made.nodes["a-1"]
    sim.id, sim.serials, sim.boot = "other", ("board:other",), 9
    sim.agents.clear()
    made.until(lambda w: w.states()["a-1"] == "burn-in")
    assert made.told("another machine stands under its name")
    assert made.fleet.nodes[A1].incarnation == 2
    made.until(lambda w: set(w.members("train")) == {"a-2", "a-3"})


def test_a_machine_handed_back_is_retired_and_a_new_one_may_take_its_name() -> None:
    made = world(can=())
    made.fault("a-1").until(lambda w: w.states()["a-1"] == "quarantined")
    made.nodes["a-1"].unlisted = True
    made.run(10)
    assert made.states()["a-1"] == "quarantined"
    made.fleet = replace(made.fleet, now=made.fleet.now + timedelta(days=1))
    made.run(1)
    assert made.states()["a-1"] == "retired"
    assert not {page for page, subject in made.pages() if subject == "a-1"}
    sim = made.nodes["a-1"]
    sim.unlisted, sim.id, sim.serials, sim.boot, sim.findings = False, "x", ("board:x",), 5, []
    made.until(lambda w: w.states()["a-1"] == "spare")
    assert made.fleet.nodes[A1].incarnation == 2


def test_a_replaced_machine_whose_successor_has_another_name_is_retired() -> None:
    made = world(can=("replace",))
    made.fault("a-1", remedy="replace")
    made.until(lambda w: w.states()["a-1"] == "repairing")
    made.nodes["a-1"].unlisted, made.nodes["a-1"].slow = True, True
    made.nodes["a-9"] = SimNode("a", serials=("board:fresh",))
    made.run(2)
    made.fleet = replace(made.fleet, now=made.fleet.now + QUICK.repair_wait)
    made.until(lambda w: w.states()["a-1"] == "retired")
    assert made.states()["a-9"] != "quarantined"


def test_an_idle_spare_that_is_not_listed_is_never_retired() -> None:
    made = world()
    made.nodes["a-1"].unlisted = True
    made.run(2)
    made.fleet = replace(made.fleet, now=made.fleet.now + timedelta(days=9))
    made.run(2)
    assert made.states()["a-1"] == "spare"
