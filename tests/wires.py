"""What the process tests speak with: raw sockets, peers from many addresses, watchers, a stub hub, a tapped wire."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import nursery
from hubs import DEADLINE_S, ROOT, START, HubProcess

LOOPBACK = "127.0.0.1"

# --- addresses and peers: registration is throttled per source address, and Linux has all of 127.0.0.0/8 ---

_serials = itertools.count(1)


def fresh_address() -> str:
    """Give a loopback address that no registration came from yet; only Linux has them."""
    n = next(_serials)
    return f"127.{10 + n // 60_000 % 200}.{n // 250 % 240}.{n % 250 + 1}" if sys.platform == "linux" else LOOPBACK


def call(port: int, method: str, path: str, body: Any = None, bearer: str | None = None, source: str = "") -> Any:
    """Make one HTTP call on a connection of its own; give (status, decoded body)."""
    connection = http.client.HTTPConnection(
        LOOPBACK, port, timeout=DEADLINE_S, source_address=(source, 0) if source else None
    )
    headers = {"Connection": "close"}
    if bearer is not None:
        headers["Authorization"] = f"Bearer {bearer}"
    data = None
    if body is not None:
        headers["Content-Type"], data = "application/json", json.dumps(body).encode()
    with contextlib.closing(connection):
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def newcomer(hub: HubProcess, prefix: str = "peer") -> tuple[str, str]:
    """Register a peer under a name of its own, from an address of its own; give its name and token."""
    name = f"{prefix}-{next(_serials)}"
    status, body = call(hub.port, "POST", "/register", {"project": name}, source=fresh_address())
    assert status == 200, body
    return name, str(body["token"])


# --- raw sockets ---


@dataclass(frozen=True)
class RawAnswer:
    """One HTTP answer as it came."""

    status: int
    headers: dict[str, str]  # by lower-case name
    content: bytes

    @property
    def body(self) -> Any:
        """Decode the JSON body."""
        return json.loads(self.content)


class Raw:
    """A TCP connection that sends the bytes that it is told, and reads answers one by one."""

    def __init__(self, port: int, deadline_s: float = DEADLINE_S) -> None:
        self.socket = socket.create_connection((LOOPBACK, port), timeout=deadline_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> Raw:
        """Send all of it, as far as the other end takes it."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused half way: the answer says why
            self.socket.sendall(data)
        return self

    def answer(self) -> RawAnswer | None:
        """Read the next answer; None: the connection ended instead."""
        try:
            first = self._file.readline()
            if not first:
                return None
            version, status, *_ = first.split(maxsplit=2)
            assert version in (b"HTTP/1.1", b"HTTP/1.0"), first
            headers: dict[str, str] = {}
            while (line := self._file.readline()) not in (b"\r\n", b""):
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.strip().lower()] = value.strip()
            size = 0 if int(status) in (100, 304) else int(headers.get("content-length", "0"))
            return RawAnswer(int(status), headers, self._file.read(size))
        except ConnectionResetError:
            return None

    def answers(self) -> list[RawAnswer]:
        """Read all answers until the connection ends."""
        return list(iter(self.answer, None))

    def is_answered(self, within_s: float) -> bool:
        """Whether something comes, or the end; for when nothing that came before is left unread."""
        return bool(select.select([self.socket], [], [], within_s)[0])

    def end_sending(self) -> Raw:
        """Close this end's half of the connection."""
        with contextlib.suppress(OSError):  # the other end has ended all of it
            self.socket.shutdown(socket.SHUT_WR)
        return self

    def close(self) -> None:
        """Close as a process that ends does: a reset if something was not read."""
        self._file.close()
        self.socket.close()


def request_of(
    method: str, path: str, body: Any = None, bearer: str | None = None, version: str = "1.1", **headers: str
) -> bytes:
    """Word a request; `X_Y="v"` becomes the header `X-Y: v`."""
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost"]
    if bearer is not None:
        lines.append(f"Authorization: Bearer {bearer}")
    data = b""
    if body is not None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + data


# --- watchers ---


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    out: str  # of a watch, without the numbers of messages: they depend on what was said before
    err: str
    printed: str = field(default="", compare=False)  # the same as it was


def unnumbered(printed: str) -> str:
    """Take the numbers of messages out of what a watch prints."""
    return re.sub(r"^(\[caucus\] msg .+? -> .+?) \(\d+\): ", r"\1: ", printed, flags=re.MULTILINE)


class WatchProcess:
    """One `caucus watch`; by default what it prints is kept."""

    def __init__(
        self,
        url: str,
        *flags: str,
        env: Mapping[str, str] | None = None,
        stdout: Any = subprocess.PIPE,
        python: tuple[str, ...] = (),
        start: Callable[..., Any] = nursery.start,
    ) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("CAUCUS_")}
        hub = ("--hub", url) if url else ()
        self.process = start(
            [sys.executable, "-W", "error", *python, START, "watch", *hub, *flags],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={**clean, **(env or {})},
        )

    def end(self, deadline_s: float = DEADLINE_S) -> Ended:
        """Wait for its end; a watcher that crashed fails the test."""
        try:
            out, err = self.process.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"watch did not end; it printed {out!r} and {err!r}") from None
        printed = (out or b"").decode()
        ended = Ended(self.process.returncode, unnumbered(printed), err.decode(), printed)
        assert "Traceback" not in ended.err, ended.err
        return ended

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; a process that ended already does not mind."""
        self.process.send_signal(number)

    def kill(self) -> Ended:
        """Kill it as the kernel would."""
        self.process.kill()
        return self.end()


# --- a stub hub ---

Script = Callable[[str, bytes], tuple[int, bytes] | None]  # (path with query, body) -> answer; None hangs up


@dataclass
class Stub:
    """A server that answers what a test says, and keeps what it was asked."""

    url: str = ""
    asked: list[tuple[float, str, dict[str, str], bytes]] = field(default_factory=list)  # when, path, headers, body

    def paths(self) -> list[str]:
        """List the paths asked for, without their queries."""
        return [path.partition("?")[0] for _, path, _, _ in self.asked]

    def polls(self) -> list[float]:
        """List when polls came."""
        return [when for when, path, _, _ in self.asked if path.startswith("/receive")]


@contextlib.contextmanager
def stub_hub(script: Script) -> Iterator[Stub]:
    """Run a stub until the block ends; each connection carries one request."""
    stub = Stub()
    listener = socket.create_server((LOOPBACK, 0), backlog=64)
    stub.url = f"http://{LOOPBACK}:{listener.getsockname()[1]}"

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if (request := read_request(connection)) is None:
                return
            head, body = request
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines if line)}
            stub.asked.append((time.monotonic(), first.split()[1], headers, body))
            answer = script(first.split()[1], body)
            if answer is not None:
                status, data = answer
                connection.sendall(
                    b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(data), data)
                )

    with _accepting(listener, serve):
        yield stub


@contextlib.contextmanager
def _accepting(listener: socket.socket, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Serve each connection in a thread; at the end no thread is left behind."""
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # closed: the block ended
                return
            connection.settimeout(DEADLINE_S)
            threads.append(threading.Thread(target=serve, args=(connection,), daemon=True))
            threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # wakes accept; macOS refuses it on a listener, where close is enough
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in [acceptor, *threads]:
            thread.join(DEADLINE_S)


def read_request(connection: socket.socket) -> tuple[bytes, bytes] | None:
    """Read one request: its head without the blank line, and its body. None: the other end hung up."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (chunk := connection.recv(65_536)):
            return None
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    size = next(
        (int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    while len(body) < size:
        if not (chunk := connection.recv(65_536)):
            return None
        body += chunk
    return head, body


# --- a tapped wire ---


@dataclass(frozen=True)
class Step:
    """One thing that was seen on a wire between a watcher and the hub."""

    watcher: int
    kind: str  # "poll", "ack" or "send"
    what: str  # "asked" (not yet passed on), "passed", "answered" (by the hub, not yet passed back), "done", "gone"
    exchange: int  # numbers the request
    seqs: tuple[int, ...] = ()  # of messages that were answered, or the one that was acknowledged


class Tap:
    """The log of all wires of one test, in an order that can be relied on.

    A request is noted before it is passed on, an answer before it is passed back: if an answer is noted before a
    request, then the hub had dealt with the former when it saw the latter.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._lock = threading.Lock()
        self._exchanges = itertools.count()

    def note(self, step: Step) -> None:
        """Append to the log."""
        with self._lock:
            self.steps.append(step)

    @contextlib.contextmanager
    def wire(self, hub_port: int, watcher: int, on_step: Callable[[Step], None]) -> Iterator[str]:
        """Run a wire to the hub; give its URL. `on_step` may kill the watcher, or raise ConnectionError to cut it."""
        listener = socket.create_server((LOOPBACK, 0), backlog=16)

        def note(step: Step) -> None:
            self.note(step)
            on_step(step)

        def serve(client: socket.socket) -> None:
            with client, contextlib.suppress(OSError):
                self._relay(client, hub_port, watcher, note)

        with _accepting(listener, serve):
            yield f"http://{LOOPBACK}:{listener.getsockname()[1]}"

    def _relay(self, client: socket.socket, hub_port: int, watcher: int, note: Callable[[Step], None]) -> None:
        with socket.create_connection((LOOPBACK, hub_port), timeout=DEADLINE_S) as hub:
            while (request := read_request(client)) is not None:
                if not self._relay_one(client, hub, request, watcher, note):
                    return

    def _relay_one(
        self,
        client: socket.socket,
        hub: socket.socket,
        request: tuple[bytes, bytes],
        watcher: int,
        note: Callable[[Step], None],
    ) -> bool:
        head, body = request
        kind = {b"POST /ack": "ack", b"POST /send": "send"}.get(b" ".join(head.split(b" ", 2)[:2]), "poll")
        seqs = (int(json.loads(body)["seq"]),) if kind == "ack" else ()
        number = next(self._exchanges)
        note(Step(watcher, kind, "asked", number, seqs))
        hub.sendall(head + b"\r\n\r\n" + body)
        note(Step(watcher, kind, "passed", number, seqs))
        ready, _, _ = select.select([client, hub], [], [], 3 * DEADLINE_S)
        if client in ready and hub not in ready:  # it sends nothing more: this is its end
            note(Step(watcher, kind, "gone", number, seqs))
            return False
        answer = read_request(hub)
        if answer is None:
            return False
        if kind == "poll":
            seqs = tuple(m["seq"] for m in json.loads(answer[1]).get("messages", ()))
        note(Step(watcher, kind, "answered", number, seqs))
        client.sendall(answer[0] + b"\r\n\r\n" + answer[1])
        note(Step(watcher, kind, "done", number, seqs))
        return True

    @contextlib.contextmanager
    def swallowing(self, hub_port: int, count: int = 1) -> Iterator[str]:
        """Run a wire that loses, on the way back, the first answers to what is said; give its URL."""
        left = [None] * count

        def on_step(step: Step) -> None:
            if (step.kind, step.what) == ("send", "answered") and left:
                left.pop()
                raise ConnectionError

        with self.wire(hub_port, 0, on_step) as url:
            yield url

    def said(self) -> int:
        """Count how often the hub was asked to say something."""
        return sum((step.kind, step.what) == ("send", "passed") for step in self.steps)

    def repeats_after_ack(self) -> list[tuple[int, int]]:
        """List (seq, exchange) of messages that a poll got though they were acknowledged before it asked."""
        acked, acked_when_asked, faults = 0, {}, []
        for step in self.steps:
            if step.kind == "ack" and step.what == "answered":
                acked = max(acked, *step.seqs)
            elif step.kind == "poll" and step.what == "asked":
                acked_when_asked[step.exchange] = acked
            elif step.kind == "poll" and step.what == "answered":
                faults += [(seq, step.exchange) for seq in step.seqs if seq <= acked_when_asked[step.exchange]]
        return faults
