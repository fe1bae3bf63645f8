"""Quiet is a state of the room: it has converged, died, or waits for the operator; and it can stop by itself."""

from __future__ import annotations

import json

import pytest
from fakes import FakeClock, RecordingRoom, question, replayed, state_of

import caucus
from caucus import OPERATOR, QUIET_STOP_MAX_MIN, ROOM_QUIET_S, STOPPED, STUCK_S, Manner, Peer, Room, budgets_of

ASKING = Manner(expects_answer=True)


@pytest.fixture
def pair(room: RecordingRoom) -> tuple[Peer, Peer]:
    """Give two peers that have spoken and read all."""
    api, web = room.join("api"), room.join("web")
    room.say(api, "web", "one")
    read_all(room, api, web)
    return api, web


def read_all(room: RecordingRoom, *peers: Peer) -> None:
    """Have peers fetch what waits for them."""
    for peer in peers:
        while room.fetch(peer):
            pass


def state(room: Room) -> object:
    """Name what the room's quiet has come to."""
    found = room.quiet()
    return None if found is None else found["state"]


def keep_alive(room: RecordingRoom, clock: FakeClock, *peers: Peer, minutes: int) -> None:
    """Let time pass with polls parked, and sweep each minute."""
    for peer in peers:
        peer.is_listening = True
    for _ in range(minutes):
        clock.advance(60)
        room.sweep()


def test_a_room_is_not_quiet_before_its_time(room, clock, pair):
    clock.advance(ROOM_QUIET_S - 1)
    assert room.quiet() is None
    clock.advance(1)
    assert state(room) == "converged"


def test_a_room_in_which_nothing_was_ever_said_is_not_quiet(room, clock):
    room.join("api")
    clock.advance(10 * ROOM_QUIET_S)
    assert room.quiet() is None


def test_quiet_tells_since_when_nobody_has_spoken(room, clock, pair):
    spoken = clock.wall()
    clock.advance(ROOM_QUIET_S + 5)
    assert room.quiet()["since"] == spoken


def test_all_answered_and_read_is_converged(room, clock, pair):
    api, web = pair
    asked = room.say(api, "web", "which port?", ASKING)
    room.fetch(web)
    room.say(web, "", "8765", Manner(reply_to=asked.message.seq))
    read_all(room, api, web)
    clock.advance(ROOM_QUIET_S)
    assert room.quiet()["state"] == "converged"
    assert room.quiet()["why"] == ["every question has its answer, no hand is raised, all mail is read"]


def test_an_answer_that_is_owed_is_died_and_names_who_owes_whom_since_when(room, clock, pair):
    api, web = pair
    room.say(api, "web", "which port?", ASKING)
    room.fetch(web)
    clock.advance(ROOM_QUIET_S)
    assert room.quiet()["state"] == "died"
    assert room.quiet()["why"] == ["web owes api an answer, for 10 min"]


def test_a_raised_hand_is_died_and_names_the_holder(room, clock, pair):
    api, web = pair
    room.use_floor(api, "take", "all", None)
    room.use_floor(web, "raise", "all", None)
    read_all(room, api, web)
    clock.advance(ROOM_QUIET_S)
    assert room.quiet()["why"] == ["web waits for the stick of all, which api holds"]


def test_mail_that_nobody_reads_is_died_and_tells_who_is_away(room, clock, pair):
    api, _ = pair
    room.say(api, "web", "last words")
    keep_alive(room, clock, api, minutes=11)
    assert room.quiet()["why"] == ["mail waits for web, which is away: 1"]
    assert state(room) == "died"


def test_a_question_to_the_operator_is_neither_converged_nor_died(room, clock, pair):
    room.ask(pair[0], question())
    clock.advance(ROOM_QUIET_S)
    assert (state(room), room.quiet()["why"]) == ("waiting", ["the operator is asked"])


@pytest.mark.parametrize("action", ["pause", "stop"])
def test_a_room_that_is_held_is_not_quiet_and_quiet_begins_anew_when_it_runs(room, clock, pair, action):
    clock.advance(ROOM_QUIET_S)
    room.set_mode(action)
    assert room.quiet() is None
    room.set_mode("reset")
    assert room.quiet() is None
    clock.advance(ROOM_QUIET_S)
    assert state(room) == "converged"


def test_the_operators_words_end_quiet_and_the_hubs_do_not(room, clock, pair):
    api, web = pair
    clock.advance(ROOM_QUIET_S)
    room.use_floor(api, "take", "all", None)
    read_all(room, api, web)
    assert state(room) == "converged"
    room.operator_say("all", "go on")
    assert room.quiet() is None


def test_reasons_are_bounded(room, clock):
    peers = [room.join(f"p{n}") for n in range(caucus.QUIET_WHY_MAX + 3)]
    for peer in peers:
        room.say(peer, "all", "hello")
    clock.advance(ROOM_QUIET_S)
    assert len(room.quiet()["why"]) == caucus.QUIET_WHY_MAX


# --- it stops by itself ---


def test_no_room_stops_by_itself_unless_the_operator_has_set_it(room, clock, pair):
    keep_alive(room, clock, *pair, minutes=600)
    assert room.mode == "running"


def test_it_stops_after_as_many_minutes_without_a_word_and_says_why(room, clock, pair):
    room.set_quiet_stop(30)
    keep_alive(room, clock, *pair, minutes=29)
    assert room.mode == "running"
    keep_alive(room, clock, *pair, minutes=1)
    assert room.mode == STOPPED
    assert room.kinds()[-2:] == ["QuietReached", "ModeChanged"]
    assert [m.content for m in room.log][-2:] == [
        "nobody has spoken for 30 minutes: the room stops, as the operator has set it", "control: stopped"
    ]  # fmt: skip


def test_setting_it_counts_from_now_on(room, clock, pair):
    keep_alive(room, clock, *pair, minutes=60)
    room.set_quiet_stop(5)
    keep_alive(room, clock, *pair, minutes=4)
    assert room.mode == "running"
    keep_alive(room, clock, *pair, minutes=1)
    assert room.mode == STOPPED


@pytest.mark.parametrize("who", ["agent", "operator"])
def test_a_word_of_agent_or_operator_begins_the_count_anew(room, clock, pair, who):
    room.set_quiet_stop(5)
    keep_alive(room, clock, *pair, minutes=4)
    if who == "agent":
        room.say(pair[0], "all", "still here")
    else:
        room.operator_say("all", "still here")
    keep_alive(room, clock, *pair, minutes=4)
    assert room.mode == "running"
    keep_alive(room, clock, *pair, minutes=1)
    assert room.mode == STOPPED


def test_a_pause_is_no_quiet_and_after_it_the_count_begins_anew(room, clock, pair):
    room.set_quiet_stop(5)
    room.set_mode("pause")
    keep_alive(room, clock, *pair, minutes=60)
    assert room.mode == "paused"
    room.set_mode("resume")
    keep_alive(room, clock, *pair, minutes=4)
    assert room.mode == "running"


def test_an_empty_room_does_not_stop_and_whoever_comes_has_all_the_time(room, clock, pair):
    room.set_quiet_stop(5)
    for name in ("api", "web"):
        room.leave(room.tokens[name])
    keep_alive(room, clock, minutes=60)
    assert room.mode == "running"
    late = room.join("late")
    keep_alive(room, clock, late, minutes=4)
    assert room.mode == "running"
    keep_alive(room, clock, late, minutes=1)
    assert room.mode == STOPPED


def test_a_room_that_waits_for_the_operator_does_not_stop(room, clock, pair):
    room.set_quiet_stop(5)
    form = room.ask(pair[0], question())
    keep_alive(room, clock, *pair, minutes=60)
    assert room.mode == "running"
    room.cancel(form.id)
    keep_alive(room, clock, *pair, minutes=5)
    assert room.mode == STOPPED


def test_a_question_to_the_operator_holds_the_stop_back_too(room, clock, pair):
    room.set_quiet_stop(5)
    room.say(pair[0], OPERATOR, "may I?", ASKING)
    keep_alive(room, clock, *pair, minutes=60)
    assert room.mode == "running"


def test_a_budget_that_waits_for_the_operator_holds_the_stop_back_too(room, clock, pair):
    api, web = pair
    room.set_budgets(budgets_of("api: 1 message"))
    room.set_quiet_stop(30)
    room.say(api, "web", "two")
    read_all(room, api, web)
    keep_alive(room, clock, api, web, minutes=40)
    assert room.mode != STOPPED
    room.raise_budget("api", "messages", None)
    keep_alive(room, clock, api, web, minutes=40)
    assert room.mode == STOPPED


def test_the_same_setting_again_is_no_event(room, pair):
    room.set_quiet_stop(5)
    before = len(room.events)
    room.set_quiet_stop(5.0)
    assert room.kinds(before) == []
    room.set_quiet_stop(0)
    assert room.kinds(before) == ["QuietSet"]
    assert room.log[-1].content == "minutes of quiet until the room stops by itself: none"


@pytest.mark.parametrize("value", [-1, True, None, "5", QUIET_STOP_MAX_MIN + 1, [5]])
def test_minutes_that_make_no_sense_are_refused(value):
    with pytest.raises(caucus.Invalid, match="quiet_stop: a number of minutes, 0 to 10080"):
        caucus.minutes_of(value, "quiet_stop")


def test_setting_and_quiet_are_replayed_and_restored(room, clock, pair):
    room.set_quiet_stop(7.5)
    clock.advance(5)
    room.set_mode("pause")
    room.set_mode("resume")
    assert state_of(replayed(room.events)) == state_of(room)
    again = Room(lambda event: None, clock, lambda: "unused")
    again.restore([json.loads(caucus.encode_plain(row)) for row in room.rows()])
    assert (again.quiet_stop_min, again.quiet_since) == (7.5, room.quiet_since)


# --- sticks that are stuck ---


def test_a_stick_is_stuck_when_hands_are_raised_and_its_holder_says_nothing(room, clock, pair):
    api, web = pair
    room.use_floor(api, "take", "all", None)
    api.is_listening = web.is_listening = True
    clock.advance(STUCK_S + 1)
    assert room.stuck() == []  # nobody waits for it
    room.use_floor(web, "raise", "all", None)
    assert [floor.holder for floor in room.stuck()] == ["api"]
    room.say(api, "all", "a moment")
    assert room.stuck() == []


def test_a_stick_is_stuck_sooner_when_its_holder_does_not_even_call(room, clock, pair):
    api, web = pair
    room.use_floor(api, "take", "all", None)
    room.use_floor(web, "raise", "all", None)
    clock.advance(caucus.QUIET_AFTER_S + 1)
    assert [floor.holder for floor in room.stuck()] == ["api"]
