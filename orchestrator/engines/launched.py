"""What most engines share: one command on the node, over whatever reaches the node.

`python -m orchestrator.runtime.launch` takes the node's lock, compares the controller's token with
the highest the node has seen, sweeps what an older agent left, and forks a guard.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.engines.api import AgentAddress, Found
from orchestrator.errors import PermanentError, TransientError
from orchestrator.runtime import ranklogs
from orchestrator.runtime import spec as specs
from orchestrator.runtime.ranklogs import Piece, Which
from orchestrator.runtime.spec import AgentSpec
from providers.api import Run

START_LIMIT = 25.0  #: seconds; the launcher itself gives up after 15
LOOK_LIMIT = 10.0
EXAMINE_MORE = 30.0  #: seconds, on top of what is run


class LaunchedEngine:
    """Agents that are started, found and swept by `orchestrator.runtime.launch` on their node."""

    def __init__(
        self,
        run: Callable[[str], Run],
        home: Callable[[str], Path],
        launch: Callable[[str], Sequence[str]],
    ) -> None:
        """`run` gives the transport of a node, `home` its folder there, `launch` the program."""
        self._run, self._home, self._program = run, home, launch

    def start(self, node: str, spec: AgentSpec) -> AgentAddress:
        """Start the agent of an attempt, or find the one that runs."""
        body = json.dumps(specs.encode(spec)).encode()
        return _address(self._launch(node, ["start"], stdin=body, limit=START_LIMIT))

    def find(self, node: str, run: str) -> Found:
        """Say what of `run` is on the node."""
        said = self._launch(node, ["find", "--run", run], limit=LOOK_LIMIT)
        agent = None if said.get("agent") is None else _address(said["agent"])
        gone = None if said.get("gone") is None else _object(node, said["gone"])
        return Found(agent, gone, str(said.get("boot_id", "")))

    def sweep(self, node: str, run: str, token: int) -> dict[str, Any]:
        """Kill what is left of `run` on the node and return the proof."""
        argv = ["sweep", "--run", run, "--token", str(token)]
        proof = self._launch(node, argv, limit=START_LIMIT)
        if not proof.get("by"):
            raise TransientError(f"{node}: launch sweep said nothing that proves an end")
        return proof

    def examine(
        self, node: str, argv: Sequence[str], token: int, limit: float
    ) -> tuple[bytes, bool]:
        """Run a command that work ends at once: its output, and whether it was ended so."""
        body = json.dumps({"argv": list(argv), "limit": limit}).encode()
        told = ["examine", "--token", str(token)]
        said = self._launch(node, told, stdin=body, limit=limit + EXAMINE_MORE)
        return str(said.get("out", "")).encode(), bool(said.get("stopped"))

    def logs(self, node: str, run: str, wanted: Mapping[Which, int] | None) -> list[Piece]:
        """Return what ranks wrote there."""
        body = json.dumps(ranklogs.request(wanted)).encode()
        said = self._launch(node, ["logs", "--run", run], stdin=body, limit=LOOK_LIMIT)
        return ranklogs.heard(said)

    def _launch(
        self, node: str, argv: Sequence[str], *, stdin: bytes = b"", limit: float
    ) -> dict[str, Any]:
        verb, *rest = argv
        home = str(self._home(node))
        command = [*self._program(node), verb, "--home", home, *rest]
        ended = self._run(node)(command, stdin=stdin, limit=limit)
        if ended.code != 0:
            kind = TransientError if ended.code == TransientError.exit_code else PermanentError
            raise kind(f"{node}: launch {verb}: {_reason(ended.err)}")
        try:
            return _object(node, json.loads(ended.out))
        except (ValueError, RecursionError) as error:
            raise TransientError(f"{node}: launch {verb} said no JSON: {error}") from error


def _object(node: str, said: object) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise TransientError(f"{node}: launch said no JSON object: {said!r:.200}")
    return said


def _address(said: object) -> AgentAddress:
    match said:
        case {"host": str(host), "port": int(port), "agent": str(agent)} if 0 < port < 65536:
            return AgentAddress(host, port, agent)
    raise TransientError(f"no agent's address in {said!r:.200}")


def _reason(err: bytes) -> str:
    text = err.decode(errors="replace").strip()
    try:
        return str(json.loads(text.splitlines()[-1])["error"])
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return text[-500:] or "no reason given"
