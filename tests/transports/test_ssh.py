"""SSH against a real sshd: keys, limits, hostile words, reconnecting, tunnels."""

from __future__ import annotations

import base64
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import paramiko
import pytest
from hypothesis import HealthCheck, given, settings

from orchestrator.errors import HoldfastError, PermanentError, TransientError, UserError
from orchestrator.transports.ssh import (
    Access,
    ChangedHostKeyError,
    HostAddress,
    Identity,
    SshFleet,
    UnknownHostKeyError,
)
from orchestrator.transports.ssh.fleet import OUTPUT_MAX
from orchestrator.transports.ssh.hostkeys import PinnedKeys, pin
from orchestrator.transports.ssh.quoting import LINE_MAX, command_line, limited
from tests.hostile import HOSTILE
from tests.transports.sshd import Sshd, lock_key, make_key

Open = Callable[..., SshFleet]


def address(sshd: Sshd) -> HostAddress:
    return HostAddress("n1", "127.0.0.1", sshd.port)


def access(sshd: Sshd, **changed: Any) -> Access:
    quick = Access(sshd.user, Identity(sshd.key), pause_first=0.05, pause_most=0.2)
    return replace(quick, **changed)


@pytest.fixture
def connect(sshd: Sshd) -> Iterator[Open]:
    made: list[SshFleet] = []

    def make(keys: PinnedKeys | None = None, **changed: Any) -> SshFleet:
        host = address(sshd)
        pinned = keys if keys is not None else pin({host.host: [sshd.host_key]})
        fleet = SshFleet({"n1": host}, access(sshd, **changed), pinned)
        made.append(fleet)
        return fleet

    yield make
    for fleet in made:
        fleet.close()


def test_a_command_gets_its_input_and_gives_its_outputs_and_code(connect: Open) -> None:
    ended = connect().run("n1")(
        ["sh", "-c", "tr a-z A-Z; echo oh >&2; exit 3"], stdin=b"word", limit=20
    )
    assert (ended.code, ended.out, ended.err) == (3, b"WORD", b"oh\n")


def test_no_word_reaches_a_shell(connect: Open, tmp_path: Path) -> None:
    run = connect().run("n1")
    script = 'cd "$1" && shift && printf "%s\\0" "$@"'
    ended = run(["sh", "-c", script, "sh", str(tmp_path), *HOSTILE], limit=30)
    assert ended.out.decode().split("\0")[:-1] == list(HOSTILE)
    assert not [path for path in tmp_path.rglob("owned") if "sshd" not in path.parts]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)))
def test_any_words_arrive_as_they_are(connect: Open, words: list[str]) -> None:
    fleet = connect()
    ended = fleet.run("n1")(["printf", "%s\\0", *words, "end"], limit=30)
    assert ended.out.decode().split("\0")[:-1] == [*words, "end"]
    fleet.close()


@pytest.mark.parametrize("argv", [[], ["a\0b"], ["x" * (LINE_MAX + 1)], ["\ud800"]])
def test_what_no_argument_list_can_hold_is_refused_here(argv: list[str]) -> None:
    with pytest.raises(PermanentError):
        command_line(argv)


def test_a_limit_is_also_kept_on_the_host() -> None:
    assert limited(["x"], 2.5) == ["timeout", "--kill-after=2", "3", "x"]


def test_a_host_whose_key_is_not_pinned_is_refused_with_its_fingerprint(
    connect: Open, sshd: Sshd
) -> None:
    with pytest.raises(UnknownHostKeyError, match=r"ssh-ed25519 SHA256:.*host_keys"):
        connect(PinnedKeys()).run("n1")(["true"], limit=10)
    assert "Accepted" not in (sshd.folder / "log").read_text(), "it never saw who we are"


def test_a_host_that_shows_another_key_is_refused_and_never_accepted(
    connect: Open, sshd: Sshd
) -> None:
    run = connect().run("n1")
    run(["true"], limit=10)
    sshd.stop()
    sshd.change_host_key()
    sshd.start()
    for _ in range(3):
        with pytest.raises(ChangedHostKeyError, match="replaced, or the connection is interc"):
            eventually(lambda: run(["true"], limit=10).code == 0)


def test_keys_are_found_in_a_known_hosts_file_also_if_it_is_hashed(
    connect: Open, sshd: Sshd, tmp_path: Path
) -> None:
    name = address(sshd).host
    file = paramiko.HostKeys()
    kind, _, body = sshd.host_key.partition(" ")
    key = paramiko.PKey.from_type_string(kind, base64.b64decode(body))
    file.add(paramiko.HostKeys.hash_host(name), kind, key)
    file.save(str(tmp_path / "known_hosts"))
    keys = pin({name: []}, tmp_path / "known_hosts")
    assert connect(keys).run("n1")(["true"], limit=10).code == 0
    with pytest.raises(UserError, match="cannot be read"):
        pin({name: []}, tmp_path / "nowhere")


def test_a_wrong_key_of_ours_is_told_as_such(connect: Open, sshd: Sshd, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    with pytest.raises(TransientError, match="is not let in"):
        connect(identity=Identity(tmp_path / "other")).run("n1")(["true"], limit=10)
    with pytest.raises(UserError, match="nowhere"):
        connect(identity=Identity(tmp_path / "nowhere")).run("n1")(["true"], limit=10)


def test_a_passphrase_is_asked_for_and_never_told(
    connect: Open, sshd: Sshd, tmp_path: Path
) -> None:
    lock_key(sshd.key, tmp_path / "locked", b"a secret word")
    good = Identity(tmp_path / "locked", lambda: "a secret word")
    assert connect(identity=good).run("n1")(["true"], limit=10).code == 0
    with pytest.raises(UserError) as told:
        connect(identity=Identity(tmp_path / "locked", lambda: "no such word")).run("n1")(
            ["true"], limit=10
        )
    assert "word" not in str(told.value)


def test_a_command_beyond_its_limit_is_ended_on_the_host_too(connect: Open, tmp_path: Path) -> None:
    run = connect().run("n1")
    with pytest.raises(TransientError, match="no answer within 1 s"):
        run(["sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 60"], limit=1)
    pid = int((tmp_path / "pid").read_text())
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
    assert run(["true"], limit=10).code == 0, "one slow command costs nobody the connection"


def test_only_the_beginning_of_an_endless_output_is_kept(connect: Open) -> None:
    ended = connect().run("n1")(["head", "-c", str(OUTPUT_MAX * 2), "/dev/zero"], limit=30)
    assert (ended.code, len(ended.out)) == (0, OUTPUT_MAX)


def test_both_outputs_may_be_long(connect: Open) -> None:
    script = "head -c 3000000 /dev/zero >&2; head -c 3000000 /dev/zero"
    ended = connect().run("n1")(["sh", "-c", script], limit=30)
    assert (len(ended.out), len(ended.err)) == (3_000_000, 3_000_000)


def test_a_daemon_that_keeps_the_output_open_does_not_hold_us(connect: Open) -> None:
    begun = time.monotonic()
    ended = connect().run("n1")(["sh", "-c", "sleep 25 & echo $!"], limit=20)
    assert time.monotonic() - begun < 15
    os.kill(int(ended.out), signal.SIGKILL)


def test_a_program_that_is_not_there_is_named(connect: Open) -> None:
    with pytest.raises(PermanentError, match="no-such-program"):
        connect().run("n1")(["no-such-program"], limit=10)


def test_a_node_that_is_not_of_this_cluster_is_refused(connect: Open) -> None:
    with pytest.raises(PermanentError, match="zebra"):
        connect().run("zebra")


def test_a_connection_that_broke_is_made_again(connect: Open, sshd: Sshd) -> None:
    run = connect().run("n1")
    assert run(["true"], limit=10).code == 0
    sshd.stop()
    with pytest.raises(TransientError):
        run(["true"], limit=5)
    sshd.start()
    eventually(lambda: run(["true"], limit=10).code == 0)


def test_while_a_host_is_down_callers_fail_at_once(connect: Open, sshd: Sshd) -> None:
    sshd.stop()
    run = connect(pause_first=20.0, pause_most=40.0).run("n1")
    with pytest.raises(TransientError, match="refused"):
        run(["true"], limit=5)
    begun = time.monotonic()
    for _ in range(50):
        with pytest.raises(TransientError, match="tried again in"):
            run(["true"], limit=5)
    assert time.monotonic() - begun < 2


def test_a_host_that_accepts_and_says_nothing_costs_no_more_than_the_limit(sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        host = HostAddress("n1", "127.0.0.1", mute.getsockname()[1])
        fleet = SshFleet({"n1": host}, access(sshd, connect_limit=1.0), PinnedKeys())
        begun = time.monotonic()
        with pytest.raises(TransientError):
            fleet.run("n1")(["true"], limit=20)
        assert time.monotonic() - begun < 10
        fleet.close()


def test_a_frozen_server_costs_no_more_than_the_limit_and_is_found_again(
    connect: Open, sshd: Sshd
) -> None:
    run = connect(connect_limit=2.0).run("n1")
    assert run(["true"], limit=10).code == 0
    frozen = freeze(sshd)
    begun = time.monotonic()
    with pytest.raises(TransientError):
        run(["true"], limit=2)
    assert time.monotonic() - begun < 12
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: run(["true"], limit=10).code == 0)


def test_many_commands_at_once_share_one_connection(connect: Open, sshd: Sshd) -> None:
    run = connect(sessions_max=4).run("n1")
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(run(["sh", "-c", f"exit {code}"], limit=60).code)

    threads = [threading.Thread(target=leave, args=(code,)) for code in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == list(range(12))
    assert (sshd.folder / "log").read_text().count("Accepted publickey") == 1


def test_a_tunnel_reaches_what_the_host_reaches_and_no_more(connect: Open) -> None:
    fleet = connect()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with fleet.connect("n1", "127.0.0.1", port, 10) as tunnel:
            inner, _ = server.accept()
            with inner:
                tunnel.settimeout(10)
                tunnel.sendall(b"ping")
                assert inner.recv(10) == b"ping"
                inner.sendall(b"pong")
                assert tunnel.recv(10) == b"pong"
    with pytest.raises(TransientError):
        fleet.connect("n1", "127.0.0.1", port, 10)
    assert fleet.run("n1")(["true"], limit=10).code == 0, "a refused tunnel costs no connection"


def test_nodes_are_reached_through_a_jump_host(sshd: Sshd) -> None:
    host, jump = address(sshd), HostAddress("jump", "127.0.0.1", sshd.port)
    keys = pin({host.host: [sshd.host_key]})
    fleet = SshFleet({"n1": host}, access(sshd), keys, (jump, access(sshd)))
    assert fleet.run("n1")(["echo", "through"], limit=20).out == b"through\n"
    assert (sshd.folder / "log").read_text().count("Accepted publickey") == 2
    fleet.close()


def test_a_host_keeps_apart_the_errors_of_the_house(connect: Open, sshd: Sshd) -> None:
    sshd.stop()
    with pytest.raises(HoldfastError):
        connect().connect("n1", "127.0.0.1", 1, 2)


def freeze(sshd: Sshd) -> list[int]:
    """Stop the server and every process that serves a connection."""
    assert sshd.process is not None
    todo, found = [sshd.process.pid], []
    while todo:
        pid = todo.pop()
        os.kill(pid, signal.SIGSTOP)
        found.append(pid)
        todo += [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found


def eventually(holds: Callable[[], bool], limit: float = 20) -> None:
    end = time.monotonic() + limit
    while True:
        try:
            assert holds()
            return
        except TransientError:
            assert time.monotonic() < end
            time.sleep(0.05)
