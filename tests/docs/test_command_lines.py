"""Every `holdfast ...` command line of the documents parses; none of them is run."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from orchestrator.cli.root import main
from tests.docs.command_lines import command_lines

TOP = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [
        *(TOP / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
        *(TOP / "docs").glob("*.md"),
        *(TOP / "runbooks").glob("*.md"),
    ]
)

SAMPLE = """
Use `holdfast why NODE`, or `.venv/bin/holdfast node
cordon a-2 --reason "fan noise"`; `holdfast` alone is no command and `holdfast node list|show` a
picture, as is `holdfast checkpoint ...`.

```console
$ holdfast job submit job.yaml \\
    --wait   # a comment
holdfast status -o json | jq .
$ echo holdfast nothing
[2026] holdfast is a word here
```
"""


def parse(words: tuple[str, ...]) -> None:
    """Let click read the words down to the last command; raises `click.UsageError`.

    What `click.Group.invoke` does, without the invocation: hence the one private name of click.
    """
    command: click.Command = main
    context = main.make_context("holdfast", list(words), resilient_parsing=False)
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        context = found.make_context(name, list(rest), parent=context)
        command = found


def test_command_lines_are_found_in_fences_and_in_prose() -> None:
    assert [(one.line, *one.words) for one in command_lines(SAMPLE)] == [
        (2, "why", "NODE"),
        (2, "node", "cordon", "a-2", "--reason", "fan noise"),
        (7, "job", "submit", "job.yaml", "--wait"),
        (9, "status", "-o", "json"),
    ]


@pytest.mark.parametrize("words", [("nod", "list"), ("node", "list", "--wat"), ("node", "cordon")])
def test_what_does_not_parse_is_noticed(words: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError):
        parse(words)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_line_of_a_document_parses(document: Path) -> None:
    wrong = []
    for number, words, fenced in command_lines(document.read_text(encoding="utf-8")):
        try:
            parse(words)
        except (click.UsageError, ImportError) as error:
            if fenced or not isinstance(error, click.MissingParameter):
                wrong.append(f"{document.name}:{number}: holdfast {' '.join(words)}: {error}")
    assert wrong == []
