"""The parsers that read what nodes and programs say, each with inputs near what it knows.

`python -m tests.fuzz.parsers 1000000` (`make fuzz`) feeds that many inputs to each; the inputs
follow from a seed, so a failing one is named by its number. What must hold of every input: no
crash, an answer within its time, and no finding from garbage.
"""

from __future__ import annotations

import json
import random
import re
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from healthchecks import infiniband, kernel, kernel_log, limits, sxid, xid
from healthchecks.api import Settings
from healthchecks.diagnose import diagnose_text
from healthchecks.diagnose.rulebook import rulebook
from healthchecks.findings import Severity
from orchestrator.observers import findings

BATCH = 200  #: inputs between two looks at the clock
SLOW = 2.0  #: seconds of processor for one input of a few kilobytes
PIECES = (
    b"NVRM: Xid (PCI:0000:9b:00): 79, pid=1, name=x, GPU has fallen off the bus.",
    b"[12345.678901] ",
    b"<6>[ 1.0] ",
    b"6,1234,5678901,-;",
    b"kern  :warn  : 2025-01-21T04:41:44,283302+00:00 ",
    b"[Sun Feb 23 16:24:18 2025] ",
    b"Aug 29 16:20:11 host kernel: ",
    b"nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Fatal, Link 48",
    b"NVRM: GPU at PCI:0000:9b:00: GPU-5",
    b"Linux version 6.1",
    b"nfs: server a not responding",
    b"watchdog: BUG: soft lockup - CPU#18 stuck for 27s!",
    b"RuntimeError: CUDA out of memory",
    b"[rank3]:[E ProcessGroupNCCL.cpp:616] Watchdog caught collective operation timeout",
    b'{"version": 1, "check": "xid", "component": "gpu0", "severity": "CRITICAL", ',
    b'"class": "hardware", "evidence": "x", "observed_at": 1.0}',
    b'{"version": 1, "coverage": {"expected": ["a"], "passed": [], "failed": [], "skipped": {}}}',
    b"4: ACTIVE",
    b"1: DOWN",
    b"400 Gb/sec (4X NDR)",
    b"Max open files  1048576 1048576 files",
    b"MemTotal:  2113456789 kB",
    b"4711",
    b"loss: nan",
    b"checkpoint ",
    b"\x1b[31m",
    b"\n",
    b"\r",
    b"\x00",
    b"\xff\xfe",
    b"[" * 50,
    b"9" * 400,
    b"1e999",
    b"-",
    b": ",
    b"(",
)

#: A port that is well, by file; and how the last look remembers it: long down.
HEALTHY = {
    "state": b"4: ACTIVE\n",
    "phys_state": b"5: LinkUp\n",
    "rate": b"400 Gb/sec (4X NDR)\n",
    "counters/link_downed": b"0\n",
    "counters/symbol_error": b"0\n",
}
BEFORE = {
    "seconds": 300.0,
    "kept": {"mlx5_0:1": {"counters": dict.fromkeys(infiniband.COUNTERS, 0), "down": 300.0}},
}
_STATE = re.compile(r"\d+: (NOP|DOWN|INIT|ARMED|ACTIVE_DEFER)\s*")
_RATE = re.compile(r"[\d.]+ Gb/sec \(\d+X \w+\)\s*")
_COUNTER = re.compile(r"[0-9]{1,20}\s*")
#: By a finding's code: the file of the port that shows it, and what must be the whole of it.
FOUND_IN = {
    "down": ("state", _STATE),
    "ports": ("state", _STATE),
    "rate": ("rate", _RATE),
    "flap": ("counters/link_downed", _COUNTER),
    "flaps": ("counters/link_downed", _COUNTER),
    "errors": ("counters/symbol_error", _COUNTER),
}
#: What the kernel check may find in inputs made of `PIECES`, and the words it needs for that.
KERNEL_WORDS = {"soft-lockup": "soft lockup", "nfs": "not responding"}


def inputs(seed: int, count: int) -> Iterator[bytes]:
    """Yield inputs: known pieces cut, doubled, glued and strewn with other bytes."""
    dice = random.Random()
    for number in range(count):
        dice.seed(f"{seed}-{number}")
        yield b"".join(_piece(dice) for _ in range(dice.randint(0, 8)))


def _piece(dice: random.Random) -> bytes:
    piece = dice.choice(PIECES)
    match dice.randrange(5):
        case 0:
            return piece[: dice.randint(0, len(piece))]
        case 1:
            return piece * dice.randint(1, 3)
        case 2:
            at = dice.randint(0, len(piece))
            return piece[:at] + dice.randbytes(dice.randint(0, 6)) + piece[at:]
        case 3:
            return dice.randbytes(dice.randint(0, 30))
        case _:
            return piece


class Parser(NamedTuple):
    """One parser: what it is fed with, and what must hold of the answer."""

    name: str
    read: Callable[[bytes], None]


def kernel_text(raw: bytes) -> None:
    """Feed a kernel log: what is found must have its words in the kernel's own lines."""
    lines = raw.decode(errors="replace").splitlines()
    said = [one.said for one in kernel_log.of_this_boot(lines)]
    wanted = {xid: ("Xid (", "fallen off", "GPU is lost"), sxid: ("SXid (",)}
    for finding in kernel.judge({"lines": 1, "said": said}, Settings()):
        if finding.severity is not Severity.OK:
            assert any(KERNEL_WORDS[finding.code] in one.lower() for one in said), finding
    for check, words in wanted.items():
        for finding in check.judge({"lines": 1, "said": said, "gpus": []}, Settings()):
            if finding.severity is not Severity.OK:
                assert any(word in one for one in said for word in words), finding
    for one in kernel_log.of_this_boot(lines):
        kernel_log.said_at(one, 1.0)


def wire(raw: bytes) -> None:
    """Feed the output of a node's checks: a finding needs a line that is one."""
    found, _ = findings.parse_output(raw)
    for one in found:
        assert one.channel.value == "node"
        assert one.evidence.isprintable()
    if found:
        assert b'"check"' in raw
        assert b'"version"' in raw


def sysfs(raw: bytes) -> None:
    """Feed one file of a port, the others being well, and proc: what is found is in that file."""
    root = Path(_folder().name)
    port = root / "sys/class/infiniband/mlx5_0/ports/1"
    odd = sorted(HEALTHY)[zlib.crc32(raw) % len(HEALTHY)]
    (port / odd).write_bytes(raw)
    try:
        facts = infiniband.probe(Settings(root=str(root)))
    finally:
        (port / odd).write_bytes(HEALTHY[odd])
    text = raw.decode(errors="replace")
    facts = json.loads(json.dumps({**facts, "before": BEFORE}))
    for finding in infiniband.judge(facts, Settings(cluster={"ib_rate": 400, "ib_ports": 1})):
        if finding.severity not in (Severity.OK, Severity.UNKNOWN):
            file, said = FOUND_IN[finding.code]
            assert file == odd, finding
            assert said.fullmatch(text), finding
    if limits._limit(text, "Max open files") is not None:
        assert "Max open files" in text
    if limits._bytes(text, "MemTotal") is not None:
        assert "MemTotal:" in text


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Make one port that is well; in memory where it can be."""
    memory = "/dev/shm"
    made = tempfile.TemporaryDirectory(dir=memory if Path(memory).is_dir() else None)
    port = Path(made.name) / "sys/class/infiniband/mlx5_0/ports/1"
    (port / "counters").mkdir(parents=True)
    for name, text in HEALTHY.items():
        (port / name).write_bytes(text)
    return made


def failure_text(raw: bytes) -> None:
    """Feed a failure's text: an accusation needs a rule, and lines that are there."""
    found = diagnose_text(raw)
    assert found.kind in rulebook().kinds
    assert 0 <= found.confidence <= 1
    last = raw.count(b"\n") + 1
    assert all(1 <= one <= last for one in found.evidence)
    if found.node_at_fault is True:
        assert found.evidence
        assert found.rule


PARSERS = (
    Parser("kernel log", kernel_text),
    Parser("findings of a node", wire),
    Parser("sysfs and proc", sysfs),
    Parser("failure text", failure_text),
)


def feed(parser: Parser, seed: int, count: int) -> None:
    """Feed so many inputs; AssertionError names the seed, the number and the input.

    Looking at a process's clock costs more than most inputs: it is looked at once for a batch, and
    for each input of it only if the batch took too long for one.
    """
    numbered = enumerate(inputs(seed, count))
    while batch := list(islice(numbered, BATCH)):
        began = time.process_time()
        for number, raw in batch:
            try:
                parser.read(raw)
            except Exception as error:
                raise AssertionError(f"{parser.name}, input {seed}-{number}: {raw!r}") from error
        if time.process_time() - began >= SLOW:
            for number, raw in batch:
                _timed(parser, f"{parser.name}, input {seed}-{number}", raw)


def _timed(parser: Parser, name: str, raw: bytes) -> None:
    began = time.process_time()
    parser.read(raw)
    took = time.process_time() - began
    assert took < SLOW, f"{name}: {took:.1f} s: {raw!r}"


def main() -> None:
    """Feed every parser, or those whose names are given after the count."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    for parser in PARSERS:
        if not sys.argv[2:] or parser.name in sys.argv[2:]:
            began = time.process_time()
            feed(parser, 1, count)
            print(f"{parser.name}: {count} inputs, {time.process_time() - began:.0f} s CPU")


if __name__ == "__main__":
    main()
