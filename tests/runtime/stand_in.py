"""An agent that only listens for its guard: for the tests of guard and launcher.

It is copied into a node's home, where the guard finds it as the module `stand_in`; the runtime it
imports is the staged one. What it does besides is read from `stand_in.json` in the home.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import select
import subprocess
import sys
import time
from pathlib import Path

from orchestrator.runtime.kernel import boottime
from orchestrator.runtime.place import Place, boot_id, write_json
from orchestrator.runtime.tether import Tether


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path)
    parser.add_argument("--run")
    asked = parser.parse_args()
    place = Place(asked.home, asked.run)
    tether = Tether.from_environment()
    assert tether is not None
    plan = json.loads((place.home / "stand_in.json").read_text())
    if "refuse" in plan:
        sys.exit(str(plan["refuse"]))
    for script in plan.get("children", ()):
        subprocess.Popen(["bash", "-c", script])
    if "alone" in plan:
        tether.hold_until(boottime() + plan["alone"])
    listens = {"host": "127.0.0.1", "port": 1, "agent": secrets.token_hex(8), "pid": os.getpid()}
    facts = {"guard_pid": os.getppid(), "boot_id": boot_id(place.home), "started_at": time.time()}
    write_json(place.agent, {**listens, **facts, "path": sys.path, "env": sorted(os.environ)})
    if "why" in plan:
        tether.say_why(plan["why"])
        return
    while not tether.is_cut():
        select.select([tether], [], [])
    sys.exit("the guard is gone")


main()
