"""`holdfast init`: a few questions, and a commented holdfast.yaml to go on from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import say
from orchestrator.cli.session import Session
from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.config.starter import Wanted

PROVIDERS = ("local", "ssh", "slurm")
LOCAL_NODES = "3"
NEXT = {
    "local": "holdfast daemon run",
    "ssh": "holdfast cluster doctor {cluster}",
    "slurm": "holdfast cluster doctor {cluster}",
}


@click.command()
@click.option("--cluster", help="Name of the cluster.")
@click.option("--provider", type=click.Choice(PROVIDERS), help="Who rents it to you.")
@click.option(
    "--nodes",
    help="Hosts or Slurm nodes, separated by commas; a count of local ones.",
    metavar="A,B",
)
@click.option("--user", help="ssh: user on the nodes.")
@click.option("--key", help="ssh: file of the private key; default: the keys of ssh-agent.")
@click.option("--accelerators", type=click.IntRange(0, 64), help="GPUs per node.")
@click.option("--sku", default="", help="Kind of machine, such as h100-sxm.")
@click.option("--price", type=click.FloatRange(min=0), help="US dollars per node and hour.")
@click.option("--slack-channel", help="Channel id; the token is named in the file, not written.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask: take the defaults.")
@click.pass_obj
def init(session: Session, /, **given: Any) -> None:
    """Write a holdfast.yaml by asking a few questions; an existing file is left alone.

    What is given by an option is not asked. The file says what its lines mean, and is read once
    before it is written: it is never one that `holdfast config check` would refuse.
    """
    from orchestrator.config.starter import text

    path = session.config
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists already; give another place: holdfast init --config FILE")
    wanted = _ask(given)
    body = text(wanted)
    _check(body, path)
    _write(path, body)
    at = "" if path == Path("holdfast.yaml") else f" --config {path}"
    say(f"{path} is written. Next:")
    say("    holdfast config check" + at)
    say("    " + NEXT[wanted.provider].format(cluster=wanted.cluster) + at)


def _ask(given: dict[str, Any]) -> Wanted:
    from orchestrator.config.starter import Wanted

    quiet = given["yes"]
    provider = _answer(given, "provider", "Provider", "local", quiet, click.Choice(PROVIDERS))
    cluster = _answer(given, "cluster", "Name of the cluster", "a", quiet)
    if provider == "local":
        nodes: tuple[str, ...] | int = _count(_answer(given, "nodes", "Nodes", LOCAL_NODES, quiet))
    else:
        what = "Hosts, separated by commas" if provider == "ssh" else "Nodes, as sinfo names them"
        nodes = _list(_answer(given, "nodes", what, None, quiet))
    far = provider != "local"
    gpus = _answer(given, "accelerators", "GPUs per node", 8 if far else 0, quiet or not far, int)
    user, key = "root", None
    if provider == "ssh":
        user = _answer(given, "user", "User on the nodes", "root", quiet)
        key = _answer(given, "key", "Private key (empty: ssh-agent)", "", quiet) or None
    channel = _answer(given, "slack_channel", "Slack channel id (empty: none)", "", quiet)
    return Wanted(
        cluster=cluster,
        provider=provider,
        nodes=nodes,
        user=user,
        key=key,
        accelerators=int(gpus),
        sku=given["sku"],
        price_per_hour=given["price"],
        channel=channel,
    )


def _answer(
    given: dict[str, Any], key: str, question: str, default: Any, quiet: bool, kind: Any = None
) -> Any:
    """Return what was given, or the answer, or (`--yes`) the default; else raises `UserError`."""
    if given[key] is not None:
        return given[key]
    if not quiet and sys.stdin.isatty():
        shown = default not in ("", None)
        return click.prompt(question, default=default, type=kind, err=True, show_default=shown)
    if not quiet or default is None:
        option = "--" + key.replace("_", "-")
        raise UserError(f"{question}? Nobody is asked here: give {option}, and --yes for defaults")
    return default


def _count(answer: str) -> int:
    if not answer.strip().isdigit():
        raise UserError(f"--nodes: expected a count of local nodes, got {answer!r:.60}")
    return int(answer)


def _list(answer: str) -> tuple[str, ...]:
    found = tuple(one.strip() for one in answer.split(",") if one.strip())
    if not found:
        raise UserError("--nodes: expected names separated by commas")
    return found


def _check(body: str, path: Path) -> None:
    """Read what would be written; raises `UserError` naming what was answered wrongly."""
    from orchestrator.config.settings import parse_settings

    try:
        parse_settings(body, path)
    except UserError as error:
        raise UserError(f"with these answers the file would be refused: {error}") from error


def _write(path: Path, body: str) -> None:
    """Create the file whole or not at all, and never over another one."""
    import os
    import tempfile

    try:
        handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            Path(draft).chmod(0o644)
            os.link(draft, path)  # refuses where something has come meanwhile
        finally:
            Path(draft).unlink()
    except FileExistsError as error:
        raise UserError(f"{path} exists already; it was left alone") from error
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
