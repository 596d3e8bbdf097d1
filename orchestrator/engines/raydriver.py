"""What runs inside a Ray cluster on our behalf: makes one detached actor per node, and exits.

The controller submits this file's text as a job (`engines/ray.py`); it imports nothing of ours.
Each actor sits in a placement group of its own, pinned to exactly the Ray node that was asked for,
and holds one porter (`runtime/porter.py`), which starts guards; ranks are no workers of Ray. When
the porter ends, the actor gives its placement group back. When the actor ends, however that comes
about, its end of a pipe closes, and the porter ends everything below it.

An actor and its group are named after the node, its folder and the life of its raylet. What is
found by that name holds the porter that is wanted: never that of another controller which calls
some node the same, nor one that was made for another folder.

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
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

MARK = "holdfast-said "
NAMESPACE = "holdfast"
ALONE = "RAY_gcs_rpc_server_reconnect_timeout_s"  #: set where raylets are started
ALONE_DEFAULT = 60.0  #: seconds, Ray's own
START_LIMIT = 40.0  #: seconds a new actor has to start: a worker's first start on a node is slow
ASK_LIMIT = 3.0  #: seconds an actor that is there already has to answer
JOB_LIMIT = 120.0  #: seconds for all of a job: a call of Ray's that hangs must not keep it for ever
LOOK_EVERY = 0.1  #: seconds between two looks for room
ID_SHOWN = 12  #: characters of a Ray node's id that tell one life of a raylet from the next
GRACE = 5.0  #: seconds Ray has to take a placement group back before the actor just ends


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
    """One node on its way to being held. Its steps are taken for all nodes in turn.

    `said` is the last word of it: {"held": true, "alone": seconds} or {"error": why}.
    """

    def __init__(self, ray: Any, asked: dict[str, Any]) -> None:
        """Remember what is wanted: known_as, name, argv, resources; nothing is made yet."""
        self._ray, self._asked = ray, asked
        self._resources = dict(asked["resources"])
        self._where = self._name = ""
        self._actor: Any = None
        self._group: Any = None
        self._answer: Any = None  #: what its actor was asked
        self.said: dict[str, Any] | None = None

    def find(self, nodes: list[dict[str, Any]]) -> None:
        """Choose the node of Ray, and ask the actor that may hold it already."""
        self._where = find_node(nodes, self._asked["known_as"])
        self._name = f"{self._asked['name']}-{self._where[:ID_SHOWN]}"
        with suppress(ValueError):  # there is none
            self._actor = self._ray.get_actor(self._name, namespace=NAMESPACE)
            self._answer = self._actor.about.remote()

    def clear(self, until: float) -> None:
        """Hear that actor; if it holds no porter, remove it, and groups that it left behind."""
        if self._actor is None:
            return self._remove_groups()
        try:
            said = self._hear(until)
        except Exception as error:  # noqa: BLE001 - Ray has a dozen errors for an actor that is gone
            said = {"error": str(error)}
        if "error" not in said:
            self.said = said
        else:
            self._ray.kill(self._actor)
            self._remove_groups()
        return None

    def reserve(self) -> None:
        """Ask Ray for a placement group on exactly this node."""
        self._group = self._ray.util.placement_group(
            [self._resources],
            strategy="STRICT_SPREAD",
            name=self._name,
            lifetime="detached",
            bundle_label_selector=[{"ray.io/node-id": self._where}],
        )

    def has_room(self, groups: dict[str, dict[str, Any]]) -> bool:
        """Say whether Ray made the placement group; `groups` is its table of them."""
        return bool(groups.get(self._group.id.hex(), {}).get("state") == "CREATED")

    def settle(self, groups: dict[str, dict[str, Any]]) -> None:
        """Put the actor into its group, and ask it of its porter."""
        if not self.has_room(groups):
            self._ray.util.remove_placement_group(self._group)
            raise LookupError(f"Ray has no room for {self._resources} there now")
        self._answer = self._make().about.remote()

    def hear(self, until: float) -> None:
        """Wait for what the new actor says; one that could not start leaves nothing behind."""
        try:
            self.said = self._hear(until)
        except TimeoutError:
            raise  # it may start yet, and is found by the next job
        except Exception:
            self._ray.util.remove_placement_group(self._group)
            raise

    def _hear(self, until: float) -> dict[str, Any]:
        left = max(0.1, until - time.monotonic())
        said: dict[str, Any] = self._ray.get(self._answer, timeout=left)
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

    def _remove_groups(self) -> None:
        """Remove what an actor that is gone left; its raylet's life may have been another one."""
        for about in self._ray.util.placement_group_table().values():
            if (
                about["name"].rpartition("-")[0] == self._asked["name"]
                and about["state"] != "REMOVED"
            ):
                group = self._ray.util.get_placement_group(about["name"])
                self._ray.util.remove_placement_group(group)


def hold(ray: Any, asked: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Hold every node that was asked for; one that cannot be held delays the others only."""
    holds = {node: Hold(ray, about) for node, about in asked["nodes"].items()}
    nodes = nodes_alive(ray)
    _each(holds.values(), lambda one: one.find(nodes))
    asked_at = time.monotonic()
    _each(holds.values(), lambda one: one.clear(asked_at + ASK_LIMIT))
    _each(holds.values(), lambda one: one.reserve())
    waiting = [one for one in holds.values() if one.said is None]
    groups = _wait_for_room(ray, waiting, float(asked["limit"]))
    _each(holds.values(), lambda one: one.settle(groups))
    settled_at = time.monotonic()
    _each(holds.values(), lambda one: one.hear(settled_at + START_LIMIT))
    return {node: one.said or {} for node, one in holds.items()}


def _each(holds: Iterable[Hold], step: Callable[[Hold], None]) -> None:
    """Take a step with every node of which the last word is not said."""
    for one in holds:
        if one.said is None:
            try:
                step(one)
            except Exception as error:  # noqa: BLE001 - whatever it is: this one node is not held
                one.said = {"error": f"{type(error).__name__}: {error}"[:300]}


def _wait_for_room(ray: Any, holds: list[Hold], limit: float) -> dict[str, dict[str, Any]]:
    """Return Ray's table of groups as soon as all have room, or after `limit` seconds."""
    until = time.monotonic() + limit
    while True:
        groups: dict[str, dict[str, Any]] = ray.util.placement_group_table() if holds else {}
        if all(one.has_room(groups) for one in holds) or time.monotonic() >= until:
            return groups
        time.sleep(LOOK_EVERY)


def _give_up() -> None:
    print(f"no answer from Ray within {JOB_LIMIT:g} s", flush=True)
    os._exit(1)


def main() -> None:
    """Do what the argument asks, print what came of it, and exit."""
    import ray

    ending = threading.Timer(JOB_LIMIT, _give_up)
    ending.daemon = True
    ending.start()
    asked = json.loads(sys.argv[1])
    ray.init(address="auto", namespace=NAMESPACE, log_to_driver=False)
    print(MARK + json.dumps({"nodes": hold(ray, asked)}), flush=True)


if __name__ == "__main__":
    main()
