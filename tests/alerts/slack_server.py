"""A server on this machine that checks what Slack's API would, and answers as it does.

Follows https://docs.slack.dev/reference/methods/chat.postMessage and its neighbours: authorisation
by bearer token, required arguments, known channels, threads that exist, limits of text and blocks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

TOKEN = "xoxb-test-0123456789-secret"
CHANNEL = "C0123456789"
TEXT_MAX, SECTION_MAX, FIELD_MAX, BLOCKS_MAX, FIELDS_MAX = 40_000, 3_000, 2_000, 50, 10


class FakeSlack(ThreadingHTTPServer):
    """One workspace with one channel; `failures` are given instead of the next answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.messages: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.failures: list[tuple[int, dict[str, str], Any] | None] = []  # None: answer as usual
        self.lose_answers = 0  #: that many calls take effect and are never answered
        self.scopes = {"chat:write", "channels:history"}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/api/"

    def thread(self, ts: str) -> list[dict[str, Any]]:
        return [one for one in self.messages.values() if one.get("thread_ts") == ts]

    def firsts(self) -> list[dict[str, Any]]:
        return [one for one in self.messages.values() if "thread_ts" not in one]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that time out close their end, which is what is tested."""


class Answers(BaseHTTPRequestHandler):
    server: FakeSlack

    def do_GET(self) -> None:
        self.answer(dict(parse_qsl(urlsplit(self.path).query)))

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        is_json = self.headers["Content-Type"].startswith("application/json")
        self.answer(json.loads(raw) if is_json else dict(parse_qsl(raw.decode())))

    def answer(self, body: dict[str, Any]) -> None:
        verb = urlsplit(self.path).path.removeprefix("/api/")
        self.server.calls.append(verb)
        planned = self.server.failures.pop(0) if self.server.failures else None
        if planned:
            status, headers, failure = planned
            return self.send(failure, status, headers)
        error = self.refusal(verb, body)
        done = {"ok": False, "error": error} if error else self.act(verb, body)
        if self.server.lose_answers:
            self.server.lose_answers -= 1
            self.close_connection = True
            return None
        return self.send(done)

    def refusal(self, verb: str, body: dict[str, Any]) -> str | None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return "invalid_auth"
        if verb not in ("chat.postMessage", "chat.update", *READS):
            return "unknown_method"
        if verb in READS and "channels:history" not in self.server.scopes:
            return "missing_scope"
        if body.get("channel") != CHANNEL:
            return "channel_not_found"
        return None if verb in READS else self.bad_message(verb, body)

    def bad_message(self, verb: str, body: dict[str, Any]) -> str | None:
        thread, known = body.get("thread_ts"), self.server.messages
        if thread is not None and ("thread_ts" in known.get(thread, {"thread_ts": 1})):
            return "thread_not_found"
        if verb == "chat.update" and body.get("ts") not in known:
            return "message_not_found"
        if not body.get("text") and not body.get("blocks"):
            return "no_text"
        if len(body.get("text", "")) > TEXT_MAX:
            return "msg_too_long"
        return None if self.blocks_are_well(body.get("blocks", [])) else "invalid_blocks"

    def blocks_are_well(self, blocks: list[dict[str, Any]]) -> bool:
        return len(blocks) <= BLOCKS_MAX and all(map(is_block, blocks))

    def act(self, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        messages = self.server.messages
        if verb == "conversations.history":
            return {"ok": True, "messages": self.server.firsts()[::-1]}
        if verb == "conversations.replies":
            return {"ok": True, "messages": [messages[body["ts"]], *self.server.thread(body["ts"])]}
        ts = body.get("ts") or f"1700000000.{len(messages):06d}"
        messages[ts] = {**messages.get(ts, {}), **body, "ts": ts}
        return {"ok": True, "ts": ts, "channel": CHANNEL, "message": messages[ts]}

    def send(self, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


READS = ("conversations.history", "conversations.replies")


def is_block(block: dict[str, Any]) -> bool:
    if block.get("type") == "section":
        texts = [block["text"]] if "text" in block else []
        fields = block.get("fields", [])
        return (
            bool(texts or fields)
            and all(is_text(one, SECTION_MAX) for one in texts)
            and len(fields) <= FIELDS_MAX
            and all(is_text(one, FIELD_MAX) for one in fields)
        )
    if block.get("type") == "context":
        elements = block.get("elements", [])
        return 0 < len(elements) <= 10 and all(is_text(one, SECTION_MAX) for one in elements)
    return False


def is_text(body: dict[str, Any], most: int) -> bool:
    return body.get("type") in ("mrkdwn", "plain_text") and 0 < len(body.get("text", "")) <= most


@contextmanager
def slack_server() -> Iterator[FakeSlack]:
    with FakeSlack() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
