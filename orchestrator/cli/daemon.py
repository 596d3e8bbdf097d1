"""`holdfast daemon run`: the controller."""

from __future__ import annotations

import logging
import sys

import click

from orchestrator.cli.session import Session


@click.group()
def daemon() -> None:
    """Run the controller: it watches, decides and acts until it is stopped."""


@daemon.command()
@click.option("--log-level", default="info", show_default=True, help="debug, info, warning, error")
@click.pass_obj
def run(session: Session, log_level: str) -> None:
    """Run the controller in the foreground; SIGTERM stops it and leaves the training running.

    Start it under systemd (Type=notify), or in a terminal. A second one waits for the lease.
    """
    from orchestrator.daemon.build import build_service

    logging.basicConfig(
        level=log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    for chatty in ("apscheduler", "alembic", "paramiko"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    build_service(session.settings).run()
