"""Programs in Python, started fast: a process that has loaded what they load forks for each, which takes a quarter.

The tests start hubs a thousand times, and some hundred programs that load an SDK for a second. `start` takes and gives
what subprocess.Popen does, of which this is the part that they use. A forked program has the words, the folder, the
variables, the files, the limits and the end of one that was started afresh; what is not in PRELOADS, and all where
there are no pidfds, is started afresh. Tests about the start itself take subprocess.

Run as a program, by the Python of those that it starts, it is that process: nursery.py DOOR MODULE...
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

TESTS = Path(__file__).resolve().parent
HUB = ("argparse", "asyncio", "caucus", "datetime", "fcntl", "hashlib", "hmac", "http.client", "logging.handlers")
HUB += ("mistune", "random", "sqlite3", "tornado.httpserver", "tornado.web", "tornado.websocket", "zlib")
ORIGINAL = ("argparse", "asyncio", "httpx", "mcp.server.fastmcp")  # what it stands on; itself it loads anew each time
PRELOADS = {  # script, environment of its Python: what it loads
    ("start.py", ".venv"): HUB,
    ("start.py", "agent-sdk"): ("argparse", "asyncio", "caucus", "claude_agent_sdk", "http.client"),
    ("mcp_driver.py", "mcp-sdk"): ("mcp.client.client", "mcp.client.stdio"),
    **{
        (script, version): ORIGINAL
        for script in ("caucus-watch", "caucus-bridge", "originals_connector.py")
        for version in ("1.3.0", "5.1.0")
    },
}
STRICT = ("-W", "error")
REQUEST_MAX = 1 << 18  # bytes: words and variables

if sys.platform == "linux":
    import resource


# --- the side of the tests ---


class Warm:
    """A forked program, as subprocess.Popen has it."""

    def __init__(self, nursery: Nursery, words: Sequence[str], *, is_text: bool, **given: Any) -> None:
        self.args, self.returncode = words, None
        self._said: dict[str, Any] = {}  # by pipe, what `communicate` has read so far
        self._readers: list[threading.Thread] = []
        theirs: list[int] = []
        with contextlib.ExitStack() as after:
            for number, name in enumerate(("stdin", "stdout", "stderr")):
                ours = None
                if (wanted := given.get(name)) is None:
                    theirs.append(number)
                elif wanted == subprocess.PIPE:
                    ends = os.pipe() if number else os.pipe()[::-1]
                    after.callback(os.close, ends[1])
                    theirs.append(ends[1])
                    ours = open(ends[0], "rb" if number else "wb")  # noqa: SIM115
                    ours = io.TextIOWrapper(ours, encoding="utf-8") if is_text else ours
                elif wanted == subprocess.DEVNULL:
                    theirs.append(os.open(os.devnull, os.O_RDWR))
                    after.callback(os.close, theirs[-1])
                else:
                    theirs.append(wanted if isinstance(wanted, int) else wanted.fileno())
                setattr(self, name, ours)
            self._end, end = os.pipe()
            after.callback(os.close, end)
            place = {"cwd": str(given.get("cwd") or Path.cwd()), "env": {**(given.get("env") or os.environ)}}
            self.parent = nursery.pid
            self.pid = nursery.fork({"argv": [*words], "files": resource.getrlimit(resource.RLIMIT_NOFILE), **place},
                                    [*theirs, end])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                pipe.close()
        self.wait()

    def __del__(self) -> None:
        if getattr(self, "_end", None) is not None:
            os.close(self._end)

    def poll(self) -> int | None:
        """Give its exit code, once it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; give its exit code. Raises TimeoutExpired."""
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._end, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            code, self._end = os.read(self._end, 8), os.close(self._end)
            assert code, "the nursery has ended"
            self.returncode = int(code)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, said: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """Write `said`, read both outputs to their ends and wait for its own. Raises TimeoutExpired."""
        end = None if timeout is None else time.monotonic() + timeout
        left = lambda: None if end is None else max(0.0, end - time.monotonic())  # noqa: E731
        if self.stdin is not None and not self.stdin.closed:
            with contextlib.suppress(BrokenPipeError), self.stdin:
                if said:
                    self.stdin.write(said)
        if not self._readers:
            pipes = [name for name in ("stdout", "stderr") if getattr(self, name) is not None]
            self._readers = [threading.Thread(target=self._read, args=(name,), daemon=True) for name in pipes]
            for reader in self._readers:
                reader.start()
        for reader in self._readers:
            reader.join(left())
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        self.wait(left())
        return self._said.get("stdout"), self._said.get("stderr")

    def _read(self, name: str) -> None:
        with getattr(self, name) as pipe:
            self._said[name] = pipe.read()


class Nursery:
    """The process that forks, as long as this one lives."""

    def __init__(self, python: str, flags: Sequence[str], modules: Sequence[str], env: Mapping[str, str]) -> None:
        self._door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        number = str(theirs.fileno())
        with theirs:
            words = [python, *flags, __file__, number, *modules]
            self._process = subprocess.Popen(words, pass_fds=[int(number)], stdin=subprocess.DEVNULL, env=env)
        self.pid = self._process.pid
        atexit.register(self._close)

    def _close(self) -> None:
        self._door.close()
        self._process.wait()

    def fork(self, wanted: Mapping[str, Any], files: Sequence[int]) -> int:
        """Start one; give its pid."""
        with self._lock:
            socket.send_fds(self._door, [json.dumps(wanted).encode()], files)
            pid = self._door.recv(16)
        assert pid, "the nursery has ended"
        return int(pid)


_nurseries: dict[tuple[Any, ...], Nursery] = {}
_lock = threading.Lock()


def read_at_start(env: Mapping[str, str]) -> dict[str, str]:
    """Pick the variables that Python itself reads when it starts."""
    return {key: value for key, value in env.items() if key.startswith(("PYTHON", "LC_", "LANG", "TZ"))}


def start(command: Sequence[str], *, text: bool = False, env: Mapping[str, str] | None = None, **given: Any) -> Any:
    """Start a program: Python, its flags if they are STRICT, a script and its words. Outputs in UTF-8, if text."""
    python, *words = map(str, command)
    flags = STRICT if (*words[:2],) == STRICT else ()
    words = words[len(flags) :]
    modules = PRELOADS.get((Path(words[0]).name, Path(python).parent.parent.name))
    if modules is None or sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return subprocess.Popen([*command], text=text, env=env, **given)
    with _lock:
        variables = read_at_start(os.environ if env is None else env)
        key = (python, *flags, *modules, *sorted(variables.items()))
        nursery = _nurseries.get(key) or _nurseries.setdefault(key, Nursery(python, flags, modules, variables))
    return Warm(nursery, words, is_text=text, env=env, **given)


def run(
    command: Sequence[str], *, said: str | None = None, timeout: float = 60.0, check: bool = False, **given: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, both outputs kept, as subprocess.run does. Raises CalledProcessError if it must."""
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE) | {"stdin": subprocess.PIPE if said else None}
    with start(command, text=True, **pipes | given) as process:
        try:
            out, err = process.communicate(said, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    done = subprocess.CompletedProcess(command, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


# --- the process that forks ---


def serve(door: socket.socket) -> dict[str, Any]:
    """Fork for each request; return it in the child, which has its files for its own. End when the tests do."""
    with selectors.DefaultSelector() as selector:
        selector.register(door, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not door:  # a pidfd
                    selector.unregister(key.fileobj)
                    pid, report = key.data
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
                        os.write(report, str(code).encode())
                    os.close(report)
                    os.close(key.fd)
                    continue
                data, files, _, _ = socket.recv_fds(door, REQUEST_MAX, 4)
                if not data:
                    os._exit(0)
                if (pid := os.fork()) == 0:
                    for number, file in enumerate(files[:3]):
                        os.dup2(file, number)
                    others = [other.data[1] for other in selector.get_map().values() if other.data]
                    others += [other.fd for other in selector.get_map().values()]
                    for file in (*files, *others):
                        os.close(file)
                    door.detach()
                    return dict(json.loads(data))
                *theirs, report = files
                for file in theirs:
                    os.close(file)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, report))
                door.send(str(pid).encode())


def be(wanted: Mapping[str, Any]) -> None:
    """Become what was asked for: words, folder, variables, limits; streams know nothing of other files."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        old = getattr(sys, name)
        file = open(number, f"{mode}b", 0 if old.write_through else -1, closefd=False)  # noqa: SIM115
        is_by_lines = old.line_buffering if name == "stderr" else os.isatty(number) and not old.write_through
        how = {"line_buffering": is_by_lines, "write_through": old.write_through}
        new = io.TextIOWrapper(file, old.encoding, old.errors, **how)
        new.mode = mode
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    resource.setrlimit(resource.RLIMIT_NOFILE, (*wanted["files"],))
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["env"])
    sys.argv[:] = wanted["argv"]
    sys.path[0] = str(Path(sys.argv[0]).parent)


def main() -> None:
    """Load, then fork; a child goes on as its program."""
    door = socket.socket(fileno=int(sys.argv[1]))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for the tests
    sys.path[0] = str(TESTS.parent)
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # a child need not look at it again
    be(serve(door))


if __name__ == "__main__":
    main()
    runpy.run_path(sys.argv[0], run_name="__main__")
