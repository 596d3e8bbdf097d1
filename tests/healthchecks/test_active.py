"""Active checks: what they judge of figures, and that they run for real on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from healthchecks import learn, runner
from healthchecks.active import compute, movement
from healthchecks.api import Level, Settings
from healthchecks.findings import Finding

H100 = "NVIDIA H100 80GB HBM3"
NONE = Settings()


def rates(*values: float, name: str = H100) -> dict[str, Any]:
    return {"rates": {f"cuda:{n}": {"rate": one, "name": name} for n, one in enumerate(values)}}


def wrong(said: list[Finding]) -> list[tuple[str, str, str]]:
    return [(one.component, one.code, one.severity.name) for one in said if one.severity]


def test_rates_as_expected_are_fine() -> None:
    assert wrong(compute.judge_gemm(rates(790, 800, 770), NONE)) == []


def test_a_slow_gpu_is_named_by_how_slow_it_is() -> None:
    said = compute.judge_gemm(rates(790, 750, 700, 790), NONE)
    assert wrong(said) == [("gpu1", "slow", "WARNING"), ("gpu2", "slow", "CRITICAL")]


def test_an_unknown_gpu_is_judged_by_its_neighbours() -> None:
    said = compute.judge_gemm(rates(100, 100, 90, 101, name="something new"), NONE)
    assert wrong(said) == [("gpu2", "behind", "WARNING")]


def test_the_cluster_s_own_figure_stands_before_the_table() -> None:
    own = Settings(cluster={"gemm_tflops": 600})
    assert wrong(compute.judge_gemm(rates(610, 605, 610), own)) == []


@pytest.mark.parametrize("name", ["NVIDIA A100-SXM4-80GB", "NVIDIA H100 PCIe", "NVIDIA H200"])
def test_every_sku_is_known(name: str) -> None:
    said = compute.judge_copy(rates(10, name=name), NONE)
    assert wrong(said) == [("gpu0", "slow", "CRITICAL")]


def test_other_bits_are_silent_data_corruption() -> None:
    names = dict.fromkeys(("cuda:0", "cuda:1", "cuda:2"), H100)
    good = {one: ["a", "a", "a"] for one in names}
    assert wrong(compute.judge_repeat({"hashes": good, "names": names}, NONE)) == []
    twice = {**good, "cuda:1": ["a", "b", "a"]}
    assert wrong(compute.judge_repeat({"hashes": twice, "names": names}, NONE)) == [
        ("gpu1", "differs", "CRITICAL")
    ]
    odd = {**good, "cuda:2": ["c", "c", "c"]}
    assert wrong(compute.judge_repeat({"hashes": odd, "names": names}, NONE)) == [
        ("gpu2", "odd", "CRITICAL")
    ]


def test_a_wrong_sum_is_critical_and_a_slow_one_too() -> None:
    facts = {"ranks": 8, "backend": "nccl", "rate": 400.0, "right": True}
    assert wrong(movement.judge_all_reduce(facts, NONE)) == []
    slow = Settings(cluster={"all_reduce_gbps": 460})
    assert wrong(movement.judge_all_reduce(facts, slow)) == [("host", "slow", "CRITICAL")]
    assert wrong(movement.judge_all_reduce({**facts, "right": False}, NONE)) == [
        ("host", "wrong", "CRITICAL")
    ]


def test_a_disk_is_judged_by_its_bytes_and_its_rate() -> None:
    seen = {"write": 500.0, "read": 900.0, "right": True}
    assert wrong(movement.judge_storage({"disks": {"/d": seen}}, NONE)) == []
    fast = Settings(cluster={"storage_mbps": 1000})
    assert wrong(movement.judge_storage({"disks": {"/d": seen}}, fast)) == [
        ("/d", "slow", "WARNING")
    ]
    assert wrong(movement.judge_storage({"disks": {"/d": {**seen, "right": False}}}, NONE)) == [
        ("/d", "wrong", "CRITICAL")
    ]
    assert wrong(movement.judge_storage({"disks": {"/d": {"error": "full"}}}, NONE)) == [
        ("/d", "error", "WARNING")
    ]


@pytest.mark.torch
def test_they_run_for_real_without_a_gpu(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    names = ("repeat", "all-reduce", "storage", "transfer")
    settings = Settings(disks=(str(tmp_path),))
    ran = runner.run(runner.load(names, Level.ACTIVE), settings, limit=240)
    assert ran.coverage.complete
    assert ran.coverage.failed == ()
    assert {"repeat", "all-reduce", "storage"} <= set(ran.coverage.passed), ran.findings
    assert list(tmp_path.iterdir()) == []


def test_a_figure_that_was_learnt_is_the_one_that_is_expected() -> None:
    seen = {"gemm": rates(790, 800, 770), "storage": {"disks": {"/d": {"write": 500.0}}}}
    assert learn._rates(seen) == {"gemm_tflops": 790, "storage_mbps": 500.0}
    with pytest.raises(ValueError, match="nothing"):
        learn.joined([])
