"""A hub that is there when it is needed: started by a bridge, kept by the system's own keeper of services."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hubs import DEADLINE_S, eventually, running_hub
from test_bridge import BridgeProcess, bridge_at
from wires import LOOPBACK, call, stub_hub

import caucus

# --- a bridge that starts the hub ---


def free_port() -> int:
    """Give a port that nothing listens on."""
    with socket.create_server((LOOPBACK, 0)) as closed:
        port: int = closed.getsockname()[1]
        return port


class Home:
    """A user's place for what outlives programs, and the hubs that bridges start there: each has a journal."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.env = {"CAUCUS_AUTOSTART": "1", "CAUCUS_JOURNAL": "1"}  # its lock tells the hub's process
        self.env |= dict.fromkeys(("HOME", "XDG_STATE_HOME", "LOCALAPPDATA"), str(folder))
        self.state = folder / "caucus"
        if sys.platform == "darwin":
            self.state = folder / "Library" / "Application Support" / "caucus"
        self.log = self.state / f"hub-{self.port}.log"

    def hub(self) -> int | None:
        """Give the process of the hub that runs, if one does."""
        holder = caucus.holder_of(str(self.state / f"hub-{self.port}.journal.lock"))
        return int(holder.removeprefix("process ")) if holder else None

    def starts(self) -> int:
        """Count the hubs that were started: each says in one line that it runs, or why not."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return sum("the room is kept in" not in line for line in lines)

    def end(self) -> None:
        """End the hub, if there is one, and see it end."""
        if (process := self.hub()) is not None:
            os.kill(process, signal.SIGTERM)
            eventually(lambda: self.hub() is None, "the end of the hub")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Give a user without a hub; one that was started is ended."""
    home = Home(tmp_path / "state")
    try:
        yield home
    finally:
        home.end()


def setup_of(bridge: BridgeProcess) -> tuple[dict[str, Any], str]:
    """Call setup; give what the first line tells besides, and the rest."""
    first, _, rest = bridge.call("setup").partition("\n")
    return json.loads(first), rest


def test_a_bridge_starts_the_hub_that_is_not_there_and_goes_on_with_the_call(home: Home, tmp_path: Path) -> None:
    with bridge_at(home.url, tmp_path, env=home.env) as bridge:
        bridge.initialize("2025-06-18")
        bridge.ask("tools/list")
        assert home.hub() is None  # no tool was called
        news, rules = setup_of(bridge)
        assert "Next: join()" in rules
        assert news["note"].startswith(f"no hub ran: one, process {home.hub()}, was started.")
        assert home.url in news["note"]
        assert str(home.log) in news["note"]
        assert "note" not in bridge.call("whoami")
        assert bridge.join("api")["joined"] is True
        assert home.starts() == 1


def test_a_started_hub_outlives_its_bridge(home: Home, tmp_path: Path) -> None:
    with bridge_at(home.url, tmp_path, env=home.env) as bridge:
        bridge.join("api")
        started = home.hub()
        assert bridge.end().code == 0
    assert home.hub() == started is not None
    assert call(home.port, "GET", "/peers")[1]["peers"] == []
    if sys.platform != "win32":
        assert os.getsid(started) == started  # what ends the host's session does not end it


def test_bridges_that_ask_at_once_start_one_hub(home: Home, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        bridges = [stack.enter_context(bridge_at(home.url, tmp_path, env=home.env)) for _ in range(3)]
        for bridge in bridges:
            bridge.initialize("2025-06-18")  # all are up
        asked = [bridge.tool("setup") for bridge in bridges]
        for bridge, request in zip(bridges, asked, strict=True):
            bridge.send(request)
        for bridge, request in zip(bridges, asked, strict=True):
            assert "Next: join()" in bridge.answer(request)["result"]["content"][0]["text"]
        assert home.starts() == 1


def test_a_bridge_starts_a_hub_once_and_not_again(home: Home, tmp_path: Path) -> None:
    with bridge_at(home.url, tmp_path, env=home.env) as bridge:
        bridge.call("setup")
        home.end()
        refused = bridge.call("list_peers")
        assert refused["error"] == "hub_unreachable"
        assert "note" not in refused
        assert home.hub() is None
        assert home.starts() == 1


def test_a_hub_that_ended_after_the_first_call_is_started_before_the_next(home: Home, tmp_path: Path) -> None:
    with running_hub() as hub:
        home.port, home.url = hub.port, hub.url
        home.log = home.state / f"hub-{hub.port}.log"
        with bridge_at(hub.url, tmp_path, env=home.env) as bridge:
            assert bridge.call("setup").startswith("#")
            hub.process.terminate()
            hub.process.wait(DEADLINE_S)
            assert "was started" in bridge.call("list_peers")["note"]


def test_the_end_of_a_bridge_starts_no_hub(home: Home, tmp_path: Path) -> None:
    with running_hub() as hub:
        home.port = hub.port
        with bridge_at(hub.url, tmp_path, env=home.env) as bridge:
            bridge.join("api")
            hub.process.terminate()
            hub.process.wait(DEADLINE_S)
            assert bridge.end().code == 0
    assert home.hub() is None


def test_without_the_variable_no_hub_is_started(home: Home, tmp_path: Path) -> None:
    for value in ("", "0"):
        with bridge_at(home.url, tmp_path, env={**home.env, "CAUCUS_AUTOSTART": value}) as bridge:
            assert bridge.call("setup")["error"] == "hub_unreachable"
    assert not home.state.exists()


@pytest.mark.parametrize("url", ["http://192.0.2.1:{}", "https://127.0.0.1:{}", "http://127.0.0.1:{}/behind/a/proxy"])
def test_a_hub_elsewhere_is_never_started(url: str, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caucus, "start_detached", lambda *_: pytest.fail("it would start one"))
    monkeypatch.setenv("CAUCUS_AUTOSTART", "1")
    assert caucus.HubStarter(url.format(home.port)).ensure() == ""


def test_a_hub_that_cannot_be_started_is_told_with_its_log(home: Home, tmp_path: Path) -> None:
    env = {**home.env, "CAUCUS_OBSERVER_TOKEN": "w"}  # without an operator's: the hub refuses
    with bridge_at(home.url, tmp_path, env=env) as bridge:
        refused = bridge.call("setup")
        assert refused["error"] == "hub_unreachable"
        assert refused["note"] == f"no hub ran, and one that was started ended with exit code 2: {home.log} says why"
        assert "--observer-token" in home.log.read_text(encoding="utf-8")


def test_a_place_that_cannot_be_written_is_told(home: Home, tmp_path: Path) -> None:
    home.state.parent.mkdir(parents=True)
    home.state.write_text("a file where the folder should be", encoding="utf-8")
    with bridge_at(home.url, tmp_path, env=home.env) as bridge:
        refused = bridge.call("setup")
        assert refused["error"] == "hub_unreachable"
        assert "none could be started" in refused["note"]
        assert str(home.log) in refused["note"]
    home.state.unlink()


def test_the_log_of_a_started_hub_begins_anew_when_it_is_large_and_is_private(home: Home, tmp_path: Path) -> None:
    home.state.mkdir(parents=True)
    home.log.write_bytes(b"x" * 1_000_001)
    with bridge_at(home.url, tmp_path, env=home.env) as bridge:
        bridge.call("setup")
    assert home.log.stat().st_size < 1000
    if sys.platform != "win32":
        assert home.log.stat().st_mode & 0o777 == 0o600


def test_a_short_log_is_kept(home: Home, tmp_path: Path) -> None:
    home.state.mkdir(parents=True)
    home.log.write_bytes(b"what was before\n")
    with bridge_at(home.url, tmp_path, env=home.env) as bridge:
        bridge.call("setup")
    assert home.log.read_text(encoding="utf-8").startswith("what was before\n")


def test_where_another_program_listens_no_hub_is_started(home: Home, tmp_path: Path) -> None:
    with stub_hub(lambda path, body: (200, b"<html>")) as stub, bridge_at(stub.url, tmp_path, env=home.env) as bridge:
        assert bridge.call("setup")["error"] == "hub_unreachable"
    assert not home.state.exists()
