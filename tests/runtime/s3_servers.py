"""Servers that speak S3: moto's, as a process of its own, and one that misbehaves by script."""

from __future__ import annotations

import functools
import http.client
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

_ALIVE: list[subprocess.Popen[bytes]] = []
PAGE = 100  #: keys in a listing of it; 1,000 with real servers
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing-secret"}


@functools.cache
def moto() -> str:
    """Return the endpoint of a moto server of this process; it ends with us."""
    pytest.importorskip("moto", reason="moto is not installed (extra dev)")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    script = (
        "import ctypes, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGKILL); "
        "from moto.server import main; main(sys.argv[1:])"
    )
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, "-H", "127.0.0.1", "-p", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE)},
    )
    _ALIVE.append(server)  # it dies with us: see its first line
    end = time.monotonic() + 60
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/")
            connection.getresponse().read()
            connection.close()
            return f"http://127.0.0.1:{port}"
        except OSError:
            assert time.monotonic() < end, "moto's server did not start"
            time.sleep(0.1)


def bucket(endpoint: str) -> str:
    """Make a bucket; return the URL of a prefix in it."""
    import boto3

    name = f"holdfast-{secrets.token_hex(6)}"
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=name)
    client.close()
    return f"s3://{name}/run/1?endpoint={endpoint}"


class Scripted(BaseHTTPRequestHandler):
    """Keeps objects in memory; each PUT takes the next word of `script`, then all goes well."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    script: list[str]
    honest: bool
    asked: list[str]

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        path = urlsplit(self.path).path
        self.asked.append(f"PUT {path}")
        plain = "/.proof/" not in path  # the store's own proof is not part of the story
        word = self.script.pop(0) if plain and self.script else "ok"
        taken = self.honest and self.headers.get("If-None-Match") == "*" and path in self.objects
        if word in ("ok", "answer-lost", "failed-after"):
            if taken:
                return self._answer(412, "PreconditionFailed")
            self.objects[path] = data
        match word:
            case "ok":
                return self._answer(200)
            case "answer-lost" | "request-lost":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return None
            case "failed-after" | "failed":
                return self._answer(500, "InternalError")
            case "conflict":
                return self._answer(409, "ConditionalRequestConflict")
            case "busy":
                return self._answer(503, "SlowDown")
            case "forbidden":
                return self._answer(403, "AccessDenied")
            case "silent":
                time.sleep(3)
                self.close_connection = True
                return None
            case _:
                raise AssertionError(word)

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if "list-type" in self.path:
            found = "".join(
                f"<Contents><Key>{key.removeprefix('/bucket/')}</Key></Contents>"
                for key in sorted(self.objects)
            )
            return self._answer(200, body=f"<ListBucketResult>{found}</ListBucketResult>".encode())
        if path in self.objects:
            return self._answer(200, body=self.objects[path])
        return self._answer(404, "NoSuchKey")

    def do_DELETE(self) -> None:
        self.objects.pop(urlsplit(self.path).path, None)
        self._answer(204)

    def _answer(self, status: int, code: str = "", body: bytes = b"") -> None:
        if code:
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"x"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def scripted(*script: str, honest: bool = True) -> Iterator[tuple[str, type[Scripted]]]:
    """Yield the URL of a store whose writes fare as the script says, and what the server saw."""
    about = {"objects": {}, "script": list(script), "honest": honest, "asked": []}
    handler = type("Handler", (Scripted,), about)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"s3://bucket/run?endpoint=http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()
    thread.join()


__all__ = ["KEYS", "bucket", "moto", "scripted"]
