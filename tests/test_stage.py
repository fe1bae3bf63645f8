"""The stage: what consoles are told of the agents that a hub may start, who may rule them, and how they end with it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nursery
import pytest
from fakes import FakeClock, RecordingRoom
from hubs import START, Console, HubProcess, eventually
from test_console import FakeSocket, Timers, consoles_of
from test_meet import agent_in, an_agent, meeting, running_in, runs_of
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Origin

import caucus

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes are compared as Unix shows them")
NO_HEAD = caucus.Head({})
OPERATOR, OBSERVER = "op-secret", "watch-secret"
NOT_AGENTS = ["bob", "../ann", "/bin/sh", "ann; sh", "--exec=sh", "", "Ann", "ann\0", "hub", "__class__"]


class Prompter:
    """A stage that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def rows(self) -> list[Any]:
        """Give one row."""
        return [{"name": "ann", "state": f"told {len(self.told)}"}]

    def rule(self, verb: str, name: str) -> None:
        """Keep it."""
        self.told.append((verb, name))

    def output(self, name: str) -> dict[str, Any]:
        """Say who was asked for."""
        return {"agent": name, "lines": []}


@pytest.fixture
def consoles(room: RecordingRoom, clock: FakeClock) -> tuple[caucus.Consoles, Timers]:
    """Give consoles that ask for a token."""
    return consoles_of(room, clock, OPERATOR)


@pytest.fixture
def room(clock: FakeClock) -> RecordingRoom:
    """Give a room."""
    return RecordingRoom(clock)


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock."""
    return FakeClock()


def opened(consoles: caucus.Consoles, timers: Timers, token: str = OPERATOR, **more: Any) -> tuple[Any, FakeSocket]:
    """Open a console; give it, and what it is sent from here on."""
    browser = FakeSocket()
    console = consoles.open(browser, caucus.Head({"Authorization": f"Bearer {token}"}), "", **more)
    timers.ring()
    return console, browser


def test_the_stage_is_told_to_consoles_of_our_own_five_times_a_second_at_most(
    consoles: tuple[caucus.Consoles, Timers],
) -> None:
    ours, timers = consoles
    ours.stage = stage = Prompter()
    console, browser = opened(ours, timers, wants_changes=True)
    _, original = opened(ours, timers)
    first = browser.take("snapshot")[0]["stage"]
    assert first == {"off": "", "agents": stage.rows(), "ts": first["ts"]}
    for n in range(50):
        ours.on_frame(console, json.dumps({"stage": ("start", "end", "restart")[n % 3], "agent": "ann"}))
        ours.on_stage_changed()
    assert [seconds for seconds, _ in timers.set].count(caucus.STAGE_TOLD_S) == 1
    assert stage.told[:3] == [("start", "ann"), ("end", "ann"), ("restart", "ann")]
    timers.ring()
    [told] = browser.take("stage", "error")
    assert told == {"type": "stage", "off": "", "agents": stage.rows(), "ts": told["ts"]}
    assert original.take("stage") == []


@pytest.mark.parametrize("frame", [{"stage": "start", "agent": "ann"}, {"output": "ann"}])
def test_who_is_no_operator_and_who_has_no_stage_is_refused(
    consoles: tuple[caucus.Consoles, Timers], frame: dict[str, Any]
) -> None:
    ours, timers = consoles
    console, browser = opened(ours, timers, wants_changes=True)
    assert "--stage FILE" in browser.take("snapshot")[0]["stage"]["off"]
    ours.on_frame(console, json.dumps({"share": True}))
    token = browser.take("shares")[0]["made"]["token"]
    ours.on_frame(console, json.dumps(frame))
    error = browser.take("error")[0]
    assert (error["reason"], error["command"]) == ("stage_off", next(iter(frame)))
    assert "--stage FILE" in error["detail"]
    ours.stage = stage = Prompter()
    guest, theirs = opened(ours, timers, token, wants_changes=True)
    assert theirs.take("snapshot")[0]["stage"]["agents"] == stage.rows()
    ours.on_frame(guest, json.dumps(frame))
    assert theirs.take("error", "output")[0]["reason"] == "forbidden"
    assert stage.told == []


@pytest.mark.parametrize(("frame", "reason"), [
    ({"stage": "kill", "agent": "ann"}, "unknown_action"), ({"stage": "", "agent": "ann"}, "invalid"),
    ({"stage": 7, "agent": "ann"}, "invalid"), ({"stage": "start"}, "invalid"),
    ({"stage": "start", "agent": ["ann"]}, "invalid"), ({"stage": "start", "agent": "a" * 500}, "invalid"),
    ({"output": None}, "invalid"), ({"output": {"name": "ann"}}, "invalid"),
])  # fmt: skip
def test_a_command_that_makes_no_sense_reaches_no_stage(
    consoles: tuple[caucus.Consoles, Timers], frame: dict[str, Any], reason: str
) -> None:
    ours, timers = consoles
    ours.stage = stage = Prompter()
    console, browser = opened(ours, timers)
    ours.on_frame(console, json.dumps(frame))
    assert browser.take("error", "output")[0]["reason"] == reason
    assert stage.told == []


def test_a_program_in_the_operators_chair_counts_as_no_console(consoles: tuple[caucus.Consoles, Timers]) -> None:
    ours, timers = consoles
    opened(ours, timers, is_program=True)
    _, browser = opened(ours, timers)
    timers.ring()
    assert browser.take("snapshot")[0]["health"]["console_count"] == 1


def test_questions_for_what_agents_have_written_have_a_bound(consoles: tuple[caucus.Consoles, Timers]) -> None:
    ours, timers = consoles
    ours.stage = Prompter()
    console, browser = opened(ours, timers)
    for _ in range(int(caucus.OUTPUTS_BURST) + 20):
        ours.on_frame(console, json.dumps({"output": "ann"}))
    told = [frame.get("reason", "told") for frame in browser.take("output", "error")]
    assert {*told} == {"told", "rate_limited"}
    assert told.count("told") < caucus.OUTPUTS_BURST + 15


class Process:
    """What stands for a process: it runs until a test gives its exit code."""

    pid, stdin = 0, None

    def __init__(self) -> None:
        self.code: int | None = None

    def poll(self) -> int | None:
        """Give the exit code, if it has ended."""
        return self.code


def attending(*lines: str, code: int | None = None, **more: Any) -> tuple[caucus.Attending, str]:
    """Give an agent that has written some lines and has ended, or not; and what is told of that."""
    ann = caucus.Attending(caucus.Attendee("ann", "exec", "/", command="true", **more))
    ann.call_in()
    process: Any = Process()
    ann._process, ann._reader, ann._mark = process, SimpleNamespace(is_alive=lambda: False), "no such mark"  # type: ignore[assignment]
    for line in lines:
        ann._add_line(line)
    ann.look("", 0.0)
    process.code = code
    return ann, ann.look("", 0.0)


JOINED = "10:00:00 INFO ann has joined the room at http://127.0.0.1:8765"


def test_why_an_agent_has_ended_is_never_told_in_words_of_its_mind() -> None:
    secret = "10:00:01 INFO mind.py: API_TOKEN=secret"
    for code, last, why in (
        (-9, secret, "ended by signal 9 (Killed)"), (7, secret, "ended with exit code 7"),
        (3, "10:00:01 INFO mind.py: ann has left: (9 turns, 9 tokens, $99)", "ended with exit code 3"),
        (0, "10:00:01 INFO ann has left: the room was stopped (2 turns, 0 tokens)", "the room was stopped"),
        (2, "caucus agent: there is no program 'x'", "there is no program 'x'"),
    ):
        ann, told = attending(JOINED, last, code=code, restarts=0)
        assert ann.row()["why"] == why
        assert "secret" not in told
        assert ann.row()["dollars"] is None


def test_who_has_gone_without_leaving_gives_up_its_seat_and_nobody_elses() -> None:
    assert attending(JOINED, code=-9, restarts=0)[0].has_deserted
    assert not attending(code=-9, restarts=0)[0].has_deserted  # whoever bears its name is another
    assert not attending(JOINED, code=0)[0].has_deserted


def test_only_what_runs_can_be_ended_or_restarted_and_only_once() -> None:
    ann = caucus.Attending(caucus.Attendee("ann", "exec", "/", command="true"))
    for comes_back in (False, True):
        with pytest.raises(caucus.NotNow, match="does not run"):
            ann.send_off(0.0, comes_back)
    running, _ = attending(JOINED)
    running.send_off(0.0)
    with pytest.raises(caucus.NotNow, match="ending already"):
        running.send_off(0.0)


def test_an_agent_that_asks_for_nothing_any_more_is_silent() -> None:
    ann, _ = attending(JOINED)
    seen: dict[str, Any] = {"state": "live", "usage": None, "status": "composing", "listening": False, "deaf_age": 0.0}
    states = []
    for more in ({}, {"deaf_age": caucus.SILENT_S}, {"state": "reaped"}, {"status": "", "listening": True}):
        ann.note_row(seen | more)
        states.append(ann.row()["state"])
    assert states == ["thinking", "silent", "silent", "waiting"]


def test_a_folder_that_became_another_one_is_not_worked_in(tmp_path: Path) -> None:
    plan = caucus.Attendee("ann", "exec", str(tmp_path), command="true", real_cwd=str(tmp_path / "elsewhere"))
    ann = caucus.Attending(plan)
    ann.call_in()
    ann.look("", 0.0)
    assert (ann.row()["state"], ann.is_gone) == ("failed", True)
    assert str(ann.row()["why"]).startswith("cannot start: its folder is another")


@pytest.mark.parametrize("name", NOT_AGENTS)
def test_only_a_name_of_the_file_is_an_agent(name: str) -> None:
    company = caucus.Company([caucus.Attendee("ann", "exec", "/", command="true")], lambda words: None)
    for ask in (company.output, lambda one: company.rule("start", one)):
        with pytest.raises(caucus.UnknownAgent):
            ask(name)
    assert [row["state"] for row in company.rows()] == ["ready"]  # type: ignore[call-overload, index]


def test_while_all_are_being_ended_nobody_is_started() -> None:
    company = caucus.Company([caucus.Attendee("ann", "exec", "/", command="true")], lambda words: None)
    asyncio.run(company.end(lambda: False))
    with pytest.raises(caucus.NotNow):
        company.rule("start", "ann")


@pytest.mark.parametrize(("line", "shown"), [
    (b"\x1b[31mred\x1b[0m \x1b]0;title\x07plain\x1b[2K\n", "red plain"), (b"10%\r90%\r\n", "90%"),
    (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\ on", "link on"), (b"\x1b[", ""), (b"\x1b]52;c;YQ==", ""),
    ("\x9b31mc1 \u202eold\u200b \x07\x08".encode(), "c1 old "), (b"\tin \xff", "    in \ufffd"), (b" \n", ""),
    (b"a" * 4096, "a" * caucus.OUTPUT_LINE_MAX), ("\x9d0;title\x9con".encode(), "on"),
])  # fmt: skip
def test_a_line_of_output_is_what_a_terminal_would_show(line: bytes, shown: str) -> None:
    assert caucus.shown_of(line) == shown


# --- a hub with a stage ---


@pytest.fixture
def staged(tmp_path: Path) -> Iterator[HubProcess]:
    """Give a hub whose stage has one who talks, one who does not end, and one that cannot be started."""
    text = meeting(
        an_agent(tmp_path, "ann", "talk", 'mission = "Speak."', "messages = 9"),
        an_agent(tmp_path, "slow", "stubborn", 'mission = "Speak."'),
        '[agents.lost]\nkind = "exec"\ncommand = "no-such-program-here"',
    )
    (tmp_path / "stage.toml").write_text(text, encoding="utf-8")
    flags = ("--operator-token", OPERATOR, "--observer-token", OBSERVER, "--agent-key", "K")
    env = {"SECRET_OF_HUB": "s", "CAUCUS_BUDGET": "x: 3 wakes"}
    one = HubProcess(*flags, "--stage", str(tmp_path / "stage.toml"), env=env)
    try:
        yield one
    finally:
        one.process.kill()
        one.stop()


def row(console: Console, name: str, *states: str) -> Any:
    """Wait until an agent is in one of these states; give its row."""
    while True:
        agents = console.next("stage")["agents"]
        if found := [one for one in agents if one["name"] == name and one["state"] in states]:
            return found[0]


def what_a_foreign_page_hears(hub: HubProcess) -> int:
    """Command the stage from a page of another origin, with the right token; give the code that closes it."""
    with connect(f"ws://127.0.0.1:{hub.port}/ui", proxy=None, origin=Origin("http://evil.example")) as page:
        try:
            for frame in ({"auth": OPERATOR}, {"stage": "start", "agent": "ann"}):
                page.send(json.dumps(frame))
            page.recv(timeout=5)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd is not None else 0
    return 0


def refusal(console: Console, **frame: Any) -> str:
    """Ask for something that is refused; give the reason."""
    console.send(**frame)
    return str(console.next("error")["reason"])


def test_agents_are_started_and_ended_from_the_console_and_end_with_the_hub(staged: HubProcess, tmp_path: Path) -> None:
    with staged.console(OPERATOR, "/ui?changes=1") as console:
        assert [one["state"] for one in console.snapshot["stage"]["agents"]] == ["ready"] * 3
        assert [line for line in running_in(tmp_path) if " agent " in line] == []  # nothing is started by itself
        api = staged.register("api", "K")  # somebody to talk to: missions begin at once
        for name in ("ann", "slow", "lost"):
            console.send(stage="start", agent=name)
        assert refusal(console, stage="start", agent="ann") == "not_now"
        lost = row(console, "lost", "failed")
        assert lost["why"] == "there is no program 'no-such-program-here': install it, or give its path"
        assert lost["exit_code"] == caucus.EXIT_USAGE
        eventually(lambda: "I say so." in staged.get("/export", OPERATOR).text, "a word of ann", 20.0)
        eventually((tmp_path / "is-stubborn").exists, "the other mind at it", 20.0)
        [told, *_] = runs_of(tmp_path, "talk")
        assert not {"SECRET_OF_HUB", "CAUCUS_AGENT_KEY", "CAUCUS_OPERATOR_TOKEN"} & told["env"].keys()
        console.send(output="slow")
        said = console.next("output")
        assert (said["agent"], said["cwd"], said["total"]) == ("slow", str(tmp_path), len(said["lines"]))
        assert "mind.py stubborn" in said["runs"]
        console.send(stage="restart", agent="ann")
        row(console, "ann", "starting")
        assert row(console, "ann", "seated", "waiting")["restarts"] == 0  # those are its own failures
        console.send(stage="end", agent="ann")
        assert row(console, "ann", "ended")["exit_code"] == 0
        with staged.console(OPERATOR) as another:
            assert another.snapshot["budgets"]["text"] == "x: 3 wakes; ann: 9 messages"
            another.send(raise_budget={"spender": "ann", "measure": "messages", "to": 12})
        while "12 messages" not in (limits := console.next("stage")["agents"][0]["limits"]):  # as the hub has it
            assert "9 messages" in limits
        for path in ("/send", "/control", "/stage", "/output"):  # no peer has a way to it
            staged.post(path, api, stage="start", output="slow", agent="ann", to="ann", content="start")
        assert what_a_foreign_page_hears(staged) == 1008
        with staged.console(OBSERVER, "/ui?changes=1") as observer:
            assert refusal(observer, stage="start", agent="ann") == refusal(observer, output="slow") == "forbidden"
            [ann, slow, _] = observer.snapshot["stage"]["agents"]
            assert (ann["state"], slow["state"]) == ("ended", "thinking")
            assert str(tmp_path) not in json.dumps([ann, slow])
        staged.process.send_signal(signal.SIGINT)
    assert staged.process.wait(caucus.ASK_S + caucus.TERM_S + 1.0) == 0
    assert running_in(tmp_path) == []


def test_after_a_kill_of_the_agent_or_of_the_hub_it_can_be_started_again(tmp_path: Path) -> None:
    (tmp_path / "stage.toml").write_text(meeting(an_agent(tmp_path, "ann", "quiet", "restarts = 0")), encoding="utf-8")
    flags = ("--stage", str(tmp_path / "stage.toml"), "--journal", str(tmp_path / "room.journal"))
    for _ in range(2):
        hub = HubProcess(*flags)
        with hub.console(path="/ui?changes=1") as console:
            for _ in range(2):
                console.send(stage="start", agent="ann")
                row(console, "ann", "seated", "waiting")
                os.kill(agent_in(tmp_path), signal.SIGKILL)
                assert row(console, "ann", "failed")["why"].startswith("ended by signal 9")
            console.send(stage="start", agent="ann")
            row(console, "ann", "seated", "waiting")
            hub.process.kill()
        hub.stop()
        eventually(lambda: running_in(tmp_path) == [], "nothing runs", 10.0)


def test_when_the_hub_is_killed_its_agents_end(staged: HubProcess, tmp_path: Path) -> None:
    with staged.console(OPERATOR, "/ui?changes=1") as console:
        console.send(stage="start", agent="ann")
        row(console, "ann", "seated", "waiting", "thinking")
        assert [line for line in running_in(tmp_path) if " agent " in line] != []
        staged.process.kill()
    eventually(lambda: running_in(tmp_path) == [], "nothing runs", 10.0)


@pytest.mark.parametrize(("flags", "words"), [
    (("--host", "0.0.0.0", "--allow-insecure-bind"), "--stage: whoever reaches this hub could start agents"),
    (("--public-url", "https://box.example", "--allow-insecure-bind"), "--stage: whoever reaches this hub could start"),
    ((), "agents.ann has no key 'comand' (did you mean command?)"),
    (("--allowed-origin", "http://evil.example"), "--stage: whoever reaches this hub could start agents"),
    (("--set", "agents.ann.trns=1"), "'agents.ann.trns=1' sets nothing"),
])  # fmt: skip
def test_a_stage_that_strangers_could_rule_and_a_file_with_mistakes_are_refused(
    flags: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    file = tmp_path / "stage.toml"
    file.write_text('[meeting]\ntitle = "T"\n[agents.ann]\nkind = "exec"\ncomand = "true"\n', encoding="utf-8")
    argv = [sys.executable, START, "hub", "--port", "0", "--no-browser", "--stage", str(file), *flags]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("CAUCUS_")}
    done = nursery.run(argv, env=clean)
    assert (done.returncode, done.stdout) == (caucus.EXIT_USAGE, "")
    assert words in done.stderr
