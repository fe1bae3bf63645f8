"""Attacks on a hub that once hurt all others: seeded, of one credential or of none, each a process of its own.

`tests/bench.py --attack` runs the long form and measures what a bystander feels; `tests/test_attacks.py` the short one.
An attack prepares the room up to its first `yield`, which is not measured; then it goes on until its time is up.
"""

from __future__ import annotations

import base64
import json
import math
import multiprocessing
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
TIMEOUT_S = 30.0
LONG = "\N{SNOWMAN}" * 8000  # 24 kB as text, 48 kB in an answer
SMALL_BUFFER = 4096  # bytes that a reader's system takes before the reader does
LOOK_S = 0.01  # how often memory is looked at
PAUSE_S = 0.005  # of the bystander between two requests


class Foe:
    """Who attacks: helpers around sockets, and the clock."""

    def __init__(self, port: int, scale: float, seconds: float, seed: str) -> None:
        self.port, self.scale, self.seconds = port, scale, seconds
        self.chance = random.Random(seed)
        self._end = math.inf
        self._sources = 0
        self.lines: list[socket.socket] = []

    def begin(self) -> None:
        """Let the time run."""
        self._end = time.monotonic() + self.seconds

    @property
    def has_time(self) -> bool:
        """Whether the attack goes on."""
        return time.monotonic() < self._end

    def many(self, count: int) -> int:
        """Scale a number of connections or peers."""
        return max(2, int(count * self.scale))

    def source(self) -> str:
        """Give an address of this machine that has not registered anybody yet; Linux has sixteen million."""
        self._sources += 1
        return f"127.{self._sources // 65536 + 1}.{self._sources // 256 % 256}.{self._sources % 256}"

    def connect(self, source: str = HOST, buffer: int = 0) -> socket.socket:
        """Open a connection, perhaps one that hardly takes anything."""
        line = socket.socket()
        if buffer:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        line.settimeout(TIMEOUT_S)
        with suppress(OSError):  # elsewhere than on Linux
            line.bind((source, 0))
        line.connect((HOST, self.port))
        return line

    def request(self, method: str, target: str, bearer: str = "", body: Any = None) -> bytes:
        """Word a request."""
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {target} HTTP/1.1\r\nHost: {HOST}:{self.port}\r\n"
        head += f"Authorization: Bearer {bearer}\r\n" if bearer else ""
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n" if body is not None else ""
        return head.encode() + b"\r\n" + data

    def ask(self, line: socket.socket, request: bytes) -> Any:
        """Send a request and read the answer; None: the connection ended."""
        line.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            if not (chunk := line.recv(1 << 16)):
                return None
            answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        size = next((int(one[15:]) for one in head.split(b"\r\n") if one.lower().startswith(b"content-length:")), 0)
        while len(body) < size:
            if not (chunk := line.recv(1 << 20)):
                return None
            body += chunk
        return json.loads(body) if body.startswith((b"{", b"[")) else {}

    def join(self, name: str) -> str:
        """Register a peer, from an address of its own; give its token."""
        with closing(self.connect(self.source())) as line:
            return str(self.ask(line, self.request("POST", "/register", body={"project": name}))["token"])

    def crowd(self, count: int) -> list[str]:
        """Register so many peers, twenty from an address."""
        tokens: list[str] = []
        while len(tokens) < count:
            with closing(self.connect(self.source())) as line:
                for _ in range(min(20, count - len(tokens))):
                    body = {"project": f"crowd-{len(tokens)}"}
                    tokens.append(str(self.ask(line, self.request("POST", "/register", body=body))["token"]))
        return tokens

    def console(self, query: str = "", buffer: int = 0) -> socket.socket:
        """Open the operator's socket."""
        line = self.connect(buffer=buffer)
        head = f"GET /ui{query} HTTP/1.1\r\nHost: {HOST}:{self.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        head += f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n\r\n"
        line.sendall(head.encode())
        return line

    def command(self, console: socket.socket, **frame: Any) -> None:
        """Send one frame, masked with zeros."""
        data = json.dumps(frame, ensure_ascii=False).encode()
        size = bytes((0x80 | len(data),)) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
        console.sendall(b"\x81" + size + bytes(4) + data)

    def read_away(self, line: socket.socket) -> None:
        """Read and forget what comes on a connection, in the background."""

        def read() -> None:
            with suppress(OSError):
                while line.recv(1 << 20):
                    pass

        threading.Thread(target=read, daemon=True).start()

    def operator(self) -> socket.socket:
        """Open a console that is read, and let everybody speak as fast as they can."""
        console = self.console("?changes=1")
        self.read_away(console)
        self.command(console, set_rate={"refill_rate": 1e6, "capacity": 1e6})
        return console

    def fill(self, count: int, text: str = LONG) -> None:
        """Have the operator say something long so often, and wait until the hub has read it all."""
        self.operator().close()
        with closing(self.console("?changes=1")) as console:
            for n in range(count):
                self.command(console, say=text, to="all")
                if n % 20 == 19 or n == count - 1:
                    self.command(console, heartbeat="nobody")  # which is answered after all that
                    seen = b""
                    while b"heartbeat_result" not in seen:
                        chunk = console.recv(1 << 20)
                        assert chunk, "the hub closed a console that reads"
                        seen = seen[-20:] + chunk

    def open(self, request: bytes, buffer: int = SMALL_BUFFER) -> None:
        """Send a request and read nothing; keep the connection. One that was closed on us is forgotten."""
        with suppress(OSError):
            line = self.connect(buffer=buffer)
            self.lines.append(line)
            line.sendall(request)

    def keep(self, count: int) -> None:
        """Close the oldest connections beyond a number."""
        while len(self.lines) > count:
            self.lines.pop(0).close()


# --- readers that do not read ---


def unread_polls(foe: Foe) -> Iterator[None]:
    """One peer with a full mailbox polls on thirty connections and reads none of the answers."""
    token = foe.join("hoarder")
    foe.fill(1000)
    yield
    while foe.has_time:
        foe.open(foe.request("GET", "/receive?timeout=0&ack_seq=0", token))
        foe.keep(foe.many(30))
        time.sleep(0.001)


def slow_polls(foe: Foe) -> Iterator[None]:
    """Three hundred peers with full mailboxes poll and read nothing."""
    tokens = foe.crowd(foe.many(300))
    foe.fill(100)
    yield
    for token in tokens:
        foe.open(foe.request("GET", "/receive?timeout=25", token))
    while foe.has_time:
        time.sleep(0.05)


def slow_exports(foe: Foe) -> Iterator[None]:
    """Three hundred read nothing of a full log."""
    foe.fill(500)
    yield
    for _ in range(foe.many(300)):
        foe.open(foe.request("GET", "/export"))
    while foe.has_time:
        time.sleep(0.05)


def dripping_exports(foe: Foe) -> Iterator[None]:
    """A hundred read 1,500 bytes of it each half second."""
    foe.fill(500)
    yield
    for _ in range(foe.many(100)):
        foe.open(foe.request("GET", "/export"))
    while foe.has_time:
        time.sleep(0.5)
        for line in foe.lines:
            with suppress(OSError):
                line.settimeout(0.01)
                line.recv(1500)


def readers_of_forms(foe: Foe) -> Iterator[None]:
    """Sixty ask for two megabytes of questions, again and again, and read nothing."""
    ask_all(foe)
    yield
    while foe.has_time:
        foe.open(foe.request("GET", "/forms") * 4)
        foe.keep(foe.many(60))
        time.sleep(0.002)


def hang_ups(foe: Foe) -> Iterator[None]:
    """A client with a full mailbox polls and hangs up, in a loop."""
    token = foe.join("hasty")
    foe.fill(1000)
    yield
    while foe.has_time:
        foe.open(foe.request("GET", "/receive?timeout=25&ack_seq=0", token))
        if foe.chance.random() < 0.5:
            time.sleep(foe.chance.random() * 0.01)
        foe.keep(0)


def deaf_consoles(foe: Foe) -> Iterator[None]:
    """A thousand consoles of both kinds read nothing while the room talks."""
    foe.fill(500, "a usual message, " * 12)
    operator = foe.operator()
    yield
    for n in range(foe.many(1000)):
        with suppress(OSError):
            foe.lines.append(foe.console("?changes=1" if n % 2 else "", SMALL_BUFFER))
    while foe.has_time:
        foe.command(operator, say="a usual message, " * 12, to="all")
        time.sleep(0.005)


def hoarding_consoles(foe: Foe) -> Iterator[None]:
    """Three hundred consoles open onto long questions and a full log of long messages, and read nothing."""
    ask_all(foe)
    foe.fill(500)
    yield
    for n in range(foe.many(300)):
        with suppress(OSError):
            foe.lines.append(foe.console("?changes=1" if n % 2 else "", SMALL_BUFFER))
    while foe.has_time:
        time.sleep(0.05)


# --- floods ---


def knocks(foe: Foe) -> Iterator[None]:
    """Handshakes at /ui as fast as they go."""
    yield
    while foe.has_time:
        with suppress(OSError):
            foe.lines.append(foe.console())
        foe.keep(foe.many(100))


def fragments(foe: Foe) -> Iterator[None]:
    """200,000 empty fragments of one message, on one console after the other."""
    yield
    flood = b"\x01\x80" + bytes(4) + (b"\x00\x80" + bytes(4)) * foe.many(200_000)
    while foe.has_time:
        with suppress(OSError), closing(foe.console()) as line:
            line.sendall(flood)
            line.recv(1 << 16)


def small_frames(foe: Foe) -> Iterator[None]:
    """A console sends 20,000 frames at once, each of them refused."""
    yield
    flood = (b"\x81\x82" + bytes(4) + b"{}") * foe.many(20_000)
    while foe.has_time:
        with suppress(OSError), closing(foe.console()) as line:
            line.sendall(flood)


def guesses(foe: Foe) -> Iterator[None]:
    """Wrong tokens as fast as they go."""
    yield
    while foe.has_time:
        with suppress(OSError), closing(foe.connect()) as line:
            for n in range(1000):
                foe.ask(line, foe.request("POST", "/leave", body={"token": f"wrong {n}"}))
                if not foe.has_time:
                    return


def laborious_texts(foe: Foe) -> Iterator[None]:
    """Texts that take long to read as Markdown, while a console is open."""
    operator = foe.operator()
    yield
    marks = ("*_", "[a](", "a|b\n-|-\n", "* a\n * b\n", "- - - ", "](", "~~*_a_*~~ ", "> > ", "<a ", "\n\na")
    while foe.has_time:
        foe.command(operator, say=(foe.chance.choice(marks) * 8192)[:8000], to="all")
        time.sleep(0.01)


# --- too much of everything ---


def ask_all(foe: Foe) -> None:
    """Ask as many long questions as the hub takes."""
    foe.operator().close()
    options = [f"{n:02}" + "x" * 190 for n in range(32)]
    fields = [{"key": str(n), "label": "?", "type": "radio", "options": options} for n in range(9)]
    for token in foe.crowd(30):
        with closing(foe.connect()) as line:
            for _ in range(2):
                body = {"token": token, "to": "all", "title": "?", "fields": fields}
                foe.ask(line, foe.request("POST", "/ask", body=body))


def open_consoles(foe: Foe) -> Iterator[None]:
    """Consoles open and close in a room full of long questions and long messages."""
    ask_all(foe)
    foe.fill(500)
    yield
    while foe.has_time:
        with suppress(OSError):
            foe.lines.append(foe.console("?changes=1" if foe.chance.random() < 0.5 else ""))
            foe.read_away(foe.lines[-1])
        foe.keep(foe.many(10))
        time.sleep(0.05)


def big_room(foe: Foe) -> Iterator[None]:
    """Thousands of peers, of whom some come and go, before a dashboard that gets the roster whole each time."""
    foe.crowd(foe.many(9000))
    for query in ("", "?changes=1"):
        foe.read_away(foe.console(query))
    yield
    n = 0
    while foe.has_time:
        n += 1
        with closing(foe.connect(foe.source())) as line:
            joined = foe.ask(line, foe.request("POST", "/register", body={"project": f"guest-{n}"}))
            if "token" in joined:
                foe.ask(line, foe.request("POST", "/leave", body={"token": joined["token"]}))
        time.sleep(0.01)


ATTACKS: dict[str, Callable[[Foe], Iterator[None]]] = {
    one.__name__.replace("_", "-"): one
    for one in (
        *(unread_polls, slow_polls, slow_exports, dripping_exports, readers_of_forms, hang_ups, deaf_consoles),
        *(hoarding_consoles, knocks, fragments, small_frames, guesses, laborious_texts, open_consoles, big_room),
    )
}


# --- what a bystander feels ---


@dataclass(frozen=True)
class Felt:
    """What an attack did to a hub, and to somebody who only asks for /version on a connection that is kept."""

    calm_mb: float  # resident memory once the room was prepared
    peak_mb: float  # and its highest during the attack; NaN where /proc does not tell
    requests: int  # of the bystander
    p50_ms: float
    p99_ms: float
    worst_ms: float


def memory_mb(pid: int) -> float:
    """Read the resident memory of a process."""
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024
    return math.nan


def perform(name: str, port: int, scale: float, seconds: float, is_ready: Any) -> None:
    """Attack, in this process."""
    foe = Foe(port, scale, seconds, name)
    attack = ATTACKS[name](foe)
    next(attack)
    is_ready.set()
    foe.begin()
    for _ in attack:
        pass


def attacked(name: str, port: int, pid: int, scale: float, seconds: float) -> Felt:
    """Attack a hub, and measure. Raises AssertionError when the hub stops answering, or the attack itself fails."""
    spawn = multiprocessing.get_context("spawn")
    is_ready = spawn.Event()
    foe = spawn.Process(target=perform, args=(name, port, scale, seconds, is_ready), daemon=True)
    foe.start()
    assert is_ready.wait(180), f"{name}: could not be prepared"
    calm = peak = memory_mb(pid)
    waits: list[float] = []
    bystander, looked = Foe(port, 1, 0, ""), 0.0
    with closing(bystander.connect()) as line:
        while foe.is_alive():
            begun = time.perf_counter()
            answer = bystander.ask(line, bystander.request("GET", "/version"))
            ended = time.perf_counter()
            waits.append(ended - begun)
            assert answer, f"{name}: the hub hung up on a bystander"
            if ended - looked > LOOK_S:
                looked, peak = ended, max(peak, memory_mb(pid))
            time.sleep(PAUSE_S)
    foe.join()
    assert foe.exitcode == 0, f"{name}: the attack itself failed"
    waits.sort()
    share = [waits[min(len(waits) - 1, int(len(waits) * part))] * 1000 for part in (0.5, 0.99, 1.0)]
    return Felt(calm, peak, len(waits), *share)
