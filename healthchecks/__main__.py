"""`python -m healthchecks`: run the checks on this machine and say what they found.

Also runs as a plain file, which starts in half the time and needs no installation:
`python -S -E /path/to/healthchecks/__main__.py` (without -S where nvidia-ml-py is needed). Exit
codes are those of Nagios: 0 OK, 1 warning, 2 critical, 3 unknown or wrong usage.
"""

from __future__ import annotations

import os
import sys

if not __package__:  # started as a file: make the package importable from beside it
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from healthchecks import findings, runner
from healthchecks.api import Check, Level, Settings
from healthchecks.findings import Severity, worst

if TYPE_CHECKING:
    from healthchecks.memory import Memory

USAGE = 3
MARKS = {
    Severity.OK: "✔",
    Severity.WARNING: "!",
    Severity.CRITICAL: "✘",
    Severity.UNKNOWN: "?",
}


class _Parser(argparse.ArgumentParser):
    """argparse exits 2 on wrong usage; for Nagios that would mean a critical node."""

    def error(self, message: str) -> NoReturn:
        """Explain on stderr and exit 3."""
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    one = _Parser(
        prog="python -m healthchecks",
        description="Look at this machine, judge, and say what was found. Nothing is repaired.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=100),  # loads no shutil
        epilog="Exit codes: 0 OK, 1 warning, 2 critical, 3 unknown or wrong usage.",
    )
    add = one.add_argument
    add("learn", nargs="*", metavar="learn [FILE ...]", help="print what to expect of such a node")
    add("--level", choices=[level.value for level in Level], default=Level.PASSIVE.value)
    add("--only", metavar="NAME[,NAME]", help=f"of {', '.join(runner.NAMES)}")
    add("--fast", action="store_true", help="leave out disk writes and the time service")
    add("-o", "--output", choices=("text", "json"), default="text")
    add("--kernel-log", metavar="PATH", help="kernel-log text instead of /dev/kmsg")
    add("--since", type=float, default=0.0, metavar="EPOCH", help="older kernel lines are history")
    add("--expect-gpus", type=int, metavar="N", help="0 on nodes without GPUs; default: as on PCI")
    add("--disk", action="append", metavar="DIR", help="directory to examine; may be repeated")
    add("--plugin", action="append", metavar="PROGRAM", help="a check of your own; may be repeated")
    add("--list", action="store_true", help="list what may be found, and what it means")
    add("--idle", action="store_true", help="no job is here: what runs on a GPU was left over")
    add("--cluster", metavar="FILE", help="what to expect of a node here (JSON); - reads stdin")
    add("--state", metavar="DIR", help="remember counters here between runs, to judge their growth")
    add("--listen", action="store_true", help="write down XIDs in --state as the driver tells them")
    add("--pair", metavar="JSON", help="be one of two nodes that test the link between them")
    add("--record", metavar="DIR", help="keep what was seen and said here, as case files")
    add("--boot-id", metavar="ID", help="instead of the kernel's")
    add("--root", default="/", metavar="DIR", help="where proc, sys and dev are found")
    add("--soak", type=float, default=0.0, metavar="SECONDS", help="under load, at acceptance")
    add("--limit", type=float, default=180.0, metavar="SECONDS", help="for each check at most")
    return one


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, and return the exit code."""
    given = parser().parse_args(argv)
    if given.list:
        print("\n".join(_detectors()))
        return 0
    if given.pair:
        return _pair(given.pair)
    try:
        cluster = _cluster(given.cluster)
    except (OSError, ValueError) as error:
        parser().error(f"--cluster {given.cluster}: {error}")
    boot_id = given.boot_id or runner.this_boot(given.root)
    if given.listen:
        return _listen(given.state, boot_id)
    settings = Settings(
        root=given.root,
        kernel_log=given.kernel_log,
        since=given.since,
        gpus_expected=given.expect_gpus,
        disks=tuple(given.disk or Settings().disks),
        fast=given.fast,
        idle=given.idle,
        soak=given.soak,
        cluster=cluster,
        state=given.state,
        boot_id=boot_id,
    )
    try:
        own = _plugins(given.plugin)
        names = given.only.split(",") if given.only else [*runner.NAMES, *own]
        builtin = [one for one in names if one not in own]
        checks = runner.load(builtin, Level(given.level))
        checks += tuple(own[one] for one in names if one in own)
    except KeyError as error:
        parser().error(f"no check is named {error}; there are {', '.join(runner.NAMES)}")
    if given.learn:
        return _learn(given.learn, settings, given.limit)
    memory = _memory(given.state, boot_id)
    ran = runner.run(checks, settings, boot_id=boot_id, limit=given.limit, memory=memory)
    if given.record:
        _record(given.record, ran, settings)
    said = _json(ran) if given.output == "json" else _text(ran)
    if given.output == "json" and given.level == Level.ACCEPTANCE:
        said.insert(-1, _figures(ran))
    print("\n".join(said))
    return int(worst(one.severity for one in ran.findings))


def _cluster(path: str | None) -> dict[str, Any]:
    """Read what is expected: JSON, which YAML readers read too. ValueError: it is no object."""
    if path is None:
        return {}
    import json

    if path == "-":
        body = json.loads(sys.stdin.buffer.read())
    else:
        with open(path, "rb") as file:  # noqa: PTH123 (pathlib is slow)
            body = json.loads(file.read())
    if not isinstance(body, dict):
        raise ValueError("not an object of names and values")  # noqa: TRY004 (a file's fault)
    return body


def _memory(folder: str | None, boot_id: str) -> Memory | None:
    if folder is None:
        return None
    from pathlib import Path

    from healthchecks.memory import Memory

    return Memory(Path(folder), boot_id)


def _listen(folder: str | None, boot_id: str) -> int:
    if folder is None:
        parser().error("--listen writes into a folder: name it with --state DIR")
    from pathlib import Path

    from healthchecks.listening import listen

    return listen(Path(folder), boot_id)


def _pair(request: str) -> int:
    import json

    from healthchecks.active import pairs

    said = pairs.answer(request)
    print(json.dumps(said))
    return int(Severity.UNKNOWN if "error" in said else Severity.OK)


def _record(folder: str, ran: runner.Ran, settings: Settings) -> None:
    from pathlib import Path

    from healthchecks import record

    try:
        record.write(Path(folder), ran.facts, ran.findings, settings)
    except OSError as error:
        print(f"--record {folder}: {error}", file=sys.stderr)


def _learn(words: Sequence[str], settings: Settings, limit: float) -> int:
    from healthchecks import learn

    if words[0] != "learn":
        parser().error(f"no such command: {words[0]}")
    try:
        print(learn.main(words[1:], settings, limit))
    except (OSError, ValueError) as error:
        parser().error(f"learn: {error}")
    return 0


def _plugins(programs: Sequence[str] | None) -> dict[str, Check]:
    if not programs:
        return {}
    from healthchecks import plugins

    made = (plugins.check(one) for one in programs)
    return {one.name: one for one in made}


def _detectors() -> list[str]:
    from healthchecks import catalog

    return [
        f"{name}\t{one.severity.name}\t{one.fault.value}\t{one.remedy or '-'}"
        f"{'  explicit' if one.explicit else ''}\t{one.about}"
        for name, one in catalog.detectors().items()
    ]


def _json(ran: runner.Ran) -> list[str]:
    said = [findings.encode(one) for one in ran.findings]
    return [findings.line(one) for one in [*said, findings.encode_coverage(ran.coverage)]]


def _figures(ran: runner.Ran) -> str:
    from healthchecks import figures

    return findings.line(findings.encode_figures(figures.of(ran.facts)))


def _text(ran: runner.Ran) -> list[str]:
    said = []
    for one in ran.findings:
        evidence = findings.encode(one)["evidence"]
        said.append(f"{MARKS[one.severity]} {one.check} {one.component}: {evidence}")
        said += [f"  -> {one.remedy}"] if one.remedy else []
    covered = ran.coverage
    skipped = [f"- {name}: skipped, {why}" for name, why in covered.skipped.items()]
    counts = (
        f"{len(covered.expected)} checks: {len(covered.passed)} passed, "
        f"{len(covered.failed)} failed, {len(covered.skipped)} skipped"
    )
    return [*said, *skipped, counts]


def entry() -> NoReturn:
    """Run as a program. Whatever breaks in here is UNKNOWN to the caller, never "warning"."""
    try:
        code = main()
    except Exception as error:  # noqa: BLE001  (the boundary: Python's own 1 would mean WARNING)
        print(f"healthchecks broke: {error!r}", file=sys.stderr)
        code = USAGE
    sys.exit(code)


if __name__ == "__main__":
    entry()
