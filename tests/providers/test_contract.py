"""What every provider keeps, whoever it is. A capability is declared and works, or is refused with
a runbook; an API that does not answer is an error that may pass, never an empty list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import HoldfastError, PermanentError, TransientError
from providers.api import OWNER, Capability, MachineListed, Notice, Power
from providers.fake import FakeProvider
from tests.hostile import HOSTILE
from tests.providers.worlds import NODES, WORLDS, World

STRANGERS = [*HOSTILE, "zebra"]
VERBS: dict[Capability, Callable[[World, str], Any]] = {
    Capability.REBOOT: lambda world, node: world.provider.reboot(node),
    Capability.REPROVISION: lambda world, node: world.provider.reprovision(node),
    Capability.REPLACE: lambda world, node: world.provider.replace(node),
    Capability.CORDON: lambda world, node: world.provider.cordon(node, "to try it"),
}
verbs = pytest.mark.parametrize("verb", VERBS, ids=str)


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = WORLDS[request.param](tmp_path)
    yield made
    made.close()


def by_node(world: World) -> dict[str, MachineListed]:
    return {machine.node: machine for machine in world.provider.machines()}


def can(world: World, capability: Capability) -> bool:
    return capability in world.provider.capabilities


# --- listing


def test_every_machine_is_listed_once_under_the_name_we_gave_it(world: World) -> None:
    assert sorted(machine.node for machine in world.provider.machines()) == sorted(NODES)


def test_on_the_day_of_delivery_all_machines_run(world: World) -> None:
    assert {machine.power for machine in world.provider.machines()} == {Power.RUNNING}


def test_every_machine_has_an_identity_of_its_own(world: World) -> None:
    machines = world.provider.machines()
    assert len({machine.id for machine in machines}) == len(machines)
    assert all(machine.id for machine in machines)


def test_a_second_look_sees_the_same(world: World) -> None:
    assert world.provider.machines() == world.provider.machines()


def test_identities_survive_our_own_restart(world: World) -> None:
    before = by_node(world)
    for machine in world.again().machines():
        assert (machine.id, machine.serials) == (
            before[machine.node].id,
            before[machine.node].serials,
        )


def test_a_machine_says_what_it_is(world: World) -> None:
    for machine in world.provider.machines():
        assert machine.sku
        assert machine.cohort
        assert machine.accelerators >= 0
        assert all(machine.serials)


def test_nothing_that_is_listed_steers_a_terminal_or_leaves_a_folder(world: World) -> None:
    for machine in world.provider.machines():
        for text in (machine.node, machine.id, machine.sku, machine.cohort, machine.boot_id):
            assert text.isprintable()
            assert "/" not in text


def test_boot_ids_are_told_or_left_to_the_node(world: World) -> None:
    boots = [machine.boot_id for machine in world.provider.machines()]
    if world.knows_boots:
        assert len(set(boots)) == len(boots)
        assert all(boots)
    else:
        assert set(boots) == {""}


def test_prices_are_listed_if_and_only_if_that_is_declared(world: World) -> None:
    prices = [machine.price_per_hour for machine in world.provider.machines()]
    assert any(price is not None for price in prices) == can(world, Capability.PRICE)
    assert all(price is None or price >= 0 for price in prices)


def test_many_may_ask_at_once(world: World) -> None:
    first = world.provider.machines()
    with ThreadPoolExecutor(6) as pool:
        assert all(
            seen == first for seen in pool.map(lambda _: world.provider.machines(), range(12))
        )


def test_what_it_can_do_is_declared_once(world: World) -> None:
    assert isinstance(world.provider.capabilities, frozenset)
    assert all(isinstance(one, Capability) for one in world.provider.capabilities)
    assert world.again().capabilities == world.provider.capabilities


def test_it_has_a_name(world: World) -> None:
    assert world.provider.name.isidentifier()


# --- an API that does not answer


def test_an_api_that_fails_is_an_error_that_may_pass_and_no_empty_list(world: World) -> None:
    with world.down(), pytest.raises(TransientError) as told:
        world.provider.machines()
    assert str(told.value)


def test_when_it_answers_again_everything_is_as_it_was(world: World) -> None:
    before = world.provider.machines()
    with world.down(), pytest.raises(TransientError):
        world.provider.machines()
    assert world.provider.machines() == before


@verbs
def test_an_api_that_fails_lets_every_verb_fail_for_now(world: World, verb: Capability) -> None:
    expected = TransientError if can(world, verb) else PermanentError
    with world.down(), pytest.raises(expected):
        VERBS[verb](world, NODES[0])


def test_no_cordon_is_lifted_by_an_api_that_fails(world: World) -> None:
    with world.down(), pytest.raises(HoldfastError):
        world.provider.uncordon(NODES[0])


# --- what it cannot do, and for whom it does nothing


@verbs
def test_what_it_cannot_do_is_refused_with_a_runbook(world: World, verb: Capability) -> None:
    if can(world, verb):
        VERBS[verb](world, NODES[0])
        return
    with pytest.raises(PermanentError, match=rf"{world.provider.name} cannot .*runbook show"):
        VERBS[verb](world, NODES[0])


@pytest.mark.parametrize("name", STRANGERS, ids=range(len(STRANGERS)))
def test_a_machine_that_is_not_ours_is_refused_by_every_verb(
    world: World, name: str, tmp_path: Path
) -> None:
    before = world.provider.machines()
    for act in VERBS.values():
        with pytest.raises(HoldfastError) as told:
            act(world, name)
        assert not isinstance(told.value, TransientError), "trying again would not help"
    with pytest.raises(HoldfastError):
        world.provider.uncordon(name)
    assert world.provider.machines() == before
    assert not list(tmp_path.rglob("owned"))


# --- reboot, reprovision, replace


@pytest.mark.parametrize("verb", [Capability.REBOOT, Capability.REPROVISION], ids=str)
def test_a_machine_that_starts_anew_has_a_new_boot_and_is_the_same(
    world: World, verb: Capability
) -> None:
    before = by_node(world)
    if not can(world, verb):
        assert before == by_node(world)
        return
    boot_id = VERBS[verb](world, NODES[1])
    after = by_node(world)
    assert (after[NODES[1]].id, after[NODES[1]].serials) == (
        before[NODES[1]].id,
        before[NODES[1]].serials,
    )
    assert boot_id == after[NODES[1]].boot_id
    assert (boot_id != before[NODES[1]].boot_id) == world.knows_boots


@pytest.mark.parametrize("verb", [Capability.REBOOT, Capability.REPROVISION], ids=str)
def test_the_neighbours_of_a_machine_that_starts_anew_notice_nothing(
    world: World, verb: Capability
) -> None:
    before = by_node(world)
    if can(world, verb):
        VERBS[verb](world, NODES[1])
    after = by_node(world)
    assert [after[node] for node in (NODES[0], NODES[2])] == [
        before[node] for node in (NODES[0], NODES[2])
    ]


def test_a_machine_may_be_rebooted_again_and_again(world: World) -> None:
    if can(world, Capability.REBOOT):
        boots = [world.provider.reboot(NODES[0]) for _ in range(3)]
        assert len(set(boots)) == (3 if world.knows_boots else 1)
    assert sorted(by_node(world)) == sorted(NODES)


def test_another_machine_behind_the_name_is_another_machine(world: World) -> None:
    before = by_node(world)
    if not can(world, Capability.REPLACE):
        assert before == by_node(world)
        return
    fresh = world.provider.replace(NODES[2])
    after = by_node(world)
    assert fresh == after[NODES[2]].id != before[NODES[2]].id
    assert after[NODES[2]].serials != before[NODES[2]].serials
    assert after[NODES[0]] == before[NODES[0]]


# --- power


def test_only_a_machine_that_is_off_is_listed_as_off(world: World) -> None:
    if world.cut_power is not None:
        world.cut_power(NODES[0])
    off = {machine.node for machine in world.provider.machines() if machine.power is Power.STOPPED}
    assert off == (set() if world.cut_power is None else {NODES[0]})


def test_a_machine_that_is_off_is_still_listed_as_itself(world: World) -> None:
    before = by_node(world)[NODES[0]]
    if world.cut_power is not None:
        world.cut_power(NODES[0])
    after = by_node(world)[NODES[0]]
    assert (after.id, after.serials, after.sku) == (before.id, before.serials, before.sku)


def test_a_reboot_gives_a_machine_its_power_back(world: World) -> None:
    if world.cut_power is not None and can(world, Capability.REBOOT):
        world.cut_power(NODES[0])
        world.provider.reboot(NODES[0])
    assert by_node(world)[NODES[0]].power is Power.RUNNING


def test_an_api_that_fails_says_nothing_about_power(world: World) -> None:
    if world.cut_power is not None:
        world.cut_power(NODES[0])
    with world.down(), pytest.raises(TransientError):
        world.provider.machines()


# --- cordons


def test_nothing_is_cordoned_at_first(world: World) -> None:
    assert {(machine.cordon, machine.cordoned_by) for machine in by_node(world).values()} == {
        ("", "")
    }


def test_a_cordon_of_ours_says_who_and_why(world: World) -> None:
    if not can(world, Capability.CORDON):
        return refused(world)
    world.provider.cordon(NODES[0], "XID 79 on gpu5")
    seen = by_node(world)
    assert "XID 79 on gpu5" in seen[NODES[0]].cordon
    assert seen[NODES[0]].cordoned_by.startswith(OWNER)
    assert seen[NODES[1]].cordon == ""
    return None


def test_the_first_reason_of_a_cordon_is_kept(world: World) -> None:
    if not can(world, Capability.CORDON):
        return refused(world)
    world.provider.cordon(NODES[0], "the first")
    world.provider.cordon(NODES[0], "the second")
    assert "the first" in by_node(world)[NODES[0]].cordon
    return None


def test_a_cordon_of_ours_is_lifted_and_once_is_enough(world: World) -> None:
    if not can(world, Capability.CORDON):
        return refused(world)
    world.provider.cordon(NODES[0], "to try it")
    assert world.provider.uncordon(NODES[0])
    assert by_node(world)[NODES[0]].cordon == ""
    assert world.provider.uncordon(NODES[0])
    return None


def test_a_cordon_of_somebody_else_is_listed_and_never_lifted(world: World) -> None:
    if world.cordon_as is None:
        return refused(world)
    world.cordon_as("alice", NODES[1], "fan noise")
    assert not world.provider.uncordon(NODES[1])
    world.provider.cordon(NODES[1], "ours")
    assert not world.provider.uncordon(NODES[1])
    seen = by_node(world)[NODES[1]]
    assert "fan noise" in seen.cordon
    assert not seen.cordoned_by.startswith(OWNER)
    return None


def test_a_cordon_survives_our_own_restart(world: World) -> None:
    if not can(world, Capability.CORDON):
        return refused(world)
    world.provider.cordon(NODES[0], "to try it")
    assert world.again().uncordon(NODES[0])
    return None


@pytest.mark.parametrize("reason", HOSTILE[:-1], ids=range(len(HOSTILE) - 1))
def test_no_reason_is_ever_run_or_breaks_a_listing(
    world: World, reason: str, tmp_path: Path
) -> None:
    if not can(world, Capability.CORDON):
        return refused(world, reason)
    world.provider.cordon(NODES[0], reason)
    seen = by_node(world)
    assert sorted(seen) == sorted(NODES)
    assert seen[NODES[0]].cordon.isprintable()
    assert seen[NODES[0]].cordon
    assert world.provider.uncordon(NODES[0])
    assert not list(tmp_path.rglob("owned"))
    return None


# --- maintenance


def test_no_maintenance_is_announced_by_itself(world: World) -> None:
    assert world.provider.notices() == ()


def test_announced_maintenance_is_told_with_the_earliest_first() -> None:
    provider = FakeProvider(NODES)
    late, soon = Notice(NODES[0], 200.0, "firmware"), Notice(NODES[1], 100.0, "cooling")
    provider.announce(late)
    provider.announce(soon)
    assert provider.notices() == (soon, late)


def refused(world: World, reason: str = "why not") -> None:
    with pytest.raises(PermanentError, match="cannot cordon"):
        world.provider.cordon(NODES[0], reason)
    with pytest.raises(PermanentError, match="cannot uncordon"):
        world.provider.uncordon(NODES[0])
