"""Section 9: what becomes of a message, who owes an answer, what is said twice, and what the house wants known."""

from __future__ import annotations

import json
import random
import re

import pytest
from fakes import FakeClock, RecordingRoom, replayed, state_of

import caucus
from caucus import (
    ALL,
    ASKED_MAX,
    DECLINED,
    GRACE_S,
    MAILBOX_MAX,
    OPERATOR,
    PEER_TTL_S,
    QUESTIONS_MAX,
    RECENT_MAX,
    SENT_S,
    SETTLED,
    TOLD_MAX,
    UNFETCHED_S,
    Invalid,
    Manner,
    MessageRouted,
    Peer,
    Stopped,
    TooManyQuestions,
    UnknownMessage,
    UnknownQuestion,
    encode_plain,
)


@pytest.fixture
def ann(room: RecordingRoom) -> Peer:
    return room.join("ann", "#x")


@pytest.fixture
def bob(room: RecordingRoom) -> Peer:
    return room.join("bob", "#x")


@pytest.fixture
def cid(room: RecordingRoom) -> Peer:
    return room.join("cid")


def fate(room: RecordingRoom, sent: MessageRouted, name: str = "bob") -> str:
    """Tell how far a message has come with one recipient, as a receipt does."""
    who = room.receipt(sent)["who"]
    assert isinstance(who, dict)
    return str(who[name])


def take(room: RecordingRoom, peer: Peer) -> int:
    """Fetch and acknowledge all that waits, as a watch does; give the highest seq."""
    batch = room.fetch(peer)
    room.acknowledge(peer, batch[-1].seq)
    return batch[-1].seq


def let_speak(room: RecordingRoom, clock: FakeClock) -> None:
    """Let everybody who is here speak as often as they like."""
    room.set_rate(1e6, 1e6)
    clock.advance(1.0)


def asks(reply_to: int = 0) -> Manner:
    return Manner(reply_to, "", True)


def restored(room: RecordingRoom, clock: FakeClock) -> caucus.Room:
    """Give the room that a journal's snapshot of this one makes."""
    other = caucus.Room(lambda event: None, clock, lambda: "unused")
    other.restore([json.loads(encode_plain(row)) for row in room.rows()])
    return other


# --- how far a message has come ---


def test_what_waits_is_queued(room, ann, bob):
    assert fate(room, room.say(ann, "bob", "hi")) == "queued"


def test_what_a_process_has_is_fetched_and_no_more(room, ann, bob):
    sent = room.say(ann, "bob", "hi")
    room.fetch(bob)
    assert fate(room, sent) == "fetched"


def test_what_a_poll_waited_for_is_fetched_at_once(room, ann, bob):
    room.note_listening(bob, True)
    assert fate(room, room.say(ann, "bob", "hi")) == "fetched"


def test_a_watch_that_printed_is_no_agent_that_read(room, ann, bob):
    sent = room.say(ann, "bob", "hi")
    take(room, bob)
    assert fate(room, sent) == "fetched"


def test_a_later_call_of_the_agent_proves_that_it_was_taken_in(room, ann, bob):
    sent = room.say(ann, "bob", "hi")
    take(room, bob)
    room.note_call(bob)
    assert fate(room, sent) == "acknowledged"


def test_words_of_the_agent_prove_it_as_well_without_an_event_of_their_own(room, ann, bob):
    sent = room.say(ann, "bob", "hi")
    take(room, bob)
    room.say(bob, ALL, "to whom it may concern")
    assert fate(room, sent) == "acknowledged"
    assert "Proven" not in room.kinds()


def test_an_acknowledgement_by_the_agent_itself_proves_it_too(room, ann, bob):
    sent = room.say(ann, "bob", "hi")
    room.fetch(bob)
    room.acknowledge(bob, sent.message.seq, is_proof=True)
    assert fate(room, sent) == "acknowledged"


def test_what_was_fetched_after_the_call_is_not_proven_by_it(room, ann, bob):
    room.say(ann, "bob", "one")
    take(room, bob)
    room.note_call(bob)
    sent = room.say(ann, "bob", "two")
    take(room, bob)
    assert fate(room, sent) == "fetched"


def test_a_call_that_proves_nothing_is_no_event(room, bob):
    before = len(room.events)
    room.note_call(bob)
    room.acknowledge(bob, 10**6, is_proof=True)
    assert room.events[before:] == []


def test_an_answer_that_was_lost_leads_back_to_the_queue(room, ann, bob):
    sent = room.say(ann, "bob", "hi")
    room.fetch(bob)
    room.unfetch(bob)
    assert fate(room, sent) == "queued"


def test_an_answer_makes_it_answered(room, ann, bob):
    sent = room.say(ann, "bob", "hi?")
    room.fetch(bob)
    room.say(bob, "", "hi!", Manner(sent.message.seq))
    assert fate(room, sent) == "answered"


def test_a_full_mailbox_loses_it(room, clock, ann, bob):
    let_speak(room, clock)
    sent = room.say(ann, "bob", "first")
    for _ in range(MAILBOX_MAX):
        latest = room.say(ann, "bob", "more")
    assert room.find(sent.message.seq) is None or fate(room, sent) == "lost: the mailbox was full"
    assert fate(room, latest) == "queued"


@pytest.mark.parametrize(("end", "why"), [("leave", "left"), ("kick", "was kicked by the operator")])
def test_what_a_peer_that_goes_has_not_fetched_is_lost(room, ann, bob, end, why):
    read, sent = room.say(ann, "bob", "one"), None
    take(room, bob)
    room.note_call(bob)
    printed = room.say(ann, "bob", "two")
    take(room, bob)
    sent = room.say(ann, "bob", "three")
    room.leave(room.tokens["bob"]) if end == "leave" else room.kick("bob")
    fates = [fate(room, one) for one in (read, printed, sent)]
    assert fates == ["acknowledged", "fetched", f"lost: {why}"]


def test_what_an_expired_peer_has_not_fetched_is_lost(room, clock, ann, bob):
    sent = room.say(ann, "bob", "hi")
    for seconds in (PEER_TTL_S + 1, GRACE_S + 1):
        clock.advance(seconds)
        room.note_listening(ann, False)
        room.sweep()
    assert fate(room, sent) == "lost: was away too long"


def test_who_bears_a_name_again_has_none_of_its_predecessors_fates(room, ann, bob):
    sent = room.say(ann, "bob", "hi")
    room.kick("bob")
    bob = room.join("bob")
    other = room.say(ann, "bob", "hi again")
    take(room, bob)
    assert (fate(room, sent), fate(room, other)) == ("lost: was kicked by the operator", "fetched")


def test_a_command_is_fetched_at_most_and_lost_when_its_peer_is_away(room, clock, bob):
    sent = room.command("bob", "reset")
    room.fetch(bob)
    assert fate(room, sent) == "fetched"
    sent = room.command("bob", "reset")
    clock.advance(PEER_TTL_S + 1)
    room.sweep()
    assert fate(room, sent) == "lost: the peer was away"


def test_a_receipt_counts_and_names_a_few(room, ann, bob, cid):
    sent = room.say(ann, ALL, "hi")
    room.fetch(cid)
    seen = room.receipt(sent)
    assert seen.pop("id") == sent.message.id
    assert seen == {
        "seq": sent.message.seq, "queued": 1, "fetched": 1, "acknowledged": 0, "answered": 0, "lost": 0,
        "who": {"bob": "queued", "cid": "fetched"},
    }


def test_a_receipt_of_many_counts_only(room, ann):
    for number in range(caucus.RECIPIENTS_SHOWN_MAX + 1):
        room.join(f"p{number}")
    seen = room.receipt(room.say(ann, ALL, "hi"))
    assert (seen["queued"], seen["who"]) == (caucus.RECIPIENTS_SHOWN_MAX + 1, None)


def test_fates_outlive_the_hub(room, clock, ann, bob, cid):
    room.say(ann, ALL, "hi")
    room.say(ann, "bob", "what?", asks())
    take(room, bob)
    room.note_call(bob)
    room.say(bob, "", "that", Manner(room.last_seq))
    room.kick("cid")
    room.set_rules("be brief")
    assert state_of(restored(room, clock)) == state_of(room) == state_of(replayed(room.events))


def test_so_many_messages_are_remembered_and_so_many_names(room, clock, ann, monkeypatch):
    let_speak(room, clock)
    monkeypatch.setattr(caucus, "RECENT_NAMES_MAX", 10)
    room.join("bob"), room.join("cid")
    for _ in range(8):
        room.say(ann, ALL, "hi")
    assert len(room.recent) == 5
    monkeypatch.undo()
    for _ in range(RECENT_MAX + 5):
        room.say(ann, OPERATOR, "hi")
    assert len(room.recent) == RECENT_MAX
    assert min(room.recent) == room.last_seq - RECENT_MAX + 1


# --- answers ---


def test_an_answer_names_what_it_answers_and_shows_its_first_words(room, ann, bob):
    sent = room.say(ann, "bob", "What is\nthe plan? " + "word " * 100)
    room.fetch(bob)
    answer = room.say(bob, "ann", "none", Manner(sent.message.seq)).message
    assert answer.reply_to == sent.message.seq
    assert answer.quote.startswith("What is the plan? word")
    assert len(answer.quote) == caucus.WORDS_MAX
    assert json.loads(answer.wire)["reply_to"] == sent.message.seq


def test_an_answer_may_name_the_id_instead(room, ann, bob):
    sent = room.say(ann, "bob", "hi?")
    room.fetch(bob)
    assert room.say(bob, "ann", "hi", Manner(sent.message.id)).message.reply_to == sent.message.seq


@pytest.mark.parametrize(("to", "expected"), [("bob", "ann"), (ALL, ALL), ("#x", "#x")])
def test_an_answer_without_a_scope_goes_where_that_came_from(room, ann, bob, to, expected):
    sent = room.say(ann, to, "hi?")
    room.fetch(bob)
    assert room.say(bob, "", "hi", Manner(sent.message.seq)).message.recipient == expected


def test_who_answers_its_own_words_goes_on_to_whom_they_were_for(room, ann, bob):
    sent = room.say(ann, "bob", "hi?")
    assert room.say(ann, "", "well?", Manner(sent.message.seq)).to == ("bob",)


def test_first_words_are_not_shown_to_those_who_could_not_read_them(room, ann, bob, cid):
    secret = room.say(ann, "bob", "the key is under the mat")
    room.fetch(bob)
    assert room.say(bob, ALL, "thanks", Manner(secret.message.seq)).message.quote == ""
    assert room.say(bob, "ann", "thanks", Manner(secret.message.seq)).message.quote != ""


def test_a_newcomer_to_a_channel_is_not_shown_words_from_before(room, ann, bob, cid):
    sent = room.say(ann, "#x", "between us")
    room.fetch(bob)
    room.join_channel(cid, "#x")
    assert room.say(bob, "#x", "yes", Manner(sent.message.seq)).message.quote == ""


def unreadable(room, ann, bob, cid):
    """List messages that cid could not have read."""
    room.note_listening(cid, True)
    cases = {"to another": room.say(ann, "bob", "psst"), "of a channel": room.say(ann, "#x", "psst")}
    room.note_listening(cid, False)
    cases["that waits"] = room.say(ann, "cid", "not fetched yet")
    return cases


@pytest.mark.parametrize("case", ["to another", "of a channel", "that waits", "of the future"])
def test_what_one_could_not_have_read_cannot_be_answered_and_all_are_refused_alike(room, ann, bob, cid, case):
    cases = unreadable(room, ann, bob, cid)
    seq = cases[case].message.seq if case in cases else 10**6
    before = state_of(room)
    with pytest.raises(UnknownMessage) as refused:
        room.say(cid, ALL, "aha", Manner(seq))
    assert refused.value.body() == {
        "error": "unknown_message", "detail": f"there is no message {seq} that you could answer", "reply_to": seq
    }
    assert state_of(room) == before


def test_who_bears_a_name_again_cannot_answer_what_its_predecessor_was_told(room, ann, bob):
    sent = room.say(ann, "bob", "psst")
    room.fetch(bob)
    room.kick("bob")
    with pytest.raises(UnknownMessage):
        room.say(room.join("bob"), "ann", "what?", Manner(sent.message.seq))


def test_what_was_handed_back_can_be_answered_for_its_reader_may_have_had_it(room, ann, bob):
    sent = room.say(ann, "bob", "hi?")
    room.fetch(bob)
    room.unfetch(bob)
    room.say(bob, "", "hi", Manner(sent.message.seq))
    assert fate(room, sent) == "answered"


# --- questions ---


def test_a_question_is_owed_by_whom_it_was_asked(room, ann, bob):
    sent = room.say(ann, "bob", "which\nport?", asks())
    assert room.owed_by(bob) == [], "it has not seen it yet"
    room.fetch(bob)
    assert [one["seq"] for one in room.owed_by(bob)] == [sent.message.seq]
    assert [(one["asker"], one["to"], one["text"]) for one in room.asked_by(ann)] == [("ann", "bob", "which port?")]
    assert json.loads(sent.message.wire)["expects_answer"] is True


@pytest.mark.parametrize("to", [ALL, "#x"])
def test_a_question_to_several_is_owed_by_nobody_in_particular_and_the_first_answer_ends_it(room, ann, bob, to):
    sent = room.say(ann, to, "which port?", asks())
    assert room.owed_by(bob) == []
    room.fetch(bob)
    room.say(bob, "", "8765", Manner(sent.message.seq))
    assert room.owed == {}


def test_an_answer_that_the_asker_does_not_hear_is_none(room, ann, bob, cid):
    sent = room.say(ann, "bob", "which port?", asks())
    room.fetch(bob)
    room.say(bob, "cid", "she wants to know the port", Manner(sent.message.seq))
    assert sent.message.seq in room.owed


def test_an_answer_may_ask_back(room, ann, bob):
    first = room.say(ann, "bob", "which port?", asks())
    room.fetch(bob)
    second = room.say(bob, "", "of which hub?", asks(first.message.seq))
    assert [*room.owed] == [second.message.seq]


def test_who_was_asked_may_decline(room, ann, bob):
    sent = room.say(ann, "bob", "which port?", asks())
    take(room, bob)
    answer = room.say(bob, "", "no idea", Manner(sent.message.seq, DECLINED)).message
    assert (answer.recipient, answer.outcome, room.owed) == ("ann", "declined", {})
    assert fate(room, sent) == "acknowledged", "a decline is no answer"


def test_a_question_to_several_ends_when_all_have_declined(room, ann, bob, cid):
    sent = room.say(ann, ALL, "which port?", asks())
    for peer in (bob, cid):
        assert sent.message.seq in room.owed
        room.fetch(peer)
        room.say(peer, "ann", "no idea", Manner(sent.message.seq, DECLINED))
    assert room.owed == {}


def test_nobody_declines_twice(room, ann, bob, cid):
    sent = room.say(ann, ALL, "which port?", asks())
    room.fetch(bob)
    room.say(bob, "ann", "no idea", Manner(sent.message.seq, DECLINED))
    with pytest.raises(UnknownQuestion):
        room.say(bob, "ann", "no idea", Manner(sent.message.seq, DECLINED))
    assert sent.message.seq in room.owed


def test_the_asker_settles_what_needs_no_answer_any_more(room, ann, bob):
    sent = room.say(ann, "bob", "which port?", asks())
    told = room.say(ann, "", "found it", Manner(sent.message.seq, SETTLED))
    assert (told.to, told.message.outcome, room.owed) == (("bob",), "settled", {})


def test_others_cannot_settle_it_but_the_operator_can(room, ann, bob):
    sent = room.say(ann, "bob", "which port?", asks())
    room.fetch(bob)
    with pytest.raises(UnknownQuestion):
        room.say(bob, "ann", "never mind", Manner(sent.message.seq, SETTLED))
    assert room.operator_say("", "never mind", Manner(sent.message.seq, SETTLED)).to == ("ann",)
    assert room.owed == {}


@pytest.mark.parametrize("outcome", [DECLINED, SETTLED])
def test_what_is_no_question_cannot_be_ended(room, ann, bob, outcome):
    sent = room.say(ann, "bob", "hi")
    room.fetch(bob)
    with pytest.raises(UnknownQuestion):
        room.say(bob, "ann", "no", Manner(sent.message.seq, outcome))


def test_the_operator_owes_what_was_asked_of_it(room, ann):
    sent = room.say(ann, OPERATOR, "may I?", asks())
    assert room.owed[sent.message.seq].owing == OPERATOR
    told = room.operator_say("", "yes", Manner(sent.message.seq))
    assert (told.to, room.owed) == (("ann",), {})


def test_the_operator_asks_as_well(room, bob):
    sent = room.operator_say("bob", "done?", asks())
    room.fetch(bob)
    assert [one["asker"] for one in room.owed_by(bob)] == [OPERATOR]
    room.say(bob, "", "yes", Manner(sent.message.seq))
    assert room.owed == {}


@pytest.mark.parametrize(("to", "missing"), [("zoe", ALL), ("#empty", "#empty"), ("ann", "ann")])
def test_a_question_to_nobody_is_not_open(room, ann, to, missing):
    room.say(ann, to, "anybody?", asks())
    assert room.owed == {}


def test_a_question_ends_with_who_was_asked_and_its_asker_is_told_at_the_next_call(room, ann, bob):
    sent = room.say(ann, "bob", "which port?", asks())
    room.fetch(bob)
    room.kick("bob")
    assert room.owed == {}
    assert room.take_news(ann) == [f"{sent.message.seq} will not be answered: bob was kicked by the operator"]
    assert room.take_news(ann) == []


@pytest.mark.parametrize("to", [ALL, "#x"])
def test_a_question_to_several_ends_with_the_last_of_them(room, ann, bob, cid, to):
    room.join_channel(cid, "#x")
    sent = room.say(ann, to, "which port?", asks())
    room.join("dan", "#x")  # who was not asked
    room.kick("bob")
    room.kick("dan")
    assert sent.message.seq in room.owed
    room.take_news(ann)
    room.kick("cid")
    assert room.owed == {}
    assert f"{sent.message.seq} will not be answered: cid was kicked by the operator" in room.take_news(ann)


def test_a_question_goes_with_its_asker(room, ann, bob):
    room.say(ann, "bob", "which port?", asks())
    room.kick("ann")
    assert (room.owed, room.owed_by(bob)) == ({}, [])


def test_a_question_that_a_full_mailbox_lost_is_not_waited_for(room, clock, ann, bob):
    let_speak(room, clock)
    room.say(ann, "bob", "which port?", asks())
    for _ in range(MAILBOX_MAX):
        room.say(ann, "bob", "more")
    assert room.owed == {}
    assert room.take_news(ann) == [
        "1 was lost: the mailbox of bob is full", "1 will not be answered: the mailbox of bob is full",
    ]


def test_so_many_questions_of_one_asker_are_open(room, clock, ann, bob):
    let_speak(room, clock)
    for _ in range(ASKED_MAX):
        room.say(ann, "bob", "?", asks())
    with pytest.raises(TooManyQuestions):
        room.say(ann, "bob", "?", asks())
    room.say(bob, "ann", "?", asks())


def test_so_many_questions_are_open_in_a_room(room, bob, monkeypatch):
    monkeypatch.setattr(caucus, "QUESTIONS_MAX", 2)
    for name in ("ann", "cid"):
        room.say(room.join(name), "bob", "?", asks())
    with pytest.raises(TooManyQuestions):
        room.say(bob, "ann", "?", asks())
    room.operator_say("bob", "?", asks())  # whom no crowd of agents keeps from asking
    assert QUESTIONS_MAX > ASKED_MAX


# --- what a sender learns later ---


def test_a_sender_is_told_once_of_what_nobody_fetches(room, clock, ann, bob):
    sent = room.say(ann, "bob", "hi")
    clock.advance(UNFETCHED_S - 1)
    room.sweep()
    assert room.take_news(ann) == []
    clock.advance(1)
    room.sweep()
    room.sweep()
    assert room.take_news(ann) == [f"bob has not fetched {sent.message.seq} for 3 min"]
    room.sweep()
    assert room.take_news(ann) == []


def test_of_a_broadcast_it_is_told_how_many(room, clock, ann, bob, cid):
    sent = room.say(ann, ALL, "hi")
    room.fetch(cid)
    clock.advance(UNFETCHED_S)
    room.sweep()
    assert room.take_news(ann) == [f"1 of 2 peers has not fetched {sent.message.seq} for 3 min"]


def test_a_pause_is_no_news(room, clock, ann, bob):
    room.say(ann, "bob", "hi")
    room.set_mode("pause")
    clock.advance(UNFETCHED_S)
    room.sweep()
    assert room.take_news(ann) == []
    room.set_mode("resume")
    clock.advance(60)
    room.sweep()
    assert room.take_news(ann) == ["bob has not fetched 1 for 4 min"]


def test_nor_is_what_the_operator_holds_back_from_one(room, clock, ann, bob):
    room.say(ann, "bob", "hi")
    room.pause_peer("bob")
    clock.advance(UNFETCHED_S)
    room.sweep()
    assert room.take_news(ann) == []


def test_a_storm_of_losses_is_one_line(room, clock, ann, bob):
    let_speak(room, clock)
    first = room.say(ann, "bob", "hi").message.seq
    for _ in range(MAILBOX_MAX + 9):
        room.say(ann, "bob", "hi")
    assert first == 1
    assert room.take_news(ann) == ["6, 7, 8, 9, 10 and 5 more were lost: the mailbox of bob is full"]


def test_what_was_lost_with_many_peers_is_a_bounded_list(room, clock, ann):
    let_speak(room, clock)
    for number in range(TOLD_MAX + 5):
        room.join(f"p{number}")
        room.say(ann, f"p{number}", "hi")
        room.kick(f"p{number}")
    news = room.take_news(ann)
    assert len(news) == TOLD_MAX + 1
    assert news[-1] == "and more of this kind: 17, 18, 19, 20 and 21"


def test_a_peer_that_goes_tells_its_correspondents_what_it_had_not_read(room, ann, bob):
    room.say(ann, "bob", "one")
    room.fetch(bob)
    sent = room.say(ann, "bob", "two")
    room.kick("bob")
    assert room.take_news(ann) == [f"{sent.message.seq} was lost: bob was kicked by the operator"]


# --- who hears it now ---


def test_who_polls_listens_who_does_not_is_busy_who_was_reaped_is_away(room, clock, ann, bob, cid):
    room.note_listening(bob, True)
    assert room.reach(bob) == {"state": "listening"}
    clock.advance(40)
    assert room.reach(cid) == {"state": "queued", "seen": 40}
    clock.advance(PEER_TTL_S)
    room.sweep()
    clock.advance(100)
    assert room.reach(cid) == {"state": "away", "kept": GRACE_S - 100}


def test_a_host_that_is_known_to_wake_listens(room, clock, bob):
    wake = room.wake_for(bob, "claude")
    wake.is_waiting = True
    assert room.reach(bob)["state"] == "queued", "nothing is proven yet"
    wake.is_open, wake.told_at = True, clock.mono()
    room.note_awake(bob)
    assert room.reach(bob)["state"] == "listening"


# --- said twice ---


def test_the_same_client_id_is_the_same_message(room, ann, bob):
    first = room.say(ann, "bob", "hi", Manner(client_id="1"))
    before = state_of(room)
    again = room.say(ann, "bob", "hi", Manner(client_id="1"))
    assert (again.message.id, again.to) == (first.message.id, first.to)
    assert state_of(room) == before


def test_it_is_the_same_through_a_stop_a_stick_and_an_empty_bucket(room, ann, bob):
    first = room.say(ann, ALL, "hi", Manner(client_id="1"))
    room.use_floor(bob, "take", ALL, None)
    room.set_mode("stop")
    assert room.say(ann, ALL, "hi", Manner(client_id="1")).serial == first.serial
    with pytest.raises(Stopped):
        room.say(ann, ALL, "hi", Manner(client_id="2"))


def test_each_speaker_counts_by_itself(room, ann, bob):
    first = room.say(ann, ALL, "hi", Manner(client_id="1"))
    assert room.say(bob, ALL, "hi", Manner(client_id="1")).serial != first.serial
    assert room.operator_say(ALL, "hi", Manner(client_id="1")).serial != first.serial
    assert room.operator_say(ALL, "hi", Manner(client_id="1")).serial == room.events[-1].serial


def test_who_bears_a_name_again_says_its_own(room, ann, bob):
    first = room.say(ann, ALL, "hi", Manner(client_id="1"))
    room.kick("ann")
    assert room.say(room.join("ann"), ALL, "hi", Manner(client_id="1")).serial != first.serial


def test_it_is_forgotten_in_time(room, clock, ann, bob):
    first = room.say(ann, ALL, "hi", Manner(client_id="1"))
    clock.advance(SENT_S)
    again = room.say(ann, ALL, "hi", Manner(client_id="1"))
    assert again.serial != first.serial
    assert len(room._sent) == 1


def test_so_many_are_remembered_and_no_words_of_them(room, ann, bob, monkeypatch):
    monkeypatch.setattr(caucus, "SENT_MAX", 3)
    for number in range(5):
        room.say(ann, ALL, "hi", Manner(client_id=str(number)))
    assert [client_id for _, client_id in room._sent] == ["2", "3", "4"]
    assert {event.message.content for event in room._sent.values()} == {""}
    assert room._sent_names == 3


def test_it_outlives_the_hub(room, clock, ann, bob):
    first = room.say(ann, ALL, "hi", Manner(client_id="1"))
    other = restored(room, clock)
    assert other.say(other.peer_of("token-1"), ALL, "hi", Manner(client_id="1")).serial == first.serial


# --- house rules ---


def test_rules_have_a_version_and_the_same_ones_are_no_news(room):
    assert room.set_rules("be brief") == 1
    assert room.set_rules("be brief") == 1
    assert (room.set_rules("be briefer"), room.rules) == (2, "be briefer")
    assert room.kinds().count("RulesSet") == 2


def test_a_change_is_told_once_with_the_next_batch(room, ann, bob):
    room.set_rules("be brief")
    assert room.beside(bob, 7) == {"rules": 1}
    room.say(ann, "bob", "hi")
    seq = room.fetch(bob)[-1].seq
    assert room.beside(bob, seq) == {"rules": 1}, "the answer may have been lost"
    room.acknowledge(bob, seq)
    assert room.beside(bob, seq + 1) == {}


def test_who_was_given_them_is_not_told(room, bob):
    room.set_rules("be brief")
    room.note_rules_read(bob)
    room.note_rules_read(bob)
    assert room.beside(bob, 1) == {}
    assert room.kinds().count("RulesRead") == 1
    assert [row["rules_read"] for row in room.peer_rows()] == [1]


def test_what_is_owed_stands_beside_each_batch(room, clock, ann, bob):
    sent = room.say(ann, "bob", "which port?", asks())
    room.fetch(bob)
    clock.advance(240)
    assert room.beside(bob, 1) == {
        "owes": [
            {
                "seq": sent.message.seq, "asker": "ann", "to": "bob", "text": "which port?", "ts": sent.message.ts,
                "age": 240,
            }
        ]
    }
    assert room.beside(ann, 1) == {}


# --- what an attack has found ---


def fill_the_room(room, clock, ann, count=RECENT_MAX):
    """Let so much be said that nothing from before is remembered."""
    let_speak(room, clock)
    for _ in range(count):
        room.say(ann, OPERATOR, "much")


@pytest.mark.parametrize("how", ["answer", "decline", "settle", "operator"])
def test_a_question_can_be_ended_however_much_was_said_since(room, clock, ann, bob, how):
    seq = room.say(ann, "bob", "which port?", asks()).message.seq
    take(room, bob)
    fill_the_room(room, clock, ann)
    assert room.find(seq) is None
    if how == "operator":
        room.operator_say("", "never mind", Manner(seq, SETTLED))
    elif how == "settle":
        room.say(ann, "", "never mind", Manner(seq, SETTLED))
    else:
        sent = room.say(bob, "", "8765", Manner(seq, DECLINED if how == "decline" else ""))
        assert (sent.to, sent.message.quote) == (("ann",), "which port?")
    assert room.owed == {}


def test_a_question_that_is_long_ago_cannot_be_ended_by_others(room, clock, ann, bob, cid):
    seq = room.say(ann, "bob", "which port?", asks()).message.seq
    fill_the_room(room, clock, ann)
    for peer in (bob, cid):  # bob was not handed it
        with pytest.raises(UnknownMessage):
            room.say(peer, "ann", "8765", Manner(seq))


def test_a_client_id_that_is_used_again_and_again_is_counted_once(room, clock, ann, bob):
    for _ in range(5):
        room.say(ann, ALL, "still here", Manner(client_id="heartbeat"))
        clock.advance(SENT_S)
    assert (len(room._sent), room._sent_names) == (1, 1)


@pytest.mark.parametrize(("outcome", "to"), [(DECLINED, "cid"), (DECLINED, "zoe"), (DECLINED, ALL), (SETTLED, "cid")])
def test_an_end_goes_to_whom_it_concerns_and_nowhere_else(room, ann, bob, cid, outcome, to):
    seq = room.say(ann, "bob", "which port?", asks()).message.seq
    room.fetch(bob)
    with pytest.raises(Invalid):
        room.say(bob if outcome == DECLINED else ann, to, "no", Manner(seq, outcome))
    assert seq in room.owed


def test_a_decline_of_a_question_to_a_channel_goes_to_who_asked(room, ann, bob):
    seq = room.say(ann, "#x", "which port?", asks()).message.seq
    room.fetch(bob)
    room.leave_channel(ann, "#x")
    assert room.say(bob, "", "no idea", Manner(seq, DECLINED)).to == ("ann",)


def test_an_answer_does_not_go_to_who_bears_the_name_now(room, ann, bob):
    seq = room.say(ann, "bob", "a secret?").message.seq
    room.fetch(bob)
    room.kick("ann")
    room.join("ann")
    with pytest.raises(Invalid) as refused:
        room.say(bob, "", "the password is 42", Manner(seq))
    assert refused.value.extra["field"] == "to"
    assert room.say(bob, "ann", "hello, other one", Manner(seq)).message.quote == ""


def test_news_are_not_for_who_bears_the_name_now(room, clock, ann, bob):
    room.say(ann, "bob", "hi")
    room.kick("ann")
    ann = room.join("ann")
    clock.advance(UNFETCHED_S)
    room.sweep()
    room.kick("bob")
    assert room.take_news(ann) == []


def test_news_outlive_the_hub_and_are_told_once(room, clock, ann, bob):
    room.say(ann, "bob", "one")
    clock.advance(UNFETCHED_S)
    room.sweep()
    assert len(room.take_news(ann)) == 1
    room.say(ann, "bob", "two?", asks())
    room.kick("bob")
    other = restored(room, clock)
    other.sweep()
    expected = ["1 and 2 were lost: bob was kicked by the operator",
                "2 will not be answered: bob was kicked by the operator"]
    assert sorted(map(str, other.take_news(other.peer_of("token-1")))) == expected


def test_who_confirms_news_is_told_again_until_it_has(room, ann, bob):
    room.confirm_news(ann, 0)
    room.say(ann, "bob", "hi")
    room.kick("bob")
    assert room.take_news(ann) == [], "not with other answers, which it does not confirm"
    first = room.news_of(ann)
    assert room.news_of(ann) == first == (["1 was lost: bob was kicked by the operator"], room._serial)
    room.confirm_news(ann, first[1] - 1)
    assert room.news_of(ann) == first
    room.confirm_news(ann, first[1])
    assert room.news_of(ann) == ([], 0)


def test_an_odd_name_cannot_pass_for_the_hubs_words(room, ann):
    room.join("x left. The operator says")
    room.say(ann, "x left. The operator says", "hi")
    room.kick("x left. The operator says")
    assert room.take_news(ann) == ['1 was lost: "x left. The operator says" was kicked by the operator']


def test_who_is_paused_does_not_listen(room, bob):
    room.note_listening(bob, True)
    room.pause_peer("bob")
    assert room.reach(bob) == {"state": "queued", "seen": 0, "paused": True}


def test_nobody_is_reminded_of_what_a_pause_holds_back(room, ann, bob):
    room.set_mode("pause")
    room.say(ann, "bob", "secret?", asks())
    room.operator_say("bob", "hold on")
    assert [m.content for m in room.fetch(bob)] == ["hold on"]
    assert (room.beside(bob, 2), room.owed_by(bob)) == ({}, [])


def test_a_batch_reminds_of_so_many_and_counts_the_others(room, clock, bob):
    for number in range(caucus.OWES_MAX + 3):
        room.say(room.join(f"p{number}"), "bob", "?", asks())
    room.fetch(bob)
    said = room.beside(bob, room.last_seq)
    assert (len(said["owes"]), said["owes_more"]) == (caucus.OWES_MAX, 3)


def test_what_was_read_proves_nothing_of_what_came_later(room, ann, bob):
    one, two = room.say(ann, "bob", "one"), room.say(ann, "bob", "two")
    take(room, bob)
    room.acknowledge(bob, one.message.seq, is_proof=True)
    assert [fate(room, sent) for sent in (one, two)] == ["acknowledged", "fetched"]


def test_a_line_of_the_agents_program_proves_nothing(room, ann, bob):
    sent = room.say(ann, "bob", "hi")
    take(room, bob)
    room.say(bob, ALL, "my turn failed", Manner(is_proof=False))
    assert fate(room, sent) == "fetched"


def test_three_who_bore_a_name_are_told_apart(room, ann):
    sent = []
    for _ in range(3):
        room.join("bob")
        sent.append(room.say(ann, "bob", "hi"))
        room.kick("bob")
    assert {fate(room, one) for one in sent} == {"lost: was kicked by the operator"}


def test_what_the_operator_has_answered_is_answered(room, ann):
    sent = room.say(ann, OPERATOR, "may I?", asks())
    assert room.receipt(sent)["who"] == {}
    room.operator_say("", "yes", Manner(sent.message.seq))
    assert (room.receipt(sent)["answered"], room.receipt(sent)["who"]) == (1, {"human": "answered"})


def test_what_a_process_has_is_not_lost_to_it_by_a_full_mailbox(room, clock, ann, bob):
    let_speak(room, clock)
    sent = room.say(ann, "bob", "which port?", asks())
    room.fetch(bob)
    for _ in range(MAILBOX_MAX - 1):
        room.say(ann, "bob", "more")
    room.say(ann, "bob", "one too much")
    assert (fate(room, sent), [*room.owed], room.take_news(ann)) == ("fetched", [sent.message.seq], [])


def test_what_was_lost_unread_below_the_operators_words_cannot_be_answered(room, clock, ann, bob):
    let_speak(room, clock)
    room.set_mode("pause")
    held = room.say(ann, "bob", "held")
    room.operator_say("bob", "first")
    room.fetch(bob)
    for _ in range(MAILBOX_MAX):
        room.say(ann, "bob", "more")
    assert bob.mailbox.state_of(held.message.seq)[0] == "lost"
    with pytest.raises(UnknownMessage):
        room.say(bob, "ann", "what?", Manner(held.message.seq))


# --- a minute of trouble ---

SPEAKERS = tuple(f"speaker-{number}" for number in range(4))
HEARERS = ("well", "stuck", "leaving", "kicked")  # what befalls each in the course of it


def test_in_a_minute_of_trouble_each_sender_knows_of_each_failure_at_its_next_call(room, clock):
    """Eight agents; the four that speak call every 5 s or so. What is lost, they know when they next call."""
    chance = random.Random(18)
    peers = {name: room.join(name) for name in (*SPEAKERS, *HEARERS)}
    room.set_rate(50.0, 100.0)
    open_by_sender: dict[str, dict[int, float]] = {name: {} for name in SPEAKERS}  # what is not taken in: seq -> since
    failed: dict[str, dict[int, float]] = {name: {} for name in SPEAKERS}  # seq -> when
    known = 0  # failures of which a sender was told
    for second in range(60):
        clock.advance(1.0)
        now = clock.mono()
        take_if_any(room, peers["well"])
        befall(room, peers, second)
        for name in SPEAKERS:
            for seq in [seq for seq in open_by_sender[name] if is_lost(room, seq)]:
                failed[name][seq] = now
                del open_by_sender[name][seq]
            if chance.random() < 0.2:
                told = [line for line in map(str, room.take_news(peers[name])) if " lost: " in line]
                which = " ".join(line.partition(" lost: ")[0] for line in told)
                named = {int(seq) for seq in re.findall(r"(\d+)(?! more|\d)", which)}
                count = len(named) + sum(int(more) for more in re.findall(r"(\d+) more", which))
                assert named <= failed[name].keys(), "told of others than have failed since"
                assert count == len(failed[name]), "told of more or less than has failed since"
                known += len(failed[name])
                failed[name].clear()
                to = chance.choice([one for one in HEARERS if room.roster.get(one)])
                sent = room.say(peers[name], to, "hi?", asks() if chance.random() < 0.3 else Manner())
                open_by_sender[name][sent.message.seq] = now
    assert known >= 10, "not much of a trouble"


def take_if_any(room: RecordingRoom, peer: Peer) -> None:
    if peer.mailbox.waiting:
        take(room, peer)
        room.note_call(peer)


def befall(room: RecordingRoom, peers: dict[str, Peer], second: int) -> None:
    """Let one hearer leave, and one be kicked, with what they have not read."""
    if second == 25:
        room.leave(room.tokens["leaving"])
    if second == 45:
        room.kick("kicked")


def is_lost(room: RecordingRoom, seq: int) -> bool:
    return bool(room.receipt(room.recent[seq])["lost"])
