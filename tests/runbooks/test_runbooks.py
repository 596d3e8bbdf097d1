"""Every page has a runbook that answers the same five questions."""

from __future__ import annotations

import re

import pytest

from orchestrator.cli.runbook_files import BadRunbookError, load, load_all, names, parse
from orchestrator.core.pages import Page, urgency
from orchestrator.errors import UserError

SECTIONS = ["What happened", "What Holdfast has done", "Look", "Do", "It is over when"]
FRONT = "---\ntitle: T\npage: no-spare\nurgency: page\nsummary: S\n---\n\n# T\n"


def test_every_page_has_a_runbook_and_every_runbook_a_page() -> None:
    assert set(names()) == {page.value for page in Page}


@pytest.mark.parametrize("page", Page)
def test_a_runbook_answers_the_same_questions_in_the_same_order(page: Page) -> None:
    runbook = load(page.value)
    assert re.findall(r"^## (.+)$", runbook.body, re.MULTILINE) == SECTIONS
    assert runbook.urgency is urgency(page)
    assert runbook.body.startswith(f"# {runbook.title}\n")
    assert "holdfast " in runbook.body


def test_an_alert_s_path_finds_its_runbook() -> None:
    assert load("runbooks/no-spare.md").page is Page.NO_SPARE


def test_all_are_read() -> None:
    assert len(load_all()) == len(Page)


def test_a_name_that_is_nearly_right_gets_a_hint() -> None:
    with pytest.raises(UserError, match="did you mean no-spare"):
        load("no-spares")


def test_a_name_that_is_wrong_gets_the_list() -> None:
    with pytest.raises(UserError, match="there are bad-checkpoint"):
        load("zzz")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no-spare", "# T\n"),
        ("no-spare", FRONT.replace("urgency: page", "urgency: alert")),
        ("no-spare", FRONT.replace("title: T\n", "")),
        ("no-spare", FRONT.replace("title: T", "title: [")),
        ("no-spare", "---\n- a\n---\n"),
        ("restarts", FRONT),
        ("weather", FRONT.replace("no-spare", "weather")),
    ],
)
def test_what_contradicts_its_page_is_refused(name: str, text: str) -> None:
    with pytest.raises(BadRunbookError):
        parse(name, text)


def test_what_is_well_formed_is_read() -> None:
    assert parse("no-spare", FRONT).body == "# T\n"
