"""Measure the hub beside the smallest relay that can be written on Tornado (tests/relay.py).

Not part of the test run. Both run on this machine in the same rounds, one after the other and in alternating order,
under the same load, which comes from this process over keep-alive sockets. Figures are medians over the rounds;
a ratio is the median of the rounds' own ratios, so that a machine which slows down between rounds does not spoil it,
with the lowest and the highest round beside it. Trust a difference only when it is larger than that range.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import re
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal

EXAMPLES = """\
examples:
  python3 tests/bench.py                         everything; about five minutes
  python3 tests/bench.py --quick                 a first impression; under a minute
  python3 tests/bench.py --only messages --rounds 9
  python3 tests/bench.py --pyz --json > out.json the hub from caucus.pyz; all samples as JSON
  python3 tests/bench.py --calibrate             a second relay in the hub's place: how far 1.00 wanders here

Run it with a Python that has tornado. Exit codes: 0 all goals met, 1 a goal missed or not measured, 2 bad option.
"""

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
PORTS = range(20_000, 32_000)  # below Linux's ephemeral ports, else a client that waits for a server may meet itself
ON_LINUX = platform.system() == "Linux"  # elsewhere neither CPU nor memory of another process is read, see Server

PAIRS = 50
AUDIENCES = (10, 100, 500)  # parked receivers of one broadcast
POLLS = 1000  # parked at once
CONTENT = "x" * 200
POLL_S = 25  # what a client asks for; the hub holds no longer
ANSWER_TIMEOUT_S = 40.0  # longer than a poll: silence beyond it is a failure
PEERS_PER_SOURCE = 20  # the hub's burst of registrations from one address

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
SEQ = re.compile(rb'"seq": ?(\d+)')
RATE_EVENT = re.compile(rb'"type": ?"rate"')


class BenchError(Exception):
    """A measurement that cannot be made, in words for the reader of the table."""


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    rounds: int
    messages: int  # measured per round and server, besides the warm-up
    broadcasts: int  # per audience, round and server
    idle_s: float  # how long the parked polls are watched
    parked_rounds: int  # at most; memory hardly varies and each takes 15 s
    starts: int  # per round and program


FULL = Plan(rounds=9, messages=3000, broadcasts=25, idle_s=10.0, parked_rounds=2, starts=2)
QUICK = Plan(rounds=3, messages=1500, broadcasts=11, idle_s=3.0, parked_rounds=1, starts=1)


# --- Agents: the load -------------------------------------------------------------------------------------------------


class Line:
    """One keep-alive connection to a server."""

    __slots__ = ("_buffer", "sock")

    def __init__(self, port: int, source: str = HOST) -> None:
        self.sock = socket.create_connection((HOST, port), ANSWER_TIMEOUT_S, (source, 0))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def read(self) -> bytes | None:
        """Read once; return the body if an answer is complete. Raises BenchError unless its status is 200."""
        chunk = self.sock.recv(65_536)
        if not chunk:
            raise BenchError("the server hung up")
        self._buffer += chunk
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

    def ask(self, request: bytes) -> bytes:
        """Send `request` and wait for the body of its answer."""
        self.sock.sendall(request)
        while (body := self.read()) is None:
            pass
        return body


def post(path: str, body: dict[str, Any]) -> bytes:
    """Word a POST as our own clients do."""
    data = json.dumps(body)
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nAccept: */*\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n{data}".encode()


def source_of(number: int) -> str:
    """Choose the address from which agent `number` comes: a burst of registrations is allowed to each."""
    high, low = divmod(number // PEERS_PER_SOURCE, 250)
    return f"127.0.{high + 1}.{low + 1}" if ON_LINUX else HOST  # only Linux owns all of 127/8 without being told


class Agent:
    """A registered peer on a connection of its own."""

    __slots__ = ("_poll_from", "_poll_to", "_seq", "line", "name", "token")

    def __init__(self, port: int, name: str, number: int) -> None:
        self.name = name
        self.line = Line(port, source_of(number))
        answer = self.line.ask(post("/register", {"project": name, "protocol_version": 999}))
        self.token = str(json.loads(answer)["token"])
        self._seq = b"0"  # the latest received: the next poll acknowledges it
        self._poll_from = f"GET /receive?timeout={POLL_S}&ack_seq=".encode()
        head = f"Host: {HOST}\r\nAccept: */*\r\nAuthorization: Bearer {self.token}\r\n\r\n"
        self._poll_to = f"&lease=lease-of-{name} HTTP/1.1\r\n{head}".encode()

    def saying(self, to: str) -> bytes:
        """Word the request that sends CONTENT to `to`."""
        return post("/send", {"token": self.token, "to": to, "content": CONTENT})

    def poll(self) -> None:
        """Ask for messages, acknowledging the last; `receive` takes the answer."""
        self.line.sock.sendall(self._poll_from + self._seq + self._poll_to)

    def receive(self) -> bool:
        """Read once; say if that completed an answer. Raises BenchError on one without a message."""
        body = self.line.read()
        if body is None:
            return False
        seqs = SEQ.findall(body)
        if not seqs:
            raise BenchError(f"a poll ended without a message: {body[:200]!r}")
        self._seq = seqs[-1]
        return True


class Pair:
    """An agent that speaks, one that listens, and the message between them."""

    __slots__ = ("_request", "due", "listener", "speaker")

    def __init__(self, port: int, number: int) -> None:
        self.speaker = Agent(port, f"speaker-{number}", 2 * number)
        self.listener = Agent(port, f"listener-{number}", 2 * number + 1)
        self._request = self.speaker.saying(self.listener.name)
        self.due = 0  # answers: the poll's and the send's

    def begin(self) -> None:
        """Park the poll, then send."""
        self.due = 2
        self.listener.poll()
        self.speaker.line.sock.sendall(self._request)


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


def broadcast(server: Server, sender: Agent, receivers: list[Agent]) -> float:
    """Park `receivers`, send to all, and return the seconds until the last of them has the message."""
    for receiver in receivers:
        receiver.poll()
    server.settle()
    waiting = len(receivers)
    with watching((receiver.line, receiver) for receiver in receivers) as ready:
        started = time.perf_counter()
        sender.line.sock.sendall(sender.saying("all"))
        while waiting:
            waiting -= sum(receiver.receive() for receiver in ready())
        took_s = time.perf_counter() - started
    while sender.line.read() is None:
        pass
    return took_s


# --- Servers and other programs ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Program:
    """Something that can be started: a column of the table."""

    name: str
    kind: Literal["hub", "relay", "watch", "script"]
    command: tuple[str, ...]  # {port} stands for the port that it is given

    def start(self, port: int, output: IO[bytes] | int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Start it without the variables that would change how Caucus behaves."""
        command = [word.replace("{port}", str(port)) for word in self.command]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CAUCUS_")}
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=clean)


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
        deadline = time.perf_counter() + ANSWER_TIMEOUT_S
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


def lift_rate(port: int) -> None:
    """Tell the hub, as its operator, to let everybody speak as fast as they can."""
    handshake = f"GET /ui HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    handshake += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    command = b'{"set_rate":{"refill_rate":1e6,"capacity":1e6}}'
    with socket.create_connection((HOST, port), ANSWER_TIMEOUT_S) as console:
        console.sendall(handshake.encode())
        console.sendall(bytes((0x81, 0x80 | len(command), 0, 0, 0, 0)) + command)  # a text frame, masked with zeros
        said = b""
        while not RATE_EVENT.search(said):
            chunk = console.recv(65_536)
            if not chunk:
                raise BenchError(f"the hub's console refuses set_rate: {said[-200:]!r}")
            said += chunk


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


def server_start_s(program: Program) -> float:
    """Return the seconds from the start of a hub or relay to its first answer."""
    with Server(program) as server:
        return server.start_s


def script_s(program: Program) -> float:
    """Return the seconds that a program takes from start to end."""
    started = time.perf_counter()
    program.start(0).wait()
    return time.perf_counter() - started


HOW_TO_START = {"hub": server_start_s, "relay": server_start_s, "watch": watch_start_s, "script": script_s}


# --- Measures: each returns what one round of one program gives, by metric --------------------------------------------


def measure_messages(program: Program, plan: Plan) -> dict[str, float]:
    """CPU of the server per 1,000 direct messages: each one POST /send, one GET /receive."""
    with Server(program) as server:
        pairs = [Pair(server.port, number) for number in range(PAIRS)]
        exchange(pairs, max(PAIRS, plan.messages // 10))
        before_s = server.cpu_s()
        exchange(pairs, plan.messages)
        return {"message_cpu_ms": (server.cpu_s() - before_s) / plan.messages * 1e6}


def measure_broadcast(program: Program, plan: Plan) -> dict[str, float]:
    """Time until the last of so many parked receivers has a broadcast."""
    metrics: dict[str, float] = {}
    with Server(program) as server:
        sender, receivers = Agent(server.port, "sender", 0), list[Agent]()
        for size in AUDIENCES:
            receivers += [Agent(server.port, f"receiver-{n}", n) for n in range(len(receivers) + 1, size + 1)]
            broadcast(server, sender, receivers)  # not counted: warms up
            times_s = [broadcast(server, sender, receivers) for _ in range(plan.broadcasts)]
            metrics[f"broadcast_{size}_ms"] = statistics.median(times_s) * 1000
    return metrics


def measure_parked(program: Program, plan: Plan) -> dict[str, float]:
    """Memory of each of POLLS parked polls, with its connection and its peer, and CPU while nothing happens."""
    with Server(program) as server:
        sender = Agent(server.port, "sender", 0)
        broadcast(server, sender, [Agent(server.port, f"early-{n}", n) for n in range(1, PEERS_PER_SOURCE)])
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
    sender.line.ask(sender.saying("all"))
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
    base: str = "relay"
    goal: Goal | None = None


@dataclass(frozen=True)
class Measure:
    """Something to measure, and what of it is shown."""

    run: Callable[[Program, Plan], dict[str, float]]
    rows: tuple[Row, ...]
    is_slow: bool = False  # held to plan.parked_rounds

    def programs(self, known: dict[str, Program]) -> list[Program]:
        """List those that take part: what a row names and is there."""
        names = dict.fromkeys(name for row in self.rows for name in (row.ours, row.base))
        return [known[name] for name in names if name in known]


MEASURES = {
    "messages": Measure(
        measure_messages, (Row("CPU per 1,000 direct messages, ms", "message_cpu_ms", goal=Goal(1.3)),)
    ),
    "broadcast": Measure(
        measure_broadcast,
        tuple(Row(f"broadcast, last of {n} has it, ms", f"broadcast_{n}_ms", goal=Goal(1.3)) for n in AUDIENCES),
    ),
    "parked": Measure(
        measure_parked,
        (
            Row("memory per parked poll, bytes", "poll_bytes", goal=Goal(8000, is_ratio=False)),
            Row("CPU of 1,000 parked polls, %", "idle_percent", goal=Goal(0.3, is_ratio=False)),
        ),
        is_slow=True,
    ),
    "start": Measure(
        measure_start,
        (
            Row("first answer of the hub, caucus.py, ms", "start_ms", "hub.py"),
            Row("first answer of the hub, caucus.pyz, ms", "start_ms", "hub.pyz", goal=Goal(2.0)),
            Row("first request of watch, caucus.py, ms", "start_ms", "watch.py", "pass"),
            Row("first request of watch, caucus.pyz, ms", "start_ms", "watch.pyz", "pass"),
        ),
    ),
}


def programs(*, use_pyz: bool, calibrate: bool) -> dict[str, Program]:
    """List what can be started; the .pyz only if it is built."""
    python, files = sys.executable, {"py": ROOT / "caucus.py", "pyz": ROOT / "caucus.pyz"}
    relay = Program("relay", "relay", (python, str(ROOT / "tests" / "relay.py"), "--port", "{port}"))
    if calibrate:
        return {"relay": relay, "hub": replace(relay, name="hub")}
    known = {"relay": relay, "pass": Program("pass", "script", (python, "-c", "pass"))}
    for kind, file in files.items():
        if file.exists():
            hub = (python, str(file), "hub", "--port", "{port}", "--no-browser")
            watch = (python, str(file), "watch", "--hub", f"http://{HOST}:{{port}}", "--token", "t" * 32)
            known[f"hub.{kind}"] = Program(f"hub.{kind}", "hub", hub)
            known[f"watch.{kind}"] = Program(f"watch.{kind}", "watch", watch)
    if (chosen := known.get("hub.pyz" if use_pyz else "hub.py")) is not None:
        known["hub"] = replace(chosen, name="hub")
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
            if measure.is_slow and turn >= plan.parked_rounds:
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
            ours, base = samples.values[row.metric, row.ours], samples.values[row.metric, row.base]
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


def figure(value: float) -> str:
    """Write a figure with three digits or more."""
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(found: list[Result]) -> str:
    """Lay out the results for a reader."""
    width = max(len(result.row.title) for result in found)
    lines = [f"{'':{width}}  {'ours':>8} {'base':>8}  {'ratio':>5}  {'of rounds':>11}  goal"]
    for result in found:
        goal, ratios = result.row.goal, result.ratios
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}" if ratios else ""
        wanted = (f"ratio <= {goal.limit}" if goal.is_ratio else f"<= {goal.limit:,}") if goal else ""
        cells = f"{figure(result.ours):>8} {figure(result.base):>8}  {figure(result.ratio):>5}  {spread:>11}"
        lines.append(f"{result.row.title:{width}}  {cells}  {wanted:12} {result.verdict}".rstrip())
        if result.trouble:
            lines.append(f"{'':{width}}  ! {result.trouble}")
    return "\n".join(lines)


def report(found: list[Result], samples: Samples, plan: Plan) -> dict[str, Any]:
    """Give everything that was measured, for a program to read."""

    def number(value: float) -> float | None:
        return None if math.isnan(value) else round(value, 4)

    rows = [
        {
            "title": result.row.title,
            "metric": result.row.metric,
            "program": result.row.ours,
            "base_program": result.row.base,
            "ours": number(result.ours),
            "base": number(result.base),
            "ratio": number(result.ratio),
            "goal": result.row.goal and {"limit": result.row.goal.limit, "of_ratio": result.row.goal.is_ratio},
            "verdict": result.verdict,
            "trouble": result.trouble,
            "samples": list(map(number, samples.values[result.row.metric, result.row.ours])),
            "base_samples": list(map(number, samples.values[result.row.metric, result.row.base])),
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
    parser.add_argument("--only", action="append", choices=MEASURES, metavar="NAME", help=", ".join(MEASURES))
    parser.add_argument("--pyz", action="store_true", help="load the hub in caucus.pyz, not the one in caucus.py")
    parser.add_argument("--calibrate", action="store_true", help="hold the relay against itself")
    parser.add_argument("--json", action="store_true", help="print JSON, not the table")
    chosen = parser.parse_args()
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error("--rounds must be at least 1")
    return chosen


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
    plan = QUICK if chosen.quick else FULL
    if chosen.rounds:
        plan = replace(plan, rounds=chosen.rounds)
    names = list(dict.fromkeys(chosen.only or MEASURES))
    known = programs(use_pyz=chosen.pyz, calibrate=chosen.calibrate)
    samples = take(names, known, plan)
    found = list(results(names, known, samples, goals=not chosen.calibrate))
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    print(json.dumps(report(found, samples, plan), indent=1) if chosen.json else table(found))
    return int(any(result.verdict == "MISSED" for result in found))


if __name__ == "__main__":
    sys.exit(main())
