"""The report of an acceptance, for the provider: Markdown, or the same as a page of HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from orchestrator.cli.output import clean
from orchestrator.core.acceptance import Acceptance, Examined, Standing

STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{border:1px solid #999;padding:.2em .6em;text-align:left}"
)
Table = tuple[Sequence[str], Sequence[Sequence[str]]]  #: headers, rows
Block = str | Table  #: a paragraph or a table; a paragraph that begins with "# " is a heading


def markdown(found: Acceptance, cohort: str, at: datetime) -> str:
    """Return the report as Markdown."""
    return "\n\n".join(_as_markdown(one) for one in _blocks(found, cohort, at)) + "\n"


def page(found: Acceptance, cohort: str, at: datetime) -> str:
    """Return the report as HTML that needs nothing else."""
    body = "\n".join(_as_html(one) for one in _blocks(found, cohort, at))
    head = f'<meta charset="utf-8"><title>{html.escape(cohort)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _blocks(found: Acceptance, cohort: str, at: datetime) -> Iterator[Block]:
    yield f"# Acceptance of {cohort}"
    verdict = "passed" if found.passed else "NOT passed"
    counts = ", ".join(
        f"{len(found.named(one))} {one.value}" for one in Standing if found.named(one)
    )
    yield f"{at:%Y-%m-%d %H:%M} UTC: {verdict}. {len(found.nodes)} nodes: {counts}."
    yield "## Nodes"
    headers = ("node", "standing", "coverage", "why")
    yield headers, [(one.node, one.standing, share(one), why(one)) for one in found.nodes]
    yield "## Faults"
    faults = [
        (one.node, fault.component, fault.detector, fault.evidence, fault.remedy or "-")
        for one in found.nodes
        for fault in one.faults
    ]
    named = ("node", "component", "detector", "evidence", "asked for")
    yield (named, faults) if faults else "None."
    missing = [
        (one.node, what, reason) for one in found.nodes for what, reason in one.missing.items()
    ]
    if missing:
        yield "## Not looked at"
        yield ("node", "stage/check", "why"), missing
    yield "## Links"
    yield _links(found)
    rates = list(_rates(found.nodes))
    if rates:
        yield "## Measured"
        yield ("node", "check", "component", "figure"), rates
    remarks = [(one.node, remark) for one in found.nodes for remark in one.remarks]
    if remarks:
        yield "## Remarks"
        yield ("node", "remark"), remarks


def share(one: Examined) -> str:
    """Return how much of a node was looked at."""
    return "100 %" if not one.missing else f"{min(99.9, 100 * one.coverage):.1f} %"


def why(one: Examined) -> str:
    """Return what speaks against a node, in a few words."""
    if one.faults:
        return "; ".join(f"{fault.detector} on {fault.component}" for fault in one.faults[:4])
    return f"{len(one.missing)} checks without an answer" if one.missing else "nothing against it"


def _links(found: Acceptance) -> str:
    if found.links is None:
        return f"Not tested: {found.why_no_links or 'a single node has none'}."
    said = found.links.reason or "no pair of nodes stands out"
    return f"{found.links.outcome.value}: {said} (posterior {found.links.posterior:.4f})."


def _rates(nodes: Iterable[Examined]) -> Iterator[Sequence[str]]:
    for one in nodes:
        for check, parts in one.figures.items():
            for part, value in parts.items():
                if isinstance(value, float):
                    yield one.node, check, part, f"{value:.4g}"


def _as_markdown(block: Block) -> str:
    if isinstance(block, str):
        return _plain(block)
    headers, rows = block
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    escaped = _plain(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return escaped.replace("\n", " ")


def _plain(text: str) -> str:
    return clean(str(text))


def _as_html(block: Block) -> str:
    if isinstance(block, str):
        level = len(block) - len(block.lstrip("#"))
        text = html.escape(_plain(block[level:].strip()))
        return f"<h{level}>{text}</h{level}>" if level else f"<p>{text}</p>"
    headers, rows = block
    top = "".join(f"<th>{html.escape(one)}</th>" for one in headers)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(_plain(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table>\n<tr>{top}</tr>\n{body}\n</table>"
