#!/usr/bin/env python3
"""A stand-in for the `claude` program, for claude-agent-sdk: it speaks the SDK's protocol on stdin and stdout.

What a turn does is written in what it is told: each line of the prompt that begins with `!` is a directive.

    !tool NAME JSON    call a tool of the room, and log what came back
    !ask NAME JSON     ask for permission to use a built-in tool, and log the answer
    !hang              until an interrupt; `!deaf`: not even then
    !fail WORDS        end the turn with an error
    !unasked           take another turn after this one, that nobody asked for
    !exit CODE         die in the middle of the turn
    !cost USD          what this turn costs
    !hold FILE         until that file exists

FAKE_CLAUDE_LOG names a file that gets a JSON line for all that happens; FAKE_CLAUDE_START may be `no-login`, `old`,
`die` or `hang`; FAKE_CLAUDE_GATE names a file without which it does not start; with FAKE_CLAUDE_STAYS it does not end
when it is told to.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import re
import signal
import sys
import threading
import time
from typing import Any

START = os.environ.get("FAKE_CLAUDE_START", "")
USAGE = {"input_tokens": 900, "cache_read_input_tokens": 100, "output_tokens": 50}


def note(kind: str, **what: Any) -> None:
    """Append one line to the log."""
    with open(os.environ["FAKE_CLAUDE_LOG"], "a", encoding="utf-8") as file:
        file.write(json.dumps({"kind": kind, "pid": os.getpid(), **what}) + "\n")


class Claude:
    """One run of the program."""

    def __init__(self) -> None:
        self.turns: queue.Queue[tuple[str, str | None]] = queue.Queue()
        self.answers: dict[str, queue.Queue[Any]] = {}
        self.ids = itertools.count(1)
        self.interrupted = threading.Event()
        self.lock = threading.Lock()
        self.cost = 0.0
        self.has_server = False

    def send(self, frame: dict[str, Any]) -> None:
        """Write one frame."""
        with self.lock:
            sys.stdout.write(json.dumps(frame) + "\n")
            sys.stdout.flush()

    def read(self) -> None:
        """Read frames until stdin ends; then so does the program."""
        for line in sys.stdin:
            frame = json.loads(line)
            if frame["type"] == "control_request":
                self.control(frame)
            elif frame["type"] == "control_response":
                self.answers[frame["response"]["request_id"]].put(frame["response"])
            elif frame["type"] == "user":
                self.turns.put((frame["message"]["content"], frame.get("uuid")))
        note("stdin ended")
        if not os.environ.get("FAKE_CLAUDE_STAYS"):
            os._exit(0)

    def control(self, frame: dict[str, Any]) -> None:
        """Answer what the SDK asks for."""
        request = frame["request"]
        note("control", subtype=request["subtype"])
        answer: dict[str, Any] = {}
        if request["subtype"] == "initialize":
            source = "none" if START == "no-login" else "ANTHROPIC_AUTH_TOKEN"
            answer = {"commands": [], "account": {"tokenSource": source, "apiProvider": "firstParty"}}
            answer["pid"] = os.getpid()
            if START != "old":
                answer["claude_code_version"] = "2.1.330"
        if request["subtype"] == "interrupt":
            self.interrupted.set()
        response = {"subtype": "success", "request_id": frame["request_id"], "response": answer}
        self.send({"type": "control_response", "response": response})

    def request(self, **request: Any) -> Any:
        """Ask the SDK for something, and wait for its answer."""
        number = f"fake-{next(self.ids)}"
        self.answers[number] = queue.Queue()
        self.send({"type": "control_request", "request_id": number, "request": request})
        return self.answers[number].get(timeout=30)

    def rpc(self, method: str, params: dict[str, Any]) -> Any:
        """Send one MCP request to the server of the SDK's process."""
        message = {"jsonrpc": "2.0", "id": next(self.ids), "method": method, "params": params}
        answer = self.request(subtype="mcp_message", server_name="caucus", message=message)
        return answer.get("response", {}).get("mcp_response", answer)

    def turn(self, prompt: str, number: str | None) -> None:
        """Do what the prompt's directives say, and end with a result."""
        self.interrupted.clear()
        note("turn", prompt=prompt)
        failure, is_unasked = "", False
        cost = 0.01
        for verb, rest in re.findall(r"^!(\w+) ?(.*)$", prompt, re.MULTILINE):
            if verb == "cost":
                cost = float(rest)
            elif verb == "unasked":
                is_unasked = True
            elif verb == "fail":
                failure = rest
            else:
                getattr(self, f"do_{verb}")(rest)
            if self.interrupted.is_set():
                failure = "interrupted"
                break
        self.cost += cost
        self.finish(failure, number)
        if is_unasked:
            self.finish("a turn that nobody asked for", None)

    def finish(self, failure: str, number: str | None) -> None:
        """Send the end of a turn."""
        self.send({"type": "assistant", "session_id": "s", "message": {
            "id": "m", "role": "assistant", "model": "fake-model", "content": [{"type": "text", "text": "done"}]}})
        self.send({
            "type": "result", "subtype": "error_during_execution" if failure else "success", "duration_ms": 1,
            "duration_api_ms": 1, "is_error": bool(failure), "num_turns": 1, "session_id": "s",
            "result": failure or "done", "total_cost_usd": self.cost, "usage": USAGE,
            **({"user_message_uuids": [number]} if number else {}),  # as claude does: without, for its own turns
        })
        note("result", failure=failure)

    def do_tool(self, rest: str) -> None:
        """Call a tool of the room."""
        name, _, given = rest.partition(" ")
        if not self.has_server:
            self.has_server = True
            info = {"name": "fake", "version": "1"}
            self.rpc("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info})
        params = {"name": name, "arguments": json.loads(given or "{}")}
        note("tool", name=name, answer=self.rpc("tools/call", params))

    def do_ask(self, rest: str) -> None:
        """Ask whether a built-in tool may be used."""
        name, _, given = rest.partition(" ")
        answer = self.request(subtype="can_use_tool", tool_name=name, input=json.loads(given or "{}"),
                              permission_suggestions=[], tool_use_id="t")
        note("permission", name=name, answer=answer)

    def do_hang(self, rest: str) -> None:
        """Wait for an interrupt."""
        self.interrupted.wait(60)

    def do_deaf(self, rest: str) -> None:
        """Wait for nothing."""
        time.sleep(60)

    def do_exit(self, rest: str) -> None:
        """Die."""
        note("exit")
        print("the fake was told to die", file=sys.stderr, flush=True)
        os._exit(int(rest or 1))

    def do_hold(self, rest: str) -> None:
        """Wait for a file."""
        while not os.path.exists(rest) and not self.interrupted.wait(0.02):
            pass

    def run(self) -> None:
        """Take turns until the end."""
        note("start", argv=sys.argv[1:], secrets=sorted(name for name in os.environ if name.startswith("CAUCUS_")))
        if START == "hang":
            time.sleep(60)
        while "FAKE_CLAUDE_GATE" in os.environ and not os.path.exists(os.environ["FAKE_CLAUDE_GATE"]):
            time.sleep(0.02)
        if START == "die":
            sys.exit("the fake does not start")
        reader = threading.Thread(target=self.read, daemon=True)
        reader.start()
        if os.environ.get("FAKE_CLAUDE_STAYS"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            self.turn(*self.turns.get())


if __name__ == "__main__":
    if sys.argv[1:] in (["-v"], ["--version"]):
        print("2.1.197 (Claude Code)" if START == "old" else "2.1.330 (Claude Code)")
    else:
        Claude().run()
