"""Acceptance, measured: each kind of defect alone in many cohorts of 16 nodes, and healthy cohorts.

    python -m bench.acceptance [COHORTS_PER_KIND] [HEALTHY]

The judges of the health checks are the real ones, and so are the wire, the reader, the comparison
of nodes and the localisation; what probes would see is drawn: rates with the spread of silicon,
figures that wander, checks that time out, tests of links that lie in 5 % both ways.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from healthchecks import figures, runner
from healthchecks.api import Level, Settings
from healthchecks.findings import encode, encode_coverage, encode_figures, line
from orchestrator.core.acceptance import (
    CHECKS,
    Acceptance,
    Plan,
    Ran,
    Stage,
    Standing,
    broken,
    judge,
)
from orchestrator.core.localise import Culprits, Localisation, PairTest
from orchestrator.observers.coverage import read
from orchestrator.observers.examine import joined

NODES, GPUS = 16, 8
TIMES_OUT = 0.005  #: of the checks, for nothing
ALARM = MISS = 0.05  #: of the tests of links
SPREAD = {"gemm": 0.015, "memory-bandwidth": 0.006, "transfer": 0.012, "soak": 0.015}
TYPICAL = {"gemm": 800.0, "memory-bandwidth": 3060.0, "transfer": 52.0, "soak": 640.0}
NAME = "NVIDIA H100 80GB HBM3"
EXPECTED = {
    "driver": "550.90.07",
    "vbios": "96.00.89.00.01",
    "name": NAME,
    "ib_ports": 8,
    "ib_rate": 400,
    "memory": 2_160_000_000_000,
    "all_reduce_gbps": 450,
    "storage_mbps": 2000,
    "nvme": 1,
}
PASSIVE = frozenset(n for n, where in runner.CHECKS.items() if not where.startswith("active."))
PLAN = Plan(PASSIVE, GPUS, EXPECTED)
UNDER_LOAD = ("clocks", "brake", "draw", "pcie", "thermal", "nvlink")
LOADED = {one.name: one for one in runner.load(runner.NAMES, Level.ACCEPTANCE)}
SETTINGS = Settings(gpus_expected=GPUS, idle=True, cluster=EXPECTED)

Facts = dict[str, Any]
Harm = Callable[[Facts, random.Random], None]


class Node(NamedTuple):
    """What probes would see on one node."""

    idle: Facts  #: check -> facts
    loaded: Facts  #: the same, of the accelerators, while all work
    link: bool  #: whether its link is slow


def gpu(dice: random.Random, number: int, node: int, *, busy: bool) -> Facts:
    """Return the readings of one healthy accelerator."""
    return {
        "index": number,
        "failed": {},
        "name": NAME,
        "uuid": f"GPU-{node}-{number}",
        "serial": f"165{node:02}{number}",
        "vbios": EXPECTED["vbios"],
        "inforom_valid": True,
        "ecc_mode": [1, 1],
        "ecc": {
            "corrected_volatile_sram": dice.choice([0] * 9 + [dice.randrange(20)]),
            "corrected_volatile_dram": dice.choice([0, 0, 0, dice.randrange(5000)]),
        },
        "rows": {"corrected": dice.randrange(3), "uncorrected": 0, "pending": 0, "failure": 0},
        "row_histogram": {"max": 640, "high": dice.randrange(2), "partial": 0, "low": 0, "none": 0},
        "recovery_action": 0,
        "temperature": dice.randrange(58, 78) if busy else dice.randrange(28, 42),
        "temperature_max": 90,
        "memory_temperature": dice.randrange(65, 88) if busy else dice.randrange(35, 50),
        "memory_temperature_max": 95,
        "clock_sm": dice.randrange(1755, 1980, 15) if busy else 345,
        "clock_sm_max": 1980,
        "clock_memory": 2619,
        "clock_memory_max": 2619,
        "power": dice.uniform(620, 700) if busy else dice.uniform(65, 120),
        "power_limit": 700.0,
        "power_limit_default": 700.0,
        "utilisation": 100 if busy else 0,
        "pcie_width": 16,
        "pcie_width_max": 16,
        "pcie_generation": 5 if busy else dice.choice([1, 5]),
        "pcie_generation_max": 5,
        "pcie_replays": dice.randrange(4),
        "nvlinks": [
            {"state": 1, "replay": 0, "recovery": 0, "crc_flit": dice.choice([0] * 30 + [1])}
            for _ in range(18)
        ],
        "fabric": {"state": 3, "status": 0, "health": 2},
        "persistence": 1,
        "mig": [0, 0],
        "compute_mode": 0,
        "processes": [],
        "memory": {"total": 85_520_809_984, "used": 640_000_000, "reserved": 640_000_000},
        "reasons": [0x4 | dice.choice([0] * 19 + [0x8]) for _ in range(3)] if busy else [0x1] * 3,
    }


def rates(dice: random.Random, check: str) -> Facts:
    """Return a rate for each accelerator."""
    return {
        f"cuda:{one}": {"rate": TYPICAL[check] * dice.gauss(1, SPREAD[check]), "name": NAME}
        for one in range(GPUS)
    }


def healthy(dice: random.Random, number: int) -> Node:
    """Return a node with nothing wrong."""
    kinds = {name: one for name, one in LOADED.items() if name in UNDER_LOAD}
    looks = [name for name, where in runner.CHECKS.items() if where.startswith("gpu.")]
    cards = [gpu(dice, one, number, busy=False) for one in range(GPUS)]
    seen = {"driver": EXPECTED["driver"], "cuda": 12040, "gpus": cards}
    port = {"state": "ACTIVE", "physical": "LinkUp", "rate": 400.0}
    counters = dict.fromkeys(("symbol_error", "port_rcv_errors", "link_downed"), 0)
    counters |= {"link_error_recovery": 0, "local_link_integrity_errors": 0}
    disk = {"path": "/tmp", "bytes": 3e12, "free": dice.uniform(1e12, 2.9e12), "inodes": 1e8}
    idle: Facts = {
        **dict.fromkeys(looks, seen),
        "nvml": {
            "on_bus": GPUS,
            "init": 0,
            "error": "",
            "gpus": [
                {"index": one["index"], "rc": 0, "uuid": one["uuid"], "serial": one["serial"]}
                for one in cards
            ],
        },
        "xid": {"lines": 900, "said": [], "gpus": [f"0000:{n:02x}:00" for n in range(GPUS)]},
        "sxid": {"lines": 900, "said": []},
        "kernel": {"lines": 900, "said": []},
        "disk": {"disks": [{**disk, "inodes_free": 9e7, "write_s": dice.expovariate(100)}]},
        "clock": {
            "now": 1.8e9,
            "uptime": 9e4,
            "kept": {"synchronised": True, "offset": dice.gauss(0, 0.004)},
        },
        "mounts": {"mounts": []},
        "limits": {
            "memlock": -1,
            "files": 1 << 20,
            "system_files": [12_000, 9_000_000],
            "memory": int(2.16e12 * dice.uniform(0.995, 1)),
            "hugepages": 0,
            "rdma": True,
        },
        "edac": {
            "controllers": {
                f"mc{one}": {"uncorrected": 0, "corrected": dice.choice([0, 0, 0, 3])}
                for one in range(4)
            }
        },
        "stuck": {"waiting": {}},
        "smart": {
            "disks": {
                f"nvme{one}": {
                    "critical_warning": 0,
                    "avail_spare": 100,
                    "spare_thresh": 10,
                    "percent_used": dice.randrange(12),
                    "media_errors": 0,
                }
                for one in range(4)
            }
        },
        "dns": {"names": {}},
        "infiniband": {
            "ports": {f"mlx5_{n}:1": {**port, "counters": dict(counters)} for n in range(8)}
        },
        **{check: {"rates": rates(dice, check)} for check in ("gemm", "memory-bandwidth")},
        "transfer": {"rates": rates(dice, "transfer")},
        "all-reduce": {
            "ranks": GPUS,
            "backend": "nccl",
            "rate": dice.gauss(475, 6),
            "right": True,
            "name": "cuda:0",
        },
        "storage": {
            "disks": {
                "/tmp": {
                    "write": dice.gauss(2600, 60),
                    "read": dice.gauss(5200, 90),
                    "right": True,
                }
            }
        },
        "repeat": {
            "hashes": {f"cuda:{one}": ["ab12"] * 3 for one in range(GPUS)},
            "names": {f"cuda:{one}": NAME for one in range(GPUS)},
            "stack": "2.11",
        },
        "soak": {
            "pieces": {
                on: [one["rate"] * dice.gauss(1, 0.004) for _ in range(30)]
                for on, one in rates(dice, "soak").items()
            },
            "names": {},
        },
    }
    busy = {**seen, "gpus": [gpu(dice, one, number, busy=True) for one in range(GPUS)]}
    return Node(idle, dict.fromkeys(kinds, busy), link=False)


# --- defects: each changes what one node's probes see ----------------------------------------


def on_gpu(change: Callable[[Facts, random.Random], None]) -> Callable[[Node, random.Random], Node]:
    """Return a harm of one accelerator, seen idle and under load."""

    def harm(node: Node, dice: random.Random) -> Node:
        which = dice.randrange(GPUS)
        change(node.idle["ecc"]["gpus"][which], dice)
        change(node.loaded["clocks"]["gpus"][which], dice)
        return node

    return harm


def on_load(
    change: Callable[[Facts, random.Random], None],
) -> Callable[[Node, random.Random], Node]:
    """Return a harm of one accelerator that shows under load alone."""

    def harm(node: Node, dice: random.Random) -> Node:
        change(node.loaded["clocks"]["gpus"][dice.randrange(GPUS)], dice)
        return node

    return harm


def on_host(
    change: Callable[[Facts, random.Random], None],
) -> Callable[[Node, random.Random], Node]:
    """Return a harm of the host."""

    def harm(node: Node, dice: random.Random) -> Node:
        change(node.idle, dice)
        return node

    return harm


def lost(facts: Facts, dice: random.Random) -> None:
    """Take an accelerator away."""
    del facts["nvml"]["gpus"][dice.randrange(GPUS)]


def slower(check: str) -> Callable[[Node, random.Random], Node]:
    """Return one accelerator's rate lowered by 8 to 40 %."""

    def change(facts: Facts, dice: random.Random) -> None:
        facts[check]["rates"][f"cuda:{dice.randrange(GPUS)}"]["rate"] *= dice.uniform(0.6, 0.92)

    return on_host(change)


def fades(facts: Facts, dice: random.Random) -> None:
    """Let one accelerator lose 10 to 40 % after a while under load."""
    share, which = dice.uniform(0.6, 0.9), f"cuda:{dice.randrange(GPUS)}"
    pieces = facts["soak"]["pieces"][which]
    facts["soak"]["pieces"][which] = [*pieces[:12], *(share * one for one in pieces[12:])]


def flips(facts: Facts, dice: random.Random) -> None:
    """Let one repeat of three end in other bits."""
    facts["repeat"]["hashes"][f"cuda:{dice.randrange(GPUS)}"][dice.randrange(3)] = "ab13"


def wrong_always(facts: Facts, dice: random.Random) -> None:
    """Every accelerator of the node errs alike (its processor or memory does): peers tell."""
    del dice
    for hashes in facts["repeat"]["hashes"].values():
        hashes[:] = ["ab99"] * 3


def logs(check: str, text: str) -> Callable[[Node, random.Random], Node]:
    """Return a line in the kernel log."""
    return on_host(lambda facts, dice: facts[check]["said"].append(text))


def port(**change: Any) -> Callable[[Node, random.Random], Node]:
    """Return one InfiniBand port that differs."""
    return on_host(
        lambda facts, dice: facts["infiniband"]["ports"][f"mlx5_{dice.randrange(8)}:1"].update(
            change
        )
    )


def at(*path: Any, value: Any) -> Callable[[Node, random.Random], Node]:
    """Return one fact of the host replaced."""

    def change(facts: Facts, dice: random.Random) -> None:
        del dice
        for key in path[:-1]:
            facts = facts[key]
        facts[path[-1]] = value

    return on_host(change)


def set_to(**change: Any) -> Harm:
    """Return readings of an accelerator replaced."""
    return lambda card, dice: card.update(change)


KINDS: Mapping[str, Callable[[Node, random.Random], Node]] = {
    "GPU missing": on_host(lost),
    "wrong board": on_gpu(set_to(name="NVIDIA H100 PCIe")),
    "uncorrectable SRAM": on_gpu(lambda c, d: c["ecc"].update(uncorrected_volatile_sram=1)),
    "row remap failed": on_gpu(lambda c, d: c["rows"].update(failure=1)),
    "row remap pending": on_gpu(lambda c, d: c["rows"].update(pending=1)),
    "XID 79": logs("xid", "NVRM: Xid (PCI:0000:03:00): 79, pid=1, GPU has fallen off the bus."),
    "XID 74": logs("xid", "NVRM: Xid (PCI:0000:03:00): 74, pid=1, NVLink: fatal error"),
    "NVLink inactive": on_gpu(lambda c, d: c["nvlinks"][d.randrange(18)].update(state=0)),
    "NVLink errors": on_gpu(
        lambda c, d: c["nvlinks"][d.randrange(18)].update(crc_flit=d.randrange(6, 900))
    ),
    "PCIe x8": on_gpu(set_to(pcie_width=8)),
    "PCIe generation under load": on_load(set_to(pcie_generation=3)),
    "hot under load": on_load(set_to(reasons=[0x48] * 3, temperature=91)),
    "slow clocks under load": on_load(lambda c, d: c.update(clock_sm=d.randrange(900, 1650))),
    "slow GEMM": slower("gemm"),
    "slow HBM": slower("memory-bandwidth"),
    "slow host link": slower("transfer"),
    "fades under load": on_host(fades),
    "bits flip": on_host(flips),
    "wrong bits always": on_host(wrong_always),
    "slow all-reduce": on_host(
        lambda f, d: f["all-reduce"].update(rate=f["all-reduce"]["rate"] * d.uniform(0.3, 0.84))
    ),
    "disk corrupts": at("storage", "disks", "/tmp", "right", value=False),
    "InfiniBand port down": port(state="DOWN", physical="Polling"),
    "InfiniBand rate": port(rate=200.0),
    "memory missing": at("limits", "memory", value=1_950_000_000_000),
    "slow link between nodes": lambda node, dice: node._replace(link=True),
}


# --- one cohort ------------------------------------------------------------------------------


def look(seen: Facts, checks: list[str], dice: random.Random) -> Ran:
    """Run these checks on what is seen, through the real judges, the wire and its reader."""
    findings = []
    told = {}
    chosen = [LOADED[name] for name in checks]
    for check in chosen:
        facts = None if dice.random() < TIMES_OUT else seen[check.name]
        told[check.name] = facts
        failure = "" if facts is not None else "timed out after 10 s"
        answer = runner.Answer(facts, failure, 0.01)
        findings += [
            one._replace(observed_at=1.8e9) for one in runner.conclude(check, answer, SETTINGS)
        ]
    lines = [line(encode(one)) for one in findings]
    lines.append(line(encode_figures(figures.of(told))))
    lines.append(line(encode_coverage(runner.cover(chosen, findings, {}))))
    return read("\n".join(lines).encode())


def stage(seen: Facts, checks: list[str], dice: random.Random) -> Ran:
    """Look, and look once more at what could not tell, as `observers.examine` does."""
    first = look(seen, checks, dice)
    blind = [one for one in checks if one not in first.covered and PLAN.excuse(one) is None]
    return joined(first, look(seen, blind, dice)) if blind else first


def examine(node: Node, dice: random.Random) -> dict[Stage, Ran]:
    """Run all stages on one node."""
    runs: dict[Stage, Ran] = {}
    for one in Stage:
        if one is Stage.LINKS:
            continue
        runs[one] = stage(node.idle, sorted(PLAN.checks(one)), dice)
        if one is Stage.LOAD and CHECKS[one]:
            runs[one] = joined(runs[one], look(node.loaded, sorted(UNDER_LOAD), dice))
    return runs


def links(nodes: list[str], bad: set[str], dice: random.Random) -> Culprits:
    """Localise over tests that lie."""
    state = Localisation(tuple(nodes))
    while pairs := state.next_round():
        tests = []
        for left, right in pairs:
            fails = dice.random() < ((1 - MISS) if {left, right} & bad else ALARM)
            tests.append(PairTest(left, right, failed=fails))
        state = state.after(tests)
    return state.conclude()


def cohort(seed: str, kind: str | None) -> tuple[Acceptance, str]:
    """Examine one cohort; return what came of it and the name of its bad node."""
    dice = random.Random(seed)
    victim = dice.randrange(NODES)
    runs: dict[str, dict[Stage, Ran]] = {}
    slow = set()
    for number in range(NODES):
        node = healthy(dice, number)
        if kind is not None and number == victim:
            node = KINDS[kind](node, dice)
        name = f"n{number:02}"
        runs[name] = examine(node, dice)
        if node.link:
            slow.add(name)
    good = [name for name in runs if not broken(runs[name])]
    found = links(good, slow, dice) if len(good) > 1 else None
    return judge(PLAN, runs, found), f"n{victim:02}"


def main(per_kind: int, healthy_cohorts: int) -> int:
    """Measure, print a line for each kind, and say whether it is enough."""
    rejected_good = good = passed_short = 0
    found_kinds = 0
    for kind in KINDS:
        found = 0
        for number in range(per_kind):
            result, victim = cohort(f"{kind}/{number}", kind)
            out = {one.node for one in result.nodes if one.faults}
            found += victim in out
            good += NODES - 1
            rejected_good += len(out - {victim})
            passed_short += result.passed and any(one.missing for one in result.nodes)
        found_kinds += found >= 0.95 * per_kind
        print(f"{kind}: {found} of {per_kind}")
    standings: Counter[str] = Counter()
    cohorts_passed = 0
    for number in range(healthy_cohorts):
        result, _ = cohort(f"healthy/{number}", None)
        good += NODES
        rejected_good += sum(bool(one.faults) for one in result.nodes)
        standings.update(one.standing for one in result.nodes)
        cohorts_passed += result.passed
        passed_short += result.passed and any(one.missing for one in result.nodes)
    print(
        json.dumps(
            {
                "kinds": len(KINDS),
                "kinds_found": found_kinds,
                "good_nodes": good,
                "good_with_faults": rejected_good,
                "healthy_cohorts": healthy_cohorts,
                "healthy_passed": cohorts_passed,
                "healthy_standings": dict(standings),
                "passed_without_coverage": passed_short,
            }
        )
    )
    enough = found_kinds >= len(KINDS) - 1 and rejected_good <= 0.01 * good and not passed_short
    return 0 if enough and not standings[Standing.REJECTED] > 0.01 * good else 1


if __name__ == "__main__":
    given = [int(one) for one in sys.argv[1:3]]
    sys.exit(main(*(given or (40, 200))))
