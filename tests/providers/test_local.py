"""What only local machines do: folders with a power switch."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import TransientError, UserError
from orchestrator.runtime import processes
from providers import local as local_machines
from providers.api import Power
from providers.local import LocalMachines, LocalProvider, cut_power, is_running, lose


def local(folder: Path) -> LocalProvider:
    return LocalProvider(folder / "ash", LocalMachines(("ash-001", "ash-002", "ash-003")))


def test_a_local_machine_without_power_is_listed_as_stopped_until_it_is_rebooted(
    tmp_path: Path,
) -> None:
    provider = local(tmp_path)
    provider.machines()
    home = provider.home("ash-001")
    cut_power(home)
    assert provider.machines()[0].power is Power.STOPPED
    assert not is_running(home)
    provider.reboot("ash-001")
    assert is_running(home)


def test_a_reboot_empties_the_kernel_log(tmp_path: Path) -> None:
    provider = local(tmp_path)
    provider.machines()
    log = provider.home("ash-001") / "kernel.log"
    log.write_text("NVRM: Xid (PCI:0000:3b:00): 79\n")
    provider.reboot("ash-001")
    assert log.read_text() == ""


def test_a_lost_cluster_stays_down(tmp_path: Path) -> None:
    provider = local(tmp_path)
    provider.machines()
    lose(tmp_path / "ash", ["ash-001", "ash-002", "ash-003"])
    assert {machine.power for machine in provider.machines()} == {Power.STOPPED}
    with pytest.raises(TransientError, match="no power"):
        provider.reboot("ash-001")


def test_power_cannot_be_taken_from_a_machine_that_was_never_delivered(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no machine"):
        cut_power(tmp_path / "nowhere")


def test_a_reboot_that_races_the_loss_of_its_cluster_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = local(tmp_path)
    provider.machines()
    folder = tmp_path / "ash"

    def lost_meanwhile(home: Path) -> int:
        if not (folder / "lost").exists():
            lose(folder, ["ash-001", "ash-002", "ash-003"])
        return processes.kill_home(home)

    monkeypatch.setattr(local_machines, "kill_home", lost_meanwhile)
    with pytest.raises(TransientError, match="no power"):
        provider.reboot("ash-001")
    assert {machine.power for machine in provider.machines()} == {Power.STOPPED}


@pytest.mark.parametrize("body", ["", "null", "[]", "{}", '{"power": "running"}'])
def test_a_broken_machine_file_is_an_error_of_the_house(tmp_path: Path, body: str) -> None:
    provider = local(tmp_path)
    provider.machines()
    (tmp_path / "ash" / "ash-001" / "machine.json").write_text(body)
    with pytest.raises(TransientError, match=r"machine\.json"):
        provider.machines()
    with pytest.raises(TransientError, match=r"machine\.json"):
        is_running(tmp_path / "ash" / "ash-001")
