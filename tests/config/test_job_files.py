from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.config import JobFile, agent_launch, load_job
from orchestrator.core.jobs import WhenAlone
from orchestrator.core.submission import plain, read_spec
from orchestrator.errors import UserError
from orchestrator.runtime.spec import Replicate

Load = Callable[[str], JobFile]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def write_and_load(text: str) -> JobFile:
        path = tmp_path / "job.yaml"
        path.write_text(text)
        return load_job(path)

    return write_and_load


def test_a_small_job_file_gets_careful_defaults(load: Load, tmp_path: Path) -> None:
    spec = load("{name: a, command: [python, train.py]}").to_spec()
    assert (spec.nodes_min, spec.nodes_max, spec.ranks_per_node) == (1, 1, 1)
    assert spec.when_alone is WhenAlone.STOP_AFTER
    assert spec.stop_after == timedelta(minutes=15)
    assert spec.register == (tmp_path / ".holdfast" / "register" / "a").as_uri()
    assert spec.checkpoints is None
    assert spec.launch == {
        "command": ["python", "train.py"],
        "launch": "ranks",
        "python": None,
        "workdir": str(tmp_path),
        "env": {},
        "progress": {"kind": "none", "pattern": ""},
        "limits": {},
        "preload": ["torch"],
    }


def test_a_job_names_what_its_ranks_are_forked_with(load: Load) -> None:
    job = "{name: a, command: [python, t.py], preload: [numpy, a.b], survivors: restart, %s}"
    launch = load(job % "memory_max_gb: 2").to_spec().launch
    assert (launch["preload"], launch["survivors"]) == (["numpy", "a.b"], "restart")
    assert launch["memory_max"] == 2_000_000_000
    assert "preload" not in load("{name: a, command: [python, t.py], preload: []}").to_spec().launch
    assert "preload" not in load("{name: a, command: [bash, t.sh]}").to_spec().launch
    with pytest.raises(UserError, match="preload"):
        load("{name: a, command: x, preload: ['os; x']}")


def test_a_job_with_a_vault_is_fenced_there_and_goes_on_alone(load: Load, tmp_path: Path) -> None:
    spec = load("{name: a, command: x, checkpoints: vault}").to_spec()
    assert spec.checkpoints == spec.register == (tmp_path / "vault").as_uri()
    assert spec.when_alone is WhenAlone.CONTINUE
    assert spec.launch["progress"] == {"kind": "heartbeat", "pattern": ""}


def test_a_job_may_forbid_a_register(load: Load) -> None:
    assert load("{name: a, command: x, register: none}").to_spec().register is None


def test_a_whole_job_file(load: Load, tmp_path: Path) -> None:
    spec = load(
        """
        name: big-run-7
        command: torchrun --nproc-per-node 8 "my train.py"
        launch: command
        python: /opt/env/bin/python
        workdir: code
        nodes: {min: 2, max: 4}
        accelerator: H100
        clusters: [east, west]
        checkpoints: file:///mnt/vault
        register: /mnt/register
        progress: {stdout: 'step (?P<step>[0-9]+)'}
        when_alone: {stop_after: 2m}
        stop_grace: 30s
        budget: {hang: 3, rank-exit: 0, generations: 40, attempts: 2}
        env: {OMP_NUM_THREADS: 1}
        priority: 5
        limits: {init: 10m, floor: 3s}
        """
    ).to_spec()
    assert (spec.nodes_min, spec.nodes_max, spec.priority) == (2, 4, 5)
    assert (spec.accelerator, spec.clusters) == ("H100", ("east", "west"))
    assert (spec.checkpoints, spec.register) == ("file:///mnt/vault", "file:///mnt/register")
    assert (spec.when_alone, spec.stop_after) == (WhenAlone.STOP_AFTER, timedelta(minutes=2))
    assert spec.stop_grace == timedelta(seconds=30)
    assert spec.budget == {"hang": 3, "rank-exit": 0}
    assert (spec.generations_max, spec.attempts_max) == (40, 2)
    assert spec.launch == {
        "command": ["torchrun", "--nproc-per-node", "8", "my train.py"],
        "launch": "command",
        "python": "/opt/env/bin/python",
        "workdir": str(tmp_path / "code"),
        "env": {"OMP_NUM_THREADS": "1"},
        "progress": {"kind": "stdout", "pattern": "step (?P<step>[0-9]+)"},
        "limits": {"init": 600.0},
        "hang_floor": 3.0,
    }
    assert read_spec(plain(spec)) == spec


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ("nodes: two", "job.yaml:3: nodes: expected a whole number, got 'two'"),
        ("nodes: {min: 3, max: 2}", "nodes: expected min <= max, got 3 and 2"),
        ("nodes: {min: 3}", "nodes.max: this key is required"),
        ("nodes: 0", "nodes: should be greater than or equal to 1, got 0"),
        ("nodez: 1", "job.yaml:3: nodez: unknown key; did you mean 'nodes'?"),
        ("launch: torchrun", "launch: expected 'ranks' or 'command', got 'torchrun'"),
        ("setup: pip install x", "setup: not available yet: prepare the environment"),
        ("progress: log", "progress: expected 'heartbeat' or 'none', got 'log'"),
        ("progress: {stdout: '('}", "progress.stdout: not a regular expression"),
        ("progress: {regex: x}", "progress.regex: unknown key"),
        ("when_alone: {stop_after: 15}", "when_alone.stop_after: expected a duration"),
        ("when_alone: stop", "when_alone: expected 'continue', got 'stop'"),
        ("checkpoints: s3://b/x?key=1", "checkpoints: an S3 URL takes `endpoint` and `region`"),
        ("checkpoints: ftp://b/x", "checkpoints: no store is of the kind ftp://"),
        ("checkpoints: file://host/x", "checkpoints: expected file:///absolute/path"),
        ("budget: {hangs: 1}", "budget.hangs: expected 'rank-exit'"),
        ("budget: {hang: many}", "budget.hang: expected a whole number, got 'many'"),
        ("env: {A: no}", "env: A: expected text; write it in quotes"),
        ("env: {RANK: '0'}", "env: RANK is set by Holdfast"),
        ("env: {HOLDFAST_HOME: /x}", "env: HOLDFAST_HOME is set by Holdfast"),
        ("env: {'A B': x}", "'A B' is not the name of an environment variable"),
        ("secrets: {A: x}", "secrets.A: a secret is never written in the file"),
        ("ranks_per_node: 2\nlaunch: command", "`ranks_per_node` has no meaning with"),
        ("env: {A: x}\nsecrets: {A: {env: B}}", "A stands in `env` and in `secrets`"),
        ("priority: high", "priority: expected a whole number, got 'high'"),
        ("stop_grace: -1s", "stop_grace: expected a duration"),
        ("limits: {warm: 1s}", "limits.warm: unknown key"),
        ("clusters: east", "clusters: expected a list, got 'east'"),
        ("checkpoints: /v\nreplicas: [/v]", "a vault is no replica of itself"),
        ("checkpoints: /v\nreplicate: {}", "`replicate` needs places to copy to"),
        (
            "checkpoints: /v\nreplicas: [/w]\nreplicate: {rpo: 0s}",
            "replicate.rpo: expected at least",
        ),
        ("checkpoints: /v\nreplicas: [/w]\nreplicate: {keep: 0}", "replicate.keep: should be"),
    ],
)
def test_a_mistake_is_told_with_its_place(load: Load, wish: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load(f"name: a\ncommand: x\n{wish}\n")
    assert said in str(caught.value)


@pytest.mark.parametrize("command", ["[]", "''", "'unclosed \"'", "3", "[a, 1]"])
def test_a_command_is_a_list_of_words(load: Load, command: str) -> None:
    with pytest.raises(UserError, match="command"):
        load(f"name: a\ncommand: {command}\n")


@pytest.mark.parametrize("name", ["Big", "a_b", "-a", "a" * 42, "a/b", "''", "a.b"])
def test_a_name_is_fit_for_a_folder_and_a_host(load: Load, name: str) -> None:
    with pytest.raises(UserError, match="name"):
        load(f"name: {name}\ncommand: x\n")


def test_copies_to_replicas_are_wished_for_in_seconds_and_bytes(load: Load) -> None:
    text = "{name: a, command: [x], checkpoints: /v, replicas: [/w], replicate: %s}"
    launch = load(text % "{rpo: 10m, gb_per_day: 2}").to_spec().launch
    wishes = Replicate(**agent_launch(launch)["replicate"])
    assert wishes == Replicate(rpo=600.0, rate=100e6, bytes_per_day=2e9, keep=3)
    assert read_spec(plain(load(text % "{}").to_spec())).launch["replicate"]["rpo"] == 3600.0


def test_another_name_replaces_the_file_s(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("name: a\ncommand: x\n")
    assert load_job(path, name="b").name == "b"
    with pytest.raises(UserError, match="expected a name"):
        load_job(path, name="B B")


def test_secrets_travel_as_references_and_are_revealed_for_agents_only(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("hidden")
    job = load("{name: a, command: x, env: {B: b}, secrets: {A: {file: key}, C: {env: HF_C}}}")
    launch = job.to_spec().launch
    assert launch["secrets"] == {"A": {"file": str(tmp_path / "key")}, "C": {"env": "HF_C"}}
    with pytest.raises(UserError, match="HF_C is not set"):
        agent_launch(launch)
    monkeypatch.setenv("HF_C", "also hidden")
    told = agent_launch(launch)
    assert told["env"] == {"A": "hidden", "B": "b", "C": "also hidden"}
    assert "secrets" not in told
    assert "hidden" not in repr(job) + repr(launch)
