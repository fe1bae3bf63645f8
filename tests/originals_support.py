"""What test_originals.py stands on: a hub process, the originals' programs, a dashboard's socket, waits with deadlines.

The originals are black boxes: their programs run unchanged, each release in a venv of its own under .cache/originals.
CAUCUS_TEST_HUB=original puts their 5.1.0 hub in the place of ours, to check the tests themselves.
"""

import json
import os
import queue
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import nursery
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Origin

ROOT = Path(__file__).resolve().parent.parent
ORIGINALS = ROOT / ".cache" / "originals"
VERSIONS = ("1.3.0", "5.1.0")
ON_ORIGINAL = os.environ.get("CAUCUS_TEST_HUB") == "original"
DEADLINE_S = 15.0  # for what takes a fraction of a second on an idle machine
QUIET_S = 0.4  # how long a poll looks for a message that must not come; a repeat would be there at once
WELL_BEFORE_THE_POLL_ENDS_S = 8.0  # a watcher polls for 25 s: what ends it sooner was the hub's doing

Json = dict[str, Any]
T = TypeVar("T")


# -- waiting --------------------------------------------------------------------------------------------------------


def until(probe: Callable[[], T | None], what: str, within: float = DEADLINE_S) -> T:
    """Ask `probe` until it answers something true, and give that. Fails the test after `within` seconds."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if found := probe():
            return found
        time.sleep(0.03)  # between two looks: most ask the hub over a new connection
    pytest.fail(f"waited {within:g} s in vain for {what}")


def require_originals() -> None:
    """Skip the tests, loudly, where the originals are not installed; fail them in CI."""
    missing = [version for version in VERSIONS if not program(version, "caucus-watch").exists()]
    if not missing:
        return
    recipe = "; ".join(
        f'python3 -m venv .cache/originals/{v} && .cache/originals/{v}/bin/pip install "caucus-mcp=={v}" "mcp==1.30.*"'
        for v in missing
    )
    message = f"THE ORIGINALS' CLIENTS WERE NOT TESTED: {', '.join(missing)} missing. Make them: {recipe}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


# -- processes ------------------------------------------------------------------------------------------------------


def program(version: str, name: str) -> Path:
    """Where release `version` has its program `name`."""
    return ORIGINALS / version / "bin" / name


def command_of(version: str, name: str) -> list[str]:
    """The command that starts a program of release `version`, by its own Python."""
    return [str(program(version, "python")), str(program(version, name))]


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without anything that configures Caucus."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CAUCUS_", "PYTHON"))}
    return kept | {"CAUCUS_AUTOSTART": "0"} | extra


def hub_command(port: int, *flags: str) -> list[str]:
    """The command that serves a hub on `port`."""
    if ON_ORIGINAL:
        return [str(program("5.1.0", "caucus-hub")), "--port", str(port), "--no-browser", *flags]
    return [sys.executable, str(ROOT / "tests" / "start.py"), "hub", "--port", str(port), "--no-browser", *flags]


def free_port() -> int:
    """Find a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Reply(NamedTuple):
    """An answer of the hub."""

    status: int
    body: Any


class Hub:
    """A live hub in a process of its own, and plain HTTP to it."""

    def __init__(self, log: Path, *flags: str, port: int | None = None) -> None:
        self.port = port or (free_port() if ON_ORIGINAL else 0)  # 0: ours finds one and says which
        self.log = log
        self._log_begins = log.stat().st_size if log.exists() else 0
        with log.open("ab") as sink:
            self.process = nursery.start(
                hub_command(self.port, *flags), cwd=ROOT, stdout=sink, stderr=sink, env=environment()
            )
        try:
            until(self._answers, "the hub's first answer")
        except BaseException:
            self.kill()
            raise

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail(f"the hub ended with {self.process.returncode}:\n{self.log.read_text()[-2000:]}")
        if not self.port:
            said = re.search(rb"http://127\.0\.0\.1:(\d+)", self.log.read_bytes()[self._log_begins :])
            self.port = int(said[1]) if said else 0
            return bool(said)
        with suppress(OSError):
            return self.call("GET", "/version").status == 200
        return False

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if ON_ORIGINAL:  # waits up to 20 s for parked polls: section 16, 5
            self.kill()
        elif self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()
                pytest.fail("the hub did not end within 5 s of SIGTERM")
        text = self.log.read_text(errors="replace")
        if not ON_ORIGINAL and error is None:
            assert "Traceback" not in text, text[-4000:]

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def call(self, method: str, path: str, body: Json | None = None, *, bearer: str | None = None) -> Reply:
        """Make one request on a connection of its own."""
        headers = {"Content-Type": "application/json"}
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=40) as response:
                status, raw = response.status, response.read()
        except urllib.error.HTTPError as refused:
            with refused:
                status, raw = refused.code, refused.read()
        with suppress(ValueError):
            return Reply(status, json.loads(raw))
        return Reply(status, raw)

    def done(self, path: str, body: Json) -> Json:
        """POST what must succeed."""
        status, answer = self.call("POST", path, body)
        assert status == 200, (path, status, answer)
        assert isinstance(answer, dict)
        return answer

    def register(self, name: str) -> "Peer":
        """Take a seat at the table over plain HTTP."""
        return Peer(self, name, self.done("/register", {"project": name, "protocol_version": 1000})["token"])

    def ping(self, name: str) -> Json:
        """What the hub knows of `name`."""
        answer = self.call("GET", f"/ping?peer={name}").body
        assert isinstance(answer, dict)
        return answer

    def until_listening(self, name: str) -> None:
        """Wait until a poll of `name` is parked."""
        until(lambda: self.ping(name).get("listening"), f"a poll of {name}")

    def until_deaf(self, name: str) -> None:
        """Wait until no poll of `name` is parked."""
        until(lambda: not self.ping(name).get("listening"), f"the end of the poll of {name}")


class Peer:
    """A peer that speaks plain HTTP: the other side of what a test looks at."""

    def __init__(self, hub: Hub, name: str, token: str) -> None:
        self.hub = hub
        self.name = name
        self.token = token

    def say(self, to: str, content: str) -> Json:
        """Speak, which must succeed."""
        return self.hub.done("/send", {"token": self.token, "to": to, "content": content})

    def post(self, path: str, **body: Any) -> Json:
        """POST with this peer's token what must succeed."""
        return self.hub.done(path, {"token": self.token, **body})

    def receive(self, timeout: float = QUIET_S, **query: object) -> list[Json]:
        """Poll once, without acknowledging."""
        words = "".join(f"&{key}={value}" for key, value in query.items())
        status, answer = self.hub.call("GET", f"/receive?timeout={timeout}{words}", bearer=self.token)
        assert status == 200, (status, answer)
        messages = answer["messages"]
        assert isinstance(messages, list)
        return messages

    def contents(self, timeout: float = QUIET_S) -> list[str]:
        """Poll once for the contents only."""
        return [str(message["content"]) for message in self.receive(timeout)]


class Watch:
    """An original's caucus-watch."""

    def __init__(self, version: str, hub_url: str, *arguments: str, **env: str) -> None:
        command = [*command_of(version, "caucus-watch"), "--hub", hub_url, *arguments]
        self.process = nursery.start(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**env)
        )

    def finish(self, within: float = DEADLINE_S) -> tuple[int, str]:
        """Wait for its end: the exit code and all of stdout."""
        try:
            out, _ = self.process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the watcher still ran after {within:g} s")
        return self.process.returncode, out

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def close(self) -> str:
        """Kill it if it runs; give what it had printed."""
        self.process.kill()  # ends a stopped process as well; does nothing to an ended one
        if self.process.stdout is None or self.process.stdout.closed:
            return ""
        out, _ = self.process.communicate()
        return out


class Refused(Exception):
    """A bridge tool ended as an MCP error, or a connector's call raised."""

    def __init__(self, kind: str, text: str, status: int | None = None) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.status = status


class Lines:
    """A child that speaks JSON lines over stdin and stdout."""

    def __init__(self, command: list[str], cwd: Path, env: Mapping[str, str]) -> None:
        self._errors = (cwd / f"stderr-{time.monotonic_ns()}").open("w+b")
        self.process = nursery.start(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, cwd=cwd, env=dict(env)
        )
        self._arrived: queue.Queue[Json | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._arrived.put(json.loads(line))
        self._arrived.put(None)

    def put(self, message: Json) -> None:
        """Write one line."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def get(self, within: float) -> Json:
        """Give the next line."""
        try:
            line = self._arrived.get(timeout=within)
        except queue.Empty:
            pytest.fail(f"no answer within {within:g} s")
        if line is None:
            self._errors.seek(0)
            pytest.fail(f"the child ended:\n{self._errors.read().decode(errors='replace')[-3000:]}")
        return line

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(OSError):
            self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self._reader.join(DEADLINE_S)
        self.process.stdout.close()
        self._errors.close()


class Bridge(Lines):
    """An original's caucus-bridge, driven as an MCP host drives it."""

    def __init__(self, version: str, hub_url: str, project: str, cwd: Path, **env: str) -> None:
        self.version = version
        variables = environment(CAUCUS_HUB_URL=hub_url, CAUCUS_PROJECT=project, TMPDIR=str(cwd), **env)
        super().__init__(command_of(version, "caucus-bridge"), cwd, variables)
        self._last = 0
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}
        self.answer(self.ask("initialize", hello))
        self.put({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def ask(self, method: str, params: Json) -> int:
        """Send a request; give its id."""
        self._last += 1
        self.put({"jsonrpc": "2.0", "id": self._last, "method": method, "params": params})
        return self._last

    def answer(self, request: int) -> Json:
        """Wait for the result of `request`. Raises Refused."""
        while True:
            message = self.get(40.0)
            if message.get("id") == request:
                break
        if "error" in message:
            raise Refused("rpc", str(message["error"]))
        result = message["result"]
        assert isinstance(result, dict)
        return result

    def start(self, tool: str, /, **arguments: Any) -> int:
        """Call a tool without waiting for it."""
        return self.ask("tools/call", {"name": tool, "arguments": arguments})

    def result(self, request: int) -> Json:
        """Wait for a tool's result, and hold its two forms against each other. Raises Refused."""
        result = self.answer(request)
        if result.get("isError"):
            raise Refused("tool", result["content"][0]["text"])
        structured = result["structuredContent"]
        assert json.loads(result["content"][0]["text"]) == structured
        assert isinstance(structured, dict)
        return structured

    def tool(self, tool: str, /, **arguments: Any) -> Json:
        """Call a tool. Raises Refused."""
        return self.result(self.start(tool, **arguments))

    def join(self, **arguments: Any) -> Json:
        """Do all that this release does before it may speak."""
        if self.version == "1.3.0":
            assert self.tool("setup")["ready"] is True
        joined = self.tool("join", **arguments)
        assert joined.get("joined") is True, joined
        return joined

    def floor(self, action: str, **arguments: Any) -> Json:
        """The floor tools of both releases under one name."""
        if self.version == "5.1.0":
            return self.tool("floor", action=action, **arguments)
        names = {
            "take": "take_floor",
            "raise": "raise_hand",
            "pass": "pass_floor",
            "drop": "drop_floor",
            "status": "floor_status",
        }
        if action == "take":
            arguments.setdefault("reason", "")
        return self.tool(names[action], **arguments)


class Connector(Lines):
    """An original's HubConnector inside that release's venv; see originals_connector.py."""

    def __init__(self, version: str, hub_url: str, cwd: Path, **options: Any) -> None:
        script = str(ROOT / "tests" / "originals_connector.py")
        super().__init__([str(program(version, "python")), script, hub_url, json.dumps(options)], cwd, environment())
        self._started = 0

    def start(self, method: str, /, *arguments: Any, **options: Any) -> int:
        """Call a method without waiting for it."""
        self._started += 1
        self.put({"id": self._started, "call": method, "args": arguments, "kwargs": options})
        return self._started

    def result(self, request: int) -> Any:
        """Wait for what `request` returned. Raises Refused for what it raised."""
        answer = self.get(40.0)
        assert answer["id"] == request, "answers are read in the order of the calls"
        if "raised" in answer:
            raise Refused(answer["raised"], answer["text"], answer["status"])
        return answer["returned"]

    def call(self, method: str, /, *arguments: Any, **options: Any) -> Any:
        """Call a method of the connector. Raises Refused."""
        return self.result(self.start(method, *arguments, **options))


# -- the operator's side ----------------------------------------------------------------------------------------------


class Console:
    """The /ui socket, spoken as the originals' dashboards speak it."""

    def __init__(self, hub: Hub, *, origin: str | None = None) -> None:
        page = Origin(origin or hub.url)  # what the browser sends for a page that this hub served
        address = f"ws://127.0.0.1:{hub.port}/ui"
        self._open = ExitStack()
        self._socket = self._open.enter_context(connect(address, origin=page, max_size=None, open_timeout=DEADLINE_S))
        self.frames: list[Json] = []  # all that came, in order
        self.close_code: int | None = None
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while True:
                frame = json.loads(self._socket.recv())
                with self._news:
                    self.frames.append(frame)
                    self._news.notify_all()
        except ConnectionClosed as closed:
            with self._news:
                self.close_code = closed.rcvd.code if closed.rcvd else 1006
                self._news.notify_all()

    def send(self, frame: Any) -> None:
        """Send a command."""
        self._socket.send(json.dumps(frame))

    def send_raw(self, frame: str | bytes) -> None:
        """Send a frame as it is."""
        self._socket.send(frame)

    def mark(self) -> int:
        """Remember this moment, for `after`."""
        with self._news:
            return len(self.frames)

    def wait(
        self, kind: str, where: Callable[[Json], object] = bool, *, after: int = 0, within: float = DEADLINE_S
    ) -> Json:
        """Give the first frame of this type since `after` that `where` agrees to."""
        found: list[Json] = []

        def is_here() -> bool:
            found[:] = [f for f in self.frames[after:] if f["type"] == kind and where(f)]
            return bool(found) or self.close_code is not None

        with self._news:
            self._news.wait_for(is_here, within)
            if not found:
                seen = [f for f in self.frames[after:] if f["type"] != "health"]
                pytest.fail(f"no such {kind!r} frame (close code {self.close_code}); came: {json.dumps(seen)[:3000]}")
            return found[0]

    def notice(self, text: str, *, after: int = 0) -> Json:
        """Give the first message whose content contains `text`."""
        frame = self.wait("message", lambda f: text in f["message"]["content"], after=after)
        message = frame["message"]
        assert isinstance(message, dict)
        return message

    def closed(self) -> int:
        """Wait until the hub has closed it; give the code."""
        with self._news:
            assert self._news.wait_for(lambda: self.close_code is not None, DEADLINE_S), self.frames
            assert self.close_code is not None
            return self.close_code

    def close(self) -> None:
        """Hang up."""
        self._open.close()
        self._reader.join(DEADLINE_S)


# -- a tap on the line ------------------------------------------------------------------------------------------------


class Tap:
    """A TCP relay before the hub that remembers what the clients sent."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sent: list[bytearray] = []  # by connection
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # the listener was shut down
                return
            far = socket.create_connection(("127.0.0.1", self._port))
            record = bytearray()
            self._sent.append(record)
            self._sockets += [near, far]
            for source, sink, notes in ((near, far, record), (far, near, None)):
                thread = threading.Thread(target=self._relay, args=(source, sink, notes), daemon=True)
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _relay(source: socket.socket, sink: socket.socket, notes: bytearray | None) -> None:
        with suppress(OSError):  # either side hung up
            while data := source.recv(65536):
                if notes is not None:
                    notes += data
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def connections(self) -> list[str]:
        """What each connection has carried towards the hub."""
        return [bytes(record).decode() for record in self._sent]

    def requests(self) -> list[str]:
        """Every request line, connection by connection."""
        return re.findall(r"^((?:GET|POST) \S+) HTTP", "\n".join(self.connections()), re.MULTILINE)

    def close(self) -> None:
        """Cut every line."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(DEADLINE_S)
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(DEADLINE_S)
        for end in self._sockets:
            end.close()


# -- all of it --------------------------------------------------------------------------------------------------------


class Table(ExitStack):
    """Starts what a test asks for and ends it last to first, whatever happens: the clients before their hub."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def start_hub(self, *flags: str, port: int | None = None) -> Hub:
        """Start a hub."""
        return self.enter_context(Hub(self._folder / "hub.log", *flags, port=port))

    def watch(self, version: str, hub_url: str, *arguments: str, **env: str) -> Watch:
        """Start a watcher."""
        return self.enter_context(closing(Watch(version, hub_url, *arguments, **env)))

    def watch_peer(self, version: str, peer: Peer) -> Watch:
        """Start a watcher for a peer and wait until its poll is parked."""
        watcher = self.watch(version, peer.hub.url, f"--token={peer.token}")
        peer.hub.until_listening(peer.name)
        return watcher

    def bridge(self, version: str, hub: Hub, project: str, **env: str) -> Bridge:
        """Start a bridge."""
        return self.enter_context(closing(Bridge(version, hub.url, project, self._folder, **env)))

    def connector(self, version: str, hub: Hub, **options: Any) -> Connector:
        """Start a connector."""
        return self.enter_context(closing(Connector(version, hub.url, self._folder, **options)))

    def open_console(self, hub: Hub, *, origin: str | None = None) -> Console:
        """Open a dashboard's socket."""
        return self.enter_context(closing(Console(hub, origin=origin)))

    def operate(self, hub: Hub) -> Console:
        """Open the console of a hub without tokens, up to its snapshot."""
        console = self.open_console(hub)
        console.wait("snapshot")
        return console

    def tap(self, hub: Hub) -> Tap:
        """Put a tap before a hub."""
        return self.enter_context(closing(Tap(hub.port)))
