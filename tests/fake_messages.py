"""A stand-in for the Messages API, for a real `claude`: each turn says one thing with the room's tool, then ends.

What it says is written in what it is told: `SAY: words`. Without that a turn ends at once; `WAIT` holds the answer
until `release` is set.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeMessages:
    """The server, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []  # bodies of POST /v1/messages
        self.release = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"


class _Handler(BaseHTTPRequestHandler):
    owner: FakeMessages

    def log_message(self, *args: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        """Know nothing else."""
        self.send_error(404)

    do_HEAD = do_GET  # noqa: N815  # the name is http.server's

    def do_POST(self) -> None:
        """Answer one call of the model."""
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if "messages" not in body or "count_tokens" in self.path:
            self._send("application/json", b'{"input_tokens": 1}')
            return
        self.owner.asked.append(body)
        events = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in self._events(body))
        self._send("text/event-stream", events.encode())

    def _send(self, kind: str, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _events(self, body: Any) -> Iterator[Any]:
        """Word an answer: a call of `say` where the newest words ask for it, else nothing."""
        say = [tool["name"] for tool in body.get("tools", []) if tool["name"].endswith("__say")]
        content = [message for message in body["messages"] if message["role"] == "user"][-1]["content"]
        words = json.dumps(content[-1] if isinstance(content, list) else content)  # an interrupted prompt comes before
        asked = re.search(r"SAY: ([\w ]+)", words)
        if "WAIT" in words:
            self.owner.release.wait(30)
        block: Any = {"type": "text", "text": ""}
        delta: Any = {"type": "text_delta", "text": "done"}
        if say and asked and "tool_result" not in words:
            block = {"type": "tool_use", "id": f"toolu_{len(self.owner.asked)}", "name": say[0], "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps({"content": asked[1], "to": "all"})}
        yield {"type": "message_start", "message": {
            "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 1000, "output_tokens": 1}}}
        yield {"type": "content_block_start", "index": 0, "content_block": block}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
        yield {"type": "content_block_stop", "index": 0}
        stop = "tool_use" if block["type"] == "tool_use" else "end_turn"
        yield {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None},
               "usage": {"output_tokens": 50}}
        yield {"type": "message_stop"}


@contextmanager
def fake_messages() -> Iterator[FakeMessages]:
    """Run the server."""
    fake = FakeMessages()
    thread = threading.Thread(target=fake.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        fake.release.set()
        fake.server.shutdown()
        fake.server.server_close()
