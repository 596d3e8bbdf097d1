"""Runbooks as files: found beside the installed packages, read, and checked.

`holdfast runbook list|show` and the tests use it. A runbook is Markdown with front matter:
`title`, `page` (of `core.pages`, also the file's name), `urgency` and `summary`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from orchestrator.core.pages import Page, Urgency, urgency
from orchestrator.errors import PermanentError, UserError

KEYS = ("title", "page", "urgency", "summary")


class BadRunbookError(PermanentError):
    """A runbook of this installation is not one: its front matter is missing or contradicts."""


@dataclass(frozen=True, slots=True)
class Runbook:
    """One runbook."""

    page: Page
    title: str
    urgency: Urgency
    summary: str
    body: str  #: Markdown, without the front matter

    @property
    def name(self) -> str:
        """Return the name it is asked for by."""
        return self.page.value


def names() -> tuple[str, ...]:
    """Return the names of all runbooks, sorted."""
    return tuple(sorted(path.stem for path in _folder().glob("*.md")))


def load(name: str) -> Runbook:
    """Read one runbook; `name` is a page, or a path such as alerts show it.

    Raises `UserError` if there is none, with the nearest name.
    """
    wanted = name.removeprefix("runbooks/").removesuffix(".md")
    known = names()
    if wanted not in known:
        near = difflib.get_close_matches(wanted, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
        raise UserError(f"no runbook is called {wanted}{hint}")
    return parse(wanted, (_folder() / f"{wanted}.md").read_text(encoding="utf-8"))


def load_all() -> tuple[Runbook, ...]:
    """Read every runbook, sorted by name."""
    return tuple(load(name) for name in names())


def parse(name: str, text: str) -> Runbook:
    """Read a runbook's text; raises `BadRunbookError`."""
    front, body = _split(name, text)
    missing = [key for key in KEYS if not isinstance(front.get(key), str)]
    if missing:
        raise BadRunbookError(f"runbook {name}: the front matter lacks {', '.join(missing)}")
    if front["page"] != name or name not in {page.value for page in Page}:
        raise BadRunbookError(f"runbook {name}: its page is {front['page']}")
    page = Page(name)
    if front["urgency"] != urgency(page).value:
        raise BadRunbookError(f"runbook {name}: {page} is told as {urgency(page)}")
    return Runbook(page, front["title"], urgency(page), front["summary"], body)


def _split(name: str, text: str) -> tuple[dict[str, Any], str]:
    """Return the front matter and the rest."""
    start, _, rest = text.partition("---\n")
    head, found, body = rest.partition("\n---\n")
    if start or not found:
        raise BadRunbookError(f"runbook {name} has no front matter")
    try:
        front = yaml.safe_load(head)
    except yaml.YAMLError as error:
        raise BadRunbookError(f"runbook {name}: {error}") from error
    if not isinstance(front, dict):
        raise BadRunbookError(f"runbook {name}: the front matter is not a table")
    return front, body.lstrip("\n")


def _folder() -> Path:
    package = find_spec("runbooks")
    if package is None or package.origin is None:
        raise PermanentError("the package runbooks is not installed; install holdfast again")
    return Path(package.origin).parent
