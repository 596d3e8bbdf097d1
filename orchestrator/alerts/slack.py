"""Slack: one thread per incident. The first message opens it, the rest are replies in it.

When an incident ends, its first message is rewritten with ✅, so that the channel reads as a list
of what is still open. Each message carries its key as metadata: after an answer that never came the
thread is looked through before anything is posted again. Needs the scope `chat:write`; with
`channels:history` (and `groups:history` for private channels) also that look is possible.
"""

from __future__ import annotations

import http.client
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError

from orchestrator.alerts.api import Alert, Kind, Memory
from orchestrator.core.pages import Urgency
from orchestrator.errors import PermanentError, TransientError

TEXT_MAX = 3_000  #: characters of a section block; `text` itself may have 40,000
HEAD_MAX = 250  #: characters of the sentence that notifications show
FIELDS_MAX = 10  #: of a section block
ABOUT_MAX = 1_000  #: characters of the first message that its last version repeats
EVENT = "holdfast_incident"
RETRY_AFTER = 30.0  #: seconds, when Slack asks for patience and does not say how much
_ICONS = {Urgency.PAGE: "🚨", Urgency.ALERT: "⚠️"}
_PASSING = frozenset(
    {
        "ratelimited",
        "rate_limited",
        "message_limit_exceeded",
        "fatal_error",
        "internal_error",
        "request_timeout",
        "service_unavailable",
        "team_added_to_org",
    }
)


@dataclass(frozen=True, slots=True)
class Post:
    """One call of chat.postMessage or chat.update, named so that it is made once."""

    key: str
    text: str
    blocks: list[dict[str, Any]]
    thread: str | None = None  #: ts of the thread's first message


class Slack:
    """A sink that keeps one thread per incident in one channel."""

    name = "slack"
    limited = True

    def __init__(
        self,
        channel: str,
        token: Callable[[], str],
        memory: Memory,
        *,
        base_url: str = "https://slack.com/api/",
        timeout: int = 10,
    ) -> None:
        """Post to `channel` (an id). `token` is asked at each call and kept nowhere.

        `timeout` is in seconds, for each call; a caller that holds a lease needs more left on it.
        """
        self._channel, self._token, self._memory = channel, token, memory
        self._base_url, self._timeout = base_url, timeout

    def __repr__(self) -> str:
        """Name the channel; never the token."""
        return f"Slack(channel={self._channel!r})"

    def tell(self, alert: Alert) -> None:
        """Post what is missing of this alert: its thread, its reply, the mark of its end."""
        state = self._state(alert)
        if "ts" not in state:
            if alert.kind is not Kind.CLOSED:  # the end of what nobody heard of is no news
                opening = Post(alert.key, _head(alert, _ICONS[alert.urgency]), _opening(alert))
                self._deliver(alert, opening)
                self._keep(alert, about=alert.text[:ABOUT_MAX])
            return
        if alert.kind is Kind.OPENED:
            return
        icon = "✅" if alert.kind is Kind.CLOSED else "↳"
        reply = Post(alert.key, f"{icon} {_escaped(alert.text)}", [], state["ts"])
        self._deliver(alert, reply)
        if alert.kind is Kind.CLOSED:
            self._mark_closed(alert, state["ts"])

    def _deliver(self, alert: Alert, post: Post) -> None:
        """Post once. What was begun and never answered is looked for before it is repeated."""
        state = self._state(alert)
        if post.key in state.get("sent", ()):
            return
        ts = self._find(post, state) if state.get("trying") == post.key else None
        if ts is None:
            self._keep(alert, trying=post.key)
            ts = self._post(post)
        sent = [*state.get("sent", ()), post.key]
        self._keep(alert, trying=None, sent=sent, ts=post.thread or ts)

    def _post(self, post: Post) -> str:
        answer = self._call(
            "chat.postMessage",
            {
                "channel": self._channel,
                "text": post.text,
                "unfurl_links": False,
                "client_msg_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"holdfast:{post.key}")),
                "metadata": {"event_type": EVENT, "event_payload": {"key": post.key}},
                **({"blocks": post.blocks} if post.blocks else {}),
                **({"thread_ts": post.thread} if post.thread else {}),
            },
        )
        return str(answer["ts"])

    def _find(self, post: Post, state: Mapping[str, Any]) -> str | None:
        """Return the ts of a message with this key, if an earlier call did reach Slack."""
        verb, body = "conversations.history", {"channel": self._channel, "limit": 100}
        if post.thread:
            verb, body = "conversations.replies", {**body, "ts": state["ts"]}
        try:
            found = self._call(verb, {**body, "include_all_metadata": True}, get=True)
        except PermanentError:  # no scope to read: a message shown twice is the lesser evil
            return None
        for message in found.get("messages", ()):
            payload = message.get("metadata", {}).get("event_payload", {})
            if payload.get("key") == post.key:
                return str(message["ts"])
        return None

    def _mark_closed(self, alert: Alert, ts: str) -> None:
        """Rewrite the first message: what it was, and how it ended."""
        about = self._state(alert).get("about", "")
        whole = replace(alert, text=f"{about}\n{alert.text}" if about else alert.text)
        body = {"channel": self._channel, "ts": ts, "text": _head(whole, "✅")}
        self._call("chat.update", {**body, "blocks": _opening(whole, "✅")})

    def _call(self, verb: str, body: Mapping[str, Any], *, get: bool = False) -> Mapping[str, Any]:
        """Make one call, without retries of its own; errors become ours, and name no token."""
        client = WebClient(
            token=self._token(),
            base_url=self._base_url,
            timeout=self._timeout,
            retry_handlers=[],
        )
        try:
            how = {"http_verb": "GET", "params": body} if get else {"json": body}
            answer = client.api_call(verb, **how).data
        except SlackApiError as error:
            raise _translated(verb, error) from error
        except (OSError, http.client.HTTPException, SlackClientError, ValueError) as error:
            name = type(error).__name__
            raise TransientError(f"Slack could not be reached for {verb}: {name}") from error
        if not isinstance(answer, Mapping):
            raise TransientError(f"Slack answered {verb} with something that is not JSON")
        return answer

    def _state(self, alert: Alert) -> dict[str, Any]:
        state: dict[str, Any] = self._memory.get(alert.number, {}).get(self.name, {})
        return state

    def _keep(self, alert: Alert, **changed: Any) -> None:
        whole = self._memory.get(alert.number, {})
        self._memory[alert.number] = {**whole, self.name: {**self._state(alert), **changed}}


def _translated(verb: str, error: SlackApiError) -> TransientError | PermanentError:
    answer = error.response
    said = answer.get("error") or f"HTTP {answer.status_code}"
    text = f"Slack refused {verb}: {said}"
    if answer.status_code == http.client.TOO_MANY_REQUESTS or said in _PASSING:
        return TransientError(text, retry_after=_retry_after(answer.headers))
    return TransientError(text) if answer.status_code >= 500 else PermanentError(text)


def _retry_after(headers: Mapping[str, Any]) -> float:
    value = next((v for k, v in headers.items() if k.lower() == "retry-after"), None)
    try:
        return float(value[0] if isinstance(value, list) else str(value))
    except (ValueError, IndexError):
        return RETRY_AFTER


def _head(alert: Alert, icon: str) -> str:
    """Return the sentence that notifications and the list of messages show."""
    first = alert.text.partition("\n")[0]
    return _escaped(f"{icon} {alert.page} · {alert.subject}: {first}", HEAD_MAX)


def _opening(alert: Alert, icon: str | None = None) -> list[dict[str, Any]]:
    """Return the first message: what, where, why, and what to read."""
    icon = icon or _ICONS[alert.urgency]
    title = f"{icon} *{_escaped(alert.subject, 200)}* · {alert.page} · {alert.kind}"
    fields = [
        {"type": "mrkdwn", "text": f"*{_escaped(str(name), 100)}*\n{_escaped(str(value), 1500)}"}
        for name, value in list(alert.data.items())[:FIELDS_MAX]
    ]
    foot = (
        f"incident {alert.number} · {alert.at.isoformat(timespec='seconds')} · `{alert.runbook}` · "
        f"`holdfast incident show {alert.number}`"
    )
    body = {"type": "mrkdwn", "text": f"{title}\n{_escaped(alert.text, TEXT_MAX - 300)}"}
    blocks: list[dict[str, Any]] = [{"type": "section", "text": body}]
    if fields:
        blocks.append({"type": "section", "fields": fields})
    return [*blocks, {"type": "context", "elements": [{"type": "mrkdwn", "text": foot}]}]


def _escaped(text: str, most: int = TEXT_MAX) -> str:
    """Escape what Slack would read as a mention or a link, and cut without splitting an entity."""
    pieces: list[str] = []
    length = 0
    for one in text:
        piece = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}.get(one, one)
        length += len(piece)
        if length > most - 1:
            return "".join(pieces) + "…"
        pieces.append(piece)
    return "".join(pieces)
