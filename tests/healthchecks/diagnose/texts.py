"""Texts of failures with their labels: written for these tests, in the formats of their sources."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

#: How the peers of a rank that died sound: louder than it, and saying less.
VICTIMS = (
    "[rank{0}]:[E909 09:55:29.308889145 ProcessGroupNCCL.cpp:607] [Rank {0}] Watchdog caught "
    "collective operation timeout: WorkNCCL(SeqNum=2070) ran for 600036 milliseconds",
    "node{0}:120:340 [2] misc/socket.cc:49 NCCL WARN socketProgress: Connection closed by remote "
    "peer node17<45678>",
    "[rank{0}]: torch.distributed.DistBackendError: NCCL error in: NCCLUtils.cpp:77, remote "
    "process exited or there was a network error, NCCL version 2.21.5",
    "[default{0}]:RuntimeError: NCCL communicator was aborted on rank {0}.",
    "W1125 11:30:00 torch/distributed/elastic/api.py:900] Sending process {0} closing signal",
    "[default{0}]:terminate called after throwing an instance of 'c10::DistBackendError'",
    "\x1b[31m[rank{0}]:[E ProcessGroupNCCL.cpp:577] Some NCCL operations have failed or timed "
    "out.\x1b[0m",
    "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: rank {0}",
    "  exitcode  : -6 (pid: {0})",
)


class Text(NamedTuple):
    """One text and what it is about."""

    kind: str
    node_at_fault: str  #: "true", "false" or "unknown"
    body: str


def texts() -> list[Text]:
    """Read `texts.txt`: "=== kind node_at_fault", then the text."""
    blocks = Path(__file__).with_name("texts.txt").read_text().split("=== ")[1:]
    found = []
    for block in blocks:
        head, _, body = block.partition("\n")
        kind, node_at_fault = head.split()
        found.append(Text(kind, node_at_fault, body))
    return found
