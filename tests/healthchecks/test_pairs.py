"""The server of pair tests: two of them on this computer, and what it makes of nonsense."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from healthchecks.active.pairs import BadRequestError, parse
from healthchecks.pair_rates import failed, slowest_of

REQUEST = {"id": 1, "rank": 0, "host": "127.0.0.1", "port": 1, "bytes": 65536, "limit": 60}

ODD = json.dumps({**REQUEST, "rail": "eth0; reboot"})


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as made:
        return int(made.getsockname()[1])


@pytest.mark.torch
@pytest.mark.parametrize(("rail", "there"), [(None, True), ("lo", True), ("rail9", False)])
def test_two_servers_measure_the_link_between_them(rail: str | None, there: bool) -> None:
    """Over the rail that is named, and over no other if that is not there."""
    pytest.importorskip("torch", reason="torch is not installed")
    argv = [sys.executable, "-m", "healthchecks.active.pairs"]
    pair = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    request = {**REQUEST, "port": free_port(), **({} if rail is None else {"rail": rail})}
    for rank, one in enumerate(pair):
        assert one.stdin is not None
        one.stdin.write(f"nonsense\n{json.dumps({**request, 'rank': rank})}\n")
        one.stdin.flush()
    said = [one.communicate(timeout=240)[0].splitlines() for one in pair]
    answers = [json.loads(lines[1]) for lines in said]
    assert all("no request" in json.loads(lines[0])["error"] for lines in said)
    rate = slowest_of(answers)
    assert (rate is not None) is there, answers
    assert rate is None or rate > 0


@pytest.mark.torch
def test_one_test_from_the_command_line_is_given_up_at_its_limit() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    request = json.dumps({**REQUEST, "port": free_port(), "limit": 1})  # nobody comes
    argv = [sys.executable, "-m", "healthchecks", "--pair", request]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]


@pytest.mark.parametrize("line", ["", "{", "[]", "{}", "[" * 5000, '{"id": "x"}', "null", ODD])
def test_what_is_no_request_is_refused(line: str) -> None:
    with pytest.raises(BadRequestError):
        parse(line)
    assert parse(json.dumps(REQUEST)).limit == 60.0


def test_a_pair_fails_if_it_is_not_done_or_far_slower_than_most() -> None:
    rates = {("a", "b"): 1.0, ("c", "d"): 0.9, ("e", "f"): 0.3, ("g", "h"): None}
    assert [pair for pair, bad in failed(rates).items() if bad] == [("e", "f"), ("g", "h")]
    assert failed({("a", "b"): None}) == {("a", "b"): True}
    assert failed({}) == {}


def test_a_pair_is_as_fast_as_its_slower_side() -> None:
    assert slowest_of([{"gbps": 1.0}, {"gbps": 0.5}]) == 0.5
    assert slowest_of([{"gbps": 1.0}, {"error": "x"}]) is None
    assert slowest_of([]) is None
