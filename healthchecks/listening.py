"""XIDs as the driver tells them at once: a listener of NVML's events, and the file it writes.

An event is told to those who listen when it happens, and never again. So a process beside the
checks listens for as long as somebody keeps it (`--listen --state DIR`, started by the agent), and
appends each event to a file that the check `xid` reads beside the kernel log. Where the log may not
be read (a container without CAP_SYSLOG) it is the only source. It also hangs alone, if NVML does.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from healthchecks import pci
from healthchecks.api import CannotLookError

FILE, LOCK = "xid-events.jsonl", "xid-listener.lock"
EVENTS_MAX = 2_000  #: of one boot that are kept: the first ones, of a storm the cause
LINE_MAX = 400  #: bytes of one of them
WAIT = 1_000  #: milliseconds of one wait
EPOCH_MAX = 4e9  #: seconds; a later moment is none
NOTHING, AGAIN = 0, 3  #: exit codes: nothing to listen to here; worth another try later


def listen(folder: Path, boot_id: str, *, clock: Callable[[], float] = time.time) -> int:
    """Write down events until killed. Returns only if that cannot be done, and says why."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("another one listens already", file=sys.stderr)
        os.close(lock)
        return AGAIN
    try:
        nvml, found = _registered()
        for address, code in _events(nvml, *found):
            _append(folder / FILE, {"boot": boot_id, "at": clock(), "pci": address, "code": code})
    except CannotLookError as error:
        print(error, file=sys.stderr)
        return NOTHING
    finally:
        os.close(lock)
    return AGAIN


def _registered() -> tuple[Any, tuple[Any, dict[int, str]]]:
    """Return NVML, a set of events, and the address of each GPU by its handle."""
    try:
        import pynvml  # here only: slow to load
    except ImportError as error:
        raise CannotLookError(f"nvidia-ml-py is not installed: {error}") from error
    try:
        pynvml.nvmlInit()
        events, addresses = pynvml.nvmlEventSetCreate(), {}
        for index in range(pynvml.nvmlDeviceGetCount()):
            with suppress(pynvml.NVMLError):  # lost, or without events: the log tells of it
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                address = pci.normal(_text(pynvml.nvmlDeviceGetPciInfo(handle).busId))
                wanted = pynvml.nvmlEventTypeXidCriticalError
                pynvml.nvmlDeviceRegisterEvents(handle, wanted, events)
                addresses[_number(handle)] = address
    except pynvml.NVMLError as error:
        raise CannotLookError(f"NVML: {error}") from error
    if not addresses:
        raise CannotLookError("no GPU here tells events")
    return pynvml, (events, addresses)


def _events(nvml: Any, events: Any, addresses: dict[int, str]) -> Iterator[tuple[str, int]]:
    """Yield events as they come; ends if NVML does not answer any more."""
    while True:
        try:
            event = nvml.nvmlEventSetWait_v2(events, WAIT)
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_TIMEOUT:
                continue
            if error.value == nvml.NVML_ERROR_GPU_IS_LOST:  # one of them; the others go on
                time.sleep(WAIT / 1000)
                continue
            print(f"NVML: {error}", file=sys.stderr)
            return
        address = addresses.get(_number(event.device))
        if address is not None and event.eventType & nvml.nvmlEventTypeXidCriticalError:
            yield address, int(event.eventData)


def _number(handle: Any) -> int:
    import ctypes

    return int(ctypes.cast(handle, ctypes.c_void_p).value or 0)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _append(path: Path, event: dict[str, Any]) -> None:
    """Add one event in one write; what is of another boot is forgotten first."""
    known = _lines(path)
    if known and _boot(known[-1]) != event["boot"]:
        path.unlink(missing_ok=True)
        known = []
    if len(known) >= EVENTS_MAX:
        return
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        os.write(descriptor, json.dumps(event).encode() + b"\n")
    finally:
        os.close(descriptor)


def read(folder: Path, boot_id: str) -> list[dict[str, Any]]:
    """Return this boot's events (pci, code, at in epoch seconds), in their order."""
    found = []
    for line in _lines(folder / FILE):
        with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
            body = json.loads(line)
            at, code = float(body["at"]), body["code"]
            whole = isinstance(code, int) and not isinstance(code, bool) and 0 < code < 10_000
            if body["boot"] == boot_id and whole and math.isfinite(at) and 0 < at < EPOCH_MAX:
                found.append({"pci": pci.normal(body["pci"]), "code": code, "at": at})
    return found


def _lines(path: Path) -> list[bytes]:
    try:
        with path.open("rb") as file:
            return file.read(EVENTS_MAX * LINE_MAX).splitlines()
    except OSError:
        return []


def _boot(line: bytes) -> Any:
    with suppress(ValueError, KeyError, TypeError):
        return json.loads(line)["boot"]
    return None
