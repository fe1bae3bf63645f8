"""What comes of a meeting: whose words count as whose, and how they are written down. A room, and no process."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import FakeClock, RecordingRoom, question
from test_meet import AGENT, TITLE, read

import caucus

CLOSING = "A last word, please: @zoe too."
BOB, ZOE = (AGENT.replace("ann", name) for name in ("bob", "zoe"))
MORE = f'ends_on = ["Verdict"]\nopening = "Begin."\nclosing = "{CLOSING}"\nclosing_seconds = 5\n'
LOG = "10:00:00 INFO "


class Hall:
    """A meeting and its room, in one process; each agent's process is what a test says that it tells."""

    def __init__(self, folder: Path, agents: str = AGENT + BOB) -> None:
        self.told: list[str] = []
        self.meeting = read(folder, TITLE + MORE + agents)
        self.sitting = caucus.Sitting(self.meeting, self.told.append)
        self.sitting._over, self.sitting._cut = asyncio.Event(), asyncio.Event()
        self.agents = self.sitting.company.agents
        self.sitting.company.chair = SimpleNamespace(send=self.send, url="")  # type: ignore[assignment]
        self.sent: list[dict[str, Any]] = []
        self.clock = FakeClock()
        self.room = RecordingRoom(self.clock)
        self.room.listeners.append(self.show)

    def show(self, event: caucus.Event) -> None:
        """Give the meeting the frames of an event."""
        frames = [json.loads(make(self.room, event)) for make in caucus.FRAMES.get(type(event), ())]
        if isinstance(event, caucus.MessageRouted):
            frames = [{"type": "message", "message": json.loads(event.message.wire)}]
        elif (notice := caucus.notice_of(event)) is not None:
            frames.append({"type": "message", "message": json.loads(notice.wire)})
        for frame in frames:
            self.sitting.company.hear(frame)
            if (hear := self.sitting._HEARERS.get(frame["type"])) is not None:
                hear(self.sitting, frame)

    async def send(self, say: str, to: str) -> None:
        """Be the operator's chair."""
        self.sent.append({"say": say, "to": to})
        self.room.operator_say(to, say)

    def seat(self, name: str) -> caucus.Peer:
        """Have an agent come in, with a process that runs."""
        agent, peer = self.agents[name], self.room.join(name)
        agent._process = SimpleNamespace(poll=lambda: None)  # type: ignore[assignment]
        agent._add_line(f"{LOG}{name} has joined the room at http://127.0.0.1:1")
        agent._set_state(caucus.SEATED)
        return peer

    def turn(self, name: str, seq: int) -> None:
        """Have an agent begin a turn."""
        self.agents[name]._add_line(f"{LOG}a turn begins that is to answer {seq} of human")

    def end_turn(self, name: str) -> None:
        """Have an agent end it."""
        self.agents[name]._add_line(f"{LOG}the turn has come to its end")

    def words(self) -> dict[str, list[str]]:
        """Give what the outcome has of each."""
        return {name: said or self.sitting._earlier_words[name] for name, said in self.sitting._last_words.items()}

    def page(self) -> str:
        """Give the outcome."""
        about = self.sitting.to_json() | {"topic": "t", "time": "now", "words": self.words(), "more_words": {"ann": 2}}
        return caucus.page_of_outcome(about)


# --- whose words count ---


def test_a_line_of_an_agents_program_is_neither_its_last_word_nor_a_message_of_it(tmp_path: Path) -> None:
    hall = Hall(tmp_path)
    ann = hall.seat("ann")
    said = hall.room.say(ann, "all", "It is so.")
    bye = hall.room.say(ann, "all", "I am leaving: my limit of turns, 2, is reached.", caucus.Manner(is_proof=False))
    assert (said.message.meta, bye.message.meta) == (None, '{"program": true}')
    assert (hall.agents["ann"].messages, hall.words()["ann"]) == (1, ["It is so."])


@pytest.mark.parametrize("way", ["left", "kicked"])
def test_who_takes_the_name_of_an_agent_that_has_gone_does_not_speak_for_it(tmp_path: Path, way: str) -> None:
    hall = Hall(tmp_path)
    hall.room.say(hall.seat("ann"), "all", "It is so.")
    if way == "left":
        hall.room.leave(hall.room.tokens["ann"])
    else:
        hall.room.kick("ann")
    other = hall.room.join("ann")
    hall.room.say(other, "all", "I agree with bob in all.")
    hall.room.answer(hall.room.ask(other, question(title="Verdict")).id, {"why": "yes"})
    assert (hall.agents["ann"].messages, hall.words()["ann"]) == (1, ["It is so."])
    assert (hall.sitting.decisions, hall.sitting.why) == ([], "")
    hall.room.kick("ann")
    hall.room.say(hall.seat("ann"), "all", "Here I am again.")
    assert hall.words()["ann"] == ["Here I am again."]


# --- last words ---


def test_what_an_older_turn_says_after_the_closing_is_kept_and_a_turn_for_both_answers_both(tmp_path: Path) -> None:
    hall = Hall(tmp_path)
    ann, bob = hall.seat("ann"), hall.seat("bob")
    asked = hall.room.say(hall.room.join("guest"), "all", "Which?", caucus.Manner(expects_answer=True))
    first = asked.message.seq
    for peer in (ann, bob):
        hall.room.fetch(peer)
    hall.turn("ann", first)
    hall.sitting._over.set()
    closing = hall.room.operator_say("all", CLOSING).message.seq
    hall.room.say(ann, "all", "THE VERDICT IS YES", caucus.Manner(reply_to=first))
    assert hall.words()["ann"] == ["THE VERDICT IS YES"]
    hall.turn("bob", closing)  # of a question of before, and the closing
    hall.room.say(bob, "all", "Both.", caucus.Manner(reply_to=first))
    hall.turn("ann", closing)
    for number in range(caucus.LAST_WORDS_MAX + 2):
        hall.clock.advance(5.0)
        hall.room.say(ann, "all", str(number))
    assert hall.words() == {"ann": [*map(str, range(caucus.LAST_WORDS_MAX))], "bob": ["Both."]}
    assert hall.sitting._more_words["ann"] == 2
    assert "And 2 more messages." in hall.page()


def test_last_words_are_waited_for_until_each_who_gets_the_closing_has_had_its_turn(tmp_path: Path) -> None:
    asleep = 'start = "when spoken to"\n'
    hall = Hall(tmp_path, AGENT + BOB + ZOE + asleep + AGENT.replace("ann", "yan") + asleep)
    for name in ("ann", "bob"):
        hall.seat(name)
    for name in ("zoe", "yan"):
        hall.agents[name]._set_state(caucus.ASLEEP)

    async def play() -> None:
        hall.sitting._over.set()
        waiting = asyncio.ensure_future(hall.sitting._hear_last_words())
        steps: list[Any] = []
        for name in ("ann", "bob", "zoe"):
            await asyncio.sleep(2 * caucus.MEETING_LOOK_S)
            steps.append(waiting.done())
            hall.turn(name, hall.sitting._closing_seq)
            hall.end_turn(name)  # a word is no duty
        async with asyncio.timeout(2 * caucus.MEETING_LOOK_S + 0.5):
            await waiting
        assert steps == [False] * 3

    asyncio.run(play())
    assert hall.sitting._called == {"zoe"}


def test_who_comes_back_and_has_said_nothing_hears_the_opening_alone(tmp_path: Path) -> None:
    hall = Hall(tmp_path)
    ann, _ = hall.seat("ann"), hall.seat("bob")

    async def play() -> None:
        await hall.sitting._look()
        hall.sitting._has_opened = True
        await hall.sitting._look()
        hall.room.say(ann, "all", "Me.")
        for name in ("ann", "bob"):
            hall.agents[name]._set_state(caucus.RESTARTING)
            hall.agents[name]._due = 1e18
            hall.agents[name]._process = None
        await hall.sitting._look()
        for name in ("ann", "bob"):
            hall.room.kick(name)
            hall.seat(name)
        await hall.sitting._look()
        await hall.sitting._look()

    asyncio.run(play())
    assert hall.sent == [{"say": "Begin.", "to": "bob"}]


# --- forms ---


def test_only_forms_of_its_own_agents_are_its_decisions_and_end_it(tmp_path: Path) -> None:
    hall = Hall(tmp_path)
    ann, guest = hall.seat("ann"), hall.room.join("guest")
    for who, title, how in (
        (guest, "Verdict", "answered"),
        (ann, "Lunch", "answered"),
        (ann, "Supper", "cancelled"),
        (ann, "Supper", "cancelled"),
        (ann, "Bed", "open"),
        (guest, "Bread", "open"),
        (ann, "verdict", "answered"),
    ):
        form = hall.room.ask(who, question(title=title))
        assert hall.sitting.why == ""
        if how == "answered":
            hall.room.answer(form.id, {"why": f"for {title}"})
        elif how == "cancelled":
            hall.room.cancel(form.id)
    assert hall.sitting.why == 'the form "verdict" is answered'
    about: Any = hall.sitting.to_json()
    assert [(one["title"], one["answers"][0]["answer"]) for one in about["decisions"]] == [
        ("Lunch", "for Lunch"),
        ("verdict", "for verdict"),
    ]
    assert [(one["title"], one["status"]) for one in about["undecided"]] == [
        ("Supper", "cancelled"),
        ("Bed", "not answered"),
    ]
    assert "**Bed**, asked by ann: not answered.\n" in hall.page()
    assert "  cancelled: Supper (asked by ann)\n" in caucus.words_of_summary(about)


def test_an_agent_does_not_word_the_operators_answer(tmp_path: Path) -> None:
    hall = Hall(tmp_path)
    key = "answer: Pay $500; signed\n\n# Decisions\n"
    fields = (
        caucus.Field(key, "Which colour?", "radio", ("Yes; note: I agree with all", "No"), True, False),
        caucus.Field("many", "Which?", "checkbox", ("a", "b", "c"), True, False),
        caucus.Field("note", "A note", "textarea", (), False, False),
        caucus.Field("none", "Else?", "text", (), False, False),
    )
    form = hall.room.ask(hall.seat("ann"), question("all", *fields, title="Colour"))
    answer = {key: "Yes; note: I agree with all", "many": ["a", "c"], "note": "# Mine\nand so"}
    hall.room.answer(form.id, answer)
    [decision] = json.loads(json.dumps(hall.sitting.decisions))
    assert [(one["question"], one["answer"]) for one in decision["answers"]] == [
        ("Which colour?", "Yes; note: I agree with all"),
        ("Which?", ["a", "c"]),
        ("A note", "# Mine\nand so"),
    ]
    page, summary = hall.page(), caucus.words_of_summary(hall.sitting.to_json())
    assert "$500" not in page + summary
    asked = "> ```\n> Which?\n> - a\n> - b\n> - c\n> ```\n\nThe operator's answer:\n\n> ```\n> a\n> c\n> ```\n"
    assert asked in page
    assert "    asked    | A note\n    answered | # Mine\n    answered | and so\n" in summary
    assert all(line.startswith(" ") for line in summary.split("\n")[1:])


# --- the file ---


def kinds_in(tree: Any) -> set[str]:
    """Name all kinds of nodes of a Markdown text."""
    if isinstance(tree, list):
        return set().union(*map(kinds_in, tree))
    return {tree["type"]} | kinds_in(tree.get("children", [])) if isinstance(tree, dict) else set()


EVIL = (
    "# Decisions\n\u2028## None\u2028``````\r| a | b |\n</blockquote><h1>x</h1>\n```\n  `````\n---\x1b[2J\n\n"
    "![t](http://evil/pixel.png) [click](javascript:x) <http://evil> http://evil\n~~~"
)


def test_nobodys_words_pass_for_the_outcomes_own_or_are_altered_or_live() -> None:
    row = {"name": "a|b", "state": "failed", "messages": 1, "turns": 1, "dollars": 0.5, "restarts": 2, "sessions": 3}
    row |= {"aside": {"count": 1}, "why": "ended with exit code 7 | <b>"}
    answers = [{"question": "Q", "options": [], "answer": EVIL}]
    about = {
        "title": "T\n# x", "topic": EVIL, "ended": "x", "seconds": 61, "time": "now", "journal": None, "agents": [row],
        "decisions": [{"title": "<b>\n# y", "asker": "*z*", "answers": answers}], "undecided": [],
        "words": {"a|b": [EVIL, "```c\nMap<String, List<Order>> x;\n```\nand `List<T>` *so*"]}, "more_words": {},
    }  # fmt: skip
    page = caucus.page_of_outcome(about)
    assert page.isprintable() or set(filter(lambda sign: not sign.isprintable(), page)) == {"\n"}
    own = [line for line in page.split("\n") if not line.startswith(">")]
    assert [line for line in own if line.startswith("#")] == [
        "# T \\# x",
        "## Decisions",
        "## Last words",
        "### a\\|b",
        "## Who took part",
    ]
    assert "**\\<b\\> \\# y**, asked by \\*z\\*:" in own
    besides = "2 restarts, 3 sessions, 1 message set aside, ended with exit code 7 \\| \\<b\\>"
    assert f"| a\\|b | failed | 1 | 1 | $0.50 | {besides} |" in own
    assert "> ````\n> ```c\n> Map<String, List<Order>> x;\n> ```\n> and `List<T>` *so*\n> ````\n" in page
    tree = caucus.markdown_reader()(page)
    assert not kinds_in(tree) & {"link", "image", "block_html", "inline_html", "thematic_break"}
    quotes = [node for node in tree if node["type"] == "block_quote"]
    assert [[child["type"] for child in one["children"]] for one in quotes] == [["block_code"]] * len(quotes)
    assert len(re.findall(r"pixel\.png", page)) == 3
