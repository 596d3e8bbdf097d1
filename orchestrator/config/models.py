"""What all models of our files share, and how their mistakes are told.

pydantic finds the mistakes; here they become lines like

    holdfast.yaml:7: clusters[1].nodes: expected a whole number, got 'three'

which name the file, the line, the path of the key, what was expected, and a near key where one
was probably meant.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.config.documents import Document, describe
from orchestrator.errors import UserError

MISTAKES_MAX = 20  #: told at once

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
}


class Strict(BaseModel):
    """A frozen part of a file: unknown keys are mistakes, and no type is guessed."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, allow_inf_nan=False
    )

    #: Keys whose engine comes with a later version, and what to do until then.
    later: ClassVar[Mapping[str, str]] = {}


Model = TypeVar("Model", bound=BaseModel)


def build(model: type[Model], document: Document, context: Any = None) -> Model:
    """Return the document as a `model`; raises `UserError` with every mistake, a line each."""
    try:
        return model.model_validate(document.data, context=context)
    except ValidationError as error:
        lines = [_line(mistake, document, model) for mistake in error.errors()]
        # `from None`: the cause quotes values, which may be secrets
        raise UserError("\n".join(sorted(set(lines), key=_by_line)[:MISTAKES_MAX])) from None


def place(document: Document, keys: Sequence[str | int]) -> str:
    """Return `file:line: path.of[0].key` for a part of a document."""
    line = document.where(keys)
    at = f"{document.path}:{line}" if line is not None else str(document.path)
    return f"{at}: {dotted(keys)}" if keys else at


def dotted(keys: Iterable[str | int]) -> str:
    """Return keys as people write them: clusters[1].nodes."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" for a near name, else the known names."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""


def _by_line(text: str) -> tuple[int, str]:
    number = re.search(r":(\d+): ", text)
    return (int(number[1]) if number else 0, text)


def _line(mistake: ErrorDetails, document: Document, model: type[BaseModel]) -> str:
    keys = _real(mistake["loc"], document, missing=mistake["type"] == "missing")
    return f"{place(document, keys)}: {_text(mistake, keys, model)}"


def _real(loc: Sequence[str | int], document: Document, *, missing: bool) -> tuple[str | int, ...]:
    """Return `loc` without pydantic's own names for the arms of a union."""
    keys: tuple[str | int, ...] = ()
    for key in loc[:-1] if missing else loc:
        keys = (*keys, key) if document.has((*keys, key)) else keys
    return (*keys, loc[-1]) if missing else keys


def _text(mistake: ErrorDetails, keys: Sequence[str | int], model: type[BaseModel]) -> str:
    kind, value = mistake["type"], mistake["input"]
    context: Mapping[str, Any] = mistake.get("ctx", {})
    if kind == "missing":
        return "this key is required"
    if kind == "extra_forbidden":
        return _unknown(str(keys[-1]), models_at(model, keys[:-1]))
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"expected {context['expected']}, got {describe(value)}"
    if kind == "too_short":
        return f"expected at least {context['min_length']} of them, got {describe(value)}"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, got {describe(value)}"
    message = mistake["msg"].removeprefix("Input ")
    return f"{message[:1].lower()}{message[1:]}, got {describe(value)}"


def _unknown(key: str, models: Iterable[type[BaseModel]]) -> str:
    for one in models:
        if issubclass(one, Strict) and key in one.later:
            return f"not available yet: {one.later[key]}"
    fields = [field for one in models for field in one.model_fields.items()]
    return f"unknown key{nearest(key, {about.alias or name for name, about in fields})}"


def models_at(model: type[BaseModel], keys: Sequence[str | int]) -> set[type[BaseModel]]:
    """Return the models that may describe the part of a file at `keys`."""
    models = {model}
    for key in keys:
        fields = [one.model_fields[key] for one in models if key in one.model_fields]
        below = {found for field in fields for found in _models(field.annotation)}
        models = below or models  # an index, or the name of a union's arm, goes no deeper
    return models


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
