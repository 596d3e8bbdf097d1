"""The client's side: a line comes in, a sweep is made, its figures go out.

A client is a process of its own, so that its CPU time is its own, and its connections stay open
from one sweep to the next as far as it can keep them.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable


def serve(sweep: Callable[[], dict[str, float]]) -> None:
    """Answer each line of standard input with one sweep: seconds until each host had answered."""
    for _ in sys.stdin:
        began, cpu = time.perf_counter(), _cpu()
        answered = sweep()
        told = {
            "seconds": time.perf_counter() - began,
            "cpu": _cpu() - cpu,
            "answered": answered,
        }
        print(json.dumps(told), flush=True)


def _cpu() -> float:
    """Return the CPU seconds of this process and of its children that ended."""
    both = (resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)
