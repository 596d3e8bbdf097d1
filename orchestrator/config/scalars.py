"""The kinds of single values in our files: durations, names, secrets by reference, places.

Each says in its error what it expects, with an example, and never repeats a value that may be a
secret.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from orchestrator.config.models import Strict
from orchestrator.errors import UserError
from orchestrator.runtime.s3 import parse_url

_UNITS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PLAIN = re.compile(r"(?:(\d+(?:\.\d+)?)(ms|d|h|m|s))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|d|h|m|s)")
_ISO = re.compile(
    r"P(?:(?P<d>\d+(?:\.\d+)?)D)?"
    r"(?:T(?:(?P<h>\d+(?:\.\d+)?)H)?(?:(?P<m>\d+(?:\.\d+)?)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?)?"
)
DURATION_MAX = timedelta(days=366)  #: longer is a typing error

VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"  #: an environment variable's name
NAME = r"^[a-z0-9][a-z0-9-]{0,40}$"  #: of clusters, nodes, jobs: they become folders and hosts


def duration(value: Any) -> timedelta:
    """Read "3s", "1h30m", "500ms" or ISO 8601 "PT1H30M"; raises ValueError."""
    if isinstance(value, timedelta):
        return value
    text = value.strip().replace(" ", "") if isinstance(value, str) else ""
    seconds = _seconds(text)
    if seconds is None:
        raise ValueError("expected a duration with its unit, such as 3s, 5m or 1h30m")
    if seconds > DURATION_MAX.total_seconds():
        raise ValueError(f"expected a duration of at most {DURATION_MAX.days} days")
    return timedelta(seconds=seconds)


def _seconds(text: str) -> float | None:
    if _PLAIN.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    iso = _ISO.fullmatch(text)
    if iso is None or not any(iso.groups()):
        return None
    return sum(float(part) * _UNITS[unit] for unit, part in iso.groupdict().items() if part)


def spell(value: timedelta) -> str:
    """Return a duration as our files write it: 1h30m."""
    rest, text = round(value.total_seconds() * 1000), ""
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(rest, round(_UNITS[unit] * 1000))
        text += f"{count}{unit}" if count else ""
    return text or "0s"


Duration = Annotated[
    timedelta,
    BeforeValidator(duration),
    PlainSerializer(spell, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["3s", "5m", "1h30m", "PT90S"]}),
]


def _name(value: Any) -> Any:
    if isinstance(value, str) and not re.match(NAME, value):
        raise ValueError(
            "expected a name of small letters, digits and hyphens, at most 41, "
            f"beginning with a letter or digit, got {value[:60]!r}"
        )
    return value


Name = Annotated[str, BeforeValidator(_name), WithJsonSchema({"type": "string", "pattern": NAME})]


_KEYS = {"env", "file"}
# Never followed by what was given: that may be the secret itself.
_BY_REFERENCE = (
    "a secret is never written in the file: expected {env: NAME} or {file: PATH}, one of them"
)


class SecretRef(Strict):
    """Where a secret is found; the secret itself is never in our files, ledger or output."""

    env: str | None = Field(default=None, description="name of an environment variable")
    file: str | None = Field(default=None, min_length=1, description="path of a file that holds it")

    @model_validator(mode="before")
    @classmethod
    def _never_in_the_file(cls, value: Any) -> Any:
        if isinstance(value, SecretRef) or (isinstance(value, dict) and value.keys() - _KEYS):
            return value  # unknown keys are told as everywhere
        if not isinstance(value, dict) or len(value) != 1:
            raise ValueError(_BY_REFERENCE)
        return value

    @field_validator("env")
    @classmethod
    def _a_variable(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(VARIABLE, value):
            raise ValueError(f"not the name of an environment variable; {_BY_REFERENCE}")
        return value

    @field_validator("file")
    @classmethod
    def _from_its_folder(cls, value: str | None, details: ValidationInfo) -> str | None:
        return value and str(absolute(value, _folder(details)))

    def reveal(self) -> str:
        """Read the secret now; raises `UserError` that names the reference, never the secret."""
        if self.env is not None:
            value = os.environ.get(self.env, "")
            if not value:
                raise UserError(f"the environment variable {self.env} is not set; export it first")
            return value
        path = Path(str(self.file))
        try:
            value = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"the secret file {path} cannot be read: {error}") from error
        if not value:
            raise UserError(f"the secret file {path} is empty")
        return value

    def __repr__(self) -> str:
        """Name the reference only."""
        return f"SecretRef(env={self.env!r})" if self.env else f"SecretRef(file={self.file!r})"

    __str__ = __repr__


def store_url(value: str, folder: Path) -> str:
    """Return the URL of a place for checkpoints or records, absolute; raises ValueError.

    A plain path is taken relative to `folder`, the folder of the file it is written in.
    """
    split = urlsplit(value)
    if split.scheme == "file":
        if split.netloc or not split.path.startswith("/"):
            raise ValueError(f"expected file:///absolute/path, got {value!r}")
        return Path(os.path.normpath(unquote(split.path))).as_uri()
    if split.scheme == "s3":
        try:
            parse_url(value)
        except UserError as error:
            raise ValueError(str(error)) from error
        return value
    if "://" in value:
        raise ValueError(
            f"no store is of the kind {split.scheme}://; give a folder that every node can reach "
            "(/path or file:///path), or s3://BUCKET/PREFIX"
        )
    return absolute(value, folder).as_uri()


def absolute(value: str, folder: Path) -> Path:
    """Return a path as if it were written in a file of `folder`."""
    path = Path(value).expanduser()
    return Path(os.path.normpath(path if path.is_absolute() else folder.absolute() / path))


def _folder(details: ValidationInfo) -> Path:
    """Return the folder that relative paths start from: that of the file being read."""
    return Path(details.context or ".")


def _absolute(value: Any, details: ValidationInfo) -> Any:
    usable = isinstance(value, str | Path) and str(value)
    return absolute(str(value), _folder(details)) if usable else value


def _store_url(value: Any, details: ValidationInfo) -> Any:
    return store_url(value, _folder(details)) if isinstance(value, str) else value


Folder = Annotated[
    Path, BeforeValidator(_absolute), WithJsonSchema({"type": "string", "minLength": 1})
]
StoreUrl = Annotated[
    str, BeforeValidator(_store_url), WithJsonSchema({"type": "string", "examples": ["file:///x"]})
]
