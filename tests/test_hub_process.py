"""The hub as a process and as a listener on TCP: how it starts, how it ends, and what bytes cannot do to it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nursery
import pytest
from hubs import DEADLINE_S, ROOT, START, HubProcess, eventually, running_hub
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from wires import LOOPBACK, Raw, RawAnswer, Script, call, newcomer, request_of, stub_hub

import caucus

SCRIPT = str(ROOT / "caucus.py")
HUB = (sys.executable, START, "hub", "--no-browser")
SECRETS = ("--operator-token", "o", "--agent-key", "k")
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith("CAUCUS_")}
FILES_NEEDED = 4096  # open at once, in the tests with the most connections


@pytest.fixture(scope="module")
def hub(road: tuple[str, ...]) -> Iterator[HubProcess]:
    """Give a hub where nobody is throttled."""
    with running_hub(*road) as hub:
        hub.unthrottle()
        yield hub


@pytest.fixture
def alice(hub: HubProcess) -> tuple[str, str]:
    """Give a peer that speaks: its name and token."""
    return newcomer(hub, "alice")


@pytest.fixture
def bob(hub: HubProcess) -> tuple[str, str]:
    """Give a peer that listens: its name and token."""
    return newcomer(hub, "bob")


def run(*argv: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself, without a traceback."""
    done = nursery.run(argv, cwd=ROOT, env={**CLEAN, **(env or {})})
    assert "Traceback" not in done.stderr, done.stderr
    return done


def unable(*flags: str) -> str:
    """Start a hub that cannot listen or write: exit 3; give the reason that it prints."""
    done = run(*HUB, *flags)
    assert (done.returncode, done.stdout) == (3, ""), done
    assert done.stderr.strip()
    return done.stderr


Refuse = Callable[..., str]


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Give what runs `caucus hub` in this process, which must refuse its options with exit 2; it gives the reason."""
    for name in [name for name in os.environ if name.startswith("CAUCUS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(caucus, "serve", lambda settings, on_start: pytest.fail(f"it would serve {settings}"))
    monkeypatch.setattr("logging.basicConfig", lambda **_: None)

    def refuse(*flags: str, env: dict[str, str] | None = None) -> str:
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        try:
            code = caucus.main(["hub", "--no-browser", *flags])
        except SystemExit as ended:  # argparse's way
            code = ended.code  # type: ignore[assignment]
        out, reason = capsys.readouterr()
        assert (code, out) == (2, "")
        assert reason.strip()
        return reason

    return refuse


def answered(raw: Raw, data: bytes) -> RawAnswer:
    """Send bytes; give the answer, which must come."""
    answer = raw.send(data).answer()
    assert answer is not None, f"no answer to {data[:200]!r}"
    return answer


# --- start ---


def test_the_first_line_says_version_and_address_and_nothing_follows() -> None:
    with running_hub() as hub:
        assert call(hub.port, "GET", "/version") == (200, {"version": caucus.__version__})
        hub.process.terminate()
        assert hub.process.stdout is not None
        assert hub.process.stdout.read() == ""


def test_the_first_line_is_there_before_anything_is_asked() -> None:
    process = subprocess.Popen([*HUB, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=CLEAN)
    assert process.stdout is not None
    try:
        line = process.stdout.readline().decode()
        assert re.fullmatch(rf"caucus {re.escape(caucus.__version__)}: .*http://127\.0\.0\.1:\d+.*\n", line), line
        port = int(re.findall(r":(\d{4,5})\b", line)[0])
        assert call(port, "GET", "/version")[0] == 200
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE_S)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "::1"])
def test_every_loopback_host_needs_no_secret(host: str) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no ::1")
    with subprocess.Popen(
        [*HUB, "--port", "0", "--host", host], stdout=subprocess.PIPE, text=True, env=CLEAN
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()
        assert process.wait(DEADLINE_S) == 0
    assert f"http://[{host}]:" in line if ":" in host else f"http://{host}:" in line


def has_ipv6() -> bool:
    """Whether ::1 can be bound here."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def addresses(*hosts: tuple[str, ...]) -> Callable[..., list[tuple[object, ...]]]:
    """Stand in for a resolver that gives these addresses for any name."""
    def getaddrinfo(_host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [
            (socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port, *rest))
            for host, *rest in hosts
        ]
    return getaddrinfo


def test_all_addresses_of_a_host_have_one_port_and_each_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", addresses(("127.0.0.1",), ("127.0.0.2",), ("127.0.0.1",)))
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(listener) for listener in caucus.listeners_at("both", 0)]
        assert [listener.getsockname()[0] for listener in listeners] == ["127.0.0.1", "127.0.0.2"]
        assert len({listener.getsockname()[1] for listener in listeners}) == 1
        assert not any(listener.getblocking() for listener in listeners)


@pytest.mark.parametrize("odd", [("fe80::1", 0, 7), ("100::1", 0, 0)], ids=["a link's own", "one that is not there"])
def test_localhost_does_without_an_address_that_cannot_be_had(
    odd: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", addresses(odd, ("127.0.0.1",)))
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(listener) for listener in caucus.listeners_at("localhost", 0)]
        assert [listener.getsockname()[0] for listener in listeners] == ["127.0.0.1"]
    with pytest.raises(OSError, match="attempting to bind"):  # of another name it is a mistake, and nothing stays bound
        caucus.listeners_at("elsewhere", 0)


def test_a_hub_listens_and_answers_agents_before_it_loads_what_only_browsers_need() -> None:
    program = """
import caucus, sys
caucus.WARM_UP_S = 3600.0
answer = caucus.Router.answer
def tell(*asked):
    print("tornado" in sys.modules, flush=True)
    return answer(*asked)
caucus.Router.answer = tell
sys.exit(caucus.main())
"""
    argv = [sys.executable, "-c", program, "hub", "--port", "0", "--no-browser"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=CLEAN, cwd=ROOT) as process:
        assert process.stdout is not None
        port = int(re.findall(r":([0-9]+)", process.stdout.readline())[-1])
        for is_plain in (True, False):
            with Raw(port) as raw:
                extra = "" if is_plain else "Connection: close\r\n"
                head = f"GET /version HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\n{extra}\r\n"
                assert answered(raw, head.encode()).status == 200
            assert process.stdout.readline() == f"{not is_plain}\n"
        process.terminate()
        assert process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("port", ["65536", "99999999999999999999", "-1", "http", "80.5", ""])
def test_a_number_that_is_no_port_is_refused(refusal: Refuse, port: str) -> None:
    refusal("--port", port)


def test_a_port_that_another_hub_has_is_refused_with_its_version(hub: HubProcess) -> None:
    reason = unable("--port", str(hub.port))
    assert f"another Caucus, {caucus.__version__}, runs there already: open {hub.url}, or choose another" in reason


def test_a_keyed_hub_is_recognised_as_well() -> None:
    with running_hub(*SECRETS) as guarded:
        assert caucus.__version__ in unable("--port", str(guarded.port))


@pytest.mark.parametrize(
    "script",
    [
        lambda path, body: (200, b"<html>"),
        lambda path, body: (404, b"{}"),
        lambda path, body: (200, b'{"hello":1}'),
        lambda path, body: (200, b"[]"),
        lambda path, body: None,
    ],
)
def test_a_port_that_some_other_program_has_is_refused_as_such(script: Script) -> None:
    with stub_hub(script) as stub:
        reason = unable("--port", stub.url.rpartition(":")[2])
    assert "something else listens there" in reason
    assert "--port" in reason


def test_a_port_whose_owner_is_mute_is_refused_in_time() -> None:
    with socket.create_server((LOOPBACK, 0)) as mute:
        started = time.monotonic()
        assert "something else listens there" in unable("--port", str(mute.getsockname()[1]))
        assert time.monotonic() - started < 5  # a start included


def test_a_port_whose_owner_drips_is_refused_in_time() -> None:
    with socket.create_server((LOOPBACK, 0)) as dripping:

        def drip() -> None:
            line, _ = dripping.accept()
            with line, contextlib.suppress(OSError):
                line.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while not is_over.wait(0.2):
                    line.sendall(b"y")

        is_over = threading.Event()
        dripper = threading.Thread(target=drip)
        dripper.start()
        started = time.monotonic()
        assert "something else listens there" in unable("--port", str(dripping.getsockname()[1]))
        assert time.monotonic() - started < 5
        is_over.set()
        dripper.join()


@pytest.mark.parametrize("version", ["1.0\x1b[2Jyou are root", "x" * 33, "", 7, None])
def test_what_calls_itself_a_hub_puts_nothing_on_the_terminal(version: object) -> None:
    with stub_hub(lambda path, body: (200, json.dumps({"version": version}).encode())) as stub:
        reason = unable("--port", stub.url.rpartition(":")[2])
    assert reason.rstrip().isprintable()
    assert "root" not in reason


def test_a_host_that_is_not_this_machines_is_refused() -> None:
    assert unable("--port", "0", "--host", "192.0.2.1", *SECRETS)
    assert unable("--port", "0", "--host", "no-such-host.invalid", *SECRETS)


def test_a_log_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    assert "log" in unable("--port", "0", "--log-file", str(tmp_path / "missing" / "log"))
    assert "log" in unable("--port", "0", "--log-file", str(tmp_path))


# --- set-ups that would be unsafe ---


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "caucus.example"])
@pytest.mark.parametrize("secrets", [(), ("--operator-token", "o"), ("--agent-key", "k")])
def test_beyond_this_machine_both_secrets_are_needed(refusal: Refuse, host: str, secrets: tuple[str, ...]) -> None:
    reason = refusal("--host", host, "--public-url", "http://caucus.example", *secrets)
    assert "--operator-token" in reason
    assert "--agent-key" in reason


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_a_wildcard_needs_a_public_url_too(refusal: Refuse, host: str) -> None:
    assert "--public-url" in refusal("--host", host, *SECRETS)


def test_a_public_url_beyond_this_machine_needs_the_secrets_even_on_loopback(refusal: Refuse) -> None:
    assert "--operator-token" in refusal("--public-url", "https://caucus.example")
    assert "--operator-token" in refusal(env={"CAUCUS_PUBLIC_URL": "https://caucus.example"})


def test_empty_secrets_of_the_environment_are_none(refusal: Refuse) -> None:
    env = {"CAUCUS_OPERATOR_TOKEN": "", "CAUCUS_AGENT_KEY": ""}
    assert "--agent-key" in refusal("--host", "0.0.0.0", "--public-url", "http://caucus.example", env=env)


@pytest.mark.parametrize(
    "url",
    [
        "caucus.example",
        "ftp://caucus.example",
        "http://",
        "https://caucus.example/path",
        "https://caucus.example?x=1",
        "https://caucus.example#x",
        "https://user@caucus.example",
        "https://caucus.example:port",
        "https://caucus.example:99999",
        "https://caucus example",
    ],
)
@pytest.mark.parametrize("flags", [(), ("--allow-insecure-bind",)])
def test_a_public_url_is_a_bare_origin(refusal: Refuse, url: str, flags: tuple[str, ...]) -> None:
    assert "--public-url" in refusal("--public-url", url, *SECRETS, *flags)


@pytest.mark.parametrize(
    ("flags", "env"),
    [
        (("--allow-insecure-bind", "--host", "0.0.0.0"), {}),
        (("--host", "0.0.0.0", "--public-url", "http://caucus.example", *SECRETS), {}),
        (
            ("--host", "0.0.0.0"),
            {
                "CAUCUS_PUBLIC_URL": "http://caucus.example/",
                "CAUCUS_OPERATOR_TOKEN": "o",
                "CAUCUS_AGENT_KEY": "k",
            },
        ),
        (("--public-url", "http://127.0.0.1:9"), {}),
        (("--public-url", "http://localhost"), {}),
    ],
)
def test_a_safe_set_up_starts(flags: tuple[str, ...], env: dict[str, str]) -> None:
    with running_hub(*flags, env=env) as hub:
        assert call(hub.port, "GET", "/version")[0] == 200


# --- the end ---


def parked_polls(hub: HubProcess, count: int) -> list[Raw]:
    """Park polls of so many peers; give their connections."""
    polls = []
    names = []
    for n in range(count):
        name, token = newcomer(hub, "parked")
        names.append(name)
        query = f"timeout=25&lease=l{n}" if n % 2 else "timeout=25"
        polls.append(Raw(hub.port).send(request_of("GET", f"/receive?{query}", bearer=token)))
    for name in names:
        eventually(functools.partial(hub.is_listening, name), f"the poll of {name}")
    return polls


def close_code(line: ClientConnection) -> int | None:
    """Read until the console is closed; give the code."""
    try:
        while True:
            line.recv(timeout=DEADLINE_S)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_hub_at_once_with_polls_answered_and_consoles_closed(
    number: signal.Signals, road: tuple[str, ...]
) -> None:
    with running_hub(*road) as hub, contextlib.ExitStack() as stack:
        polls = [stack.enter_context(poll) for poll in parked_polls(hub, 30)]
        silent = [stack.enter_context(Raw(hub.port)) for _ in range(20)]
        half = [stack.enter_context(Raw(hub.port).send(b"POST /send HTTP/1.1\r\nHost: lo")) for _ in range(20)]
        slow = request_of("POST", "/send", b"{}", Content_Length="60000")
        half += [stack.enter_context(Raw(hub.port).send(slow)) for _ in range(20)]
        behind = request_of("GET", "/version") * 3
        polls[0].send(behind)
        with hub.console() as console, hub.console() as second:
            started = time.monotonic()
            hub.process.send_signal(number)
            for poll in polls:
                answer = poll.answer()
                assert answer is not None
                assert (answer.status, answer.body) == (200, {"messages": [], "mode": "running"})
            for seat in (console, second):
                assert close_code(seat.socket) == 1001
            assert hub.process.wait(DEADLINE_S) == 0
            assert time.monotonic() - started < 2.5
        assert [raw.answer() for raw in silent] == [None] * 20
        assert {answer.status if answer else None for answer in map(Raw.answer, half)} <= {None, 400}


def test_a_second_signal_on_the_way_down_changes_nothing() -> None:
    for _ in range(3):
        with running_hub() as hub:
            parked = parked_polls(hub, 5)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
                with contextlib.suppress(ProcessLookupError):
                    hub.process.send_signal(number)
            assert hub.process.wait(DEADLINE_S) == 0
            for poll in parked:
                poll.close()


def test_an_unproven_console_is_closed_as_well() -> None:
    with running_hub("--operator-token", "o") as hub, connect(f"ws://127.0.0.1:{hub.port}/ui", proxy=None) as socket:
        socket.send('{"auth_probe":true}')
        socket.recv(timeout=DEADLINE_S)
        hub.process.terminate()
        assert close_code(socket) == 1001
        assert hub.process.wait(DEADLINE_S) == 0


def test_a_console_that_does_not_read_cannot_keep_the_hub_alive() -> None:
    with running_hub() as hub, Raw(hub.port) as raw:
        handshake = request_of(
            "GET",
            "/ui",
            Connection="Upgrade",
            Upgrade="websocket",
            Sec_WebSocket_Version="13",
            Sec_WebSocket_Key="AAAAAAAAAAAAAAAAAAAAAA==",
        )
        raw.send(handshake)
        with hub.console() as console:
            for n in range(60):
                console.send(say=f"{n} " + "x" * 30_000)
            console.message(content="59 " + "x" * 30_000)
        started = time.monotonic()
        hub.process.terminate()
        assert hub.process.wait(DEADLINE_S) == 0
        assert time.monotonic() - started < 2.5


def test_ctrl_c_at_any_time_of_the_start_shows_no_traceback() -> None:
    faults = []
    for n in range(9):
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [sys.executable, SCRIPT, "hub", "--no-browser", "--port", "0"],
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=CLEAN,
            )
            eventually(functools.partial(has_begun, process.pid), "the interpreter at our code")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(n * 0.04)  # a moment that differs from run to run, on purpose
            process.send_signal(signal.SIGINT)
            code = process.wait(DEADLINE_S)
            log.seek(0)
            text = log.read().decode()
        if code not in (0, 130, -2) or "Traceback" in text:
            faults.append(f"{n * 40} ms: {code} {text[-400:]}")
    assert not faults, "\n".join(faults)


def has_begun(pid: int) -> bool:
    """Whether the interpreter is at our imports, as far as /proc shows: it maps a module that only they need."""
    with contextlib.suppress(OSError):
        maps = Path(f"/proc/{pid}/maps").read_text()
        return "_json" in maps or "_hashlib" in maps
    return True


# --- help ---

PROGRAMS = [(), ("hub",), ("watch",), ("demo",)]


@pytest.mark.parametrize("command", PROGRAMS)
def test_help_has_examples_and_version_is_one_line(command: tuple[str, ...]) -> None:
    caucus_py = (sys.executable, "-W", "error", SCRIPT, *command)
    helped = run(*caucus_py, "--help", env={"COLUMNS": "120"})
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "examples:" in helped.stdout
    assert f"caucus {' '.join(command)}".strip() in helped.stdout
    version = run(*caucus_py, "--version")
    assert (version.returncode, version.stderr) == (0, "")
    assert re.fullmatch(rf"caucus\S* {re.escape(caucus.__version__)}\n", version.stdout)


@pytest.mark.parametrize("arguments", [("nonsense",), ("hub", "--nonsense"), ("watch", "stray"), ("--nonsense",)])
def test_a_wrong_command_line_is_exit_2_with_a_hint(arguments: tuple[str, ...]) -> None:
    done = run(sys.executable, SCRIPT, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search("usage:|--help|caucus help", done.stderr)


@pytest.mark.parametrize(
    "flags",
    [
        ("--client-ttl", "0"),
        ("--client-ttl", "nan"),
        ("--quiet-after", "-1"),
        ("--log-retention-hours", "soon"),
        ("--log-level", "loud"),
    ],
)
def test_bad_values_are_exit_2(refusal: Refuse, flags: tuple[str, ...]) -> None:
    refusal(*flags)


@pytest.mark.parametrize("name", ["CAUCUS_QUIET_AFTER_SECONDS", "CAUCUS_LOG_RETENTION_HOURS"])
def test_bad_values_of_the_environment_are_exit_2(refusal: Refuse, name: str) -> None:
    refusal(env={name: "soon"})


# --- many connections ---


@contextlib.contextmanager
def many(port: int, count: int, data: bytes = b"") -> Iterator[list[socket.socket]]:
    """Open so many connections that say `data` and then nothing."""
    sockets: list[socket.socket] = []
    try:
        for n in range(count):
            line = socket.socket()
            sockets.append(line)
            line.settimeout(DEADLINE_S)
            if sys.platform == "linux":
                line.bind((f"127.77.{n // 200}.{n % 200 + 1}", 0))
            line.connect((LOOPBACK, port))
            if data:
                with contextlib.suppress(OSError):  # closed already: there are too many of its kind
                    line.sendall(data)
        yield sockets
    finally:
        for line in sockets:
            line.close()


@pytest.fixture
def _many_files() -> None:
    """Let this process open some thousands of sockets."""
    if (limit := caucus.file_limit()) < FILES_NEEDED:
        pytest.skip(f"this system lets a process open {limit} files, and it takes {FILES_NEEDED}")


def still_serves(hub: HubProcess) -> None:
    """Assert that agents and the operator are served, quickly, on fresh connections."""
    started = time.monotonic()
    (alice, alices), (bob, bobs) = newcomer(hub, "alice"), newcomer(hub, "bob")
    with Raw(hub.port) as poll:
        poll.send(request_of("GET", "/receive?timeout=25", bearer=bobs))
        eventually(lambda: call(hub.port, "GET", f"/ping?peer={bob}")[1]["listening"], "the poll")
        sent = call(hub.port, "POST", "/send", {"token": alices, "to": bob, "content": "still there?"})
        assert sent[1]["delivered_to"] == [bob]
        answer = poll.answer()
    assert answer is not None
    assert [m["content"] for m in answer.body["messages"]] == ["still there?"]
    with hub.console() as console:
        assert {alice, bob} <= {row["name"] for row in console.snapshot["peers"]}
    for token in (alices, bobs):
        call(hub.port, "POST", "/leave", {"token": token})
    assert time.monotonic() - started < 8


def is_served(hub: HubProcess) -> bool:
    """Whether one call is answered."""
    with contextlib.suppress(OSError):
        return bool(call(hub.port, "GET", "/version")[0] == 200)
    return False


HALVES = {
    "silent": b"",
    "half a line": b"GET /rece",
    "half a head": b"GET /receive?timeout=25 HTTP/1.1\r\nHost: localhost\r\nAuthoriza",
    "half a body": b"POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 50000\r\n\r\n{",
    "half a chunk": b"POST /send HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{",
    "done": b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.usefixtures("_many_files")
def test_two_thousand_silent_connections_lock_nobody_out() -> None:
    with running_hub() as hub, many(hub.port, 2000):
        still_serves(hub)
        with many(hub.port, 500):
            still_serves(hub)


def test_a_burst_of_connections_does_not_wait_for_retries(hub: HubProcess) -> None:
    with contextlib.ExitStack() as stack:  # as watchers come back after a broadcast
        burst = [stack.enter_context(socket.socket()) for _ in range(600)]
        started = time.monotonic()
        for line in burst:
            line.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                line.connect((LOOPBACK, hub.port))
        for line in burst:
            line.settimeout(DEADLINE_S)
            line.sendall(request_of("GET", "/version"))
        assert time.monotonic() - started < 0.9, "a dropped SYN is sent again after a second"
        for line in burst:
            assert line.recv(12) == b"HTTP/1.1 200"


@pytest.mark.usefixtures("_many_files")
def test_half_requests_of_every_kind_lock_nobody_out(road: tuple[str, ...]) -> None:
    with running_hub(*road) as hub, contextlib.ExitStack() as stack:
        for data in HALVES.values():
            stack.enter_context(many(hub.port, 300, data))
        still_serves(hub)


@pytest.mark.usefixtures("_many_files")
def test_silent_connections_do_not_cost_an_agent_its_parked_poll(road: tuple[str, ...]) -> None:
    with running_hub(*road) as hub:
        (name, token), (_, speaker) = newcomer(hub), newcomer(hub)
        with Raw(hub.port) as poll:
            poll.send(request_of("GET", "/receive?timeout=25", bearer=token))
            eventually(lambda: hub.is_listening(name), "the poll")
            with many(hub.port, 1500):
                still_serves(hub)
                hub.say(speaker, name, "held out")
                answer = poll.answer()
        assert answer is not None
        assert [m["content"] for m in answer.body["messages"]] == ["held out"]


def limited(limit: int) -> tuple[str, ...]:
    """Word a command that runs a hub with so few file descriptors."""
    text = f"import resource, os, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}));"
    return (sys.executable, "-c", f"{text} os.execv(sys.executable, {list(HUB)!r} + sys.argv[1:])")


@pytest.mark.skipif(sys.platform == "win32", reason="needs rlimits")
@pytest.mark.parametrize("kind", ["silent", "half a head", "half a body", "half a chunk", "done"])
def test_a_hub_with_few_file_descriptors_is_not_locked_by_idle_connections(kind: str, road: tuple[str, ...]) -> None:
    hub = HubProcess(*road, command=limited(256))
    try:
        with many(hub.port, 400, HALVES[kind]):
            eventually(lambda: is_served(hub), "an answer once the hub has seen them all")
            still_serves(hub)
    finally:
        code, log = hub.stop()
    assert code == 0
    assert "Traceback" not in log, log[-3000:]
    assert log.count("\n") < 100, "it does not fill the disk with complaints either"


@pytest.mark.skipif(sys.platform != "linux", reason="how few files a hub can start with is the system's")
def test_a_hub_that_has_no_file_left_says_so_once_and_goes_on(road: tuple[str, ...]) -> None:
    """Fewer files than it keeps in reserve: accepting fails, and those who wait are served when others have gone."""
    hub = HubProcess(*road, command=limited(18))
    try:
        with many(hub.port, 200):
            eventually(lambda: "cannot accept a connection" in hub.log, "the hub saying that it is full")
        eventually(lambda: is_served(hub), "an answer once they are gone")
    finally:
        code, log = hub.stop()
    assert code == 0
    assert "Traceback" not in log, log[-3000:]
    assert log.count("cannot accept") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs rlimits")
def test_consoles_are_connections_too(road: tuple[str, ...]) -> None:
    hub = HubProcess(*road, command=limited(256))
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(256 - caucus.FILES_RESERVED):
                stack.enter_context(connect(f"ws://127.0.0.1:{hub.port}/ui", proxy=None))
            status, body = call(hub.port, "GET", "/version")
            assert (status, body["error"]) == (503, "too_many_connections")
        eventually(lambda: is_served(hub), "an answer once they are gone")
    finally:
        code, log = hub.stop()
    assert code == 0
    assert "Traceback" not in log, log[-3000:]


def test_thirty_two_unproven_consoles_do_not_keep_the_operator_out() -> None:
    with running_hub("--operator-token", "o") as hub, contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(connect(f"ws://127.0.0.1:{hub.port}/ui", proxy=None))
        with hub.console(auth="o") as console:
            assert console.welcome["role"] == "operator"


def test_frames_in_a_row_reach_a_console_at_once(hub: HubProcess) -> None:
    waits = []
    with hub.console() as console:
        console.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as browsers do
        for n in range(15):
            started = time.monotonic()
            console.send(nonsense=n)  # answered with an error frame
            console.send(heartbeat=f"nobody {n}")
            console.next("heartbeat_result")
            waits.append(time.monotonic() - started)
    assert sorted(waits)[5] < 0.025, "the second frame waits for the first to be acknowledged: 40 ms"


# --- slow, odd and broken requests ---


def test_a_request_that_trickles_in_is_served(hub: HubProcess, alice: tuple[str, str], bob: tuple[str, str]) -> None:
    data = request_of("POST", "/send", {"token": alice[1], "to": bob[0], "content": "drop by drop"})
    with Raw(hub.port) as raw:
        for n in range(len(data)):
            raw.send(data[n : n + 1])
            if n % 16 == 0:
                still = call(hub.port, "GET", "/version")
                assert still[0] == 200, "meanwhile others are served"
        answer = raw.answer()
        assert answer is not None
        assert answer.body["delivered_to"] == [bob[0]]


def test_requests_behind_a_parked_poll_are_answered_in_order_once_it_is(
    hub: HubProcess, alice: tuple[str, str], bob: tuple[str, str]
) -> None:
    pings = [f"nobody-{n}" for n in range(20)]
    with Raw(hub.port) as raw:
        raw.send(
            request_of("GET", "/receive?timeout=25", bearer=bob[1])
            + b"".join(request_of("GET", f"/ping?peer={name}") for name in pings)
            + request_of("POST", "/send", {"token": bob[1], "to": alice[0], "content": "from behind"})
            + request_of("GET", "/receive?timeout=25&ack_seq=9999999", bearer=bob[1])
        )
        eventually(lambda: hub.is_listening(bob[0]), "the poll")
        assert not raw.is_answered(0.2), "nothing overtakes a poll"
        hub.say(alice[1], bob[0], "first")
        first = raw.answer()
        assert first is not None
        assert [m["content"] for m in first.body["messages"]] == ["first"]
        echoed = [raw.answer() for _ in pings]
        assert [answer and answer.body["peer"] for answer in echoed] == pings
        sent = raw.answer()
        assert sent is not None
        assert sent.body["delivered_to"] == [alice[0]]
        eventually(lambda: hub.is_listening(bob[0]), "the second poll")
        hub.say(alice[1], bob[0], "second")
        last = raw.answer()
        assert last is not None
        assert [m["content"] for m in last.body["messages"]] == ["second"]
    assert [m["content"] for m in hub.receive(alice[1])["messages"]] == ["from behind"]


def test_a_pipeline_of_thousands_is_answered_whole_and_in_order(hub: HubProcess) -> None:
    names = [f"n{n}" for n in range(3000)]
    data = b"".join(request_of("GET", f"/ping?peer={name}") for name in names)
    with Raw(hub.port) as raw:
        sender = threading.Thread(target=raw.send, args=(data,))
        sender.start()
        got = [raw.answer() for _ in names]
        sender.join(DEADLINE_S)
    assert [answer and answer.body["peer"] for answer in got] == names


def test_a_pipeline_whose_answers_nobody_reads_does_not_disturb_others(hub: HubProcess) -> None:
    data = request_of("GET", "/protocol") * 4000
    with Raw(hub.port) as raw:
        raw.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                data = data[raw.socket.send(data) :] or data
        started = time.monotonic()
        still_serves(hub)
        assert time.monotonic() - started < 5


def test_a_sender_that_ends_its_half_is_answered(hub: HubProcess) -> None:
    with Raw(hub.port) as raw:
        answer = raw.send(request_of("GET", "/version")).end_sending().answer()
        assert answer is not None
        assert answer.status == 200
        assert raw.answer() is None
    with Raw(hub.port) as raw:
        raw.send(request_of("GET", "/version") * 3).end_sending()
        assert [answer.status for answer in raw.answers()] == [200] * 3


def test_a_poll_whose_sender_ended_its_half_neither_hangs_nor_swallows(
    hub: HubProcess, alice: tuple[str, str], bob: tuple[str, str]
) -> None:
    with Raw(hub.port) as raw:
        raw.send(request_of("GET", "/receive?timeout=25", bearer=bob[1])).end_sending()
        hub.say(alice[1], bob[0], "half heard")
        got = [m["content"] for answer in raw.answers() for m in answer.body["messages"]]  # ends: it is no zombie
    got += [m["content"] for m in hub.receive(bob[1])["messages"]]
    assert got == ["half heard"]


def test_a_poll_that_is_parked_and_then_half_closed_neither_hangs_nor_swallows(
    hub: HubProcess, alice: tuple[str, str], bob: tuple[str, str]
) -> None:
    with Raw(hub.port) as raw:
        raw.send(request_of("GET", "/receive?timeout=25", bearer=bob[1]))
        eventually(lambda: hub.is_listening(bob[0]), "the poll")
        raw.end_sending()
        hub.say(alice[1], bob[0], "half heard")
        got = [m["content"] for answer in raw.answers() for m in answer.body["messages"]]
    got += [m["content"] for m in hub.receive(bob[1])["messages"]]
    assert got == ["half heard"]


def test_expect_100_continue_is_continued(hub: HubProcess, alice: tuple[str, str], bob: tuple[str, str]) -> None:
    body = json.dumps({"token": alice[1], "to": bob[0], "content": "continued"}).encode()
    head = request_of("POST", "/send", body, Expect="100-continue").removesuffix(body)
    with Raw(hub.port) as raw:
        assert answered(raw, head).status == 100
        assert answered(raw, body).body["delivered_to"] == [bob[0]]
        assert answered(raw, request_of("GET", "/version")).status == 200


def test_expect_100_continue_is_not_continued_for_a_giant(hub: HubProcess) -> None:
    with Raw(hub.port) as raw:
        head = request_of("POST", "/send", b"", Expect="100-continue").replace(b"Length: 0", b"Length: 99999999")
        first = answered(raw, head)
        last = raw.answer() if first.status == 100 else first
        assert last is not None
        assert last.status == 413


@pytest.mark.parametrize("keep", [False, True])
def test_http_1_0_is_answered_and_ended_unless_it_asks_to_stay(hub: HubProcess, keep: bool) -> None:
    more = {"Connection": "keep-alive"} if keep else {}
    with Raw(hub.port) as raw:
        assert answered(raw, request_of("GET", "/version", version="1.0", **more)).status == 200
        again = raw.send(request_of("GET", "/version", version="1.0", **more)).answer()
        assert (again is not None) == keep


def test_http_1_0_can_poll(hub: HubProcess, alice: tuple[str, str], bob: tuple[str, str]) -> None:
    with Raw(hub.port) as raw:
        raw.send(request_of("GET", "/receive?timeout=25", bearer=bob[1], version="1.0"))
        eventually(lambda: hub.is_listening(bob[0]), "the poll")
        hub.say(alice[1], bob[0], "old style")
        answer = raw.answer()
        assert answer is not None
        assert [m["content"] for m in answer.body["messages"]] == ["old style"]
        assert raw.answer() is None


@pytest.mark.parametrize("path", ["/version", "/receive?timeout=0", "/receive?timeout=0.3"])
def test_connection_close_closes_after_the_answer(hub: HubProcess, bob: tuple[str, str], path: str) -> None:
    with Raw(hub.port) as raw:
        raw.send(request_of("GET", path, bearer=bob[1], Connection="close") + request_of("GET", "/version"))
        assert [answer.status for answer in raw.answers()] == [200]


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_a_chunked_body_is_read(hub: HubProcess, alice: tuple[str, str], bob: tuple[str, str], size: int) -> None:
    body = json.dumps({"token": alice[1], "to": bob[0], "content": "in pieces " + "x" * 300}).encode()
    pieces = [body[n : n + size] for n in range(0, len(body), size)]
    data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    head = request_of("POST", "/send", Content_Type="application/json", Transfer_Encoding="chunked")
    with Raw(hub.port) as raw:
        assert answered(raw, head + data).body["delivered_to"] == [bob[0]]
        assert answered(raw, request_of("GET", "/version")).status == 200, "the connection is in step"


def test_garbage_is_refused_or_cut_off_and_hurts_nobody(hub: HubProcess) -> None:
    chance = random.Random(6)
    garbage = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(400),  # TLS
        b"\x00" * 5000,
        b"\xff" * 5000,
        b"\r\n" * 5000,
        b"\n" * 5000,
        b"GET\r\n\r\n",
        b"GET /version\r\n\r\n",
        b"GET /version HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /version HTTP/1.1 extra\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET  /version  HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://localhost/version HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%00%ff%c0%80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /assets/../caucus.py HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /assets/%2e%2e/caucus.py HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: localhost\r\nNo colon here\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: localhost\r\n: no name\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: localhost\r\nX: \x00\x01\r\n\r\n",
        b"GET /version HTTP/1.1\r\n folded: first\r\nHost: localhost\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: localhost\r\nOrigin: \xff\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"A" * 300_000,
        *(chance.randbytes(chance.randrange(1, 3000)) for _ in range(40)),
        *(chance.randbytes(chance.randrange(1, 300)) + b"\r\n\r\n" for _ in range(40)),
    ]
    for data in garbage:
        with Raw(hub.port) as raw:
            statuses = [answer.status for answer in raw.send(data).end_sending().answers()]
            assert all(status < 500 for status in statuses), (data[:100], statuses)
    still_serves(hub)


# --- no request is read in two ways ---

INNER = b"POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"


def smuggling_heads() -> dict[str, bytes]:
    """List the headers on whose length two readers may disagree."""
    return {
        "CL and TE": b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n",
        "TE and CL": b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n",
        "two CL": b"Content-Length: 5\r\nContent-Length: %d\r\n",
        "two CL in one": b"Content-Length: 5, %d\r\n",
        "CL +": b"Content-Length: +%d\r\n",
        "CL -": b"Content-Length: -%d\r\n",
        "CL hex": b"Content-Length: 0x%d\r\n",
        "CL underscore": b"Content-Length: 1_%d\r\n",
        "CL dot": b"Content-Length: %d.0\r\n",
        "CL superscript": b"Content-Length: \xb2%d\r\n",
        "CL superscript alone": b"Content-Length: \xb2\r\n",
        "CL arabic digits": "Content-Length: \u0665\r\n".encode(),
        "CL words": b"Content-Length: five\r\n",
        "CL empty": b"Content-Length: \r\n",
        "CL huge": b"Content-Length: 99999999999999999999999999999999999999999999\r\n",
        "CL thousands of digits": b"Content-Length: " + b"9" * 5000 + b"\r\n",
        "CL space before colon": b"Content-Length : %d\r\n",
        "CL tab before colon": b"Content-Length\t: %d\r\n",
        "TE space before colon": b"Transfer-Encoding : chunked\r\nContent-Length: 5\r\n",
        "TE unknown": b"Transfer-Encoding: xchunked\r\n",
        "TE identity": b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
        "TE twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "TE list": b"Transfer-Encoding: chunked, identity\r\n",
        "TE gzip chunked": b"Transfer-Encoding: gzip, chunked\r\n",
        "TE vertical tab": b"Transfer-Encoding: \x0bchunked\r\nContent-Length: 5\r\n",
        "TE folded": b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n",
        "TE quoted": b'Transfer-Encoding: "chunked"\r\n',
        "NUL in name": b"Content\x00-Length: %d\r\n",
        "bare CR": b"X: y\rContent-Length: %d\r\n",
    }


@pytest.mark.parametrize("name", smuggling_heads())
def test_a_request_whose_length_is_in_doubt_is_refused_and_nothing_behind_it_is_read(
    hub: HubProcess, alice: tuple[str, str], bob: tuple[str, str], name: str
) -> None:
    inner_body = json.dumps({"token": alice[1], "to": bob[0], "content": "smuggled"}).encode()
    inner = INNER % (len(inner_body), inner_body)
    body = b"0\r\n\r\n" + inner
    head = smuggling_heads()[name]
    head = head % len(body) if b"%d" in head else head
    outer = b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + head + b"\r\n"
    with Raw(hub.port) as raw:
        statuses = [answer.status for answer in raw.send(outer + body).end_sending().answers()]
    assert not [status for status in statuses if status >= 500], statuses
    assert statuses[:1] in ([400], [413], []), f"{name}: {statuses}"
    assert len(statuses) <= 1, f"{name}: what came behind was read as a request: {statuses}"
    assert hub.receive(bob[1])["messages"] == []


@pytest.mark.parametrize(
    "size",
    [b"0x5", b"+5", b"-5", b"5_0", b" 5", b"5 ", b"", b"\xb2", b"g", b"ffffffffffffffffff", b"5;" + b"x" * 70_000],
)
def test_a_chunk_whose_size_is_in_doubt_is_refused_and_nothing_behind_it_is_read(
    hub: HubProcess, alice: tuple[str, str], bob: tuple[str, str], size: bytes
) -> None:
    inner_body = json.dumps({"token": alice[1], "to": bob[0], "content": "smuggled"}).encode()
    data = size + b"\r\nhello\r\n0\r\n\r\n" + INNER % (len(inner_body), inner_body)
    head = request_of("POST", "/status", Content_Type="application/json", Transfer_Encoding="chunked")
    with Raw(hub.port) as raw:
        statuses = [answer.status for answer in raw.send(head + data).end_sending().answers()]
    assert not [status for status in statuses if status >= 500], statuses
    assert len(statuses) <= 1, f"{size[:20]!r}: {statuses}"
    assert hub.receive(bob[1])["messages"] == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_body_is_never_read_as_the_next_request(
    hub: HubProcess, alice: tuple[str, str], bob: tuple[str, str], method: str
) -> None:
    inner_body = json.dumps({"token": alice[1], "to": bob[0], "content": "smuggled"}).encode()
    inner = INNER % (len(inner_body), inner_body)
    for path in ("/version", "/nowhere", "/receive?timeout=0", "/ui", "/"):
        with Raw(hub.port) as raw:
            raw.send(
                request_of(method, path, inner, bearer=bob[1]) + request_of("GET", "/ping?peer=after")
            ).end_sending()
            got = raw.answers()
        assert len(got) <= 2, (path, got)
        if len(got) == 2:
            assert got[1].body["peer"] == "after"
    assert hub.receive(bob[1])["messages"] == []


def test_a_refused_giant_does_not_leave_its_body_to_be_read_as_requests(
    hub: HubProcess, alice: tuple[str, str], bob: tuple[str, str]
) -> None:
    inner_body = json.dumps({"token": alice[1], "to": bob[0], "content": "smuggled"}).encode()
    inner = INNER % (len(inner_body), inner_body)
    for size in (70_000, 2_000_000, 10**15):
        with Raw(hub.port) as raw:
            head = request_of("POST", "/send", b"", bearer="x").replace(b"Length: 0", b"Length: %d" % size)
            raw.send(head + inner * (min(size, 2_000_000) // len(inner)))
            with contextlib.suppress(OSError):
                raw.end_sending()
            assert [answer.status for answer in raw.answers()] in ([413], []), size
    assert hub.receive(bob[1])["messages"] == []
    still_serves(hub)


# --- the command line ---


def said(*words: str) -> tuple[int, str]:
    """Run a command line that starts nothing; give its exit code and what it said."""
    command = [sys.executable, "-W", "error", START, *words]
    ended = nursery.run(command)
    return ended.returncode, ended.stdout + ended.stderr


def test_no_word_at_all_tells_what_most_people_want_first() -> None:
    code, words = said()
    assert code == 0
    places = [words.index(one) for one in ("caucus demo", "caucus hub", "caucus install", "usage:")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("line", "guess"),
    [
        *(("hubb", "hub"), ("hub --prot 1", "--port"), ("hub 9000", "--port 9000")),
        *(("watch --tokenfile x", "--token-file"), ("agent --exce x", "--exec")),
        *(("bridge --print-confg=claude", "--print-config"), ("--versoin", "--version"), ("--hlep", "--help")),
    ],
)
def test_a_misspelt_word_names_the_nearest(line: str, guess: str) -> None:
    code, words = said(*line.split())
    assert code == 2
    assert f"did you mean {guess}?" in words
    assert "--help" in words or "caucus help" in words


def test_an_option_before_the_command_is_told_where_it_goes() -> None:
    code, words = said("--port", "9000")
    assert (code, words.count("\n")) == (2, 1)
    assert "a command comes first, then its options" in words


def test_a_line_of_the_log_stays_on_its_line_whatever_it_tells() -> None:
    script = "import caucus; caucus.begin_log('INFO'); caucus.log().info('%s', 'a\\n[caucus] forged\\x1b[2J')"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert (ended.stderr.count("\n"), "\x1b" in ended.stderr) == (1, False)


@pytest.mark.parametrize("line", ["help", "--help", "help hub", "hub --help"])
def test_help_is_a_word_too(line: str) -> None:
    code, words = said(*line.split())
    assert (code, words[:6]) == (0, "usage:")
    assert ("--operator-token" in words) == ("hub" in line)


def test_version_is_a_word_too() -> None:
    assert said("version") == said("--version") == (0, f"caucus {caucus.__version__}\n")


def test_a_watch_without_a_credential_is_told_where_to_get_one() -> None:
    code, words = said("watch")
    assert code == 2
    assert "watch_command" in words
    assert "caucus watch --token-file FILE" in words


@pytest.mark.parametrize("origin", ["*", "null", "caucus.example", "http://x/", "ftp://x", "http://X.example", "http://é"])
def test_an_allowed_origin_that_no_browser_would_send_is_refused(origin: str) -> None:
    code, words = said("hub", "--port", "0", "--allowed-origin", origin)
    assert code == 2
    assert "bare origin" in words
