"""The official MCP client as tests use it; its environment is made by tests/run.py."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import nursery
import pytest
from hubs import DEADLINE_S, ROOT

SDK = ROOT / ".cache/mcp-sdk" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
MODES = ("legacy", "auto", "2026-07-28")


def sdk() -> str:
    """Give the Python that has the SDK; without it the tests are skipped, and in CI they fail."""
    if SDK.exists():
        return str(SDK)
    if os.environ.get("CI"):
        pytest.fail(f"{SDK} is missing: tests/run.py makes it")
    pytest.skip(f"NOT TRIED: {SDK} is missing; tests/run.py makes it")


class Official:
    """One official client in a process of its own."""

    def __init__(self, mode: str, target: str | list[str], cwd: Path) -> None:
        where = target if isinstance(target, str) else json.dumps(target)
        clean = {key: value for key, value in os.environ.items() if not key.startswith("CAUCUS_")}
        self._process = nursery.start(
            [sdk(), str(ROOT / "tests/mcp_driver.py"), mode, where],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=clean,
        )
        self.hello = self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def do(self, *step: Any) -> Any:
        """Take one step; give its outcome."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(step) + "\n")
        self._process.stdin.flush()
        return self._read()

    def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool; give its structure, or its prose."""
        outcome = self.do("call", tool, arguments)
        assert "raised" not in outcome, outcome
        assert not outcome.get("isError"), outcome
        return outcome.get("structuredContent", outcome["content"][0]["text"])

    def seat(self, name: str) -> Any:
        """Set up and join."""
        self.call("setup")
        return self.call("join", project=name)

    def close(self) -> None:
        """Disconnect; what it says on stderr is for the reader of a failure."""
        if self._process.poll() is None:
            try:
                self._process.communicate(timeout=DEADLINE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()
                raise

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the client ended: {self._process.communicate()[1]}"
        return json.loads(line)


@contextlib.contextmanager
def built_pyz(folder: Path) -> Iterator[Path]:
    """Build caucus.pyz into a folder."""
    target = folder / "caucus.pyz"
    command = [sys.executable, str(ROOT / "build_zipapp.py"), "-o", str(target)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    yield target
