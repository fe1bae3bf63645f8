"""The demo: three scripted peers over real sockets, ruled from a console as a newcomer would."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hubs import START, Console, HubProcess, eventually, running_hub

import caucus

PACE = 0.02
NAMES = frozenset(caucus.CAST.values())
OPENINGS = "failed again|looks ready from here"  # of the second scene and the third


def is_agents(frame: Any) -> bool:
    """Whether a frame is something that an actor said."""
    return frame["type"] == "message" and frame["message"]["origin"] == "agent"


@dataclass
class Demo:
    """A hub with the play on it, and the operator's console."""

    hub: HubProcess
    console: Console
    ended: threading.Event
    thread: threading.Thread
    frames: list[Any] = field(default_factory=list)

    def until(self, wanted: Callable[[Any], bool]) -> Any:
        """Give the next frame that is wanted; keep all that came before."""

        def look(frame: Any) -> bool:
            self.frames.append(frame)
            return wanted(frame)

        kinds = ("message", "peers", "channels", "floor", "form", "form_resolved", "mode", "health")
        return self.console.next(*kinds, where=look)

    def until_said(self, pattern: str = "", **wanted: Any) -> Any:
        """Give the next message of an actor that has these fields and matches."""
        matches = lambda m: wanted.items() <= m.items() and re.search(pattern, m["content"], re.DOTALL)  # noqa: E731
        return self.until(lambda frame: is_agents(frame) and matches(frame["message"]))["message"]

    def until_asked(self) -> Any:
        """Give the next question to the operator."""
        return self.until(lambda frame: frame["type"] == "form")["form"]

    def set_mode(self, action: str, mode: str) -> None:
        """Rule the room, and wait until the hub says so."""
        self.console.send(action=action)
        self.until(lambda frame: frame["type"] == "mode" and frame["mode"] == mode)

    def said_in_two_beats(self) -> list[Any]:
        """Give what the actors say between two health reports; they are 1.5 s apart, many times an actor's tick."""
        self.until(lambda frame: frame["type"] == "health")  # what was under way has arrived
        self.frames.clear()
        self.until(lambda frame: frame["type"] == "health")
        return [frame["message"] for frame in self.frames if is_agents(frame)]


@pytest.fixture
def hub() -> Iterator[HubProcess]:
    """Run a hub."""
    with running_hub() as one:
        yield one


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the play down to its first lines, for those who are here for the question."""
    texts = caucus.play()
    opening = "".join(texts["opening"].splitlines(keepends=True)[:2]).rstrip()
    monkeypatch.setattr(caucus, "play", lambda: {**texts, "opening": opening})


@pytest.fixture
def demo(hub: HubProcess) -> Iterator[Demo]:
    """Let the play begin, at fifty times its speed."""
    ended = threading.Event()
    thread = threading.Thread(target=caucus.play_demo, args=(hub.url, ended, PACE))
    with hub.console() as console:
        console.send(set_rate={"refill_rate": 1000, "capacity": 1000})
        console.message(origin="hub", content="rate: 1000 messages per second, bursts of 1000")
        thread.start()
        yield Demo(hub, console, ended, thread)
        ended.set()
        thread.join(5)
    assert not thread.is_alive()


def test_every_line_of_the_play_is_complete():
    """Walk many rounds without a hub: nothing is left unfilled or undrawn, and the hub would take it all."""
    stage = caucus.Performance(0.0)
    for role, name in caucus.CAST.items():
        stage.seat(role, name)
    said, verbs, asked = set(), set(), 0
    for _ in range(2000):
        line = next(line for role in caucus.CAST if (line := stage.turn(role, ())))
        assert line.role in caucus.CAST
        assert not re.search(r"\{\w+\}|<[^<>]*\|", line.text), line.text
        assert len(line.text) <= (caucus.TOPIC_MAX if line.verb not in ("say", "ask") else caucus.CONTENT_MAX)
        verbs.add(line.verb)
        said.add(line.text)
        asked += line.verb == "ask"
        stage.finish(line, {"form_id": str(asked)} if line.verb == "ask" else {})
        if line.verb == "ask" and asked % 3:  # every third question is answered late
            stage.settle({"form_id": str(asked), "answers": {"choice": line.text.split("\n")[asked % 3], "note": "x"}})
        elif line.verb == "silence":
            stage.settle({"form_id": str(asked), "answers": None})
    assert len(said) > 200  # the rounds differ
    assert verbs >= {"say", "status", "join", "topic", "take", "raise", "pass", "drop", "ask", "rest", "silence"}


def test_a_round_shows_everything_that_a_room_can_do(demo: Demo):
    form = demo.until_asked()
    said = [frame["message"] for frame in demo.frames if is_agents(frame)]
    notices = " ".join(f["message"]["content"] for f in demo.frames if f["type"] == "message" and not is_agents(f))
    assert {m["sender"] for m in said} == NAMES
    questions = {m["seq"] for m in said if m.get("expects_answer")}
    answers = [m for m in said if m.get("reply_to")]
    assert len(questions) >= 2
    assert {m["reply_to"] for m in answers} == questions
    assert all(m["quote"] for m in answers)
    assert len([m for m in answers if m["reply_to"] == min(questions)]) == 2, "a thread"
    assert any(m["recipient"] == "all" for m in said)
    assert any(m["recipient"] in NAMES for m in said)
    assert any(m["recipient"].startswith("#") for m in said)
    assert all(word in notices for word in ("set the topic", "has the talking stick", "passed the talking", "away"))
    assert any(list(floor["hands"]) for f in demo.frames if f["type"] == "floor" for floor in f["floors"].values())
    assert {one["type"] for one in form["fields"]} == {"radio", "text"}
    demo.until(lambda frame: "waiting for the operator" in str(frame.get("peers")))


@pytest.mark.usefixtures("brief")
def test_without_an_answer_they_go_on_and_begin_another_round(demo: Demo):
    demo.until_asked()
    demo.until_said("No answer yet, and no hurry")
    demo.until_said("failed again", sender="shop-tests", recipient="all")
    demo.until_said("still open", sender="shop-tests")


def test_pause_holds_the_play_and_resume_goes_on_where_it_was(demo: Demo):
    demo.until_said(sender="shop-web")
    demo.set_mode("pause", "paused")
    assert demo.said_in_two_beats() == []
    demo.set_mode("resume", "running")
    demo.until_said("for the record", sender="shop-api")


def test_in_a_pause_the_operator_gets_an_answer(demo: Demo):
    demo.until_said()
    demo.set_mode("pause", "paused")
    demo.console.send(say="Are you there?", to="shop-web")
    demo.until_said("Are you there", sender="shop-web", recipient="all")


def test_a_paused_peer_holds_the_others_up(demo: Demo):
    demo.until_said(sender="shop-api", recipient="all")
    demo.console.send(pause_peer="shop-web")
    demo.until(lambda frame: any(peer["paused"] for peer in frame.get("peers", ())))
    demo.said_in_two_beats()  # they go on as far as they need nothing from shop-web
    assert demo.said_in_two_beats() == []
    demo.console.send(resume_peer="shop-web")
    demo.until_said(sender="shop-web")


def test_stop_silences_them_and_reset_begins_a_fresh_round(demo: Demo):
    demo.until_said(sender="shop-web")
    demo.set_mode("stop", "stopped")
    demo.frames.clear()
    assert demo.said_in_two_beats() == []
    assert not any(is_agents(frame) for frame in demo.frames)
    demo.set_mode("reset", "running")
    demo.until_said(OPENINGS, recipient="all")  # one who hears late of the stop may begin, and skip, a scene


@pytest.mark.usefixtures("brief")
def test_a_stop_while_they_wait_for_an_answer_ends_the_waiting(demo: Demo):
    form = demo.until_asked()
    demo.set_mode("stop", "stopped")
    demo.console.send(answer={"id": form["id"], "answers": {"choice": form["fields"][0]["options"][0]}})
    demo.until(lambda frame: frame["type"] == "form_resolved")
    assert demo.said_in_two_beats() == []
    demo.set_mode("reset", "running")
    demo.until_said("Ah, the answer to", sender="shop-api")
    demo.until_said(OPENINGS)


def test_the_addressed_peer_answers_the_operator(demo: Demo):
    demo.until_said()
    demo.console.send(say="What does `main` look like today?", to="shop-tests")
    demo.until_said(r"“What does `main` look like today\?”", sender="shop-tests", recipient="all")


@pytest.mark.usefixtures("brief")
def test_one_of_them_answers_a_broadcast(demo: Demo):
    demo.until_said()
    demo.console.send(say="Mind the zebra", to="all")
    demo.until_said("Mind the zebra")
    demo.frames.clear()
    for _ in range(2):  # health comes every 1.5 s, many times an actor's tick
        demo.until(lambda frame: frame["type"] == "health")
    assert not any("zebra" in frame["message"]["content"] for frame in demo.frames if is_agents(frame))


def test_who_is_called_by_name_answers_a_broadcast(demo: Demo):
    demo.until_said()
    demo.console.send(say="web, what is your status?", to="all")
    demo.until_said("We are renaming .*, with [0-9]+ steps to go", sender="shop-web", recipient="all")


def test_in_a_channel_the_operator_is_answered_there(demo: Demo):
    demo.until_said(recipient="#rename")
    demo.console.send(say="Thank you", to="#rename")
    demo.until_said("You're welcome|That goes into my changelog", recipient="#rename")


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("number", [0, 1])
def test_the_choice_changes_what_they_say_next(demo: Demo, number: int):
    form = demo.until_asked()
    choice = form["fields"][0]["options"][number]
    demo.console.send(answer={"id": form["id"], "answers": {"choice": choice, "note": "no pigeons"}})
    demo.until_said(re.escape(f"**{choice}**"), sender="shop-api")
    demo.until_said(("nobody notices my work", "my finger hovers")[number], sender="shop-web", recipient="shop-api")
    demo.until_said("“no pigeons”", sender="shop-api")


@pytest.mark.usefixtures("brief")
def test_an_answer_of_the_operators_own_is_quoted(demo: Demo):
    form = demo.until_asked()
    demo.console.send(answer={"id": form["id"], "answers": {"choice": "Never\n{a} <x|y>"}})
    demo.until_said(r"your way: \*\*Never .*<x\|y>", sender="shop-api")


@pytest.mark.usefixtures("brief")
def test_a_cancelled_question_has_its_own_follow_up(demo: Demo):
    form = demo.until_asked()
    demo.console.send(cancel_form=form["id"])
    demo.until_said("Question withdrawn", sender="shop-api")


@pytest.mark.usefixtures("brief")
def test_a_late_answer_is_still_welcome(demo: Demo):
    form = demo.until_asked()
    demo.until_said("No answer yet")
    demo.console.send(answer={"id": form["id"], "answers": {"choice": "Rename at once"}})
    demo.until_said(r"Ah, the answer to .*\*\*Rename at once\*\*", sender="shop-api")


def test_who_is_kicked_comes_back_and_the_play_goes_on(demo: Demo):
    demo.until(lambda frame: frame["type"] == "floor" and frame["floors"])  # so it is the holder who goes
    demo.console.send(kick="shop-api")
    demo.until(lambda frame: frame["type"] == "message" and frame["message"]["content"] == "shop-api joined")
    status = lambda: demo.hub.get("/ping", peer="shop-api").body["status"]  # noqa: E731
    eventually(lambda: status() == "back after a short break", "its new status")
    demo.until_asked()


def test_a_cleared_stick_and_a_closed_channel_do_not_freeze_the_play(demo: Demo):
    demo.until(lambda frame: frame["type"] == "floor" and "#rename" in frame["floors"])
    demo.console.send(floor={"action": "clear", "scope": "#rename"})
    demo.console.send(close_channel="#rename")
    demo.until_asked()


def test_a_held_floor_is_waited_for_but_not_for_ever(hub: HubProcess, demo: Demo):
    stranger = hub.register("stranger")
    assert hub.post("/floor", token=stranger, action="take", scope="all", reason="my turn").body["ok"]
    demo.until_asked()


def test_a_throttled_peer_waits_and_loses_no_line(demo: Demo):
    demo.console.send(set_rate={"refill_rate": 4, "capacity": 1})
    for word in ("rename it to", "files of mine", "by heart", "for the record"):
        demo.until_said(word)


def test_a_taken_name_gets_a_suffix(hub: HubProcess):
    hub.register("shop-web")
    ended = threading.Event()
    thread = threading.Thread(target=caucus.play_demo, args=(hub.url, ended, PACE))
    with hub.console() as console:
        thread.start()
        sender = console.next("message", where=lambda f: f["message"]["sender"].startswith("shop-web-"))
        assert re.fullmatch(r"shop-web-\d+", sender["message"]["sender"])
    ended.set()
    thread.join(5)


def test_the_command_shows_three_peers_that_talk():
    demo = HubProcess(command=(sys.executable, "-W", "error", START, "demo"))
    with demo.console() as console:
        first = console.next("message", where=is_agents)["message"]
        assert first["recipient"] == "all"
        assert set(demo.get("/peers").body["peers"]) == NAMES
    code, log = demo.stop()
    assert (code, log) == (0, "")


def test_an_actor_hears_what_a_pause_held_back_though_the_operator_overtook_it():
    """Else the play would wait for ever for it to be heard."""
    batches = [[("b", 6, "operator")], [("a", 5, "agent"), ("b", 6, "operator")]]
    stage, ended = caucus.Performance(0.0), threading.Event()
    actor = caucus.Actor("api", "http://127.0.0.1:1", stage, ended, 0.0)

    def receive(hold_s: float, lease: str, ack_seq: int) -> dict[str, Any]:
        fields = [dict(zip(("id", "seq", "origin"), one, strict=True)) for one in batches.pop(0)]
        more = {"kind": "message", "content": "x", "recipient": "all"}
        return {"mode": "running", "messages": [{**one, **more} for one in fields]}

    actor._client.receive = receive
    actor._listen()
    actor._listen()
    assert list(actor._heard) == ["b", "a"]
    assert actor._acked == 6


def test_a_question_that_was_opened_as_the_room_was_stopped_is_remembered():
    """Who asks has the lock until the hub has answered: the stop comes after that."""
    stage = caucus.Performance(0.0)
    for role, name in caucus.CAST.items():
        stage.seat(role, name)
    stage._begin_round()
    asking = next(line for line in stage._lines if line.verb == "ask")
    stage.finish(asking, {"form_id": "f"})
    stage.abort()
    stage.settle({"form_id": "f", "answers": {"choice": "something else"}})
    assert [line.text for line in stage._lines if "Ah, the answer to" in line.text]
