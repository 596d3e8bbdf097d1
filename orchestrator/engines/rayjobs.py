"""Ray's Jobs REST API, as far as we need it: submit, look, read what was printed, forget.

It listens on the head's loopback only and is reached through a tunnel of our own transport; every
request carries the cluster's token. Nothing of Ray is imported here: one controller may serve
clusters of different versions, each with a token of its own.
"""

from __future__ import annotations

import http.client
import io
import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast
from urllib.parse import quote

from orchestrator.errors import PermanentError, TransientError
from orchestrator.runtime.wire import Connection

LIMIT = 10.0  #: seconds for one request
ANSWER_MAX = 4_000_000  #: bytes; what a cluster says is untrusted
SAYS_MAX = 300  #: characters of what it says that reach a message

#: limit in seconds -> a connection to the API
Open = Callable[[float], AbstractContextManager[Connection]]


class JobState(StrEnum):
    """How far Ray is with a job."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @property
    def over(self) -> bool:
        """Say whether nothing more will come of it."""
        return self not in (JobState.PENDING, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class JobSeen:
    """What Ray says of a job."""

    state: JobState
    message: str


class RayJobs:
    """The jobs of one Ray cluster.

    Every call raises `TransientError` if the API is silent or says nonsense, `PermanentError` if it
    does not accept our token or refuses what is asked.
    """

    def __init__(self, open_: Open, token: Callable[[], str]) -> None:
        """`token` is read for each request, so that a new one needs no restart."""
        self._open, self._token = open_, token

    def submit(self, job: str, entrypoint: str) -> None:
        """Submit a job under an id of ours.

        May be repeated: an id that Ray knows already is not started twice. Raises
        `PermanentError` if Ray refuses it.
        """
        status, said = self._ask(
            "POST", "/api/jobs/", {"entrypoint": entrypoint, "submission_id": job}
        )
        if status != http.HTTPStatus.OK and not (status >= 400 and "already exists" in said):
            self._refuse(status, said)

    def look(self, job: str) -> JobSeen | None:
        """Return what Ray says of a job, or None if it knows none of that id."""
        status, said = self._ask("GET", f"/api/jobs/{quote(job, safe='')}")
        if status == http.HTTPStatus.NOT_FOUND:
            return None
        body = self._body(status, said)
        try:
            return JobSeen(JobState(body["status"]), plain(str(body.get("message") or "")))
        except (KeyError, ValueError) as error:
            raise TransientError(f"Ray says nothing of the state of job {job}: {error}") from error

    def said(self, job: str) -> str:
        """Return what a job printed."""
        status, said = self._ask("GET", f"/api/jobs/{quote(job, safe='')}/logs")
        return str(self._body(status, said).get("logs") or "")

    def stop(self, job: str) -> None:
        """Let Ray end a job that is not over; it stays in Ray's list."""
        status, said = self._ask("POST", f"/api/jobs/{quote(job, safe='')}/stop", {})
        if status not in (http.HTTPStatus.OK, http.HTTPStatus.NOT_FOUND):
            self._refuse(status, said)

    def forget(self, job: str) -> None:
        """Delete a job that is over from Ray's list."""
        status, said = self._ask("DELETE", f"/api/jobs/{quote(job, safe='')}")
        if status not in (http.HTTPStatus.OK, http.HTTPStatus.NOT_FOUND):
            self._refuse(status, said)

    def version(self) -> str:
        """Return the version of Ray there."""
        status, said = self._ask("GET", "/api/version")
        return plain(str(self._body(status, said).get("ray_version") or "unknown"))

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, str]:
        headers = {"Content-Type": "application/json", "Connection": "close"}
        headers["Authorization"] = f"Bearer {_sendable(self._token())}"
        data = None if body is None else json.dumps(body).encode()
        end = time.monotonic() + LIMIT
        try:
            with self._open(LIMIT) as connection:
                asking = http.client.HTTPConnection("127.0.0.1")
                asking.sock = cast(Any, _Socket(connection, end))
                asking.request(method, path, data, headers)
                answer = asking.getresponse()
                said = answer.read(ANSWER_MAX + 1)
        except TimeoutError as error:
            raise TransientError(f"Ray's jobs API: no answer within {LIMIT:g} s") from error
        except (OSError, EOFError, http.client.HTTPException, ValueError) as error:
            raise TransientError(f"Ray's jobs API: {plain(str(error))}") from error
        if len(said) > ANSWER_MAX:
            raise TransientError(f"Ray's jobs API: an answer of more than {ANSWER_MAX} bytes")
        return answer.status, said.decode(errors="replace")

    def _body(self, status: int, said: str) -> dict[str, Any]:
        if status != http.HTTPStatus.OK:
            self._refuse(status, said)
        try:
            body = json.loads(said)
        except (ValueError, RecursionError) as error:
            raise TransientError(f"Ray's jobs API said no JSON: {plain(said)}") from error
        if not isinstance(body, dict):
            raise TransientError(f"Ray's jobs API said no JSON object: {plain(said)}")
        return body

    def _refuse(self, status: int, said: str) -> None:
        if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
            raise PermanentError(f"Ray does not accept our token ({status}); check `ray.token`")
        kind = TransientError if status >= 500 or status in (408, 429) else PermanentError
        raise kind(f"Ray's jobs API answered {status}: {plain(said)}")


class _Socket:
    """A tunnel as http.client uses a socket, with one deadline for all of a request."""

    def __init__(self, connection: Connection, end: float) -> None:
        self._connection, self._end = connection, end

    def sendall(self, data: bytes) -> None:
        self._connection.settimeout(_left(self._end))
        self._connection.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(_Stream(self._connection, self._end))

    def close(self) -> None:
        """Whoever opened the tunnel closes it."""


class _Stream(io.RawIOBase):
    def __init__(self, connection: Connection, end: float) -> None:
        self._connection, self._end = connection, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(_left(self._end))
        data = self._connection.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _sendable(token: str) -> str:
    """Return a token; what no header can carry is refused here, where it is not repeated."""
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise PermanentError("`ray.token` holds characters that no token has; look at its source")
    return token


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def plain(text: str) -> str:
    """Return what a cluster said as one short printable line."""
    said = "".join(one if one.isprintable() else " " for one in text)
    return " ".join(said.split())[-SAYS_MAX:]
