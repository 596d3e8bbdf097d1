"""What to expect of a cluster's nodes, learnt from nodes that are known to be good.

`python -m healthchecks learn` looks at this node, with active checks, and prints a file for
`--cluster`; `python -m healthchecks learn a.json b.json` joins such files of several nodes: the
median of a rate, the usual version, all boards, the least count. A folder that `--record` filled
stands for its node. The files are JSON, which is YAML too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from healthchecks import record, runner
from healthchecks.api import Level, Settings

VERSIONS = ("driver", "cuda", "vbios")
BOARDS = ("gpu_serials", "gpu_uuids")
RATES = ("gemm_tflops", "memory_gbps", "transfer_gbps", "all_reduce_gbps", "storage_mbps")
COUNTS = ("ib_ports", "ib_rate", "memory", "hugepages")
LOOKS = (
    "ecc",
    "infiniband",
    "limits",
    "gemm",
    "memory-bandwidth",
    "transfer",
    "all-reduce",
    "storage",
)


def node(settings: Settings, limit: float) -> dict[str, Any]:
    """Look at this node and return what to expect of one like it; what cannot be seen is absent."""
    return learnt(runner.look(runner.load(LOOKS, Level.ACTIVE), settings, limit))


def learnt(seen: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to expect of nodes like the one where this was seen; facts by check."""
    return {
        **_gpus(seen.get("ecc") or {}),
        **_host(seen.get("infiniband") or {}, seen.get("limits") or {}),
        **_rates(seen),
    }


def _gpus(facts: Mapping[str, Any]) -> dict[str, Any]:
    gpus = facts.get("gpus") or []
    if not gpus:
        return {}
    boards = {f"gpu_{one}s": sorted(g[one] for g in gpus if one in g) for one in ("serial", "uuid")}
    vbios = _usual(g["vbios"] for g in gpus if "vbios" in g)
    found = {"driver": facts["driver"], "cuda": facts["cuda"], "vbios": vbios, **boards}
    return {name: one for name, one in found.items() if one}


def _host(infiniband: Mapping[str, Any], limits: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: limits[name] for name in ("memory", "hugepages") if name in limits}
    up = [one for one in (infiniband.get("ports") or {}).values() if one["state"] == "ACTIVE"]
    if up:
        found |= {"ib_ports": len(up), "ib_rate": min(one["rate"] for one in up)}
    return found


def _rates(seen: Mapping[str, Any]) -> dict[str, float]:
    keys = {"gemm": "gemm_tflops", "memory-bandwidth": "memory_gbps", "transfer": "transfer_gbps"}
    found = {}
    for check, key in keys.items():
        rates = (seen.get(check) or {}).get("rates") or {}
        if rates:
            found[key] = median(one["rate"] for one in rates.values())
    if reduced := seen.get("all-reduce"):
        found["all_reduce_gbps"] = reduced["rate"]
    disks = (seen.get("storage") or {}).get("disks") or {}
    writes = [one["write"] for one in disks.values() if "write" in one]
    return {**found, "storage_mbps": min(writes)} if writes else found


def joined(files: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Join what was learnt from several nodes. ValueError: there is none."""
    known = list(files)
    if not known:
        raise ValueError("nothing to learn from")
    found: dict[str, Any] = {}
    for name in dict.fromkeys(key for one in known for key in one):
        values = [one[name] for one in known if name in one]
        if name in RATES:
            found[name] = median(values)
        elif name in BOARDS:
            found[name] = sorted({board for boards in values for board in boards})
        elif name in COUNTS:
            found[name] = min(values)
        else:
            found[name] = _usual(values)
    return found


def _usual(values: Iterable[Any]) -> Any:
    counted = Counter(json.dumps(one, sort_keys=True) for one in values).most_common(1)
    return json.loads(counted[0][0]) if counted else None


def main(paths: Iterable[str], settings: Settings, limit: float) -> str:
    """Return the file's text: of this node, or joined. ValueError, OSError: a bad file."""
    files = [_read(Path(one)) for one in paths]
    if any(not isinstance(one, dict) for one in files):
        raise ValueError("a file is not an object of names and values")
    return json.dumps(joined(files) if files else node(settings, limit), indent=2)


def _read(path: Path) -> Any:
    return learnt(record.read(path)) if path.is_dir() else json.loads(path.read_text())
