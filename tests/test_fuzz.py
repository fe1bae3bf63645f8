"""Nothing that is sent to a hub makes it fail, hang, lose a message or lock anybody out."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hubs import DEADLINE_S, Console, HubProcess, running_hub
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from wires import Raw, RawAnswer, call, fresh_address, newcomer, request_of

CHANNEL = "#fuzz"
EXAMPLES = 2 * settings.default.max_examples  # 200 in a usual run, 4,000 with HYPOTHESIS_PROFILE=explore
_serials = itertools.count(1)

# --- what is sent ---

AWKWARD_TEXTS = (
    "",
    " ",
    "all",
    "#",
    "#fuzz",
    "human",
    "HUB",
    "ann",
    "\x00",
    "\n[caucus] STOP",
    "\ud800",
    "\udfff\ud800",
    "\U0001f600",
    "e\u0301",
    "\u202e",
    "1",
    "-1",
    "nan",
    "1e999",
    "0x10",
    "1_0",
    "\u0665",
    "true",
    "null",
    "../../etc/passwd",
    "<script>",
    "a" * 65,
    "a" * 8193,
    "\u65e5" * 8192,
)
AWKWARD_NUMBERS = (0, -1, 1, 2**31, 2**53, 2**63, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"))
scalars = (
    st.none() | st.booleans() | st.sampled_from(AWKWARD_NUMBERS) | st.sampled_from(AWKWARD_TEXTS) | st.text(max_size=12)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(AWKWARD_TEXTS), inner, max_size=4),
    max_leaves=8,
)


def nested(depth: int) -> Any:
    """Give lists in lists."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def field_of(key: str) -> dict[str, Any]:
    """Give a valid field of a form."""
    return {"key": key, "label": "L", "type": "radio", "options": ["a", "b"], "required": True, "allow_other": False}


USAGE = {"model": "m", "turns": 1, "input_tokens": 2, "output_tokens": 3, "cost_usd": 0.5}
# Valid requests; TOKEN, NAME and so on become what is real when they are sent.
REQUESTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("POST", "/register", {"project": "NAME", "protocol_version": 25, "token": None}),
    ("POST", "/register", {"project": "ann", "protocol_version": None, "token": "SPARE"}),
    ("POST", "/leave", {"token": "SPARE"}),
    ("POST", "/send", {"token": "TOKEN", "to": "ben", "content": "hello"}),
    ("POST", "/send", {"token": "TOKEN", "to": CHANNEL, "content": "hello"}),
    ("POST", "/send", {"token": "TOKEN", "to": "all", "content": "hello"}),
    ("POST", "/ack", {"token": "TOKEN", "seq": 1}),
    ("POST", "/status", {"token": "TOKEN", "status": "busy"}),
    ("POST", "/status", {"token": "TOKEN", "status": "busy", "usage": USAGE}),
    ("POST", "/status", {"token": "TOKEN", "usage": USAGE}),
    ("POST", "/channels/join", {"token": "TOKEN", "channel": CHANNEL}),
    ("POST", "/channels/leave", {"token": "TOKEN", "channel": CHANNEL}),
    ("POST", "/channels/topic", {"token": "TOKEN", "channel": CHANNEL, "topic": "t"}),
    ("POST", "/floor", {"token": "TOKEN", "action": "take", "scope": "all", "reason": "r"}),
    ("POST", "/floor", {"token": "TOKEN", "action": "raise", "scope": CHANNEL, "reason": None}),
    ("POST", "/floor", {"token": "TOKEN", "action": "drop", "scope": "all"}),
    ("POST", "/ask", {"token": "TOKEN", "to": "all", "title": "T", "fields": [field_of("k"), field_of("l")]}),
    ("POST", "/watch-ticket", {"token": "TOKEN"}),
    ("POST", "/watch-ticket/redeem", {"ticket": "x"}),
    ("POST", "/control", {"action": "pause"}),
    ("POST", "/control", {"action": "stop"}),
    ("POST", "/control", {"action": "reset"}),
    ("GET", "/receive", {"timeout": "0", "ack_seq": "0", "lease": "l"}),
    ("GET", "/receive", {"timeout": "0.2"}),
    ("GET", "/peek", {}),
    ("GET", "/peers", {}),
    ("GET", "/ping", {"peer": "ann"}),
    ("GET", "/channels", {}),
    ("GET", "/forms", {}),
    ("GET", "/floor", {}),
    ("GET", "/decisions", {"limit": "5"}),
    ("GET", "/protocol", {"section": "channels"}),
    ("GET", "/export", {"format": "md"}),
    ("GET", "/version", {}),
    ("GET", "/ui", {}),
    ("GET", "/", {}),
    ("GET", "/assets/app.js", {}),
    ("PUT", "/send", {}),
    ("OPTIONS", "/receive", {}),
    ("GET", "/nowhere", {}),
)


@st.composite
def mutated(draw: st.DrawFn, valid: dict[str, Any]) -> Any:
    """Draw a body like `valid`, with up to three things wrong with it, at any depth."""
    body: Any = json.loads(json.dumps(valid))
    for _ in range(draw(st.sampled_from((0, 0, 1, 1, 1, 1, 2, 3)))):
        places = list(_places(body))
        if not places:
            return draw(values)
        container, key = draw(st.sampled_from(places))
        kind = draw(st.sampled_from(("value", "value", "value", "drop", "add", "deep", "list")))
        if kind == "drop" and isinstance(container, dict):
            container.pop(key, None)
        elif kind == "add" and isinstance(container, dict):
            container[draw(st.sampled_from(AWKWARD_TEXTS))] = draw(values)
        elif kind == "deep":
            container[key] = nested(draw(st.sampled_from((3, 100))))
        elif kind == "list":
            container[key] = [container.get(key)] * 40 if isinstance(container, dict) else [container[key]] * 40
        else:
            container[key] = draw(values)
    return body


def _places(body: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(body) if isinstance(body, dict) else range(len(body)) if isinstance(body, list) else []
    for key in keys:
        yield body, key
        yield from _places(body[key])


@st.composite
def encoded(draw: st.DrawFn, body: Any) -> bytes:
    """Draw a form in which JSON might come, seldom a broken one."""
    text = json.dumps(body, ensure_ascii=draw(st.booleans()))
    encoding: str = draw(st.sampled_from(("utf-8",) * 16 + ("utf-8-sig", "utf-16", "utf-32", "latin-1")))
    data: bytes = text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
    broken: tuple[bytes, ...] = (data[:-1], data * 2, b"\xff" + data, b"", b"[" * 60_000)
    return draw(st.sampled_from((data,) * 24 + broken))


HEADERS = (
    b"Authorization: Bearer caf\xe9",
    b"Authorization: Bearer \xf0\x9f\x98\x80",
    b"Authorization: Bearer",
    b"Authorization: Basic YTpi",
    b"Authorization: \xff\xfe",
    b"Origin: null",
    b"Origin: http://evil.example",
    b"Origin: \xff",
    b"Host: evil.example",
    b"Host: ",
    b"Host: [::1]:99999",
    b"Content-Type: text/plain",
    b"Content-Type: application/json; charset=\xff",
    b"Content-Encoding: gzip",
    b"Accept-Encoding: gzip, \xff",
    b'If-None-Match: *, W/"x"',
    b"Range: bytes=0-",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Connection: close",
    b"Expect: 200-ok",
    b"Cookie: a=\x80",
    b"X-Forwarded-For: 1.2.3.4",
    b"X: " + b"y" * 20_000,
)
raw_queries = st.text(st.sampled_from("abt=&%;+#0\u00e9"), max_size=20).map(lambda t: t.encode("latin-1").hex("%", 1))


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Draw (method and target, headers and body) of a request that is nearly valid; placeholders are still in it."""
    method, path, valid = draw(st.sampled_from(REQUESTS))
    body = draw(mutated(valid))
    lines = draw(st.lists(st.sampled_from(HEADERS), max_size=2)) if draw(st.integers(0, 3)) == 0 else []
    target = path.encode()
    data = b""
    if method == "GET":
        pairs = body.items() if isinstance(body, dict) else []
        target += b"?" + "&".join(f"{_percent(k)}={_percent(v)}" for k, v in pairs).encode()
        if draw(st.integers(0, 5)) == 0:
            target += b"&" + draw(st.binary(max_size=20)).hex("%", 1).encode() + b"=%&" + draw(raw_queries).encode()
        if draw(st.integers(0, 9)):
            lines.append(b"Authorization: Bearer TOKEN")
    else:
        data = draw(encoded(body))
        if not any(line.startswith(b"Content-Type") for line in lines):
            lines.append(b"Content-Type: application/json")
    return b"%b %b" % (method.encode(), target), b"\r\n".join([*lines, b"", data])


def _percent(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return "".join(f"%{byte:02x}" for byte in text[:400].encode("utf-8", "surrogatepass"))


# --- the hub, and what must hold whatever it was sent ---


class Target:
    """A hub under fire, with two peers who stay."""

    def __init__(self, hub: HubProcess) -> None:
        self.hub = hub
        self.tokens: dict[str, str] = {}
        self.renew()

    def renew(self) -> None:
        """Reset what the fire may have changed: modes, rates, the roster."""
        with self.hub.console() as console:
            console.send(action="reset")
            console.send(set_rate={"refill_rate": 1e6, "capacity": 1e6})
            for row in console.snapshot["peers"]:
                console.send(kick=row["name"])
            for form in console.snapshot["forms"]:
                console.send(cancel_form=form["id"])
            self._settle(console)
        for name in ("ann", "ben", "spare"):
            status, body = call(self.hub.port, "POST", "/register", {"project": name}, source=fresh_address())
            assert status == 200, body
            self.tokens[name] = body["token"]

    def check(self) -> None:
        """Assert that the hub serves: agents, reads, the operator; and that what can be seen of it agrees."""
        self.renew()
        assert call(self.hub.port, "GET", "/version")[0] == 200
        (alice, alices), (bob, bobs) = newcomer(self.hub, "alice"), newcomer(self.hub, "bob")
        sent = call(self.hub.port, "POST", "/send", {"token": alices, "to": bob, "content": "once"})
        assert sent[0] == 200, sent
        assert sent[1]["delivered_to"] == [bob]
        batches = [call(self.hub.port, "GET", "/receive?timeout=0", bearer=bobs) for _ in range(2)]
        assert [m["content"] for _, body in batches for m in body["messages"]] == ["once"]
        peers = call(self.hub.port, "GET", "/peers")[1]["peers"]
        with self.hub.console() as console:
            rows = console.snapshot["peers"]
            assert [row["name"] for row in rows if row["state"] == "live"] == peers
            assert {alice, bob, "ann", "ben", "spare"} == set(peers)
            assert console.snapshot["channels"] == call(self.hub.port, "GET", "/channels")[1]["channels"]
            assert console.snapshot["floors"] == call(self.hub.port, "GET", "/floor")[1]["floors"]
            assert console.snapshot["forms"] == call(self.hub.port, "GET", "/forms")[1]["forms"]
            seqs = [m["seq"] for m in console.snapshot["log"] if m["seq"]]
            assert seqs == sorted(set(seqs))
        for form in ("json", "md", "txt"):
            with Raw(self.hub.port) as raw:
                answer = raw.send(request_of("GET", f"/export?format={form}")).answer()
            assert answer is not None
            assert answer.status == 200
            answer.content.decode()

    def fill(self, data: bytes) -> bytes:
        """Put what is real in the place of placeholders."""
        data = data.replace(b"TOKEN", self.tokens["ann"].encode()).replace(b"SPARE", self.tokens["spare"].encode())
        return data.replace(b"NAME", f"fuzz-{next(_serials) % 50}".encode())

    def send(self, raw: Raw, first: bytes, rest: bytes) -> RawAnswer | None:
        """Send one request; give its answer. A poll that parks is woken by a message."""
        rest = self.fill(rest)
        head, _, data = rest.partition(b"\r\n\r\n") if b"\r\n\r\n" in rest else (rest, b"", b"")
        size = b"Content-Length: %d\r\n" % len(data) if data or first.startswith(b"P") else b""
        own_host = b"" if b"Host:" in head else b"Host: localhost\r\n"
        raw.send(b"%b HTTP/1.1\r\n%b%b%b\r\n\r\n%b" % (self.fill(first), own_host, size, head.rstrip(b"\r\n"), data))
        if b"/receive" in first and not raw.is_answered(0.3):
            with self.hub.console() as console:  # the operator gets through any pause
                console.send(say="wake up", to="ann")
                self._settle(console)
            assert raw.is_answered(DEADLINE_S), f"a message did not wake {first!r}"
        return raw.answer()

    def _settle(self, console: Console) -> None:
        console.send(heartbeat="settled")
        console.next("heartbeat_result")


@pytest.fixture(scope="module")
def target(road: tuple[str, ...]) -> Iterator[Target]:
    """Give a hub under fire; at its end its log must be free of errors."""
    with running_hub("--log-level", "warning", *road) as hub:
        yield Target(hub)


@pytest.fixture(scope="module")  # once: a console's frames never come by the express lane
def stage() -> Iterator[Target]:
    """Give a hub whose console is under fire."""
    with running_hub("--log-level", "warning") as hub:
        yield Target(hub)


def test_no_request_makes_the_hub_fail(target: Target) -> None:
    rounds = itertools.count(1)
    statuses: set[int] = set()

    @settings(max_examples=EXAMPLES)
    @given(st.lists(requests(), min_size=1, max_size=5))
    def fire(shots: list[tuple[bytes, bytes]]) -> None:
        raw = Raw(target.hub.port)
        try:
            for first, rest in shots:
                answer = target.send(raw, first, rest)
                if answer is not None:
                    assert answer.status < 500, (first, rest[:500], answer)
                    statuses.add(answer.status)
                    if answer.headers.get("content-type", "").startswith("application/json") and answer.status >= 400:
                        assert {"error", "detail"} <= answer.body.keys(), (first, answer)
                if answer is None or "close" in answer.headers.get("connection", "") or answer.status == 101:
                    raw.close()
                    raw = Raw(target.hub.port)
        finally:
            raw.close()
        if next(rounds) % 60 == 0:
            target.check()

    fire()
    target.check()
    assert statuses >= {200, 400, 401, 403, 404, 405, 409, 421, 422}, f"the fire was too tame: {statuses}"


def test_no_bytes_make_the_hub_fail(target: Target) -> None:
    lines = st.sampled_from(
        [
            b"GET /version HTTP/1.1",
            b"POST /send HTTP/1.1",
            b"Host: localhost",
            b"Content-Length: 5",
            b"Content-Length: 70000",
            b"Transfer-Encoding: chunked",
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            b"GET /ui HTTP/1.1",
            b"Expect: 100-continue",
            b"5\r\nhello",
            b"0",
            b"",
            b"",
            b" folded",
            b"\x81\x85\x00\x00\x00\x00hello",
        ]
    )

    @settings(max_examples=EXAMPLES)
    @given(
        st.lists(lines | st.binary(max_size=30), max_size=12), st.sampled_from([b"\r\n", b"\r\n", b"\n"]), st.booleans()
    )
    def fire(parts: list[bytes], line_break: bytes, ends: bool) -> None:
        with Raw(target.hub.port) as raw:
            raw.send(line_break.join(parts))
            if ends:
                raw.send(line_break * 2).end_sending()
                data = b""
                with contextlib.suppress(ConnectionResetError):
                    while chunk := raw.socket.recv(65_536):
                        data += chunk
                assert b"HTTP/1.1 5" not in data, (parts, data)

    fire()
    target.check()


# --- the console's socket ---

COMMANDS: tuple[dict[str, Any], ...] = (
    {"action": "pause"},
    {"action": "stop"},
    {"action": "reset"},
    {"say": "hello", "to": "ann"},
    {"say": "hello", "to": CHANNEL},
    {"say": "hello"},
    {"kick": "spare"},
    {"pause_peer": "ann"},
    {"resume_peer": "ann"},
    {"heartbeat": "ann"},
    {"close_channel": CHANNEL},
    {"floor": {"action": "clear", "scope": "all"}},
    {"answer": {"id": "FORM", "answers": {"k": "a", "l": ["b"]}}},
    {"cancel_form": "FORM", "reason": "r"},
    {"set_rate": {"refill_rate": 2.0, "capacity": 10.0}},
    {"command": "interrupt", "to": "ann"},
    {"auth": "x"},
    {"auth_probe": True},
)


@st.composite
def frames(draw: st.DrawFn) -> str | bytes:
    """Draw a frame for /ui, mostly a command that is nearly valid."""
    command: Any = draw(st.sampled_from(COMMANDS))
    if draw(st.booleans()):
        command = command | draw(st.sampled_from(COMMANDS))
    body = draw(mutated(command))
    text = json.dumps(body)[:200_000]  # within what a frame may have
    kind = draw(st.sampled_from(("frame",) * 8 + ("text", "binary", "cut", "deep", "long")))
    made: dict[str, str | bytes] = {
        "frame": text,
        "text": draw(st.text(max_size=20)).encode("utf-8", "replace").decode(),
        "binary": text.encode(),
        "cut": text[:-1],
        "deep": "[" * 50_000,
        "long": json.dumps({"say": "x" * 100_000}),
    }
    return made[kind]


def ask_form(target: Target) -> str:
    """Open a form; give its id, or "none" where the room does not let one."""
    question = {"token": target.tokens["ann"], "to": "all", "title": "T", "fields": [field_of("k"), field_of("l")]}
    status, body = call(target.hub.port, "POST", "/ask", question)
    assert status in (200, 401, 409, 422, 429), (status, body)
    return str(body.get("form_id", "none"))


def test_no_frame_makes_the_hub_fail_or_close_the_console(stage: Target) -> None:
    rounds = itertools.count(1)
    with contextlib.ExitStack() as stack:
        seats = [stack.enter_context(stage.hub.console())]

        @settings(max_examples=EXAMPLES)
        @given(st.lists(frames(), min_size=1, max_size=6))
        def fire(shots: list[str | bytes]) -> None:
            form = ask_form(stage)
            (console,) = seats
            for shot in shots:
                console.socket.send(shot.replace("FORM", form) if isinstance(shot, str) else shot)
            mark = f"mark {next(_serials)}"
            console.send(heartbeat=mark)
            console.next("heartbeat_result", where=lambda frame: frame["result"]["peer"] == mark)
            if next(rounds) % 50 == 0:
                stage.check()

        fire()
    stage.check()


def test_no_first_frame_opens_a_guarded_console_or_keeps_the_operator_out() -> None:
    with running_hub("--operator-token", "o", "--observer-token", "w", "--log-level", "warning") as hub:

        @settings(max_examples=120)
        @given(st.lists(frames(), min_size=1, max_size=3))
        def fire(shots: list[str | bytes]) -> None:
            with connect(f"ws://127.0.0.1:{hub.port}/ui", proxy=None) as line:
                seen, code = until_closed(line, *shots, '{"auth":"wrong"}')
            assert set(seen) <= {"auth_required", "auth_error"}
            assert code == 1008

        fire()
        with hub.console(auth="o") as console:
            assert console.welcome["role"] == "operator"
        with hub.console(auth="w") as console:
            for command in COMMANDS:
                console.send(**command)
            console.send(kick="nobody")
            errors = [console.next("error") for _ in COMMANDS[:-2]]
            assert {error["reason"] for error in errors} == {"forbidden"}
        assert call(hub.port, "GET", "/version")[0] == 200


def until_closed(line: ClientConnection, *shots: str | bytes) -> tuple[list[Any], int | None]:
    """Send frames, and read until the hub closes; give the types of what came, and the code."""
    seen: list[Any] = []
    try:
        for shot in shots:
            line.send(shot)
        while True:
            seen.append(json.loads(line.recv(timeout=DEADLINE_S))["type"])
    except ConnectionClosed as closed:
        return seen, closed.rcvd.code if closed.rcvd else None


def test_an_oversized_frame_is_closed_with_its_code_and_the_operator_comes_again(stage: Target) -> None:
    with stage.hub.console() as console:
        assert until_closed(console.socket, "x" * 2_000_000)[1] == 1009
    stage.check()


def test_broken_websocket_frames_close_their_connection_only(stage: Target) -> None:
    handshake = request_of(
        "GET",
        "/ui",
        Connection="Upgrade",
        Upgrade="websocket",
        Sec_WebSocket_Version="13",
        Sec_WebSocket_Key="AAAAAAAAAAAAAAAAAAAAAA==",
    )

    @settings(max_examples=120)
    @given(st.binary(min_size=1, max_size=60))
    def fire(data: bytes) -> None:
        with Raw(stage.hub.port) as raw:
            answer = raw.send(handshake).answer()
            assert answer is not None
            assert answer.status == 101
            raw.send(data)

    fire()
    started = time.monotonic()
    stage.check()
    assert time.monotonic() - started < 5
