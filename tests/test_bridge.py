"""The bridge as hosts start it: a process on two pipes, before a real hub, a stub, or none."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import shlex
import signal
import socket
import socketserver
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nursery
import pytest
from hubs import DEADLINE_S, ROOT, START, HubProcess, eventually, running_hub
from wires import LOOPBACK, Ended, Tap, newcomer, read_request, stub_hub, unnumbered

import caucus

BRIDGE = (sys.executable, "-W", "error", START, "bridge")
_serials = itertools.count(1)
NOT_WINDOWS = pytest.mark.skipif(sys.platform == "win32", reason="signals and file modes of POSIX")


def environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give ours, without what a developer may have set for Caucus."""
    return {**{key: value for key, value in os.environ.items() if not key.startswith("CAUCUS_")}, **(env or {})}


class BridgeProcess:
    """One bridge and the host at its pipes; its temporary files are in `folder`."""

    def __init__(
        self,
        url: str,
        folder: Path,
        *flags: str,
        env: Mapping[str, str] | None = None,
        is_read: bool = True,
        command: tuple[str, ...] = BRIDGE,
    ) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # until the end
        self.folder = folder
        self.process = nursery.start(
            [*command, "--hub", url, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=folder,
            env=environment({"TMPDIR": str(folder), **(env or {})}),
        )
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._early: dict[Any, Any] = {}  # answers that came while another one was waited for
        self._last_id = 0
        self._reader = threading.Thread(target=self._read_all, daemon=True)
        if is_read:
            self.begin_to_read()

    def begin_to_read(self) -> None:
        """Read stdout from now on."""
        self._reader.start()

    def _read_all(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def send(self, *messages: Any) -> None:
        """Write lines in one go: bytes as they are, anything else as JSON."""
        assert self.process.stdin is not None
        lines = (one if isinstance(one, bytes) else json.dumps(one).encode() for one in messages)
        self.process.stdin.write(b"".join(line + b"\n" for line in lines))
        self.process.stdin.flush()

    def read(self, deadline_s: float = DEADLINE_S) -> Any:
        """Give the next frame; None: stdout is closed."""
        try:
            line = self._lines.get(timeout=deadline_s)
        except queue.Empty:
            raise AssertionError(f"no frame came; stderr: {self.log()}") from None
        frame = json.loads(line) if line else None
        assert frame is None or isinstance(frame, list) or frame["jsonrpc"] == "2.0", line
        return frame

    def request(self, method: str, **params: Any) -> dict[str, Any]:
        """Word a request with an id of its own."""
        self._last_id += 1
        return {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params}

    def tool(self, name: str, /, **arguments: Any) -> dict[str, Any]:
        """Word a tool call."""
        return self.request("tools/call", name=name, arguments=arguments)

    def answer(self, asked: dict[str, Any]) -> Any:
        """Wait for the answer to a request; those to others are kept."""
        while asked["id"] not in self._early:
            frame = self.read()
            assert frame is not None, f"stdout closed; stderr: {self.log()}"
            if "method" not in frame:
                self._early[frame["id"]] = frame
        return self._early.pop(asked["id"])

    def ask(self, method: str, **params: Any) -> Any:
        """Send a request and give its result."""
        asked = self.request(method, **params)
        self.send(asked)
        return self.answer(asked)["result"]

    def initialize(self, revision: str, client: str = "tests") -> Any:
        """Make the handshake's first half."""
        host = {"name": client, "version": "1"}
        return self.ask("initialize", protocolVersion=revision, capabilities={}, clientInfo=host)

    def call(self, name: str, /, **arguments: Any) -> Any:
        """Call a tool and give what a model reads: an object where there is one, or else the text."""
        asked = self.tool(name, **arguments)
        self.send(asked)
        return outcome(self.answer(asked))

    def join(self, name: str) -> dict[str, Any]:
        """Call setup and join; wait where the hub says so, for all bridges here have one address."""
        self.call("setup")

        def joined() -> Any:
            answer = self.call("join", project=name)
            assert answer.get("error") in (None, "rate_limited"), answer
            return answer if "error" not in answer else None

        found: dict[str, Any] = eventually(joined, f"{name} in the room")
        return found

    def cancel(self, asked: dict[str, Any]) -> None:
        """Tell the bridge that nobody waits for an answer any more."""
        params = {"requestId": asked["id"]}
        self.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})

    def token_files(self) -> list[Path]:
        """List the private files of tokens."""
        return list(self.folder.glob("*.token"))

    def log(self) -> str:
        """Give stderr so far."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode()

    def rest(self) -> list[Any]:
        """Give all frames that still come, until stdout closes."""
        return [*self._early.values(), *iter(self.read, None)]

    def close(self) -> None:
        """Close its stdin, as a host does that ends."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def end(self, *signals: signal.Signals, deadline_s: float = DEADLINE_S) -> Ended:
        """End it, by closing stdin unless signals are given; a bridge that crashed fails the test."""
        for number in signals:
            self.process.send_signal(number)
        if not signals:
            self.close()
        return self.ended(deadline_s)

    def ended(self, deadline_s: float = DEADLINE_S) -> Ended:
        """Wait for its end."""
        try:
            code = self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the bridge did not end; stderr: {self.log()}") from None
        ended = Ended(code, "", self.log())
        assert "Traceback" not in ended.err, ended.err
        return ended

    def tidy(self) -> None:
        """Leave nothing behind, whatever the test did."""
        self.close()
        if self.process.poll() is None:
            try:
                self.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self._reader.ident is not None:
            self._reader.join(DEADLINE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()


def outcome(answer: Any) -> Any:
    """Read a tool's answer as a model does."""
    text = answer["result"]["content"][0]["text"]
    return json.loads(text) if text.startswith("{") and "\n" not in text else text


@contextlib.contextmanager
def bridge_at(url: str, folder: Path, *flags: str, **more: Any) -> Iterator[BridgeProcess]:
    """Run a bridge until the block ends."""
    bridge = BridgeProcess(url, folder, *flags, **more)
    try:
        yield bridge
    finally:
        bridge.tidy()


@pytest.fixture(scope="module")
def hub() -> Iterator[HubProcess]:
    """Run one hub for the tests that leave it as it was."""
    with running_hub() as hub:
        yield hub


@pytest.fixture
def bridge(hub: HubProcess, tmp_path: Path) -> Iterator[BridgeProcess]:
    """Run a bridge that has asked for nothing yet."""
    with bridge_at(hub.url, tmp_path) as bridge:
        yield bridge


@pytest.fixture
def name() -> str:
    """Give a name that no other test joins under."""
    return f"api-{next(_serials)}"


def names(hub: HubProcess) -> list[str]:
    """List who is in the room."""
    return list(hub.get("/peers").body["peers"])


# --- before join ---


def test_nothing_reaches_the_hub_before_a_tool_is_called(tmp_path: Path) -> None:
    with stub_hub(lambda path, body: (500, b"{}")) as stub, bridge_at(stub.url, tmp_path) as bridge:
        bridge.initialize("2025-06-18")
        bridge.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        bridge.ask("tools/list")
        bridge.ask("prompts/list")
        bridge.call("whoami")
        assert bridge.end().code == 0
        assert stub.asked == []


def test_a_bridge_that_never_joined_was_never_in_the_room(hub: HubProcess, bridge: BridgeProcess) -> None:
    before = names(hub)
    bridge.call("setup")
    assert names(hub) == before
    assert bridge.token_files() == []


def test_without_a_hub_each_tool_names_the_command_that_starts_one_on_that_port(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as closed:
        port = closed.getsockname()[1]
    with bridge_at(f"http://{LOOPBACK}:{port}", tmp_path) as bridge:
        refused = bridge.call("setup")
        assert refused["error"] == "hub_unreachable"
        argv = shlex.split(refused["hint"].partition(": ")[2])
        assert argv[-3:] == ["hub", "--port", str(port)]
        with contextlib.closing(HubOf(argv)) as started:
            assert started.port == port
            assert "Next: join()" in bridge.call("setup")


class HubOf:
    """A hub started by the command that a hint names."""

    def __init__(self, argv: list[str]) -> None:
        self._process = subprocess.Popen(
            [*argv, "--no-browser"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment()
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline().rpartition(":")[2].split()[0].strip("/"))

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.communicate(timeout=DEADLINE_S)


# --- garbage ---


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"hello", -32700),
        (b"[" * 100_000, -32700),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "\xff"}', -32700),
        (b"9" * 10_000, -32700),
        (b"x" * (caucus.LINE_MAX_BYTES + 10), -32600),
        (b"x" * (2 * caucus.LINE_MAX_BYTES - 1), -32600),
        (b"[]", -32600),
        (b"7", -32600),
        (b'{"id": 1, "method": "ping"}', -32600),
    ],
    ids=["words", "nested", "no-utf-8", "long-number", "long-line", "two-lines", "batch", "number", "no-version"],
)
def test_a_line_that_is_no_message_gets_its_error_and_the_bridge_goes_on(
    bridge: BridgeProcess, line: bytes, code: int
) -> None:
    bridge.send(line)
    assert bridge.read()["error"]["code"] == code
    assert bridge.ask("ping") == {}


def test_blank_lines_and_notifications_and_answers_get_no_answer(bridge: BridgeProcess) -> None:
    bridge.send(b"", b"  ", b"\r", {"jsonrpc": "2.0", "method": "x"}, {"jsonrpc": "2.0", "id": 5, "result": {}})
    assert bridge.ask("ping") == {}


def test_requests_written_before_the_end_are_all_answered(hub: HubProcess, tmp_path: Path) -> None:
    with bridge_at(hub.url, tmp_path, is_read=False) as bridge:
        asked = [bridge.tool("setup"), bridge.tool("whoami"), bridge.tool("list_peers")]
        asked += [bridge.request("tools/list") for _ in range(400)]  # far more than a pipe holds
        bridge.send(*asked)
        bridge.close()
        bridge.begin_to_read()
        assert sorted(frame["id"] for frame in bridge.rest()) == [one["id"] for one in asked]
        assert bridge.ended().code == 0


# --- the end ---


@NOT_WINDOWS
@pytest.mark.parametrize("signals", [[], ["SIGTERM"], ["SIGINT"], ["SIGHUP"]], ids=str)
@pytest.mark.parametrize("is_listening", [False, True], ids=["idle", "in mid-listen"])
def test_at_its_end_a_bridge_leaves_the_room_and_no_file(
    hub: HubProcess, bridge: BridgeProcess, name: str, signals: list[str], is_listening: bool
) -> None:
    bridge.join(name)
    assert len(bridge.token_files()) == 1
    assert name in names(hub)
    if is_listening:
        bridge.send(bridge.tool("listen", timeout=25))
        eventually(lambda: hub.is_listening(name), "the listen")
    assert bridge.end(*(signal.Signals[one] for one in signals), deadline_s=3.0).code == 0
    assert name not in names(hub)
    assert bridge.token_files() == []


STUB_ANSWERS: dict[str, dict[str, Any]] = {
    "/protocol": {"text": "the rules", "version": 25},
    "/register": {"token": "t", "project": "api", "protocol_version": 25, "channels": []},
}


@NOT_WINDOWS
@pytest.mark.parametrize("first", ["stdin closes", "SIGTERM", "SIGINT"])
def test_a_signal_that_comes_while_the_bridge_leaves_changes_nothing(tmp_path: Path, first: str) -> None:
    leaving, go = threading.Event(), threading.Event()

    def script(path: str, body: bytes) -> tuple[int, bytes]:
        if path == "/leave":
            leaving.set()
            go.wait(DEADLINE_S)
        return 200, json.dumps(STUB_ANSWERS.get(path.partition("?")[0], {})).encode()

    with stub_hub(script) as stub, bridge_at(stub.url, tmp_path) as bridge:
        bridge.join("api")
        assert len(bridge.token_files()) == 1
        if first == "stdin closes":
            bridge.close()
        else:
            bridge.process.send_signal(signal.Signals[first])
        assert leaving.wait(DEADLINE_S)
        bridge.process.send_signal(signal.SIGTERM)
        go.set()
        assert bridge.ended().code == 0
        assert bridge.token_files() == []


def test_a_hub_that_hangs_does_not_keep_a_bridge_alive(tmp_path: Path) -> None:
    hanging = threading.Event()

    def script(path: str, body: bytes) -> tuple[int, bytes] | None:
        if path == "/leave":
            hanging.wait(DEADLINE_S)
            return None
        return 200, json.dumps(STUB_ANSWERS.get(path.partition("?")[0], {})).encode()

    with stub_hub(script) as stub, bridge_at(stub.url, tmp_path) as bridge:
        bridge.join("api")
        assert bridge.end(deadline_s=4.0).code == 0
        hanging.set()
        assert bridge.token_files() == []


# --- the seat: restarts and kicks ---


def test_after_a_hub_restart_the_next_call_joins_again_says_so_and_its_watch_works(tmp_path: Path) -> None:
    with contextlib.ExitStack() as end:
        with running_hub() as old:
            bridge = end.enter_context(bridge_at(old.url, tmp_path))
            bridge.join("api")
        with running_hub("--port", str(old.port)) as new:
            told = bridge.call("set_status", status="back")
            assert "you have joined again" in told["note"]
            assert names(new) == ["api"]
            new.say(new.register("web"), "api", "hello")
            assert shell(told["watch"]) == (0, "[caucus] msg web -> api: hello\n")
            assert "note" not in bridge.call("set_status", status="working")
            assert bridge.end().code == 0
            assert names(new) == ["web"]


def test_after_a_hub_restart_a_bridge_that_is_not_called_joins_again_and_its_watch_goes_on(tmp_path: Path) -> None:
    with contextlib.ExitStack() as end:
        with running_hub() as old:
            bridge = end.enter_context(bridge_at(old.url, tmp_path))
            watch = bridge.join("api")["watch"]
            ended: list[tuple[int, str]] = []
            watching = threading.Thread(target=lambda: ended.append(shell(watch)))
            watching.start()
            eventually(lambda: old.is_listening("api"), "the watch listening, whose first poll no hub will answer")
        with running_hub("--port", str(old.port)) as new:
            eventually(lambda: names(new) == ["api"], "the bridge coming back by itself")
            eventually(lambda: new.is_listening("api"), "its watch coming back")
            new.say(new.register("web"), "api", "hello")
            watching.join(DEADLINE_S)
            assert ended == [(0, "[caucus] msg web -> api: hello\n")]
            told = bridge.call("list_peers")
            assert (told["you"], "you have joined again" in told["note"]) == ("api", True)


def test_a_bridge_that_lost_its_seat_says_so_wherever_it_tells_who_it_is(
    hub: HubProcess, bridge: BridgeProcess, name: str
) -> None:
    bridge.join(name)
    with hub.console() as console:
        console.send(kick=name)
        eventually(lambda: name not in names(hub), "the kick")
    assert bridge.call("list_peers")["you"] is None
    assert bridge.call("whoami")["joined"] is False


def test_two_checkouts_of_one_name_are_told_apart_by_their_branches(hub: HubProcess, tmp_path: Path) -> None:
    with contextlib.ExitStack() as end:
        told = []
        for place, branch in (("a", "main"), ("b", "feature/pay"), ("c", "feature/pay")):
            folder = tmp_path / place / "till"
            (folder / ".git").mkdir(parents=True)
            (folder / ".git" / "HEAD").write_text(f"ref: refs/heads/{branch}\n")
            bridge = end.enter_context(bridge_at(hub.url, folder))
            told.append(bridge.join(""))
        assert [one["project"] for one in told] == ["till", "till@feature-pay", "till-2"]
        notes = [None, "till is taken: you are till@feature-pay", "till is taken: you are till-2"]
        assert [one.get("note") for one in told] == notes
        assert bridge.call("leave")["left"]
        assert bridge.call("join", project="till")["free"] == ["till@feature-pay", "till-2", "till-3", "till-4"]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        *(("shop", "shop"), ("human", "human-agent"), ("a -> b", "a---b"), ("x" * 80, "x" * 58), ("é ü", "é ü")),
        ("[caucus]", None),
    ],
)
def test_a_folder_that_is_no_name_for_a_peer_gives_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, name: str | None
) -> None:
    (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / folder)
    given = caucus.folder_name()
    assert caucus.peer_name_of({"name": given}, "name") == given
    assert name in (given, None)


@pytest.mark.parametrize(
    ("head", "branch"),
    [("ref: refs/heads/fix\n", "fix"), ("0a1b2c3d\n", ""), (None, ""), (b"\xff\xfe", "")],
    ids=["branch", "detached", "none", "garbage"],
)
def test_the_branch_of_a_worktree_is_read_where_its_own_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: Any, branch: str
) -> None:
    own = tmp_path / "main" / ".git" / "worktrees" / "fix"
    own.mkdir(parents=True)
    if head is not None:
        (own / "HEAD").write_bytes(head if isinstance(head, bytes) else head.encode())
    inside = tmp_path / "fix" / "src"
    inside.mkdir(parents=True)
    (tmp_path / "fix" / ".git").write_text("gitdir: ../main/.git/worktrees/fix\n")
    monkeypatch.chdir(inside)
    assert (caucus.folder_name(), caucus.branch_name()) == ("fix", branch)


def test_while_the_hub_is_away_calls_say_so_and_the_seat_is_kept(tmp_path: Path) -> None:
    with contextlib.ExitStack() as end:
        with running_hub() as old:
            bridge = end.enter_context(bridge_at(old.url, tmp_path))
            bridge.join("api")
        assert bridge.call("say", content="anybody?")["error"] == "hub_unreachable"
        assert bridge.call("whoami")["project"] == "api"
        assert bridge.end().code == 0
        assert bridge.token_files() == []


def test_a_kick_ends_the_session_and_the_name_stays_free(hub: HubProcess, bridge: BridgeProcess, name: str) -> None:
    bridge.join(name)
    with hub.console() as console:
        console.send(kick=name)
        eventually(lambda: name not in names(hub), "the kick")
    refused = bridge.call("say", content="still here?")
    assert (refused["error"], refused["joined_as"]) == ("session_expired", name)
    assert bridge.call("say", content="and now?")["error"] == "not_joined"
    assert name not in names(hub)
    assert bridge.token_files() == []


def test_a_kick_while_listening_ends_the_listen(hub: HubProcess, bridge: BridgeProcess, name: str) -> None:
    bridge.join(name)
    asked = bridge.tool("listen", timeout=25)
    bridge.send(asked)
    eventually(lambda: hub.is_listening(name), "the listen")
    with hub.console() as console:
        console.send(kick=name)
        assert outcome(bridge.answer(asked))["error"] == "session_expired"
    assert name not in names(hub)


# --- the watch command ---


def shell(command: str) -> tuple[int, str]:
    """Run a command as an agent does; give its exit code and what it printed."""
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=DEADLINE_S, env=environment(), check=False
    )
    return done.returncode, unnumbered(done.stdout)


@NOT_WINDOWS
@pytest.mark.parametrize("source", ["join", "watch_command"])
def test_the_watch_command_runs_as_given_in_sh_and_wakes_its_agent(
    hub: HubProcess, bridge: BridgeProcess, name: str, source: str
) -> None:
    joined = bridge.join(name)
    command = joined["watch"] if source == "join" else bridge.call("watch_command")["command"]
    sender, token = newcomer(hub)
    hub.say(token, name, "hello, it's me")
    assert shell(command) == (0, f"[caucus] msg {sender} -> {name}: hello, it's me\n")


@NOT_WINDOWS
def test_the_token_is_in_a_private_file_and_not_in_the_command(bridge: BridgeProcess, name: str) -> None:
    command = bridge.join(name)["watch"]
    (file,) = bridge.token_files()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert str(file) in command
    assert file.read_text().strip() not in command


def test_the_tokens_file_goes_with_leave(bridge: BridgeProcess, name: str) -> None:
    bridge.join(name)
    assert bridge.call("leave")["left"] is True
    assert bridge.token_files() == []


# --- calls at the same time ---


def test_a_listen_that_waits_holds_up_no_other_call(hub: HubProcess, bridge: BridgeProcess, name: str) -> None:
    bridge.join(name)
    asked = bridge.tool("listen", timeout=25)
    bridge.send(asked)
    eventually(lambda: hub.is_listening(name), "the listen")
    assert bridge.call("set_status", status="busy").get("error") is None
    assert hub.is_listening(name)
    hub.say(newcomer(hub)[1], name, "wake up")
    assert "wake up" in outcome(bridge.answer(asked))


def test_pipelined_says_arrive_in_their_order(hub: HubProcess, bridge: BridgeProcess, name: str) -> None:
    reader, token = newcomer(hub)
    bridge.join(name)
    asked = [bridge.tool("say", to=reader, content=str(n)) for n in range(8)]
    bridge.send(*asked)
    for one in asked:
        assert "error" not in outcome(bridge.answer(one))
    assert [m["content"] for m in hub.receive(token)["messages"]] == [str(n) for n in range(8)]


def test_a_cancelled_listen_answers_nothing_and_loses_no_message(
    hub: HubProcess, bridge: BridgeProcess, name: str
) -> None:
    bridge.join(name)
    asked = bridge.tool("listen", timeout=25)
    bridge.send(asked)
    eventually(lambda: hub.is_listening(name), "the listen")
    bridge.cancel(asked)
    eventually(lambda: not hub.is_listening(name), "the end of the listen")
    hub.say(newcomer(hub)[1], name, "not lost")
    assert "not lost" in bridge.call("listen", timeout=5)
    bridge.close()
    assert bridge.rest() == []


def test_a_listen_cancelled_after_its_answer_is_shown_again(hub: HubProcess, bridge: BridgeProcess, name: str) -> None:
    bridge.join(name)
    asked = bridge.tool("listen", timeout=5)
    hub.say(newcomer(hub)[1], name, "not lost")
    bridge.send(asked)
    assert "not lost" in outcome(bridge.answer(asked))
    bridge.cancel(asked)
    assert "not lost" in bridge.call("listen", timeout=5)
    assert bridge.call("listen", timeout=0)["messages"] == 0


def test_a_host_that_cancels_whatever_was_answered_is_shown_nothing_twice(
    hub: HubProcess, bridge: BridgeProcess, name: str
) -> None:
    bridge.join(name)
    for words in ("one", "two"):
        done = bridge.tool("whoami")
        bridge.send(done)
        bridge.answer(done)
        bridge.cancel(done)  # as OpenCode does after each call
        asked = bridge.tool("listen", timeout=5)
        hub.say(newcomer(hub)[1], name, words)
        bridge.send(asked)
        assert '"messages": 1,' in outcome(bridge.answer(asked))
        bridge.cancel(asked)
    assert bridge.call("listen", timeout=0)["messages"] == 0
    waits = bridge.tool("listen", timeout=25)
    bridge.send(waits)
    eventually(lambda: hub.is_listening(name), "the listen")
    bridge.cancel(waits)  # one that is not answered yet is still let go
    eventually(lambda: not hub.is_listening(name), "the end of the listen")


def test_many_calls_share_one_connection(hub: HubProcess, tmp_path: Path) -> None:
    with relay(hub.port) as (url, accepted), bridge_at(url, tmp_path) as bridge:
        bridge.call("setup")
        for _ in range(20):
            assert "error" not in bridge.call("list_peers")
        assert len(accepted) == 1


@contextlib.contextmanager
def relay(port: int) -> Iterator[tuple[str, list[Any]]]:
    """Stand before a hub, and keep who connects."""
    accepted: list[Any] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            accepted.append(self.client_address)
            with socket.create_connection((LOOPBACK, port), timeout=DEADLINE_S) as hub:
                while (request := read_request(self.request)) is not None:
                    hub.sendall(b"\r\n\r\n".join(request))
                    answer = read_request(hub)
                    assert answer is not None
                    self.request.sendall(b"\r\n\r\n".join(answer))

    with socketserver.ThreadingTCPServer((LOOPBACK, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        server.daemon_threads = True
        try:
            yield f"http://{LOOPBACK}:{server.server_address[1]}", accepted
        finally:
            server.shutdown()
            thread.join()


# --- batches ---


def test_a_batch_under_2025_03_26_is_answered_as_one(bridge: BridgeProcess) -> None:
    bridge.initialize("2025-03-26")
    ping, whoami = bridge.request("ping"), bridge.tool("whoami")
    bridge.send([ping, {"jsonrpc": "2.0", "method": "notifications/x"}, whoami, 7])
    frame = bridge.read()
    assert [one.get("id") for one in frame] == [ping["id"], whoami["id"], None]


@pytest.mark.parametrize("revision", ["2024-11-05", "2025-06-18", "2025-11-25"])
def test_a_batch_under_another_revision_is_refused(bridge: BridgeProcess, revision: str) -> None:
    bridge.initialize(revision)
    bridge.send([bridge.request("ping")])
    assert bridge.read()["error"]["code"] == -32600


# --- the pipes ---


def test_a_host_that_never_reads_holds_up_neither_its_calls_nor_the_end(
    hub: HubProcess, tmp_path: Path, name: str
) -> None:
    reader, token = newcomer(hub)
    with bridge_at(hub.url, tmp_path, is_read=False) as bridge:
        bridge.send(*[bridge.request("tools/list") for _ in range(40)])  # more than any pipe holds
        bridge.send(bridge.tool("setup"), bridge.tool("join", project=name))
        bridge.send(bridge.tool("say", to=reader, content="nobody reads me here"))
        assert hub.receive(token, timeout=5)["messages"][0]["content"] == "nobody reads me here"
        assert bridge.end(deadline_s=4.0).code == 0
        assert name not in names(hub)


def test_a_host_that_leaves_too_much_unread_is_given_up(hub: HubProcess, tmp_path: Path) -> None:
    with bridge_at(hub.url, tmp_path, is_read=False) as bridge:
        line = json.dumps(bridge.request("tools/list")).encode()
        with contextlib.suppress(BrokenPipeError):  # it ended before it had read all of them
            bridge.send(*[line] * 4000)
        ended = bridge.ended()
        assert (ended.code, ended.err.count("\n")) == (3, 1)
        assert "the host does not read" in ended.err


def test_a_host_that_closes_its_reading_end_ends_the_bridge(hub: HubProcess, tmp_path: Path, name: str) -> None:
    with bridge_at(hub.url, tmp_path, is_read=False) as bridge:
        bridge.send(bridge.tool("setup"), bridge.tool("join", project=name))
        eventually(lambda: name in names(hub), "the join")
        assert bridge.process.stdout is not None
        bridge.process.stdout.close()
        bridge.send(bridge.request("ping"))
        assert bridge.ended().code == 0
        assert name not in names(hub)


PRINTING = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
import caucus
kept = caucus.Seat.whoami
async def whoami(seat):
    print("a stray print", flush=True)
    os.write(1, b"a stray write\\n")
    os.system("echo a stray child")
    return await kept(seat)
caucus.Seat.whoami = whoami
sys.exit(caucus.main())
"""


def test_whatever_prints_prints_to_stderr(hub: HubProcess, tmp_path: Path) -> None:
    command = (sys.executable, "-W", "error", "-c", PRINTING, "bridge")
    with bridge_at(hub.url, tmp_path, command=command) as bridge:
        assert bridge.call("whoami")["joined"] is False
        bridge.close()
        assert bridge.rest() == []
        assert sorted(bridge.ended().err.splitlines()) == ["a stray child", "a stray print", "a stray write"]


# --- the command line ---


def run(*flags: str, env: Mapping[str, str] | None = None, redirect: str = "") -> Ended:
    """Run a bridge to its end, with an empty stdin."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirect}', "sh", *BRIDGE, *flags] if redirect else [*BRIDGE, *flags],
        input="", capture_output=True, text=True, timeout=DEADLINE_S, env=environment(env), check=False,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


@NOT_WINDOWS
@pytest.mark.parametrize(("redirect", "which"), [("<&-", "stdin"), (">&-", "stdout")])
def test_a_closed_pipe_at_start_is_refused_in_one_line(redirect: str, which: str) -> None:
    ended = run(redirect=redirect)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert which in ended.err


@pytest.mark.parametrize(
    "url", ["ftp://localhost", "8765", "http://127.0.0.1:99999", "http://192.0.2.1:8765", "http://"]
)
def test_a_hub_that_is_no_url_or_far_and_in_the_clear_is_refused_in_one_line(url: str) -> None:
    ended = run("--hub", url)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "--hub" in ended.err


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "line\n", "ключ"])
def test_an_agent_key_that_no_header_can_carry_is_refused_in_one_line(key: str) -> None:
    ended = run(env={"CAUCUS_AGENT_KEY": key})
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "CAUCUS_AGENT_KEY" in ended.err


def test_help_names_the_options() -> None:
    ended = run("--help")
    assert (ended.code, ended.err) == (0, "")
    assert all(option in ended.out for option in ("--hub", "--project", "--print-config", "--version"))


def test_version_is_the_programs() -> None:
    ended = run("--version")
    assert (ended.code, ended.err) == (0, "")
    assert caucus.__version__ in ended.out


@pytest.mark.parametrize(
    ("flags", "env", "wanted"),
    [
        (("--project", "web"), {}, "web"),
        ((), {"CAUCUS_PROJECT": "tests"}, "tests"),
        (("--project", "web"), {"CAUCUS_PROJECT": "tests"}, "web"),
        ((), {}, "shop"),
    ],
    ids=["--project", "CAUCUS_PROJECT", "both", "neither"],
)
def test_the_name_is_the_options_then_the_environments_then_the_repositorys(
    tmp_path: Path, flags: tuple[str, ...], env: dict[str, str], wanted: str
) -> None:
    inside = tmp_path / "shop" / "src" / "deep"
    inside.mkdir(parents=True)
    (tmp_path / "shop" / ".git").write_text("gitdir: elsewhere")  # a worktree's; in the first clone it is a folder
    with bridge_at(caucus.DEFAULT_URL, inside, *flags, env=env) as bridge:
        assert bridge.call("whoami")["default_project"] == wanted
        assert bridge.end().code == 0


# --- what has become of a message ---


def contents(hub: HubProcess, token: str) -> list[str]:
    """Take what waits for a peer."""
    return [m["content"] for m in hub.receive(token)["messages"]]


def settled(hub: HubProcess, token: str) -> bool:
    """Whether a peer has asked nothing that has no answer yet."""
    return hub.get("/peek", token).body["asked"] == []


def test_what_was_said_is_in_the_room_once_though_its_answer_was_lost(
    hub: HubProcess, tmp_path: Path, name: str
) -> None:
    tap, (_, web) = Tap(), newcomer(hub, "web")
    with tap.swallowing(hub.port) as url, bridge_at(url, tmp_path) as bridge:
        bridge.join(name)
        answer = bridge.call("say", content="once", to="all")
        assert answer["repeated"] is True
    assert tap.said() == 2
    assert contents(hub, web).count("once") == 1


def test_what_is_said_again_by_the_model_is_in_the_room_once(hub: HubProcess, tmp_path: Path, name: str) -> None:
    tap, (_, web) = Tap(), newcomer(hub, "web")
    with tap.swallowing(hub.port, caucus.LOST_MAX + 1) as url, bridge_at(url, tmp_path) as bridge:
        bridge.join(name)
        assert bridge.call("say", content="once", to="all")["error"] == "hub_unreachable"
        again = bridge.call("say", content="once", to="all")
        assert again.get("repeated") is True, again
        assert "repeated" not in bridge.call("say", content="once", to="all")
    assert contents(hub, web).count("once") == 2


def test_two_bridges_ask_and_answer(hub: HubProcess, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    with bridge_at(hub.url, folders[0]) as asker, bridge_at(hub.url, folders[1]) as asked:
        one, two = (f"{role}-{next(_serials)}" for role in ("asker", "asked"))
        asker.join(one)
        asked.join(two)
        seq = asker.call("say", content="when is it due?", to=two, expects_answer=True)["seq"]
        assert [debt["seq"] for debt in asker.call("whoami")["asked"]] == [seq]
        shown = asked.call("listen", timeout=5)
        about = next(json.loads(line[: line.rindex("}") + 1]) for line in shown.splitlines() if '"sender"' in line)
        assert (about["seq"], about["expects_answer"]) == (seq, True)
        assert f"you owe {one} an answer to {seq}, asked " in shown
        assert [debt["seq"] for debt in asked.call("whoami")["owes"]] == [seq]
        answer = asked.call("say", content="on Monday", reply_to=seq)
        assert answer["delivered_to"] == [one]
        shown = asker.call("listen", timeout=5)
        assert f'"reply_to": {seq}, "quote": "when is it due?"' in shown
        assert not {*asker.call("whoami"), *asked.call("whoami")} & {"owes", "asked"}


@pytest.mark.parametrize("way", ["declines", "settles"])
def test_a_question_ends_without_an_answer(hub: HubProcess, bridge: BridgeProcess, name: str, way: str) -> None:
    web_name, web = newcomer(hub, "web")
    bridge.join(name)
    if way == "settles":
        seq = bridge.call("say", content="when?", to=web_name, expects_answer=True)["seq"]
        assert bridge.call("say", content="found it", settles=seq)["delivered_to"] == [web_name]
        assert "asked" not in bridge.call("whoami")
    else:
        seq = hub.post("/send", token=web, to=name, content="when?", expects_answer=True).body["seq"]
        bridge.call("listen", timeout=5)
        bridge.call("say", content="I cannot know", declines=seq)
        assert settled(hub, web)
        assert hub.receive(web)["messages"][-1]["outcome"] == "declined"


def test_an_answer_to_what_was_not_heard_is_refused_with_the_way_out(bridge: BridgeProcess, name: str) -> None:
    bridge.join(name)
    refused = bridge.call("say", content="yes", reply_to=2**40)
    assert (refused["error"], refused["hint"]) == ("unknown_message", caucus.HINTS["unknown_message"])


def test_the_senders_next_call_tells_of_a_failure(hub: HubProcess, bridge: BridgeProcess, name: str) -> None:
    web_name, web = newcomer(hub, "web")
    bridge.join(name)
    seq = bridge.call("say", content="hello", to=web_name)["seq"]
    hub.post("/leave", token=web)
    assert bridge.call("list_peers")["news"] == [f"{seq} was lost: {web_name} left"]
    assert "news" not in bridge.call("list_peers")


def test_what_a_listen_showed_is_proven_by_the_next_call_of_any_tool_and_not_by_the_hosts_death(
    hub: HubProcess, tmp_path: Path
) -> None:
    _, web = newcomer(hub, "web")
    state = lambda seq, name: hub.get("/receipt", web, seq=seq).body["who"][name]  # noqa: E731
    for ends_how in ("calls", "dies"):
        with bridge_at(hub.url, tmp_path) as bridge:
            name = f"api-{next(_serials)}"
            bridge.join(name)
            seq = hub.say(web, name, "hello")["seq"]
            assert state(seq, name) == "queued"
            bridge.call("listen", timeout=5)
            assert state(seq, name) == "fetched"
            if ends_how == "calls":
                bridge.call("floor_status")
                assert state(seq, name) == "acknowledged"
            else:
                assert bridge.end().code == 0
                assert state(seq, name) == "fetched"


def test_house_rules_come_with_setup_and_a_change_is_told_once(hub: HubProcess, tmp_path: Path, name: str) -> None:
    _, web = newcomer(hub, "web")
    with hub.console() as console, bridge_at(hub.url, tmp_path) as bridge:
        console.send(rules="Be brief.")
        version = console.next("rules")["version"]
        try:
            assert f"(version {version}), set by the operator\n\nBe brief." in bridge.call("setup")
            bridge.join(name)
            hub.say(web, name, "one")
            assert "the rules changed" not in bridge.call("listen", timeout=5)
            console.send(rules="Be kind.")
            console.next("rules")
            hub.say(web, name, "two")
            assert f"the rules changed to {version + 1}: read them" in bridge.call("listen", timeout=5)
            assert bridge.call("protocol_section", name="house-rules") == "Be kind."
            hub.say(web, name, "three")
            assert "the rules changed" not in bridge.call("listen", timeout=5)
        finally:
            console.send(rules="")
            console.next("rules")
