"""What the engine `ray` asks of a Ray cluster, and what it makes of the answers."""

from __future__ import annotations

import json
import re
import shlex
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orchestrator.engines import raydriver
from orchestrator.engines.bundle import bundle
from orchestrator.engines.installed import Installed
from orchestrator.engines.ray import Placing, RayHolds
from orchestrator.engines.rayjobs import JobState, RayJobs
from orchestrator.errors import PermanentError, TransientError
from orchestrator.runtime.wire import direct
from orchestrator.transports.child import OwnRun
from tests.engines.ray_fake import TOKEN, FakeJobs, Job, served
from tests.hostile import HOSTILE

NODES = ("ash-001", "ash-002", "ash-003")
ENOUGH = 70  #: nodes, for more than one job


@pytest.fixture
def fake() -> Iterator[FakeJobs]:
    with served(FakeJobs()) as made:
        yield made


def api(fake: FakeJobs, token: str = TOKEN) -> RayJobs:
    return RayJobs(lambda limit: direct("127.0.0.1", fake.port, limit), lambda: token)


def holds(fake: FakeJobs, folder: Path, pause: Any = None, **changed: Any) -> RayHolds:
    about: dict[str, Any] = {
        "known_as": {node: (f"10.0.0.{n}", node) for n, node in enumerate(NODES, 1)},
        "folder": folder,
        "driver": "/opt/ray/bin/python",
        "resources": {node: {"CPU": 1.0, "GPU": 8.0} for node in NODES},
    }
    installed = Installed(bundle(), folder, "python3")
    bare = OwnRun()
    return RayHolds(
        Placing(**{**about, **changed}), installed, lambda _: bare, api(fake), pause or quick
    )


def quick(seconds: float) -> None:
    del seconds


# --- the API


def test_an_id_that_is_known_already_is_not_started_twice(fake: FakeJobs) -> None:
    jobs = api(fake)
    jobs.submit("one", "true")
    jobs.submit("one", "true")
    assert list(fake.jobs) == ["one"]


def test_a_job_is_seen_read_and_forgotten(fake: FakeJobs) -> None:
    jobs = api(fake)
    jobs.submit("one", shlex.join(["python3", "-c", "", json.dumps({"nodes": {"a": {}}})]))
    seen = jobs.look("one")
    assert seen is not None
    assert (seen.state, seen.state.over) == (JobState.SUCCEEDED, True)
    assert "holdfast-said" in jobs.said("one")
    jobs.forget("one")
    assert jobs.look("one") is None
    jobs.forget("one")


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "ä"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(
    fake: FakeJobs, token: str
) -> None:
    with pytest.raises(PermanentError) as told:
        api(fake, token).version()
    assert not token or token not in str(told.value)
    assert fake.requests == []


def test_a_token_that_ray_does_not_know_is_refused_for_good_and_not_shown(fake: FakeJobs) -> None:
    with pytest.raises(PermanentError, match="403") as told:
        api(fake, "beef" * 8).version()
    assert "beef" not in str(told.value)
    assert api(fake).version() == "2.60.0"


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (500, b"No available agent to submit job, please try again later.", TransientError),
        (503, b"", TransientError),
        (400, b"Traceback: TypeError", PermanentError),
        (200, b"{", TransientError),
        (200, b"[" * 100_000, TransientError),
        (200, b"[]", TransientError),
        (200, b'{"status": "DANCING"}', TransientError),
        (200, b"x" * 4_000_001, TransientError),
        (200, b"\x1b]0;owned\x07\n\n", TransientError),
    ],
)
def test_whatever_the_api_says_is_an_answer_or_an_error_of_ours(
    fake: FakeJobs, status: int, said: bytes, kind: type[Exception]
) -> None:
    fake.answers.append((status, said))
    with pytest.raises(kind) as told:
        api(fake).look("one")
    assert str(told.value).isprintable()


def test_an_api_that_is_silent_or_not_there_is_an_error_that_may_pass() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        mute = RayJobs(lambda limit: direct("127.0.0.1", port, 0.05), lambda: TOKEN)
        server.close()
        with pytest.raises(TransientError, match="jobs API"):
            mute.version()


# --- holding


def test_nodes_that_are_wanted_together_come_into_one_job(fake: FakeJobs, tmp_path: Path) -> None:
    together = threading.Event()
    made = holds(fake, tmp_path, pause=lambda _: together.wait(20))
    joined = made._join

    def counted(node: str) -> Any:
        batch = joined(node)
        if len(batch.nodes) == len(NODES):
            together.set()
        return batch

    made._join = counted  # type: ignore[method-assign]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(made.ensure, NODES))
    assert sum(one.startswith("POST") for one in fake.requests) == 1
    assert fake.jobs == {}, "what is over is deleted"


def test_a_job_pins_each_node_by_its_addresses_and_names_no_secret(
    fake: FakeJobs, tmp_path: Path
) -> None:
    seen: list[Job] = []
    fake.on_look = lambda job: (seen.append(job), job.hold_all())[0]  # type: ignore[func-returns-value]
    holds(fake, tmp_path, linger=7.0).ensure("ash-002")
    (job,) = seen
    program, dash, source, _ = shlex.split(job.entrypoint)
    assert (program, dash) == ("/opt/ray/bin/python", "-c")
    compile(source, "driver", "exec")
    about = job.asked["nodes"]["ash-002"]
    assert about["known_as"] == ["10.0.0.2", "ash-002"]
    assert about["resources"] == {"CPU": 1.0, "GPU": 8.0}
    assert re.fullmatch(r"holdfast-ash-002-[0-9a-f]{8}", about["name"])
    assert about["argv"][-4:] == [str(tmp_path / "nodes" / "ash-002"), "--held", "--linger", "7"]
    assert TOKEN not in job.entrypoint


@pytest.mark.parametrize("word", HOSTILE, ids=range(len(HOSTILE)))
def test_no_name_leaves_its_quotes(fake: FakeJobs, tmp_path: Path, word: str) -> None:
    seen: list[Job] = []
    fake.on_look = lambda job: (seen.append(job), job.hold_all())[0]  # type: ignore[func-returns-value]
    made = holds(fake, tmp_path, known_as={word: (word,)}, resources={word: {"CPU": 1.0}})
    made.ensure(word)
    assert len(shlex.split(seen[0].entrypoint)) == 4
    assert seen[0].asked["nodes"][word]["known_as"] == [word]


def test_a_node_that_ray_cannot_hold_is_told_with_rays_reason(
    fake: FakeJobs, tmp_path: Path
) -> None:
    why = "LookupError: no living node of Ray is known as 10.0.0.1\x1b[2J or ash-001"
    fake.on_look = lambda job: job.succeed({"ash-001": {"error": why}})
    with pytest.raises(TransientError, match=r"ash-001: .*no living node of Ray") as told:
        holds(fake, tmp_path).ensure("ash-001")
    assert str(told.value).isprintable()


@pytest.mark.parametrize(
    "logs",
    [
        "",
        "Traceback\nModuleNotFoundError: No module named 'ray'",
        'holdfast-said {"nodes": []}',
        'holdfast-said {"nodes": {"ash-001": 7}}',
        "holdfast-said {",
        'holdfast-said {"nodes": {"ash-002": {"held": true}}}',
        'holdfast-said {"nodes": {"ash-001": {"held": true}}}',
        'holdfast-said {"nodes": {"ash-001": {"held": "true", "alone": 900}}}',
        'holdfast-said {"nodes": "ash-001"}',
        'holdfast-said {"nodes": ' + "[" * 100_000,
    ],
)
def test_a_job_that_says_nothing_of_a_node_does_not_hold_it(
    fake: FakeJobs, tmp_path: Path, logs: str
) -> None:
    def fail(job: Job) -> None:
        job.status, job.message, job.logs = "FAILED", "exit code 1", logs

    fake.on_look = fail
    with pytest.raises(TransientError, match="ash-001"):
        holds(fake, tmp_path).ensure("ash-001")


def test_a_job_that_takes_long_is_looked_at_again_and_not_doubled(
    fake: FakeJobs, tmp_path: Path
) -> None:
    fake.on_look = quick_job = lambda job: setattr(job, "status", "RUNNING")
    made = holds(fake, tmp_path)
    with pytest.raises(TransientError, match="still at it"):
        made.ensure("ash-001", 0.05)
    with pytest.raises(TransientError, match="still at it"):
        made.ensure("ash-001", 0.05)
    assert len(fake.jobs) == 1
    assert fake.on_look is quick_job
    fake.on_look = Job.hold_all
    made.ensure("ash-001")
    assert sum(one.startswith("POST") for one in fake.requests) == 1


@pytest.mark.parametrize("alone", ["-1", "-" + "9" * 400, "NaN", "1e999", "9" * 400])
def test_whatever_number_of_seconds_is_told_a_node_that_is_held_is_held(
    fake: FakeJobs, tmp_path: Path, alone: str
) -> None:
    def say(job: Job) -> None:
        job.status = "SUCCEEDED"
        job.logs = f'holdfast-said {{"nodes": {{"ash-001": {{"held": true, "alone": {alone}}}}}}}'

    fake.on_look = say
    holds(fake, tmp_path).ensure("ash-001")


def test_a_job_that_comes_to_no_end_is_stopped_and_begun_anew(
    fake: FakeJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.engines.ray.JOB_LIMIT", 0.05)
    fake.on_look = quick_job = lambda job: setattr(job, "status", "RUNNING")
    made = holds(fake, tmp_path)
    with pytest.raises(TransientError, match=r"came to no end within 0.05 s"):
        made.ensure("ash-001")
    assert fake.on_look is quick_job
    (lost,) = fake.jobs.values()
    assert lost.status == "STOPPED"
    fake.on_look = Job.hold_all
    monkeypatch.undo()
    made.ensure("ash-001")


def test_a_gang_of_many_nodes_comes_in_jobs_that_a_shell_can_take(
    fake: FakeJobs, tmp_path: Path
) -> None:
    many = [f"ash-{n:04d}-{'x' * 32}" for n in range(ENOUGH)]
    lines: list[str] = []
    together = threading.Event()
    fake.on_look = lambda job: (lines.append(job.entrypoint), job.hold_all())[0]  # type: ignore[func-returns-value]
    made = holds(
        fake,
        tmp_path / ("long" * 40),
        known_as={node: (node, "10.0.0.1", "y" * 250) for node in many},
        resources={node: {"CPU": 1.0, "GPU": 8.0} for node in many},
        pause=lambda _: together.wait(20),
    )
    joined = made._join

    def counted(node: str) -> Any:
        batch = joined(node)
        if node == many[-1]:
            together.set()
        return batch

    made._join = counted  # type: ignore[method-assign]
    with ThreadPoolExecutor(ENOUGH) as pool:
        list(pool.map(made.ensure, many))
    assert len(lines) >= 2
    assert max(len(line.encode()) for line in lines) < 128 * 1024, "MAX_ARG_STRLEN of Linux"


def test_an_answer_that_was_lost_is_no_second_job(fake: FakeJobs, tmp_path: Path) -> None:
    made = holds(fake, tmp_path)
    fake.answers.append((502, b"the tunnel broke"))
    with pytest.raises(TransientError, match="502"):
        made.ensure("ash-001")
    made.ensure("ash-001")
    assert sum(one.startswith("POST") for one in fake.requests) == 1


def test_a_job_that_ray_forgot_is_begun_anew(fake: FakeJobs, tmp_path: Path) -> None:
    made = holds(fake, tmp_path)
    fake.on_look = lambda job: setattr(job, "status", "RUNNING")
    with pytest.raises(TransientError):
        made.ensure("ash-001", 0.05)
    fake.jobs.clear()  # its head came back without its memory
    with pytest.raises(TransientError, match="forgot"):
        made.ensure("ash-001", 0.05)
    fake.on_look = Job.hold_all
    made.ensure("ash-001")


def test_raylets_that_die_with_rays_head_are_told(
    fake: FakeJobs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake.on_look = lambda job: job.succeed({"ash-001": {"held": True, "alone": 60.0}})
    holds(fake, tmp_path).ensure("ash-001")
    assert "end 60 s after Ray's head is gone" in caplog.text


def test_nodes_of_one_name_in_two_folders_are_two(fake: FakeJobs, tmp_path: Path) -> None:
    seen: list[Job] = []
    fake.on_look = lambda job: (seen.append(job), job.hold_all())[0]  # type: ignore[func-returns-value]
    for folder in ("a", "b", "a"):
        holds(fake, tmp_path / folder).ensure("ash-001")
    one, other, again = (job.asked["nodes"]["ash-001"]["name"] for job in seen)
    assert one == again != other


# --- the driver's own thinking


def node(name: str, address: str, host: str = "vm") -> dict[str, Any]:
    return {"NodeID": name, "NodeManagerAddress": address, "NodeManagerHostname": host}


def test_a_node_of_ray_is_found_by_the_best_of_its_names() -> None:
    nodes = [node("a", "10.0.0.1", "ash-002"), node("b", "10.0.0.2", "ash-001")]
    assert raydriver.find_node(nodes, ["10.0.0.2", "ash-002"]) == "b"
    assert raydriver.find_node(nodes, ["192.0.2.1", "ash-002"]) == "a"


def test_no_node_and_two_nodes_of_one_name_are_refused() -> None:
    nodes = [node("a", "10.0.0.1"), node("b", "10.0.0.2")]
    with pytest.raises(LookupError, match=r"known as 10.0.0.9 or ash-001"):
        raydriver.find_node(nodes, ["10.0.0.9", "ash-001"])
    with pytest.raises(LookupError, match="2 nodes of Ray call themselves vm"):
        raydriver.find_node(nodes, ["10.0.0.9", "vm"])
