#!/usr/bin/env python3
"""A stand-in for the Messages API, so that a real `claude` takes real turns without a key or a network.

Its model does what it is told: each line of the latest prompt that begins with `!` is one step.

    !tool NAME JSON    use a tool; the next step comes with its result
    !say WORDS         write text (so does a prompt without a step: `done`)
    !hang              send nothing, until the client gives up or the server ends
    !fail STATUS       answer with that status, every time
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

INPUT_TOKENS, OUTPUT_TOKENS = 1000, 50


def texts(message: dict[str, Any], kind: str = "text") -> list[Any]:
    """List the blocks of a message that are of one kind; text that is not in blocks counts as one."""
    content = message["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [block for block in blocks if block["type"] == kind]


def next_step(messages: list[dict[str, Any]]) -> tuple[str, str]:
    """Give the step that the model is at, as its verb and the rest."""
    asked = max(index for index, one in enumerate(messages) if one["role"] == "user" and not texts(one, "tool_result"))
    said = [block["text"] for block in texts(messages[asked]) if not block["text"].startswith("<system-reminder>")]
    prompt = (said or [""])[-1]  # before it stand prompts that were never answered: they were interrupted, or failed
    steps: list[tuple[str, str]] = re.findall(r"^!(\w+) ?(.*)$", prompt, re.MULTILINE)
    done = sum(len(texts(one, "tool_result")) for one in messages[asked + 1 :] if one["role"] == "user")
    return (steps[done:] or [("say", "done")])[0]


class FakeMessages:
    """The server; `with FakeMessages() as api:`."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []  # each as it came
        self.ended = threading.Event()
        self.ids = itertools.count(1)
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                with contextlib.suppress(ConnectionError):  # nobody waits for this answer any more
                    api.answer(self)

            def do_HEAD(self) -> None:  # a client looks whether anybody is there
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> FakeMessages:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, http: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        request = json.loads(http.rfile.read(int(http.headers["Content-Length"])))
        if not http.path.startswith("/v1/messages") or "count_tokens" in http.path:
            return self.send_json(http, 200, {"input_tokens": INPUT_TOKENS})
        self.requests.append(request)
        verb, rest = next_step(request["messages"])
        if verb == "hang":
            self.ended.wait()
        if verb == "fail":
            return self.send_json(http, int(rest), {"type": "error", "error": {"type": "api_error", "message": "no"}})
        block: dict[str, Any] = {"type": "text", "text": rest}
        if verb == "tool":
            name, _, given = rest.partition(" ")
            block = {"type": "tool_use", "id": f"toolu_{next(self.ids)}", "name": name,
                     "input": json.loads(given or "{}")}
        message = self.message(request, block)
        return self.stream(http, message) if request.get("stream") else self.send_json(http, 200, message)

    def message(self, request: dict[str, Any], block: dict[str, Any]) -> dict[str, Any]:
        """Give a whole message."""
        return {
            "id": f"msg_{next(self.ids)}", "type": "message", "role": "assistant", "model": request["model"],
            "content": [block], "stop_reason": "tool_use" if block["type"] == "tool_use" else "end_turn",
            "stop_sequence": None, "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS},
        }

    def send_json(self, http: BaseHTTPRequestHandler, status: int, body: dict[str, Any]) -> None:
        """Send an answer in one piece."""
        data = json.dumps(body).encode()
        http.send_response(status)
        http.send_header("Content-Type", "application/json")
        http.send_header("Content-Length", str(len(data)))
        http.send_header("x-should-retry", "false")
        http.end_headers()
        http.wfile.write(data)

    def stream(self, http: BaseHTTPRequestHandler, message: dict[str, Any]) -> None:
        """Send a message as events."""
        [block] = message["content"]
        if block["type"] == "tool_use":
            shell, delta = {**block, "input": {}}, {"type": "input_json_delta",
                                                    "partial_json": json.dumps(block["input"])}
        else:
            shell, delta = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}},
            {"type": "content_block_start", "index": 0, "content_block": shell},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": message["stop_reason"], "stop_sequence": None},
             "usage": {"output_tokens": OUTPUT_TOKENS}},
            {"type": "message_stop"},
        ]
        http.send_response(200)
        http.send_header("Content-Type", "text/event-stream")
        http.end_headers()
        for event in events:
            http.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
