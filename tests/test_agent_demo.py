"""A native agent takes part in the demo."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from agents import CLEAN, FAKE_CLAUDE, SDK, is_running
from hubs import ROOT, HubProcess, eventually


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build caucus.pyz."""
    output = tmp_path_factory.mktemp("pyz") / "caucus.pyz"
    subprocess.run([sys.executable, ROOT / "build_zipapp.py", "-o", output], check=True, cwd=output.parent)
    return output


def demo_of(command: list[str | Path], folder: Path, **variables: str) -> Iterator[HubProcess]:
    """Run a demo from an empty folder."""
    env = {**CLEAN, "HOME": str(folder), "FAKE_CLAUDE_LOG": str(folder / "notes"), **variables}
    hub = HubProcess(env=env, command=tuple(map(str, command)))
    try:
        yield hub
    finally:
        hub.stop()


@pytest.mark.skipif(not SDK.exists(), reason="no claude-agent-sdk: tests/run.py installs it")
def test_a_claude_takes_part_in_the_demo_and_goes_with_it(pyz: Path, tmp_path: Path) -> None:
    running = demo_of([SDK, pyz, "demo", "--agent"], tmp_path, CAUCUS_CLAUDE_CLI=str(FAKE_CLAUDE))
    hub = next(running)
    eventually(lambda: "claude" in hub.get("/peers").body["peers"], "the Claude among the actors", 30.0)
    notes = tmp_path / "notes"
    eventually(lambda: notes.exists() and '"turn"' in notes.read_text(), "its first turn")
    pid = int(notes.read_text().split('"pid": ')[1].split(",")[0])
    hub.process.terminate()
    assert hub.process.wait(30) == 0
    eventually(lambda: not is_running(pid), "the end of claude")
    running.close()


def test_a_demo_that_misses_something_says_so_and_plays_on(pyz: Path, tmp_path: Path) -> None:
    running = demo_of([sys.executable, "-S", pyz, "demo", "--agent"], tmp_path)
    hub = next(running)
    eventually(lambda: len(hub.get("/peers").body["peers"]) == 3, "the three actors", 30.0)
    eventually(lambda: "claude-agent-sdk is not installed" in hub.log, "the line that says what is missing", 20.0)
    running.close()
