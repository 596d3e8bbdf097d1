"""The rules as data: which words on a line speak for which kind of failure.

The files in `rules/` are the one place to add or mend a rule; `rules/README.md` says how.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
FILES = ("gpu", "network", "host", "storage", "application")
XID_LITERAL = "nvrm: xid ("
#: Nothing in it gives back what it took: a line of digits without an end must not take seconds.
_XID_CLOSED = r"[0-9a-f:.]++[^)\n]*+\)[^:\n]*+"
_XID_OPEN = r"[0-9a-f:.]{0,40}[0-9a-f][^):\n]{0,80}+"  #: the bracket was cut off
XID_PATTERN = rf"nvrm: xid \((?:pci:)?(?:{_XID_CLOSED}|{_XID_OPEN}): (?P<xid>\d+)\b"
XID_HARDWARE, XID_APPLICATION = 95, 76  #: strengths: hardware first, wherever it stands

Answer = bool | str  #: true, false, or "unknown"


class Kind(NamedTuple):
    """What one kind of failure means unless a rule says otherwise."""

    name: str
    family: str
    node_at_fault: Answer
    restart_helps: Answer


class Rule(NamedTuple):
    """One sign. It holds on a line that contains one of `literals` and matches `pattern`."""

    name: str
    kind: str
    strength: int  #: 0 to 100: how surely this is the cause and not a consequence
    literals: tuple[str, ...]  #: in lower case; found before any pattern is tried
    pattern: re.Pattern[str] | None  #: of the line in lower case
    source: str  #: where the text is documented
    masks: bool = False  #: the line says nothing else, however alarming its words
    generic: bool = False  #: says nothing beside another sign on the same line
    node_at_fault: Answer | None = None
    restart_helps: Answer | None = None
    yields_to_earlier: tuple[str, ...] = ()  #: kinds that are the cause if they came before


class Rulebook(NamedTuple):
    """All rules, and what their kinds mean."""

    kinds: dict[str, Kind]
    rules: tuple[Rule, ...]
    xids: dict[int, str]  #: XID -> kind


@cache
def rulebook() -> Rulebook:
    """Read the rules; ValueError names the rule that is wrong."""
    kinds = {name: Kind(name, **body) for name, body in _read(HERE / "kinds.toml").items()}
    rules: list[Rule] = []
    xids: dict[int, str] = {}
    for file in FILES:
        body = _read(HERE / "rules" / f"{file}.toml")
        rules += [_rule(one, kinds) for one in body["rules"]]
        for kind, codes in body.get("xid", {}).items():
            xids |= dict.fromkeys(codes, kind)
    rules += [_xid_rule(code, kinds[kind]) for code, kind in sorted(xids.items())]
    return Rulebook(kinds, tuple(rules), xids)


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _rule(body: dict[str, Any], kinds: dict[str, Kind]) -> Rule:
    try:
        pattern = re.compile(body["pattern"]) if "pattern" in body else None
        literals = tuple(body["any"])
        if body["kind"] not in kinds:
            raise ValueError(f"no kind {body['kind']!r}")
        if any(one != one.lower() or len(one) < 3 for one in literals):
            raise ValueError("literals are of three letters at least, in lower case")
        return Rule(
            name=body["id"],
            kind=body["kind"],
            strength=body["strength"],
            literals=literals,
            pattern=pattern,
            source=body["source"],
            masks=body.get("masks", False),
            generic=body.get("generic", False),
            node_at_fault=body.get("node_at_fault"),
            restart_helps=body.get("restart_helps"),
            yields_to_earlier=tuple(body.get("yields_to_earlier", ())),
        )
    except (KeyError, ValueError, re.error) as error:
        raise ValueError(f"rule {body.get('id', body)}: {error}") from error


def _xid_rule(code: int, kind: Kind) -> Rule:
    hardware = kind.family == "gpu-hardware"
    return Rule(
        name=f"xid-{code}",
        kind=kind.name,
        strength=XID_HARDWARE if hardware else XID_APPLICATION,
        literals=(XID_LITERAL,),
        pattern=re.compile(XID_PATTERN.replace(r"\d+", str(code))),
        source="NVIDIA XID catalogue",
        restart_helps=False if code == 63 else None,  # a pending remap stays until a reset
    )
