"""Who holds up a gang that stalls: the stacks of all its ranks, judged together.

Each agent tells the stack of a rank whose silence is suspicious. As soon as all ranks are silent
and all stacks are there, the one that is elsewhere while the others wait in a collective is named,
with its node and its stack. Nobody is ended or accused for it: a rank stuck in its own code says
nothing about its node.
"""

from __future__ import annotations

from healthchecks.hangs import frames, judge
from orchestrator.core.assess import STALL
from orchestrator.core.gang import live
from orchestrator.core.jobs import Attempt
from orchestrator.core.look import Look
from orchestrator.core.nodes import NodeName
from orchestrator.runtime.reports import Stage

FRAMES = 6  #: of the culprit's stack, the innermost


def who_stalls(look: Look, attempt: Attempt) -> str | None:
    """Return in words which rank holds the others up; None if it is not clear, or not all stall."""
    stacks: dict[int, str] = {}
    places: dict[int, NodeName] = {}
    ranks = 0
    for name, agent in look.agents(attempt):
        if agent.report is None or not live(agent) or agent.report.stage is not Stage.RUNNING:
            continue
        stepped = {one.rank: one.step_at for one in agent.report.ranks}
        formed = max(
            (one.number for one in agent.notes if one.kind == "generation-formed"), default=0
        )
        ranks += len(stepped)
        for note in agent.notes:
            rank, stack = note.data.get("rank"), note.data.get("stack")
            if note.kind != STALL or note.number < formed:
                continue
            if not isinstance(rank, int) or not isinstance(stack, str) or rank not in stepped:
                continue
            at = stepped[rank]
            if at is None or at <= note.at:  # both on the node's clock
                stacks[rank], places[rank] = stack, name
    if ranks < 2 or len(stacks) < ranks:
        return None
    found = judge({}, stacks)
    if not found.ranks:
        return None
    first = found.ranks[0]
    inner = " < ".join(frames(found.stacks[first])[:FRAMES])
    return f"{places[first]}: {found.reason}; stack: {inner}"
