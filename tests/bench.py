"""Measure the hub beside the two smallest relays: on Tornado (tests/relay.py), on asyncio (tests/relay_asyncio.py).

Not part of the test run. All run on this machine in the same rounds, one after the other and in alternating order,
under the same load, which comes from this process over keep-alive sockets. Figures are medians over the rounds;
a ratio is the median of the rounds' own ratios, so that a machine which slows down between rounds does not spoil it,
with the lowest and the highest round beside it. Trust a difference only when it is larger than that range.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import math
import multiprocessing
import os
import platform
import random
import re
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import IO, Any, Literal

from attacks import ATTACKS, attacked

EXAMPLES = """\
examples:
  python3 tests/bench.py                         everything; about ten minutes
  python3 tests/bench.py --quick                 a first impression; two minutes
  python3 tests/bench.py --only messages --rounds 9
  python3 tests/bench.py --pyz --markdown        the table of docs/performance.md
  python3 tests/bench.py --pyz --json > out.json the hub from caucus.pyz; all samples as JSON
  python3 tests/bench.py --attack --pyz          what attacks do to the hub's memory and to a bystander; four minutes
  python3 tests/bench.py --attack --hub OLD/caucus.py --only slow-polls   the same of another version
  python3 tests/bench.py --calibrate             a second relay in the hub's place: how far 1.00 wanders here

Run it with a Python that has tornado. Exit codes: 0 all goals met, 1 a goal missed or not measured, 2 bad option.
"""

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
PORTS = range(20_000, 32_000)  # below Linux's ephemeral ports, else a client that waits for a server may meet itself
ON_LINUX = platform.system() == "Linux"  # elsewhere neither CPU nor memory of another process is read, see Server

PAIRS = 50
AUDIENCES = (10, 100, 1000)  # parked receivers of one broadcast, the most last
CONSOLES = 5
CROWD = 5000  # peers in a full room; the hub takes 10,000 names
POLLS = 1000  # parked at once
LENGTHS = (40, 4000)  # characters of a message; every order of magnitude as often as the next
SAYINGS = 61  # requests that one speaker words ahead of time, each of another length
DOCS = ("design", "operating", "connect", "protocol", "api")  # what agents say is cut from these: real words, varied
POLL_S = 25.0  # what a client asks for; the hub holds no longer
ANSWER_TIMEOUT_S = 40.0  # longer than a poll: silence beyond it is a failure
START_TIMEOUT_S = 60.0  # valgrind's takes seconds of a processor that others may want as well
ATTACK_SCALE, ATTACK_S = 1.0, 8.0
ATTACK_MAX_MB, ATTACK_MAX_MS = 150.0, 50.0  # the goals: resident memory, and the bystander's p99
PEERS_PER_SOURCE = 20  # the hub's burst of registrations from one address

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
SEQ = re.compile(rb'"seq": ?(\d+)')
RATE_EVENT = re.compile(rb'"type": ?"rate"')
SNAPSHOT = re.compile(rb'^\{"type": ?"snapshot"')
COLLECTED = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)  # in callgrind's file: user instructions


class BenchError(Exception):
    """A measurement that cannot be made, in words for the reader of the table."""


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    rounds: int
    messages: int  # measured per round and server, besides the warm-up
    broadcasts: int  # per audience, round and server
    idle_s: float  # how long the parked polls are watched
    starts: int  # per round and program
    round_trips: int
    registrations: int  # of each size of the room, in twenties
    counted: int  # messages under callgrind
    soak_s: float
    kept: int  # messages in the journal whose past is read


FULL = Plan(9, 3000, 25, 10.0, starts=2, round_trips=1000, registrations=200, counted=1500, soak_s=60.0, kept=1_000_000)
QUICK = Plan(3, 1500, 11, 3.0, starts=1, round_trips=400, registrations=100, counted=1000, soak_s=10.0, kept=100_000)


# --- Agents: the load -------------------------------------------------------------------------------------------------


class Line:
    """One keep-alive connection to a server."""

    __slots__ = ("_buffer", "sock")

    def __init__(self, port: int, source: str = HOST) -> None:
        self.sock = socket.create_connection((HOST, port), ANSWER_TIMEOUT_S, (source, 0))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def read(self) -> bytes | None:
        """Read once; return the body if an answer is complete. Raises BenchError."""
        chunk = self.sock.recv(65_536)
        if not chunk:
            raise BenchError("the server hung up")
        self._buffer += chunk
        return self.parsed()

    def parsed(self) -> bytes | None:
        """Take the body of an answer that is complete. Raises BenchError unless its status is 200."""
        head_end = self._buffer.find(b"\r\n\r\n") + 4
        if head_end < 4:
            return None
        length = CONTENT_LENGTH.search(self._buffer, 0, head_end)
        if length is None:
            raise BenchError(f"an answer without Content-Length: {self._buffer[:200]!r}")
        end = head_end + int(length[1])
        if len(self._buffer) < end:
            return None
        answer, self._buffer = self._buffer[:end], self._buffer[end:]
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise BenchError(f"the server answered {answer[9:12].decode()} {answer[head_end:].decode()[:200]}")
        return answer[head_end:]

    def __del__(self) -> None:
        with suppress(AttributeError):  # it never was connected
            self.sock.close()

    def read_raw(self) -> None:
        """Read once, and leave the bytes for `parsed`: nothing else is in the time that is measured."""
        self._buffer += self.sock.recv(65_536)

    def wait(self) -> bytes:
        """Wait for the body of one answer."""
        while (body := self.read()) is None:
            pass
        return body

    def ask(self, request: bytes) -> bytes:
        """Send `request` and wait for the body of its answer."""
        self.sock.sendall(request)
        return self.wait()


def post(path: str, body: dict[str, Any]) -> bytes:
    """Word a POST as our own clients do."""
    data = json.dumps(body, ensure_ascii=False).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def contents(seed: int, count: int = SAYINGS) -> list[str]:
    """Draw what one agent says: so many messages whose lengths spread over LENGTHS, the same in every run."""
    chance = random.Random(seed)
    low, high = (math.log(length) for length in LENGTHS)
    lengths = [round(math.exp(low + (high - low) * (at + chance.random()) / count)) for at in range(count)]
    chance.shuffle(lengths)
    text = prose()
    starts = [chance.randrange(len(text) - LENGTHS[1]) for _ in lengths]
    return [text[start : start + length] for start, length in zip(starts, lengths, strict=True)]


@functools.cache
def prose() -> str:
    """Read prose that hardly repeats, in ASCII: what says the same again and again is a loop, and is held."""
    files = (ROOT / "docs" / f"{name}.md" for name in DOCS)
    return "\n".join(file.read_text("utf-8") for file in files).encode("ascii", "ignore").decode()


def source_of(number: int) -> str:
    """Choose the address from which agent `number` comes: a burst of registrations is allowed to each."""
    high, low = divmod(number // PEERS_PER_SOURCE, 250)
    return f"127.0.{high + 1}.{low + 1}" if ON_LINUX else HOST  # only Linux owns all of 127/8 without being told


class Agent:
    """A registered peer on a connection of its own."""

    __slots__ = ("_number", "_poll_from", "_poll_to", "_seq", "line", "name", "token")

    def __init__(self, port: int, name: str, number: int) -> None:
        self.name = name
        self._number = number
        self.line = Line(port, source_of(number))
        answer = self.line.ask(post("/register", {"project": name, "protocol_version": 999}))
        self.token = str(json.loads(answer)["token"])
        self._seq = b"0"  # the latest received: the next poll acknowledges it
        lease = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
        self._poll_from = f"GET /receive?timeout={POLL_S}&lease={lease}&ack_seq=".encode()
        self._poll_to = f" HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {self.token}\r\n\r\n".encode()

    def sayings(self, to: str) -> Iterator[bytes]:
        """Word the requests that send something to `to`, over and over."""
        return cycle([post("/send", {"token": self.token, "to": to, "content": one}) for one in contents(self._number)])

    def poll(self) -> None:
        """Ask for messages, acknowledging the last; `receive` takes the answer."""
        self.line.sock.sendall(self._poll_from + self._seq + self._poll_to)

    def receive(self) -> bool:
        """Read once; say if that completed an answer. Raises BenchError on one without a message."""
        return self.take(self.line.read())

    def take(self, body: bytes | None) -> bool:
        """Note what the answer to a poll brought; say if it is complete. Raises BenchError on one without a message."""
        if body is None:
            return False
        seqs = SEQ.findall(body)
        if not seqs:
            raise BenchError(f"a poll ended without a message: {body[:200]!r}")
        self._seq = seqs[-1]
        return True


class Pair:
    """An agent that speaks, one that listens, and the message between them."""

    __slots__ = ("_requests", "due", "listener", "speaker")

    def __init__(self, port: int, number: int) -> None:
        self.speaker = Agent(port, f"speaker-{number}", 2 * number)
        self.listener = Agent(port, f"listener-{number}", 2 * number + 1)
        self._requests = self.speaker.sayings(self.listener.name)
        self.due = 0  # answers: the poll's and the send's

    def begin(self) -> None:
        """Park the poll, then send."""
        self.due = 2
        self.listener.poll()
        self.speak()

    def speak(self) -> None:
        """Send, and leave the answer unread."""
        self.speaker.line.sock.sendall(next(self._requests))


@contextmanager
def watching(handlers: Iterable[tuple[Line, Any]]) -> Iterator[Callable[[], list[Any]]]:
    """Give a function that waits and returns the data of those lines that can be read."""
    with selectors.DefaultSelector() as selector:
        for line, data in handlers:
            selector.register(line.sock, selectors.EVENT_READ, data)

        def ready() -> list[Any]:
            found = [key.data for key, _ in selector.select(ANSWER_TIMEOUT_S)]
            if not found:
                raise BenchError(f"the server has been silent for {ANSWER_TIMEOUT_S:.0f} s")
            return found

        yield ready


def exchange(pairs: list[Pair], messages: int) -> None:
    """Let all pairs talk at once, one message in flight per pair, until `messages` have been received."""
    lines: list[tuple[Line, tuple[Pair, Callable[[], object]]]] = []
    lines += [(pair.speaker.line, (pair, pair.speaker.line.read)) for pair in pairs]
    lines += [(pair.listener.line, (pair, pair.listener.receive)) for pair in pairs]
    to_begin, active = messages - len(pairs), len(pairs)
    with watching(lines) as ready:
        for pair in pairs:
            pair.begin()
        while active:
            for pair, read in ready():
                pair.due -= bool(read())  # the body of a send's answer is never empty
                if pair.due:
                    continue
                if to_begin > 0:
                    to_begin -= 1
                    pair.begin()
                else:
                    active -= 1


def broadcast(server: Server, sender: Agent, request: bytes, receivers: list[Agent]) -> tuple[float, float]:
    """Park `receivers` and send `request`, which is to all.

    Returns the seconds until the last of them has the message, and the server's CPU seconds.
    """
    for receiver in receivers:
        receiver.poll()
    server.settle()
    waiting, before_s = len(receivers), server.cpu_s()
    with watching((receiver.line, receiver.line) for receiver in receivers) as ready:
        started = time.perf_counter()
        sender.line.sock.sendall(request)
        while waiting:
            lines = ready()
            for line in lines:
                line.read_raw()
            waiting -= len(lines)
        took_s = time.perf_counter() - started
    for receiver in receivers:
        if not receiver.take(receiver.line.parsed()):
            raise BenchError("an answer came in two pieces: the time is that of the first")
    sender.line.wait()
    return took_s, server.cpu_s() - before_s


def bystander_s(server: Server, sender: Agent, request: bytes, receivers: list[Agent], bystander: Pair) -> float:
    """Return the seconds that somebody else waits for an answer who asks while a broadcast goes out."""
    for receiver in receivers:
        receiver.poll()
    server.settle()
    sender.line.sock.sendall(request)
    started = time.perf_counter()
    bystander.speak()
    bystander.speaker.line.wait()
    took_s = time.perf_counter() - started
    for receiver in receivers:
        while not receiver.receive():
            pass
    sender.line.wait()
    return took_s


def round_trip_s(there: Pair, back: Pair) -> float:
    """Time one message there and one back, with the polls and the answers to the sends."""
    started = time.perf_counter()
    for pair in (there, back):
        pair.speak()
        while not pair.listener.receive():
            pass
        pair.listener.poll()  # parked again before its next message is sent
        pair.speaker.line.wait()
    return time.perf_counter() - started


# --- Servers and other programs ---------------------------------------------------------------------------------------


JOURNALS = tempfile.TemporaryDirectory(prefix="caucus-bench-")


def journal_file() -> str:
    """Name a journal that is not there yet."""
    return f"{JOURNALS.name}/{random.getrandbits(64):x}"


@dataclass(frozen=True)
class Program:
    """Something that can be started: a column of the table."""

    name: str
    kind: Literal["hub", "relay", "watch", "bridge", "script"]
    command: tuple[str, ...]  # {port} stands for the port that it is given
    python_path: str = ""  # where Python looks first for modules

    def start(self, port: int, output: IO[bytes] | int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Start it without the variables that would change how Caucus behaves."""
        command = [word.replace("{port}", str(port)).replace("{journal}", journal_file()) for word in self.command]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CAUCUS_")}
        clean.pop("PYTHONDONTWRITEBYTECODE", None)  # else each start compiles again what has no .pyc, and is that slow
        clean["PYTHONHASHSEED"] = "0"  # one order of sets and dicts of strings, so one count of instructions
        if self.python_path:
            clean["PYTHONPATH"] = self.python_path
        has_dialogue = self.kind == "bridge"
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE if has_dialogue else subprocess.DEVNULL,
            stdout=subprocess.PIPE if has_dialogue else output,
            stderr=output,
            env=clean,
        )


def free_port() -> int:
    """Find a port on which nothing listens. Raises BenchError."""
    for port in random.sample(PORTS, 50):
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)):
                return port
    raise BenchError("no free port")


class Server:
    """A running server. CPU and memory are NaN elsewhere than on Linux."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.port = free_port()
        self.start_s = math.nan  # from the start of the process to its first answer
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Server:
        started = time.perf_counter()
        self._process = self.program.start(self.port, self._output)
        try:
            self._first_line().ask(post("/register", {"project": "first"}))
            self.start_s = time.perf_counter() - started
            if self.program.kind == "hub":
                lift_rate(self.port)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # nothing to lose, and an orderly end would answer every parked poll
        self._process.wait()
        self._output.close()

    def _first_line(self) -> Line:
        deadline = time.perf_counter() + START_TIMEOUT_S
        while time.perf_counter() < deadline:
            try:
                return Line(self.port)
            except ConnectionRefusedError:
                if self._process.poll() is not None:
                    break
                time.sleep(0.001)
        self._output.seek(0)
        said = self._output.read().decode(errors="replace").strip().splitlines()
        raise BenchError(f"{self.program.name} does not start: {said[-1] if said else 'and says nothing'}")

    @property
    def pid(self) -> int:
        """Give the process's number."""
        return self._process.pid

    def cpu_s(self) -> float:
        """Read user and system time of the process, to the nanosecond where /proc/PID/stat has ticks of 10 ms."""
        clock_of_process = (~self._process.pid << 3) | 2  # as clock_getcpuclockid(3) makes it
        return time.clock_gettime(clock_of_process) if ON_LINUX else math.nan

    def rss_bytes(self) -> float:
        """Read the resident memory of the process."""
        if not ON_LINUX:
            return math.nan
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return float(pages * os.sysconf("SC_PAGE_SIZE"))

    def settle(self) -> None:
        """Wait until the server has read what it was sent: until it uses under a tenth of a CPU."""
        if not ON_LINUX:
            time.sleep(0.3)
            return
        quiet = 0  # slices in a row; one may be quiet because the server has yet to be scheduled
        for _ in range(4000):
            before_s = self.cpu_s()
            time.sleep(0.005)
            quiet = quiet + 1 if self.cpu_s() - before_s < 0.0005 else 0
            if quiet == 3:
                return
        raise BenchError("the server never comes to rest")


class Console:
    """The operator's end of a hub's /ui."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection((HOST, port), ANSWER_TIMEOUT_S)
        handshake = f"GET /ui HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        handshake += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        self.sock.sendall(handshake.encode())
        self._file = self.sock.makefile("rb")
        while self._file.readline() not in (b"\r\n", b""):
            pass

    def command(self, text: bytes) -> None:
        """Send a short text frame, masked with zeros."""
        self.sock.sendall(bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text)

    def wait_for(self, wanted: re.Pattern[bytes]) -> None:
        """Read frames until one matches. Raises BenchError."""
        frame = b""
        while not wanted.search(frame):
            head = self._file.read(2)
            if len(head) < 2 or head[0] == 0x88:  # 0x88 closes
                raise BenchError(f"the hub closes the console after {frame[-200:]!r}")
            size = head[1]
            if size >= 126:  # the length follows, in two or eight bytes
                size = int.from_bytes(self._file.read(2 if size == 126 else 8))
            frame = self._file.read(size)

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self.sock.close()


def lift_rate(port: int) -> None:
    """Tell the hub, as its operator, to let everybody speak as fast as they can."""
    console = Console(port)
    console.command(b'{"set_rate":{"refill_rate":1e6,"capacity":1e6}}')
    console.wait_for(RATE_EVENT)
    console.close()


def drain(consoles: list[socket.socket]) -> None:
    """Read and forget what comes to `consoles`, for ever."""
    with selectors.DefaultSelector() as selector:
        for console in consoles:
            selector.register(console, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if not sock.recv(1 << 20):
                    return
            time.sleep(0.01)  # a browser paints as often; reading every frame at once would take a core of its own


@contextmanager
def consoles_at(port: int, count: int) -> Iterator[None]:
    """Keep `count` consoles open, read by a process of their own."""
    consoles = [Console(port) for _ in range(count)]
    for console in consoles:
        console.wait_for(SNAPSHOT)
    spawn = multiprocessing.get_context("spawn")  # a fork would hold all our connections open
    reader = spawn.Process(target=drain, args=([console.sock for console in consoles],), daemon=True)
    reader.start()
    for console in consoles:
        console.close()  # here; the reader has them
    try:
        yield
        if not reader.is_alive():
            raise BenchError("the hub closed a console")
    finally:
        reader.terminate()
        reader.join()


def watch_start_s(program: Program) -> float:
    """Return the seconds from the start of a watch to its first GET /receive."""
    with socket.create_server((HOST, free_port())) as stub:
        stub.settimeout(ANSWER_TIMEOUT_S)
        started = time.perf_counter()
        watch = program.start(stub.getsockname()[1])
        try:
            line, _ = stub.accept()
            with line:
                asked = line.recv(4096)
                took_s = time.perf_counter() - started
        except TimeoutError:
            raise BenchError("watch asks for nothing") from None
        finally:
            watch.kill()
            watch.wait()
    if not asked.startswith(b"GET /receive"):
        raise BenchError(f"watch begins with {asked[:40]!r}")
    return took_s


def bridge_start_s(program: Program) -> float:
    """Return the seconds from the start of a bridge to its answer to `initialize`."""
    client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
    request = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client}
    started = time.perf_counter()
    bridge = program.start(free_port())
    assert bridge.stdin
    assert bridge.stdout
    with bridge, bridge.stdin, bridge.stdout:
        bridge.stdin.write(json.dumps(request).encode() + b"\n")
        bridge.stdin.flush()
        answer = bridge.stdout.readline()
        took_s = time.perf_counter() - started
        bridge.kill()
    if b'"protocolVersion"' not in answer:
        raise BenchError(f"bridge begins with {answer[:40]!r}")
    return took_s


def server_start_s(program: Program) -> float:
    """Return the seconds from the start of a hub or relay to its first answer."""
    with Server(program) as server:
        return server.start_s


def script_s(program: Program) -> float:
    """Return the seconds that a program takes from start to end."""
    started = time.perf_counter()
    program.start(0).wait()
    return time.perf_counter() - started


HOW_TO_START = {
    "hub": server_start_s,
    "relay": server_start_s,
    "watch": watch_start_s,
    "bridge": bridge_start_s,
    "script": script_s,
}


# --- Measures: each returns what one round of one program gives, by metric --------------------------------------------


def cpu_of(server: Server, pairs: list[Pair], messages: int) -> float:
    """Return the server's CPU seconds for `messages` exchanged by `pairs`, those for what it put off included."""
    server.settle()
    before_s = server.cpu_s()
    exchange(pairs, messages)
    server.settle()
    return server.cpu_s() - before_s


def measure_messages(program: Program, plan: Plan) -> dict[str, float]:
    """CPU of the server per 1,000 direct messages: each one POST /send, one GET /receive."""
    with Server(program) as server:
        pairs = [Pair(server.port, number) for number in range(PAIRS)]
        exchange(pairs, max(PAIRS, plan.messages // 10))
        before_s, started = server.cpu_s(), time.perf_counter()
        exchange(pairs, plan.messages)
        cpu_s, took_s = server.cpu_s() - before_s, time.perf_counter() - started
        return {"message_cpu_ms": cpu_s / plan.messages * 1e6, "message_busy_percent": cpu_s / took_s * 100}


def measure_pingpong(program: Program, plan: Plan) -> dict[str, float]:
    """Time of one message there and one back, nothing else in flight."""
    with Server(program) as server:
        there, back = Pair(server.port, 0), Pair(server.port, 1)
        there.listener.poll()
        back.listener.poll()
        times_s = [round_trip_s(there, back) for _ in range(plan.round_trips + 50)][50:]
        return {"pingpong_us": statistics.median(times_s) * 1e6}


def instructions_per_message(program: Program, messages: int) -> float:
    """Count the user instructions of one message among PAIRS; callgrind looks at no other.

    Raises BenchError without valgrind.
    """
    if shutil.which("vgdb") is None:
        raise BenchError("valgrind is not installed")
    if program.kind == "hub":  # under callgrind a second is a fiftieth of one, and a look a second would be fifty
        program = replace(program, command=(*program.command, "--loops", "off"))
    with Server(program):  # so that what is counted need not compile
        pass
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "callgrind.out"
        counted = ("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={file}")
        with Server(replace(program, command=(*counted, *program.command))) as server:
            pairs = [Pair(server.port, number) for number in range(PAIRS)]
            exchange(pairs, 4 * PAIRS)  # the first messages fill caches
            command_valgrind(server.pid, "instrumentation", "on")
            exchange(pairs, messages)
            command_valgrind(server.pid, "dump")
        found = COLLECTED.search(Path(f"{file}.1").read_text())
    if found is None:
        raise BenchError("callgrind counted nothing")
    return int(found[1]) / messages


def command_valgrind(pid: int, *words: str) -> None:
    """Tell the valgrind that runs a process what to do."""
    subprocess.run(["vgdb", f"--pid={pid}", *words], check=True, capture_output=True, timeout=ANSWER_TIMEOUT_S)


def measure_instructions(program: Program, plan: Plan) -> dict[str, float]:
    """User instructions of one direct message, which hardly vary from run to run."""
    return {"message_instructions": instructions_per_message(program, plan.counted)}


def measure_journal(program: Program, plan: Plan) -> dict[str, float]:
    """Measure what a journal takes: messages, ping-pong and a broadcast to the most, with it and without."""
    measured = {**measure_messages(program, plan), **measure_pingpong(program, plan)}
    return {f"kept_{name}": value for name, value in {**measured, **measure_broadcast(program, plan)}.items()}


# What is asked of a long record, and how many answers of it are timed.
READS = {"page": "limit=50", "old_page": "limit=50&before={middle}", "channel_page": "limit=50&scope=%23channel-4",
         "search": "q=price_cents", "needle": "q=needle", "chinese": "q=%E4%BB%B7%E6%A0%BC"}
READS_EACH = 300


def measure_record(program: Program, plan: Plan) -> dict[str, float]:
    """Read the past of a long journal: what making its index takes, how long answers take, and how long others wait."""
    path = journal_file()
    command = [sys.executable, str(ROOT / "tests/long_journal.py"), path, str(plan.kept)]
    about = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=600).stdout)
    measured = dict[str, float]()
    with Server(replace(program, command=tuple(word.replace("{journal}", path) for word in program.command))) as server:
        reader, other = Line(server.port), Line(server.port)
        while b" 200 " not in asked_plainly(reader, history("limit=1", about["token"])):
            time.sleep(0.2)
        measured["record_index_us"] = server.cpu_s() / plan.kept * 1e6  # its start is little beside it
        measured["record_index_bytes"] = os.path.getsize(f"{path}-index") / plan.kept
        waits = list[float]()
        measured["record_calm_ms"] = worst_wait_ms(other, lambda: time.sleep(0.002), READS_EACH, waits)
        waits.clear()
        for name, query in READS.items():
            request = history(query.format(middle=plan.kept // 2), about["token"])
            took = list[float]()

            def read(request: bytes = request, took: list[float] = took) -> None:
                started = time.perf_counter()
                reader.ask(request)
                took.append(time.perf_counter() - started)

            worst_wait_ms(other, read, READS_EACH, waits)
            measured[f"record_{name}_ms"] = statistics.median(took) * 1e3
        measured["record_wait_ms"] = statistics.quantiles(waits, n=100)[98] * 1e3
    return measured


def history(query: str, token: str) -> bytes:
    """Word a GET of the past."""
    return f"GET /history?{query} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def asked_plainly(line: Line, request: bytes) -> bytes:
    """Give the first bytes of whatever is answered."""
    line.sock.sendall(request)
    return line.sock.recv(65_536)[:20]


def worst_wait_ms(line: Line, do: Callable[[], None], count: int, waits: list[float]) -> float:
    """Do something so often, while somebody else, in a thread, asks for next to nothing; give what 1 % of it took."""
    is_over = threading.Event()

    def ask() -> None:
        request = f"GET /version HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
        while not is_over.wait(0.0005):
            started = time.perf_counter()
            line.ask(request)
            waits.append(time.perf_counter() - started)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        for _ in range(count):
            do()
        is_over.set()
        asking.result()
    return statistics.quantiles(waits, n=100)[98] * 1e3


def measure_consoles(program: Program, plan: Plan) -> dict[str, float]:
    """CPU of the hub per 1,000 direct messages, nobody watching and CONSOLES consoles open."""
    with Server(program) as server:
        pairs = [Pair(server.port, number) for number in range(PAIRS)]
        exchange(pairs, 600)  # the log that consoles open with is full
        alone_s = cpu_of(server, pairs, plan.messages)
        with consoles_at(server.port, CONSOLES):
            watched_s = cpu_of(server, pairs, plan.messages)
    per_1000 = 1e6 / plan.messages
    return {"alone_cpu_ms": alone_s * per_1000, "watched_cpu_ms": watched_s * per_1000}


class Crowd:
    """Peers that register, from as many addresses as it takes, and say nothing."""

    def __init__(self, server: Server, first: int) -> None:
        self._server, self._next = server, first

    def come(self) -> list[str]:
        """Register PEERS_PER_SOURCE peers; give their tokens."""
        line, numbers = Line(self._server.port, source_of(self._next)), range(self._next, self._next + PEERS_PER_SOURCE)
        self._next += PEERS_PER_SOURCE
        requests = [post("/register", {"project": f"crowd-{number}", "protocol_version": 999}) for number in numbers]
        tokens = [str(json.loads(line.ask(request))["token"]) for request in requests]
        line.sock.close()
        return tokens

    def leave(self, tokens: list[str]) -> None:
        """Let them go."""
        line = Line(self._server.port)
        for token in tokens:
            line.ask(post("/leave", {"token": token}))
        line.sock.close()

    def register_cpu_s(self, count: int) -> float:
        """Return the CPU seconds of one registration, among as many peers as there are."""
        used_s = 0.0
        for _ in range(count // PEERS_PER_SOURCE):
            before_s = self._server.cpu_s()
            tokens = self.come()
            used_s += self._server.cpu_s() - before_s
            self.leave(tokens)
        return used_s / count


def console_opens_s(port: int) -> float:
    """Return the seconds from the connection of a console to its whole snapshot."""
    started = time.perf_counter()
    console = Console(port)
    console.wait_for(SNAPSHOT)
    took_s = time.perf_counter() - started
    console.close()
    return took_s


def measure_growth(program: Program, plan: Plan) -> dict[str, float]:
    """Cost of a registration, a direct message and the opening of a console among 100 peers and among CROWD."""
    metrics: dict[str, float] = {}
    with Server(program) as server:
        pairs = [Pair(server.port, number) for number in range(PAIRS)]
        crowd = Crowd(server, 2 * PAIRS + PEERS_PER_SOURCE)
        exchange(pairs, 600)
        crowd.register_cpu_s(PEERS_PER_SOURCE)
        for size in (2 * PAIRS, CROWD):
            for _ in range((size - 2 * PAIRS) // PEERS_PER_SOURCE):
                crowd.come()
            metrics[f"register_{size}_us"] = crowd.register_cpu_s(plan.registrations) * 1e6
            metrics[f"send_{size}_us"] = cpu_of(server, pairs, plan.messages) / plan.messages * 1e6
            metrics[f"open_{size}_ms"] = statistics.median(console_opens_s(server.port) for _ in range(5)) * 1000
    return metrics


def measure_broadcast(program: Program, plan: Plan) -> dict[str, float]:
    """Time until the last of so many parked receivers has a broadcast."""
    metrics: dict[str, float] = {}
    with Server(program) as server:
        sender, receivers = Agent(server.port, "sender", 0), list[Agent]()
        requests = sender.sayings("all")
        for size in AUDIENCES:
            receivers += [Agent(server.port, f"receiver-{n}", n) for n in range(len(receivers) + 1, size + 1)]
            broadcast(server, sender, next(requests), receivers)  # not counted: warms up
            samples = [broadcast(server, sender, next(requests), receivers) for _ in range(plan.broadcasts)]
            for key, values_s in zip(("broadcast", "broadcast_cpu"), zip(*samples, strict=True), strict=True):
                metrics[f"{key}_{size}_ms"] = statistics.median(values_s) * 1000
        other = Pair(server.port, AUDIENCES[-1])
        waits_s = [bystander_s(server, sender, next(requests), receivers, other) for _ in range(plan.broadcasts)]
        metrics["bystander_ms"] = statistics.median(waits_s) * 1000
    return metrics


class Talker:
    """A peer of the soak: it speaks on one connection and polls on another, which now and then breaks."""

    def __init__(self, port: int, number: int) -> None:
        self.agent = Agent(port, f"talker-{number}", number)
        self.voice = self.agent.line
        self.port = port
        self.agent.line = Line(port)  # polls go here
        self.voice.ask(post("/channels/join", {"token": self.agent.token, "channel": "#soak"}))
        self.pending = set[str]()  # contents sent to it and not yet received
        self.is_speaking = False

    def reconnect(self) -> None:
        """Hang up on the parked poll, or on its answer, and poll again from where it was."""
        self.agent.line.sock.close()
        self.agent.line = Line(self.port)
        self.agent.poll()


class Soak:
    """Mixed load, with an account of every message: to one, to a channel and to all, consoles open, peers coming and
    going, polls that break.
    """

    def __init__(self, server: Server, talkers: int = 20) -> None:
        self._server, self._chance, self._contents = server, random.Random(6), contents(6)
        self._talkers = [Talker(server.port, number) for number in range(talkers)]
        self._sent, self._visits = 0, 0
        self.delivered, self.twice = 0, 0

    @property
    def lost(self) -> int:
        """Count what was sent and did not arrive."""
        return sum(len(talker.pending) for talker in self._talkers)

    def run(self, duration_s: float, warm_up_s: float) -> float:
        """Talk for so long and drain; return by how many bytes the hub grew after the warm-up."""
        start_bytes, now = math.nan, time.perf_counter()
        began, next_visit = now, now
        with selectors.DefaultSelector() as self._selector:
            for talker in self._talkers:
                self._selector.register(talker.voice.sock, selectors.EVENT_READ, (talker, False))
                self._selector.register(talker.agent.line.sock, selectors.EVENT_READ, (talker, True))
                talker.agent.poll()
            while (now := time.perf_counter()) < began + duration_s:
                if math.isnan(start_bytes) and now > began + warm_up_s:
                    start_bytes = self._server.rss_bytes()
                if now > next_visit:
                    next_visit = now + 0.1
                    self._visit()
                    self._break_one()
                self._speak()
                self._listen(1.0)
            self._drain()
        return self._server.rss_bytes() - start_bytes

    def _speak(self) -> None:
        """Let every talker that waits for nothing say something, unless the listeners are far behind."""
        if self.lost > 2000:  # a mailbox holds 1,000
            return
        for talker in self._talkers:
            if not talker.is_speaking:
                self._say(talker)

    def _say(self, talker: Talker) -> None:
        others = [one for one in self._talkers if one is not talker]
        dice = self._chance.random()
        heard = [self._chance.choice(others)] if dice < 0.7 else others
        to = heard[0].agent.name if dice < 0.7 else "#soak" if dice < 0.9 else "all"
        self._sent += 1
        content = f"soak-{self._sent}-" + self._chance.choice(self._contents)
        for one in heard:
            one.pending.add(content)
        talker.is_speaking = True
        talker.voice.sock.sendall(post("/send", {"token": talker.agent.token, "to": to, "content": content}))

    def _listen(self, wait_s: float) -> bool:
        """Read what came; say if anything did."""
        ready = self._selector.select(wait_s)
        for key, _ in ready:
            talker, is_poll = key.data
            if not is_poll:
                talker.is_speaking = talker.voice.read() is None
            elif (body := talker.agent.line.read()) is not None:
                self._hear(talker, body)
        return bool(ready)

    def _hear(self, talker: Talker, body: bytes) -> None:
        messages = [one for one in json.loads(body)["messages"] if one["origin"] == "agent"]
        for message in messages:
            self.delivered += 1
            if message["content"] in talker.pending:
                talker.pending.discard(message["content"])
            elif message["content"].startswith("soak-"):
                self.twice += 1
        if SEQ.search(body):
            talker.agent.take(body)
        talker.agent.poll()

    def _visit(self) -> None:
        """Let a peer come, do a little of everything, and leave."""
        self._visits += 1
        line = Line(self._server.port, source_of(PEERS_PER_SOURCE * (1 + self._visits % 60)))
        answer = line.ask(post("/register", {"project": f"visitor-{self._visits}", "protocol_version": 999}))
        token = json.loads(answer)["token"]
        bearer = f" HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n\r\n"
        for path, more in (("/status", {"status": "here"}), ("/channels/join", {"channel": "#soak"})):
            line.ask(post(path, {"token": token, **more}))
        for path in ("/peek", "/receive?timeout=0", "/peers"):
            line.ask(f"GET {path}{bearer}".encode())
        for path, last in (("/ack", {"seq": 1}), ("/leave", {})):
            line.ask(post(path, {"token": token, **last}))
        line.sock.close()

    def _break_one(self) -> None:
        talker = self._chance.choice(self._talkers)
        self._selector.unregister(talker.agent.line.sock)
        talker.reconnect()
        self._selector.register(talker.agent.line.sock, selectors.EVENT_READ, (talker, True))

    def _drain(self) -> None:
        """Receive what is under way."""
        while self.lost or any(talker.is_speaking for talker in self._talkers):
            if not self._listen(3.0):
                return


def measure_soak(program: Program, plan: Plan) -> dict[str, float]:
    """Growth of the hub's memory under mixed load, and an account of the messages."""
    with Server(program) as server:
        soak = Soak(server)
        with consoles_at(server.port, 2):
            grown_bytes = soak.run(plan.soak_s, plan.soak_s / 3)
    return {
        "soak_growth_mb": grown_bytes / 1e6,
        "soak_lost": soak.lost,
        "soak_twice": soak.twice,
        "soak_delivered": soak.delivered,
    }


def measure_parked(program: Program, plan: Plan) -> dict[str, float]:
    """Memory of each of POLLS parked polls, with its connection and its peer, and CPU while nothing happens."""
    with Server(program) as server:
        sender = Agent(server.port, "sender", 0)
        early = [Agent(server.port, f"early-{n}", n) for n in range(1, PEERS_PER_SOURCE)]
        broadcast(server, sender, next(sender.sayings("all")), early)
        before_bytes, polls_from = server.rss_bytes(), time.perf_counter()
        agents = []
        for number in range(POLLS):  # park each before the next comes: an idle connection is not what is measured
            agents.append(Agent(server.port, f"parked-{number}", PEERS_PER_SOURCE + number))
            agents[-1].poll()
        server.settle()
        memory_bytes = server.rss_bytes() - before_bytes
        cpu_s, watched_from = server.cpu_s(), time.perf_counter()
        time.sleep(plan.idle_s)
        busy = (server.cpu_s() - cpu_s) / (time.perf_counter() - watched_from)
        if time.perf_counter() - polls_from > POLL_S:
            raise BenchError("this machine is too slow: the first polls ended while the last were watched")
        broadcast_reaches_all(sender, agents)
    return {"poll_bytes": memory_bytes / POLLS, "idle_percent": busy * 100}


def broadcast_reaches_all(sender: Agent, agents: list[Agent]) -> None:
    """Make sure that the polls were parked all the time. Raises BenchError."""
    sender.line.ask(next(sender.sayings("all")))
    for agent in agents:
        while not agent.receive():
            pass


def measure_start(program: Program, plan: Plan) -> dict[str, float]:
    """Time from the start of the process to the first answer, of a watch to its first request."""
    once_s = HOW_TO_START[program.kind]
    return {"start_ms": statistics.median(once_s(program) for _ in range(plan.starts)) * 1000}


# --- The table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Goal:
    """At most `limit`: of the figure itself, or of its ratio to the other program's."""

    limit: float
    is_ratio: bool = True


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure of a program beside another's."""

    title: str
    metric: str
    ours: str = "hub"  # name of a program
    base: str = "asyncio"  # name of a program; may be empty
    goal: Goal | None = None
    base_metric: str = ""  # empty: the same

    @property
    def against(self) -> tuple[str, str]:
        """Give metric and program of the other figure."""
        return self.base_metric or self.metric, self.base


@dataclass(frozen=True)
class Measure:
    """Something to measure, and what of it is shown."""

    run: Callable[[Program, Plan], dict[str, float]]
    rows: tuple[Row, ...]
    every: int = 1  # taken in the first of so many rounds: what takes long, or hardly varies
    is_for_hubs: bool = False  # uses more of the API than the relays have

    def programs(self, known: dict[str, Program]) -> list[Program]:
        """List those that take part: what a row names and is there."""
        names = dict.fromkeys(name for row in self.rows for name in (row.ours, row.base))
        return [known[name] for name in names if name in known]


BROADCAST = {AUDIENCES[-1]: Goal(1.5)}
MEASURES = {
    "messages": Measure(
        measure_messages,
        (
            Row("CPU per 1,000 direct messages, ms", "message_cpu_ms", base="relay", goal=Goal(0.1)),
            Row("CPU per 1,000 direct messages, ms", "message_cpu_ms", goal=Goal(1.4)),
            Row("use of a core meanwhile, %", "message_busy_percent"),
        ),
    ),
    "pingpong": Measure(measure_pingpong, (Row("ping-pong, there and back, µs", "pingpong_us", goal=Goal(1.15)),)),
    "broadcast": Measure(
        measure_broadcast,
        (
            *(
                Row(f"broadcast, last of {n:,} has it, ms", f"broadcast_{n}_ms", goal=BROADCAST.get(n))
                for n in AUDIENCES
            ),
            Row(f"CPU of a broadcast to {AUDIENCES[-1]:,}, ms", f"broadcast_cpu_{AUDIENCES[-1]}_ms"),
            Row("wait of a bystander meanwhile, ms", "bystander_ms"),
        ),
    ),
    "instructions": Measure(
        measure_instructions,
        (Row("user instructions per message", "message_instructions", goal=Goal(200_000, is_ratio=False)),),
        every=99,
    ),
    "parked": Measure(
        measure_parked,
        (
            Row("memory per parked poll, bytes", "poll_bytes", goal=Goal(4000, is_ratio=False)),
            Row("CPU of 1,000 parked polls, %", "idle_percent", goal=Goal(0.1, is_ratio=False)),
        ),
        every=4,
    ),
    "consoles": Measure(
        measure_consoles,
        (
            Row(
                f"CPU per 1,000 messages, {CONSOLES} consoles open, ms",
                "watched_cpu_ms",
                base="hub",
                base_metric="alone_cpu_ms",
                goal=Goal(1.15),
            ),
        ),
        is_for_hubs=True,
    ),
    "journal": Measure(
        measure_journal,
        (
            Row("CPU per 1,000 messages with a journal, ms", "kept_message_cpu_ms", "journal", "hub", Goal(1.35)),
            Row("ping-pong with a journal, µs", "kept_pingpong_us", "journal", "hub", Goal(1.25)),
            Row(
                f"CPU of a broadcast to {AUDIENCES[-1]:,} with a journal, ms",
                f"kept_broadcast_cpu_{AUDIENCES[-1]}_ms",
                "journal",
                "hub",
                Goal(1.1),
            ),
        ),
        is_for_hubs=True,
    ),
    "record": Measure(
        measure_record,
        (
            *(
                Row(f"the past, {title}, ms", f"record_{key}_ms", "journal", "", Goal(limit, is_ratio=False))
                for key, title, limit in (
                    ("page", "newest 50", 5),
                    ("old_page", "50 from the middle", 5),
                    ("channel_page", "50 of a channel", 5),
                    ("search", "a search for price_cents", 20),
                    ("needle", "a search for one message", 20),
                    ("chinese", "a search in Chinese", 20),
                )
            ),
            Row("wait of a bystander meanwhile, p99, ms", "record_wait_ms", "journal", "journal",
                Goal(10, is_ratio=False), "record_calm_ms"),
            Row("CPU of its index, in a thread, per message, µs", "record_index_us", "journal", ""),
            Row("size of its index, per message, bytes", "record_index_bytes", "journal", ""),
        ),
        every=99,
        is_for_hubs=True,
    ),
    "growth": Measure(
        measure_growth,
        (
            *(
                Row(f"{what} at {CROWD:,} peers, µs", f"{key}_{CROWD}_us", "hub", "hub", Goal(1.2), f"{key}_100_us")
                for what, key in (("CPU of a registration", "register"), ("CPU of a direct message", "send"))
            ),
            Row(
                f"a console opens at {CROWD:,} peers, ms",
                f"open_{CROWD}_ms",
                base="hub",
                base_metric="open_100_ms",
                goal=Goal(100, is_ratio=False),
            ),
        ),
        is_for_hubs=True,
    ),
    "soak": Measure(
        measure_soak,
        (
            Row("soak: growth of memory, MB", "soak_growth_mb", base="", goal=Goal(1.0, is_ratio=False)),
            Row("soak: messages lost", "soak_lost", base="", goal=Goal(0, is_ratio=False)),
            Row("soak: messages that came twice", "soak_twice", base="", goal=Goal(0, is_ratio=False)),
            Row("soak: messages delivered", "soak_delivered", base=""),
        ),
        every=99,
        is_for_hubs=True,
    ),
    "start": Measure(
        measure_start,
        (
            Row("first answer of the hub, caucus.pyz, ms", "start_ms", "hub.pyz", "pass", Goal(150, is_ratio=False)),
            Row("first answer of the hub, caucus.pyz, ms", "start_ms", "hub.pyz", "relay.zip", Goal(1.25)),
            Row("first request of watch, caucus.pyz, ms", "start_ms", "watch.pyz", "pass", Goal(60, is_ratio=False)),
            Row(
                "first answer of the bridge, caucus.pyz, ms", "start_ms", "bridge.pyz", "pass", Goal(75, is_ratio=False)
            ),
        ),
    ),
}


NAMES = {"relay": "Tornado relay", "relay.zip": "Tornado relay", "asyncio": "asyncio relay", "hub": "itself, without",
         "pass": "`python3 -c pass`"}  # fmt: skip


HUB_WORDS = ("hub", "--port", "{port}", "--no-browser")


def hub_of_checkout() -> Program:
    """Give the hub of caucus.py, as a module: Python then compiles it once, not at each start."""
    run = "import caucus, sys; sys.exit(caucus.main())"
    return Program("hub", "hub", (sys.executable, "-c", run, *HUB_WORDS), python_path=str(ROOT))


def programs(*, use_pyz: bool = False, calibrate: bool = False, is_plain: bool = False) -> dict[str, Program]:
    """List what can be started; the .pyz only if it is built."""
    python, pyz = sys.executable, ROOT / "caucus.pyz"
    scripts = {"relay": ROOT / "tests" / "relay.py", "asyncio": ROOT / "tests" / "relay_asyncio.py"}
    known = {name: Program(name, "relay", (python, str(file), "--port", "{port}")) for name, file in scripts.items()}
    if calibrate:
        return {**known, "hub": replace(known["asyncio"], name="hub")}
    known["pass"] = Program("pass", "script", (python, "-c", "pass"))
    if pyz.exists():  # its Tornado, from the zip as the hub has it
        known["relay.zip"] = replace(known["relay"], name="relay.zip", python_path=str(pyz))
        to_hub, token = ("--hub", f"http://{HOST}:{{port}}"), ("--token", "t" * 32)
        known["watch.pyz"] = Program("watch.pyz", "watch", (python, str(pyz), "watch", *to_hub, *token))
        known["bridge.pyz"] = Program("bridge.pyz", "bridge", (python, str(pyz), "bridge", *to_hub))
        known["hub.pyz"] = Program("hub.pyz", "hub", (python, str(pyz), *HUB_WORDS))
    hub = known.get("hub.pyz") if use_pyz else hub_of_checkout()
    if hub is not None:
        known["hub"] = replace(hub, name="hub", command=(*hub.command, *(("--plain-http",) if is_plain else ())))
        known["journal"] = replace(known["hub"], name="journal", command=(*hub.command, "--journal", "{journal}"))
    return known


@dataclass
class Samples:
    """What was measured."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))  # (metric, program)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)  # (measure, program): why it has no more values


def take(names: list[str], known: dict[str, Program], plan: Plan) -> Samples:
    """Run the rounds."""
    samples = Samples()
    for turn in range(plan.rounds):
        for name in names:
            measure = MEASURES[name]
            if turn % measure.every:
                continue
            for program in measure.programs(known)[:: -1 if turn % 2 else 1]:
                if (name, program.name) not in samples.failures:
                    take_one(samples, name, program, plan)
                    say_progress(f"round {turn + 1} of {plan.rounds}: {name} {program.name}", samples)
    return samples


def take_one(samples: Samples, name: str, program: Program, plan: Plan) -> None:
    """Let `program` have its turn; a failure ends its part in this measure."""
    try:
        for metric, value in MEASURES[name].run(program, plan).items():
            samples.values[metric, program.name].append(value)
    except (BenchError, OSError) as error:
        samples.failures[name, program.name] = str(error) or type(error).__name__


def say_progress(text: str, samples: Samples) -> None:
    """Show on a terminal what is going on."""
    if sys.stderr.isatty():
        failed = f" ({len(samples.failures)} failed)" if samples.failures else ""
        print(f"\r{text}{failed}\x1b[K", end="", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Result:
    """A row with its figures. Those that could not be measured are NaN."""

    row: Row
    ours: float
    base: float
    ratios: tuple[float, ...]  # one a round
    trouble: str  # why there is no figure; may be empty

    @property
    def ratio(self) -> float:
        """Give the median of the rounds."""
        return statistics.median(self.ratios) if self.ratios else math.nan

    @property
    def verdict(self) -> str:
        """Hold the figure against the goal: ok, MISSED or empty where there is none."""
        if self.row.goal is None:
            return ""
        figure = self.ratio if self.row.goal.is_ratio else self.ours
        return "ok" if figure <= self.row.goal.limit else "MISSED"


def results(names: list[str], known: dict[str, Program], samples: Samples, *, goals: bool) -> Iterator[Result]:
    """Make a result of each row of the measures `names`, with or without its goal."""
    for name in names:
        for row in MEASURES[name].rows:
            row = row if goals else replace(row, goal=None)
            if row.ours not in known and row.goal is None:
                continue
            ours, base = samples.values[row.metric, row.ours], samples.values[row.against]
            failures = {who: samples.failures.get((name, who)) for who in (row.ours, row.base)}
            troubles = [f"{who}: {text}" for who, text in failures.items() if text]
            if row.ours not in known:
                troubles.append(f"{row.ours} is not there (python3 build_zipapp.py makes caucus.pyz)")
            elif any(map(math.isnan, ours)):
                troubles.append("CPU and memory of a process are read on Linux only")
            yield Result(
                row,
                statistics.median(ours) if ours else math.nan,
                statistics.median(base) if base else math.nan,
                tuple(one / other for one, other in zip(ours, base, strict=False) if other > 0),  # not NaN either
                "; ".join(troubles),
            )


def wanted(row: Row) -> str:
    """Word the goal of a row; empty where there is none."""
    if row.goal is None:
        return ""
    return f"ratio <= {row.goal.limit}" if row.goal.is_ratio else f"<= {row.goal.limit:,}"


def other_of(row: Row) -> str:
    """Name what a row's figure is held against."""
    return f"{row.base}, {row.base_metric}" if row.base_metric else row.base or "-"


def figure(value: float) -> str:
    """Write a figure with three digits or more."""
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(found: list[Result]) -> str:
    """Lay out the results for a reader."""
    width = max(len(result.row.title) for result in found)
    lines = [f"{'':{width}}  {'ours':>8} {'base':>8}  {'ratio':>5}  {'of rounds':>11}  {'goal':13} {'':6}  base"]
    for result in found:
        ratios = result.ratios
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}" if ratios else ""
        cells = f"{figure(result.ours):>8} {figure(result.base):>8}  {figure(result.ratio):>5}  {spread:>11}"
        goal = f"{wanted(result.row):13} {result.verdict:6}"
        lines.append(f"{result.row.title:{width}}  {cells}  {goal}  {other_of(result.row)}")
        if result.trouble:
            lines.append(f"{'':{width}}  ! {result.trouble}")
    return "\n".join(lines)


def markdown(found: list[Result]) -> str:
    """Lay out the results as docs/performance.md shows them."""
    lines = ["| | Hub | Beside | | Ratio | Goal | |", "|---|---:|---|---:|---:|---|---|"]
    for result in found:
        ratio = "" if math.isnan(result.ratio) else figure(result.ratio)
        base = "" if math.isnan(result.base) else figure(result.base)
        cells = (result.row.title, figure(result.ours), NAMES.get(result.row.base, ""), base, ratio)
        lines.append(f"| {' | '.join(cells)} | {wanted(result.row)} | {result.verdict} |".replace("  ", " "))
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}"
    return "\n".join([*lines, "", f"({machine}; medians of the rounds)"])


def report(found: list[Result], samples: Samples, plan: Plan) -> dict[str, Any]:
    """Give everything that was measured, for a program to read."""

    def number(value: float) -> float | None:
        return None if math.isnan(value) else round(value, 4)

    rows = [
        {
            "title": result.row.title,
            "metric": result.row.metric,
            "program": result.row.ours,
            "base_metric": result.row.against[0],
            "base_program": result.row.base,
            "ours": number(result.ours),
            "base": number(result.base),
            "ratio": number(result.ratio),
            "goal": result.row.goal and {"limit": result.row.goal.limit, "of_ratio": result.row.goal.is_ratio},
            "verdict": result.verdict,
            "trouble": result.trouble,
            "samples": list(map(number, samples.values[result.row.metric, result.row.ours])),
            "base_samples": list(map(number, samples.values[result.row.against])),
        }
        for result in found
    ]
    machine = {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
    return {"machine": machine, "rounds": plan.rounds, "rows": rows}


def options() -> argparse.Namespace:
    """Read the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=formatter)
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"default {FULL.rounds}, with --quick {QUICK.rounds}")
    parser.add_argument("--only", action="append", choices=[*MEASURES, *ATTACKS], metavar="NAME",
                        help=f"{', '.join(MEASURES)}; with --attack: {', '.join(ATTACKS)}")
    parser.add_argument("--attack", action="store_true", help="the attacks of tests/attacks.py in their long form")
    parser.add_argument("--hub", metavar="FILE", help="with --attack: attack this caucus.py or caucus.pyz")
    parser.add_argument("--pyz", action="store_true", help="load the hub in caucus.pyz, not the one in caucus.py")
    parser.add_argument("--plain-http", action="store_true", help="load a hub that has no express lane")
    parser.add_argument("--calibrate", action="store_true", help="hold the asyncio relay against itself")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON, not the table")
    form.add_argument("--markdown", action="store_true", help="print the table as docs/performance.md shows it")
    chosen = parser.parse_args()
    if chosen.hub and not chosen.attack:
        parser.error("--hub goes with --attack")
    if strange := set(chosen.only or ()) - set(ATTACKS if chosen.attack else MEASURES):
        parser.error(f"--only: {min(strange)} is {'no attack' if chosen.attack else 'an attack: add --attack'}")
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error("--rounds must be at least 1")
    return chosen


def attack_all(chosen: argparse.Namespace) -> int:
    """Attack a hub in every way, one after the other, each time a fresh one; return 1 if a goal is missed."""
    program = hub_of_checkout()
    if chosen.pyz or chosen.hub:
        path = Path(chosen.hub or ROOT / "caucus.pyz").resolve()
        program = replace(program, command=(sys.executable, str(path), *program.command[3:]), python_path="")
    if chosen.plain_http:
        program = replace(program, command=(*program.command, "--plain-http"))
    rows: list[dict[str, Any]] = []
    for name in chosen.only or ATTACKS:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{name}", end="", file=sys.stderr, flush=True)
        with Server(program) as server:
            server.settle()
            try:
                felt = asdict(attacked(name, server.port, server.pid, ATTACK_SCALE, ATTACK_S))
            except AssertionError as error:
                felt = {"failure": str(error)}
        is_met = "failure" not in felt and felt["peak_mb"] <= ATTACK_MAX_MB and felt["p99_ms"] <= ATTACK_MAX_MS
        rows.append({"attack": name, **felt, "verdict": "ok" if is_met else "MISSED"})
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if chosen.json:
        print(json.dumps(rows, indent=1))
    else:
        print("| attack | memory before, MB | highest, MB | bystander p50, ms | p99, ms | worst, ms | |")
        print("|---|---:|---:|---:|---:|---:|---|")
        for row in rows:
            keys = ("calm_mb", "peak_mb", "p50_ms", "p99_ms", "worst_ms")
            has_failed = "failure" in row
            figures = f"{row['failure']} | | | |" if has_failed else " | ".join(figure(row[key]) for key in keys)
            print(f"| {row['attack']} | {figures} | {row['verdict']} |")
    return int(any(row["verdict"] == "MISSED" for row in rows))


def allow_many_sockets() -> None:
    """Raise the limit of open files, often 1,024, as far as the system lets us; servers inherit it."""
    with suppress(ImportError):  # Windows has no such limit
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> int:
    """Measure and print; return 1 if a goal is missed."""
    chosen = options()
    allow_many_sockets()
    if chosen.attack:
        return attack_all(chosen)
    plan = QUICK if chosen.quick else FULL
    if chosen.rounds:
        plan = replace(plan, rounds=chosen.rounds)
    names = list(dict.fromkeys(chosen.only or MEASURES))
    if chosen.calibrate:
        names = [name for name in names if not MEASURES[name].is_for_hubs]
    known = programs(use_pyz=chosen.pyz, calibrate=chosen.calibrate, is_plain=chosen.plain_http)
    samples = take(names, known, plan)
    found = list(results(names, known, samples, goals=not chosen.calibrate))
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if chosen.json:
        print(json.dumps(report(found, samples, plan), indent=1))
    else:
        print(markdown(found) if chosen.markdown else table(found))
    return int(any(result.verdict == "MISSED" for result in found))


if __name__ == "__main__":
    sys.exit(main())
