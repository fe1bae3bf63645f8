"""What happens to a meeting at bad moments: somebody kills, stops or floods what takes part in it."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hubs import HubProcess, eventually, running_hub
from test_meet import AGENT, TITLE, Held, an_agent, hold, meeting, read, running_in  # noqa: F401  # a fixture

import caucus

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self"), reason="processes are compared as Linux shows them")
# What a process of a meeting is, by words of its command line.
KINDS = {
    "meet": r" meet \S+meeting\.toml",
    "ann": r" agent --hub\S* --project=ann",
    "bob": r" agent --hub\S* --project=bob",
    "command": r"mind\.py stubborn$",
    "left": r"time\.sleep\(600\)",  # what the command has started, in a session of its own
}


def pids_in(folder: Path) -> dict[str, int]:
    """Map the kinds of processes that run to their numbers; of what an agent forks only the agent itself counts."""
    found: dict[str, int] = {}
    for line in running_in(folder):
        pid, _, words = line.strip().partition(" ")
        for kind, pattern in KINDS.items():
            if re.search(pattern, words):
                found[kind] = min(int(pid), found.get(kind, int(pid)))
    return found


def kill(held: Held, victim: str, ended: set[str]) -> None:
    """Wait until all kinds run, and kill one; see that those have ended within 10 s, and the others live."""
    look = functools.partial(pids_in, held.folder)
    before = eventually(lambda: len(found := look()) == len(KINDS) and found, "all of them", 20.0)
    os.kill(before[victim], signal.SIGKILL)
    if victim == "meet":
        held.process.wait()
    doomed = {before[kind] for kind in ended}
    eventually(lambda: not doomed & {*look().values()}, f"the end of {ended}")
    assert {before[kind] for kind in KINDS.keys() - ended} <= {*look().values()}


def test_who_is_killed_takes_its_own_with_it_and_nobody_else(
    tmp_path: Path, hold: Callable[..., Held]  # noqa: F811
) -> None:
    with running_hub() as hub:
        agents = an_agent(tmp_path, "ann", "stubborn"), an_agent(tmp_path, "bob", "quiet")
        held = hold(meeting(*agents).replace('opening = "Please begin."', ""), "--hub", hub.url)
        held.until_told("is open")
        guest = hub.register("guest")
        hub.say(guest, "ann", "Go.")
        kill(held, "command", {"command", "left"})
        assert "My turn failed" in str(eventually(lambda: hub.receive(guest, 0.5)["messages"], "its failure"))
        hub.say(guest, "ann", "Go.")
        kill(held, "ann", {"ann", "command", "left"})
        eventually(lambda: [line for line in held.told if "seated" in line][2:], "its second life", 20.0)
        hub.say(guest, "ann", "Go.")
        os.kill(pids_in(tmp_path)["bob"], signal.SIGSTOP)  # it ends all the same
        kill(held, "meet", {*KINDS})
        eventually(lambda: not running_in(tmp_path), "the end of all")
        eventually(lambda: hub.get("/peers").body["peers"] == ["guest"], "an empty room")


def test_when_its_hub_is_killed_it_ends_with_all_that_it_has_started(
    tmp_path: Path, hold: Callable[..., Held]  # noqa: F811
) -> None:
    hub = HubProcess()
    held = hold(meeting(an_agent(tmp_path, "ann", "stubborn"), an_agent(tmp_path, "bob", "quiet")), "--hub", hub.url)
    eventually((tmp_path / "is-stubborn").exists, "the command", 25.0)
    hub.process.kill()
    code, about = held.end(10.0)
    assert (code, about["ended"]) == (1, "the hub has gone")
    hub.stop()


@pytest.mark.parametrize(
    ("code", "reason", "told"),
    [
        (1001, "the hub ended", "the hub has gone"),
        (None, None, "the hub has gone"),
        (1013, "fell behind", "the hub has closed the operator's chair: fell behind"),
    ],
)
def test_a_hub_that_is_there_still_is_not_said_to_have_gone(code: int | None, reason: str | None, told: str) -> None:
    chair = caucus.Chair("")
    chair._socket = SimpleNamespace(close_code=code, close_reason=reason)
    assert chair.farewell() == told


@pytest.mark.parametrize(("code", "told"), [(1001, "the hub has gone"), (1008, "asks for its operator's token")])
def test_a_hub_that_ends_before_it_shows_its_room_is_not_said_to_ask_for_a_token(
    monkeypatch: pytest.MonkeyPatch, code: int, told: str
) -> None:
    async def nothing(_: object = None) -> None:
        """Say nothing."""

    async def connected(*_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(read_message=nothing, write_message=nothing, close_code=code, close_reason="so it is")

    monkeypatch.setattr("tornado.websocket.websocket_connect", connected)
    with pytest.raises(caucus.NotReady, match=told):
        asyncio.run(caucus.Chair("http://127.0.0.1:1").sit_down())


def test_who_takes_an_agents_name_before_it_comes_is_not_taken_for_it(tmp_path: Path) -> None:
    company = caucus.Company(read(tmp_path, TITLE + AGENT).attendees, lambda words: None)
    ann = company.agents["ann"]
    ann.call_in()
    ann._process = SimpleNamespace(poll=lambda: None)  # it has started, and has no seat yet
    row = {"name": "ann", "state": "live", "usage": None, "status": "", "listening": True, "deaf_age": 0.0}
    message = {"sender": "ann", "origin": "agent", "content": "It is me."}
    seen = []
    for line in ("10:00:00 INFO mind.py: hello", "10:00:00 INFO ann has joined the room at http://127.0.0.1:8765"):
        ann._add_line(line)
        news = ann.look("", 0.0)
        company.hear({"type": "peers", "peers": [row]})
        company.hear({"type": "message", "message": message})
        seen.append((news, ann.row()["state"], ann.messages))
    assert seen == [("", "starting", 0), ("ann is seated", "waiting", 1)]
