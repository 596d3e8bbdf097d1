"""`holdfast detector` and what `why` tells of one."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.core.assess import assess
from orchestrator.core.decisions import LabelFiring, SetAuthority
from orchestrator.core.detectors import Authority
from orchestrator.core.firings import FiringLabel
from orchestrator.core.nodes import NodeName
from orchestrator.core.observations import Probed
from orchestrator.core.verdicts import Channel, FaultClass, Finding, Severity
from tests.cli.conftest import Holdfast, Story


def fires(story: Story, *nodes: str) -> None:
    """Let XID 79 and an unlabelled check fire on nodes; the first was wrong each time."""
    for name in nodes:
        bad = Severity.CRITICAL, FaultClass.HARDWARE, "gone", Channel.NODE, story.now
        found = (Finding("xid", "gpu5", *bad, code="79"), Finding("net", "nic0", *bad))
        seen = Probed(NodeName(name), story.now, "b1", found, complete=True)
        story.ledger.record(story.token, [seen], story.now, assess)
        reason = "it served 7 days without a confirmation"
        where = (NodeName(name), "xid:79", Channel.NODE, story.now)
        story.decide(LabelFiring(*where, FiringLabel.WRONG, reason))


def test_the_list_says_who_may_evict_and_why(holdfast: Holdfast, story: Story) -> None:
    fires(story, "a-001", "a-002", "b-001")
    story.decide(SetAuthority("xid:79", Authority.OBSERVE, "0 of 3 labels right"))
    listed = json.loads(holdfast("detector", "list", "-o", "json").stdout)
    rows = {row["detector"]: row for row in listed}
    assert (rows["xid:79"]["authority"], rows["xid:79"]["wrong"]) == ("observe", 3)
    assert rows["xid:79"]["reason"] == "0 of 3 labels right"
    assert (rows["xid:48"]["authority"], rows["xid:48"]["reason"]) == (
        "act",
        "an explicit hardware fault",
    )
    assert rows["xid:48"]["precision"] == 0.99
    assert (rows["net"]["authority"], rows["net"]["open"]) == ("observe", 3)
    table = holdfast("detector", "list").stdout
    assert table.splitlines()[0].split()[:3] == ["DETECTOR", "AUTHORITY", "RIGHT"]


def test_one_detector_is_shown_with_its_labels(holdfast: Holdfast, story: Story) -> None:
    fires(story, "a-001")
    shown = json.loads(holdfast("detector", "show", "xid:79", "-o", "json").stdout)
    assert shown["demotion"].endswith("demoted at 1000")
    assert [(one["node"], one["label"]) for one in shown["labels"]] == [("a-001", "wrong")]
    told = holdfast("detector", "show", "xid:79")
    assert told.exit_code == 0
    assert "holdfast why xid:79" in told.stderr
    missing = holdfast("detector", "show", "xid:7")
    assert missing.exit_code == 2
    assert "no detector is called 'xid:7'" in missing.stderr


def test_the_operator_silences_a_detector(holdfast: Holdfast, story: Story) -> None:
    path = Path("holdfast.yaml")
    path.write_text(path.read_text() + "policy: {observe: ['xid:79']}\n")
    row = json.loads(holdfast("detector", "show", "xid:79", "-o", "json").stdout)
    assert (row["authority"], row["reason"]) == ("silenced", "by the operator: policy.observe")


def test_why_tells_the_story_of_a_detector(holdfast: Holdfast, story: Story) -> None:
    fires(story, "a-001", "b-001")
    story.decide(SetAuthority("xid:79", Authority.OBSERVE, "0 of 2 labels right"))
    told = holdfast("why", "xid:79").stdout
    assert "xid:79 on a-001 was wrong: it served 7 days" in told
    assert "xid:79 is only a suspicion from now on: 0 of 2 labels right" in told
    assert "xid:79 on b-001 was wrong" in holdfast("why", "b-001").stdout
