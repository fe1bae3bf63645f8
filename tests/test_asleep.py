"""Agents of a meeting that are started when something calls them: nobody sits in their seats until then."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from agents import SDK, AgentProcess, claude
from fakes import FakeClock, RecordingRoom, question
from hubs import eventually, running_hub
from test_meet import Held, running_in

import caucus

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes are compared as Unix shows them")
PATIENCE_S = 25.0

# What stands in for a model: it does as it is told.
MIND = """\
import os, pathlib, signal, sys, time
name, said = sys.argv[1], sys.stdin.read()
here = pathlib.Path(__file__).parent
if "POISON" in said:
    sys.exit(7)
if "HANG" in said and not (here / "hung").exists():
    (here / "hung").write_text(str(os.getppid()))
    time.sleep(60)
print("PASS" if "MUTE" in said else f"{name} says so.")
"""


# --- what calls an agent: no input or output ---


def test_what_calls_an_agent_is_to_it_by_name_or_owed_by_it_and_nothing_else() -> None:
    clock = FakeClock()
    room = RecordingRoom(clock)
    ann, bob = room.join("ann", "#c"), room.join("bob", "#c")
    room.wake_for(ann, "exec", is_for_calls=True)
    for said in ("hello", "mail ann@example.org", "@anne", "@ann-2", "@bob: ann?"):
        room.say(bob, "all", said)
        clock.advance(1.0)
    room.say(bob, "#c", "who knows?", caucus.Manner(expects_answer=True))
    room.operator_say("all", "Begin.")
    room.command("ann", "interrupt")
    assert room.calls_for(ann) == []
    assert room.pointer(ann) is None
    calls = [
        room.say(bob, "ann", "to you"),
        room.say(bob, "all", "what does @Ann, say?"),
        room.operator_say("ann", "to you"),
        room.operator_say("#c", "to your channel"),
    ]
    assert room.calls_for(ann) == [one.message.seq for one in calls]
    told = {"waiting": 4, "operator": 2, "ring": False, "name": "ann"}
    assert [room.pointer(ann), room.pointer(ann)] == [told, told], "until it is settled"


def test_what_was_fetched_calls_until_it_is_acknowledged_and_a_debt_until_it_is_settled() -> None:
    clock = FakeClock()
    room = RecordingRoom(clock)
    ann, bob = room.join("ann"), room.join("bob")
    room.wake_for(ann, "exec", is_for_calls=True)
    asked = room.say(bob, "ann", "which?", caucus.Manner(expects_answer=True)).message.seq
    room.fetch(ann)
    assert room.calls_for(ann) == [asked]
    room.acknowledge(ann, asked)
    assert room.calls_for(ann) == [asked], "it is owed"
    room.pause_peer("ann")
    assert room.calls_for(ann) == []
    room.resume_peer("ann")
    room.set_mode("stop")
    assert room.pointer(ann) is None
    room.set_mode("reset")
    room.say(ann, "", "this", caucus.Manner(reply_to=asked))
    assert room.calls_for(ann) == []


def test_an_answer_to_its_form_calls_the_asker_and_nobody_else() -> None:
    room = RecordingRoom(FakeClock())
    ann, bob = room.join("ann"), room.join("bob")
    form = room.ask(ann, question())
    answer = room.cancel(form.id)
    assert caucus.is_call(answer.message, ann.name)
    assert not caucus.is_call(answer.message, bob.name)


def test_nobody_is_told_that_a_seat_where_nobody_sits_has_not_read_what_was_said_to_all() -> None:
    clock = FakeClock()
    room = RecordingRoom(clock)
    ann, bob = room.join("ann"), room.join("bob")
    room.wake_for(ann, "exec", is_for_calls=True)
    room.say(bob, "all", "hello")
    room.say(bob, "ann", "hello")
    clock.advance(caucus.UNFETCHED_S + 1)
    room.sweep()
    assert [event.seq for event in room.events if isinstance(event, caucus.Overdue)] == [2]


# --- a session at a seat ---


@pytest.mark.skipif(not SDK.exists(), reason="no claude-agent-sdk: tests/run.py installs it")
def test_a_claude_is_reminded_of_what_it_owes_then_it_is_declined_and_the_seat_stays() -> None:
    with running_hub() as hub:
        guest, seat = hub.register("guest"), hub.register("cl")
        hub.get("/wake", seat, calls=1)
        hub.say(guest, "all", "hello to all")
        asked = hub.post("/send", token=guest, to="cl", content="Which?", expects_answer=True).body["seq"]
        with claude(hub.url, "--project", "cl", "--seat", stdin=f"{seat}\n") as cl:
            assert cl.end() == 0
            first, second = [turn["prompt"] for turn in cl.seen("turn")]
        assert "hello to all" in first
        assert caucus.OWING in second
        [declined] = hub.receive(guest)["messages"]
        assert (declined["outcome"], declined["reply_to"]) == ("declined", asked)
        assert hub.get("/wake", seat, calls=1).body == {"waiting": 0}
        assert hub.get("/wake", seat, calls="some").body["error"] == "invalid"


def test_a_seat_that_was_lost_meanwhile_is_not_taken_anew(tmp_path: Path) -> None:
    with running_hub() as hub:
        session = AgentProcess(hub.url, "--project", "ann", "--exec", "cat", "--seat", stdin="0123456789abcdef\n")
        assert session.end() == caucus.EXIT_EXPIRED
        session.close()
        assert hub.get("/peers").body["peers"] == []


def test_who_waits_in_a_channel_leaves_it_the_topic_that_it_has() -> None:
    with running_hub() as hub:
        guest = hub.register("guest")
        hub.post("/channels/join", token=guest, channel="#c")
        hub.post("/channels/topic", token=guest, channel="#c", topic="theirs")
        channels = (("#c", "mine"), ("#d", "mine"))
        vigil = caucus.Vigil(hub.url, caucus.Attendee("ann", "exec", "/", channels, command="true"))
        eventually(lambda: vigil.token, "its seat")
        topics = {name: row["topic"] for name, row in hub.get("/channels").body["channels"].items()}
        vigil.close()
        assert topics == {"#c": "theirs", "#d": "mine"}
        eventually(lambda: vigil.is_gone, "its end")


LEFT = "10:00:02 INFO ann has left: %s (1 turns, 5 tokens)"


@pytest.mark.parametrize(
    ("turn", "code", "last", "told"),
    [
        (True, 0, LEFT % "a signal came", "ann: a session has failed at message 7 of bob (a signal came)"),
        (True, 1, "KeyError: 'x'", "ann: a session has failed at message 7 of bob (ended with exit code 1)"),
        (False, 1, "KeyError: 'x'", "ann: a session ended with exit code 1"),
        (True, 0, LEFT % caucus.STOP_WORDS, "ann is asleep again"),
        (True, 1, LEFT % "it was kicked", "ann is asleep again"),
        (False, 0, LEFT % "a signal came", "ann is asleep again"),
    ],
)
def test_a_session_that_ends_within_its_turn_has_failed_unless_the_operator_wished_it(
    turn: bool, code: int, last: str, told: str
) -> None:
    ann = caucus.Dormant(caucus.Attendee("ann", "exec", "/", command="cat", start=caucus.SPOKEN_TO))
    ann._vigil = SimpleNamespace(take_back=lambda: None)
    ann._mark, ann.state = "nobody's", caucus.SEATED
    ann._add_line("10:00:00 INFO ann has joined the room at http://127.0.0.1:1")
    ann._add_line("10:00:01 INFO a turn begins that is to answer 7 of bob")
    if not turn:
        ann._add_line("10:00:02 INFO the turn has come to its end")
    ann._add_line(last)
    ann._note_end(code)
    assert ann._judge(code, 0.0).startswith(told)


def test_who_fails_after_an_earlier_end_is_not_gone_before_its_seat_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    vigils = [SimpleNamespace(token="t", is_gone=False, is_over=False, is_called=False, was_kicked=False) for _ in "12"]
    for one in vigils:
        one.close = lambda one=one: setattr(one, "is_over", True)
    coming = iter(vigils)
    monkeypatch.setattr(caucus, "Vigil", lambda url, plan: next(coming))
    ann = caucus.Dormant(caucus.Attendee("ann", "exec", "/", command="cat", start=caucus.SPOKEN_TO))
    for vigil, now in zip(vigils, (0.0, 100.0)):
        ann.call_in()
        ann.look("", now)
        assert ann.look("", now) == "ann has its seat, and is asleep"
        if vigil is vigils[0]:
            ann.send_off(now)
            vigil.is_gone = True
            assert ann.look("", now) == "ann has ended"
    ann._fail("has failed")
    ann.look("", 100.0)
    ann.look("", 100.0)
    assert (vigils[1].is_over, ann.is_gone) == (True, False)
    vigils[1].is_gone = True
    ann.look("", 100.0)
    assert ann.is_gone


# --- one meeting, and what becomes of its agents ---

NAMES = ("ann", "eve", "mum", "lim", "kim", "dan")


def spoken_to(folder: Path, name: str, *more: str) -> str:
    """Write an agent that waits until it is spoken to."""
    command = json.dumps(f"{sys.executable} {folder / 'mind.py'} {name}")
    return "\n".join([f"[agents.{name}]", 'kind = "exec"', f"command = {command}", 'start = "when spoken to"', *more])


class Played:
    """A meeting in which nobody sits, and a guest who speaks to them all."""

    def __init__(self, folder: Path) -> None:
        (folder / "mind.py").write_text(MIND, encoding="utf-8")
        agents = [spoken_to(folder, name, "sessions_per_hour = 1" if name == "lim" else "") for name in NAMES]
        text = '[meeting]\ntitle = "T"\nopening = "Please begin."\n' + "\n".join(agents)
        self.folder, self.held = folder, Held(folder, text)
        self.got: list[Any] = []
        self.held.until_told("is open")
        self.guest = caucus.Client(self.held.url)
        self.guest.register("guest")
        self.guest.post("/send", to="all", content="Hello to all of you.")
        self.idle = agents_in(folder)  # after a broadcast of the operator, and one of a peer
        self.asked = {name: self.ask(name, words) for name, words in self.WORDS.items()}
        self.asked["eve again"] = self.ask("eve", "And this?")
        with self.held.console() as console:
            console.send(kick="dan")
            console.next("peers", where=lambda frame: "dan" not in [row["name"] for row in frame["peers"]])

    WORDS: ClassVar = {"ann": "Which?", "eve": "POISON?", "mum": "MUTE?", "lim": "Which?", "kim": "HANG?"}

    def ask(self, name: str, words: str) -> int:
        """Ask one of them; give the seq."""
        return int(self.guest.post("/send", to=name, content=words, expects_answer=True)["seq"])  # type: ignore[call-overload]

    def answer_to(self, seq: int) -> Any:
        """Wait for the answer to a message, or its end."""

        def look() -> Any:
            answer = self.guest.receive(0.2, "test")
            self.got += answer["messages"]  # type: ignore[arg-type]
            return next((m for m in self.got if m.get("reply_to") == seq), None)

        return eventually(look, f"an answer to {seq}", PATIENCE_S)


def agents_in(folder: Path) -> list[str]:
    """List the processes of agents."""
    return [line for line in running_in(folder) if " agent --hub" in line]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """Hold the meeting, for all tests here."""
    played = Played(tmp_path_factory.mktemp("asleep"))
    yield played
    played.guest.close()
    if played.held.process.poll() is None:
        played.held.process.terminate()
        played.held.process.wait(20.0)
    played.held.close()


def test_a_seat_where_nobody_sits_costs_no_process_and_can_be_woken(played: Played) -> None:
    assert played.idle == []
    assert played.guest.get("/ping", peer="ann")["wake"]["host"] == "exec"  # type: ignore[call-overload, index]


def test_a_question_is_answered_and_the_agent_is_gone_again(played: Played) -> None:
    assert played.answer_to(played.asked["ann"])["content"] == "ann says so."
    played.held.until_told("ann is asleep again")
    assert not [line for line in agents_in(played.folder) if "project=ann" in line]


def test_who_was_kicked_while_nobody_sat_there_has_ended(played: Played) -> None:
    played.held.until_told("dan was kicked")


def test_a_session_that_is_killed_has_failed_and_the_next_one_answers(played: Played) -> None:
    eventually((played.folder / "hung").exists, "the stand-in", PATIENCE_S)
    with contextlib.suppress(ProcessLookupError):
        os.kill(int((played.folder / "hung").read_text()), signal.SIGKILL)
    played.held.until_told(r"kim: a session has failed at message \d+ of guest \(ended by signal 9")
    assert played.answer_to(played.asked["kim"])["content"] == "kim says so."


def test_what_has_no_answer_is_declined(played: Played) -> None:
    declined = played.answer_to(played.asked["mum"])
    assert (declined["outcome"], declined["content"]) == ("declined", "I have no answer to that.")


def test_beyond_its_sessions_of_an_hour_an_agent_waits_and_says_so(played: Played) -> None:
    assert played.answer_to(played.asked["lim"])["content"] == "lim says so."
    played.held.until_told("lim is asleep again")
    played.ask("lim", "And now?")
    played.held.until_told("lim is asleep: called, but its 1 sessions of an hour are used: it goes on at ")
    status = lambda: played.guest.get("/ping", peer="lim")["status"]  # noqa: E731
    assert "no session is left in this hour" in eventually(status, "its status")  # type: ignore[operator]


def test_what_fails_three_times_is_set_aside_and_told_of_and_the_next_is_answered(played: Played) -> None:
    aside = played.answer_to(played.asked["eve"])
    assert aside["outcome"] == "declined"
    assert "3 sessions have failed" in aside["content"]
    assert "ended with exit code 7" in aside["content"]
    told = [line for line in played.held.told if "caucus: eve: a session has failed at" in line]
    assert len(told) == caucus.ASIDE_AFTER - 1
    assert played.answer_to(played.asked["eve again"])["content"] == "eve says so."


def test_at_its_end_all_seats_are_left_and_the_sessions_are_counted(played: Played) -> None:
    played.held.until_told("eve is asleep again")
    played.held.process.send_signal(signal.SIGINT)
    code, about = played.held.end()
    assert code == 0
    rows = {one["name"]: one for one in about["agents"]}
    assert [rows[name]["sessions"] for name in ("ann", "mum", "lim", "eve", "dan")] == [1, 1, 1, 4, 0]
    assert rows["eve"]["aside"] == {"count": 1, "seq": played.asked["eve"], "sender": "guest"}
