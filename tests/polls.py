"""Polls on bare sockets, and what tests of the HTTP API read from answers."""

from __future__ import annotations

import urllib.parse
from typing import Any

from hubs import HubProcess, eventually
from wires import Raw, RawAnswer


def receive_request(token: str, *headers: str, **query: Any) -> bytes:
    """Word a GET /receive that waits long enough for any test."""
    path = "/receive?" + urllib.parse.urlencode({"timeout": 20, **query})
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {token}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def park(hub: HubProcess, name: str, token: str, *headers: str, **query: Any) -> Raw:
    """Park a poll on a connection of its own; the hub needs to have open reads."""
    raw = Raw(hub.port).send(receive_request(token, *headers, **query))
    eventually(lambda: hub.is_listening(name), f"{name} listening")
    return raw


def got(raw: Raw) -> RawAnswer:
    """Read the answer that must come."""
    answer = raw.answer()
    assert answer is not None, "the connection ended without an answer"
    return answer


def contents(batch: Any) -> list[str]:
    """List what the messages of a batch say."""
    return [message["content"] for message in batch["messages"]]


def refused(answer: Any, status: int, code: str, field: str | None = None) -> Any:
    """Check a refusal; give its body."""
    assert answer.status == status, answer.content
    assert answer.body["error"] == code, answer.body
    assert answer.body["detail"], answer.body
    if field is not None:
        assert answer.body["field"] == field, answer.body
    return answer.body


def reap(hub: HubProcess, name: str) -> None:
    """Wait until a silent peer is reaped."""
    eventually(lambda: hub.get("/ping", peer=name).body["state"] == "reaped", f"{name} reaped")


def retune(hub: HubProcess, per_s: float = 1e6, burst: float = 1e6) -> None:
    """Change how fast agents may speak; beyond what a test can do, unless told otherwise."""
    with hub.console() as console:
        console.send(set_rate={"refill_rate": per_s, "capacity": burst})
        console.send(heartbeat="nobody")  # whose answer comes after, whether or not the rate was another
        console.next("heartbeat_result")
