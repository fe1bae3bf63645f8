"""Odd and malformed input, to our bridge and to the official SDK's own server: the same outcome, or a reason."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import nursery
import pytest
from hubs import DEADLINE_S, ROOT, START
from mcp_official import sdk

import caucus

NOBODY = "http://127.0.0.1:9"  # no hub is needed: what is tried here ends before one would be asked
META = {caucus.META + "protocolVersion": "2026-07-28", caucus.META + "clientCapabilities": {}}
META_KEY = f'"{caucus.META}protocolVersion"'.encode()
ABOUT: dict[str, Any] = {"capabilities": {}, "clientInfo": {"name": "odd", "version": "1"}}


def frame(method: Any, params: Any = None, **more: Any) -> bytes:
    """Encode a request with id 1; `more` adds and replaces."""
    about = {} if params is None else {"params": params}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, **about, **more}).encode()


def without(key: str, method: str = "ping", **more: Any) -> bytes:
    """Encode a request that lacks something."""
    message = json.loads(frame(method, **more))
    del message[key]
    return json.dumps(message).encode()


def call(tool: Any, arguments: Any, **more: Any) -> bytes:
    """Encode a tool call."""
    return frame("tools/call", {"name": tool, "arguments": arguments, **more})


def modern(method: str, about: dict[str, Any] | None = None, **params: Any) -> bytes:
    """Encode a request of the stateless era; `about` replaces in its _meta, None removes."""
    meta = {key: value for key, value in {**META, **(about or {})}.items() if value is not None}
    return frame(method, {**params, "_meta": meta})


def hello(revision: Any, **more: Any) -> bytes:
    """Encode a handshake."""
    return frame("initialize", {"protocolVersion": revision, **ABOUT, **more})


# --- what is sent: situation -> name -> line. A connection serves a whole situation, if it begins with a handshake ---

ROUND: dict[str, bytes] = {  # in every revision the same
    "plain words": b"hello",
    "nothing": b"",
    "white space": b"  \t ",
    "a carriage return at the end": frame("ping") + b"\r",
    "a byte order mark": b"\xef\xbb\xbf" + frame("ping"),
    "cut off": frame("ping")[:-5],
    "two messages on a line": frame("ping") + frame("ping", id=2),
    "100 kB of brackets": b"[" * 100_000,
    "not a number": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":NaN}}',
    "infinity": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":-Infinity}}',
    "a number of 5,000 digits": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":' + b"9" * 5_000 + b"}}",
    "bytes that are no UTF-8": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"\xff"}}',
    "half of a surrogate pair": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"\\ud800"}}',
    "a key twice": b'{"jsonrpc":"2.0","id":9,"id":1,"method":"ping"}',
    "a string": b'"ping"',
    "a number": b"7",
    "null": b"null",
    "an empty object": b"{}",
    "an empty batch": b"[]",
    "a batch": b"[" + frame("ping") + b"]",
    "without jsonrpc": without("jsonrpc"),
    "jsonrpc of another version": frame("ping", jsonrpc="1.0"),
    "jsonrpc as a number": frame("ping", jsonrpc=2.0),
    "id null": frame("ping", id=None),
    "id a fraction": frame("ping", id=1.5),
    "id a whole fraction": b'{"jsonrpc":"2.0","id":1.0,"method":"ping"}',
    "id true": frame("ping", id=True),
    "id an object": frame("ping", id={}),
    "id empty": frame("ping", id=""),
    "id negative": frame("ping", id=-1),
    "id beyond 64 bits": frame("ping", id=2**70),
    "without method": without("method"),
    "method null": frame(None),
    "method a number": frame(7),
    "method empty": frame(""),
    "an unknown method": frame("dance"),
    "an unknown method as a notification": without("id", "dance"),
    "a notification with an id": frame("notifications/initialized"),
    "an unknown notification": without("id", "notifications/dance"),
    "ping as a notification": without("id"),
    "params a list": frame("ping", [1]),
    "params a string": frame("ping", "x"),
    "params null": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":null}',
    "params unknown": frame("ping", {"x": 1}),
    "_meta a list": frame("ping", {"_meta": []}),
    "_meta null": frame("ping", {"_meta": None}),
    "a progress token that is an object": frame("tools/list", {"_meta": {"progressToken": {}}}),
    "an answer to nobody": b'{"jsonrpc":"2.0","id":77,"result":{}}',
    "an error to nobody": b'{"jsonrpc":"2.0","id":77,"error":{"code":1,"message":"x"}}',
    "a request that is an answer too": frame("ping", result={}),
    "an unknown key beside method": frame("ping", extra=1),
    "cancelled, without saying what": without("id", "notifications/cancelled"),
    "cancelled, what nobody asked": without("id", "notifications/cancelled", params={"requestId": 99}),
    "a cursor that nobody gave": frame("tools/list", {"cursor": "x"}),
    "a cursor that is a number": frame("tools/list", {"cursor": 7}),
    "resources, not offered": frame("resources/list"),
    "logging, not offered": frame("logging/setLevel", {"level": "info"}),
    "completion, not offered": frame("completion/complete", {}),
    "a second handshake": hello("2025-11-25"),
    "tools/call without params": frame("tools/call"),
    "a tool without a name": frame("tools/call", {"arguments": {}}),
    "a tool whose name is a number": call(7, {}),
    "a tool that does not exist": call("dance", {}),
    "arguments left out": frame("tools/call", {"name": "whoami"}),
    "arguments null": call("whoami", None),
    "arguments a list": call("whoami", []),
    "arguments a string": call("whoami", "x"),
    "a prompt that does not exist": frame("prompts/get", {"name": "dance"}),
    "a prompt without a name": frame("prompts/get", {}),
    "a prompt with a number for an argument": frame("prompts/get", {"name": "join", "arguments": {"project": 7}}),
    "a prompt with an unknown argument": frame("prompts/get", {"name": "join", "arguments": {"x": "y"}}),
    "prompt arguments a list": frame("prompts/get", {"name": "join", "arguments": []}),
}
ARGUMENTS: dict[str, bytes] = {  # held against a full implementation of JSON Schema
    "a missing argument": call("say", {}),
    "an argument too many": call("say", {"content": "x", "too": 1}),
    "an argument too many where there is none": call("whoami", {"x": 1}),
    "a number for a text": call("say", {"content": 7}),
    "null for a text": call("say", {"content": None}),
    "an empty text": call("say", {"content": ""}),
    "the longest text, in astral characters": call("say", {"content": "🙂" * 8192}),
    "a text too long": call("say", {"content": "x" * 8193}),
    "a text for a number": call("decisions", {"limit": "20"}),
    "a fraction for an integer": call("decisions", {"limit": 1.5}),
    "a whole fraction for an integer": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"decisions",'
    b'"arguments":{"limit":20.0}}}',
    "true for an integer": call("decisions", {"limit": True}),
    "an integer too small": call("decisions", {"limit": 0}),
    "an integer too large": call("decisions", {"limit": 10**30}),
    "a number below zero": call("listen", {"timeout": -0.1}),
    "false for a number": call("listen", {"timeout": False}),
    "an object for a list": call("ask_operator", {"title": "x", "fields": {}}),
    "an empty list": call("ask_operator", {"title": "x", "fields": []}),
    "a list too long": call(
        "ask_operator", {"title": "x", "fields": [{"key": "a", "label": "a", "type": "text"}] * 99}),
    "a wrong item": call("ask_operator", {"title": "x", "fields": [7]}),
    "an item with a value outside its enum": call(
        "ask_operator", {"title": "x", "fields": [{"key": "a", "label": "a", "type": "colour"}]}),
    "an item of an item": call(
        "ask_operator", {"title": "x", "fields": [{"key": "a", "label": "a", "type": "radio", "options": [1]}]}),
}
FITTING = ("the longest text, in astral characters", "a whole fraction for an integer")
FIRST: dict[str, bytes] = {  # on a connection of its own
    "ping before the handshake": frame("ping"),
    "a list before the handshake": frame("tools/list"),
    "a call before the handshake": call("whoami", {}),
    "discover without _meta": frame("server/discover"),
    "initialize without params": frame("initialize"),
    "a revision of the past": hello("1999-01-01"),
    "a revision of the future": hello("2099-01-01"),
    "the stateless revision in a handshake": hello("2026-07-28"),
    "a revision that is a number": hello(20251125),
    "a revision that is null": hello(None),
    "without a revision": frame("initialize", ABOUT),
    "without clientInfo": frame("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}),
    "without capabilities": frame("initialize", {"protocolVersion": "2025-11-25", "clientInfo": ABOUT["clientInfo"]}),
    "initialize as a notification": without("id", "initialize", params={"protocolVersion": "2025-11-25", **ABOUT}),
    "discover": modern("server/discover"),
    "discover at an unknown revision": modern("server/discover", {caucus.META + "protocolVersion": "2099-01-01"}),
    "discover at a revision of the handshake": modern(
        "server/discover", {caucus.META + "protocolVersion": "2025-11-25"}),
    "discover at a revision that is a number": modern("server/discover", {caucus.META + "protocolVersion": 7}),
    "discover without capabilities": modern("server/discover", {caucus.META + "clientCapabilities": None}),
    "discover with capabilities that are a list": modern("server/discover", {caucus.META + "clientCapabilities": []}),
    "a stateless call": modern("tools/call", name="whoami", arguments={}),
    "a stateless call of an unknown tool": modern("tools/call", name="dance", arguments={}),
    "a stateless call with a wrong argument": modern("tools/call", name="say", arguments={}),
    "a stateless list": modern("tools/list"),
    "a stateless ping": modern("ping"),
    "a stateless initialize": modern("initialize", protocolVersion="2025-11-25", **ABOUT),
    "a stateless unknown method": modern("dance"),
    "stateless logging": modern("logging/setLevel", level="info"),
    "stateless resources": modern("resources/list"),
    "a stateless subscription": modern("subscriptions/listen", notifications={}),
}
BATCHES = {name: line for name, line in ROUND.items() if "batch" in name}
SITUATIONS = {"2025-11-25": ROUND | ARGUMENTS, "2025-06-18": ARGUMENTS, "2025-03-26": BATCHES, "first": FIRST}

# --- where we differ: situation, ours, theirs, why, and what it is about ---

ROWS: tuple[tuple[str, str, str, str, Iterable[str]], ...] = (
    ("2025-11-25", "-32700 for None", "silence",
     "JSON-RPC wants -32700 for what cannot be read; the SDK's stdio drops it",
     ("plain words", "a byte order mark", "cut off", "two messages on a line", "100 kB of brackets",
      "a number of 5,000 digits")),
    ("2025-11-25", "-32700 for None", "a result",
     "that is not JSON, or not UTF-8, which the specification asks for; the SDK reads it all the same",
     ("not a number", "infinity", "bytes that are no UTF-8")),
    ("2025-11-25", "-32600 for None", "silence",
     "JSON-RPC wants -32600, with id null where none can be told; the SDK's stdio drops it",
     ("a string", "a number", "null", "an empty object", "an empty batch", "a batch", "id null", "id a fraction",
      "id a whole fraction", "id true", "id an object")),
    ("2025-11-25", "-32600", "silence",
     "as before, with the id that can be told",
     ("without jsonrpc", "jsonrpc of another version", "jsonrpc as a number", "without method", "method null",
      "method a number")),
    ("2025-11-25", "-32602", "silence",
     "the request has an id, so somebody waits for an answer; the SDK's stdio drops it",
     ("params a list", "params a string")),
    ("2025-11-25", "-32602", "a result",
     "where _meta is, it is an object by the schema; the SDK reads null as absent",
     ("_meta null",)),
    ("2025-11-25", "a result", "-32602",
     "an unusable token costs the progress, not the answer",
     ("a progress token that is an object",)),
    ("2025-11-25", "a result", "silence",
     "the escape is JSON, though no text; the SDK's stdio drops it",
     ("half of a surrogate pair",)),
    ("2025-11-25", "-32602", "a result",
     "the specification wants -32602 for a cursor that nobody gave; the SDK leaves it to the handler",
     ("a cursor that nobody gave",)),
    ("2025-11-25", "-32601", "-32602",
     "it is not offered, whatever its params; the SDK looks at these first",
     ("completion, not offered",)),
    ("2025-06-18", "-32602", "a tool's error",
     "before 2025-11-25 a failed validation is an error of the protocol; the SDK leaves it to the handler",
     (name for name in ARGUMENTS if name not in FITTING)),
    ("2025-03-26", "-32600 for None", "silence",
     "JSON-RPC wants -32600 for an empty batch; the SDK's stdio drops it",
     ("an empty batch",)),
    ("2025-03-26", "a batch of a result", "silence",
     "this revision has batches; the SDK knows none",
     ("a batch",)),
    ("first", "a result", "-32602",
     "nothing that we answer depends on the handshake, and a host whose probe ran out of time may be ahead of itself",
     ("a list before the handshake", "a call before the handshake")),
    ("first", "a result", "-32602",
     "we make no use of it, so its absence is no reason to turn a host away",
     ("without clientInfo", "without capabilities")),
)
DIFFERENCES = {(situation, name): (ours, theirs) for situation, ours, theirs, _, names in ROWS for name in names}


# --- the two ends ---


class End:
    """One connection to a server of MCP, as lines."""

    def __init__(self, reader: int, writer: int, release: Callable[[], None]) -> None:
        self._reader, self._writer, self.release = reader, writer, release
        self._data = b""
        self._calls = 0

    def send(self, line: bytes) -> None:
        """Send a line."""
        rest = line + b"\n"
        while rest:
            rest = rest[os.write(self._writer, rest):]

    def read(self) -> Any:
        """Give the next message. Raises EOFError."""
        end = time.monotonic() + DEADLINE_S
        while b"\n" not in self._data:
            ready, _, _ = select.select([self._reader], [], [], max(0.0, end - time.monotonic()))
            assert ready, "no answer in time"
            if not (chunk := os.read(self._reader, 65_536)):
                raise EOFError
            self._data += chunk
        line, _, self._data = self._data.partition(b"\n")
        return json.loads(line)

    def outcome(self, line: bytes) -> str:
        """Send a line; tell what came until two further calls, the second after the first, were answered."""
        seen = []
        try:
            self.send(line)
            for _ in range(2):
                seen += [kind_of(message) for message in self._until_answered(is_modern=META_KEY in line)]
        except EOFError:
            seen.append("the end")
        return ", ".join(seen) or "silence"

    def _until_answered(self, is_modern: bool) -> Iterator[Any]:
        self._calls += 1
        about = {"_meta": META} if is_modern else {}
        self.send(call("whoami", {}, **about).replace(b'"id": 1', b'"id": "end-%d"' % self._calls))
        while not isinstance(message := self.read(), dict) or message.get("id") != f"end-{self._calls}":
            yield message


def kind_of(message: Any) -> str:
    """Word what matters of an answer."""
    if isinstance(message, list):
        return f"a batch of {', '.join(map(kind_of, message))}"
    about = "" if message.get("id") == 1 else f" for {message.get('id', 'nothing')!r}"
    if "error" in message:
        return f"{message['error']['code']}{about}"
    if "method" in message:
        return str(message["method"])
    return ("a tool's error" if message["result"].get("isError") else "a result") + about


def to_bridge() -> End:
    """Start a bridge of ours."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("CAUCUS_")}
    command = [sys.executable, "-W", "error", START, "bridge", "--hub", NOBODY]
    process = nursery.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean)
    assert process.stdin is not None
    assert process.stdout is not None

    def release() -> None:
        process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0

    return End(process.stdout.fileno(), process.stdin.fileno(), release)


def to_reference(port: int) -> End:
    """Connect to the SDK's server."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
    connection.setblocking(True)
    return End(connection.fileno(), connection.fileno(), connection.close)


@pytest.fixture(scope="module")
def reference() -> Iterator[int]:
    """The port of the SDK's server."""
    command = [sdk(), str(ROOT / "tests/mcp_reference.py")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    yield int(process.stdout.readline())
    process.kill()
    process.communicate()


Pair = tuple[str, str]  # what came of it: ours, theirs


@pytest.fixture(scope="module")
def outcomes(reference: int) -> dict[tuple[str, str], Pair]:
    """What came of each line."""
    found = {}
    for situation, lines in SITUATIONS.items():
        ours = outcomes_of(to_bridge, situation, lines)
        theirs = outcomes_of(lambda: to_reference(reference), situation, lines)
        found.update({(situation, name): (ours[name], theirs[name]) for name in lines})
    return found


def outcomes_of(connect: Callable[[], End], situation: str, lines: dict[str, bytes]) -> dict[str, str]:
    """Try all lines of a situation, on one connection as far as there is a handshake and it lives."""
    found, end = {}, None
    for name, line in lines.items():
        if end is None:
            end = connect()
            if situation != "first":
                assert end.outcome(hello(situation)) == "a result"
                end.send(without("id", "notifications/initialized"))
        found[name] = end.outcome(line)
        if situation == "first" or "the end" in found[name]:
            end.release()
            end = None
    if end is not None:
        end.release()
    return found


@pytest.mark.parametrize(("situation", "name"), [(one, name) for one, lines in SITUATIONS.items() for name in lines])
def test_the_outcome_is_that_of_the_sdk_or_the_reason_is_listed(
    outcomes: dict[tuple[str, str], Pair], situation: str, name: str
) -> None:
    ours, theirs = outcomes[situation, name]
    if (situation, name) in DIFFERENCES:
        assert (ours, theirs) == DIFFERENCES[situation, name]
    else:
        assert ours == theirs


def test_each_listed_difference_is_one_and_was_tried(outcomes: dict[tuple[str, str], Pair]) -> None:
    assert DIFFERENCES.keys() <= outcomes.keys()
    assert [key for key, (ours, theirs) in DIFFERENCES.items() if ours == theirs] == []
