"""`python -m model shards`: text files become filtered, deduplicated, indexed tar shards."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from model.data import filters, shards
from orchestrator.errors import UserError


def main(arguments: Sequence[str]) -> int:
    """Run `build` or `index`; print one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m model shards", allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True)
    build = verbs.add_parser("build", help="filter text files and write shards of them")
    build.add_argument("source", type=Path, help="folder of text files, searched through")
    build.add_argument("folder", type=Path, help="where to write: SHARDS/CLASS")
    build.add_argument("--glob", default="*.txt", help="which files (default: %(default)s)")
    build.add_argument("--code", action="store_true", help="rules for code instead of prose")
    index = verbs.add_parser("index", help="index tars that another program wrote")
    index.add_argument("folder", type=Path)
    given = parser.parse_args(arguments)
    if given.verb == "index":
        found = shards.index(given.folder)
        print(json.dumps({"samples": len(found), "damaged": found.damaged}))
        return 0
    report = filters.Report()
    documents = _documents(given.source, given.glob, report)
    kept = filters.worthy(documents, report, code=given.code)
    found = shards.write(({"txt": text.encode()} for text in kept), given.folder)
    said = {"samples": len(found), "seen": report.seen, "kept": report.kept}
    print(json.dumps({**said, "dropped": dict(report.dropped)}))
    return 0


def _documents(source: Path, glob: str, report: filters.Report) -> Iterator[str]:
    """Yield the texts in the order of their paths; what is no UTF-8 is counted."""
    paths = sorted(path for path in source.rglob(glob) if path.is_file())
    if not paths:
        raise UserError(f"{source}: no files {glob} in it")
    for path in paths:
        reason = "long"  # a character has at most 4 bytes
        try:
            if path.stat().st_size <= 4 * filters.CHARACTERS_MAX:
                yield path.read_text("utf-8")
                continue
        except (UnicodeDecodeError, OSError):
            reason = "unreadable"
        report.seen += 1
        report.dropped[reason] += 1
