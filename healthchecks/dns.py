"""Names that jobs need: can they be resolved? A failure is the site's, hardly the node's."""

from __future__ import annotations

import socket
from typing import Any

from healthchecks.api import Check, Level, Settings
from healthchecks.findings import Fault, Finding, Severity


def probe(settings: Settings) -> dict[str, Any]:
    """Resolve each name of the cluster's file; the runner's limit ends what hangs."""
    found: dict[str, int | str] = {}
    for name in settings.expected("dns") or ():
        try:
            found[name] = len(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))
        except OSError as error:
            found[name] = str(error)
    return {"names": found}


def judge(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Say which names are not known."""
    del settings
    said = []
    for name, found in facts["names"].items():
        fine = isinstance(found, int)
        severity = Severity.OK if fine else Severity.WARNING
        evidence = f"{name}: {found} addresses" if fine else f"{name}: {found}"
        code = "" if fine else "unresolved"
        said.append(Finding("dns", name[:60], severity, Fault.NETWORK, evidence, code))
    return said


def skip(settings: Settings) -> str | None:
    """Say why no name is tried."""
    return None if settings.expected("dns") else "the cluster's file names nothing to resolve"


CHECK = Check("dns", Level.PASSIVE, 5.0, probe, judge, skip)
