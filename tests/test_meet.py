"""Meetings: what their files may say, how they are held, and that nothing of them is left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hubs import DEADLINE_S, Console, HubProcess, eventually, running_hub
from mcp_official import built_pyz
from websockets.sync.client import connect

import caucus

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = str(ROOT / "caucus.py")
DOCUMENT = ROOT / "docs/meetings.md"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes are compared as Unix shows them")

# What stands in for a model. It tells in a file of its own how it was run.
MIND = """\
import json, os, signal, subprocess, sys, time
mode, said = sys.argv[1], sys.stdin.read()
here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, f"ran-{mode}-{os.getpid()}"), "w") as file:
    json.dump({"said": said, "cwd": os.getcwd(), "env": dict(os.environ)}, file)
if mode == "talk":
    print("I say so.")
elif mode == "crash":
    os.kill(os.getppid(), signal.SIGKILL)
elif mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", here], start_new_session=True)
    open(os.path.join(here, "is-stubborn"), "w").close()
    time.sleep(600)
else:
    print("PASS")
"""


def mind(folder: Path, mode: str) -> str:
    """Give a command that stands in for a model, as a file of a meeting has it."""
    (folder / "mind.py").write_text(MIND, encoding="utf-8")
    return json.dumps(f"{sys.executable} {folder / 'mind.py'} {mode}")


def runs_of(folder: Path, mode: str) -> list[Any]:
    """Tell how a stand-in was run, each time."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob(f"ran-{mode}-*")]


def running_in(folder: Path) -> list[str]:
    """List the processes whose command lines name a folder, or that work in it."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            if str(folder) in words or str(folder) in os.readlink(f"/proc/{pid}/cwd"):
                found.append(f"{pid} {words}")
    return found


def agent_in(folder: Path) -> int:
    """Give the process of the only agent; what it forks looks like it, until that becomes another program."""
    return min(int(line.split()[0]) for line in running_in(folder) if " agent --hub" in line)


@pytest.fixture(scope="module", autouse=True)
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Build what users have: its agents start in a quarter of the time that Python takes to compile a script."""
    with built_pyz(tmp_path_factory.mktemp("pyz")) as built:
        Held.program = str(built)
        yield


class Held:
    """A meeting that is held, in a process of its own."""

    program = PROGRAM

    def __init__(self, folder: Path, text: str, *flags: str, python: Path | str = "", **variables: str) -> None:
        self.folder = folder
        (folder / "meeting.toml").write_text(text, encoding="utf-8")
        clean = {key: value for key, value in os.environ.items() if not key.startswith("CAUCUS_")}
        argv = [str(python or sys.executable), self.program, "meet", str(folder / "meeting.toml")]
        self.process = subprocess.Popen(
            [*argv, "--no-browser", "--json", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean | variables,
        )
        self.told: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.told.append(line.rstrip("\n"))

    def until_told(self, pattern: str) -> re.Match[str]:
        """Wait until it tells of something."""
        look = lambda: next(filter(None, [re.search(pattern, line) for line in [*self.told]]), None)  # noqa: E731
        try:
            found: re.Match[str] = eventually(look, pattern, 25.0)
        except AssertionError:
            self.process.kill()
            raise AssertionError(f"{pattern!r} is not in {self.told}") from None
        return found

    @property
    def url(self) -> str:
        """Give its hub's address."""
        return self.until_told(r"console is at (http://\S+)")[1]

    @contextlib.contextmanager
    def console(self) -> Iterator[Console]:
        """Open its console."""
        with connect(f"ws{self.url.removeprefix('http')}/ui", proxy=None) as socket:
            console = Console(socket)
            console.next("snapshot")
            yield console

    def end(self, limit_s: float = 30.0) -> tuple[int, Any]:
        """Wait for its end; give the exit code and the summary. Nothing of it runs on."""
        assert self.process.stdout is not None
        try:
            self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"it does not end: {self.told}") from None
        said = self.process.stdout.read()
        self._reader.join(DEADLINE_S)
        assert running_in(self.folder) == []
        return self.process.returncode, json.loads(said) if said else None

    def close(self) -> None:
        """Close its pipes."""
        self._reader.join(DEADLINE_S)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Callable[..., Held]]:
    """Hold meetings in a folder, and end what a test has left."""
    held: list[Held] = []

    def begin(text: str, *flags: str, **more: Any) -> Held:
        held.append(Held(tmp_path, text, *flags, **more))
        return held[-1]

    yield begin
    for one in held:
        if one.process.poll() is None:
            one.process.terminate()
            one.process.wait(20.0)
        one.close()


def meeting(*parts: str, title: str = "Test") -> str:
    """Write a meeting's file."""
    return "\n".join([f'[meeting]\ntitle = "{title}"\nopening = "Please begin."', *parts])


def an_agent(folder: Path, name: str, mode: str, *more: str) -> str:
    """Write an agent of a meeting's file."""
    return "\n".join([f"[agents.{name}]", 'kind = "exec"', f"command = {mind(folder, mode)}", *more])


# --- how it is held ---


def test_agents_are_seated_then_it_is_opened_and_it_ends_when_all_have_ended(
    tmp_path: Path, hold: Callable[..., Held]
) -> None:
    held = hold(meeting(an_agent(tmp_path, "ann", "talk", "turns = 1"), an_agent(tmp_path, "bob", "talk", "turns = 1")))
    code, about = held.end()
    order = [re.sub(r"^caucus: (ann|bob)", "ONE", line) for line in held.told if "console is at" not in line]
    assert order == [
        *["ONE is seated"] * 2,
        "caucus: the meeting is open",
        *["ONE has ended"] * 2,
        "caucus: the meeting ends: all agents have ended",
    ]
    assert code == 0
    assert about["ended"] == "all agents have ended"
    assert [(one["name"], one["state"], one["exit_code"], one["turns"]) for one in about["agents"]] == [
        ("ann", "ended", 0, 1),
        ("bob", "ended", 0, 1),
    ]
    assert all(one["messages"] >= 1 and one["characters"] >= len("I say so.") for one in about["agents"])
    assert any("Please begin." in run["said"] for run in runs_of(tmp_path, "talk"))


def test_an_agent_is_told_who_it_is_in_its_folder_and_gets_what_is_named_of_the_environment(
    tmp_path: Path, hold: Callable[..., Held]
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "who.md").write_text("You are the one who doubts {topic}.", encoding="utf-8")
    more = ("turns = 1", 'persona_file = "who.md"', 'cwd = "work"', 'environment = ["TOLD"]', 'mission = "Find out."')
    text = meeting(
        'topic = "the plan"',
        an_agent(tmp_path, "ann", "talk", *more),
        '[channels."#plan"]\ntopic = "What becomes of {topic}"\nmembers = ["ann"]',
    )
    held = hold(text, TOLD="told", SECRET="secret")
    assert held.end()[0] == 0
    [run] = runs_of(tmp_path, "talk")
    assert "You are the one who doubts the plan." in run["said"]
    assert "Find out." in run["said"]
    assert run["cwd"] == str(tmp_path / "work")
    assert run["env"]["TOLD"] == "told"
    assert "SECRET" not in run["env"]


def test_a_channel_has_its_topic_and_its_members(tmp_path: Path, hold: Callable[..., Held]) -> None:
    channel = '[channels."#plan"]\ntopic = "What becomes of it"\nmembers = ["ann", "bob"]'
    held = hold(meeting(channel, *(an_agent(tmp_path, name, "quiet") for name in ("ann", "bob", "eve"))))
    held.until_told("is open")
    with contextlib.closing(caucus.Client(held.url)) as client:
        [(name, row)] = client.get("/channels")["channels"].items()  # type: ignore[union-attr]
    assert (name, row["topic"], sorted(row["members"])) == ("#plan", "What becomes of it", ["ann", "bob"])


# --- how it ends ---


def test_it_ends_when_its_time_is_over(tmp_path: Path, hold: Callable[..., Held]) -> None:
    code, about = hold(meeting("[limits]\nminutes = 0.05", an_agent(tmp_path, "ann", "quiet"))).end()
    assert (code, about["ended"]) == (0, "its 0.05 minutes are over")


def test_it_ends_when_the_rooms_messages_are_spent(tmp_path: Path, hold: Callable[..., Held]) -> None:
    agents = [an_agent(tmp_path, name, "talk") for name in ("ann", "bob")]
    code, about = hold(meeting("[limits]\nmessages = 3", *agents)).end()
    assert (code, about["ended"]) == (0, "the room's 3 messages are spent")


def test_it_ends_with_stop_of_the_console(tmp_path: Path, hold: Callable[..., Held]) -> None:
    held = hold(meeting(an_agent(tmp_path, "ann", "quiet")))
    held.until_told("is open")
    with held.console() as console:
        console.send(output="ann")  # its stage is on by itself
        assert console.next("output", "error")["agent"] == "ann"
        console.send(action="stop")
        console.next("mode")
    code, about = held.end()
    assert (code, about["ended"]) == (0, "the room was stopped")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_with_a_signal(tmp_path: Path, hold: Callable[..., Held], number: signal.Signals) -> None:
    held = hold(meeting(an_agent(tmp_path, "ann", "quiet")))
    held.until_told("is open")
    held.process.send_signal(number)
    code, about = held.end()
    assert (code, about["ended"]) == (0, "Ctrl-C, or a signal")
    assert about["agents"][0]["exit_code"] == 0  # it was told, and has left by itself


def test_who_does_not_end_is_ended_within_five_seconds_with_all_that_it_has_started(
    tmp_path: Path, hold: Callable[..., Held]
) -> None:
    held = hold(meeting(an_agent(tmp_path, "ann", "stubborn")))
    eventually((tmp_path / "is-stubborn").exists, "the stand-in", 25.0)
    held.process.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert held.end()[0] == 0
    assert time.monotonic() - began < 8.0  # five, and the end of the hub on a busy machine


def test_an_agent_that_hangs_is_killed_with_all_that_it_has_started(tmp_path: Path, hold: Callable[..., Held]) -> None:
    held = hold(meeting(an_agent(tmp_path, "ann", "stubborn")))
    eventually((tmp_path / "is-stubborn").exists, "the stand-in", 25.0)
    agent = agent_in(tmp_path)
    os.kill(agent, signal.SIGSTOP)
    held.process.send_signal(signal.SIGINT)
    code, about = held.end()
    assert (code, about["agents"][0]["exit_code"]) == (0, -signal.SIGKILL)


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path, hold: Callable[..., Held]) -> None:
    held = hold(meeting(an_agent(tmp_path, "ann", "quiet")))
    held.until_told("is open")
    agent = agent_in(tmp_path)
    os.kill(agent, signal.SIGSTOP)
    held.process.send_signal(signal.SIGINT)
    held.until_told("the meeting ends")
    held.process.send_signal(signal.SIGINT)
    began = time.monotonic()
    held.end()
    assert time.monotonic() - began < caucus.ASK_S + caucus.TERM_S


def test_when_it_is_killed_its_agents_end_with_all_that_they_have_started(
    tmp_path: Path, hold: Callable[..., Held]
) -> None:
    held = hold(meeting(an_agent(tmp_path, "ann", "stubborn"), an_agent(tmp_path, "bob", "quiet")))
    eventually((tmp_path / "is-stubborn").exists, "the stand-in", 25.0)
    held.until_told("is open")
    held.process.kill()
    held.process.wait()
    eventually(lambda: not running_in(tmp_path), "the end of its agents")  # within 10 s


# --- its last words and its outcome ---

CLOSING = 'closing = "One last word each, please."'


def with_closing(*parts: str, seconds: float = 60) -> str:
    """Write a meeting's file that has a closing and an outcome."""
    more = f'opening = "Please begin."\n{CLOSING}\nclosing_seconds = {seconds:g}\noutcome = "out/outcome.md"'
    return meeting(*parts).replace('opening = "Please begin."', more)


def test_stand_ins_ask_their_form_and_say_last_words_and_both_are_in_the_outcome(
    tmp_path: Path, hold: Callable[..., Held]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/outcome.md").write_text("mine", encoding="utf-8")
    lines = 'lines = ["ASK Lunch?\\n- Soup\\n- Salad", "AFTER human: Enjoy {topic}."]'
    bob = '[agents.bob]\nkind = "stand-in"\nlines = ["AFTER ann: x"]'
    text = with_closing(an_agent(tmp_path, "ann", "talk", lines), bob)
    text = text.replace("closing =", 'topic = "lunch"\nends_on = ["Lunch?"]\nclosing =').replace("= 60", "= 2")
    held = hold(text, "--rehearse")
    with held.console() as console:
        form = console.next("form", "snapshot", where=lambda frame: frame["type"] == "form")["form"]
        console.send(answer={"id": form["id"], "answers": {"answer": "Soup"}})
        console.next("form_resolved")
        held.until_told("the closing is said: last words may take 2 s")
        assert console.message(sender="ann")["content"] == "Enjoy lunch."
    code, about = held.end()
    assert (code, about["title"], about["outcome"]) == (0, "Test, rehearsed", str(tmp_path / "out/outcome-2.md"))
    assert runs_of(tmp_path, "talk") == []
    told = (tmp_path / "out/outcome-2.md").read_text(encoding="utf-8")
    answered = "> ```\n> Your answer\n> - Soup\n> - Salad\n> ```\n\nThe operator's answer:\n\n> ```\n> Soup\n> ```\n"
    assert f"**Lunch?**, asked by ann:\n\n{answered}" in told
    assert "### ann\n\n> ```\n> Enjoy lunch.\n> ```\n" in told


def test_who_is_silent_has_its_last_words_from_before_and_what_cannot_be_written_is_told(
    tmp_path: Path, hold: Callable[..., Held]
) -> None:
    (tmp_path / "out").mkdir()
    text = with_closing("[limits]\nminutes = 0.04", an_agent(tmp_path, "ann", "quiet"))  # PASS is a turn
    held = hold(text)
    held.until_told("the closing is said")
    (tmp_path / "out").rmdir()
    code, about = held.end()
    assert (code, about["ended"], about["outcome"]) == (1, "its 0.04 minutes are over", None)
    assert about["agents"][0]["state"] == "ended"
    held.until_told(r"the outcome could not be written to .*outcome\.md: No such file or directory")


@pytest.mark.parametrize("way", ["stop", "ctrl-c in the closing"])
def test_no_last_words_are_waited_for_when_somebody_ends_it_and_the_outcome_is_written(
    tmp_path: Path, hold: Callable[..., Held], way: str
) -> None:
    (tmp_path / "out").mkdir()
    minutes = "[limits]\nminutes = 0.03" if "closing" in way else ""
    held = hold(with_closing(minutes, an_agent(tmp_path, "ann", "quiet")))
    held.until_told("the closing is said" if minutes else "is open")
    if way == "stop":
        with held.console() as console:
            console.send(action="stop")
            console.next("mode")
    else:
        held.process.send_signal(signal.SIGINT)
    code, about = held.end(10.0)
    why = "its 0.03 minutes are over" if minutes else "the room was stopped"
    assert (code, about["ended"], about["agents"][0]["exit_code"]) == (0, why, 0)
    assert any("the closing is said" in line for line in held.told) == bool(minutes)
    told = (tmp_path / "out/outcome.md").read_text(encoding="utf-8")
    assert f"because {why}." in told
    assert "### ann\n\nNothing to all.\n" in told


# --- who fails ---


def test_an_agent_that_cannot_start_is_told_of_and_the_others_go_on(tmp_path: Path, hold: Callable[..., Held]) -> None:
    absent = '[agents.eve]\nkind = "exec"\ncommand = "no-such-program"'
    code, about = hold(meeting(absent, an_agent(tmp_path, "ann", "talk", "turns = 1"))).end()
    eve, ann = about["agents"]
    assert code == 1
    assert (eve["state"], eve["restarts"], ann["state"], ann["messages"] > 0) == ("failed", 0, "ended", True)
    assert "there is no program 'no-such-program'" in eve["last_lines"][-1]


def test_an_opening_that_nobody_can_hear_ends_it_and_is_told(tmp_path: Path, hold: Callable[..., Held]) -> None:
    absent = '[agents.eve]\nkind = "exec"\ncommand = "no-such-program"'
    text = meeting(absent, an_agent(tmp_path, "ann", "quiet")).replace("\nopening", '\nopening_to = "eve"\nopening')
    held = hold(text)
    code, about = held.end()
    assert (code, about["ended"]) == (1, "its opening could not be said to eve")
    held.until_told("the hub refuses what you say: .*eve")
    held.until_told("beware: eve: there is no program 'no-such-program'")


def test_where_nobody_can_take_part_it_ends(hold: Callable[..., Held]) -> None:
    code, about = hold(meeting('[agents.eve]\nkind = "exec"\ncommand = "no-such-program"')).end()
    assert (code, about["ended"]) == (1, "no agent could take part")


def test_an_agent_that_dies_is_started_again_so_often_and_no_more(tmp_path: Path, hold: Callable[..., Held]) -> None:
    ann = an_agent(tmp_path, "ann", "crash", "restarts = 1", 'mission = "Crash."')
    held = hold(meeting(ann, an_agent(tmp_path, "bob", "quiet")))  # with company a mission begins at once
    held.until_told("ann has failed too often")
    held.process.send_signal(signal.SIGINT)
    code, about = held.end()
    ann = about["agents"][0]
    assert (code, ann["state"], ann["restarts"], ann["exit_code"]) == (1, "failed", 1, -signal.SIGKILL)
    assert ann["last_lines"][-1].startswith("ended by signal 9")
    assert [line for line in held.told if "ann" in line and ("seated" in line or "again" in line)] == [
        "caucus: ann is seated",
        "caucus: ann ended with exit code -9, and is started again in 1 s",
        "caucus: ann is seated",
    ]


# --- at a hub that runs ---


@pytest.fixture
def hub() -> Iterator[HubProcess]:
    """Run a hub."""
    with running_hub() as one:
        yield one


def test_at_a_hub_that_runs_it_leaves_the_room_as_it_was(
    tmp_path: Path, hold: Callable[..., Held], hub: HubProcess
) -> None:
    guest = hub.register("guest")
    hub.post("/channels/join", token=guest, channel="#c")
    hub.post("/channels/topic", token=guest, channel="#c", topic="theirs")
    channel = '[channels."#c"]\ntopic = "ours"\nmembers = ["ann"]'
    ann = an_agent(tmp_path, "ann", "talk", "turns = 1")
    held = hold(meeting("[limits]\nmessages = 50", channel, ann), "--hub", hub.url)
    code, about = held.end()
    assert (code, about["ended"]) == (0, "all agents have ended")
    assert hub.get("/peers").body["peers"] == ["guest"]
    assert hub.get("/channels").body["channels"]["#c"]["topic"] == "theirs"
    assert "Please begin." in [m["content"] for m in hub.receive(guest)["messages"]]
    with hub.console() as console:
        assert console.snapshot["budgets"]["text"] == ""


def test_at_a_hub_that_goes_away_it_ends(tmp_path: Path, hold: Callable[..., Held]) -> None:
    with running_hub() as hub:
        held = hold(meeting(an_agent(tmp_path, "ann", "quiet")), "--hub", hub.url)
        held.until_told("is open")
    code, about = held.end()
    assert (code, about["ended"]) == (1, "the hub has gone")


def test_a_name_that_is_taken_and_budgets_that_are_there_are_refused(
    tmp_path: Path, hold: Callable[..., Held], hub: HubProcess
) -> None:
    hub.register("ann")
    held = hold(meeting(an_agent(tmp_path, "ann", "quiet")), "--hub", hub.url)
    assert held.end() == (2, None)
    held.until_told("the name ann is taken")
    with hub.console() as console:
        console.send(budgets="room: 9 messages")
        console.next("budgets")
    held = hold(meeting("[limits]\nmessages = 50", an_agent(tmp_path, "bob", "quiet")), "--hub", hub.url)
    assert held.end() == (2, None)
    held.until_told("has budgets already, room: 9 messages")
    assert hub.get("/peers").body["peers"] == ["ann"]


def test_a_hub_that_asks_for_tokens_gets_them(tmp_path: Path, hold: Callable[..., Held]) -> None:
    text = meeting(an_agent(tmp_path, "ann", "talk", "turns = 1"))
    with running_hub("--operator-token", "opt", "--agent-key", "key") as hub:
        assert hold(text, "--hub", hub.url).end() == (2, None)
        code, _ = hold(text, "--hub", hub.url, CAUCUS_OPERATOR_TOKEN="opt", CAUCUS_AGENT_KEY="key").end()
    assert code == 0
    assert "CAUCUS_AGENT_KEY" not in runs_of(tmp_path, "talk")[0]["env"]


def test_where_no_hub_answers_it_says_so(tmp_path: Path, hold: Callable[..., Held]) -> None:
    held = hold(meeting(an_agent(tmp_path, "ann", "quiet")), "--hub", "http://127.0.0.1:1")
    assert held.end() == (3, None)
    held.until_told("no hub answers at http://127.0.0.1:1")


# --- its record ---


def test_each_meeting_has_a_record_of_its_own(tmp_path: Path, hold: Callable[..., Held]) -> None:
    text = meeting(an_agent(tmp_path, "ann", "talk", "turns = 1")).replace(
        "\nopening", '\njournal = "a.journal"\nopening'
    )
    records = [hold(text).end()[1]["journal"] for _ in range(2)]
    assert records == [str(tmp_path / "a.journal"), str(tmp_path / "a-2.journal")]
    assert all(os.path.getsize(one) for one in records)


# --- what a file may say ---

AGENT = '[agents.ann]\nkind = "exec"\ncommand = "cat"\n'
CLAUDE = '[agents.ann]\nkind = "claude"\n'
TITLE = '[meeting]\ntitle = "T"\n'


def read(folder: Path, text: str, *settings: str, only: str = "") -> caucus.Meeting:
    """Read a meeting's file."""
    (folder / "m.toml").write_text(text, encoding="utf-8")
    return caucus.MeetingReader(str(folder / "m.toml"), settings, only).read()


# What is wrong, the line of it (0: not of the file), and words of the report.
MISTAKES = {
    "no TOML": (TITLE + "topic = \n", 3, "this is not TOML: Invalid value"),
    "an end in a text": (TITLE + 'topic = "x', 3, "this is not TOML: Unterminated string"),
    "an unknown table": (
        TITLE + AGENT + "[limit]\nminutes = 3",
        6,
        "there is nothing called 'limit' (did you mean limits?)",
    ),
    "an unknown key": (TITLE + 'titel = "x"\n' + AGENT, 3, "meeting has no key 'titel' (did you mean title?)"),
    "an unknown key of an agent": (TITLE + AGENT + 'comand = "x"', 6, "agents.ann has no key 'comand' (did you mean"),
    "an unknown key of a role": (
        TITLE + AGENT + '[roles.r]\nmodle = "x"',
        7,
        "roles.r has no key 'modle' (did you mean",
    ),
    "an unknown key of a channel": (
        TITLE + AGENT + '[channels."#c"]\nmember = []',
        7,
        "has no key 'member' (did you mean",
    ),
    "no title": ("[meeting]\n" + AGENT, 1, "meeting.title is missing"),
    "an empty title": ('[meeting]\ntitle = ""\n' + AGENT, 2, "meeting.title: must have 1 to 200 characters"),
    "a number for a title": ("[meeting]\ntitle = 5\n" + AGENT, 2, "meeting.title: a string is required"),
    "no agent": (TITLE, 1, "there is no agent"),
    "agents that are no table": ("agents = 5\n" + TITLE, 1, "agents must be a table"),
    "an agent that is no table": ("agents.ann = 5\n" + TITLE, 1, "agents.ann must be a table"),
    "no kind": (TITLE + '[agents.ann]\ncommand = "cat"', 3, "agents.ann.kind is missing"),
    "an unknown kind": (TITLE + '[agents.ann]\nkind = "clade"', 4, 'claude, exec, stand-in, not "clade" (did you'),
    "no command": (TITLE + '[agents.ann]\nkind = "exec"', 3, "agents.ann.command is missing"),
    "a command of open quotes": (
        TITLE + AGENT.replace('"cat"', '"cat \'x"'),
        5,
        'agents.ann.command: "cat \'x" is not a',
    ),
    "a claude with a command": (TITLE + CLAUDE + 'command = "cat"', 5, 'agents.ann.command: is for kind = "exec"'),
    "a command with a model": (TITLE + AGENT + 'model = "x"', 6, "agents.ann.model: is for a claude"),
    "a command with a price": (TITLE + AGENT + "dollars = 2", 6, "what a command costs is not known: use turns"),
    "a talker with permissions": (TITLE + CLAUDE + 'permission_mode = "auto"', 5, 'add type = "worker"'),
    "no permissions asked": (TITLE + CLAUDE + 'type = "worker"\npermission_mode = "bypassPermissions"', 6, "unguarded"),
    "an unknown start": (TITLE + AGENT + 'start = "when spoken"', 6, "(did you mean when spoken to?)"),
    "a mission that waits": (
        TITLE + AGENT + 'start = "when spoken to"\nmission = "Go."',
        7,
        "agents.ann.mission: opens the exchange by itself",
    ),
    "sessions of one that is there": (
        TITLE + AGENT + "sessions_per_hour = 3",
        6,
        'agents.ann.sessions_per_hour: is for start = "when spoken to"',
    ),
    "an unknown type": (TITLE + CLAUDE + 'type = "walker"', 5, 'must be one of talker, worker, not "walker" (did you'),
    "a reserved name": (TITLE + AGENT.replace("ann", "operator"), 3, "looks like 'operator', which is reserved"),
    "names that look alike": (TITLE + AGENT + AGENT.replace("ann", "Ann"), 6, "looks like ann: choose another name"),
    "no such role": (
        TITLE + AGENT + 'role = "critc"\n[roles.critic]',
        6,
        "there is no [roles.critc] (did you mean critic?)",
    ),
    "a role that is no text": (TITLE + AGENT + "role = false", 6, "agents.ann.role: there is no [roles.False]"),
    "no such member": (TITLE + AGENT + '[channels."#c"]\nmembers = ["anne"]', 7, "no agent 'anne' (did you mean ann?)"),
    "a channel without a mark": (
        TITLE + AGENT + "[channels.plan]\n",
        6,
        "channels.plan: a channel's name begins with #",
    ),
    "no such opening_to": (TITLE + 'opening_to = "#c"\n' + AGENT, 3, "meeting.opening_to: there is no '#c' here"),
    "an opening where nobody is": (
        TITLE + 'opening_to = "#c"\n' + AGENT + '[channels."#c"]\n',
        3,
        "meeting.opening_to: nobody is in #c: give it members",
    ),
    "minutes below zero": (TITLE + AGENT + "[limits]\nminutes = -1", 7, "must be a number of 0.01 to 10,080, not -1"),
    "half a message": (
        TITLE + AGENT + "[limits]\nmessages = 1.5",
        7,
        "must be a whole number of 1 to 1,000,000, not 1.5",
    ),
    "words for a number": (TITLE + AGENT + '[limits]\nminutes = "ten"', 7, "limits.minutes: must be a number of"),
    "a switch in quotes": (TITLE + AGENT + 'session = "yes"', 6, "agents.ann.session: must be true or false"),
    "a text for a list": (TITLE + AGENT + 'environment = "HOME"', 6, "agents.ann.environment: must be a list"),
    "a secret in the file": (
        TITLE + AGENT + 'environment = ["KEY=sk-1"]',
        6,
        "the name of a variable only, never its value",
    ),
    "the operator's token": (TITLE + AGENT + 'environment = ["CAUCUS_OPERATOR_TOKEN"]', 6, "is for you or for this"),
    "no such folder": (TITLE + AGENT + 'cwd = "nowhere"', 6, "agents.ann.cwd: there is no folder"),
    "a folder by a link": (TITLE + AGENT + 'cwd = "link"', 6, "is a link that leads out of the meeting's folder"),
    "no such persona": (TITLE + AGENT + 'persona_file = "no.md"', 6, "agents.ann.persona_file: cannot read"),
    "a persona outside": (TITLE + AGENT + 'persona_file = "/etc/passwd"', 6, "lies outside of the meeting's folder"),
    "a persona by a link": (
        TITLE + AGENT + 'persona_file = "link/x"',
        6,
        "is a link that leads out of the meeting's folder",
    ),
    "two personas": (
        TITLE + AGENT + 'persona = "x"\npersona_file = "m.toml"',
        7,
        "there is a persona too: one of them",
    ),
    "no topic to fill in": (
        TITLE + 'opening = "On {topic}."\n' + AGENT,
        3,
        "says {topic}, and the meeting has no topic",
    ),
    "no folder for the record": (
        TITLE + 'journal = "no/x.journal"\n' + AGENT,
        3,
        "meeting.journal: there is no folder",
    ),
    "no such include": ('include = ["no.toml"]\n' + TITLE + AGENT, 1, "include: cannot read"),
    "an include below a table": (TITLE + 'include = ["m.toml"]\n' + AGENT, 3, "no key 'include': write it before all"),
    "one include for a list": ('include = "m.toml"\n' + TITLE + AGENT, 1, "include: must be a list of at most 8"),
    "an include that includes": ('include = ["m.toml"]\n' + TITLE + AGENT, 1, "what is included cannot include"),
    "an include that is a folder": ('include = ["."]\n' + TITLE + AGENT, 1, "include: cannot read"),
    "an include that is a pipe": ('include = ["pipe"]\n' + TITLE + AGENT, 1, "pipe: not a regular file"),
    "an include without an end": ('include = ["big"]\n' + TITLE + AGENT, 1, "big has more than 262,144 bytes"),
    "a persona without an end": (TITLE + AGENT + 'persona_file = "big"', 6, "big has more than 32,000 bytes"),
    "a long persona": (TITLE + AGENT + f'persona = "{"x" * 8001}"', 6, "must have 1 to 8000 characters, has 8001"),
    "a character that ends a text": (TITLE + AGENT + 'mission = "a\\u0000b"', 6, "has a character NUL"),
    "brackets without an end": (TITLE + "topic = " + "[" * 5000, 1, "this is not TOML: its brackets go too deep"),
    "a key twice": (TITLE + 'title = "U"\n' + AGENT, 3, "this is not TOML: Cannot overwrite a value"),
    "a table twice": (TITLE + AGENT + AGENT, 6, "this is not TOML: Cannot declare"),
    "a list of meetings": ("[" + TITLE.replace("]", "]]") + AGENT, 1, "meeting must be a table"),
    "a list for the agents": ("agents = []\n" + TITLE, 1, "agents must be a table"),
    "a control character in a name": (TITLE + AGENT.replace("ann", '"a\\u001bn"'), 3, "contains a control"),
    "a name that turns the line": (TITLE + AGENT.replace("ann", '"a\\u202en"'), 3, "contains a control, invisible"),
    "a name of two scripts": (TITLE + AGENT.replace("ann", '"\u0430nn"'), 3, "mixes letters that look alike"),
    "the room's own name": (TITLE + AGENT.replace("ann", "room"), 3, "agents.room: an agent cannot be called so"),
    "too many agents": (TITLE + "".join(AGENT.replace("ann", f"x{n}") for n in range(33)), 99, "at most 32 agents"),
    "a switch for a number": (TITLE + AGENT + "turns = true", 6, "must be a whole number of 1 to 1,000,000, not true"),
    "no number": (TITLE + AGENT + "[limits]\nminutes = nan", 7, "must be a number of 0.01 to 10,080, not NaN"),
    "a role of a role": (TITLE + AGENT + '[roles.r]\nrole = "s"', 7, "roles.r has no key 'role'"),
    "a claude by a role's command": (
        TITLE + CLAUDE + 'role = "r"\n[roles.r]\ncommand = "cat"',
        7,
        'agents.ann.command: is for kind = "exec"',
    ),
    "a number for a form": (TITLE + "ends_on = [5]\n" + AGENT, 3, "meeting.ends_on: a string is required"),
    "a folder for the record": (TITLE + 'journal = "."\n' + AGENT, 3, "is a folder: name a file in it"),
    "a stand-in without lines": (TITLE + '[agents.ann]\nkind = "stand-in"', 3, "agents.ann.lines is missing"),
    "a stand-in with a model": (
        TITLE + '[agents.ann]\nkind = "stand-in"\nlines = ["x"]\nmodel = "opus"',
        6,
        "agents.ann.model: is for a model; a stand-in has its lines and runs nothing",
    ),
    "a stand-in of no lines": (
        TITLE + '[agents.ann]\nkind = "stand-in"\nlines = []',
        5,
        "agents.ann.lines is missing: what it says, in a list",
    ),
    "a cue of nobody": (
        TITLE + AGENT + 'lines = ["AFTER human, ann: x", "AFTER hunam: y"]',
        6,
        "agents.ann.lines: AFTER hunam: there is no such agent (did you mean human?)",
    ),
    "several in a list": (
        TITLE + AGENT + 'environment = ["1A", "HOME", "CAUCUS_X"]',
        6,
        "and set it before you start the meeting; CAUCUS_X is for you",
    ),
    "a folder for the outcome": (TITLE + 'outcome = "."\n' + AGENT, 3, "is a folder: name a file in it"),
    "a need that is no key": (TITLE + 'needs = ["topik"]\n' + AGENT, 3, "meeting.needs: there is no key 'topik'"),
    "a need that is not given": (TITLE + 'needs = ["minutes"]\n' + AGENT, 3, "it needs minutes: give --set minutes="),
    "no folder for the outcome": (TITLE + 'outcome = "no/x.md"\n' + AGENT, 3, "meeting.outcome: there is no folder"),
    "no end of last words": (TITLE + "closing_seconds = 0\n" + AGENT, 3, "must be a number of 1 to 600, not 0"),
    "an include outside": ('include = ["../x.toml"]\n' + TITLE + AGENT, 1, "lies outside of the meeting's folder"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_has_one_report_with_its_line(case: str, tmp_path: Path) -> None:
    text, line, words = MISTAKES[case]
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "there/x").write_text("x", encoding="utf-8")
    (tmp_path / "here/link").symlink_to(tmp_path / "there")
    os.mkfifo(tmp_path / "here/pipe")
    with open(tmp_path / "here/big", "wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(caucus.BadMeeting) as caught:
        read(tmp_path / "here", text)
    [fault] = caught.value.faults
    assert words in fault.what
    assert fault.where == str(tmp_path / "here" / f"m.toml:{line}")


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file_and_nothing_is_started(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text(TITLE + 'topik = "x"\n' + AGENT + "turns = 0\n[limits]\nhours = 1\n", encoding="utf-8")
    argv = [sys.executable, PROGRAM, "meet", str(file), "--set", "nothing=1", "--only", "bob"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (2, "")
    wheres = [line.split(": ")[1] for line in done.stderr.splitlines()]
    assert wheres == ["--only", "--set", *(f"{file}:{line}" for line in (3, 7, 9))]


def test_a_file_that_is_not_there_is_one_report(tmp_path: Path) -> None:
    argv = [sys.executable, PROGRAM, "meet", str(tmp_path / "no.toml")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert done.stderr == f"caucus: {tmp_path}/no.toml: cannot read {tmp_path}/no.toml: No such file or directory\n"


def test_a_role_says_what_its_agents_do_not(tmp_path: Path) -> None:
    role = '[roles.critic]\nkind = "exec"\ncommand = "cat"\nturns = 3\npersona = "Doubt it."\n'
    (tmp_path / "who.md").write_text("Believe it.", encoding="utf-8")
    agents = '[agents.a]\nrole = "critic"\n[agents.b]\nrole = "critic"\nturns = 5\npersona_file = "who.md"\n'
    a, b = read(tmp_path, TITLE + role + agents).attendees
    assert (a.turns, a.persona, b.turns, b.persona, b.command) == (3, "Doubt it.", 5, "Believe it.", "cat")


def test_what_is_included_comes_after_the_meetings_own_words(tmp_path: Path) -> None:
    text = '[limits]\nminutes = 7\nmessages = 8\n[roles.r]\nkind = "exec"\ncommand = "cat"\n'
    (tmp_path / "parts.toml").write_text(text, encoding="utf-8")
    mine = 'include = ["parts.toml"]\n' + TITLE + '[agents.a]\nrole = "r"\n[limits]\nminutes = 5\n'
    found = read(tmp_path, mine)
    assert (found.minutes, found.messages, found.attendees[0].command) == (5, 8, "cat")


def test_a_mistake_in_an_included_file_is_told_with_its_own_line(tmp_path: Path) -> None:
    (tmp_path / "parts.toml").write_text('\n[roles.r]\nkind = "exec"\nturns = 0\n', encoding="utf-8")
    with pytest.raises(caucus.BadMeeting) as caught:
        read(tmp_path, 'include = ["parts.toml"]\n' + TITLE + AGENT)
    assert [one.where for one in caught.value.faults] == [str(tmp_path / "parts.toml:4")]


def test_the_command_line_sets_what_the_file_says(tmp_path: Path) -> None:
    text = TITLE + 'opening = "On {topic}."\n' + AGENT
    found = read(tmp_path, text, "topic=tabs = spaces", "minutes=3", "agents.ann.turns=4", "meeting.title=5")
    assert (found.opening, found.minutes, found.attendees[0].turns, found.title) == ("On tabs = spaces.", 3, 4, "5")


def test_what_is_set_in_a_table_that_is_none_is_that_tables_mistake(tmp_path: Path) -> None:
    with pytest.raises(caucus.BadMeeting) as caught:
        read(tmp_path, "limits = 5\n" + TITLE + AGENT, "minutes=5")
    assert [one.what for one in caught.value.faults] == ["limits must be a table: [limits]"]


def test_what_is_set_goes_no_deeper_than_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(caucus.BadMeeting) as caught:
        read(tmp_path, TITLE + AGENT, "minutes=" + "[" * 5000)
    assert [one.where for one in caught.value.faults] == ["--set"]


@pytest.mark.parametrize("setting", ["minutes", "minuets=5", "agents.eve.turns=5", "agents.ann=5", "include=x", "="])
def test_what_cannot_be_set_is_refused(setting: str, tmp_path: Path) -> None:
    with pytest.raises(caucus.BadMeeting) as caught:
        read(tmp_path, TITLE + AGENT, setting)
    [fault] = caught.value.faults
    assert fault.where == "--set"


def test_a_key_that_cannot_be_set_is_not_the_guess_at_itself(tmp_path: Path) -> None:
    with pytest.raises(caucus.BadMeeting) as caught:
        read(tmp_path, TITLE + AGENT, "minute=3", "agents.ann.turn=3")
    told = sorted(one.what for one in caught.value.faults)
    assert [words.partition("(")[2] for words in told] == ["did you mean agents.ann.turns?)", "did you mean minutes?)"]


def test_a_list_of_nobody_seats_nobody(tmp_path: Path) -> None:
    with pytest.raises(caucus.BadMeeting) as caught:
        read(tmp_path, TITLE + AGENT, only=",")
    assert {one.where for one in caught.value.faults} == {"--only"}


def test_a_file_of_a_meetings_own_is_claimed_where_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "o.md").write_text("mine", encoding="utf-8")
    found = read(tmp_path, TITLE + 'outcome = "o.md"\n' + AGENT)
    assert caucus.plan_of(found)["outcome"] == str(tmp_path / "o-2.md")
    assert [caucus.claimed(found.outcome) for _ in range(2)] == [str(tmp_path / name) for name in ("o-2.md", "o-3.md")]
    sitting = caucus.Sitting(found, print)
    sitting._write_outcome()
    assert sitting.outcome == str(tmp_path / "o-4.md")
    assert (tmp_path / "o.md").read_text(encoding="utf-8") == "mine"


def test_only_some_agents_are_seated(tmp_path: Path) -> None:
    text = TITLE + AGENT + AGENT.replace("ann", "bob") + '[channels."#c"]\nmembers = ["ann", "bob"]'
    found = read(tmp_path, text, only="bob")
    assert [(one.name, one.channel_words()) for one in found.attendees] == [("bob", ["#c"])]


def test_an_opening_goes_to_all_where_none_of_those_is_seated_whom_it_is_for(tmp_path: Path) -> None:
    agents = AGENT + AGENT.replace("ann", "bob") + '[channels."#c"]\nmembers = ["bob"]'
    places = [read(tmp_path, f'{TITLE}opening_to = "{to}"\n{agents}', only=one).opening_to
              for to in ("bob", "#c") for one in ("ann", "bob")]  # fmt: skip
    assert places == ["all", "bob", "all", "#c"]


def test_what_looks_like_an_oversight_is_told_before_it_begins(tmp_path: Path) -> None:
    asleep = AGENT + 'start = "when spoken to"\n'
    for opening, more, told in (
        ("Begin.", asleep, ["all agents wait to be spoken to"]),
        ("Begin, @ann.", asleep, []),
        ("Begin.", asleep + AGENT.replace("ann", "bob"), []),
        ("Begin.", AGENT.replace("cat", "./cat"), ["ann: there is no program './cat'"]),
    ):
        found = read(tmp_path, f'{TITLE}opening = "{opening}"\n{more}').warnings()
        assert [words[: len(start)] for words, start in zip(found, told, strict=True)] == told


def test_a_session_has_a_bound_also_where_the_file_says_nothing(tmp_path: Path) -> None:
    ann, bob, eve = read(
        tmp_path,
        TITLE + AGENT + AGENT.replace("ann", "bob") + 'start = "when spoken to"\n'
        + AGENT.replace("ann", "eve") + 'start = "when spoken to"\nturns = 9\n',
    ).attendees  # fmt: skip
    assert (ann.turns, bob.turns, eve.turns) == (0, caucus.SESSION_TURNS, 9)
    assert f"{caucus.SESSION_TURNS} turns a session" in bob.limits()


def test_limits_of_each_are_those_of_who_has_none(tmp_path: Path) -> None:
    text = TITLE + "[each]\nmessages = 5\ndollars = 1\n" + AGENT + CLAUDE.replace("ann", "bob") + "messages = 9\n"
    ann, bob = read(tmp_path, text).attendees
    assert (ann.messages, ann.dollars, bob.messages, bob.dollars) == (5, 0.0, 9, 1.0)
    assert read(tmp_path, text + "[limits]\nmessages = 20\ndollars = 2.5").budgets() == (
        "room: 20 messages, $2.5; ann: 5 messages; bob: 9 messages"
    )


def test_a_claude_is_started_as_the_agent_command_would_be(tmp_path: Path) -> None:
    more = 'type = "worker"\npermission_mode = "dontAsk"\nmodel = "opus"\ndollars = 2\nmission = "--go"\n'
    [ann] = read(tmp_path, TITLE + CLAUDE + more).attendees
    words = ann.words("http://127.0.0.1:9")
    options = caucus.read_options(words[words.index("agent") :], "caucus")
    settings = caucus.claude_settings(options)
    assert (settings.model, settings.type, settings.permission_mode, settings.max_cost_usd) == (
        "opus",
        "worker",
        "dontAsk",
        2.0,
    )
    assert (options.project, options.mission, options.tie, options.exec) == ("ann", "--go", True, None)


def test_a_dry_run_tells_who_would_run_what_and_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(TITLE + AGENT + 'environment = ["NOT_THERE"]\n', encoding="utf-8")
    argv = [sys.executable, PROGRAM, "meet", str(tmp_path / "m.toml"), "--dry-run"]
    plain, as_json = (
        subprocess.run([*argv, *more], capture_output=True, text=True, check=True, timeout=30).stdout
        for more in ((), ("--json",))
    )
    assert "T: nothing is started\n" in plain
    [ann] = json.loads(as_json)["agents"]
    assert (ann["runs"], ann["cwd"], ann["environment"]) == ("cat", str(tmp_path), ["NOT_THERE (not set)"])
    for words in ("ann (exec)", "cat", str(tmp_path), "whatever its command may do, as you", "NOT_THERE (not set)"):
        assert words in plain


def test_one_of_what_bounds_a_meeting_is_no_plural() -> None:
    ones: dict[str, int] = {"messages": 1, "turns": 1, "restarts": 1}
    one = caucus.Attendee("ann", "stand-in", "/", lines=("Hi.",), start="when spoken to", **ones)
    meeting = caucus.Meeting("m.toml", "T", (one,), minutes=1.0, messages=2000)
    assert one.limits() == ["1 message", "1 turn a session", "12 sessions an hour", "900 s a turn", "1 restart"]
    assert (one.runs(), meeting.limits()) == ("nothing: it says 1 line", ["1 minute", "2,000 messages"])


def test_lines_of_keys_are_found_past_texts_of_several_lines() -> None:
    text = 'a = """\n[b]\nc = 1\n"""\n[agents."x y"]\nk.l = [\n  1,\n]\n# m = 1\nn = 2\n'
    assert caucus.lines_of_toml(text) == {
        ("a",): 1,
        ("agents",): 5,
        ("agents", "x y"): 5,
        ("agents", "x y", "k"): 6,
        ("agents", "x y", "k", "l"): 6,
        ("agents", "x y", "n"): 10,
    }


# --- its manual ---


def test_every_key_of_a_meeting_is_in_the_manual_in_its_table_and_no_other() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    told: dict[str, set[str]] = {}
    for name, table in re.findall(r"^### `\[?([^`\]]*)\]?`.*?\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL):
        told[name] = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    told[""] = told.pop("include") | {"include"}
    told["agents.NAME"] |= {"role"}
    assert told["roles.NAME"] == set()  # the same as an agent's
    told["roles.NAME"] = told["agents.NAME"] - {"role"}
    assert told == {name: set(keys) for name, keys in caucus.MEETING_KEYS.items()}


def test_the_examples_of_the_manual_are_meetings(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        assert read(tmp_path, block).attendees
