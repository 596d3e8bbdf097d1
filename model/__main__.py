"""`python -m model COMMAND`: what a model costs, what it answers, and shards of data.

    describe   parameters, operations per token and checkpoint bytes of every preset
    train      the same as `python -m model.train`
    generate   ask a checkpoint about text, pictures, videos and sounds
    shards     build and index WebDataset-style tar shards

Exit status: 0 done, 1 failed, 2 a mistake on the command line or in a file named there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence

from orchestrator.errors import HoldfastError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words[0] if words else ""
    if name not in COMMANDS:
        print((__doc__ or "").strip(), file=sys.stdout if name in ("-h", "--help") else sys.stderr)
        return 0 if name in ("-h", "--help") else 2
    try:
        return COMMANDS[name](words[1:])
    except HoldfastError as error:
        print(f"model {name}: {error}", file=sys.stderr)
        return error.exit_code


def describe(arguments: Sequence[str]) -> int:
    """Print the figures of the presets."""
    from model import describe as figures

    parser = argparse.ArgumentParser(prog="python -m model describe", allow_abbrev=False)
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    wanted = parser.parse_args(arguments).output
    print(figures.as_json() if wanted == "json" else figures.table())
    return 0


def train(arguments: Sequence[str]) -> int:
    """Train a model."""
    from model import train as program

    return program.main(arguments)


def shards(arguments: Sequence[str]) -> int:
    """Build or index shards."""
    from model.data import building

    return building.main(arguments)


def generate(arguments: Sequence[str]) -> int:
    """Ask a checkpoint."""
    from model import generate as program

    return program.main(arguments)


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "describe": describe,
    "train": train,
    "generate": generate,
    "shards": shards,
}

if __name__ == "__main__":
    sys.exit(main())
