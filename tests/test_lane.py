"""The express lane itself, over raw sockets: what stays on it, what goes to Tornado, and what protects it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import select
import socket
import struct
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from fakes import RecordingRoom
from hubs import DEADLINE_S, eventually
from wires import Raw, RawAnswer, request_of

import caucus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fakes import FakeClock


class InnerHub:
    """A hub in a thread of this process, so that a test can look inside."""

    def __init__(self, settings: caucus.Settings) -> None:
        self._settings, self._started, self._ended = settings, threading.Event(), False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        assert self._started.wait(DEADLINE_S)
        self.port = self.hub.gate.port
        self.lanes = self.hub.lanes

    def _serve(self) -> None:
        turn = caucus.Turn()
        with asyncio.Runner(loop_factory=lambda: turn.loop) as runner:
            runner.run(self._run(turn))

    async def _run(self, turn: caucus.Turn) -> None:
        self._loop, self._end = turn.loop, asyncio.Event()
        self.hub = caucus.Hub(self._settings, turn)
        self.hub.start()
        self.hub.room.set_rate(1e6, 1e6)
        self._started.set()
        await self._end.wait()
        await self.hub.stop()

    def do(self, what: Callable[[], Any]) -> Any:
        """Call a function where the hub runs; give what it gives."""

        async def work() -> Any:
            return what()

        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(DEADLINE_S)

    def join(self, name: str) -> str:
        """Take a seat without HTTP; give its token."""
        return str(self.do(lambda: self.hub.room.register(f"host of {name}", name)[1]))

    def is_listening(self, name: str) -> bool:
        """Whether a poll of that peer is parked."""
        return bool(self.do(lambda: self.hub.room.presence(name)).get("listening"))

    def say(self, to: str, content: str) -> None:
        """Speak as the operator."""
        self.do(lambda: self.hub.room.operator_say(to, content))

    def counts(self) -> tuple[int, int]:
        """Give how many requests the lane answered, and how many it handed over."""
        return self.lanes.answered, self.lanes.handed_over

    def stop(self) -> None:
        """End it in an orderly way."""
        if not self._ended:
            self._ended = True
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(DEADLINE_S)
            assert not self._thread.is_alive()


@contextlib.contextmanager
def running(**settings: Any) -> Iterator[InnerHub]:
    """Run a hub inside."""
    inner = InnerHub(caucus.Settings(port=0, **settings))
    try:
        yield inner
    finally:
        inner.stop()


@pytest.fixture
def inner() -> Iterator[InnerHub]:
    """Give a hub with a lane, of this test's own."""
    with running() as one:
        yield one


@pytest.fixture
def raw(inner: InnerHub) -> Iterator[Raw]:
    """Give a connection to it."""
    with Raw(inner.port) as line:
        yield line


def got(line: Raw) -> RawAnswer:
    """Read the answer that must come."""
    answer = line.answer()
    assert answer is not None, "the connection ended without an answer"
    return answer


def sending(token: str, to: str = "all", content: str = "hello", **headers: str) -> bytes:
    """Word a POST /send."""
    return request_of("POST", "/send", {"token": token, "to": to, "content": content}, **headers)


def polling(token: str, query: str = "?timeout=20") -> bytes:
    """Word a GET /receive."""
    return request_of("GET", f"/receive{query}", bearer=token)


def park(inner: InnerHub, name: str, token: str, more: bytes = b"", query: str = "?timeout=20") -> Raw:
    """Park a poll on a connection of its own, and send `more` behind it."""
    line = Raw(inner.port).send(polling(token, query))
    eventually(lambda: inner.is_listening(name), f"{name} listening")
    return line.send(more)


def contents(answer: RawAnswer) -> list[str]:
    """List what the messages of a batch say."""
    return [message["content"] for message in answer.body["messages"]]


def lane_of_peer(inner: InnerHub, name: str) -> Any:
    """Find the lane on which a peer's poll is parked."""
    return inner.do(lambda: inner.hub.polls._listeners[name].poll.caller)


# --- what stays, and what goes ---


def test_every_express_route_is_answered_on_the_lane(inner: InnerHub, raw: Raw) -> None:
    token = str(got(raw.send(request_of("POST", "/register", {"project": "api"}))).body["token"])
    sent = got(raw.send(sending(token, "api")))
    assert sent.body["delivered_to"] == ["api"]
    batch = got(raw.send(polling(token)))
    assert contents(batch) == ["hello"]
    assert got(raw.send(request_of("GET", "/peek", bearer=token))).status == 200
    told = {"acked": True, "seq": 1, "mode": "running"}
    assert got(raw.send(request_of("POST", "/ack", {"token": token, "seq": 1}))).body == told
    assert got(raw.send(request_of("POST", "/status", {"token": token, "status": "busy"}))).status == 200
    assert inner.counts() == (6, 0)


def test_every_route_is_answered_on_the_lane(inner: InnerHub, raw: Raw) -> None:
    token = inner.join("api")
    for method, path in caucus.ROUTES:
        body = {"token": token} if method == "POST" else None
        target = "/receive?timeout=0" if path == "/receive" else path
        assert got(raw.send(request_of(method, target, body, bearer=token))).status < 500
        token = inner.join("api") if path == "/leave" else token
    rpc = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    assert got(raw.send(request_of("POST", "/mcp", rpc))).status < 500
    assert got(raw.send(request_of("GET", "/assets/app.js"))).status == 200
    assert inner.counts() == (len(caucus.ROUTES) + 2, 0)


def test_no_route_asks_for_a_header_by_a_name_that_a_lane_does_not_know() -> None:
    asked = re.findall(r"headers\.get\(\"([^\"]+)\"", Path(caucus.__file__).read_text(encoding="utf-8"))
    assert {"Authorization", "Mcp-Session-Id"} <= {*asked}
    assert [name for name in asked if name != caucus._usual_name(name.encode())] == []


def test_where_the_system_has_no_epoll_the_loop_tells_the_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "epoll", raising=False)
    with running() as inner, Raw(inner.port) as line:
        token = inner.join("api")
        with park(inner, "api", token) as parked:
            assert got(line.send(sending(token, "api"))).body["delivered_to"] == ["api"]
            assert contents(got(parked)) == ["hello"]
        for n in range(900):
            inner.say("api", f"{n} " + "x" * 2000)
        with Raw(inner.port).send(polling(token, "?timeout=0")) as slow:  # more than the system takes at once
            assert len(contents(got(slow))) > 400
        assert inner.counts()[1] == 0


def test_of_many_that_are_ready_each_has_its_turn(inner: InnerHub) -> None:
    token = inner.join("api")
    lines = [Raw(inner.port) for _ in range(3 * caucus.TURN_SOCKETS)]
    is_over = threading.Event()
    inner._loop.call_soon_threadsafe(is_over.wait, DEADLINE_S)  # it hears of all of them in one turn
    for line in lines:
        line.send(request_of("GET", "/peek", bearer=token) * 3)
    is_over.set()
    assert [got(line).status for line in lines for _ in range(3)] == [200] * 3 * len(lines)
    for line in lines:
        line.close()


@pytest.mark.parametrize(("data", "status"), [
    (request_of("POST", "/send", b"{"), 422),
    (request_of("POST", "/send", {"token": "x", "to": "all", "content": "x"}), 401),
    (request_of("GET", "/receive?timeout=x", bearer="x"), 422),
    (request_of("GET", "/peek"), 401),
    (request_of("GET", "/peek", Origin="http://evil.example"), 403),
    (b"GET /peek HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
    (b"POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", 422),
    (b"GET /peek HTTP/1.1\r\nhost: localhost\r\nCONNECTION: Keep-Alive\r\n\r\n", 401),
    (b"POST /send HTTP/1.1\r\nHost: localhost\r\ncontent-length: 000002\r\n\r\n{}", 422),
    (b"GET /p%65ek HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    (b"GET /peek/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 307),
    (b"DELETE /peek HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    (b"GET //peek HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
])
def test_a_refusal_comes_from_the_lane_too(inner: InnerHub, raw: Raw, data: bytes, status: int) -> None:
    assert got(raw.send(data)).status == status
    assert inner.counts() == (1, 0)


BODY = b'{"token":"x","to":"all","content":"x"}'
POST = b"POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GET = b"GET /peek HTTP/1.1\r\nHost: localhost\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
ODD = {
    "HTTP/1.0": (b"GET /peek HTTP/1.0\r\nHost: localhost\r\n\r\n", 401),
    "an absolute URI": (b"GET http://localhost/peek HTTP/1.1\r\nHost: localhost\r\n\r\n", 401),
    "two spaces in the line": (b"GET  /peek HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "an empty line first": (b"\r\n" + GET + b"\r\n", 401),
    "bare line feeds": (GET.replace(b"\r", b"") + b"\n", 401),
    "one bare line feed": (GET + b"X: y\n\r\n", 401),
    "a carriage return in a value": (GET + b"X: y\rz\r\n\r\n", 400),
    "a folded header": (GET + b"X: y\r\n z\r\n\r\n", 400),
    "no space after the colon": (GET + b"X:y\r\n\r\n", 401),
    "two spaces after the colon": (GET + b"X:  y\r\n\r\n", 401),
    "a space before the colon": (GET + b"X : y\r\n\r\n", 400),
    "an empty value": (GET + b"X:\r\n\r\n", 401),
    "a byte beyond ASCII": (GET + b"X: \xe9\r\n\r\n", 401),
    "a header twice": (GET + b"X: y\r\nx: y\r\n\r\n", 401),
    "two hosts": (GET + b"Host: localhost\r\n\r\n", 421),
    "no host": (b"GET /peek HTTP/1.1\r\nX: y\r\n\r\n", 421),
    "no headers": (b"GET /peek HTTP/1.1\r\n\r\n", 421),
    "another method": (b"PUT /peek HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    "a small-letter method": (b"get /peek HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    "Connection: close": (GET + b"Connection: close\r\n\r\n", 401),
    "an upgrade": (GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 401),
    "Expect": (POST + b"Expect: 100-continue\r\n" + LENGTH + b"\r\n" + BODY, 100),
    "a GET with a length": (GET + b"Content-Length: 0\r\n\r\n", 401),
    "a POST without one": (POST + b"\r\n", 422),
    "a length with a sign": (POST + b"Content-Length: +38\r\n\r\n" + BODY, 400),
    "two equal lengths": (POST + LENGTH * 2 + b"\r\n" + BODY, 401),
    "two lengths": (POST + LENGTH + b"Content-Length: 5\r\n\r\n" + BODY, 400),
    "a length and chunks": (POST + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\n26\r\n" + BODY + b"\r\n0\r\n\r\n", 401),
    "a long head": (GET + b"X: " + b"y" * caucus.HEADERS_MAX_BYTES + b"\r\n\r\n", 431),
    "a long body": (POST + b"Content-Length: 65537\r\n\r\n" + b" " * 65537, 413),
}


@pytest.mark.parametrize("kind", ODD)
def test_whatever_is_not_plain_goes_to_tornado(inner: InnerHub, raw: Raw, kind: str) -> None:
    data, status = ODD[kind]
    assert got(raw.send(data)).status == status
    assert inner.counts() == (0, 1)


def test_what_was_read_already_is_not_lost(inner: InnerHub, raw: Raw) -> None:
    token = inner.join("api")
    cold = request_of("POST", "/channels/join", {"token": token, "channel": "#x"})
    raw.send(sending(token, content="one") + cold + sending(token, content="two") + cold)
    answers = [got(raw) for _ in range(4)]
    assert [answer.status for answer in answers] == [200] * 4
    assert [*answers[1].body] == [*answers[3].body] == ["joined", "channel"]
    assert [message.content for message in inner.hub.room.log if message.origin == "agent"] == ["one", "two"]


def test_after_an_odd_request_a_connection_stays_with_tornado(inner: InnerHub, raw: Raw) -> None:
    token = inner.join("api")
    assert got(raw.send(sending(token, X="y  "))).status == 200
    assert got(raw.send(sending(token))).status == 200
    assert inner.counts() == (0, 1)


def test_without_a_lane_tornado_answers_everything() -> None:
    with running(is_plain_http=True) as inner, Raw(inner.port) as line:
        token = inner.join("api")
        assert got(line.send(sending(token, "api"))).status == 200
        assert contents(got(line.send(polling(token)))) == ["hello"]
        with park(inner, "api", token) as parked:
            inner.say("api", "again")
            assert contents(got(parked)) == ["again"]
        assert inner.counts() == (0, 0)


LINE = b"GET /peek HTTP/1.1\r\n"


@pytest.mark.parametrize("block", [
    b"", b"Host: x", b"Host: x\r\nA: b", b"Host: x\n", b"Host: x\r\n\r\n", b"Host:x\r\n", b"A: b\r\n", b"Host: x \r\n",
    b"Host: x\r\nHOST: x\r\n", b"Host: x\r\nContent-Length: 5\r\n", b"Host: x\r\nCONTENT-LENGTH: 5\r\n",
    b"Host: x\r\nTE: trailers\r\n", b"Host: x\r\nConnection: keep-alive, x\r\n", b"Host: x\r\n_: y\r\n",
])
def test_such_headers_are_not_plain(block: bytes) -> None:
    assert caucus.head_of(LINE + block) is None


@pytest.mark.parametrize("line", [
    b"", b"GET /peek HTTP/1.0", b"GET peek HTTP/1.1", b"GET  /peek HTTP/1.1", b"get /peek HTTP/1.1",
    b"PUT /peek HTTP/1.1", b"HEAD /peek HTTP/1.1", b"GET /pe\tek HTTP/1.1", b"GET /\xe9 HTTP/1.1",
    b"GET /" + b"x" * 8192 + b" HTTP/1.1",
])
def test_such_lines_are_not_plain(line: bytes) -> None:
    assert caucus.head_of(line + b"\r\nHost: x\r\n") is None


@pytest.mark.parametrize(
    "block", [b"a" * 8180, b"a: " * 2720 + b"\x01", b"a: b" * 2000, b"a" * 4000 + b": " + b"a" * 4000 + b"\x01\r\n"]
)
def test_a_head_that_is_nearly_plain_takes_no_longer(block: bytes) -> None:
    for _ in range(1000):  # minutes, if anything in it were tried twice
        assert caucus.head_of(LINE + block) is None


def test_plain_headers_are_known_by_their_usual_names() -> None:
    head = caucus.head_of(b"POST /a%20b?c=d&e HTTP/1.1\r\nhost: x:1\r\ncontent-TYPE: a/b; c=d\r\n")
    assert head is not None
    assert head.headers == {"Host": "x:1", "Content-Type": "a/b; c=d"}
    assert (head.method, head.path, head.query) == ("POST", "/a%20b", "c=d&e")
    assert (head.bearer, head.is_json) == ("", False)


POSTED = b"POST /send HTTP/1.1\r\nA: b"
POLLED = b"GET /receive?%b HTTP/1.1\r\nA: b\r\n"


@pytest.mark.parametrize(("head", "rest", "number"), [
    (POSTED + b"\r\nContent-Length: 12\r\nC: d\r\n", POSTED + b"\r\nC: d\r\n", 12),
    (POSTED + b"\r\ncontent-length: 0\r\n", POSTED + b"\r\n", 0),
    (POLLED % b"timeout=2&lease=a&ack_seq=12", POLLED % b"timeout=2&lease=a&ack_seq=", 12),
    (POLLED % b"ack_seq=12&lease=a", POLLED % b"ack_seq=&lease=a", 12),
    (POLLED % b"ack_seq=1&ack_seq=2", POLLED % b"ack_seq=1&ack_seq=", 2),
])
def test_a_head_is_remembered_without_the_number_that_is_another_each_time(
    head: bytes, rest: bytes, number: int
) -> None:
    assert caucus.without_number(head) == (rest, number)


@pytest.mark.parametrize("head", [
    POSTED + b"\r\n", POSTED + b"\r\nContent-Length: +2\r\n", POSTED + b"\r\nContent-Length: " + b"1" * 19 + b"\r\n",
    POSTED + b"\r\nX-Content-Length: 2\r\n", POSTED + b"\r\nCONTENT-LENGTH: 2\r\n",
    POLLED % b"ack_seq=-1", POLLED % b"ack_seq=", POLLED % b"ack_seq=1&ack%5Fseq=2", POLLED % b"timeout=2",
    POLLED % b"timeout=2" + b"X: ack_seq=1 \r\n", POLLED % b"xack_seq=1", POLLED % b"timeout=2&xack_seq=1",
    POLLED % b"ack_seq=1.0", POLLED % (b"ack_seq=" + b"1" * 19),
    b"GET /peek?ack_seq=1 HTTP/1.1\r\nContent-Length: 2\r\n",
])
def test_a_number_that_is_not_plain_stays(head: bytes) -> None:
    assert caucus.without_number(head) == (head, None)


def test_heads_that_are_remembered_are_few_and_short(inner: InnerHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caucus, "_HEADS_MAX", 4)
    with Raw(inner.port) as line:
        for n in range(20):
            got(line.send(request_of("GET", f"/peek?{n}", X=str(n))))
        got(line.send(request_of("GET", "/peek?" + "y" * 2000, X="y" * 2000)))
    assert 0 < len(inner.lanes.heads) <= 4
    assert max(map(len, inner.lanes.heads)) < 1024


# --- bytes as they come ---


def test_a_request_may_come_byte_by_byte(inner: InnerHub, raw: Raw) -> None:
    token = inner.join("api")
    for byte in sending(token, "api"):
        raw.send(bytes([byte]))
    assert got(raw).body["delivered_to"] == ["api"]
    assert inner.counts() == (1, 0)


def test_many_requests_at_once_are_answered_in_their_order(inner: InnerHub, raw: Raw) -> None:
    token, count = inner.join("api"), 80
    raw.send(b"".join(sending(token, "api", str(n)) for n in range(count)) + polling(token))
    ids = [got(raw).body["message_id"] for _ in range(count)]
    batch = got(raw).body["messages"]
    assert [message["id"] for message in batch] == ids
    assert [message["content"] for message in batch] == [str(n) for n in range(count)]


def test_what_is_sent_behind_a_parked_poll_is_answered_after_it(inner: InnerHub) -> None:
    token = inner.join("api")
    with park(inner, "api", token, sending(token, "api", "behind") + request_of("GET", "/version")) as line:
        inner.say("api", "wake up")
        assert contents(got(line)) == ["wake up"]
        assert got(line).body["delivered_to"] == ["api"]
        assert "version" in got(line).body


def test_a_sender_that_ends_its_half_is_answered(inner: InnerHub, raw: Raw) -> None:
    token = inner.join("api")
    raw.send(sending(token, "api") * 2).end_sending()
    assert [answer.status for answer in raw.answers()] == [200, 200]


@pytest.mark.parametrize("how", ["close", "half", "reset"])
def test_a_poll_whose_connection_ends_is_forgotten(inner: InnerHub, how: str) -> None:
    token = inner.join("api")
    line = park(inner, "api", token)
    if how == "reset":
        line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.end_sending() if how == "half" else line.close()
    eventually(lambda: not inner.is_listening("api"), "nobody listening")
    eventually(lambda: not inner.do(lambda: inner.hub.links.open), "no connection")
    line.close()


def test_an_answer_that_is_lost_with_its_connection_is_given_again(inner: InnerHub) -> None:
    token = inner.join("api")
    line = park(inner, "api", token)
    inner.say("api", "once more")
    assert line.is_answered(DEADLINE_S)
    line.close()  # with the answer unread: a reset
    with Raw(inner.port) as next_line:
        assert contents(got(next_line.send(polling(token)))) == ["once more"]


@pytest.mark.parametrize("is_plain_http", [False, True])
def test_an_answer_whose_connection_closes_before_its_turn_ends_is_given_again(is_plain_http: bool) -> None:
    with running(is_plain_http=is_plain_http) as inner:
        token = inner.join("api")

        def say_and_close() -> None:
            inner.hub.room.operator_say("api", "first")
            for link in [*inner.hub.links.open]:
                link.close()

        with park(inner, "api", token, query="?timeout=20&lease=a"):
            inner.do(say_and_close)
            with Raw(inner.port) as line:
                assert contents(got(line.send(polling(token, "?timeout=20&lease=a")))) == ["first"]


def test_an_answer_that_comes_after_the_goodbye_is_given_again(
    inner: InnerHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, is_gone = inner.join("api"), threading.Event()
    monkeypatch.setattr(caucus.Lane, "is_alive", lambda lane: True)  # as when it hangs up a moment later
    inner.say("api", "once more")
    line = Raw(inner.port)
    eventually(lambda: inner.hub.links.idle, "the connection")
    inner._loop.call_soon_threadsafe(is_gone.wait, DEADLINE_S)
    line.send(polling(token)).close()
    is_gone.set()
    with Raw(inner.port) as next_line:
        assert contents(got(next_line.send(polling(token)))) == ["once more"]


def test_a_connection_that_ends_in_the_middle_of_a_request_is_gone(inner: InnerHub) -> None:
    with Raw(inner.port) as line:
        line.send(sending("x")[:-5]).end_sending()
        assert line.answers() == []
    assert inner.do(lambda: (len(inner.hub.links.open), len(inner.lanes._late))) == (0, 0)


# --- what protects it ---


def test_who_sends_more_ahead_of_an_answer_than_is_read_is_closed_and_does_not_count_as_listening(
    inner: InnerHub,
) -> None:
    token = inner.join("api")
    request = request_of("GET", "/peek", bearer=token)
    with park(inner, "api", token) as line:
        lane = lane_of_peer(inner, "api")
        line.send(request * (caucus.AHEAD_MAX_BYTES // len(request)))
        eventually(lambda: len(lane._ahead) > caucus.AHEAD_MAX_BYTES - len(request), "what may be sent ahead")
        assert inner.is_listening("api")
        with contextlib.suppress(ConnectionError):  # closed while it sends
            line.send(request * 2)
        eventually(lambda: not inner.is_listening("api"), "the end of the connection")
    inner.say("api", "not lost")
    with Raw(inner.port) as line:
        assert contents(got(line.send(polling(token)))) == ["not lost"]


def stalled(inner: InnerHub, token: str) -> Raw:
    """Let a poll get more than the kernel's buffers hold, which no bound of ours allows, and read nothing of it."""
    messages = 900
    for _ in range(messages):
        inner.say("api", "\N{SNOWMAN}" * 8192)  # 49 kB each on the wire
    line = Raw(inner.port)
    with mock.patch.object(caucus, "BATCH_MAX_BYTES", 1 << 30):
        line.send(polling(token))
        eventually(lambda: inner.hub.links._debts, "a stalled reader")
    return line


def test_a_reader_that_stalls_is_dropped_and_its_messages_are_kept(
    inner: InnerHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = inner.join("api")
    with stalled(inner, token) as line:
        inner.do(inner.lanes.sweep)
        assert inner.hub.links._debts, "it has its time"
        monkeypatch.setattr(caucus, "BODY_S", -1.0)
        monkeypatch.setattr(caucus, "TAKEN_MIN_BYTES_PER_S", 1e12)
        inner.do(inner.lanes.sweep)
        assert not inner.hub.links._debts
        assert inner.do(lambda: inner.hub.room.roster.get("api").mailbox.waiting) == 900
        assert line.is_answered(DEADLINE_S)


def test_a_slow_reader_gets_it_all(inner: InnerHub) -> None:
    token = inner.join("api")
    with stalled(inner, token) as line:
        line.send(request_of("GET", "/peek", bearer=token))
        assert len(got(line).body["messages"]) == 900
        assert got(line).status == 200
        assert not inner.hub.links._debts


def test_who_takes_an_answer_too_slowly_is_not_fed_for_ever(inner: InnerHub) -> None:
    """A reader is measured by what it takes: a byte now and then keeps nobody's answer in memory."""
    links, now = inner.hub.links, time.monotonic()
    crawling, walking, fresh = (caucus.Link(n) for n in (1, 2, 3))
    minute = 2 * caucus.BODY_S
    links._debts |= {
        crawling: caucus.Debt(now - minute, 1 << 20, taken=int(minute * 3000)),
        walking: caucus.Debt(now - minute, 1 << 20, taken=int(minute * 2 * caucus.TAKEN_MIN_BYTES_PER_S)),
        fresh: caucus.Debt(now, 1 << 20),
    }
    try:
        assert links.slow() == [crawling]
    finally:
        links._debts.clear()


@pytest.mark.parametrize("path", ["/export", "/peek"])
def test_what_all_leave_unread_has_a_ceiling_and_the_greatest_debtors_go(
    inner: InnerHub, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Over Tornado and over the lane: readers that read nothing are closed, and everybody else is served."""
    monkeypatch.setattr(caucus, "UNSENT_MAX_BYTES", 8 << 20)
    token = inner.join("api")
    for _ in range(500):
        inner.say("api", "\N{SNOWMAN}" * 8192)
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(Raw(inner.port)) for _ in range(12)]
        for line in lines:
            line.send(request_of("GET", path, bearer=token))
            assert line.socket.recv(1)  # it is being answered; the rest stays where it is
        eventually(lambda: inner.hub.links.unsent <= 8 << 20, "the debtors closed")
        assert len(inner.hub.links.open) < 13
        with Raw(inner.port) as other:
            other.send(request_of("GET", "/version"))
            assert got(other).status == 200
    eventually(lambda: inner.hub.links.unsent == 0, "nothing owed by those who are gone")


def test_an_export_is_worded_once_for_all_who_ask(inner: InnerHub) -> None:
    inner.join("api")
    inner.say("api", "one")

    def exported() -> bytes:
        given = list[bytes]()
        inner.do(lambda: inner.hub.gate.exports.ask(caucus.FORMATS["text"], given.append))
        return given[0]

    first = exported()
    assert exported() is first
    inner.say("api", "two")
    assert exported() != first


@pytest.mark.parametrize(("data", "limit"), [
    (b"", "IDLE_S"), (b"GET /peek HTTP/1.1\r\nHo", "IDLE_S"), (sending("x")[:-5], "BODY_S"),
    (request_of("GET", "/peek"), "IDLE_S"),
])
def test_who_sends_no_whole_request_in_time_is_closed(
    inner: InnerHub, monkeypatch: pytest.MonkeyPatch, data: bytes, limit: str
) -> None:
    with Raw(inner.port) as line:
        line.send(data)
        is_here = lambda: inner.lanes._late if limit == "BODY_S" else inner.hub.links.idle  # noqa: E731
        eventually(is_here, "the connection")
        if data.endswith(b"\r\n\r\n"):
            assert got(line).status == 401
        inner.do(inner.lanes.sweep)
        assert inner.do(lambda: len(inner.hub.links.open)) == 1, "it has its time"
        monkeypatch.setattr(caucus, limit, -1.0)
        inner.do(inner.lanes.sweep)
        assert line.answer() is None
        assert inner.do(lambda: len(inner.hub.links.open)) == 0


def test_trickled_headers_do_not_renew_the_time_limit(inner: InnerHub, raw: Raw) -> None:
    eventually(lambda: inner.hub.links.idle, "the connection")
    since = [*inner.hub.links.idle.values()]
    for byte in b"GET /peek HTTP/1.1\r\n":
        raw.send(bytes([byte]))
    lane = inner.do(lambda: next(iter(inner.hub.links.idle)))
    eventually(lambda: len(lane._ahead) == 20, "all of it")
    assert [*inner.hub.links.idle.values()] == since


@contextlib.contextmanager
def crowded(monkeypatch: pytest.MonkeyPatch, links_max: int, **settings: Any) -> Iterator[InnerHub]:
    """Run a hub that takes so many connections."""
    monkeypatch.setattr(caucus, "file_limit", lambda: caucus.FILES_RESERVED + links_max)
    with running(**settings) as inner:
        yield inner


@pytest.mark.parametrize("is_plain_http", [False, True])
def test_one_connection_too_many_closes_the_one_idle_for_longest(
    monkeypatch: pytest.MonkeyPatch, is_plain_http: bool
) -> None:
    with crowded(monkeypatch, 3, is_plain_http=is_plain_http) as inner, contextlib.ExitStack() as stack:
        lines = [stack.enter_context(Raw(inner.port)) for _ in range(3)]
        for line in lines:
            assert got(line.send(request_of("GET", "/peek"))).status == 401
        assert got(lines[0].send(request_of("GET", "/peek"))).status == 401
        late = stack.enter_context(Raw(inner.port))
        assert got(late.send(request_of("GET", "/peek"))).status == 401
        assert lines[1].answer() is None
        for line in (lines[0], lines[2]):
            assert got(line.send(request_of("GET", "/peek"))).status == 401


@pytest.mark.parametrize("is_plain_http", [False, True])
def test_when_no_connection_is_idle_a_newcomer_is_told_so(monkeypatch: pytest.MonkeyPatch, is_plain_http: bool) -> None:
    with crowded(monkeypatch, 2, is_plain_http=is_plain_http) as inner, contextlib.ExitStack() as stack:
        tokens = {name: inner.join(name) for name in ("api", "web")}
        parked = [stack.enter_context(park(inner, name, token)) for name, token in tokens.items()]
        for _ in range(3):
            late = stack.enter_context(Raw(inner.port))
            answers = late.send(request_of("GET", "/version")).answers()
            assert [(answer.status, answer.body["error"]) for answer in answers] == [(503, "too_many_connections")]
        inner.say("api", "still here")
        assert contents(got(parked[0])) == ["still here"]
        late = stack.enter_context(Raw(inner.port))
        assert got(late.send(request_of("GET", "/version"))).status == 200


def test_a_stop_answers_what_is_parked_and_ends_every_connection(inner: InnerHub) -> None:
    token = inner.join("api")
    with park(inner, "api", token) as parked, Raw(inner.port) as idle, Raw(inner.port) as half:
        half.send(b"GET /pe")
        eventually(lambda: len(inner.hub.links.open) == 3, "three connections")
        inner.stop()
        assert [answer.body["messages"] for answer in parked.answers()] == [[]]
        assert idle.answer() is None
        assert half.answer() is None
        assert not inner.hub.links.open
    with pytest.raises(ConnectionRefusedError):
        Raw(inner.port)


# --- fairness ---


class Ear:
    """A caller that keeps what it is answered."""

    def __init__(self, serial: int) -> None:
        self.serial, self.replies = serial, list[caucus.Reply]()

    def source(self) -> str:
        return "127.0.0.1"

    def reply(self, reply: caucus.Reply) -> None:
        self.replies.append(reply)

    def stream(self, chunk: bytes, is_last: bool) -> None:
        raise AssertionError

    def is_alive(self) -> bool:
        return True

    def on_gone(self, callback: Callable[[], None]) -> None:
        pass

    def on_lost(self, callback: Callable[[], None]) -> Callable[[], None]:
        return lambda: None


class Crowd:
    """A room whose peers all have a parked poll, and a loop that runs when it is told."""

    def __init__(self, clock: FakeClock, count: int) -> None:
        self.room = RecordingRoom(clock)
        self.turns: list[tuple[float, Callable[[], None]]] = []
        self.polls = caucus.Polls(self.room, clock, lambda at, call: self.turns.append((at, call)))
        self.room._emit = lambda event: self.polls.handlers.get(type(event), lambda _: None)(event)
        self.speaker = self.room.join("speaker")
        self.peers = [self.room.join(f"peer-{n}") for n in range(count)]
        self.ears = [Ear(n) for n in range(count)]
        for peer, ear in zip(self.peers, self.ears, strict=True):
            assert self.polls.receive(peer, ear, "lease", 20.0, None) is None
        self.time_out = self.turns.pop()[1]

    def say(self, to: str = "all") -> None:
        """Speak."""
        self.room.set_rate(1e6, 1e6)
        self.room.say(self.speaker, to, "hello")

    def turn(self) -> None:
        """Run what was put off to the next turn of the loop."""
        turns, self.turns = self.turns, []
        for _, call in turns:
            call()

    def answered(self) -> int:
        """Count the polls that were answered, each once."""
        assert max(len(ear.replies) for ear in self.ears) <= 1
        return sum(len(ear.replies) for ear in self.ears)


COUNT = 2 * caucus.WAKES_PER_TURN + 50


def test_a_broadcast_wakes_so_many_in_a_turn_and_all_in_the_end(clock: FakeClock) -> None:
    crowd = Crowd(clock, COUNT)
    crowd.say()
    assert crowd.answered() == caucus.WAKES_PER_TURN
    crowd.turn()
    assert crowd.answered() == 2 * caucus.WAKES_PER_TURN
    crowd.turn()
    assert crowd.answered() == COUNT
    assert crowd.turns == []
    assert len({id(ear.replies[0].raw) for ear in crowd.ears}) == 1, "one answer, encoded once"


def test_who_is_yet_to_be_woken_may_leave_poll_anew_or_get_more(clock: FakeClock) -> None:
    crowd = Crowd(clock, COUNT)
    crowd.say()
    *_, mover, leaver, last = crowd.peers
    crowd.room.leave(crowd.room.tokens[leaver.name])
    again = crowd.polls.receive(mover, Ear(COUNT), "lease", 20.0, None)
    assert again is not None, "what waits for it is there at once"
    assert again.raw.count(b'"hello"') == 1
    crowd.say(last.name)
    crowd.turn()
    crowd.turn()
    assert crowd.answered() == COUNT
    assert crowd.ears[-3].replies[0].body == b'{"messages":[],"mode":"running"}', "the poll before gave way"
    assert crowd.ears[-2].replies[0].status == 401
    assert crowd.ears[-1].replies[0].raw.count(b'"hello"') == 2, "and both are in its one answer"
    assert crowd.turns == []


def test_a_pause_in_the_middle_of_a_broadcast_holds_the_rest(clock: FakeClock) -> None:
    crowd = Crowd(clock, COUNT)
    crowd.say()
    crowd.room.set_mode("pause")
    crowd.turn()
    crowd.turn()
    assert crowd.answered() == caucus.WAKES_PER_TURN
    crowd.room.set_mode("resume")
    for _ in range(6):
        crowd.turn()
    assert crowd.answered() == COUNT


def test_polls_that_time_out_together_are_answered_so_many_at_a_time(clock: FakeClock) -> None:
    crowd = Crowd(clock, COUNT)
    clock.advance(21)
    crowd.time_out()
    assert crowd.answered() == caucus.WAKES_PER_TURN
    crowd.turn()
    crowd.turn()
    assert crowd.answered() == COUNT
    assert crowd.turns == []
    assert not crowd.polls._slots


def test_one_that_sends_without_end_does_not_keep_the_others_waiting(inner: InnerHub) -> None:
    token = inner.join("api")
    flood = request_of("GET", "/peek", bearer=token) * 2000
    with Raw(inner.port) as greedy, Raw(inner.port) as modest:
        sender = threading.Thread(target=greedy.send, args=(flood,))
        sender.start()
        assert greedy.is_answered(DEADLINE_S)
        assert json.loads(got(modest.send(request_of("GET", "/peek", bearer=token))).content)["pending"] == 0
        assert sum(got(greedy).status == 200 for _ in range(2000)) == 2000
        sender.join(DEADLINE_S)
