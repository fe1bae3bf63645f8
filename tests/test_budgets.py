"""Budgets: how they are written, what counts, when an agent or the room is held, and how that ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import nursery
import pytest
from fakes import FakeClock, RecordingRoom, contents, replayed, state_of
from hubs import START, running_hub
from loops import detector
from test_awake import SESSION, Hooks

import caucus
from caucus import (
    BACK_SHARE,
    BUDGET_EXAMPLE,
    BUDGETS_MAX,
    HELD_MAX,
    KICKED,
    OPERATOR_COMMANDS,
    PAUSED,
    RUNNING,
    SPENDERS_GONE_MAX,
    Account,
    Budget,
    BudgetReached,
    BudgetSpent,
    Invalid,
    Peer,
    Transcripts,
    UnknownBudget,
    Usage,
    budgets_of,
    name_of_spender,
    spender_of,
    words_of_budgets,
)

HOUR_S = 3600.0


def restored(room: RecordingRoom) -> RecordingRoom:
    """Give the room that a room's rows make."""
    other = RecordingRoom(FakeClock())
    other.restore(json.loads(json.dumps([*room.rows()], default=lambda value: value.values())))
    return other


class BudgetRoom(RecordingRoom):
    """A room in which one may speak as fast as one likes."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.set_rate(1e6, 1e6)

    def allow(self, text: str) -> None:
        """Set budgets, by their text."""
        self.set_budgets(budgets_of(text))

    def says(self, peer: Peer, to: str, count: int, size: int = 2) -> None:
        """Have a peer say so many messages of so many characters."""
        for _ in range(count):
            self.say(peer, to, "x" * size)

    def uses(self, peer: Peer, tokens: int, cost: float | None = None) -> None:
        """Have a peer report its usage."""
        self.set_usage(peer, Usage("m", 1, tokens // 2, tokens - tokens // 2, cost))

    def row_of(self, spender: str, measure: str) -> Any:
        """Find how a budget stands, as consoles see it."""
        rows: Any = self.budgets_row()["rows"]
        return next(row for row in rows if (row["spender"], row["measure"]) == (spender, measure))

    def reached(self) -> list[tuple[str, str, str]]:
        """List what was told of levels."""
        return [(one.spender, one.measure, one.level) for one in self.events if isinstance(one, BudgetReached)]

    def news_for(self, peer: Peer) -> list[Any]:
        """Give what a peer's next call tells it."""
        return self.take_news(peer)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def room(clock: FakeClock) -> Any:
    room = BudgetRoom(clock)
    yield room
    state = state_of(room)  # whatever a test did: its events and its rows make the same room
    assert state_of(replayed([*room.events])) == state
    assert state_of(restored(room)) | {"serial": 0} == state | {"serial": 0}


# --- what no lie and no way around changes ---------------------------------------------------------------------------
@pytest.mark.parametrize("spender", ['"abc', "", '"a\\', '"' + "x" * 65 + '"'])
@pytest.mark.parametrize("command", ["raise_budget", "end_spender"])
def test_a_subject_that_no_budget_could_have_is_refused(room: BudgetRoom, command: str, spender: str) -> None:
    room.allow("*: 5 messages")
    frame = {"raise_budget": {"spender": spender, "measure": "messages"}, "end_spender": spender}
    with pytest.raises(Invalid) as refused:
        OPERATOR_COMMANDS[command](room, frame)
    assert refused.value.detail.startswith({"raise_budget": "spender:", "end_spender": "end_spender:"}[command])
    assert room.budgets_row()["text"] == "*: 5 messages"


def test_a_name_that_needs_quotes_gets_them(room: BudgetRoom) -> None:
    room.allow("*: 5 messages")
    OPERATOR_COMMANDS["raise_budget"](room, {"raise_budget": {"spender": "bob smith", "measure": "messages", "to": 9}})
    written = str(room.budgets_row()["text"])
    assert written == '*: 5 messages; "bob smith": 9 messages'
    assert words_of_budgets(budgets_of(written)) == written


def test_no_report_is_so_high_that_the_budget_cannot_be_raised_beyond_it(room: BudgetRoom) -> None:
    ann = room.join("ann")
    room.allow("room: 100k tokens, $5")
    room.uses(ann, 2**53, 1e12)
    assert room.mode == PAUSED
    room.raise_budget("room", "tokens", None)
    room.raise_budget("room", "dollars", None)
    assert room.mode == RUNNING


def test_a_report_without_a_price_in_between_counts_no_dollar_twice(room: BudgetRoom) -> None:
    ann = room.join("ann")
    room.allow("ann: $50")
    for cost in (0.3, None, 0.3, 0.4):
        room.uses(ann, 10, cost)
    assert room.row_of("ann", "dollars")["spent"] == 0.4


def test_what_was_unknown_of_one_that_has_left_stays_unknown(room: BudgetRoom) -> None:
    ann, bob, cy = room.join("ann"), room.join("bob"), room.join("cy")
    room.allow("room: $5; *: $5, 100k tokens")
    room.uses(ann, 10, None)
    room.uses(bob, 500, 0.5)
    for peer in (ann, bob, cy):
        room.leave(room.tokens[peer.name])
    assert room.row_of("room", "dollars")["unknown"] == "2 that left reported no price"
    assert room.row_of("ann", "dollars")["unknown"] == "it reported no price"
    assert [room.row_of(one, "tokens")["unknown"] for one in ("ann", "bob")] == ["", ""]
    dan = room.join("dan")
    assert room.row_of("room", "dollars")["unknown"] == "1 agent reports no price, 2 that left reported none"
    room.uses(dan, 1, 0.1)
    room.allow("")
    room.allow("room: $5")
    assert room.row_of("room", "dollars")["unknown"] == ""


def test_who_is_woken_by_the_last_wake_of_its_budget_gets_the_mail(room: BudgetRoom) -> None:
    ann, bob = room.join("ann"), room.join("bob")
    room.allow("bob: 1 wake")
    room.wake_for(bob, "claude")
    room.says(ann, "bob", 1)
    assert room.pointer(bob) is not None
    room.note_awake(bob)
    assert len(room.fetch(bob)) == 1
    room.says(ann, "bob", 1)
    assert room.pointer(bob) is None
    assert room.is_overdrawn(bob)


GO_ON = "you may go on: what held you is over"


def test_who_was_told_to_end_its_turn_is_called_back_when_it_may_go_on(room: BudgetRoom) -> None:
    ann, bob = spend(room)
    assert room.brake_on(ann) == "over budget"
    room.pause_peer("ann")
    room.raise_budget("ann", "messages", None)
    assert contents(room.fetch(ann)) == [], "its own pause goes on"
    room.resume_peer("ann")
    assert contents(room.fetch(ann)) == [GO_ON]
    room.pause_peer("bob")
    room.resume_peer("bob")
    assert contents(room.fetch(bob)) == [], "it was never told"


def test_who_is_told_by_an_answer_is_called_back_too_and_when_the_room_has_room_again(room: BudgetRoom) -> None:
    ann, bob = spend(room, "room: 2 messages")
    room.raise_budget("room", "messages", None)
    assert contents(room.fetch(ann)) == [GO_ON]
    assert GO_ON not in contents(room.fetch(bob)), "it was never told"


def test_who_has_left_is_not_called(room: BudgetRoom) -> None:
    ann, _ = spend(room)
    room.brake_on(ann)
    room.leave(room.tokens["ann"])
    again = room.join("ann")
    room.raise_budget("ann", "messages", None)
    assert contents(room.fetch(again)) == []


def test_a_raise_does_not_promise_what_the_operators_own_pause_holds_back(room: BudgetRoom) -> None:
    ann, _ = spend(room)
    room.pause_peer("ann")
    room.news_for(ann)
    room.raise_budget("ann", "messages", None)
    assert room.news_for(ann) == ["the budget has room again; the operator's own pause goes on"]


def test_who_is_held_takes_no_stick_that_it_could_not_speak_with(room: BudgetRoom) -> None:
    ann, bob = spend(room)
    with pytest.raises(BudgetSpent, match="takes no stick"):
        room.use_floor(ann, "take", "all", None)
    assert room.use_floor(bob, "take", "all", None)


def test_who_is_held_is_forgotten_after_all_who_are_not(monkeypatch: pytest.MonkeyPatch, room: BudgetRoom) -> None:
    monkeypatch.setattr(caucus, "SPENDERS_GONE_MAX", 3)
    ann, bob = spend(room, "*: 2 messages")
    room.says(ann, "bob", 1)
    room.leave(room.tokens["ann"])
    for n in range(5):
        peer = room.join(f"a{n}")
        room.says(peer, "bob", 1)
        room.leave(room.tokens[peer.name])
    assert room.is_overdrawn(room.join("ann"))
    assert [message.sender for message in room.fetch(bob)].count("ann") == 0


# --- how they are written ---------------------------------------------------------------------------------------------


def test_budgets_are_read_and_written_the_same() -> None:
    text = "room: 500 messages/h, $5; *: 100k tokens; reviewer: 20k characters/h, 2M tokens, 7 wakes/h"
    assert budgets_of(text) == (
        Budget("room", "messages/h", 500),
        Budget("room", "dollars", 5.0),
        Budget("*", "tokens", 100_000),
        Budget("reviewer", "characters/h", 20_000),
        Budget("reviewer", "tokens", 2_000_000),
        Budget("reviewer", "wakes/h", 7),
    )
    assert words_of_budgets(budgets_of(text)) == text


@pytest.mark.parametrize(("written", "meant"), [
    ("room:5messages", "room: 5 messages"),
    ("  room :  1.5k   Messages / hour ", "room: 1500 messages/h"),
    ("room: 5 dollars per hour", "room: $5/h"),
    ("room: $ 0.25 / h", "room: $0.25/h"),
    ("room: 1 message; a: 1 token an hour", "room: 1 messages; a: 1 tokens/h"),
    ("room: 100K chars;", "room: 100k characters"),
    ("room: 5 messages\n\n*: 1M tokens\n", "room: 5 messages; *: 1M tokens"),
    ('"room": 1 wake; "*": 2 wakes', '"room": 1 wakes; "*": 2 wakes'),
    ("code reviewer: 3 messages", '"code reviewer": 3 messages'),
    ('"a: b; \\"c\\"": 3 messages', '"a: b; \\"c\\"": 3 messages'),
    ("žofie: 3 messages", "žofie: 3 messages"),
    ("", ""),
    (" ; ", ""),
])  # fmt: skip
def test_spaces_plurals_and_suffixes_are_free(written: str, meant: str) -> None:
    assert words_of_budgets(budgets_of(written)) == meant
    assert words_of_budgets(budgets_of(meant)) == meant


@pytest.mark.parametrize(("written", "says"), [
    ("500 messages", "a colon are wanted; this is wrong at character 1, at '500 messages'"),
    ("room: many messages", "a number, such as 500, 20k, 1.5M or $5, is wanted; this is wrong at character 7"),
    ("room: 5 massages", "tokens or dollars is wanted; this is wrong at character 9, at 'massages'"),
    ("room: 5", "tokens or dollars is wanted; this is wrong at its end"),
    ("room:", "a number, such as 500, 20k, 1.5M or $5, is wanted; this is wrong at its end"),
    ("room: 5 messages/day", "/h, for an hour, is the only time that a budget knows; this is wrong at character 17"),
    ("room: 1.5 messages", "a whole number above 0, up to 10^15, is wanted; this is wrong at character 7"),
    ("room: 0 messages", "a whole number above 0"),
    ("room: $0", "an amount above 0"),
    ("room: -5 messages", "a number, such as"),
    ("room: 9999999999M tokens", "a whole number above 0, up to 10^15"),
    ("room: 5 messages 6 wakes", "or a semicolon and another subject, is wanted; this is wrong at character 18"),
    ("room: 5 messages, 6 messages", "room has a budget of messages already; this is wrong at character 19"),
    ("room: 5 messages; room: 6 messages", "room has a budget of messages already"),
    ("operator: 5 messages", "no agent can be called so ('operator' looks like 'operator'"),
    ("#plans: 5 messages", "no agent can be called so (names beginning with # are channels)"),
    ('"a\\q": 5 messages', "a name in quotes is written as in JSON; this is wrong at character 1"),
    ('"": 5 messages', "no agent can be called so"),
])  # fmt: skip
def test_a_fault_is_shown_with_its_place_and_an_example(written: str, says: str) -> None:
    with pytest.raises(Invalid, match=re.escape(says)) as refused:
        budgets_of(written, "--budget")
    assert str(refused.value).endswith(
        "For example: room: 500 messages/h, $5; *: 100k tokens; reviewer: 20k characters/h"
    )
    assert refused.value.extra["field"] == "--budget"


def test_there_are_not_more_budgets_than_can_be_held_against_each_message() -> None:
    with pytest.raises(Invalid, match=f"at most {BUDGETS_MAX} budgets"):
        budgets_of("; ".join(f"api-{n}: 1 wake" for n in range(BUDGETS_MAX + 1)))


@pytest.mark.parametrize("name", ["api", "room", "*", "two words", "a:b", 'say "hi"', "žofie", "a  b", "x;y,z"])
def test_every_name_can_be_written_and_none_is_mistaken(name: str) -> None:
    spender = spender_of(name)
    assert name_of_spender(spender) == name
    assert budgets_of(f"{spender}: 5 messages") == (Budget(spender, "messages", 5),)
    assert spender not in ("room", "*")


# --- what counts ------------------------------------------------------------------------------------------------------


def test_messages_and_characters_of_agents_count_for_them_and_for_the_room(room: BudgetRoom) -> None:
    ann, bob = room.join("ann"), room.join("bob")
    room.says(ann, "all", 3)  # before anything was set
    room.allow("room: 100 messages, 1000 characters; *: 50 messages; bob: 20 characters")
    room.says(ann, "all", 2, size=10)
    room.says(bob, "ann", 1, size=5)
    room.operator_say("all", "a long word of the operator's own")
    assert room.row_of("room", "messages")["spent"] == 3
    assert room.row_of("room", "characters")["spent"] == 25
    assert room.row_of("ann", "messages")["spent"] == 2
    assert room.row_of("bob", "messages")["spent"] == 1
    assert room.row_of("bob", "characters")["spent"] == 5


def test_an_agents_own_budget_goes_before_that_of_each_agent(room: BudgetRoom) -> None:
    ann, bob = room.join("ann"), room.join("bob")
    room.allow("*: 2 messages, 100 characters; bob: 5 messages")
    room.says(ann, "all", 2)
    room.says(bob, "all", 4)
    assert room.is_overdrawn(ann)
    assert not room.is_overdrawn(bob)
    assert room.row_of("bob", "messages")["limit"] == 5
    assert room.row_of("bob", "characters")["limit"] == 100


def test_tokens_and_dollars_count_by_how_much_they_grow(room: BudgetRoom) -> None:
    ann = room.join("ann")
    room.uses(ann, 1000, 1.0)  # before
    room.allow("ann: 100k tokens, $50; room: $50")
    room.uses(ann, 1500, 1.25)
    assert room.row_of("ann", "tokens")["spent"] == 500
    assert room.row_of("ann", "dollars")["spent"] == 0.25
    room.uses(ann, 300, 0.1)  # it has begun anew
    assert room.row_of("ann", "tokens")["spent"] == 800
    assert room.row_of("room", "dollars")["spent"] == 0.35


def test_what_nobody_reports_is_unknown_and_not_nothing(room: BudgetRoom) -> None:
    ann = room.join("ann")
    room.allow("room: 100k tokens, $1; *: 100k tokens, $1")
    assert room.row_of("ann", "tokens")["unknown"] == "it reports no usage"
    assert room.row_of("room", "tokens")["unknown"] == "1 agent reports no usage"
    room.uses(ann, 10, None)
    assert room.row_of("ann", "tokens")["unknown"] == ""
    assert room.row_of("ann", "dollars")["unknown"] == "its model has no price"
    assert room.row_of("room", "dollars")["unknown"] == "1 agent reports no price"
    room.uses(ann, 20, 0.5)
    assert room.row_of("ann", "dollars") | {"spent": 0.5, "unknown": ""} == room.row_of("ann", "dollars")


def test_a_wake_counts_when_a_call_has_followed(room: BudgetRoom, clock: FakeClock) -> None:
    ann, bob = room.join("ann"), room.join("bob")
    room.allow("bob: 2 wakes")
    room.wake_for(bob, "claude")
    room.says(ann, "bob", 1)
    assert room.pointer(bob) is not None
    assert room.row_of("bob", "wakes")["spent"] == 0
    clock.advance(2)
    room.note_awake(bob)
    room.note_awake(bob)
    assert room.row_of("bob", "wakes")["spent"] == 1
    room.fetch(bob)
    room.says(ann, "bob", 1)
    assert room.pointer(bob) is not None
    clock.advance(1000)  # it did not wake
    room.note_awake(bob)
    assert room.row_of("bob", "wakes")["spent"] == 1


def test_without_budgets_nothing_is_counted_nor_told(room: BudgetRoom, clock: FakeClock) -> None:
    ann, bob = room.join("ann"), room.join("bob")
    room.wake_for(bob, "claude")
    room.says(ann, "bob", 1)
    assert room.pointer(bob) is not None
    room.note_awake(bob)
    room.uses(ann, 5)
    assert "PeerWoken" not in room.kinds()
    assert room.budgets_row() == {"text": "", "rows": [], "more": 0}
    assert not room.budgets.accounts


def test_an_hour_slides_in_steps_of_a_minute_and_keeps_no_more_than_sixty(clock: FakeClock) -> None:
    account = Account("a", "messages/h")
    for minute in range(200):
        account.add(1, minute * 60.0)
    assert len(account.steps) == 60
    assert account.spent(199 * 60.0) == 60
    assert account.spent(230 * 60.0) == 29
    account.add(1, 100.0)  # a clock that was set back
    assert account.steps[-1] == [199.0, 2]


# --- 80 % -------------------------------------------------------------------------------------------------------------


def test_who_is_near_a_budget_is_told_once_with_its_next_call(room: BudgetRoom) -> None:
    ann, _ = room.join("ann"), room.join("bob")
    room.allow("ann: 10 messages")
    room.says(ann, "all", 7)
    assert room.reached() == []
    room.says(ann, "all", 2)
    assert room.reached() == [("ann", "messages", "near")]
    assert room.log[-2].content == "ann has used 80% of its budget of 10 messages"
    assert restored(room).take_news(ann) == ["you have used 80% of your budget of 10 messages"]
    assert room.news_for(ann) == ["you have used 80% of your budget of 10 messages"]
    assert room.news_for(ann) == []


def test_of_an_hour_it_is_told_once_an_hour(room: BudgetRoom, clock: FakeClock) -> None:
    ann = room.join("ann")
    room.allow("ann: 10 messages/h")
    room.says(ann, "all", 4)
    clock.advance(50 * 60)
    room.says(ann, "all", 4)  # near
    clock.advance(11 * 60)  # the first four are old
    room.sweep()
    assert room.reached() == [("ann", "messages/h", "near"), ("ann", "messages/h", "fine")]
    room.says(ann, "all", 4)  # near again, within the hour
    assert len(room.reached()) == 2
    clock.advance(50 * 60)
    room.says(ann, "all", 4)
    assert room.reached()[2:] == [("ann", "messages/h", "near")]


def test_near_the_rooms_budget_all_are_told(room: BudgetRoom) -> None:
    ann, bob = room.join("ann"), room.join("bob")
    room.allow("room: 10 messages")
    room.says(ann, "all", 8)
    assert room.news_for(bob) == room.news_for(ann) == ["the room has used 80% of its budget of 10 messages"]
    assert room.mode == "running"


# --- 100 %: an agent --------------------------------------------------------------------------------------------------


def spend(room: BudgetRoom, text: str = "ann: 2 messages") -> tuple[Peer, Peer]:
    """Have ann spend her budget, beside bob, who has fetched what she said."""
    ann, bob = room.join("ann"), room.join("bob")
    room.allow(text)
    room.says(ann, "bob", 2)
    room.fetch(bob)
    return ann, bob


def test_a_spent_agent_is_paused_and_what_it_says_waits(room: BudgetRoom) -> None:
    ann, bob = spend(room)
    assert room.log[-1].content == "ann has spent its budget of 2 messages, and is paused until the operator raises it"
    room.say(bob, "ann", "for ann")
    room.say(bob, "all", "for all")
    assert room.fetch(ann) == []
    assert not room.has_deliverable(ann)
    room.say(ann, "bob", "late")
    room.say(ann, "all", "later")
    assert room.fetch(bob) == []
    assert not room.has_deliverable(bob)
    assert room.row_of("ann", "messages")["waiting"] == 2
    room.raise_budget("ann", "messages", 10)
    assert contents(room.fetch(bob)) == ["late", "later"]
    assert contents(room.fetch(ann)) == ["for ann", "for all", GO_ON]
    assert words_of_budgets(room.budgets.listed()) == "ann: 10 messages"
    assert room.held == {}


def test_the_operator_reaches_a_spent_agent_and_hears_it(room: BudgetRoom) -> None:
    ann, _ = spend(room)
    room.operator_say("ann", "why so much?")
    assert contents(room.fetch(ann)) == ["why so much?"]
    before = len(room.held)
    room.say(ann, "human", "because")
    assert len(room.held) == before


def test_a_spent_agent_is_told_why_by_its_brake_and_by_the_next_call(room: BudgetRoom) -> None:
    ann, bob = spend(room)
    assert room.brake_on(ann) == "over budget"
    assert room.brake_words(ann, "over budget") == (
        "Your budget of 2 messages is spent, until the operator raises it. End your turn; you will be woken when you "
        "may go on."
    )
    assert room.brake_on(bob) is None
    assert room.news_for(ann)[-1] == (
        "you have spent your budget of 2 messages, and are paused until the operator raises it"
    )


def test_only_so_much_waits_and_more_is_refused_without_a_trace(room: BudgetRoom) -> None:
    ann, bob = spend(room)
    room.says(ann, "bob", HELD_MAX)
    count = len(room.events)
    with pytest.raises(BudgetSpent, match=f"{HELD_MAX} of your messages wait already") as refused:
        room.say(ann, "bob", "one more")
    assert (refused.value.code, refused.value.status) == ("budget_spent", 422)
    assert len(room.events) == count
    room.say(ann, "human", "the operator hears it all the same")
    room.raise_budget("ann", "messages", None)  # doubled, beyond what was said meanwhile
    assert room.budgets.on("ann")["messages"].limit == 2 * (2 + HELD_MAX + 1)
    assert len(room.fetch(bob)) == HELD_MAX


def test_a_listening_peer_is_handed_nothing_of_who_is_held_nor_while_it_is_held(room: BudgetRoom) -> None:
    ann, bob = spend(room)
    room.note_listening(bob, is_listening=True)
    room.note_listening(ann, is_listening=True)
    assert room.operator_say("all", "for both").handed == ("ann", "bob")
    assert room.say(ann, "bob", "late").handed == ()
    assert room.say(bob, "ann", "for ann").handed == ()


def test_a_spent_agent_is_neither_called_deaf_nor_quiet(room: BudgetRoom, clock: FakeClock) -> None:
    ann, bob = spend(room)
    room.say(bob, "ann", "for ann")
    clock.advance(200)
    room.sweep()
    assert "Overdue" not in room.kinds()
    assert [row["quiet"] for row in room.peer_rows()] == [False, True]
    assert room.reach(ann)["paused"] is True


def test_what_a_held_lane_and_a_held_speaker_keep_goes_when_both_are_free(room: BudgetRoom) -> None:
    ann, bob = room.join("ann"), room.join("bob")
    room.detector = detector()
    room.allow("ann: 12 messages")
    for _ in range(14):
        room.say(ann, "bob", "thanks")  # the lane is held for that, and then ann for what she spent
    room.fetch(bob)
    (lane,) = room.loops
    assert room.loops[lane].waiting
    assert room.budgets.waiting["ann"]
    both = {*room.loops[lane].waiting} & {*room.budgets.waiting["ann"]}
    assert {seq for seq, count in room.held.items() if count == 2} == both != set()
    room.raise_budget("ann", "messages", 100)
    assert room.fetch(bob) == []
    room.rule(lane, "continue")
    assert both <= {message.seq for message in room.fetch(bob)}
    assert room.held == {}
    room.set_loops("off", 0.0)


def test_the_operators_own_pause_and_the_budgets_do_not_undo_each_other(room: BudgetRoom) -> None:
    ann, bob = spend(room)
    room.say(bob, "ann", "for ann")
    room.pause_peer("ann")
    room.resume_peer("ann")
    assert room.fetch(ann) == []
    room.pause_peer("ann")
    room.raise_budget("ann", "messages", None)
    assert room.fetch(ann) == []
    room.resume_peer("ann")
    assert contents(room.fetch(ann)) == ["for ann", GO_ON]


def test_an_hourly_budget_lets_go_by_itself_once_there_is_some_room(room: BudgetRoom, clock: FakeClock) -> None:
    ann, bob = room.join("ann"), room.join("bob")
    room.allow("ann: 4 messages/h")
    room.says(ann, "bob", 1)
    clock.advance(10 * 60)
    room.says(ann, "bob", 3)
    room.fetch(bob)
    room.say(ann, "bob", "late")
    clock.advance(50 * 60)
    room.sweep()
    assert 4 * BACK_SHARE == 3
    assert room.is_overdrawn(ann), "four of the last hour still"
    assert room.row_of("ann", "messages/h")["back_ts"] == (clock.wall() // 60 + 10) * 60
    clock.advance(10 * 60)
    room.note_listening(ann, is_listening=True)
    room.note_listening(bob, is_listening=True)
    room.sweep()
    assert not room.is_overdrawn(ann)
    assert contents(room.fetch(bob)) == ["late"]
    assert room.news_for(ann)[-1] == "you have room again in your budget of 4 messages/h"


def test_a_restart_keeps_what_was_spent_and_who_is_held(room: BudgetRoom) -> None:
    ann, bob = spend(room, "ann: 2 messages, 1M tokens; room: 100 messages/h")
    room.say(ann, "bob", "late")
    again = restored(room)
    assert again.is_overdrawn(again.roster.get("ann") or ann)
    assert again.fetch(again.roster.get("bob") or bob) == []
    again.raise_budget("ann", "messages", 5)
    assert "late" in contents(again.fetch(again.roster.get("bob") or bob))


# --- raise, end, other budgets ----------------------------------------------------------------------------------------


def test_a_raise_of_what_all_have_is_a_budget_of_its_own(room: BudgetRoom) -> None:
    ann, _ = spend(room, "*: 2 messages")
    room.raise_budget("ann", "messages", None)
    assert words_of_budgets(room.budgets.listed()) == "*: 2 messages; ann: 4 messages"
    assert not room.is_overdrawn(ann)
    assert "budgets: ann may spend 4 messages" in contents(room.log)
    assert room.news_for(ann)[-1] == "you may go on"


@pytest.mark.parametrize(("spender", "measure", "limit", "kind"), [
    ("ann", "tokens", None, UnknownBudget),
    ("eve", "messages", None, UnknownBudget),
    ("room", "messages", 5, UnknownBudget),
    ("ann", "messages", 2, Invalid),
    ("ann", "messages", 10**15 + 1, Invalid),
])  # fmt: skip
def test_a_raise_that_makes_no_sense_is_refused(
    room: BudgetRoom, spender: str, measure: str, limit: float | None, kind: type[Exception]
) -> None:
    spend(room)
    count = len(room.events)
    with pytest.raises(kind):
        room.raise_budget(spender, measure, limit)
    assert len(room.events) == count


def test_a_raise_beyond_all_budgets_that_may_be_is_refused(room: BudgetRoom) -> None:
    spend(room, "*: 2 messages; " + "; ".join(f"api-{n}: 1 wake" for n in range(BUDGETS_MAX - 1)))
    with pytest.raises(Invalid, match="remove some"):
        room.raise_budget("ann", "messages", None)


def test_raises_do_not_make_a_text_that_cannot_be_edited(room: BudgetRoom) -> None:
    room.allow("*: 2 messages")
    for n in range(BUDGETS_MAX - 1):
        with contextlib.suppress(Invalid):
            room.raise_budget(f"{n:x<60}", "messages", None)
    with pytest.raises(Invalid, match="characters in all"):
        room.raise_budget("y" * 60, "messages", None)
    assert budgets_of(str(room.budgets_row()["text"]))


def test_the_end_of_a_spent_agent_delivers_its_last_words_and_lets_it_go(room: BudgetRoom) -> None:
    ann, bob = spend(room)
    room.say(ann, "bob", "last words")
    room.end_spender("ann")
    assert contents(room.fetch(bob)) == ["last words"]
    assert room.roster.get("ann") is None
    assert room.roster.ended[ann.token_hash] == KICKED
    with pytest.raises(UnknownBudget):
        room.end_spender("bob")
    with pytest.raises(UnknownBudget):
        room.end_spender("room")


def test_a_name_has_no_new_budget_when_it_comes_back(room: BudgetRoom) -> None:
    ann, bob = spend(room)
    room.say(ann, "bob", "before it went")
    room.leave(room.tokens["ann"])
    assert room.fetch(bob) == []
    again = room.join("ann")
    assert room.is_overdrawn(again)
    room.say(again, "bob", "as another")
    assert room.fetch(bob) == []
    room.end_spender("ann")
    assert contents(room.fetch(bob)) == ["before it went", "as another"]


def test_what_one_said_that_is_gone_can_still_be_let_go(room: BudgetRoom) -> None:
    ann, bob = spend(room)
    room.say(ann, "bob", "before it went")
    room.kick("ann")
    assert room.row_of("ann", "messages")["here"] is False
    room.end_spender("ann")
    assert contents(room.fetch(bob)) == ["before it went"]


def test_under_another_name_the_rooms_budget_catches_it(room: BudgetRoom) -> None:
    spend(room, "room: 4 messages; *: 2 messages")
    room.leave(room.tokens["ann"])
    room.says(room.join("ann2"), "bob", 2)
    assert room.mode == "paused"


def test_of_those_who_are_gone_the_latest_are_kept(room: BudgetRoom, clock: FakeClock) -> None:
    room.allow("*: 1 message")
    room.join("bob")
    cy = room.join("cy")
    for n in range(SPENDERS_GONE_MAX + 2):
        peer = room.join(f"a{n}")
        room.says(peer, "bob" if n else "cy", 2)
        room.leave(room.tokens[peer.name])
    assert len(room.budgets.gone) == SPENDERS_GONE_MAX
    assert "a1" not in room.budgets.accounts
    assert f"a{SPENDERS_GONE_MAX}" in room.budgets.spent
    assert len(room.held) == SPENDERS_GONE_MAX
    assert len(room.fetch(cy)) == 2, "the second waited for a ruling that none can give any more"
    assert len(room.budgets_row()["rows"]) == 200  # type: ignore[arg-type]
    assert room.budgets_row()["more"] == SPENDERS_GONE_MAX - 200 + 2


def test_budgets_that_are_taken_away_hold_nobody(room: BudgetRoom) -> None:
    ann, bob = spend(room, "ann: 2 messages; room: 3 messages")
    room.say(ann, "bob", "late")
    assert room.mode == "paused"
    room.allow("")
    assert room.mode == "running"
    assert contents(room.fetch(bob)) == ["late"]
    assert not room.is_overdrawn(ann)
    room.allow("ann: 2 messages")
    assert room.row_of("ann", "messages")["spent"] == 0


def test_a_limit_that_is_lowered_holds_at_once_and_the_same_again_is_no_event(room: BudgetRoom) -> None:
    ann, _ = spend(room, "ann: 20 messages")
    room.allow("ann: 1 message")
    assert room.is_overdrawn(ann)
    count = len(room.events)
    room.allow("ann: 1 message")
    assert len(room.events) == count
    room.allow("ann: 2 messages")  # still too little: it was never free
    assert room.is_overdrawn(ann)
    assert room.kinds(count) == ["BudgetsSet"]


def test_who_is_held_for_another_budget_at_once_was_never_free(room: BudgetRoom) -> None:
    ann, bob = spend(room, "ann: 2 messages, 90 characters")
    room.say(ann, "bob", "late")
    room.allow("ann: 5 characters")
    assert room.is_overdrawn(ann)
    assert room.fetch(bob) == []


# --- 100 %: the room --------------------------------------------------------------------------------------------------


def test_the_rooms_budget_pauses_the_room_until_it_is_raised(room: BudgetRoom) -> None:
    ann, bob = spend(room, "room: 2 messages")
    assert (room.mode, room.wanted_mode) == ("paused", "running")
    assert room.brake_on(bob) == "over budget"
    assert room.brake_words(bob, "over budget").startswith("The room's budget of 2 messages is spent")
    room.say(ann, "bob", "late")
    with pytest.raises(BudgetSpent, match="raise it, or take it away"):
        room.set_mode("resume")
    room.raise_budget("room", "messages", 20)
    assert room.mode == "running"
    assert contents(room.fetch(bob)) == ["xx", "xx", "late", GO_ON]


def test_of_each_agent_only_so_much_waits_for_the_room(room: BudgetRoom) -> None:
    ann, bob = spend(room, "room: 2 messages")
    room.says(ann, "bob", HELD_MAX)
    with pytest.raises(BudgetSpent):
        room.say(ann, "bob", "one more")
    room.say(bob, "ann", "another may")


def test_a_pause_of_the_operators_outlives_the_rooms_budget(room: BudgetRoom) -> None:
    spend(room, "room: 2 messages")
    room.set_mode("pause")
    room.raise_budget("room", "messages", 20)
    assert room.mode == "paused"
    room.set_mode("resume")
    assert room.mode == "running"


def test_a_paused_room_whose_budget_is_spent_and_free_again_stays_paused(room: BudgetRoom, clock: FakeClock) -> None:
    ann, _ = room.join("ann"), room.join("bob")
    room.allow("room: 2 messages/h")
    room.set_mode("pause")
    room.says(ann, "bob", 2)
    clock.advance(HOUR_S + 60)
    room.note_listening(ann, is_listening=True)
    room.sweep()
    assert room.budgets.spent == {}
    assert room.mode == "paused"


def test_the_rooms_hour_ends_by_itself(room: BudgetRoom, clock: FakeClock) -> None:
    ann, bob = spend(room, "room: 2 messages/h")
    room.note_listening(ann, is_listening=True)
    room.note_listening(bob, is_listening=True)
    clock.advance(HOUR_S + 60)
    room.sweep()
    assert room.mode == "running"
    assert "the room has room again in its budget of 2 messages/h" in contents(room.log)


def test_a_stop_stays_a_stop_and_after_the_reset_the_budget_holds_on(room: BudgetRoom) -> None:
    ann, bob = spend(room)
    room.say(ann, "bob", "late")
    room.set_mode("stop")
    assert room.held
    room.set_mode("reset")
    assert room.fetch(bob) == []
    assert room.is_overdrawn(ann)
    room.raise_budget("ann", "messages", None)
    assert contents(room.fetch(bob)) == ["late"]


def test_a_stopped_room_is_not_started_by_its_budget(room: BudgetRoom) -> None:
    spend(room, "room: 2 messages")
    room.set_mode("stop")
    with pytest.raises(BudgetSpent):
        room.set_mode("reset")
    room.raise_budget("room", "messages", None)
    assert room.mode == "stopped"
    room.set_mode("reset")
    assert room.mode == "running"


# --- what a Claude Code has used, by its transcripts ------------------------------------------------------------------


def line_of(message_id: str, output: int, **more: Any) -> str:
    """Give a line of a transcript as a Claude Code writes it: one for each part of a message, its usage in each."""
    used = {"input_tokens": 4, "cache_creation_input_tokens": 1000, "cache_read_input_tokens": 20_000,
            "output_tokens": output, "service_tier": "standard", "server_tool_use": {"web_search_requests": 0}}
    message = {"id": message_id, "type": "message", "role": "assistant", "model": "claude-x", "usage": used,
               "content": [{"type": "text", "text": "words, \"usage\" among them"}]}
    own = {"parentUuid": "p", "isSidechain": False, "type": "assistant", "uuid": "u", "sessionId": "s"}
    return json.dumps({**own, "message": message, **more}) + "\n"


USER_LINE = json.dumps({"type": "user", "message": {"role": "user", "content": "\"usage\" \"assistant\""}}) + "\n"


def usage_of(place: Path, transcript: Path) -> dict[str, Any]:
    """Give what the next hook finds, and have it kept."""
    return Transcripts(str(place)).read(str(transcript))


def test_a_message_counts_once_however_many_lines_it_has(tmp_path: Path) -> None:
    transcript, place = tmp_path / "s.jsonl", tmp_path / "seat"
    transcript.write_text(USER_LINE + line_of("m1", 2) + line_of("m1", 2) + line_of("m1", 90))
    assert usage_of(place, transcript) == {
        "model": "claude-x", "turns": 1, "input_tokens": 21_004, "output_tokens": 90, "cost_usd": None
    }
    with transcript.open("a") as file:
        file.write(line_of("m1", 95) + USER_LINE + line_of("m2", 5) + line_of("m1", 95))
    assert usage_of(place, transcript) | {"cost_usd": 0} == {
        "model": "claude-x", "turns": 2, "input_tokens": 42_008, "output_tokens": 100, "cost_usd": 0
    }
    assert usage_of(place, transcript)["turns"] == 2


def test_a_line_that_is_being_written_counts_when_it_is_whole(tmp_path: Path) -> None:
    transcript, place, line = tmp_path / "s.jsonl", tmp_path / "seat", line_of("m1", 7)
    transcript.write_text(line[:200])
    assert usage_of(place, transcript)["turns"] == 0
    transcript.write_text(line)
    assert usage_of(place, transcript)["output_tokens"] == 7


def test_subagents_count_too_in_the_transcript_and_beside_it(tmp_path: Path) -> None:
    transcript, place = tmp_path / "s.jsonl", tmp_path / "seat"
    transcript.write_text(line_of("m1", 1) + line_of("m2", 10, isSidechain=True))
    (tmp_path / "s" / "subagents").mkdir(parents=True)
    (tmp_path / "s" / "subagents" / "agent-1.jsonl").write_text(line_of("m3", 100, isSidechain=True))
    (tmp_path / "s" / "subagents" / "agent-1.meta.json").write_text("{}")
    assert usage_of(place, transcript)["output_tokens"] == 111


def test_what_the_transcript_prices_has_a_price(tmp_path: Path) -> None:
    transcript, place = tmp_path / "s.jsonl", tmp_path / "seat"
    transcript.write_text(line_of("m1", 1, costUSD=0.25) + line_of("m2", 1, costUSD=0.5))
    assert usage_of(place, transcript)["cost_usd"] == 0.75
    with transcript.open("a") as file:
        file.write(line_of("m3", 1))
    assert usage_of(place, transcript)["cost_usd"] is None


def test_a_huge_transcript_is_read_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caucus.USAGE_READ_MAX_BYTES", 2000)
    transcript, place = tmp_path / "s.jsonl", tmp_path / "seat"
    transcript.write_text("".join(line_of(f"m{n}", 1) for n in range(10)) + "x" * 5000 + "\n" + line_of("last", 1))
    turns = [usage_of(place, transcript)["turns"] for _ in range(12)]
    assert turns == sorted(turns)
    assert turns[0] < turns[1] < turns[-1] == 11
    assert (tmp_path / "seat.usage").stat().st_size < 4000


@pytest.mark.parametrize("said", ["", "{", "[1]", '{"files":{}}', '{"files":{},"usage":{"turns":1}}', "\x00"])
def test_odd_notes_and_transcripts_are_no_fault(tmp_path: Path, said: str) -> None:
    transcript, place = tmp_path / "s.jsonl", tmp_path / "seat"
    transcript.write_bytes(b'{"type":"assistant","message":{"usage":5}}\n"usage""assistant"\n\xff"usage""assistant"\n'
                           b'{"type":"assistant","message":{"usage":{"output_tokens":-5,"input_tokens":"x"}}}\n')
    (tmp_path / "seat.usage").write_text(said)
    assert usage_of(place, transcript)["output_tokens"] == 0
    assert usage_of(place, tmp_path / "none.jsonl")["output_tokens"] == 0


def test_the_stop_hook_of_a_claude_tells_what_its_session_has_used(tmp_path: Path) -> None:
    transcript = tmp_path / "s.jsonl"
    transcript.write_text(line_of("m1", 2) + line_of("m1", 90))
    with contextlib.ExitStack() as end:
        hub = end.enter_context(running_hub("--budget", "*: 20k tokens; web: $1"))
        hooks = Hooks(hub.url, tmp_path)
        hooks.bridge(end, tmp_path)
        said = {"session_id": SESSION, "transcript_path": str(transcript), "hook_event_name": "Stop"}
        assert hooks.run("wake", "claude", "--now", said=said) == (0, "", "")
        usage = hub.get("/ping?peer=api").body["usage"]
        assert (usage["input_tokens"], usage["output_tokens"], usage["cost_usd"]) == (21_004, 90, None)
        with hub.console() as operator:
            rows = operator.snapshot["budgets"]["rows"]
            assert (rows[0]["spender"], rows[0]["spent"], rows[0]["level"]) == ("api", 21_094, "spent")
        assert "Your budget of 20k tokens is spent" in hooks.brake()
        for odd in ({"transcript_path": "relative"}, {"transcript_path": 5}, {"transcript_path": "/dev/zero"}, [], {}):
            assert hooks.run("wake", "claude", "--now", said=odd) == (0, "", "")


# --- the hub ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "env"), [
    (["--budget", "room: 5 massages"], {}),
    ([], {"CAUCUS_BUDGET": "room: 5 massages"}),
])  # fmt: skip
def test_a_hub_whose_budgets_cannot_be_read_does_not_start(words: list[str], env: dict[str, str]) -> None:
    command = [sys.executable, START, "hub", "--port", "0", "--no-browser", *words]
    done = nursery.run(command, env={**os.environ, **env})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "caucus: --budget ($CAUCUS_BUDGET): messages, characters, wakes, tokens or dollars is wanted; this is wrong at "
        f"character 9, at 'massages'. For example: {BUDGET_EXAMPLE}\n"
    )


def test_a_hub_without_the_option_keeps_what_its_journal_has(tmp_path: Path) -> None:
    journal = str(tmp_path / "room.journal")
    with running_hub("--journal", journal, "--budget", "api: 2 messages") as hub:
        api = hub.register("api")
        hub.register("web")
        answers = [hub.say(api, "web", f"n{n}") for n in range(3)]
        assert "over_budget" not in answers[0]
        assert answers[1]["over_budget"] == "your budget of 2 messages is spent, until the operator raises it"
        assert answers[2]["hint"].startswith("your budget of 2 messages is spent")
        assert any("you have spent your budget" in news for news in answers[1]["news"])
    with running_hub("--journal", journal) as hub, hub.console() as operator:
        snapshot = operator.snapshot
        assert snapshot["budgets"]["text"] == "api: 2 messages"
        assert snapshot["budgets"]["rows"][0]["waiting"] == 1
        operator.send(raise_budget={"spender": "api", "measure": "messages"})
        assert operator.next("budgets")["rows"][0]["limit"] == 6
        operator.send(budgets="api: 5 massages")
        error = operator.next("error")
        assert (error["reason"], error["command"], error["field"]) == ("invalid", "budgets", "budgets")
        operator.send(end_spender="api")
        assert operator.next("error")["reason"] == "unknown_budget"
        operator.send(raise_budget={"spender": "api", "measure": "messages", "to": 5.5})
        assert operator.next("error")["field"] == "to"
