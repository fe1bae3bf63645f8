"""What happens to `caucus agent` at bad moments: a mind that starts slowly or not at all, dies idle, will not go."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from agents import FAKE_CLAUDE, SDK, agent, claude, is_running
from hubs import ROOT, HubProcess, eventually, running_hub

import caucus

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts with a #! line"),
    pytest.mark.skipif(not SDK.exists(), reason="no claude-agent-sdk: tests/run.py installs it"),
]


@pytest.fixture(scope="module")
def hub() -> Iterator[HubProcess]:
    """Give a hub where nobody is throttled."""
    with running_hub() as hub:
        hub.unthrottle()
        yield hub


@pytest.fixture
def api(hub: HubProcess) -> Iterator[str]:
    """Give the token of the peer `api`, in a room that is empty before and after."""
    yield hub.register("api")
    with hub.console() as console:
        for peer in console.snapshot["peers"]:
            console.send(kick=peer["name"])
        console.send(heartbeat="all")
        console.next("heartbeat_result")


def next_words(hub: HubProcess, token: str) -> str:
    """Wait for what is said to that peer next."""
    return str(eventually(lambda: hub.receive(token, 0.5)["messages"], "a message", 20.0)[0]["content"])


def command(hub: HubProcess, verb: str) -> None:
    """Give the agent an order, as the operator."""
    with hub.console() as console:
        console.send(command=verb, to="cl")
        console.message(kind="control", content=verb)


SAY = '!tool say {{"to": "api", "content": "{}"}}'  # a directive for the fake


def python_with(folder: Path, patch: str) -> Path:
    """Give a Python that changes a constant of caucus before it runs it."""
    wrapper = folder / "python"
    program = f"import sys, caucus; {patch}; sys.exit(caucus.main())"
    wrapper.write_text(f'#!/bin/sh\nshift\nPYTHONPATH={ROOT} exec {SDK} -c "{program}" "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


def test_orders_that_come_while_the_mind_starts_do_not_end_the_session(
    hub: HubProcess, api: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    python = python_with(tmp_path, "caucus.INTERRUPT_S = 0.1")
    variables = {"CAUCUS_CLAUDE_CLI": str(FAKE_CLAUDE), "FAKE_CLAUDE_GATE": str(gate)}
    with agent(hub.url, "--project", "cl", python=python, **variables) as cl:
        gate.unlink()
        command(hub, "reset")
        cl.wait_for("start", 2)
        command(hub, "reset")
        command(hub, "interrupt")
        eventually(lambda: cl.errors.count("the operator says") == 3, "all three orders")
        assert hub.receive(api, 0.5)["messages"] == []  # no goodbye
        gate.touch()
        hub.say(api, "cl", SAY.format("here"))
        assert next_words(hub, api) == "here"


def test_a_claude_that_died_idle_costs_nobody_a_message(hub: HubProcess, api: str) -> None:
    with claude(hub.url, "--project", "cl") as cl:
        pid = cl.wait_for("start")["pid"]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not is_running(pid), "its death")
        hub.say(api, "cl", SAY.format("as if nothing had been"))
        assert next_words(hub, api) == "as if nothing had been"


def test_a_second_signal_ends_it_at_once_and_claude_with_it(hub: HubProcess, api: str) -> None:
    with claude(hub.url, "--project", "cl", FAKE_CLAUDE_STAYS="1") as cl:
        hub.say(api, "cl", "!deaf")
        pid = cl.wait_for("turn")["pid"]
        cl.signal()
        cl.wait_for("stdin ended")  # it is asked to go, and does not
        cl.signal()
        assert cl.end(5.0) == caucus.EXIT_OK
        eventually(lambda: not is_running(pid), "the end of claude")


def test_a_killed_agents_claude_does_not_finish_its_turn(hub: HubProcess, api: str) -> None:
    with claude(hub.url, "--project", "cl", FAKE_CLAUDE_STAYS="1") as cl:
        hub.say(api, "cl", "!deaf")
        pid = cl.wait_for("turn")["pid"]
        cl.signal(signal.SIGKILL)
        eventually(lambda: not is_running(pid), "the end of claude")


def test_the_turn_that_an_interrupt_ended_counts_as_well(hub: HubProcess, api: str) -> None:
    with claude(hub.url, "--project", "cl", "--max-turns", "1") as cl:
        hub.say(api, "cl", "!hang")
        cl.wait_for("turn")
        command(hub, "interrupt")
        assert cl.end() == 0
        assert "turns, 1, is reached" in cl.errors


@pytest.mark.parametrize("code", [0, 7])
def test_a_program_that_ends_at_once_is_explained_at_once(hub: HubProcess, tmp_path: Path, code: int) -> None:
    program = tmp_path / "claude"
    program.write_text(f"#!/bin/sh\nexit {code}\n")
    program.chmod(0o755)
    with (
        pytest.raises(AssertionError, match=r"ended with 3"),
        agent(hub.url, "--project", "cl", python=SDK, CAUCUS_CLAUDE_CLI=str(program)),
    ):
        pass  # or "the agent in the room" would be waited for until START_LIMIT_S


def test_a_claude_that_hangs_when_it_starts_is_explained(hub: HubProcess, tmp_path: Path) -> None:
    python = python_with(tmp_path, "caucus.START_LIMIT_S = 0.5")
    with (
        pytest.raises(AssertionError, match=r"ended with 3.*the model's program says nothing for 0\.5 s"),
        agent(hub.url, "--project", "cl", python=python, CAUCUS_CLAUDE_CLI=str(FAKE_CLAUDE), FAKE_CLAUDE_START="hang"),
    ):
        pass
    assert hub.get("/ping", peer="cl").body["state"] == "absent"
