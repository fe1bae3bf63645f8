"""Both roads of the hub are the same: what the same bytes bring about, with an express lane and with Tornado alone.

Two hubs in this process, of which one has a lane, are sent the same bytes. Their clocks stand still and their tokens
are token-01, token-02, ..., so the answers have to be equal to the byte, and so have the events of the two rooms.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
from fakes import FakeClock
from hubs import DEADLINE_S, eventually
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lane import InnerHub, running
from wires import Raw, request_of

import caucus

API, WEB = "token-01", "token-02"  # of the two peers who are always there
HOST = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
TURNS = 4  # of a loop, in which nothing happens
EXAMPLES = 500  # of what is nearly a request; 10 ms each
WRITTEN = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Road:
    """A hub on one of the two roads, and all that its room has done since the scene was set."""

    def __init__(self, inner: InnerHub) -> None:
        self.inner, self.events = inner, list[caucus.Event]()
        self.overheard = b""  # what other connections of the scene were answered
        self._timers: list[asyncio.TimerHandle] = []
        for hearers in (*inner.hub._hearers[False].values(), *inner.hub._hearers[True].values()):
            hearers.append(self.events.append)

    def set_scene(self) -> None:
        """Begin anew, with nobody there but api and web, who may speak as much as they like."""
        self.inner.do(self._set_scene)

    def _call_at(self, at: float, call: Callable[[], None]) -> None:
        self._timers.append(self.inner._loop.call_at(at, call))

    def _set_scene(self) -> None:
        hub, serials = self.inner.hub, itertools.count(1)
        assert not hub.links.open, "the connections of the scene before are gone"
        hub.room.__init__(hub._emit, FakeClock(), lambda: f"token-{next(serials):02}")  # type: ignore[misc]
        for timer in self._timers:  # of the scene before
            timer.cancel()
        self._timers.clear()
        hub.polls.__init__(hub.room, hub.turn, self._call_at)  # type: ignore[misc]
        hub.room.set_rate(1e6, 1e6)
        for name in ("api", "web"):
            hub.room.register(f"host of {name}", name)
        hub.lanes.answered = hub.lanes.handed_over = 0
        self.events.clear()

    def settle(self) -> None:
        """Wait until the hub has read what was sent to it, and has done all that needs no time to pass."""
        loop = self.inner._loop

        async def rest() -> None:
            quiet = 0
            while quiet < TURNS:
                await asyncio.sleep(0)
                quiet = 0 if loop._ready else quiet + 1  # type: ignore[attr-defined]  # nobody else says it

        asyncio.run_coroutine_threadsafe(rest(), loop).result(DEADLINE_S)

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Keep the hub from looking at its connections."""
        is_busy, is_over = threading.Event(), threading.Event()
        self.inner._loop.call_soon_threadsafe(lambda: (is_busy.set(), is_over.wait(DEADLINE_S)))
        is_busy.wait(DEADLINE_S)
        yield
        is_over.set()

    def read(self, line: Raw) -> tuple[bytes, bool]:
        """Read all that the hub has to say as yet; tell also whether it has closed."""
        written = b""
        self.settle()
        while line.is_answered(0.0):
            try:
                chunk = line.socket.recv(1 << 20)
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                return written, True
            written += chunk
            self.settle()
        return written, False

    def play(self, steps: Steps) -> Outcome:
        """Go through the steps of a scene on one connection; tell what became of it."""
        self.set_scene()
        self.overheard = b""
        with Raw(self.inner.port) as line:
            for step in steps:
                if isinstance(step, bytes):
                    line.send(step)
                else:
                    step(self, line)
            written, is_closed = self.read(line)
        self.settle()
        assert not self.inner.hub.links.open, "the connection is gone"
        answers = (written, is_closed, self.overheard)
        return Outcome(*answers, self.inner.do(self.events.copy), self.inner.do(self._mail))

    def _mail(self) -> list[str]:
        boxes = [(peer.name, peer.mailbox) for peer in self.inner.hub.room.roster]
        return [f"{name}: {box.waiting} {[message.seq for message in box.fetched]}" for name, box in boxes]


Step = bytes | Callable[[Road, Raw], None]
Steps = tuple[Step, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a scene."""

    written: bytes  # by the hub
    is_closed: bool  # by the hub
    overheard: bytes  # what other connections were answered
    events: list[caucus.Event]
    mail: list[str]

    @property
    def statuses(self) -> list[int]:
        """List the answers."""
        return [int(status) for status in WRITTEN.findall(self.written)]

    @property
    def said(self) -> list[str]:
        """List what was routed by the room."""
        return [event.message.content for event in self.events if isinstance(event, caucus.MessageRouted)]


class Fork:
    """Both roads."""

    def __init__(self, express: InnerHub, plain: InnerHub) -> None:
        self.express, self.plain = Road(express), Road(plain)

    def play(self, *steps: Step) -> Outcome:
        """Play a scene on both; what it comes to must be the same, and is given."""
        one, other = self.express.play(steps), self.plain.play(steps)
        if one != other:  # on a busy machine the kernel is late with some bytes; what is different comes again
            one, other = self.express.play(steps), self.plain.play(steps)
        assert one.written == other.written, steps
        assert one.overheard == other.overheard, steps
        assert one.is_closed == other.is_closed, steps
        assert one.events == other.events, steps
        assert one.mail == other.mail, steps
        assert max(one.statuses, default=0) < 500, one.written
        return one

    def counts(self) -> tuple[int, int]:
        """Give how many requests of the last scene the lane answered, and how many it handed over."""
        return self.express.inner.counts()


@pytest.fixture(scope="module")
def fork() -> Iterator[Fork]:
    """Give both hubs; each scene begins anew in them."""
    with running() as express, running(is_plain_http=True) as plain:
        yield Fork(express, plain)


# --- steps ---


def settle(road: Road, line: Raw) -> None:
    """Let the hub read what was sent so far."""
    road.settle()


def wake(road: Road, line: Raw) -> None:
    """Wait until api's poll is parked, and say something to it."""
    eventually(lambda: road.inner.is_listening("api"), "api listening")
    road.inner.say("api", "wake up")


def half_close(road: Road, line: Raw) -> None:
    """End this end's half, and let the hub see that."""
    line.end_sending()
    road.settle()


def reset(road: Road, line: Raw) -> None:
    """End it as a process does that dies with something unread, and let the hub see that."""
    road.settle()
    cut(line)
    road.settle()


def cut(line: Raw) -> None:
    """Reset a connection."""
    line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line._file.close()
    line.socket.close()
    line.socket, end = socket.socketpair()
    end.close()  # so there is nothing to read


def elsewhere(*data: bytes) -> Step:
    """Send requests on another connection, which is closed once they are answered."""

    def ask(road: Road, line: Raw) -> None:
        with Raw(road.inner.port) as other:
            for part in data:
                road.overheard += road.read(other.send(part))[0]

    return ask


def trickle(data: bytes) -> Steps:
    """Send byte by byte, each read before the next is sent."""
    return tuple(step for n in range(len(data)) for step in (data[n : n + 1], settle))


# --- what is sent ---


def send(content: str = "hello", to: str = "web", **headers: str) -> bytes:
    """Word api's POST /send."""
    return request_of("POST", "/send", {"token": API, "to": to, "content": content}, **headers)


def poll(query: str = "?timeout=0", **headers: str) -> bytes:
    """Word api's GET /receive."""
    return request_of("GET", f"/receive{query}", bearer=API, **headers)


def peek(**headers: str) -> bytes:
    """Word api's GET /peek."""
    return request_of("GET", "/peek", bearer=API, **headers)


def ack(seq: Any = 1) -> bytes:
    """Word api's POST /ack."""
    return request_of("POST", "/ack", {"token": API, "seq": seq})


def cold(path: str = "/ping?peer=api") -> bytes:
    """Word a request that has no express route."""
    return request_of("GET", path)


SMUGGLED = send("smuggled")
BODY = json.dumps({"token": API, "to": "web", "content": "outer"}).encode()
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
AUTH = f"Authorization: Bearer {API}\r\n".encode()
GET = b"GET /peek HTTP/1.1\r\n" + HOST + AUTH
HANDSHAKE = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
HANDSHAKE += b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
PROXIED = b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n"
TWICE = b'{"token":"x","token":"%b","to":"web","content":"last","seq":1,"status":"s","project":"p"}' % API.encode()


def post(headers: bytes, body: bytes = BODY, path: bytes = b"/send") -> bytes:
    """Word a POST with these header lines."""
    return b"POST %b HTTP/1.1\r\n%b%b%b\r\n%b" % (path, HOST, JSON, headers, body)


def get(headers: bytes = b"", line: bytes = b"GET /peek HTTP/1.1\r\n", host: bytes = HOST) -> bytes:
    """Word a GET with these header lines."""
    return line + host + AUTH + headers + b"\r\n"


def lengths() -> dict[str, bytes]:
    """List spellings of the length of a body, in which another request is hidden."""
    size = len(SMUGGLED)
    values = {
        "exact": b"%d" % size, "sign": b"+%d" % size, "minus": b"-%d" % size, "minus zero": b"-0", "plus zero": b"+0",
        "zero first": b"0%d" % size, "many zeros": b"0" * 30 + b"%d" % size, "zeros only": b"000", "zero": b"0",
        "space before": b" %d" % size, "space after": b"%d " % size, "tab before": b"\t%d" % size,
        "tab after": b"%d\t" % size, "space within": b"1 %d" % size, "hex": b"0x%x" % size, "bare hex": b"%x" % size,
        "octal": b"0o%o" % size, "exponent": b"1e2", "point": b"%d.0" % size, "underscore": b"1_0",
        "list of equals": b"%d,%d" % (size, size), "list with spaces": b"%d, %d" % (size, size),
        "list of two": b"0, %d" % size, "list with empty": b"%d," % size, "comma first": b",%d" % size,
        "empty": b"", "word": b"ten", "quoted": b'"%d"' % size, "semicolon": b"%d;x" % size, "huge": b"9" * 20,
        "wraps": b"%d" % (2**64 + size), "wraps at 32": b"%d" % (2**32 + size), "endless": b"9" * 5000,
        "superscript": b"\xb2", "arabic": "\u0665".encode(), "wide": "\uff15".encode(), "nul": b"%d\x00" % size,
        "vertical tab": b"\x0b%d" % size, "form feed": b"%d\x0c" % size, "no-break space": b"\xa0%d" % size,
        "one less": b"%d" % (size - 1), "one more": b"%d" % (size + 1), "the cap": b"65536", "over it": b"65537",
        "drained": b"1048576", "not drained": b"1048577",
    }  # fmt: skip
    lines = {f"length {name}": b"Content-Length: %b\r\n" % value for name, value in values.items()}
    exact, zero = b"Content-Length: %d\r\n" % size, b"Content-Length: 0\r\n"
    lines |= {
        "length twice": exact * 2, "length twice, zero first": zero + exact, "length twice, zero last": exact + zero,
        "length twice, other case": exact + exact.lower(),
        "length twice, other zeros": exact + b"Content-Length: 0%d\r\n" % size,
        "length, small letters": exact.lower(), "length, capitals": exact.upper(),
        "length folded": b"Content-Length:\r\n %d\r\n" % size,
        "length without a space": exact.replace(b" ", b""), "length with two": exact.replace(b" ", b"  "),
        "length, space before the colon": exact.replace(b":", b" :"),
        "length, tab before the colon": exact.replace(b":", b"\t:"),
        "length, space before the name": b" " + exact, "length behind a bare CR": b"X: y\r" + exact,
        "length behind a bare LF": b"X: y\n" + exact, "length ended by a bare LF": exact.replace(b"\r", b""),
        "length ended by a bare CR": exact.replace(b"\n", b""), "length behind a NUL": b"X: y\x00\r\n" + exact,
        "length with an underscore": exact.replace(b"-", b"_"), "length without a dash": exact.replace(b"-", b""),
        "length with a dash too many": exact.replace(b"-", b"--"), "length of something": b"X-" + exact,
        "length in a value": b"X: " + exact, "no length": b"",
    }  # fmt: skip
    return lines


def encodings() -> dict[str, bytes]:
    """List spellings of a transfer encoding, whose body may or may not end early."""
    values = {
        "chunked": b"chunked", "capitals": b"CHUNKED", "mixed case": b"Chunked", "space before": b"  chunked",
        "space after": b"chunked ", "tab": b"\tchunked", "vertical tab": b"\x0bchunked", "nul": b"chunked\x00",
        "identity": b"identity", "gzip": b"gzip", "gzip, chunked": b"gzip, chunked", "chunked, gzip": b"chunked, gzip",
        "chunked twice": b"chunked, chunked", "chunked, identity": b"chunked, identity", "unknown": b"xchunked",
        "quoted": b'"chunked"', "parameter": b"chunked;q=1", "empty": b"", "comma": b",chunked",
        "comma after": b"chunked,",
        "cut": b"chunke", "no-break space": b"\xa0chunked", "beyond ASCII": b"chunked\xe9",
    }  # fmt: skip
    lines = {f"TE {name}": b"Transfer-Encoding: %b\r\n" % value for name, value in values.items()}
    return lines | {
        "TE without a space": b"Transfer-Encoding:chunked\r\n", "TE folded": b"Transfer-Encoding:\r\n chunked\r\n",
        "TE twice": CHUNKED * 2, "TE twice, differently": CHUNKED + b"Transfer-Encoding: identity\r\n",
        "TE, small letters": CHUNKED.lower(), "TE, capitals": CHUNKED.upper(),
        "TE, space before the colon": b"Transfer-Encoding : chunked\r\n",
        "TE with an underscore": b"Transfer_Encoding: chunked\r\n", "TE behind a bare CR": b"X: y\r" + CHUNKED,
        "TE behind a bare LF": b"X: y\n" + CHUNKED, "TE ended by a bare LF": CHUNKED.replace(b"\r", b""),
        "TE proper": b"TE: chunked\r\n",
        "TE, space before the name": b" " + CHUNKED,
    }  # fmt: skip


def framed() -> dict[str, bytes]:
    """List requests whose end is in doubt, with another request where a body may be."""
    made = {name: post(line, SMUGGLED) for name, line in lengths().items()}
    end = b"0\r\n\r\n" + SMUGGLED
    for name, line in encodings().items():
        made[name] = post(line, CHUNKS)
        made[f"{name}, that ends early"] = post(line, end)
        made[f"{name}, and a length"] = post(line + b"Content-Length: %d\r\n" % len(end), end)
        made[f"a length, and {name}"] = post(b"Content-Length: %d\r\n" % len(end) + line, end)
        made[f"a length of 0, and {name}"] = post(b"Content-Length: 0\r\n" + line, end)
    size = b"Content-Length: %d\r\n" % len(SMUGGLED)
    for method in (b"GET /peek", b"GET /receive?timeout=0", b"HEAD /peek", b"GET /version", b"DELETE /send",
    b"PUT /send"):
        line = method + b" HTTP/1.1\r\n"
        made[f"{method.decode()} with a body"] = get(size, line) + SMUGGLED
        made[f"{method.decode()} with chunks"] = get(CHUNKED, line) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED),
        SMUGGLED)
        made[f"{method.decode()} with a length of 0"] = get(b"Content-Length: 0\r\n", line)
    return made


def chunks() -> dict[str, bytes]:
    """List bodies in chunks, most of them broken."""
    size = b"%x" % len(BODY)
    bodies = {
        "one": CHUNKS, "capital hex": b"%X\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
        "bytes": b"".join(b"1\r\n%c\r\n" % c for c in BODY) + b"0\r\n\r\n",
        "extension": size + b";a=b\r\n" + BODY + b"\r\n0\r\n\r\n",
        "extension with a CR": size + b";a\rb\r\n" + BODY + b"\r\n0\r\n\r\n",
        "extension with a LF": size + b";a\n" + BODY + b"\r\n0\r\n\r\n",
        "long extension": size + b";" + b"x" * 70_000 + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
        "zeros": b"0000" + size + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
        "many zeros at the end": size + b"\r\n" + BODY + b"\r\n0000\r\n\r\n",
        "trailer": size + b"\r\n" + BODY + b"\r\n0\r\nX: y\r\n\r\n",
        "trailer with a length": size + b"\r\n" + BODY + b"\r\n0\r\nContent-Length: 0\r\n\r\n",
        "bare LF": CHUNKS.replace(b"\r\n", b"\n"), "bare CR": CHUNKS.replace(b"\r\n", b"\r"),
        "no end of data": size + b"\r\n" + BODY + b"0\r\n\r\n",
        "cut": CHUNKS[:-2], "cut earlier": CHUNKS[:-5], "0x": b"0x" + CHUNKS, "sign": b"+" + CHUNKS,
        "minus": b"-" + CHUNKS, "underscore": b"0_" + CHUNKS,
        "space before": b" " + CHUNKS, "space after": size + b" \r\n" + BODY + b"\r\n0\r\n\r\n",
        "no size": b"\r\n" + BODY + b"\r\n0\r\n\r\n",
        "word": b"xyz\r\n" + BODY + b"\r\n0\r\n\r\n", "huge": b"f" * 20 + b"\r\n" + BODY,
        "endless digits": b"0" * 100_000 + CHUNKS, "superscript": b"\xb2" + CHUNKS,
        "too long": b"%x\r\n%b\r\n0\r\n\r\n" % (70_000, b" " * 70_000),
        "much too long": b"%x\r\n%b\r\n0\r\n\r\n" % (1_100_000, b" " * 1_100_000),
        "one too many": b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY) - 1, BODY),
        "one too few": b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY) + 1, BODY), "empty": b"0\r\n\r\n",
    }  # fmt: skip
    return {f"chunks: {name}": post(CHUNKED, body) for name, body in bodies.items()}


def heads() -> dict[str, bytes]:
    """List requests with something odd in their head."""
    return {
        "lower-case names": GET.lower().replace(b"get /peek http", b"GET /peek HTTP") + b"\r\n",
        "capital names": b"GET /peek HTTP/1.1\r\nHOST: localhost\r\nAUTHORIZATION: Bearer %b\r\n\r\n" % API.encode(),
        "mixed names": b"GET /peek HTTP/1.1\r\nhOsT: localhost\r\naUTHORIZATION: Bearer %b\r\n\r\n" % API.encode(),
        "bare LF": get().replace(b"\r\n", b"\n"), "one bare LF": get(b"X: y\n"),
        "bare LF at the end": get()[:-2] + b"\n",
        "bare CR": get().replace(b"\r\n", b"\r"), "a CR in a value": get(b"X: y\rz\r\n"),
        "a CR before CRLF": get(b"X: y\r\r\n"),
        "CR CRLF": get()[:-2] + b"\r\r\n", "LF CR": get().replace(b"\r\n", b"\n\r"), "folded": get(b"X: y\r\n z\r\n"),
        "folded with a tab": get(b"X: y\r\n\tz\r\n"), "folded and empty": get(b"X:\r\n \r\n"),
        "folded first": get(host=b" x: y\r\n" + HOST),
        "nul in a value": get(b"X: \x00\r\n"), "nul in a name": get(b"X\x00: y\r\n"), "nul alone": get(b"\x00\r\n"),
        "control in a value": get(b"X: \x01\x7f\r\n"),
        "tab in a value": get(b"X: a\tb\r\n"), "tab first": get(b"X:\ty\r\n"), "tab last": get(b"X: y\t\r\n"),
        "space last": get(b"X: y \r\n"),
        "two spaces within": get(b"X: a  b\r\n"), "no space": get(b"X:y\r\n"), "two spaces": get(b"X:  y\r\n"),
        "no value": get(b"X:\r\n"), "no value but a space": get(b"X: \r\n"),
        "space before the colon": get(b"X : y\r\n"), "tab before the colon": get(b"X\t: y\r\n"),
        "space in a name": get(b"X Y: z\r\n"), "no name": get(b": y\r\n"),
        "no colon": get(b"X\r\n"), "colon only": get(b":\r\n"), "two colons": get(b"X:: y\r\n"),
        "underscore in a name": get(b"X_Y: z\r\n"), "digit first": get(b"1X: y\r\n"),
        "dash first": get(b"-X: y\r\n"), "dash last": get(b"X-: y\r\n"), "two dashes": get(b"X--Y: z\r\n"),
        "odd name": get(b"!#$%&'*+.^`|~: y\r\n"), "braces": get(b"{X}: y\r\n"),
        "name beyond ASCII": get(b"\xe9: y\r\n"), "value beyond ASCII": get(b"X: \xe9\r\n"),
        "value in UTF-8": get("X: \u65e5\r\n".encode()),
        "twice": get(b"X: y\r\nX: z\r\n"), "authorization twice": get(AUTH),
        "authorization twice, differently": get(b"Authorization: Bearer x\r\n"),
        "two hosts": get(HOST), "two other hosts": get(b"Host: evil.example\r\n"),
        "evil host": get(host=b"Host: evil.example\r\n"),
        "no host": get(host=b""), "empty host": get(host=b"Host: \r\n"),
        "empty host, no space": get(host=b"Host:\r\n"), "host with a port": get(host=b"Host: localhost:1\r\n"),
        "host with user": get(host=b"Host: a@localhost\r\n"), "host with a path": get(host=b"Host: localhost/x\r\n"),
        "host in capitals": get(host=b"Host: LOCALHOST\r\n"),
        "host with a dot": get(host=b"Host: localhost.\r\n"),
        "host list": get(host=b"Host: localhost, evil.example\r\n"), "host IPv6": get(host=b"Host: [::1]\r\n"),
        "host with a space": get(host=b"Host: local host\r\n"), "host beyond ASCII": get(host=b"Host: \xe9\r\n"),
        "host: @ in capitals": get(host=b"Host: 127.0.0.1:99999999999\r\n"),
        "origin": get(b"Origin: http://evil.example\r\n"), "origin null": get(b"Origin: null\r\n"),
        "own origin": get(b"Origin: http://localhost\r\n"),
        "origin empty": get(b"Origin: \r\n"), "origin without a space": get(b"Origin:\r\n"),
        "origin beyond ASCII": get(b"Origin: \xff\r\n"), "origin twice": get(b"Origin: http://localhost\r\n" * 2),
        "bearer lower case": get().replace(b"Bearer", b"bearer"),
        "bearer, more spaces": get().replace(b"Bearer ", b"Bearer   "),
        "bearer, tab": get().replace(b"Bearer ", b"Bearer\t"),
        "basic": get().replace(b"Bearer", b"Basic"), "bearer only": get().replace(b"Bearer " + API.encode(),
        b"Bearer"), "bearer and more": get().replace(API.encode(), API.encode() + b" x"),
        "bearer beyond ASCII": get().replace(API.encode(), b"\xe9"),
        "bearer too long": get().replace(API.encode(), b"x" * 300),
        "bearer much too long": get().replace(API.encode(), b"x" * 9000),
        "1,000 headers": get(b"".join(b"X-%d: y\r\n" % n for n in range(1000))),
        "1,000 same headers": get(b"X: y\r\n" * 1000),
        "33 headers": get(b"".join(b"X-%d: y\r\n" % n for n in range(33))),
        "a header of 8 kB": get(b"X: " + b"y" * 8000 + b"\r\n"),
        "a header of 16 kB": get(b"X: " + b"y" * 16_384 + b"\r\n"),
        "a header of 60 kB": get(b"X: " + b"y" * 60_000 + b"\r\n"),
        "a header of 2 MB": get(b"X: " + b"y" * 2_000_000 + b"\r\n"), "a long name": get(b"X" * 3000 + b": y\r\n"),
        "a longer name": get(b"X" * 20_000 + b": y\r\n"),
        "a head without an end": get()[:-4], "headers without an end": get(b"X: y\r\n" * 30_000)[:-2],
        **{f"Connection: {value.decode()}": get(b"Connection: " + value + b"\r\n") for value in (
            b"close", b"Close", b"keep-alive", b"Keep-Alive", b"KEEP-ALIVE", b"close, keep-alive",
            b"keep-alive, close", b"x", b"Upgrade", b"close ", b"TE, close", b"")},
        "Connection twice": get(b"Connection: keep-alive\r\nConnection: close\r\n"),
        "Keep-Alive": get(b"Keep-Alive: timeout=5\r\n"),
        "Proxy-Connection": get(b"Proxy-Connection: close\r\n"), "Expect": post(b"Expect: 100-continue\r\n" + LENGTH),
        "Expect in capitals": post(b"EXPECT: 100-CONTINUE\r\n" + LENGTH),
        "Expect something": post(b"Expect: 200-ok\r\n" + LENGTH), "Expect of a GET": get(b"Expect: 100-continue\r\n"),
        "Expect of a giant": post(b"Expect: 100-continue\r\nContent-Length: 99999999\r\n", b""),
        "Upgrade to h2c": get(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"),
        "Upgrade alone": get(b"Upgrade: websocket\r\n"),
        "Upgrade to a WebSocket": get(HANDSHAKE),
        "Upgrade of a POST": post(b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + LENGTH),
        "Trailer": get(b"Trailer: X\r\n"), "TE": get(b"TE: trailers\r\n"), "Range": get(b"Range: bytes=0-3\r\n"),
        "Accept": get(b"Accept: text/html\r\n"), "Accept-Encoding": get(b"Accept-Encoding: gzip\r\n"),
        "If-None-Match": get(b"If-None-Match: *\r\n"),
        "If-Modified-Since": get(b"If-Modified-Since: Sat, 29 Oct 1994 19:43:31 GMT\r\n"),
        "forwarded": get(b"X-Forwarded-For: 1.2.3.4\r\nX-Real-Ip: 1.2.3.4\r\n" + PROXIED),
        "override": get(b"X-HTTP-Method-Override: POST\r\nX-Original-URL: /control\r\n"),
        "cookie": get(b"Cookie: a=b\r\n"),
    }  # fmt: skip


def first_lines() -> dict[str, bytes]:
    """List requests with something odd in their first line."""
    lines = [
        b"GET /peek HTTP/1.0", b"GET /peek HTTP/1.2", b"GET /peek HTTP/1.9", b"GET /peek HTTP/2.0",
        b"GET /peek HTTP/0.9", b"GET /peek HTTP/1", b"GET /peek HTTP/1.10", b"GET /peek HTTP/01.1",
        b"GET /peek HTTP/1.1 ", b"GET /peek  HTTP/1.1", b"GET  /peek HTTP/1.1", b" GET /peek HTTP/1.1",
        b"GET\t/peek\tHTTP/1.1", b"GET /peek http/1.1", b"GET /peek HTTPS/1.1", b"GET /peek", b"GET", b"",
        b"GET /peek HTTP/1.1 x", b"GET /pe ek HTTP/1.1", b"get /peek HTTP/1.1", b"Get /peek HTTP/1.1",
        b"G\x00T /peek HTTP/1.1", b"GET /peek\x00 HTTP/1.1", b"GET /peek\r HTTP/1.1", b"GET /peek HTTP/1.1\r",
        b"GET http://localhost/peek HTTP/1.1", b"GET http://evil.example/peek HTTP/1.1",
        b"GET //localhost/peek HTTP/1.1", b"GET //peek HTTP/1.1", b"GET /peek/ HTTP/1.1", b"GET /./peek HTTP/1.1",
        b"GET /x/../peek HTTP/1.1", b"GET /peek# HTTP/1.1", b"GET /peek#x HTTP/1.1", b"GET /peek; HTTP/1.1",
        b"GET /peek? HTTP/1.1", b"GET /peek?? HTTP/1.1", b"GET /peek?a=b HTTP/1.1", b"GET peek HTTP/1.1",
        b"GET * HTTP/1.1", b"GET / HTTP/1.1", b"GET ? HTTP/1.1", b"GET /p%65ek HTTP/1.1", b"GET /PEEK HTTP/1.1",
        b"GET /peek%20 HTTP/1.1", b"GET /peek%00 HTTP/1.1", b"GET /peek%0d%0aX:y HTTP/1.1",
        b"GET /peek\xe9 HTTP/1.1", "GET /\u65e5 HTTP/1.1".encode(), b"GET /peek?\xe9 HTTP/1.1",
        b"GET /peek?" + b"a" * 9000 + b" HTTP/1.1", b"GET /peek?" + b"a" * 70_000 + b" HTTP/1.1",
        b"GET /" + b"a" * 16_400 + b" HTTP/1.1",
        b"GET /peek?" + b"a=b&" * 40 + b" HTTP/1.1", b"HEAD /peek HTTP/1.1", b"OPTIONS /peek HTTP/1.1",
        b"OPTIONS * HTTP/1.1", b"PUT /peek HTTP/1.1", b"PATCH /send HTTP/1.1", b"DELETE /receive HTTP/1.1",
        b"TRACE /peek HTTP/1.1",
        b"CONNECT localhost:80 HTTP/1.1", b"POST /peek HTTP/1.1", b"GET /send HTTP/1.1", b"POST /receive HTTP/1.1",
        b"HEAD /receive HTTP/1.1", b"OPTIONS /send HTTP/1.1", b"PRI * HTTP/2.0", b"FOO /peek HTTP/1.1",
        b"POST /send HTTP/1.1",
        b"POST /ack HTTP/1.1", b"POST /status HTTP/1.1", b"POST /register HTTP/1.1", b"POST /send HTTP/1.0",
        b"\x16\x03\x01\x02\x00\x01", b"\xff" * 40, b"A" * 70_000,
    ]  # fmt: skip
    return {f"line {line[:60]!r} {len(line)}": get(line=line + b"\r\n") for line in lines}


def queries() -> dict[str, bytes]:
    """List the parameters of a poll, right and wrong; none of them waits."""
    made = [
        "", "?", "?timeout=0", "?timeout=0&", "?&timeout=0", "?timeout=0&&lease=x", "?timeout=-1", "?timeout=nan",
        "?timeout=x", "?timeout=", "?timeout", "?timeout=0x0", "?timeout=%30", "?timeout=+0", "?timeout=0+",
        "?timeout=1&timeout=0", "?timeout=0&timeout=x", "?timeout=x&timeout=0", "?t%69meout=0", "?Timeout=0",
        "?timeout=0;lease=x", "?timeout=0=0", "?timeout=-inf", "?timeout=1e-999", "?timeout=0_0",
        "?timeout=%", "?timeout=%zz", "?timeout=%00", "?timeout=%ff", "?timeout=%ED%A0%80", "?timeout=0&lease=%20",
        "?timeout=0&lease=a+b", "?timeout=0&lease=" + "x" * 64, "?timeout=0&lease=" + "x" * 65,
        "?timeout=0&lease=%F0%9F%98%80", "?timeout=0&ack_seq=0", "?timeout=0&ack_seq=1", "?timeout=0&ack_seq=-1",
        "?timeout=0&ack_seq=x", "?timeout=0&ack_seq=", "?timeout=0&ack_seq=1.0", "?timeout=0&ack_seq=1.5",
        "?timeout=0&ack_seq=9223372036854775807", "?timeout=0&ack_seq=9223372036854775808",
        "?timeout=0&ack_seq=" + "9" * 5000, "?timeout=0&ack_seq=1_0", "?timeout=0&ack_seq=%D9%A5",
        "?timeout=0&ack_seq=+1", "?timeout=0&ack_seq=%2B1",
        "?timeout=0" + "&a=b" * 30, "?timeout=0" + "&a=b" * 31, "?timeout=0" + "&a=b" * 32, "?timeout=0" + "&" * 31,
        "?timeout=0" + "&" * 40, "?%74imeout=0" + "&a=b" * 31, "?%74imeout=0" + "&a=b" * 32,
        "?timeout=0&x=%20" + "&" * 40, "?a=b" * 40, "?timeout=0#x", "?timeout=0?x", "?=0", "?timeout=0&=",
    ]  # fmt: skip
    return {f"query {query[:50]} {len(query)}": send("mine",
    "api") + poll(query) for query in made if query not in ("", "?", "?timeout", "?Timeout=0")}


BODIES: dict[str, Any] = {
    "nothing": b"", "space": b" ", "no object": [], "null": None, "text": "x", "number": 1, "true": True, "empty": {},
    "cut": b"{", "twice": BODY * 2, "spaces around": b" \r\n" + BODY + b"\t\n",
    "single quotes": b"{'a':1}", "comma": b'{"a":1,}', "comment": b"{}//", "NaN": b'{"token":NaN}',
    "Infinity": b'{"seq":Infinity}', "1e999": b'{"seq":1e999}', "thousands of digits": b'{"seq":' + b"9" * 5000 + b"}",
    "deep": b"[" * 30_000, "deep object": b'{"a":' * 10_000, "BOM": b"\xef\xbb\xbf" + BODY,
    "UTF-16": BODY.decode().encode("utf-16"), "UTF-16-LE": BODY.decode().encode("utf-16-le"),
    "UTF-16-BE": BODY.decode().encode("utf-16-be"),
    "UTF-32": BODY.decode().encode("utf-32"), "latin-1": '{"a":"é"}'.encode("latin-1"), "not UTF-8": b'{"a":"\xff"}',
    "surrogate": b'{"token":"\\ud800"}', "nul": b'{"token":"\x00"}', "escaped nul": b'{"token":"\\u0000"}',
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "form": b"token=x&to=all",
    "duplicate keys": TWICE, "zeros": b"\x00" * 100, "html": b"<script>",
    "the cap": b'{"a":"' + b"x" * (65_536 - 8) + b'"}', "over the cap": b'{"a":"' + b"x" * (65_536 - 7) + b'"}',
}  # fmt: skip
PATHS = ("/send", "/ack", "/status", "/register")

USAGE = {"model": "m", "turns": 1, "input_tokens": 2, "output_tokens": 3, "cost_usd": 0.5}
CALLS: dict[str, tuple[dict[str, Any], ...]] = {  # right and wrong, in this order
    "/send": (
        *({"token": API, "to": to, "content": "x"} for to in ("web", "api", "all", "#room", "nobody", "", "#", "human",
        "hub", "x" * 65, "a\nb", " web", 1, None, ["web"])),
        *({"token": API, "to": "web", "content": c} for c in ("", " ", "x" * 8192, "x" * 8193, "\u65e5" * 8192,
        "\ud800", "\x00", None, 1, {}, "\u202e", "\r\n")),
        *({"token": t, "to": "web", "content": "x"} for t in ("", "x", "x" * 256, "x" * 257, None, 1, "\ud800", "é",
        API + " ", " " + API, API.upper())),
        {"to": "web", "content": "x"}, {"token": API, "content": "x"}, {"token": API, "to": "web"},
        {"token": API, "to": "web", "content": "x", "sender": "human", "kind": "stop", "seq": 7, "origin": "hub"},
    ),
    "/ack": (*({"token": API, "seq": seq} for seq in (0, 1, 1, 2, 99, -1, 2**63 - 1, 2**63, "1", " 1 ", "1.0", 1.0,
    1.5, "x", "", None, True, False, [], 1e400)), {"token": API}, {"seq": 1}, {"token": "x", "seq": 1},
    {"token": "x", "seq": "x"}),
    "/status": (
        *({"token": API, "status": s} for s in ("busy", "", " ", " trimmed ", "a\nb", "x" * 280, "x" * 281, None, 1,
        [], "\ud800", "\x1b[0m")), {"token": API}, {"status": "x"}, {"token": "x", "status": "x"},
        *({"token": API, "usage": u} for u in (USAGE, None, {}, [], "x", 1, USAGE | {"turns": -1},
        USAGE | {"cost_usd": 1e400}, USAGE | {"cost_usd": "1"}, USAGE | {"model": 1}, USAGE | {"x": 1})),
        {"token": API, "status": "both", "usage": USAGE},
        {"token": API, "status": None, "usage": USAGE}, *({"token": API, "status": f"again {n}"} for n in range(40)),
    ),
    "/register": (
        *({"project": p} for p in ("new", "api", "web", "hub", "human", "ALL", "", " ", "x" * 64, "x" * 65, "a\nb",
        "#x", None, 1, [], "\ud800", "\u202e", "ａｐｉ", "ünï", "<b>", "a b")), {}, {"token": API},
        {"project": "api", "token": API},
        {"project": "api", "token": WEB}, {"project": "api", "token": "x"}, {"project": "api", "token": "x" * 257},
        {"project": "api", "token": 1}, {"project": "old", "protocol_version": 1},
        {"project": "new2", "protocol_version": 99},
        {"project": "new3", "protocol_version": "x"}, {"project": "new4", "protocol_version": None},
        *({"project": f"crowd-{n}"} for n in range(25)),
    ),
}  # fmt: skip

FRAMED = framed()
CORPUS = FRAMED | chunks() | heads() | first_lines() | queries()
# Where by every reading the body has ended, or there is none: what follows is a request in its own right.
RIGHTLY_CHUNKED = ("chunked", "capitals", "mixed case", "space before", "space after", "tab", "without a space")
ENDED = {f"TE {name}, that ends early" for name in (*RIGHTLY_CHUNKED, "behind a bare LF", "ended by a bare LF")}
ENDED |= {"TE, small letters, that ends early", "TE, capitals, that ends early", "no length"}
ENDED |= {f"length {name}" for name in ("zero", "zeros only", "of something", "in a value")}
ENDED |= {f"length with{name}" for name in (" an underscore", "out a dash", " a dash too many")}
AFTER = peek(X="marker")  # whether it is answered tells whether the connection was kept


# --- the same bytes, the same outcome ---


@pytest.mark.parametrize("name", CORPUS)
def test_both_roads_make_the_same_of(fork: Fork, name: str) -> None:
    outcome = fork.play(CORPUS[name], AFTER)
    assert outcome.said.count("smuggled") == (name in ENDED)


@pytest.mark.parametrize("name", [
    name for name in FRAMED
    if " length" in name and "TE" in name and "DELETE" not in name and "underscore" not in name and "proper" not in name
])
def test_a_length_beside_a_transfer_encoding_is_refused_and_ends_the_connection(fork: Fork, name: str) -> None:
    outcome = fork.play(FRAMED[name], AFTER)
    assert (outcome.statuses, outcome.is_closed) == ([400], True)


@pytest.mark.parametrize("path", PATHS)
def test_bodies_of_all_kinds(fork: Fork, path: str) -> None:
    for body in BODIES.values():
        fork.play(request_of("POST", path, body), AFTER)
        fork.play(post(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", path.encode()), AFTER)


@pytest.mark.parametrize("kind", [
    "", "text/plain", "application/json ", "application/json;", "application/json; charset=utf-16", "APPLICATION/JSON",
    "application/vnd.x+json", "application/jsonx", "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/json, text/plain", "application/ json",
])  # fmt: skip
def test_content_types_of_all_kinds(fork: Fork, kind: str) -> None:
    body = request_of("POST", "/send", BODY)
    fork.play(body.replace(b"application/json", kind.encode()), AFTER)
    fork.play(body.replace(JSON, f"Content-Encoding: gzip\r\nContent-Type: {kind}\r\n".encode()), AFTER)
    fork.play(body.replace(JSON, JSON + f"Content-Type: {kind}\r\n".encode()), AFTER)


@pytest.mark.parametrize("path", CALLS)
def test_calls_right_and_wrong(fork: Fork, path: str) -> None:
    calls = [request_of("POST", path, call) for call in CALLS[path]]
    outcome = fork.play(elsewhere(send("for web")), *calls, poll(), AFTER)
    assert len(outcome.statuses) == len(calls) + 2
    assert fork.counts() == (len(calls) + 3, 0), "all of them came by the lane"
    assert {200, 422} <= {*outcome.statuses}


ROOMS: dict[str, Step] = {
    "stopped": lambda road, line: road.inner.do(lambda: road.inner.hub.room.set_mode("stop")),
    "paused": lambda road, line: road.inner.do(lambda: road.inner.hub.room.set_mode("pause")),
    "without api": elsewhere(request_of("POST", "/leave", {"token": API})),
    "with a stick": elsewhere(request_of("POST", "/floor", {"token": WEB, "action": "take", "scope": "all"})),
    "throttled": lambda road, line: road.inner.do(lambda: road.inner.hub.room.set_rate(0.5, 1.0)),
    "full": lambda road, line: [road.inner.say("web", str(n)) for n in range(caucus.MAILBOX_MAX)][:0],
}


@pytest.mark.parametrize("name", ROOMS)
def test_every_call_in_a_room_that_is(fork: Fork, name: str) -> None:
    calls = (send("one"), send("two", "all"), poll(), peek(), ack(), ack("x"), poll("?timeout=0&ack_seq=1&lease=x"))
    status = request_of("POST", "/status", {"token": API, "status": "busy"})
    register = request_of("POST", "/register", {"project": "api"})
    outcome = fork.play(ROOMS[name], *calls, status, register, elsewhere(cold("/floor"), cold("/peers")), AFTER)
    assert len(outcome.statuses) == 10


# --- many requests on one connection ---

PIPELINES: dict[str, Steps] = {
    "hot, hot": (peek() + send() + poll(),),
    "hot, cold": (peek() + cold(),),
    "cold, hot": (cold() + peek(),),
    "cold, cold": (cold() * 2,),
    "turn by turn": ((peek() + cold()) * 6,),
    "one by one": tuple(step for n in range(5) for step in (peek(), settle, cold(), settle, send(str(n)), settle)),
    "a hundred": (b"".join(send(str(n), "api") for n in range(100)) + poll(),),
    "a hundred and a cold one": (b"".join(send(str(n), "api") for n in range(100)) + cold() + poll(),),
    "odd in the middle": (peek() + get(b"X:y\r\n") + peek(),),
    "broken in the middle": (peek() + get(b": y\r\n") + SMUGGLED,),
    "refused in the middle": (send() + request_of("POST", "/send", b"{") + send("after"),),
    "a giant in the middle": (peek() + request_of("POST", "/send", b" " * 65_537) + peek(),),
    "a bigger giant in the middle": (peek() + request_of("POST", "/send", b" " * 1_100_000) + SMUGGLED,),
    "a long head in the middle": (peek() + get(b"X: " + b"y" * 17_000 + b"\r\n") + send("after"),),
    "a longer head in the middle": (peek() + get(b"X: " + b"y" * 2_000_000 + b"\r\n") + SMUGGLED,),
    "HTTP/1.0 that stays": (get(b"Connection: keep-alive\r\n", b"GET /peek HTTP/1.0\r\n") * 2 + peek(),),
    "empty lines between": (peek() + b"\r\n" + peek() + b"\r\n\r\n" + peek(),),
    "a LF between": (peek() + b"\n" + peek(),),
    "an extra CRLF behind a body": (send() + b"\r\n" + peek(),),
    "a head, then its body": (send()[:-5], settle, send()[-5:] + peek()),
    "a body that is a request": (request_of("POST", "/send", SMUGGLED) + peek(),),
    "polls": (send("mine", "api") + poll("?timeout=0&ack_seq=0") + poll("?timeout=0&ack_seq=1") + poll(),),
    "woken": (poll("?timeout=20"), wake, AFTER),
    "woken twice": (poll("?timeout=20"), wake, poll("?timeout=20"), wake),
    "woken, cold route between": (poll("?timeout=20"), wake, cold(), poll("?timeout=20"), wake),
    "parked behind a cold one": (cold() + poll("?timeout=20"), wake, AFTER),
    "hot behind a parked poll": (poll("?timeout=20") + send("behind") + peek(), wake, AFTER),
    "cold behind a parked poll": (poll("?timeout=20") + cold() + send("behind"), wake, AFTER),
    "a poll behind a parked poll": (poll("?timeout=20") * 2, wake, settle, wake, AFTER),
    "sent while it is parked": (poll("?timeout=20"), settle, send("behind") + cold() + peek(), wake, AFTER),
    "half a request behind a parked poll": (poll("?timeout=20") + send("b")[:-9], wake, settle, send("b")[-9:], AFTER),
    "half a head behind a parked poll": (poll("?timeout=20") + send("b")[:30], wake, settle, send("b")[30:], AFTER),
    "garbage behind a parked poll": (poll("?timeout=20") + b"\x00\r\n\r\n" + SMUGGLED, wake),
    "a giant behind a parked poll": (
        poll("?timeout=20") + request_of("POST", "/send", b" " * 70_000) + send("b"), wake, AFTER,
    ),
    "a lot behind a parked poll": (poll("?timeout=20") + send("b") * 400, wake, AFTER),
    "a wake by a message": (poll("?timeout=20"), elsewhere(request_of("POST", "/send", {
        "token": WEB, "to": "api", "content": "x"})), AFTER),
    "a wake by a stop": (poll("?timeout=20"), settle, ROOMS["stopped"], AFTER),
    "a wake by leaving": (poll("?timeout=20"), settle, ROOMS["without api"], AFTER),
    "a second listener": (poll("?timeout=20&lease=a"), settle, elsewhere(poll("?timeout=0&lease=b")), AFTER),
    "the first listener again": (
        poll("?timeout=20&lease=a"), settle, elsewhere(poll("?timeout=0&lease=b")), poll("?timeout=0&lease=a"),
    ),
    "another without a lease": (poll("?timeout=20"), settle, elsewhere(poll()), AFTER),
    "the same lease": (poll("?timeout=20&lease=a"), settle, elsewhere(poll("?timeout=0&lease=a")), AFTER),
    "a parked HTTP/1.0 poll": (request_of("GET", "/receive?timeout=20", bearer=API, version="1.0"), wake, AFTER),
    "a parked poll that is to be the last": (poll("?timeout=20", Connection="close"), wake, AFTER),
    "a parked HEAD": (get(line=b"HEAD /receive?timeout=20 HTTP/1.1\r\n"), AFTER),
    "a poll that ends by itself": (poll("?timeout=0.01"), lambda road, line: line.is_answered(DEADLINE_S), AFTER),
    "continued": (post(b"Expect: 100-continue\r\n" + LENGTH, b""), settle, BODY, AFTER),
    "not continued": (post(b"Expect: 100-continue\r\n" + LENGTH, b""), settle, SMUGGLED + BODY),
    "two hosts on one connection": (peek() + get(host=b"Host: evil.example\r\n") + peek(),),
}  # fmt: skip


@pytest.mark.parametrize("name", PIPELINES)
def test_requests_in_a_row(fork: Fork, name: str) -> None:
    assert "smuggled" not in fork.play(*PIPELINES[name]).said


LAST: dict[str, Steps] = {
    "Connection: close": (get(b"Connection: close\r\n") + SMUGGLED,),
    "Connection: close, behind others": (peek() + cold() + get(b"Connection: close\r\n") + SMUGGLED,),
    "Connection: close of a cold route": (request_of("GET", "/version", Connection="close") + SMUGGLED,),
    "HTTP/1.0": (get(line=b"GET /peek HTTP/1.0\r\n") + SMUGGLED,),
    "a parked poll": (poll("?timeout=20", Connection="close") + SMUGGLED, wake),
}


@pytest.mark.parametrize("name", LAST)
def test_behind_the_last_request_of_a_connection_nothing_is_carried_out(fork: Fork, name: str) -> None:
    outcome = fork.play(*LAST[name])
    assert outcome.is_closed
    assert "smuggled" not in outcome.said


# --- bytes as they come ---

TRICKLED = {
    "a hot POST": send(),
    "a hot GET": poll(),
    "a refused POST": request_of("POST", "/ack", {"token": "x", "seq": 1}),
    "a cold GET": cold(),
    "a cold POST": request_of("POST", "/channels/join", {"token": API, "channel": "#x"}),
    "chunks": post(CHUNKED, CHUNKS),
    "an odd GET": get(b"X:y\r\n"),
    "bare LFs": get().replace(b"\r\n", b"\n"),
    "Expect": post(b"Expect: 100-continue\r\n" + LENGTH),
    "an empty line first": b"\r\n" + peek(),
}


@pytest.mark.parametrize("name", TRICKLED)
def test_bytes_one_by_one(fork: Fork, name: str) -> None:
    outcome = fork.play(*trickle(TRICKLED[name]), *trickle(TRICKLED[name] + AFTER))
    assert len([status for status in outcome.statuses if status != 100]) == 3


@pytest.mark.parametrize("name", TRICKLED)
def test_every_split_of_a_request(fork: Fork, name: str) -> None:
    data = TRICKLED[name]
    splits = [step for n in range(1, len(data)) for step in (data[:n], settle, data[n:], settle)]
    outcome = fork.play(*splits, AFTER)
    assert len([status for status in outcome.statuses if status != 100]) == len(data)


# --- connections that end ---

ENDS: dict[str, Step] = {"half-closed": half_close, "reset": reset}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("name", TRICKLED)
def test_a_connection_that_ends_at_every_stage(fork: Fork, name: str, how: str) -> None:
    data = TRICKLED[name]
    for n in {*range(0, len(data), 7), data.find(b"\r\n\r\n") + 4, len(data) - 1, len(data)}:
        fork.play(data[:n], settle, ENDS[how], elsewhere(peek()))
        fork.play(peek() + data[:n], settle, ENDS[how], elsewhere(peek()))


HALVES: dict[str, Steps] = {
    "a hot request": (peek(),),
    "a cold request": (cold(),),
    "the second request": (peek(), settle, peek()),
    "the second, cold": (cold(), settle, cold()),
    "several behind each other": (peek() + cold() + peek(),),
    "what comes in two parts": (send()[:9], settle, send()[9:]),
    "what comes in two parts, cold": (cold()[:9], settle, cold()[9:]),
    "a body that comes later": (send()[:-9], settle, send()[-9:]),
    "a poll with something to fetch": (send("mine", "api"), settle, poll()),
}


@pytest.mark.parametrize("name", HALVES)
def test_who_ends_its_half_right_behind_a_request_is_answered(fork: Fork, name: str) -> None:
    for road in (fork.express, fork.plain):
        for _ in range(20):  # the end is seen with the request, or in one of the next turns of the loop
            outcome = road.play((*HALVES[name], half_close))
            assert len(outcome.statuses) == sum(step.count(b" HTTP/") for step in HALVES[name] if step is not settle)
            assert outcome.is_closed


READERS: dict[str, Steps] = {
    "answered at once": (send("mine", "api"), settle, poll()),
    "answered with a cursor": (send("mine", "api"), settle, poll("?timeout=0&ack_seq=0")),
    "woken": (poll("?timeout=20"), wake),
    "woken, and has sent more": (poll("?timeout=20") + peek(), wake),
    "woken, and has sent half of more": (poll("?timeout=20") + peek()[:9], wake),
    "woken behind a cold request": (cold() + poll("?timeout=20"), wake),
    "parked": (poll("?timeout=20"),),
    "parked with a lease": (poll("?timeout=20&lease=a"),),
    "parked by an odd request": (poll("?timeout=20", X="y  "),),
    "in a stopped room": (ROOMS["stopped"], poll()),
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("lease", ["", "&lease=b"])
@pytest.mark.parametrize("name", READERS)
def test_what_a_reader_left_unread_is_given_to_the_next(fork: Fork, name: str, how: str, lease: str) -> None:
    fork.play(*READERS[name], settle, ENDS[how], elsewhere(poll(f"?timeout=0{lease}"), peek()))


@pytest.mark.parametrize("odd", [{}, {"X": "y  "}], ids=["plain", "odd"])
def test_what_a_reset_lost_is_handed_out_before_what_is_newer(fork: Fork, odd: dict[str, str]) -> None:
    for road in (fork.express, fork.plain):
        road.set_scene()
        with Raw(road.inner.port) as old, Raw(road.inner.port) as new:
            assert new.send(peek()).answer()
            old.send(poll("?timeout=20&lease=a&ack_seq=0", **odd))
            eventually(lambda: road.inner.is_listening("api"), "api listening")  # noqa: B023
            road.inner.say("api", "first")
            assert old.is_answered(DEADLINE_S)
            with road.busy():  # it hears of both in one turn of its loop
                cut(old)
                new.send(poll("?timeout=0&lease=a&ack_seq=0"))
            answer = new.answer()
            assert answer is not None
            assert [message["content"] for message in answer.body["messages"]] == ["first"]
        road.settle()


def test_a_reset_that_is_found_when_a_message_comes_loses_neither_that_nor_the_one_before(fork: Fork) -> None:
    for road in (fork.express, fork.plain):
        road.set_scene()
        with Raw(road.inner.port) as old, Raw(road.inner.port) as speaker, Raw(road.inner.port) as new:
            assert new.send(peek()).answer()
            assert speaker.send(peek()).answer()
            old.send(poll("?timeout=20&lease=a") + poll("?timeout=20&lease=a"))
            eventually(lambda: road.inner.is_listening("api"), "api listening")  # noqa: B023
            road.inner.say("api", "first")
            assert old.is_answered(DEADLINE_S)
            eventually(lambda: road.inner.is_listening("api"), "api listening again")  # noqa: B023
            with road.busy():  # it hears of both in one turn of its loop
                speaker.send(request_of("POST", "/send", {"token": WEB, "to": "api", "content": "second"}))
                cut(old)
            assert speaker.answer()
            answer = new.send(poll("?timeout=0&lease=a")).answer()
            assert answer is not None
            assert [message["content"] for message in answer.body["messages"]] == ["first", "second"]
        road.settle()


@pytest.mark.parametrize(("how", "carried_out"), [("half-closed", ["behind"]), ("reset", [])])
def test_a_request_behind_a_parked_poll_may_be_lost_with_its_connection(
    fork: Fork, how: str, carried_out: list[str]
) -> None:
    """Here the roads differ: a lane sees the end at once, Tornado not before it has carried out what it has read."""
    steps = (poll("?timeout=20") + send("behind"), settle, ENDS[how], elsewhere(poll(), peek()))
    express, plain = fork.express.play(steps), fork.plain.play(steps)
    assert (express.said, plain.said) == ([], carried_out)
    assert express.overheard == plain.overheard


@pytest.mark.parametrize("is_plain", [False, True])
@pytest.mark.parametrize("how", ENDS)
def test_a_connection_that_is_found_dead_is_closed(how: str, is_plain: bool) -> None:
    with running(is_plain_http=is_plain) as inner:  # of its own: what is not closed would be in the way of others
        road, unread = Road(inner), poll("?timeout=20", X="y  ") + b"GET"  # Tornado has more to read than the end
        road.play((unread, settle, ENDS[how], elsewhere(send("mine", "api"))))


# --- mutations ---

SEEDS = (*TRICKLED.values(), *CORPUS.values())
PIECES = (b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\x00", b"0", b"1", b"-", b",", b"\xe9", b"%", b"?", b"&", LENGTH,
CHUNKED, HOST, AUTH)
PIECES += (b"Content-Length: 0\r\n", b"Connection: close\r\n", b"\r\n\r\n", b"HTTP/1.0", b"GET /peek HTTP/1.1\r\n",
b"{", b"}")
requests = st.sampled_from([data for data in SEEDS if len(data) < 600])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Draw a request with up to three things wrong with it."""
    data = draw(requests)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(("insert", "insert", "delete", "double", "swap", "line", "case")))
        if kind == "insert":
            data = data[:at] + draw(st.sampled_from(PIECES)) + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + draw(st.integers(1, 4)) :]
        elif kind == "double":
            data = data[: at + 1] + data[at:]
        elif kind == "swap":
            data = data[:at] + data[at + 1 : at + 2] + data[at : at + 1] + data[at + 2 :]
        elif kind == "case":
            data = data[:at] + data[at : at + 9].swapcase() + data[at + 9 :]
        else:
            lines = data.splitlines(keepends=True) or [b""]
            line = lines.pop(draw(st.integers(0, len(lines) - 1)))
            places = draw(st.lists(st.integers(0, len(lines)), max_size=2))
            for place in places:
                lines.insert(place, line)
            data = b"".join(lines)
    return data


def test_both_roads_make_the_same_of_what_is_nearly_a_request(fork: Fork) -> None:
    @settings(max_examples=EXAMPLES)
    @given(st.lists(mutated(), min_size=1, max_size=3), st.integers(0, 400))
    def fire(shots: list[bytes], split: int) -> None:
        data = b"".join(shots)
        fork.play(data[:split], settle, data[split:], AFTER)

    fire()


# --- what protects a hub, on either road ---

BATCH = 300  # of the longest messages: more than the kernel keeps for one connection
FLOOD = 60_000  # requests, whose answers are more than that as well


@pytest.fixture(params=["express", "plain"])
def hurried(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[InnerHub]:
    """Give a hub of this test's own, that has little patience with connections."""
    monkeypatch.setattr(caucus, "IDLE_S", 0.3)
    monkeypatch.setattr(caucus, "BODY_S", 0.3)
    monkeypatch.setattr(caucus, "SWEEP_S", 0.05)
    with running(is_plain_http=request.param == "plain") as inner:
        yield inner


TRICKLES = {
    "a line": (b"GET /peek", b"x"),
    "a name": (b"GET /peek HTTP/1.1\r\n", b"X"),
    "a value": (b"GET /peek HTTP/1.1\r\nX: ", b"y"),
    "headers": (b"GET /peek HTTP/1.1\r\n", b"X: y\r\n"),
    "empty lines": (b"", b"\r\n"),
    "a head behind an answer": (request_of("GET", "/peek") + b"GET /peek", b"x"),
    "a head behind a cold answer": (request_of("GET", "/version") + b"GET /version", b"x"),
    "a body": (post(b"Content-Length: 60000\r\n", b'{"token":"'), b"x"),
    "a chunk": (post(CHUNKED, b"ffff\r\n"), b"x"),
    "chunks": (post(CHUNKED, b""), b"1\r\nx\r\n"),
    "the size of a chunk": (post(CHUNKED, b""), b"0"),
    "a body too large": (post(b"Content-Length: 900000\r\n", b""), b" " * 500),
    "nothing": (b"GET /peek HTTP/1.1\r\n", b""),
}


@pytest.mark.parametrize("name", TRICKLES)
def test_who_trickles_is_closed_in_the_end(hurried: InnerHub, name: str) -> None:
    begin, drop = TRICKLES[name]
    with Raw(hurried.port) as line:
        line.send(begin)
        eventually(lambda: hurried.hub.links.open, "the connection")

        def is_closed() -> bool:
            line.send(drop)
            return not hurried.hub.links.open

        eventually(is_closed, "the end")


def stall(inner: InnerHub, token: str) -> Raw:
    """Let a poll get more than the kernel's buffers hold, and read nothing of it."""
    for n in range(BATCH):
        inner.say("api", f"{n} ".ljust(8192, "\N{SNOWMAN}"))  # 49 kB each on the wire
    with mock.patch.object(caucus, "BATCH_MAX_BYTES", 1 << 30):  # as many as no bound of ours allows
        line = Raw(inner.port).send(request_of("GET", "/receive?timeout=20", bearer=token))
        assert line.is_answered(DEADLINE_S)
    return line


def take_all(inner: InnerHub, token: str) -> list[int]:
    """Poll until nothing is left; give the numbers of the messages."""
    numbers: list[int] = []
    while True:
        with Raw(inner.port) as line:
            batch = line.send(request_of("GET", "/receive?timeout=0", bearer=token)).answer()
        assert batch is not None
        if not batch.body["messages"]:
            return numbers
        numbers += [int(message["content"].split()[0]) for message in batch.body["messages"]]


def test_a_reader_that_stalls_is_dropped_and_its_messages_are_kept(hurried: InnerHub) -> None:
    token, other = hurried.join("api"), hurried.join("web")
    with stall(hurried, token) as line, Raw(hurried.port) as beside:
        hurried.say("web", "meanwhile")
        batch = beside.send(request_of("GET", "/receive?timeout=20", bearer=other)).answer()
        assert batch is not None
        assert [message["content"] for message in batch.body["messages"]] == ["meanwhile"]
        beside.close()
        eventually(lambda: not hurried.hub.links.open, "the end of the one that stalls")
        assert take_all(hurried, token) == [*range(BATCH)]
        line.close()


def test_a_sender_that_reads_no_answers_is_dropped(hurried: InnerHub) -> None:
    token = hurried.join("api")
    with Raw(hurried.port) as line:
        sender = threading.Thread(target=line.send, args=(request_of("GET", "/peek", bearer=token) * FLOOD,))
        sender.start()
        assert line.is_answered(DEADLINE_S)
        eventually(lambda: not hurried.hub.links.open, "its end", 2 * DEADLINE_S)
        sender.join(DEADLINE_S)
        assert not sender.is_alive()


def test_one_that_does_not_take_its_answer_is_dropped(hurried: InnerHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caucus, "IDLE_S", 300.0)
    hurried.join("api")
    for _ in range(BATCH):
        hurried.say("api", "\u65e5" * caucus.CONTENT_MAX)
    with Raw(hurried.port) as line:
        line.send(request_of("GET", "/export"))
        assert line.is_answered(DEADLINE_S)
        eventually(lambda: not hurried.hub.links.open, "its end")


@pytest.mark.parametrize("is_plain", [False, True])
def test_a_stop_waits_for_nobody(is_plain: bool) -> None:
    with running(is_plain_http=is_plain) as inner, contextlib.ExitStack() as stack:
        stack.enter_context(stall(inner, inner.join("api")))
        polls = []
        for name in ("web", "tests"):
            token = inner.join(name)
            odd = {"Connection": "close"} if name == "tests" else {}
            polls.append(stack.enter_context(Raw(inner.port)))
            polls[-1].send(request_of("GET", "/receive?timeout=20", bearer=token, **odd))
            eventually(lambda name=name: inner.is_listening(name), "the poll")
        for data in (b"", peek()[:9], send()[:-9], post(CHUNKED, b"5\r\nab"), post(LENGTH, b"")):
            stack.enter_context(Raw(inner.port)).send(data)
        eventually(lambda: len(inner.hub.links.open) == 8, "all of them")
        inner.stop()
        answers = [answer for line in polls for answer in line.answers()]
        assert [(answer.status, answer.body["messages"]) for answer in answers] == [(200, []), (200, [])]
