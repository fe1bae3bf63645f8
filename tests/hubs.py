"""A real hub process for the tests that need sockets: started from caucus.py, spoken to over HTTP and WebSocket."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import nursery
from websockets.sync.client import ClientConnection, connect

ROOT = Path(__file__).resolve().parent.parent
START = str(ROOT / "tests/start.py")  # caucus.py, started fast
DEADLINE_S = 20.0  # for what takes a fraction of a second on an idle machine
# Flags of `caucus hub`: with an express lane, and without one. The same must come of every request on both roads.
ROADS: dict[str, tuple[str, ...]] = {"express": (), "plain": ("--plain-http",)}


def eventually(check: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Wait until `check` gives something true, and give that."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if found := check():
            return found
        time.sleep(0.01)  # between two looks, never instead of one
    raise AssertionError(f"never saw {what}")


class Answer:
    """Status, headers and decoded body of one answer."""

    def __init__(self, response: httpx.Response) -> None:
        self.status, self.headers, self.text = response.status_code, response.headers, response.text
        self.content = response.content

    @property
    def body(self) -> Any:
        """Decode the JSON body."""
        return json.loads(self.text)


class HubProcess:
    """One hub of our own, on a free port."""

    def __init__(self, *flags: str, env: dict[str, str] | None = None, command: tuple[str, ...] = ()) -> None:
        argv = command or (sys.executable, "-W", "error", START, "hub", "--loops", "off")  # tests say the same often
        clean = {key: value for key, value in os.environ.items() if not key.startswith("CAUCUS_")}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # not a pipe: nobody reads it meanwhile, and a pipe fills up
        self.process = nursery.start(
            [*argv, "--port", "0", "--no-browser", *flags],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
            env={**clean, **(env or {})},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self._clients: list[httpx.Client] = []
        self._seats: list[str] = []  # tokens that were given out and not cleared
        self._given = 0  # seats, ever
        found = re.search(r"http://[^\s]+:(\d+)", line)
        assert found, f"the hub did not start: {line!r} {self.stop()}"
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = self._door = self._client("127.0.0.1")

    @property
    def log(self) -> str:
        """Give what it has said on stderr so far."""
        return os.pread(self._log.fileno(), 1 << 24, 0).decode()

    def request(self, method: str, path: str, **more: Any) -> Answer:
        """Send any request."""
        return Answer(self.http.request(method, path, **more))

    def get(self, path: str, token: str | None = None, **query: Any) -> Answer:
        """GET with a bearer."""
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        return self.request("GET", path, params=query or None, headers=headers)

    def post(self, path: str, bearer: str | None = None, **body: Any) -> Answer:
        """POST a JSON object, in ASCII: so a lone surrogate can be sent as well."""
        headers = {"Authorization": f"Bearer {bearer}"} if bearer is not None else {}
        headers["Content-Type"] = "application/json"
        return self.request("POST", path, content=json.dumps(body), headers=headers)

    def register(self, name: str, bearer: str | None = None, **more: Any) -> str:
        """Take a seat, from an address that still may; give its token."""
        headers = {"Authorization": f"Bearer {bearer}"} if bearer is not None else {}
        if self._given % 16 == 0 and sys.platform == "linux":  # elsewhere there is one address, and the throttle holds
            self._door = self._client(f"127.0.{1 + self._given // 4000}.{1 + self._given // 16 % 250}")
        answer = Answer(self._door.post("/register", json={"project": name, **more}, headers=headers))
        assert answer.status == 200, answer.text
        self._given += 1
        self._seats.append(str(answer.body["token"]))
        return self._seats[-1]

    def _client(self, address: str) -> httpx.Client:
        transport = httpx.HTTPTransport(local_address=address, verify=False)
        self._clients.append(httpx.Client(base_url=self.url, timeout=40.0, trust_env=False, transport=transport))
        return self._clients[-1]

    def clear(self) -> None:
        """Let everybody leave who was given a seat here, so that the next test finds an empty room."""
        for token in self._seats:
            self.post("/leave", token=token)
        del self._seats[:]

    def unthrottle(self) -> None:
        """Let peers speak as fast as a test can."""
        with self.console() as operator:
            operator.send(set_rate={"refill_rate": 1e6, "capacity": 1e6})
            operator.next("rate")

    def say(self, token: str, to: str, content: str) -> Any:
        """Speak; give the answer's body."""
        answer = self.post("/send", token=token, to=to, content=content)
        assert answer.status == 200, answer.text
        return answer.body

    def receive(self, token: str, timeout: float = 0.0, **more: Any) -> Any:
        """Poll; give the answer's body."""
        answer = self.get("/receive", token, timeout=timeout, **more)
        assert answer.status == 200, answer.text
        return answer.body

    def is_listening(self, name: str) -> bool:
        """Whether a poll of that peer is parked."""
        return bool(self.get("/ping", peer=name).body.get("listening"))

    @contextlib.contextmanager
    def console(self, auth: str | None = None, path: str = "/ui") -> Iterator[Console]:
        """Open the operator's socket, snapshot included; at /ui?changes=1 as our own page does."""
        with connect(f"ws://127.0.0.1:{self.port}{path}", proxy=None, max_size=None, max_queue=None) as socket:
            if auth is not None:
                socket.send(json.dumps({"auth": auth}))
            console = Console(socket)
            console.welcome = console.next("auth_ok")
            console.snapshot = console.next("snapshot")
            yield console

    def stop(self) -> tuple[int, str]:
        """End the hub as a user would; give its exit code and log."""
        for client in self._clients:
            client.close()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        finally:
            with self._log:
                self._log.seek(0)
                log = self._log.read().decode()
        return self.process.returncode, log


class KeptHub:
    """A hub with a journal, on one port through all its lives."""

    def __init__(self, path: Path, *flags: str) -> None:
        self.path, self._flags = path, flags
        self.hub = HubProcess("--journal", str(path), *flags)
        self.port = self.hub.port

    def kill(self) -> None:
        """End it as a power failure of the process would."""
        self.hub.process.send_signal(signal.SIGKILL)
        self.hub.process.wait()
        with contextlib.suppress(ValueError):
            self.hub.stop()

    def restart(self) -> HubProcess:
        """Start another one on the same file and port."""
        self.hub = HubProcess("--journal", str(self.path), *self._flags, "--port", str(self.port))
        return self.hub

    def kill_and_restart(self) -> HubProcess:
        """Do both."""
        self.kill()
        return self.restart()


class Console:
    """The operator's end of /ui."""

    welcome: Any
    snapshot: Any

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def send(self, **frame: Any) -> None:
        """Send one frame."""
        self.socket.send(json.dumps(frame))

    def next(self, *kinds: str, where: Callable[[Any], bool] = lambda frame: True) -> Any:
        """Give the next frame of one of these types."""
        end = time.monotonic() + DEADLINE_S
        while True:
            frame = json.loads(self.socket.recv(timeout=max(0.01, end - time.monotonic())))
            if frame["type"] in kinds and where(frame):
                return frame

    def message(self, **wanted: Any) -> Any:
        """Give the next message that has these fields."""
        matches = lambda frame: wanted.items() <= frame["message"].items()  # noqa: E731
        return self.next("message", where=matches)["message"]


@contextlib.contextmanager
def running_hub(*flags: str, env: dict[str, str] | None = None) -> Iterator[HubProcess]:
    """Run a hub; fail if it logged an error of ours, or did not end cleanly."""
    hub = HubProcess(*flags, env=env)
    try:
        yield hub
    finally:
        code, log = hub.stop()
    assert code == 0, f"the hub ended with {code}: {log}"
    assert "Traceback" not in log, log
    assert " ERROR " not in log, log
