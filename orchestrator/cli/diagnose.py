"""`holdfast diagnose`: what the text of a failure says of its cause."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.output import output_option, show_data, show_one
from orchestrator.errors import UserError


@click.command()
@click.argument("file", type=click.Path(allow_dash=True, path_type=Path))
@output_option
def diagnose(file: Path, output: str) -> None:
    """Say what a failure's text (a log FILE, or - for stdin) tells of its cause.

    Names the kind of failure, whether the node that is named should be suspected, whether a restart
    is expected to help, and the lines that say so. Nothing is sent anywhere.
    """
    from healthchecks import diagnose as diagnosis

    try:
        with click.open_file(str(file), "rb") as stream:
            found = diagnosis.diagnose(stream)._asdict()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    found["evidence"] = list(found["evidence"])
    found["also"] = list(found["also"])
    if output == "table":
        show_one(found, output)
    else:
        show_data(found, output)
