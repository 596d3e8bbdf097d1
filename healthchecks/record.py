"""What a run saw and said, kept as case files: a machine met once is a test for ever.

One file per check, `DIR/<check>/<name>.json`: `about`, `settings` (those that judges read), `seen`
(the probe's facts) and `says` (the findings, without what differs from run to run). Serial numbers
and UUIDs are in it; nothing else names a person or a job.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from healthchecks.api import Settings
from healthchecks.findings import Finding, encode

SAYS = ("check", "component", "severity", "class", "code", "remedy", "evidence")


def write(
    folder: Path,
    facts: Mapping[str, Mapping[str, Any] | None],
    findings: Iterable[Finding],
    settings: Settings,
) -> None:
    """Write one case for each check that could look. OSError: the folder cannot be written."""
    said = list(findings)
    judged: dict[str, Any] = {"idle": settings.idle, "gpus_expected": settings.gpus_expected}
    judged |= {"cluster": dict(settings.cluster)} if settings.cluster else {}
    for check, seen in facts.items():
        if seen is None:
            continue
        body = {
            "about": f"recorded on {os.uname().nodename}",
            "settings": judged,
            "seen": seen,
            "says": [_says(one) for one in said if one.check == check],
        }
        place = folder / check
        place.mkdir(parents=True, exist_ok=True)
        (place / "recorded.json").write_text(json.dumps(body, indent=1) + "\n")


def _says(finding: Finding) -> dict[str, Any]:
    encoded = encode(finding)
    return {name: encoded[name] for name in SAYS}


def read(folder: Path) -> dict[str, Any]:
    """Return the facts of a recording by check. OSError, ValueError: not one."""
    found = {path.parent.name: _seen(path) for path in sorted(folder.glob("*/recorded.json"))}
    if not found:
        raise ValueError(f"{folder} holds no recording (--record DIR)")
    return found


def _seen(path: Path) -> Any:
    try:
        return json.loads(path.read_text())["seen"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is no case: {error!r}") from error
