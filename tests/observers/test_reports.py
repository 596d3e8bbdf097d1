"""A real listener on one side, a node that says what it is told to say on the other."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.nodes import JobName, NodeName
from orchestrator.core.observations import (
    AgentGone,
    AgentSilent,
    InventorySeen,
    NodeReached,
    NodeUnreached,
    Probed,
    ProviderFailed,
    RegisterSeen,
    RegisterSilent,
)
from orchestrator.engines.api import AgentAddress, Found
from orchestrator.engines.site import Keys, Site
from orchestrator.errors import TransientError
from orchestrator.observers.inventory import list_machines
from orchestrator.observers.probes import probe_node
from orchestrator.observers.registers import read_register
from orchestrator.observers.reports import Asked, ask_agent
from orchestrator.runtime.lineage import Fence
from orchestrator.runtime.register import Register
from orchestrator.runtime.store import open_store
from providers.api import Completed, MachineListed
from tests.daemon.house import BEGIN, DreamEngine, DreamProvider, dream_site

NODE, JOB = NodeName("ash-1"), JobName("train")
NOBODY = AgentAddress("127.0.0.1", 1, "a1")
ASKED = Asked(NODE, JOB, 1, NOBODY, confirm=0)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "secret")


def site(found: Found | None = None) -> Site:
    return dream_site(DreamProvider(["ash-1"]), DreamEngine(found=found or Found(None, None, "b1")))


class SilentEngine(DreamEngine):
    def find(self, node: str, run: str) -> Found:
        raise TransientError("no route to host")


def test_silence_of_an_agent_whose_node_answers_is_not_death(keys: Keys) -> None:
    reached, silent = ask_agent(site(Found(NOBODY, None, "b1")), keys, ASKED, 1, BEGIN)
    assert reached == NodeReached(NODE, BEGIN, "b1")
    assert isinstance(silent, AgentSilent)
    assert "127.0.0.1:1" in silent.error


def test_silence_of_the_node_too_is_said_as_such(keys: Keys) -> None:
    quiet = dream_site(DreamProvider([]), SilentEngine())
    silent, unreached = ask_agent(quiet, keys, ASKED, 1, BEGIN)
    assert isinstance(silent, AgentSilent)
    assert unreached == NodeUnreached(NODE, BEGIN, "no route to host")


def test_a_proof_of_the_node_is_an_end(keys: Keys) -> None:
    gone = {"by": "guard", "why": "the agent was killed"}
    _, end = ask_agent(site(Found(None, gone, "b1")), keys, ASKED, 1, BEGIN)
    assert end == AgentGone(NODE, JOB, 1, BEGIN, "guard: the agent was killed")


def test_a_proof_beside_a_living_agent_proves_nothing(keys: Keys) -> None:
    gone = {"by": "guard", "why": "an earlier life"}
    seen = ask_agent(site(Found(NOBODY, gone, "b1")), keys, ASKED, 1, BEGIN)
    assert not any(isinstance(one, AgentGone) for one in seen)


def test_an_agent_that_was_never_heard_is_looked_for_on_its_node(keys: Keys) -> None:
    asked = replace(ASKED, address=None)
    seen = ask_agent(site(), keys, asked, 1, BEGIN)
    assert [type(one) for one in seen] == [NodeReached, AgentSilent]


def test_a_stranger_on_the_agents_port_leads_to_a_look_at_the_node(keys: Keys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        stranger = _speaks(server, b"SSH-2.0-OpenSSH_9.6\r\n")
        asked = replace(ASKED, address=AgentAddress("127.0.0.1", port, "a1"))
        gone = {"by": "guard", "why": "it was killed"}
        seen = ask_agent(site(Found(None, gone, "b1")), keys, asked, 1, BEGIN)
        stranger.join()
    assert any(isinstance(one, AgentGone) for one in seen)


def _speaks(server: socket.socket, words: bytes) -> threading.Thread:
    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(words)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


# --- inventory, probes, registers ---------------------------------------------------------------


class DeafProvider(DreamProvider):
    def machines(self) -> tuple[MachineListed, ...]:
        raise TransientError("429 too many requests")


def test_a_provider_that_fails_is_not_an_empty_cluster() -> None:
    deaf = dream_site(DeafProvider(["ash-1"]), DreamEngine())
    assert list_machines(deaf, BEGIN) == ProviderFailed(
        deaf.cluster, BEGIN, "429 too many requests"
    )


def test_every_machine_of_a_listing_is_seen() -> None:
    seen = list_machines(dream_site(DreamProvider(["ash-1", "ash-2"]), DreamEngine()), BEGIN)
    assert isinstance(seen, InventorySeen)
    assert [machine.node for machine in seen.machines] == ["ash-1", "ash-2"]
    assert {machine.boot_id for machine in seen.machines} == {"b1"}


def test_a_probe_covers_what_its_output_says() -> None:
    seen = probe_node(site(), NODE, "", BEGIN)
    assert isinstance(seen, Probed)
    assert seen.complete
    assert seen.boot_id == "b1", "what the node says of its boot counts"


def test_checks_that_crash_are_no_complete_probe() -> None:
    def crashes(argv: Sequence[str], *, stdin: bytes = b"", limit: float) -> Completed:
        return Completed(3, b"Traceback (most recent call last)", b"")

    seen = probe_node(dream_site(DreamProvider([]), DreamEngine(), crashes), NODE, "b0", BEGIN)
    assert seen == Probed(NODE, BEGIN, "b0", (), complete=False)


def test_a_node_that_cannot_be_reached_has_no_findings() -> None:
    def unreached(argv: Sequence[str], *, stdin: bytes = b"", limit: float) -> Completed:
        raise TransientError("no route to host")

    far = dream_site(DreamProvider([]), DreamEngine(), unreached)
    assert probe_node(far, NODE, "b0", BEGIN) == NodeUnreached(NODE, BEGIN, "no route to host")


def test_a_register_tells_its_fence_and_a_broken_one_is_silent(tmp_path: Path) -> None:
    register = Register(open_store(str(tmp_path)))
    fence = Fence(1, "nonce", 3, 1, 0.0, "train")
    register.append(lambda seq: fence, register.read())
    seen = read_register(register, JOB, BEGIN)
    assert isinstance(seen, RegisterSeen)
    assert seen.fence == fence
    assert (seen.commits, seen.void, seen.commit, seen.generations) == (0, 0, None, ())
    (tmp_path / "commits" / "00000002.json").write_bytes(b"{}")
    assert isinstance(read_register(register, JOB, BEGIN), RegisterSilent)
