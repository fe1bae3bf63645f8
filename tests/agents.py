"""Native agents for the tests: real processes of `caucus agent`, on a fake `claude` or on a command."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nursery
from hubs import ROOT, START, eventually

SDK = ROOT / ".cache/agent-sdk" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")  # made by tests/run.py
FAKE_CLAUDE = ROOT / "tests/fake_claude.py"
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith(("CAUCUS_", "ANTHROPIC_", "CLAUDE"))}
PATIENCE_S = 20.0


def is_running(pid: int) -> bool:
    """Whether a process is alive, a zombie excepted."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


class AgentProcess:
    """One `caucus agent`."""

    def __init__(
        self, url: str, *flags: str, python: str | Path = sys.executable, stdin: str = "", **variables: str
    ) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.notes = Path(self.folder.name) / "notes"
        self._errors = open(Path(self.folder.name) / "stderr", "w+")  # noqa: SIM115  # until `close`
        env = {**CLEAN, "FAKE_CLAUDE_LOG": str(self.notes), "HOME": self.folder.name, **variables}
        (Path(self.folder.name) / "stdin").write_text(stdin)
        with open(Path(self.folder.name) / "stdin") as typed:
            self.process = nursery.start(
                [str(python), START, "agent", "--hub", url, *flags],
                stdin=typed, stdout=subprocess.PIPE, stderr=self._errors, env=env, cwd=self.folder.name,
            )

    @property
    def errors(self) -> str:
        """Give what it has said on stderr so far."""
        return (Path(self.folder.name) / "stderr").read_text()

    def seen(self, kind: str, **wanted: Any) -> list[Any]:
        """List what the fake has noted."""
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        notes = [json.loads(line) for line in lines]
        return [one for one in notes if one["kind"] == kind and all(one.get(key) == wanted[key] for key in wanted)]

    def wait_for(self, kind: str, count: int = 1, **wanted: Any) -> Any:
        """Wait until the fake has noted something so often; give the latest."""

        def look() -> Any:
            found = self.seen(kind, **wanted)
            return found[count - 1 :] or (self.process.poll() is not None and self.fail(kind))

        return eventually(look, f"{count} times {kind} {wanted}", PATIENCE_S)[0]

    def fail(self, kind: str) -> None:
        """Say why nothing more will come."""
        raise AssertionError(f"no {kind}: the agent ended with {self.process.returncode}: {self.errors}")

    def wait_joined(self) -> None:
        """Wait until it has its seat."""

        def look() -> bool:
            return "has joined" in self.errors or (self.process.poll() is not None and bool(self.fail("seat")))

        eventually(look, "the agent in the room", PATIENCE_S)

    def end(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait until it has ended by itself; give its exit code."""
        return self.process.wait(timeout_s)

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def close(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        for note in self.seen("start"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(note["pid"], signal.SIGKILL)
        self._errors.close()
        self.folder.cleanup()


@contextlib.contextmanager
def agent(url: str, *flags: str, **options: Any) -> Iterator[AgentProcess]:
    """Run an agent on any mind; wait for its seat. Whatever happens to it, its log is for people."""
    running = AgentProcess(url, *flags, **options)
    try:
        running.wait_joined()
        yield running
        assert "Traceback" not in running.errors
    finally:
        running.close()


def claude(url: str, *flags: str, **variables: str) -> contextlib.AbstractContextManager[AgentProcess]:
    """Run a Claude on the fake program; wait for its seat."""
    return agent(url, *flags, python=SDK, CAUCUS_CLAUDE_CLI=str(FAKE_CLAUDE), **variables)
