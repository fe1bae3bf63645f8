"""The native agent on a real `claude`, where there is one, with a stand-in for the Messages API; and the demo's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from agents import CLEAN, FAKE_CLAUDE, SDK, agent, is_running
from fake_messages import fake_messages
from hubs import ROOT, HubProcess, eventually, running_hub

CLAUDE = os.environ.get("CAUCUS_TEST_CLAUDE") or shutil.which("claude")
needs_claude = pytest.mark.skipif(
    CLAUDE is None or not SDK.exists(), reason="no claude on PATH, nor in CAUCUS_TEST_CLAUDE, or no claude-agent-sdk"
)


@needs_claude
def test_a_real_claude_takes_a_tool_turn_is_interrupted_takes_another_and_stops(tmp_path: Path) -> None:
    with fake_messages() as api, running_hub() as hub:
        token = hub.register("api")
        variables = {"ANTHROPIC_BASE_URL": api.url, "ANTHROPIC_API_KEY": "sk-fake", "CAUCUS_CLAUDE_CLI": str(CLAUDE),
                     "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
        with agent(hub.url, "--project", "cl", python=SDK, **variables) as cl:
            hub.say(token, "cl", "SAY: hello from a real one")
            found = hub.receive(token, 20.0)["messages"]
            assert [(m["sender"], m["content"]) for m in found] == [("cl", "hello from a real one")]
            tools = {tool["name"] for tool in api.asked[0]["tools"]}
            assert "mcp__caucus__say" in tools
            assert not {"Bash", "Write", "Edit", "Read", "WebFetch", "Task"} & tools
            assert "You are the peer cl" in str(api.asked[0]["system"])
            eventually(lambda: hub.get("/ping", peer="cl").body["usage"]["input_tokens"] == 2000, "what the turn used")
            hub.say(token, "cl", "WAIT for it")
            eventually(lambda: "WAIT" in str(api.asked[-1]["messages"][-1]), "the call of the model")
            with hub.console() as console:
                console.send(command="interrupt", to="cl")
                console.message(kind="control")
            hub.say(token, "cl", "SAY: and again")
            assert hub.receive(token, 20.0)["messages"][-1]["content"] == "and again"
            hub.post("/control", action="stop")
            assert cl.end() == 0


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
