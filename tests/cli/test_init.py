"""`holdfast init`: what it writes is read by everything else, and nothing is ever written over."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
from click.testing import CliRunner, Result
from hypothesis import given

from orchestrator.cli import main
from orchestrator.config.settings import parse_settings
from orchestrator.config.starter import Wanted, text
from orchestrator.errors import UserError
from tests.hostile import HOSTILE


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOLDFAST_CONFIG", raising=False)
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["init", *words], prog_name="holdfast")


def test_the_defaults_are_a_fleet_of_this_computer(folder: Path) -> None:
    done = run("--yes")
    assert done.exit_code == 0, done.output
    settings = parse_settings((folder / "holdfast.yaml").read_text(), folder / "holdfast.yaml")
    assert [one.name for one in settings.clusters] == ["a"]
    assert len(settings.clusters[0].node_names) == 3
    assert settings.state == folder / "holdfast-state"
    checked = CliRunner().invoke(main, ["config", "check"], prog_name="holdfast")
    assert checked.exit_code == 0, checked.output
    assert [one.name for one in folder.iterdir()] == ["holdfast.yaml"]  # and no draft beside it


def test_hosts_by_ssh_get_names_of_their_own_and_a_kind(folder: Path) -> None:
    done = run(
        *("--provider", "ssh", "--cluster", "oak", "--user", "ubuntu", "--key", "~/.ssh/id_oak"),
        *("--nodes", "gpu-1.example.org, 10.0.0.7,gpu-1.example.net", "--accelerators", "8"),
        *("--sku", "h100-sxm", "--price", "21.5", "--slack-channel", "C0123456789", "--yes"),
    )
    assert done.exit_code == 0, done.output
    assert "holdfast cluster doctor oak" in done.output
    settings = parse_settings((folder / "holdfast.yaml").read_text(), folder / "holdfast.yaml")
    (oak,) = settings.clusters
    assert [(one.name, one.address) for one in oak.machines] == [
        ("gpu-1", "gpu-1.example.org"),
        ("node-002", "10.0.0.7"),
        ("node-003", "gpu-1.example.net"),
    ]
    assert (oak.accelerators, oak.sku, oak.price_per_hour) == (8, "h100-sxm", 21.5)
    assert oak.ssh is not None
    assert oak.ssh.user == "ubuntu"
    assert settings.health.expect_gpus == 8
    assert settings.alerts.slack is not None
    assert "SLACK_BOT_TOKEN" in (folder / "holdfast.yaml").read_text()


def test_nodes_of_slurm_keep_slurm_s_names(folder: Path) -> None:
    done = run("--provider", "slurm", "--nodes", "fir-1,fir-2", "--cluster", "fir", "--yes")
    assert done.exit_code == 0, done.output
    settings = parse_settings((folder / "holdfast.yaml").read_text(), folder / "holdfast.yaml")
    assert list(settings.clusters[0].node_names) == ["fir-1", "fir-2"]


def test_a_file_that_is_there_is_left_alone(folder: Path) -> None:
    (folder / "holdfast.yaml").write_text("mine")
    done = run("--yes")
    assert done.exit_code == 2
    assert "exists already" in done.output
    assert (folder / "holdfast.yaml").read_text() == "mine"
    elsewhere = run("--yes", "--config", "other.yaml")
    assert elsewhere.exit_code == 0, elsewhere.output
    assert "holdfast config check --config other.yaml" in elsewhere.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--provider"),
        (("--provider", "ssh", "--yes"), "--nodes"),
        (("--nodes", "many", "--yes"), "expected a count"),
        (("--provider", "slurm", "--nodes", ", ,", "--yes"), "separated by commas"),
        (("--cluster", "Up Hill", "--yes"), "clusters[0].name"),
        (("--yes", "--config", "no/such/folder.yaml"), "cannot be written"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_written(
    folder: Path, words: tuple[str, ...], said: str
) -> None:
    done = run(*words)
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert list(folder.iterdir()) == []


ANY = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=30))


@given(ANY, ANY, ANY, ANY, ANY)
def test_no_answer_becomes_another_key(
    host: str, user: str, key: str, sku: str, channel: str
) -> None:
    """Whatever is answered is refused, or comes back as what it was."""
    wanted = Wanted("oak", "ssh", (host,), user, key or None, 8, sku, 1.0, channel)
    try:
        settings = parse_settings(text(wanted), Path("/nowhere/holdfast.yaml"))
    except UserError:
        return
    (oak,) = settings.clusters
    assert oak.ssh is not None
    assert (oak.machines[0].address, oak.ssh.user) == (host, user)
    assert oak.sku == (sku or "local")
    slack = settings.alerts.slack
    assert (slack.channel if slack else "") == channel


def test_a_person_is_asked(folder: Path) -> None:
    """On a real terminal: three answers, then Return for the rest."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", "init"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, b"ssh\noak\nh1,h2\n\n\n\n\n")
    said = b""
    while True:
        try:
            said += os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert process.wait(60) == 0, said.decode()
    assert b"Hosts, separated by commas" in said
    settings = parse_settings((folder / "holdfast.yaml").read_text(), folder / "holdfast.yaml")
    assert list(settings.clusters[0].node_names) == ["h1", "h2"]
    assert settings.clusters[0].accelerators == 8
