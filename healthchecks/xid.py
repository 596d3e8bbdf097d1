"""XID errors of the NVIDIA driver, from the kernel log and from NVML's events.

The log tells of every code, and of GPUs that no longer answer at all. Events omit some codes and
need a listener (`listening`), but are told where the log may not be read, or was overwritten. One
that both tell counts once: same GPU, same code, at most `SAME` seconds apart. What each code means
stands in `catalog/xid.json`. One finding per GPU: its gravest code, of equally grave ones the
first, because later ones are often consequences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from healthchecks import catalog, kernel_log, pci
from healthchecks.api import Check, Level, Settings
from healthchecks.findings import GRAVITY, Fault, Finding, Severity
from healthchecks.kernel_log import KernelLine

_PCI = r"(?:PCI:)?(?P<pci>[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.\d)?)"
_XID = re.compile(rf"NVRM: Xid \({_PCI}[^)]*\): (?P<code>\d+)\b,?\s*(?P<text>.*)")
# Two forms of the same death come without an XID (gpud, NVIDIA forums).
_LOST = re.compile(
    rf"NVRM: GPU (?:at )?{_PCI}\S* (?P<text>.*(?:has fallen off the bus|GPU is lost).*)"
)
_BOARD = re.compile(rf"NVRM: GPU at {_PCI}: GPU-")
_SERIAL = re.compile(r"NVRM: GPU Board Serial Number: (?P<serial>\w+)")
SAME = 10.0  #: seconds between a line's stamp and the event's: the log is dated from the boot
EMPTY: Mapping[str, Any] = {}
_OFF_THE_BUS = 79
_NVLINK5 = range(144, 151)  #: the line itself says whether it was fatal
_RECOVERY = 154  #: no fault by itself: it names what the driver wants done


def probe(settings: Settings) -> dict[str, Any]:
    """Read the kernel's words about XIDs since its last start."""
    events = _told(settings)
    try:
        text = kernel_log.read(settings.kernel_log, settings.root)
    except OSError:
        if not events:
            raise
        text = ""
    lines = text.splitlines()
    ours = [one for one in kernel_log.of_this_boot(lines) if one.said.startswith("NVRM: ")]
    if settings.since:  # rarely asked for, and reading times is slow
        ours = _newer(ours, settings)
    said = [one.said for one in ours]
    facts = {"lines": len(lines), "said": said, "gpus": pci.gpus(settings.root)}
    return {**facts, "events": events, "times": _times(ours, settings)} if events else facts


def _told(settings: Settings) -> list[dict[str, Any]]:
    """Read what a listener wrote down, if there is one."""
    if settings.state is None:
        return []
    from pathlib import Path

    from healthchecks import listening

    told = listening.read(Path(settings.state), settings.boot_id)
    return [one for one in told if one["at"] >= settings.since]


def _times(lines: list[KernelLine], settings: Settings) -> list[float | None]:
    """Return when each line was said, in epoch seconds; only of those that tell of an XID."""
    booted = kernel_log.booted_at(settings.root)
    tell = (any(_events([one.said])) for one in lines)
    return [
        kernel_log.said_at(one, booted) if tells else None
        for one, tells in zip(lines, tell, strict=True)
    ]


def _newer(lines: list[KernelLine], settings: Settings) -> list[KernelLine]:
    """Drop what is known to be older than the operator cares for."""
    booted = kernel_log.booted_at(settings.root)
    times = ((one, kernel_log.said_at(one, booted)) for one in lines)
    return [one for one, at in times if at is None or at >= settings.since]


def judge(facts: dict[str, Any], settings: Settings) -> list[Finding]:
    """Say for each GPU named in the log what its gravest XID means."""
    own = settings.expected("xid") or {}
    serials = _serials(facts["said"])
    by_gpu: dict[str, list[Finding]] = {}
    for address, code, text in (*_events(facts["said"]), *_unlogged(facts)):
        component = _component(address, facts["gpus"])
        finding = classify(code, text, own)._replace(
            component=component, serial=serials.get(address, "")
        )
        by_gpu.setdefault(component, []).append(finding)
    if not by_gpu:
        evidence = f"no XID in {facts['lines']} lines of the kernel log"
        return [Finding("xid", "host", Severity.OK, Fault.HARDWARE, evidence)]
    return [_gravest(by_gpu[component]) for component in sorted(by_gpu)]


def classify(code: int, text: str, own: Mapping[str, Any] = EMPTY) -> Finding:
    """Look one XID up; a code that nobody knows is a warning, not a reason to evict.

    `own`: rows of the operator, code -> [name, severity, class, remedy], before the catalogue's.
    """
    entry = catalog.xids().get(code, catalog.UNLISTED)
    if str(code) in own:
        entry = catalog.entry(own[str(code)])
    severity, remedy = entry.severity, entry.remedy
    if code in _NVLINK5:
        severity = _by_word(text, severity)
    if code == _RECOVERY:
        severity, remedy = _recovery(text)
    evidence = f"Xid {code} ({entry.name}): {text}" if text else f"Xid {code} ({entry.name})"
    return Finding("xid", "host", severity, entry.fault, evidence, str(code), remedy)


def _unlogged(facts: dict[str, Any]) -> Iterator[tuple[str, int, str]]:
    """Yield what only NVML told: each line of the log stands for one event at most."""
    if not facts.get("events"):
        return
    logged: list[tuple[str, int, float | None]] = [
        (address, code, at)
        for line, at in zip(facts["said"], facts["times"], strict=True)
        for address, code, _ in _events([line])
    ]
    for event in facts["events"]:
        far = SAME + 1  # a line without a time fits any event, but one that is dated fits better
        fits = [
            far if (address, code) != (event["pci"], event["code"]) else _apart(at, event["at"])
            for address, code, at in logged
        ]
        nearest = min(range(len(fits)), key=fits.__getitem__, default=None)
        if nearest is not None and fits[nearest] <= SAME:
            del logged[nearest]
        else:
            yield event["pci"], event["code"], "told by NVML, not by the kernel log"


def _apart(at: float | None, told_at: float) -> float:
    return SAME if at is None else abs(at - told_at)


def _events(said: Iterable[str]) -> Iterator[tuple[str, int, str]]:
    for line in said:
        if found := _XID.match(line):
            yield pci.normal(found["pci"]), int(found["code"]), found["text"]
        elif found := _LOST.match(line):
            yield pci.normal(found["pci"]), _OFF_THE_BUS, found["text"]


def _serials(said: Iterable[str]) -> dict[str, str]:
    """Read the board serials: the driver names a GPU on one line and its serial on the next."""
    serials: dict[str, str] = {}
    address = None
    for line in said:
        if found := _BOARD.match(line):
            address = pci.normal(found["pci"])
        elif address and (found := _SERIAL.match(line)):
            serials[address] = found["serial"]
    return serials


def _component(address: str, gpus: list[str]) -> str:
    return f"gpu{gpus.index(address)}" if address in gpus else f"pci-{address}"


def _gravest(findings: list[Finding]) -> Finding:
    first = max(findings, key=lambda one: GRAVITY.index(one.severity))  # max keeps the first
    others = {one.code for one in findings} - {first.code}
    if not others:
        return first
    also = f"also Xid {', '.join(sorted(others, key=int))}; "
    return first._replace(evidence=also + first.evidence)


def _by_word(text: str, severity: Severity) -> Severity:
    word = text.lower()
    if "nonfatal" in word or "non-fatal" in word:
        return Severity.WARNING
    return Severity.CRITICAL if "fatal" in word else severity


def _recovery(text: str) -> tuple[Severity, str]:
    """Read the wish at the end of "recovery action changed from 0x1 (...) to 0x0 (None)"."""
    word = text.lower().rpartition(" to ")[2]
    if "reboot" in word:
        return Severity.WARNING, "reboot"
    if "reset" in word or "drain" in word:
        return Severity.WARNING, "reset"
    return Severity.OK, ""


def skip(settings: Settings) -> str | None:
    """Say why a machine without GPUs need not read its own kernel log."""
    if settings.gpus_expected == 0 and settings.kernel_log is None:
        return "no GPU is expected here"
    return None


CHECK = Check("xid", Level.PASSIVE, 5.0, probe, judge, skip)
