"""Both roads of the hub are the same hub: the same bytes, to one with an express lane and to one without, do the same.

What is compared: status, headers and body of every answer, whether the connection was ended, and what the room did.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_lane import InnerHub

import caucus

TURNS = (
    12  # of the hub's loop, after which it has dealt with whatever had reached it: Tornado's coroutines take several
)
A, B = b"<token-of-alice------------->", b"<token-of-bob--------------->"  # stand for 32 characters each
HOST = b"Host: 127.0.0.1\r\n"
JSON = b"Content-Type: application/json\r\n"


def post(path: bytes, body: bytes, *lines: bytes, length: bytes | None = None) -> bytes:
    """Write a POST with further header lines."""
    size = str(len(body.replace(A, b"a" * 32).replace(B, b"b" * 32))).encode() if length is None else length
    return b"POST %b HTTP/1.1\r\n%b%bContent-Length: %b\r\n%b\r\n%b" % (path, HOST, JSON, size, b"".join(lines), body)


def get(path: bytes, *lines: bytes, token: bytes = B) -> bytes:
    """Write a GET with a bearer and further header lines."""
    return b"GET %b HTTP/1.1\r\n%bAuthorization: Bearer %b\r\n%b\r\n" % (path, HOST, token, b"".join(lines))


def send(text: bytes = b"hello", to: bytes = b"bob", *lines: bytes) -> bytes:
    """Write alice's POST /send."""
    return post(b"/send", b'{"token":"%b","to":"%b","content":"%b"}' % (A, to, text), *lines)


SMUGGLED = send(b"smuggled")
SEND, POLL, PEEK = send(), get(b"/receive?timeout=0&lease=x"), get(b"/peek")
PARK = get(b"/receive?timeout=20&lease=x")
BODY = b'{"token":"%b","to":"bob","content":"hello"}' % A


def with_length(value: bytes) -> bytes:
    """Write a POST /send that claims another length, and a request in what follows."""
    return post(b"/send", BODY, length=value) + SMUGGLED


def with_lines(*lines: bytes) -> bytes:
    """Write a POST /send with odd header lines, and a request behind it."""
    return send(b"hello", b"bob", *lines) + SMUGGLED


CHUNKED = b"POST /send HTTP/1.1\r\n%b%bTransfer-Encoding: chunked\r\n\r\n" % (HOST, JSON)
LENGTHS = (
    b"0",
    b"5",
    b"00",
    b"+10",
    b"-1",
    b" 10",
    b"10 ",
    b"0x10",
    b"1e1",
    b"10,10",
    b"10, 11",
    b"",
    b"9" * 30,
    b"1_0",
    b"\xb2",
    b"2000000",
    b"70000",
)
CODINGS = (
    b"chunked",
    b" chunked",
    b"Chunked",
    b"xchunked",
    b"chunked, identity",
    b"identity",
    b"gzip",
    b"",
    b"chunked\t",
    b"chunked;q=1",
    b"\x0bchunked",
)
CASES: dict[str, tuple[bytes, ...]] = {
    # what is plain
    "send": (SEND,),
    "poll": (SEND, POLL),
    "peek": (SEND, PEEK),
    "parked": (PARK,),
    "parked and woken": (PARK, b""),
    "ack": (SEND + POLL + post(b"/ack", b'{"token":"%b","seq":1}' % B),),
    "status": (post(b"/status", b'{"token":"%b","status":"busy"}' % A),),
    "register": (post(b"/register", b'{"project":"carol"}'),),
    "register a taken name": (post(b"/register", b'{"project":"alice"}'),),
    "poll with a cursor": (SEND + get(b"/receive?timeout=0&lease=x&ack_seq=1") + PEEK,),
    # what is refused
    **{
        f"refused body {body!r}": (post(b"/send", body),)
        for body in (
            b"",
            b"{",
            b"[]",
            b"null",
            b'"x"',
            b"{}",
            b'{"token":1}',
            b'{"token":"x"}',
            b'{"token":"nobody","to":"bob","content":"x"}',
            b'{"token":"%b","to":"bob","content":""}' % A,
            b'{"token":"%b","to":"bob"}' % A,
            b'{"token":"%b","to":3,"content":"x"}' % A,
            b'{"token":"%b","to":"bob","content":"\\ud800"}' % A,
            b'{"token":"%b","to":"nobody","content":"x"}' % A,
            b"\xff\xfe",
            b'\xef\xbb\xbf{"a":1}',
            b"[" * 5000,
            b'{"token":NaN}',
            b'{"token":' + b"1" * 5000 + b"}",
        )
    },
    **{
        f"refused query {query!r}": (get(b"/receive?" + query),)
        for query in (
            b"timeout=x",
            b"timeout=nan",
            b"timeout=-1",
            b"timeout=0&ack_seq=x",
            b"timeout=0&ack_seq=" + b"9" * 40,
            b"timeout=0&lease=" + b"x" * 65,
            b"timeout=0&timeout=1",
            b"timeout=0&&&",
            b"timeout=0&a",
            b"=",
            b"timeout=0&lease=%41%2e",
            b"timeout=0&lease=a+b",
            b"timeout=0;lease=x",
            b"&".join([b"a=1"] * 40),
            b"timeout=0&lease=%",
            b"timeout=0&lease=%C3",
        )
    },
    "no bearer": (b"GET /peek HTTP/1.1\r\n%b\r\n" % HOST,),
    "a wrong bearer": (get(b"/peek", token=b"x" * 32),),
    "another scheme": (b"GET /peek HTTP/1.1\r\n%bAuthorization: Basic %b\r\n\r\n" % (HOST, B),),
    "a lower-case bearer": (b"GET /peek HTTP/1.1\r\n%bauthorization: bearer %b\r\n\r\n" % (HOST, B),),
    "no type": (b"POST /send HTTP/1.1\r\n%bContent-Length: 2\r\n\r\n{}" % HOST,),
    "a form": (b"POST /send HTTP/1.1\r\n%bContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}" % HOST,),
    "a type with a charset": (post(b"/send", BODY).replace(b"json\r\n", b"json; charset=utf-8\r\n"),),
    "a foreign origin": (with_lines(b"Origin: http://evil.example\r\n"),),
    "an own origin": (with_lines(b"Origin: http://127.0.0.1\r\n"),),
    "a null origin": (with_lines(b"Origin: null\r\n"),),
    "an empty origin": (with_lines(b"Origin:\r\n"),),
    "a foreign host": (SEND.replace(HOST, b"Host: evil.example\r\n"),),
    "no host": (SEND.replace(HOST, b""),),
    "two hosts": (with_lines(b"Host: evil.example\r\n"),),
    "an empty host": (SEND.replace(HOST, b"Host:\r\n"),),
    "too long a body": (post(b"/send", b'{"content":"' + b"x" * 70_000 + b'"}'),),
    "far too long a body": (post(b"/send", b"x" * 100, length=b"3000000"),),
    "long headers": (with_lines(b"X-Long: " + b"x" * 20_000 + b"\r\n"),),
    "many headers": (with_lines(*[b"X-%d: y\r\n" % n for n in range(1000)]),),
    "a long path": (get(b"/receive?timeout=0&lease=" + b"x" * 20_000),),
    "a long path with no end": (b"GET /receive?" + b"x" * 40_000,),
    # framing
    **{f"length {value!r}": (with_length(value),) for value in LENGTHS},
    **{f"coding {value!r}": (with_lines(b"Transfer-Encoding: " + value + b"\r\n"),) for value in CODINGS},
    **{
        f"coding {value!r} alone": (CHUNKED.replace(b" chunked", b" " + value) + b"0\r\n\r\n" + SMUGGLED,)
        for value in CODINGS
    },
    "the same length twice": (with_lines(b"Content-Length: %d\r\n" % (len(BODY) + 4)),),
    "two lengths": (with_lines(b"Content-Length: 5\r\n"),),
    "a folded length": (with_lines(b"X: 1\r\n Content-Length: 5\r\n"),),
    "no length": (b"POST /send HTTP/1.1\r\n%b%b\r\n" % (HOST, JSON) + SMUGGLED,),
    "chunked": (CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY) + 4, BODY) + PEEK,),
    "chunked with a trailer": (CHUNKED + b"%x\r\n%b\r\n0\r\nX: y\r\n\r\n" % (len(BODY) + 4, BODY) + SMUGGLED,),
    "chunked with an extension": (CHUNKED + b"%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(BODY) + 4, BODY) + SMUGGLED,),
    **{
        f"chunk size {size!r}": (CHUNKED + size + b"\r\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED,)
        for size in (b"", b"-1", b"+5", b"0x5", b"zz", b"5 ", b" 5", b"5\n", b"f" * 20, b"0")
    },
    # the way it is written
    "bare LF": (SEND.replace(b"\r\n", b"\n"),),
    "bare LF once": (SEND.replace(b"\r\n", b"\n", 1),),
    "bare LF in a value": (with_lines(b"X: a\nContent-Length: 5\r\n"),),
    "bare CR": (with_lines(b"X: a\rb\r\n"),),
    "CR CR LF": (with_lines(b"X: a\r\r\n"),),
    "a leading line": (b"\r\n" + SEND,),
    "two leading lines": (b"\r\n\r\n" + SEND,),
    "a fold": (with_lines(b"X: a\r\n b\r\n"),),
    "a fold by a tab": (with_lines(b"X: a\r\n\tb\r\n"),),
    "NUL in a value": (with_lines(b"X: a\x00b\r\n"),),
    "NUL in a name": (with_lines(b"X\x00: a\r\n"),),
    "a space before the colon": (with_lines(b"X : a\r\n"),),
    "no colon": (with_lines(b"X\r\n"),),
    "no name": (with_lines(b": a\r\n"),),
    "no space after the colon": (with_lines(b"X:a\r\n"),),
    "a tab after the colon": (with_lines(b"X:\ta\r\n"),),
    "spaces behind a value": (with_lines(b"X: a   \r\n"),),
    "latin-1 in a value": (with_lines(b"X: \xe9\r\n"),),
    "a length in another case": (SEND.replace(b"Content-Length", b"cONTENT-lENGTH"),),
    "the same header twice": (with_lines(b"X: 1\r\nX: 2\r\n"),),
    "two bearers": (get(b"/peek", b"Authorization: Bearer x\r\n"),),
    "an underscore in a name": (with_lines(b"Content_Length: 5\r\n"),),
    # request lines
    **{
        f"line {line!r}": (SEND.replace(b"POST /send HTTP/1.1", line),)
        for line in (
            b"POST /send HTTP/1.0",
            b"POST /send HTTP/1.2",
            b"POST /send HTTP/2.0",
            b"POST /send",
            b"POST  /send HTTP/1.1",
            b"POST /send  HTTP/1.1",
            b" POST /send HTTP/1.1",
            b"POST /send HTTP/1.1 ",
            b"POST\t/send HTTP/1.1",
            b"post /send HTTP/1.1",
            b"PUT /send HTTP/1.1",
            b"GET /send HTTP/1.1",
            b"HEAD /send HTTP/1.1",
            b"OPTIONS /send HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
            b"POST http://127.0.0.1/send HTTP/1.1",
            b"POST //send HTTP/1.1",
            b"POST /send/ HTTP/1.1",
            b"POST /%73end HTTP/1.1",
            b"POST /send? HTTP/1.1",
            b"POST /send?a=b HTTP/1.1",
            b"POST /send#x HTTP/1.1",
            b"POST send HTTP/1.1",
            b"POST /Send HTTP/1.1",
            b"POST /se\xe9nd HTTP/1.1",
            b"POST /send http/1.1",
            b"POST /send HTTP/1.1\x00",
            b"\x16\x03\x01\x02\x00",
            b"PRI * HTTP/2.0",
        )
    },
    "HEAD of a poll": (PEEK.replace(b"GET", b"HEAD"),),
    "a GET with a body": (get(b"/peek", b"Content-Length: 5\r\n") + b"hello" + PEEK,),
    "a GET with no body": (get(b"/peek", b"Content-Length: 0\r\n") + PEEK,),
    "a GET with a coding": (get(b"/peek", b"Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n" + PEEK,),
    # what goes with the connection
    "close": (send(b"hello", b"bob", b"Connection: close\r\n") + SMUGGLED,),
    "keep-alive": (with_lines(b"Connection: Keep-Alive\r\n"),),
    "odd connection": (with_lines(b"Connection: keep-alive, Upgrade\r\n"),),
    "an upgrade": (with_lines(b"Upgrade: h2c\r\n"),),
    "expect": (with_lines(b"Expect: 100-continue\r\n"),),
    "expect else": (with_lines(b"Expect: 200-ok\r\n"),),
    "a coded body": (with_lines(b"Content-Encoding: gzip\r\n"),),
    "TE": (with_lines(b"TE: trailers\r\n"),),
    "1.0 kept": (SEND.replace(b"1.1", b"1.0", 1).replace(HOST, HOST + b"Connection: keep-alive\r\n") + PEEK,),
    # one behind the other
    "three at once": (SEND + SEND + PEEK,),
    "hot and cold": (SEND + get(b"/peers") + PEEK,),
    "cold and hot": (get(b"/peers") + SEND + PEEK,),
    "cold, then hot": (get(b"/peers"), SEND, PEEK),
    "forty at once": (PEEK * 40,),
    "behind a parked poll": (PARK + SEND + PEEK,),
    "cold behind a parked poll": (PARK + get(b"/peers"),),
    "junk behind an answer": (SEND + b"\x00\x01\x02\r\n\r\n",),
    "a poll that replaces its own": (PARK + PARK,),
    "half a request behind one": (SEND + PEEK[:20], PEEK[20:]),
}


class Pair:
    """A hub with an express lane and one without, and the same two peers in both."""

    def __init__(self, hubs: tuple[InnerHub, InnerHub]) -> None:
        self.hubs = hubs
        self.said: list[str] = []  # what the last bytes made the room hear

    def compare(self, *parts: bytes, is_torn: bool = False) -> list[Any]:
        """Send the same to both; give the answers, which are the same."""
        express, plain = (self._play(hub, parts, is_torn) for hub in self.hubs)
        assert express == plain
        self.said = express["said"]
        return list(express["answers"])

    def _play(self, hub: InnerHub, parts: tuple[bytes, ...], is_torn: bool) -> dict[str, Any]:
        before = hub.do(lambda: hub.hub.room._seq)
        tokens = {A: hub.join("alice").encode(), B: hub.join("bob").encode()}
        try:
            data, is_ended = self._talk(hub, [self._filled(part, tokens) for part in parts], is_torn)
            room = hub.hub.room
            said = hub.do(lambda: [m.content for m in room.log if m.seq > before])
            mail = hub.do(lambda: {peer.name: len(peer.mailbox) for peer in room.roster})
            state = hub.do(lambda: [(peer.name, peer.status) for peer in room.roster.live()])
        finally:
            hub.do(lambda: [room.kick(str(name)) for name in room.names()])
        return {"answers": list(answers_in(data)), "is_ended": is_ended, "said": said, "mail": mail, "state": state}

    def _filled(self, part: bytes, tokens: dict[bytes, bytes]) -> bytes:
        for mark, token in tokens.items():
            part = part.replace(mark, token)
        return part

    def _talk(self, hub: InnerHub, parts: list[bytes], is_torn: bool) -> tuple[bytes, bool]:
        """Send part by part; after each the hub has its time to answer. Tell also whether it hung up."""
        with contextlib.closing(socket.create_connection(("127.0.0.1", hub.port))) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for part in parts:
                with contextlib.suppress(ConnectionError):  # it hung up: that is in the answer
                    sock.sendall(part)
                self._settle(hub)
            data, is_ended = bytearray(), False
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while not is_ended:
                    try:
                        chunk = sock.recv(1 << 16)
                    except ConnectionError:
                        chunk = b""
                    data += chunk
                    is_ended = not chunk
            if is_torn:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._settle(hub)
        return bytes(data), is_ended

    def _settle(self, hub: InnerHub) -> None:
        for _ in range(TURNS):
            hub.do(lambda: None)


def plain(body: bytes) -> bytes:
    """Take out of a body what differs from hub to hub: ids, tokens, times."""
    body = re.sub(rb"[0-9a-f]{12,32}", b"X", body)
    return re.sub(rb'"(ts|seq|retry_after)":[\d.]+', rb'"\1":0', body)


def answers_in(data: bytes) -> Iterator[Any]:
    """Read the answers one after the other: status line, headers, body."""
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines if ": " in line)}
        size = int(headers.pop("content-length", 0))
        yield first, headers, plain(rest[:size])
        data = rest[size:]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Give both hubs."""
    hubs = [InnerHub(caucus.Settings(port=0, is_plain_http=is_plain)) for is_plain in (False, True)]
    for hub in hubs:
        room, numbers = hub.hub.room, itertools.count(1)
        room._register_rate.burst = room._register_rate.per_s = 1e9
        room._new_token = lambda numbers=numbers: (
            f"{next(numbers):032x}"
        )  # the same in both: part of one may be all that
        room._serial = 1  # a changed request leaves of it
    yield Pair((hubs[0], hubs[1]))
    for hub in hubs:
        hub.stop()


@pytest.mark.parametrize("name", CASES)
def test_the_same_bytes_do_the_same(pair: Pair, name: str) -> None:
    pair.compare(*CASES[name])


AMBIGUOUS = [
    *[name for name in CASES if name.startswith("coding ") and not name.endswith("alone")],
    *[f"coding {value!r} alone" for value in CODINGS if value.strip(b" \t").lower() != b"chunked"],
    *[f"length {value!r}" for value in LENGTHS if not value.strip(b" ").isdigit() and value != b"10,10"],
    *("two lengths", "a space before the colon", "NUL in a name", "no name", "chunked with a trailer"),
    *("chunked with an extension", "chunk size b''", "chunk size b'-1'", "chunk size b'+5'", "chunk size b'0x5'"),
    *("chunk size b'zz'", "chunk size b'5 '", "chunk size b' 5'"),
]


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_where_framing_is_ambiguous_nothing_behind_it_is_read(pair: Pair, name: str) -> None:
    pair.compare(*CASES[name])
    assert "smuggled" not in pair.said


@pytest.mark.parametrize(
    "name", ["send", "poll with a cursor", "three at once", "hot and cold", "chunked", "close", "bare LF once"]
)
def test_bytes_that_come_one_by_one_do_the_same(pair: Pair, name: str) -> None:
    whole = b"".join(CASES[name]).replace(A, b"\x01").replace(B, b"\x02")
    bits = [bytes((byte,)).replace(b"\x01", A).replace(b"\x02", B) for byte in whole]
    assert pair.compare(*bits)


@pytest.mark.parametrize("at", range(1, 300, 7))
def test_a_request_that_comes_in_two_parts_does_the_same(pair: Pair, at: int) -> None:
    whole = (SEND + PEEK).replace(A, b"\x01").replace(B, b"\x02")
    parts = [part.replace(b"\x01", A).replace(b"\x02", B) for part in (whole[:at], whole[at:])]
    assert [status for status, _, _ in pair.compare(*parts)] == ["HTTP/1.1 200 OK"] * 2


@pytest.mark.parametrize("name", ["send", "parked", "half a request behind one", "three at once", "too long a body"])
def test_a_connection_that_is_torn_does_the_same(pair: Pair, name: str) -> None:
    pair.compare(*CASES[name], is_torn=True)


def test_a_poll_that_is_parked_is_answered_the_same_on_both_roads(pair: Pair) -> None:
    seen = []
    for hub in pair.hubs:
        tokens = {name: hub.join(name) for name in ("alice", "bob")}
        with contextlib.closing(socket.create_connection(("127.0.0.1", hub.port))) as sock:
            sock.sendall(PARK.replace(B, tokens["bob"].encode()))
            while not hub.is_listening("bob"):
                pass
            hub.say("bob", "hello")
            sock.settimeout(10.0)
            ((status, headers, body),) = answers_in(sock.recv(1 << 16))
            seen.append((status, headers.keys(), body.count(b"hello")))
        hub.do(lambda room=hub.hub.room: [room.kick(str(name)) for name in room.names()])
    assert seen[0] == seen[1]
    assert seen[0][2] == 1


BASES = [SEND, POLL, PEEK, SEND + PEEK, CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY) + 4, BODY), with_length(b"10")]
PIECES = st.sampled_from(
    [
        *(
            b"\r\n",
            b"\n",
            b"\r",
            b" ",
            b"\t",
            b":",
            b"\x00",
            b",",
            b"0",
            b"1",
            b"GET ",
            b"POST ",
            b"HTTP/1.1",
            b"HTTP/1.0",
            b"/",
            b"?",
            b"&",
        ),
        *(
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n",
            b"Expect: 100-continue\r\n",
            HOST,
            b"%00",
        ),
        *(b"\xff", b"\xc3\xa9", b"{", b"}", b'"', b"0\r\n\r\n", SMUGGLED),
    ]
)
CHANGES = st.tuples(
    st.sampled_from(["insert", "delete", "repeat", "swap"]), st.floats(0, 1), st.integers(1, 30), PIECES
)


def changed(data: bytes, change: tuple[str, float, int, bytes]) -> bytes:
    """Change a request in one way."""
    how, where, size, piece = change
    at = int(where * len(data))
    if how == "insert":
        return data[:at] + piece + data[at:]
    if how == "delete":
        return data[:at] + data[at + size :]
    if how == "repeat":
        return data[:at] + data[at : at + size] + data[at:]
    return data[:at] + data[at + size : at + 2 * size] + data[at : at + size] + data[at + 2 * size :]


@settings(max_examples=400)
@given(st.sampled_from(BASES), st.lists(CHANGES, min_size=1, max_size=3))
@example(SEND, [("insert", 0.0, 1, b"\r\n")])
def test_whatever_is_changed_in_a_request_both_do_the_same(
    pair: Pair, base: bytes, changes: list[tuple[str, float, int, bytes]]
) -> None:
    for change in changes:
        base = changed(base, change)
    pair.compare(base)
