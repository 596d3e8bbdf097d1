"""What runs inside a Ray cluster on our behalf: makes one detached actor per node, and exits.

The controller submits this file's text as a job (`raysubmit`); it imports nothing of ours. Each
actor sits in a placement group of its own, pinned to exactly the Ray node that was asked for, and
holds one porter (`runtime/porter.py`), which starts guards; ranks are no workers of Ray. When the
porter ends, the actor gives its placement group back. When the actor ends, however that comes
about, its end of a pipe closes, and the porter ends everything below it.

    python3 -c SOURCE REQUEST

Prints one line of JSON behind `MARK`: {"nodes": {NODE: {"held": true, "alone": SECONDS} |
{"error": WHY}}}; `alone` is how long that node's raylet lives on without Ray's head.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import Any

MARK = "holdfast-said "
NAMESPACE = "holdfast"
ALONE = "RAY_gcs_rpc_server_reconnect_timeout_s"  #: set where raylets are started
ALONE_DEFAULT = 60.0  #: seconds, Ray's own
START_LIMIT = 40.0  #: seconds a new actor has to start: a worker's first start on a node is slow
ASK_LIMIT = 3.0  #: seconds an actor that is there already has to answer
GRACE = 5.0  #: seconds Ray has to take a placement group back before the actor just ends


def name_of(node: str) -> str:
    """Return the name of a node's actor and of its placement group."""
    return f"holdfast-{node}"


class Holder:
    """The actor: holds the porter of one node by a pipe, and ends with it."""

    def __init__(self, argv: list[str], group: str, *, gpus: bool) -> None:
        """Start the porter; its standard input is the pipe that ties it to this process.

        `gpus`: Ray gave this actor accelerators, and what it starts shall see those alone.
        """
        given = os.environ.get("CUDA_VISIBLE_DEVICES") if gpus else None
        self._group = group
        self._porter = subprocess.Popen(
            argv if given is None else [*argv, "--give", f"CUDA_VISIBLE_DEVICES={given}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )
        self._said = b""
        threading.Thread(target=self._watch, daemon=True).start()

    def about(self) -> dict[str, Any]:
        """Return {"held": true, "alone": seconds}, or {"error": why the porter ended}."""
        code = self._porter.poll()
        if code is None:
            return {"held": True, "alone": float(os.environ.get(ALONE) or ALONE_DEFAULT)}
        return {"error": self._said.decode(errors="replace").strip()[-300:] or f"exit {code}"}

    def _watch(self) -> None:
        import ray

        assert self._porter.stderr is not None
        self._said = self._porter.stderr.read(4_096)  # to its end: it says little
        self._porter.wait()
        time.sleep(1.0)  # whoever made this actor may still ask why
        threading.Timer(GRACE, os._exit, (1,)).start()
        ray.util.remove_placement_group(ray.util.get_placement_group(self._group))
        time.sleep(GRACE)  # Ray ends this process with the group


def nodes_alive(ray: Any) -> list[dict[str, Any]]:
    """Return Ray's nodes that are alive."""
    return [one for one in ray.nodes() if one.get("Alive", one.get("alive"))]


def find_node(nodes: list[dict[str, Any]], known_as: list[str]) -> str:
    """Return the id of the one Ray node with one of these addresses or names, best first.

    Raises `LookupError` if there is none, or more than one.
    """
    for word in known_as:
        for field in ("NodeManagerAddress", "NodeName", "NodeManagerHostname"):
            ids = [one["NodeID"] for one in nodes if one.get(field) == word]
            if len(ids) > 1:
                raise LookupError(f"{len(ids)} nodes of Ray call themselves {word}")
            if ids:
                return str(ids[0])
    raise LookupError(f"no living node of Ray is known as {' or '.join(known_as)}")


class Hold:
    """One node on its way to being held."""

    def __init__(self, ray: Any, node: str, asked: dict[str, Any]) -> None:
        """Remember it; nothing is made yet."""
        self._ray, self._name = ray, name_of(node)
        self._asked, self._resources = asked, dict(asked["resources"])
        self._group: Any = None
        self._said: dict[str, Any] | None = None

    def begin(self, nodes: list[dict[str, Any]]) -> None:
        """Ask Ray for a placement group on exactly this node, unless its actor lives."""
        where = find_node(nodes, self._asked["known_as"])
        self._said = self._living()
        if self._said is not None:
            return
        self._clear()
        self._group = self._ray.util.placement_group(
            [self._resources],
            strategy="STRICT_SPREAD",
            name=self._name,
            lifetime="detached",
            bundle_label_selector=[{"ray.io/node-id": where}],
        )

    def finish(self, until: float) -> dict[str, Any]:
        """Wait for the room, put the actor there, and return what it says of its porter."""
        if self._said is not None:
            return self._said
        if not self._group.wait(max(0.1, until - time.monotonic())):
            self._ray.util.remove_placement_group(self._group)
            raise LookupError(f"Ray has no room for {self._resources} there now")
        said: dict[str, Any] = self._ray.get(self._make().about.remote(), timeout=START_LIMIT)
        return said

    def _make(self) -> Any:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        gpus = self._resources.get("GPU", 0)
        others = {k: v for k, v in self._resources.items() if k not in ("CPU", "GPU")}
        made = self._ray.remote(Holder).options(
            name=self._name,
            namespace=NAMESPACE,
            lifetime="detached",
            max_restarts=0,
            get_if_exists=True,
            num_cpus=self._resources.get("CPU", 0),
            num_gpus=gpus,
            resources=others,
            scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, 0),
        )
        return made.remote(list(self._asked["argv"]), self._name, gpus=gpus > 0)

    def _living(self) -> dict[str, Any] | None:
        """Return what the node's actor says, or None if none holds a porter; then none is left."""
        try:
            actor = self._ray.get_actor(self._name, namespace=NAMESPACE)
        except ValueError:
            return None
        try:
            said: dict[str, Any] = self._ray.get(actor.about.remote(), timeout=ASK_LIMIT)
        except Exception as error:  # noqa: BLE001 - Ray has a dozen errors for an actor that is gone
            said = {"error": str(error)}
        if "error" not in said:
            return said
        self._ray.kill(actor)
        return None

    def _clear(self) -> None:
        """Remove what an actor that is gone left: its placement group."""
        for about in self._ray.util.placement_group_table().values():
            if about["name"] == self._name and about["state"] != "REMOVED":
                group = self._ray.util.get_placement_group(self._name)
                self._ray.util.remove_placement_group(group)


def hold(ray: Any, asked: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Hold every node that was asked for; one that cannot be held delays the others only."""
    holds = {node: Hold(ray, node, about) for node, about in asked["nodes"].items()}
    until = time.monotonic() + float(asked["limit"])
    nodes = nodes_alive(ray)
    said = {node: _tried(one.begin, nodes) for node, one in holds.items()}
    for node, one in holds.items():
        if said[node] is None:
            said[node] = _tried(one.finish, until)
    return {node: about or {} for node, about in said.items()}


def _tried(step: Any, *words: Any) -> dict[str, Any] | None:
    try:
        done: dict[str, Any] | None = step(*words)
    except Exception as error:  # noqa: BLE001 - of whatever kind: this one node is not held
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    return done


def main() -> None:
    """Do what the argument asks, print what came of it, and exit."""
    import ray

    asked = json.loads(sys.argv[1])
    ray.init(address="auto", namespace=NAMESPACE, log_to_driver=False)
    print(MARK + json.dumps({"nodes": hold(ray, asked)}), flush=True)


if __name__ == "__main__":
    main()
