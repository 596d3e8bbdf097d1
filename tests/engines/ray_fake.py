"""Ray's Jobs REST API as far as we speak it, with jobs that a test decides on. Real HTTP."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "c0ffee" * 8


@dataclass
class Job:
    """One job: what its driver was asked, and what became of it."""

    entrypoint: str
    status: str = "PENDING"
    message: str = "Job is waiting."
    logs: str = ""

    @property
    def asked(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(shlex.split(self.entrypoint)[-1])
        return body

    def succeed(self, nodes: dict[str, Any]) -> None:
        self.status, self.message = "SUCCEEDED", "Job finished successfully."
        self.logs = f"worker.py -- Connected\nholdfast-said {json.dumps({'nodes': nodes})}\n"

    def hold_all(self) -> None:
        self.succeed({node: {"held": True, "alone": 86400.0} for node in self.asked["nodes"]})


@dataclass
class FakeJobs:
    """The server's state; `on_look` is called for each look at a job that is not over."""

    on_look: Callable[[Job], None] = Job.hold_all
    jobs: dict[str, Job] = field(default_factory=dict)
    answers: list[tuple[int, bytes]] = field(default_factory=list)  #: said first, whatever is asked
    requests: list[str] = field(default_factory=list)
    port: int = 0

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        self.requests.append(f"{method} {path}")
        if path.endswith("/stop"):
            self.jobs[path.split("/")[3]].status = "STOPPED"
            return 200, b'{"stopped": true}'
        if method == "POST":
            asked = json.loads(body)
            name = asked["submission_id"]
            if name in self.jobs:
                said = f"Traceback ...\nValueError: Job with submission_id {name} already exists."
                return 500, said.encode()
            self.jobs[name] = Job(asked["entrypoint"])
            return 200, json.dumps({"job_id": name, "submission_id": name}).encode()
        if path == "/api/version":
            return 200, b'{"version": "4", "ray_version": "2.60.0"}'
        name, _, rest = path.removeprefix("/api/jobs/").partition("/")
        job = self.jobs.get(name)
        if job is None:
            return 404, f"Job {name} does not exist".encode()
        if method == "DELETE":
            del self.jobs[name]
            return 200, b'{"deleted": true}'
        if rest == "logs":
            return 200, json.dumps({"logs": job.logs}).encode()
        if job.status in ("PENDING", "RUNNING"):
            self.on_look(job)
        return 200, json.dumps({"status": job.status, "message": job.message}).encode()


@contextmanager
def served(fake: FakeJobs) -> Iterator[FakeJobs]:
    """Serve on a free port of the loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            sealed = self.headers.get("Authorization")
            if fake.answers:
                status, said = fake.answers.pop(0)
            elif sealed is None:
                status, said = 401, b"Unauthorized: Missing authentication token"
            elif sealed != f"Bearer {TOKEN}":
                status, said = 403, b"Forbidden: Invalid authentication token"
            else:
                status, said = fake.answer(self.command, self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST = do_DELETE = _do  # noqa: N815 - names of http.server

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
