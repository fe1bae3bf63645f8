"""Section 9: who may say what to whom, and when."""

from __future__ import annotations

import ast
import inspect
import json
from contextlib import suppress

import pytest
from fakes import FakeClock, RecordingRoom, contents, forms_of, question, replayed, state_of

import caucus
from caucus import (
    ALL,
    APPEALS_OF_ONE_MAX,
    CONTESTED_EVERY_S,
    DECLINED,
    GRACE_S,
    LOG_MAX,
    MAILBOX_MAX,
    OPERATOR,
    PEER_TTL_S,
    QUIET_AFTER_S,
    REGISTER_BURST,
    SPEECH_BURST,
    SPEECH_PER_S,
    STATUS_BURST,
    Event,
    Field,
    FloorHeld,
    Invalid,
    InvalidForm,
    Manner,
    NameContested,
    NameInUse,
    NobodyWaits,
    NoFloor,
    NotAMember,
    NotHolder,
    Peer,
    PeerEvent,
    PeerLeft,
    PromptsOff,
    Refusal,
    Room,
    RoomFull,
    Stopped,
    Throttled,
    TooManyChannels,
    TooManyForms,
    TooManyHands,
    TooManyQuestions,
    UnknownAction,
    UnknownChannel,
    UnknownForm,
    UnknownMessage,
    UnknownPeer,
    UnknownQuestion,
    UnknownToken,
    Usage,
)


def reap(room: RecordingRoom, clock: FakeClock, *stay: Peer) -> None:
    """Let everybody but `stay` fall silent for too long."""
    clock.advance(PEER_TTL_S + 1)
    for peer in stay:
        room.note_listening(peer, False)
    room.sweep()


# --- identity: fresh, reaffirmed, contested ---


def test_a_fresh_peer_is_on_the_roster(room):
    room.join("ann")
    assert room.names() == ["ann"]


def test_a_fresh_peer_gets_the_token_that_names_it(room):
    peer, token = room.register("here", "ann")
    assert room.peer_of(token) is peer


def test_a_token_that_nobody_issued_does_not_make_a_fresh_peer_its_holder(room):
    _, token = room.register("here", "ann", "token-of-another-hub")
    assert token == "token-1"


def test_registering_again_with_the_token_changes_nothing(room):
    peer = room.join("ann")
    before = state_of(room)
    assert room.register("here", "ann", "token-1") == (peer, "token-1")
    assert state_of(room) == before


@pytest.mark.parametrize("token", [None, "", "token-2", "tökén"])
def test_a_living_name_is_refused_without_its_token(room, token):
    room.join("ann")
    with pytest.raises(NameInUse):
        room.register("elsewhere", "ann", token)


def test_another_peers_token_does_not_open_a_name(room):
    room.join("ann")
    room.join("bob")
    with pytest.raises(NameInUse):
        room.register("here", "ann", room.tokens["bob"])


def test_a_contested_name_is_an_event(room):
    room.join("ann")
    with pytest.raises(NameInUse):
        room.register("elsewhere", "ann")
    assert (room.kinds()[-1], room.events[-1].name) == ("NameContested", "ann")


@pytest.mark.parametrize(("pause_s", "notices"), [(CONTESTED_EVERY_S - 0.1, 1), (CONTESTED_EVERY_S, 2)])
def test_a_name_contested_in_a_loop_is_noticed_at_most_once_every_five_seconds(room, clock, pause_s, notices):
    room.join("ann")
    for _ in range(3):
        with pytest.raises(NameInUse):
            room.register("elsewhere", "ann")
    clock.advance(pause_s)
    with pytest.raises(NameInUse):
        room.register("elsewhere", "ann")
    assert room.kinds().count("NameContested") == notices


def test_each_contested_name_has_a_notice_of_its_own(room):
    for name in ("ann", "bob"):
        room.join(name)
        with pytest.raises(NameInUse):
            room.register("elsewhere", name)
    assert room.kinds().count("NameContested") == 2


def test_registrations_are_throttled_by_source(room):
    for n in range(int(REGISTER_BURST)):
        room.register("here", f"peer {n}")
    with pytest.raises(Throttled):
        room.register("here", "one more")


def test_a_crowd_of_newcomers_does_not_keep_out_who_shows_its_token(room):
    room.join("ann")
    for n in range(int(REGISTER_BURST)):
        room.register("here", f"peer {n}")
    with pytest.raises(Throttled):
        room.register("here", "one more")
    assert room.register("here", "ann", room.tokens["ann"])[0].name == "ann"
    with pytest.raises(Throttled):
        room.register("here", "ann", "not its token")


def test_a_seat_has_a_rate_of_its_own(room):
    room.join("ann")
    for _ in range(int(REGISTER_BURST)):
        room.register("here", "ann", room.tokens["ann"])
    with pytest.raises(Throttled):
        room.register("here", "ann", room.tokens["ann"])
    assert room.register("here", "bob")[0].name == "bob"


def test_one_sources_throttle_does_not_bind_another(room):
    for n in range(int(REGISTER_BURST)):
        room.register("here", f"peer {n}")
    assert room.register("there", "one more")[0].name == "one more"


def test_the_registration_rates_of_idle_sources_are_forgotten(room, clock, monkeypatch):
    monkeypatch.setattr(caucus, "SOURCES_MAX", 3)
    for n in range(9):
        room.register(f"source {n}", f"peer {n}")
        clock.advance(60)
    assert len(room._registrations) <= 3


def test_an_identity_that_left_is_gone_at_once(room):
    room.join("ann")
    assert room.leave(room.tokens["ann"]) == "ann"
    assert room.presence("ann")["state"] == "absent"


def test_a_token_is_dead_after_its_peer_left(room):
    room.join("ann")
    room.leave("token-1")
    with pytest.raises(UnknownToken):
        room.peer_of("token-1")


def test_a_name_is_free_after_its_peer_left(room):
    room.join("ann")
    room.leave("token-1")
    assert room.join("ann").mailbox.waiting == 0


def test_a_kicked_peer_is_gone_with_its_token(room):
    room.join("ann")
    room.kick("ann")
    with pytest.raises(UnknownToken):
        room.peer_of("token-1")


# --- identity: reaped, revived, forgotten ---


def test_a_silent_peer_is_reaped(room, clock):
    room.join("ann")
    reap(room, clock)
    assert (room.names(), room.presence("ann")["state"]) == ([], "reaped")


def test_a_peer_that_called_lately_is_not_reaped(room, clock):
    room.join("ann")
    clock.advance(PEER_TTL_S)
    room.peer_of("token-1")
    clock.advance(PEER_TTL_S)
    room.sweep()
    assert room.names() == ["ann"]


def test_a_peer_with_a_parked_poll_is_not_reaped(room, clock):
    room.note_listening(room.join("ann"), True)
    clock.advance(10 * PEER_TTL_S)
    room.sweep()
    assert room.names() == ["ann"]


def test_the_end_of_a_parked_poll_counts_as_a_call(room, clock):
    ann = room.join("ann")
    room.note_listening(ann, True)
    clock.advance(10 * PEER_TTL_S)
    room.note_listening(ann, False)
    clock.advance(PEER_TTL_S)
    room.sweep()
    assert room.names() == ["ann"]


def test_the_time_of_silence_is_the_rooms_own(clock):
    short = caucus.Room(lambda event: None, clock, lambda: "token", ttl_s=5.0)
    short.register("here", "ann")
    clock.advance(5.1)
    short.sweep()
    assert short.names() == []


def test_a_peer_is_reaped_once(room, clock):
    room.join("ann")
    reap(room, clock)
    clock.advance(PEER_TTL_S)
    room.sweep()
    assert room.kinds().count("PeerReaped") == 1


def test_silent_peer_is_reaped_and_revived_with_its_unread_messages(room, clock):
    room.join("ann")
    room.say(room.join("bob"), "ann", "before")
    reap(room, clock)
    room.say(room.peer_of(room.tokens["bob"]), "ann", "while away")
    assert contents(room.fetch(room.peer_of(room.tokens["ann"]))) == ["before", "while away"]


def test_a_command_does_not_outlive_the_absence_of_its_peer(room, clock):
    """Kept for it, an interrupt would end a turn of half an hour later."""
    room.join("ann")
    room.command("ann", "interrupt")
    room.operator_say("ann", "when you are back")
    reap(room, clock)
    with pytest.raises(UnknownPeer):
        room.command("ann", "reset")
    assert contents(room.fetch(room.peer_of("token-1"))) == ["when you are back"]


def test_a_call_revives_the_reaped_with_name_channels_and_pause(room, clock):
    room.join("ann", "#x")
    room.pause_peer("ann")
    reap(room, clock)
    peer = room.peer_of("token-1")
    assert (peer.is_live, peer.channels, peer.is_paused) == (True, {"#x"}, True)


def test_registering_with_the_token_revives_the_reaped(room, clock):
    room.join("ann")
    reap(room, clock)
    room.register("here", "ann", "token-1")
    assert room.names() == ["ann"]


def test_a_reaped_name_is_refused_to_others_until_its_grace_is_over(room, clock):
    room.join("ann")
    reap(room, clock)
    clock.advance(GRACE_S)
    with pytest.raises(NameInUse):
        room.register("elsewhere", "ann")


def test_a_reaped_name_is_free_after_its_grace_even_before_a_sweep(room, clock):
    room.join("ann")
    room.operator_say("ann", "for the old ann")
    reap(room, clock)
    clock.advance(GRACE_S + 0.1)
    assert room.join("ann").mailbox.waiting == 0


def test_a_token_is_dead_after_the_grace_even_before_a_sweep(room, clock):
    room.join("ann")
    reap(room, clock)
    clock.advance(GRACE_S + 0.1)
    with pytest.raises(UnknownToken):
        room.peer_of("token-1")


def test_a_token_that_died_with_the_grace_cannot_leave_either(room, clock):
    room.join("ann")
    reap(room, clock)
    clock.advance(GRACE_S + 0.1)
    with pytest.raises(UnknownToken):
        room.leave("token-1")


def test_the_refusal_of_a_token_that_died_with_the_grace_changes_nothing(room, clock):
    room.join("ann")
    reap(room, clock)
    clock.advance(GRACE_S + 0.1)
    before = state_of(room)
    with pytest.raises(UnknownToken):
        room.peer_of("token-1")
    assert state_of(room) == before


def test_a_sweep_forgets_whoever_was_away_too_long(room, clock):
    room.join("ann")
    reap(room, clock)
    clock.advance(GRACE_S + 0.1)
    room.sweep()
    assert (room.events[-1].why, len(room.roster)) == ("was away too long", 0)


@pytest.mark.parametrize(
    "end", [lambda room: room.leave("token-1"), lambda room: room.kick("ann")], ids=["leave", "kick"]
)
def test_a_reaped_peer_can_be_ended(room, clock, end):
    room.join("ann")
    reap(room, clock)
    end(room)
    assert room.presence("ann")["state"] == "absent"


def test_coming_and_going_is_told_to_consoles_and_not_to_peers(room, clock):
    ann = room.join("ann")
    room.join("bob")
    reap(room, clock, ann)
    room.peer_of(room.tokens["bob"])
    room.kick("bob")
    assert contents(room.log)[-3:] == ["bob timed out", "bob is back", "bob was kicked by the operator"]
    assert ann.mailbox.waiting == 0


# --- speech: who gets it ---


def test_direct_words_reach_the_one_named(room):
    ann, bob, cid = room.join("ann"), room.join("bob"), room.join("cid")
    delivery = room.say(ann, "bob", "hi")
    assert delivery.to == ("bob",)
    assert [peer.mailbox.waiting for peer in (ann, bob, cid)] == [0, 1, 0]


def test_words_to_all_reach_everybody_but_the_speaker(room):
    ann = room.join("ann")
    room.join("bob")
    room.join("cid")
    assert room.say(ann, ALL, "hi").to == ("bob", "cid")


def test_words_in_a_channel_reach_its_members_but_the_speaker(room):
    ann = room.join("ann", "#x")
    room.join("bob", "#x")
    cid = room.join("cid")
    assert room.say(ann, "#x", "hi").to == ("bob",)
    assert cid.mailbox.waiting == 0


def test_a_peer_may_write_to_itself(room):
    ann = room.join("ann")
    assert room.say(ann, "ann", "remember").to == ("ann",)


def test_the_reaped_get_what_is_said_meanwhile(room, clock):
    ann = room.join("ann", "#x")
    room.join("bob", "#x")
    reap(room, clock, ann)
    assert [room.say(ann, to, "hi").to for to in ("bob", "#x", ALL)] == [("bob",)] * 3


def test_words_to_nobody_name_who_was_missed(room):
    delivery = room.say(room.join("ann"), "zoe", "hi")
    assert (delivery.to, delivery.missed) == ((), ("zoe",))


@pytest.mark.parametrize("to", ["", "#"])
def test_an_odd_scope_is_an_absent_name(room, to):
    assert room.say(room.join("ann"), to, "hi").missed == (to,)


@pytest.mark.parametrize("to", [ALL, "#x"])
def test_an_audience_of_nobody_is_not_a_missed_name(room, to):
    delivery = room.say(room.join("ann"), to, "hi")
    assert (delivery.to, delivery.missed) == ((), ())


def test_speaking_in_a_channel_joins_it(room):
    ann = room.join("ann")
    room.say(ann, "#x", "hi")
    assert ann.channels == {"#x"}


def test_a_newcomer_gets_no_history(room):
    room.say(room.join("ann", "#x"), "#x", "before")
    assert room.join("bob", "#x").mailbox.waiting == 0


def test_the_wire_says_who_spoke_and_with_what_right(room):
    bob = room.join("bob")
    room.say(room.join("ann"), "bob", "hi")
    room.operator_say("bob", "hello")
    told = [json.loads(message.wire) for message in room.fetch(bob)]
    assert [(one["sender"], one["origin"]) for one in told] == [("ann", "agent"), ("human", "operator")]


def test_every_mailbox_shares_the_bytes_of_a_message(room):
    ann, bob, cid = room.join("ann"), room.join("bob"), room.join("cid")
    sent = room.say(ann, ALL, "hi").message
    assert room.fetch(bob)[0].wire is room.fetch(cid)[0].wire is sent.wire


def test_seq_counts_routed_messages_only(room):
    ann = room.join("ann")
    room.join("bob", "#x")
    assert [room.say(ann, "bob", "1").message.seq, room.operator_say(ALL, "2").message.seq] == [1, 2]


def test_notices_have_no_seq(room):
    room.join("ann", "#x")
    assert {message.seq for message in room.log} == {0}


def test_ids_are_twelve_hex_digits_and_never_repeat(room):
    ann = room.join("ann", "#x")
    for n in range(5):
        room.say(ann, "#x", str(n))
    ids = [message.id for message in room.log]
    assert all(len(one) == 12 and int(one, 16) for one in ids)
    assert len(set(ids)) == len(ids) == 7


def test_the_log_keeps_the_newest(room):
    ann = room.join("ann")
    for n in range(LOG_MAX + 3):
        room.operator_say("ann", str(n))
        room.acknowledge(ann, n)
    assert (len(room.log), room.log[-1].content) == (LOG_MAX, str(LOG_MAX + 2))


def test_speech_is_throttled_by_speaker(room):
    ann, bob = room.join("ann"), room.join("bob")
    for _ in range(int(SPEECH_BURST)):
        room.say(ann, "bob", "hi")
    with pytest.raises(Throttled):
        room.say(ann, "bob", "hi")
    assert room.say(bob, "ann", "and I may").to == ("ann",)


def test_speech_refills_with_time(room, clock):
    ann = room.join("ann")
    for _ in range(int(SPEECH_BURST)):
        room.say(ann, "bob", "hi")
    clock.advance(1 / SPEECH_PER_S)
    assert room.say(ann, "bob", "hi").message.seq == SPEECH_BURST + 1


# --- delivery: fetched and acknowledged ---


@pytest.fixture
def pair(room):
    """Give ann, and bob to whom ann said one, two, three."""
    ann, bob = room.join("ann"), room.join("bob")
    for word in ("one", "two", "three"):
        room.say(ann, "bob", word)
    return ann, bob


def test_what_was_fetched_is_not_handed_out_again(room, pair):
    assert contents(room.fetch(pair[1])) == ["one", "two", "three"]
    assert room.fetch(pair[1]) == []


def test_fetching_nothing_is_no_event(room):
    ann = room.join("ann")
    before = len(room.events)
    room.fetch(ann)
    assert len(room.events) == before


def test_what_did_not_arrive_is_handed_out_again_in_order(room, pair):
    room.fetch(pair[1])
    room.say(pair[0], "bob", "four")
    room.unfetch(pair[1])
    assert contents(room.fetch(pair[1])) == ["one", "two", "three", "four"]


def test_one_message_of_a_batch_can_be_handed_out_again(room, pair):
    batch = room.fetch(pair[1])
    room.unfetch(pair[1], [batch[1].seq])
    assert contents(room.fetch(pair[1])) == ["two"]


def test_what_was_acknowledged_is_never_handed_out_again(room, pair):
    batch = room.fetch(pair[1])
    room.acknowledge(pair[1], batch[1].seq)
    room.unfetch(pair[1])
    assert contents(room.fetch(pair[1])) == ["three"]


def test_an_acknowledgement_ahead_of_the_room_frees_only_what_was_fetched(room, pair):
    room.fetch(pair[1])
    room.say(pair[0], "bob", "four")
    room.acknowledge(pair[1], 10**9)
    room.unfetch(pair[1])
    assert contents(room.fetch(pair[1])) == ["four"]


def test_an_acknowledgement_repeated_frees_nothing_that_the_operator_overtook_and_that_came_later(room):
    ann, bob = room.join("ann"), room.join("bob")
    room.pause_peer("bob")
    room.say(ann, "bob", "held by the pause")
    urgent = room.operator_say("bob", "overtakes").message
    room.fetch(bob)
    room.acknowledge(bob, urgent.seq)
    room.resume_peer("bob")
    room.fetch(bob)  # and the answer is lost on its way: bob polls again with the ack_seq that it has
    room.acknowledge(bob, urgent.seq)
    room.unfetch(bob)
    assert contents(room.fetch(bob)) == ["held by the pause"]


def test_the_acknowledgement_of_a_command_repeated_frees_nothing_that_came_later(room):
    ann, bob = room.join("ann"), room.join("bob")
    room.pause_peer("bob")
    room.say(ann, "bob", "held by the pause")
    command = room.command("bob", "interrupt").message
    room.fetch(bob)
    room.acknowledge(bob, command.seq)
    room.resume_peer("bob")
    room.fetch(bob)  # and the answer is lost on its way: bob polls again with the ack_seq that it has
    room.acknowledge(bob, command.seq)
    room.unfetch(bob)
    assert contents(room.fetch(bob)) == ["held by the pause"]


def test_an_acknowledgement_that_frees_nothing_is_no_event(room, pair):
    before = len(room.events)
    room.acknowledge(pair[1], 99)
    assert len(room.events) == before


def test_unfetching_nothing_is_no_event(room, pair):
    before = len(room.events)
    room.unfetch(pair[1])
    assert len(room.events) == before


def test_unfetching_for_a_peer_that_is_gone_changes_nothing(room, pair):
    room.fetch(pair[1])
    room.kick("bob")
    before = state_of(room)
    room.unfetch(pair[1])
    assert state_of(room) == before


def test_acknowledging_for_a_peer_that_is_gone_does_not_touch_its_successor(room, pair):
    room.fetch(pair[1])
    room.kick("bob")
    successor = room.join("bob")
    room.say(pair[0], "bob", "for the new bob")
    room.fetch(successor)
    room.acknowledge(pair[1], 99)
    room.unfetch(successor)
    assert contents(room.fetch(successor)) == ["for the new bob"]


def test_fetching_for_a_peer_that_is_gone_does_not_touch_its_successor(room, pair):
    room.kick("bob")
    successor = room.join("bob")
    room.say(pair[0], "bob", "for the new bob")
    room.fetch(pair[1])
    assert contents(room.fetch(successor)) == ["for the new bob"]


def test_something_is_deliverable_as_long_as_something_waits(room, pair):
    assert room.has_deliverable(pair[1])
    room.fetch(pair[1])
    assert not room.has_deliverable(pair[1])


def test_one_answer_is_bounded_in_bytes_and_the_next_has_the_rest(room, clock):
    """A full mailbox of the longest messages has 49 MB: thirty unread polls of one peer would cost the hub 1.5 GB."""
    ann, bob = room.join("ann"), room.join("bob")
    room.set_rate(1e6, 1e6)
    clock.advance(1.0)
    for _ in range(60):
        room.say(ann, "bob", "\U0001f600" * caucus.CONTENT_MAX)  # 12 bytes each on the wire
    batches = [room.fetch(bob) for _ in range(7)]
    sizes = [sum(len(message.wire) for message in batch) for batch in batches]
    assert all(0 < size <= caucus.BATCH_MAX_BYTES for size in sizes[:-1])
    assert [m.seq for batch in batches for m in batch] == [*range(1, 61)]
    assert room.fetch(bob) == []


def test_a_message_longer_than_an_answer_comes_alone(room, monkeypatch):
    monkeypatch.setattr(caucus, "BATCH_MAX_BYTES", 10)
    ann, bob = room.join("ann"), room.join("bob")
    for word in ("one", "two"):
        room.say(ann, "bob", word)
    assert [contents(room.fetch(bob)) for _ in range(3)] == [["one"], ["two"], []]


def test_a_question_is_withdrawn_with_its_asker(room):
    ann, bob = room.join("ann"), room.join("bob")
    for peer in (ann, bob):
        room.ask(peer, caucus.Question("", ALL, "Go?", (caucus.Field("go", "Go?", "text", (), False, False),)))
    room.kick("ann")
    assert [form["asker"] for form in room.forms()] == ["bob"]
    assert [(one["status"], one["answer_summary"]) for one in room.decisions(5)] == [
        ("withdrawn", "withdrawn: ann was kicked by the operator")
    ]
    assert room.kinds()[-2:] == ["FormSettled", "PeerLeft"]


def test_the_pending_questions_of_one_peer_are_bounded_in_bytes(room, clock):
    ann, bob = room.join("ann"), room.join("bob")
    options = tuple(f"{n}" * 190 for n in range(10, 40))
    fields = tuple(caucus.Field(f"{n}", "x", "radio", options, False, False) for n in range(5))
    long = caucus.Question("", ALL, "Go?", fields)
    for _ in range(2):
        room.ask(ann, long)
    with pytest.raises(caucus.TooManyForms):
        room.ask(ann, long)
    assert sum(len(json.dumps(form)) for form in room.forms()) <= caucus.ASKED_MAX_BYTES
    assert room.ask(bob, long).asker == "bob"


def test_all_pending_questions_together_are_bounded_in_bytes(room, clock):
    """Many askers within their own bounds must not keep consoles from opening either."""
    options = tuple(f"{n}" * 190 for n in range(10, 40))
    fields = tuple(caucus.Field(f"{n}", "x", "radio", options, False, False) for n in range(10))
    long = caucus.Question("", ALL, "Go?", fields)
    many = caucus.FORMS_MAX_BYTES // len(json.dumps(room.ask(room.join("peer"), long).to_json()))
    for n in range(many - 1):
        room.ask(room.join(f"peer-{n}"), long)
    with pytest.raises(caucus.TooManyForms, match="together"):
        room.ask(room.join("one too many"), long)
    assert sum(len(json.dumps(form)) for form in room.forms()) <= caucus.FORMS_MAX_BYTES
    room.kick("peer-0")
    assert room.ask(room.join("late"), long).asker == "late"


def test_all_questions_of_one_asker_are_rejected_at_once_and_those_of_others_stay(room):
    ann, bob, cid = (room.join(name) for name in ("ann", "bob", "cid"))
    for peer in (ann, bob, ann):
        room.ask(peer, caucus.Question("", ALL, "Go?", (caucus.Field("go", "Go?", "text", (), False, False),)))
    room.fetch(cid)
    assert room.cancel_all("ann", "not today") == 2
    assert [form["asker"] for form in room.forms()] == ["bob"]
    assert [message.content for message in room.fetch(cid)] == ["Go?: cancelled by the operator: not today"] * 2
    with pytest.raises(caucus.UnknownForm):
        room.cancel_all("ann")


def test_the_ledger_is_bounded_in_bytes_and_the_oldest_go(room, clock):
    """Long labels, answered, must not keep a console from opening."""
    ann = room.join("ann")
    fields = tuple(caucus.Field(f"{n}", f"{n}" + "\N{SNOWMAN}" * 190, "text", (), False, False) for n in range(20))
    for n in range(60):
        clock.advance(1)
        form = room.ask(ann, caucus.Question("", ALL, f"Go {n}?", fields))
        room.answer(form.id, {"0": "yes"})
    kept = room.decisions(caucus.DECISIONS_MAX)
    assert sum(len(json.dumps(one)) for one in kept) <= caucus.LEDGER_MAX_BYTES
    assert [one["title"] for one in kept] == [f"Go {n}?" for n in range(60 - len(kept), 60)]
    assert len(kept) < 60


# --- overflow ---


@pytest.fixture
def full(room, monkeypatch):
    """Give bob, whose mailbox of three is full of ann's words."""
    monkeypatch.setattr(caucus, "MAILBOX_MAX", 3)
    ann, bob = room.join("ann"), room.join("bob")
    for word in ("one", "two", "three"):
        room.say(ann, "bob", word)
    return ann, bob


def test_a_mailbox_keeps_as_many_messages_as_the_cap(room):
    bob = room.join("bob")
    for n in range(MAILBOX_MAX + 2):
        room.operator_say("bob", str(n))
    batch = contents(room.fetch(bob))
    assert (len(batch), batch[0]) == (MAILBOX_MAX, "2")


def test_a_full_mailbox_loses_its_oldest(room, full):
    room.say(full[0], "bob", "four")
    assert contents(room.fetch(full[1])) == ["two", "three", "four"]


def test_a_full_mailbox_loses_what_was_handed_out_before_what_waits(room, full):
    room.fetch(full[1])
    room.say(full[0], "bob", "four")
    room.unfetch(full[1])
    assert contents(room.fetch(full[1])) == ["two", "three", "four"]


def test_a_full_mailbox_loses_agents_words_before_the_operators(room, monkeypatch):
    monkeypatch.setattr(caucus, "MAILBOX_MAX", 2)
    ann, bob = room.join("ann"), room.join("bob")
    room.operator_say("bob", "ruling")
    for word in ("one", "two"):
        room.say(ann, "bob", word)
    assert contents(room.fetch(bob)) == ["ruling", "two"]


def test_the_sender_sees_whose_mailbox_overflowed(room, full):
    room.join("cid")
    assert room.say(full[0], ALL, "four").overflowed == ("bob",)


def test_a_sender_whose_words_fit_is_told_of_no_overflow(room, pair):
    assert room.say(pair[0], "bob", "four").overflowed == ()


def test_an_overflow_is_an_event_that_names_what_was_lost(room, full):
    room.say(full[0], "bob", "four")
    lost = room.events[-3]
    assert (type(lost).__name__, lost.name, lost.sender, lost.lost_seq, lost.lost_sender) == (
        "MailboxOverflowed",
        "bob",
        "ann",
        1,
        "ann",
    )


def test_an_overflow_is_a_line_that_the_operator_sees(room, full):
    room.say(full[0], "bob", "four")
    assert contents(room.log)[-2] == "bob's mailbox is full: 1 lost, the latest is message 1 from ann"


def test_a_thousand_losses_are_one_line_that_counts_them(room, full, clock):
    room.set_rate(1e6, 1e6)
    clock.advance(caucus.LOSSES_EVERY_S / 100)  # which fills the new bucket
    for n in range(1000):
        room.say(full[0], "bob", str(n))
    assert room.kinds().count("MailboxOverflowed") == 1000
    assert room.kinds().count("LossTold") == 1
    clock.advance(caucus.LOSSES_EVERY_S)
    room.say(full[0], "bob", "one more")
    told = [line for line in contents(room.log) if "mailbox" in line]
    assert told == ["bob's mailbox is full: 1001 lost, the latest is message 1001 from ann"]
    assert room.kinds().count("LossTold") == 2


def test_losses_that_go_on_are_told_ever_more_rarely(room, full, clock):
    room.set_rate(1e6, 1e6)
    for n in range(2000):
        clock.advance(0.25)
        room.say(full[0], "bob", str(n))
    assert room.kinds().count("LossTold") < 15
    before = room.peer_rows()[1]["lost"]
    assert (before["count"], before["sender"]) == (2000, "ann")
    assert before["ts"] - before["since"] == pytest.approx(499.75, abs=0.1)
    clock.advance(caucus.LOSS_OVER_S + 1)
    room.say(full[0], "bob", "much later")
    assert room.peer_rows()[1]["lost"]["count"] == 1
    told = [line for line in contents(room.log) if "mailbox" in line]
    assert told == ["bob's mailbox is full: 1 lost, the latest is message 2001 from ann"]


def test_notices_do_not_push_the_conversation_out_of_the_log(room, pair):
    for _ in range(300):
        room.pause_peer("bob")
        room.resume_peer("bob")
    log = room.log
    assert [one.content for one in log if one.seq] == ["one", "two", "three"]
    assert len(log) == 3 + caucus.LOG_NOTICES_MAX
    assert [one.id for one in log] == sorted(one.id for one in log)


def test_who_is_refused_in_mass_shows_it_until_a_minute_has_passed(room, pair, clock):
    room.set_rate(1, 5)
    clock.advance(60.0)  # which fills the new bucket
    for _ in range(12):
        with suppress(caucus.Throttled):
            room.say(pair[0], "bob", "now!")
    assert [row["refused"] for row in room.peer_rows()] == [{"count": 7, "of": 7}, None]
    clock.advance(caucus.REFUSED_OVER_S + 1)
    assert room.peer_rows()[0]["refused"] is None


def test_the_sweep_tells_of_the_last_losses(room, full, clock):
    room.say(full[0], "bob", "four")
    room.say(full[0], "bob", "five")
    clock.advance(caucus.SWEEP_S)
    room.sweep()
    room.sweep()
    assert contents(room.log)[-1] == "bob's mailbox is full: 2 lost, the latest is message 2 from ann"
    assert room.kinds().count("LossTold") == 2


# --- channels ---


def test_a_member_is_listed_with_its_channel(room):
    room.join("bob", "#x")
    room.join("ann", "#x")
    assert room.channels() == {"#x": {"topic": None, "members": ["ann", "bob"]}}


def test_joining_again_is_no_event(room):
    ann = room.join("ann", "#x")
    before = len(room.events)
    room.join_channel(ann, "#x")
    assert len(room.events) == before


def test_leaving_a_channel_ends_the_membership(room):
    ann = room.join("ann", "#x")
    room.leave_channel(ann, "#x")
    assert (ann.channels, room.channels()) == (set(), {})


def test_leaving_a_channel_of_others_is_no_event(room):
    room.join("bob", "#x")
    ann = room.join("ann")
    before = len(room.events)
    room.leave_channel(ann, "#x")
    assert len(room.events) == before


def test_whoever_left_a_channel_gets_nothing_more_of_it(room):
    ann, bob = room.join("ann", "#x"), room.join("bob", "#x")
    room.leave_channel(bob, "#x")
    assert room.say(ann, "#x", "hi").to == ()


def test_a_channel_is_listed_while_a_member_is_live(room, clock):
    room.join("ann", "#x")
    reap(room, clock)
    assert room.channels() == {}


def test_the_reaped_are_not_listed_as_members(room, clock):
    ann = room.join("ann", "#x")
    room.join("bob", "#x")
    reap(room, clock, ann)
    assert room.channels()["#x"]["members"] == ["ann"]


def test_a_member_sets_and_clears_the_topic(room):
    ann = room.join("ann", "#x")
    room.set_topic(ann, "#x", "tests")
    assert room.channels()["#x"]["topic"] == "tests"
    room.set_topic(ann, "#x", None)
    assert room.channels()["#x"]["topic"] is None


def test_the_same_topic_again_is_no_event(room):
    ann = room.join("ann", "#x")
    room.set_topic(ann, "#x", "tests")
    before = len(room.events)
    room.set_topic(ann, "#x", "tests")
    assert len(room.events) == before


ENDS_OF_THE_LAST_LIVE_MEMBER = {
    "leaves": lambda room, clock: room.leave(room.tokens["ann"]),
    "is kicked": lambda room, clock: room.kick("ann"),
    "is reaped": reap,
    "leaves the channel": lambda room, clock: room.leave_channel(room.peer_of(room.tokens["ann"]), "#x"),
}


@pytest.mark.parametrize("end", ENDS_OF_THE_LAST_LIVE_MEMBER.values(), ids=ENDS_OF_THE_LAST_LIVE_MEMBER.keys())
def test_a_topic_dies_when_the_last_live_member(room, clock, end):
    ann = room.join("ann", "#x")
    room.join("bob", "#x")  # reaped: it stays a member, and keeps no topic alive
    reap(room, clock, ann)
    room.set_topic(ann, "#x", "tests")
    end(room, clock)
    room.peer_of(room.tokens["bob"])
    assert room.channels()["#x"]["topic"] is None


def test_a_topic_lives_on_while_another_live_member_is_there(room):
    ann = room.join("ann", "#x")
    room.join("bob", "#x")
    room.set_topic(ann, "#x", "tests")
    room.leave(room.tokens["ann"])
    assert room.channels()["#x"]["topic"] == "tests"


@pytest.fixture
def crowded(room, monkeypatch):
    """Give ann, who is in as many channels as may be."""
    monkeypatch.setattr(caucus, "CHANNELS_PER_PEER_MAX", 3)
    return room.join("ann", "#1", "#2", "#3")


def test_the_sixty_fifth_channel_is_refused(room, clock):
    ann = room.join("ann")
    for n in range(64):
        room.join_channel(ann, f"#{n}")
        clock.advance(1.0)
    with pytest.raises(TooManyChannels):
        room.join_channel(ann, "#one-more")


INTO_A_CHANNEL = {
    "joining": lambda room, peer: room.join_channel(peer, "#x"),
    "speaking": lambda room, peer: room.say(peer, "#x", "hi"),
    "asking": lambda room, peer: room.ask(peer, question("#x")),
}


@pytest.mark.parametrize("enter", INTO_A_CHANNEL.values(), ids=INTO_A_CHANNEL.keys())
def test_no_way_leads_into_a_channel_too_many(room, crowded, enter):
    with pytest.raises(TooManyChannels):
        enter(room, crowded)


def test_a_peer_in_as_many_channels_as_may_be_still_speaks_in_them(room, crowded):
    assert room.say(crowded, "#2", "hi").message.seq == 1


def test_a_closed_channel_has_no_members(room):
    ann, bob = room.join("ann", "#x"), room.join("bob", "#x", "#y")
    room.close_channel("#x")
    assert (ann.channels, bob.channels, [*room.channels()]) == (set(), {"#y"}, ["#y"])


def test_a_channel_that_only_the_reaped_are_in_can_be_closed(room, clock):
    room.join("ann", "#x")
    reap(room, clock)
    room.close_channel("#x")
    assert room.peer_of("token-1").channels == set()


# --- the floor ---


def test_a_free_stick_is_taken(room):
    assert room.use_floor(room.join("ann"), "take", ALL, "plan") == {
        "ok": True,
        "scope": ALL,
        "holder": "ann",
        "reason": "plan",
    }


def test_a_held_stick_queues_whoever_takes_it(room):
    ann, bob = room.join("ann"), room.join("bob")
    room.use_floor(ann, "take", ALL, "plan")
    assert room.use_floor(bob, "take", ALL, None) == {
        "ok": False,
        "error": "floor_held",
        "scope": ALL,
        "held_by": "ann",
        "reason": "plan",
        "position": 1,
    }


def test_hands_queue_in_the_order_in_which_they_were_raised(room):
    ann, bob, cid = room.join("ann"), room.join("bob"), room.join("cid")
    room.use_floor(ann, "take", ALL, None)
    positions = [room.use_floor(peer, "raise", ALL, None)["position"] for peer in (cid, bob, cid)]
    assert positions == [1, 2, 1]


def test_a_hand_that_is_up_may_be_raised_again_when_no_other_can(room, monkeypatch):
    monkeypatch.setattr(caucus, "HANDS_MAX", 1)
    ann, bob = room.join("ann"), room.join("bob")
    room.use_floor(ann, "take", ALL, None)
    room.use_floor(bob, "raise", ALL, None)
    assert room.use_floor(bob, "raise", ALL, None)["position"] == 1


def test_the_holder_need_not_raise_a_hand(room):
    ann = room.join("ann")
    room.use_floor(ann, "take", ALL, None)
    assert room.use_floor(ann, "raise", ALL, None)["position"] == 0


def test_a_lowered_hand_leaves_the_queue(room):
    ann, bob = room.join("ann"), room.join("bob")
    room.use_floor(ann, "take", ALL, None)
    room.use_floor(bob, "raise", ALL, None)
    assert room.use_floor(bob, "lower", ALL, None) == {"ok": True, "scope": ALL}
    assert room.floors()[ALL]["hands"] == []


def test_lowering_a_hand_that_was_not_raised_is_no_event(room):
    ann, bob = room.join("ann"), room.join("bob")
    room.use_floor(ann, "take", ALL, None)
    before = len(room.events)
    room.use_floor(bob, "lower", ALL, None)
    assert len(room.events) == before


@pytest.fixture
def held(room):
    """Give ann, who holds the stick of #x, and bob and cid, who raised their hands."""
    ann, bob, cid = (room.join(name, "#x") for name in ("ann", "bob", "cid"))
    room.use_floor(ann, "take", "#x", "plan")
    for peer in (bob, cid):
        room.use_floor(peer, "raise", "#x", None)
    for peer in (ann, bob, cid):
        room.fetch(peer)
        room.acknowledge(peer, 99)
    return ann, bob, cid


def test_a_passed_stick_goes_to_the_first_raised_hand(room, held):
    assert room.use_floor(held[0], "pass", "#x", None) == {"ok": True, "scope": "#x", "passed_to": "bob"}
    assert room.floors()["#x"]["hands"] == ["cid"]


def test_the_reason_stays_with_a_passed_stick(room, held):
    room.use_floor(held[0], "pass", "#x", None)
    assert room.floors()["#x"]["reason"] == "plan"


def test_a_passed_stick_is_held_since_the_pass(room, clock, held):
    clock.advance(60)
    room.use_floor(held[0], "pass", "#x", None)
    assert room.floors()["#x"]["since"] == clock.wall()


def test_a_stick_passed_to_nobody_is_put_away(room):
    ann = room.join("ann")
    room.use_floor(ann, "take", ALL, None)
    assert room.use_floor(ann, "pass", ALL, None) == {"ok": True, "scope": ALL, "released": True}


def test_a_dropped_stick_is_put_away_with_all_hands(room, held):
    assert room.use_floor(held[0], "drop", "#x", None) == {"ok": True, "scope": "#x", "released": True}
    assert room.floors() == {}


def test_the_operator_clears_a_stick(room, held):
    room.clear_floor("#x")
    assert room.floors() == {}


def test_taking_ones_own_stick_with_a_new_reason_replaces_the_old_one(room):
    ann = room.join("ann")
    room.use_floor(ann, "take", ALL, "plan")
    assert room.use_floor(ann, "take", ALL, "build")["reason"] == "build"


@pytest.mark.parametrize("reason", [None, "plan"])
def test_taking_ones_own_stick_without_a_new_reason_is_no_event(room, reason):
    ann = room.join("ann")
    room.use_floor(ann, "take", ALL, "plan")
    before = len(room.events)
    assert room.use_floor(ann, "take", ALL, reason)["reason"] == "plan"
    assert len(room.events) == before


def test_only_the_holder_speaks_in_its_scope(room, held):
    assert room.say(held[0], "#x", "I may").to == ("bob", "cid")
    with pytest.raises(FloorHeld):
        room.say(held[1], "#x", "I may not")


def test_a_refusal_for_a_held_floor_says_who_holds_it_and_why(room, held):
    with pytest.raises(FloorHeld) as caught:
        room.say(held[1], "#x", "hi")
    assert (
        caught.value.body().items()
        >= {"error": "floor_held", "scope": "#x", "held_by": "ann", "reason": "plan"}.items()
    )


def test_a_held_scope_does_not_admit_a_newcomer_who_speaks(room, held):
    dan = room.join("dan")
    with pytest.raises(FloorHeld):
        room.say(dan, "#x", "hi")
    assert dan.channels == set()


@pytest.mark.parametrize("to", [ALL, "#y", "ann", "cid"])
def test_a_stick_binds_its_own_scope_only(room, held, to):
    assert room.say(held[1], to, "hi").message.recipient == to


def test_asking_the_operator_needs_no_stick(room, held):
    assert room.ask(held[1], question("#x")).to == "#x"


def test_the_operator_needs_no_stick(room, held):
    assert room.operator_say("#x", "hi").to == ("ann", "bob", "cid")


ANNOUNCED = {
    "taken": (lambda room, ann: room.use_floor(ann, "take", "#x", "new"), "ann has the talking stick of #x: new"),
    "passed": (
        lambda room, ann: room.use_floor(ann, "pass", "#x", None),
        "ann passed the talking stick of #x to bob: plan",
    ),
    "put away": (lambda room, ann: room.use_floor(ann, "drop", "#x", None), "ann put the talking stick of #x away"),
    "cleared": (lambda room, ann: room.clear_floor("#x"), "the operator put the talking stick of #x away"),
}


@pytest.mark.parametrize(("act", "text"), ANNOUNCED.values(), ids=ANNOUNCED.keys())
def test_what_becomes_of_a_stick_is_announced_to_its_scope_the_holder_included(room, held, act, text):
    act(room, held[0])
    assert [contents(room.fetch(peer)) for peer in held] == [[text]] * 3


def test_an_announcement_is_the_hubs(room, held):
    room.use_floor(held[0], "drop", "#x", None)
    told = room.fetch(held[1])[0]
    assert (told.sender, told.origin, told.kind, told.recipient, told.seq > 0) == ("hub", "hub", "system", "#x", True)


def test_an_announcement_does_not_leave_its_channel(room, held):
    dan = room.join("dan")
    room.use_floor(held[0], "drop", "#x", None)
    assert dan.mailbox.waiting == 0


EXITS = {
    "leaves": lambda room, clock, peer: room.leave(room.tokens[peer.name]),
    "is kicked": lambda room, clock, peer: room.kick(peer.name),
    "is reaped": lambda room, clock, peer: reap(
        room, clock, *(other for other in room.roster if other.is_live and other is not peer)
    ),
    "leaves the channel": lambda room, clock, peer: room.leave_channel(peer, "#x"),
}


@pytest.mark.parametrize("leave", EXITS.values(), ids=EXITS.keys())
def test_a_stick_passes_on_when_its_holder(room, clock, held, leave):
    leave(room, clock, held[0])
    assert (room.floors()["#x"]["holder"], room.floors()["#x"]["hands"]) == ("bob", ["cid"])


@pytest.mark.parametrize("leave", EXITS.values(), ids=EXITS.keys())
def test_the_next_holder_learns_that_it_has_the_stick_when_the_former(room, clock, held, leave):
    leave(room, clock, held[0])
    assert contents(room.fetch(held[1])) == ["ann passed the talking stick of #x to bob: plan"]


@pytest.mark.parametrize("leave", EXITS.values(), ids=EXITS.keys())
def test_a_hand_is_lowered_when_its_owner(room, clock, held, leave):
    leave(room, clock, held[1])
    assert room.floors()["#x"]["hands"] == ["cid"]


@pytest.mark.parametrize("leave", EXITS.values(), ids=EXITS.keys())
def test_a_stick_that_nobody_waits_for_is_put_away_when_its_holder(room, clock, leave):
    ann = room.join("ann", "#x")
    room.use_floor(ann, "take", "#x", None)
    leave(room, clock, ann)
    assert room.floors() == {}


@pytest.mark.parametrize(
    "leave", [EXITS["leaves"], EXITS["is kicked"], EXITS["is reaped"]], ids=["leaves", "kicked", "reaped"]
)
def test_the_stick_of_all_passes_on_when_its_holder(room, clock, leave):
    ann, bob = room.join("ann"), room.join("bob")
    room.use_floor(ann, "take", ALL, None)
    room.use_floor(bob, "raise", ALL, None)
    leave(room, clock, ann)
    assert room.floors()[ALL]["holder"] == "bob"


def test_a_stick_passes_over_those_who_are_reaped_in_the_same_sweep(room, clock, held):
    reap(room, clock, held[2])
    assert (room.floors()["#x"]["holder"], room.floors()["#x"]["hands"]) == ("cid", [])


def test_a_reaped_holder_finds_on_its_return_what_became_of_its_stick(room, clock, held):
    reap(room, clock, held[1], held[2])
    assert contents(room.fetch(room.peer_of(room.tokens["ann"]))) == ["ann passed the talking stick of #x to bob: plan"]


def test_closing_a_channel_puts_its_stick_away(room, held):
    room.close_channel("#x")
    assert room.floors() == {}


def test_a_stop_puts_every_stick_away(room, held):
    room.use_floor(held[1], "take", ALL, None)
    room.set_mode("stop")
    assert room.floors() == {}


def test_a_channel_that_opens_again_after_closing_is_free_to_speak_in(room, held):
    room.close_channel("#x")
    assert room.say(held[1], "#x", "hi").message.recipient == "#x"


# --- pause and stop ---


@pytest.mark.parametrize(
    ("pause", "resume"),
    [
        (lambda room: room.set_mode("pause"), lambda room: room.set_mode("resume")),
        (lambda room: room.set_mode("pause"), lambda room: room.set_mode("reset")),
        (lambda room: room.pause_peer("bob"), lambda room: room.resume_peer("bob")),
    ],
    ids=["room", "room, reset", "one peer"],
)
def test_a_pause_loses_nothing(room, pair, pause, resume):
    pause(room)
    room.say(pair[0], "bob", "four")
    assert room.fetch(pair[1]) == []
    resume(room)
    assert contents(room.fetch(pair[1])) == ["one", "two", "three", "four"]


@pytest.mark.parametrize(
    "pause", [lambda room: room.set_mode("pause"), lambda room: room.pause_peer("bob")], ids=["room", "peer"]
)
def test_only_operator_traffic_is_delivered_through_a_pause(room, pair, pause):
    form = room.ask(pair[0], question())
    room.use_floor(pair[0], "take", ALL, None)
    pause(room)
    room.operator_say("bob", "listen")
    room.answer(form.id, {"why": "because"})
    room.command("bob", "interrupt")
    assert [message.kind for message in room.fetch(pair[1])] == ["message", "answer", "control"]


def test_nothing_but_operator_traffic_is_deliverable_in_a_pause(room, pair):
    room.set_mode("pause")
    assert not room.has_deliverable(pair[1])
    room.operator_say("bob", "listen")
    assert room.has_deliverable(pair[1])


def test_what_the_operator_said_in_a_pause_is_not_delivered_again_after_it(room, pair):
    room.set_mode("pause")
    room.operator_say("bob", "listen")
    room.fetch(pair[1])
    room.set_mode("resume")
    assert contents(room.fetch(pair[1])) == ["one", "two", "three"]


def test_pausing_one_peer_leaves_the_others_alone(room, pair):
    room.pause_peer("bob")
    room.say(pair[1], "ann", "I may speak")
    assert contents(room.fetch(pair[0])) == ["I may speak"]


def test_a_paused_peer_stays_paused_when_the_room_resumes(room, pair):
    room.pause_peer("bob")
    room.set_mode("pause")
    room.set_mode("resume")
    assert room.fetch(pair[1]) == []


@pytest.mark.parametrize(
    "twice",
    [lambda room: room.pause_peer("ann"), lambda room: room.set_mode("pause"), lambda room: room.set_mode("stop")],
)
def test_a_pause_or_stop_repeated_is_no_event(room, twice):
    room.join("ann")
    twice(room)
    before = len(room.events)
    twice(room)
    assert len(room.events) == before


def test_resuming_a_peer_that_is_not_paused_is_no_event(room):
    room.join("ann")
    before = len(room.events)
    room.resume_peer("ann")
    assert len(room.events) == before


@pytest.mark.parametrize(
    ("action", "mode"), [("pause", "paused"), ("resume", "running"), ("stop", "stopped"), ("reset", "running")]
)
def test_a_mode_command_gives_the_mode(room, action, mode):
    assert room.set_mode(action) == room.mode == mode


@pytest.fixture
def stopped(room):
    """Give ann and bob in a stopped room; bob has not read what ann said."""
    ann, bob = room.join("ann", "#x"), room.join("bob", "#x")
    room.say(ann, "bob", "before the stop")
    room.set_mode("stop")
    return ann, bob


@pytest.mark.parametrize("to", [ALL, "#x", "bob", "ann", "zoe"])
def test_no_agent_speaks_in_a_stopped_room(room, stopped, to):
    with pytest.raises(Stopped):
        room.say(stopped[0], to, "hi")


def test_no_agent_asks_in_a_stopped_room(room, stopped):
    with pytest.raises(Stopped):
        room.ask(stopped[0], question())


def test_the_operator_speaks_in_a_stopped_room(room, stopped):
    assert room.operator_say(ALL, "hi").to == ("ann", "bob")


def test_the_hub_says_nothing_in_a_stopped_room(room, clock, stopped):
    seq = room.health()["msg_total"]
    room.leave(room.tokens["ann"])
    room.kick("bob")
    assert room.health()["msg_total"] == seq


def test_a_stop_is_what_every_poll_gets_at_once(room, stopped):
    assert [room.has_deliverable(peer) for peer in stopped] == [True, True]


def test_a_stop_is_the_hubs_command_and_in_no_mailbox(room, stopped):
    stop = room.stop
    assert (stop.kind, stop.content, stop.origin, stop.seq, stop.recipient) == ("control", "stop", "hub", 0, ALL)


def test_a_stop_leaves_the_mailboxes_alone(room, stopped):
    room.operator_say("bob", "in the stop")
    assert room.fetch(stopped[1]) == []
    assert stopped[1].mailbox.waiting == 2


@pytest.mark.parametrize("action", ["reset", "resume", "pause"])
def test_no_stop_is_left_behind_in_a_room_that_runs_again(room, stopped, action):
    room.set_mode(action)
    assert room.stop is None


def test_what_waited_through_a_stop_is_delivered_after_a_reset(room, stopped):
    room.set_mode("reset")
    assert contents(room.fetch(stopped[1])) == ["before the stop"]


def test_whoever_was_not_polling_during_a_stop_gets_no_stale_one(room):
    bob = room.join("bob")
    room.set_mode("stop")
    room.set_mode("reset")
    assert (room.fetch(bob), room.has_deliverable(bob)) == ([], False)


def test_each_stop_has_an_id_of_its_own(room):
    ids = set()
    for _ in range(2):
        room.set_mode("stop")
        ids.add(room.stop.id)
        room.set_mode("reset")
    assert len(ids) == 2


# --- the operator ---


def test_the_operators_words_to_all_reach_everybody(room):
    room.join("ann")
    room.join("bob")
    assert room.operator_say(ALL, "hi").to == ("ann", "bob")


def test_the_operator_speaks_in_a_channel_without_joining_it(room):
    room.join("ann", "#x")
    assert room.operator_say("#x", "hi").to == ("ann",)
    assert room.channels()["#x"]["members"] == ["ann"]


def test_the_operator_is_never_throttled(room):
    room.join("ann")
    for n in range(100):
        assert room.operator_say("ann", "hi").message.seq == n + 1


def test_a_command_reaches_one_peer_as_the_operators(room):
    ann = room.join("ann")
    room.join("bob")
    assert room.command("ann", "interrupt").to == ("ann",)
    told = room.fetch(ann)[0]
    assert (told.kind, told.content, told.origin, told.sender) == ("control", "interrupt", "operator", "human")


def test_a_stale_command_is_not_delivered_again(room):
    ann = room.join("ann")
    room.command("ann", "reset")
    room.fetch(ann)
    room.unfetch(ann)
    assert room.fetch(ann) == []


def test_a_new_rate_binds_every_peer_at_once(room):
    ann = room.join("ann")
    room.set_rate(1.0, 2.0)
    room.say(ann, "ann", "1")
    room.say(ann, "ann", "2")
    with pytest.raises(Throttled):
        room.say(ann, "ann", "3")


def test_the_same_rate_again_is_no_event(room):
    before = len(room.events)
    room.set_rate(SPEECH_PER_S, SPEECH_BURST)
    assert len(room.events) == before


def test_the_rate_is_shown_in_the_words_of_the_wire(room):
    room.set_rate(0.5, 3.0)
    assert room.rate() == {"refill_rate": 0.5, "capacity": 3.0}


def test_a_new_rate_leaves_status_lines_alone(room):
    ann = room.join("ann")
    room.set_rate(0.001, 1.0)
    for n in range(int(STATUS_BURST)):
        room.set_status(ann, str(n))
    assert ann.status == str(int(STATUS_BURST) - 1)


# --- forms and decisions ---


def test_a_question_is_pending_until_it_is_settled(room):
    form = room.ask(room.join("ann"), question())
    assert [one["id"] for one in room.forms()] == [form.id]
    room.answer(form.id, {})
    assert room.forms() == []


def test_an_answer_reaches_the_forms_audience_the_asker_included(room):
    ann, bob = room.join("ann", "#x"), room.join("bob", "#x")
    room.join("cid")
    assert room.answer(room.ask(ann, question("#x")).id, {"why": "so"}).to == ("ann", "bob")
    assert contents(room.fetch(bob)) == ["Deploy?\n- Why: so"]


def test_an_answer_says_of_what_form_it_is(room):
    ann = room.join("ann", "#x")
    form = room.ask(ann, question("#x"))
    room.answer(form.id, {"why": "so"})
    told = json.loads(room.fetch(ann)[0].wire)
    assert (told["kind"], told["origin"], told["sender"], told["recipient"]) == ("answer", "operator", "human", "#x")
    assert told["meta"] == {
        "form_id": form.id,
        "title": "Deploy?",
        "status": "answered",
        "answers": {"why": "so"},
        "asker": "ann",
        "to": "#x",
    }


def test_a_cancelled_form_is_told_without_answers(room):
    ann = room.join("ann")
    room.cancel(room.ask(ann, question()).id)
    meta = json.loads(room.fetch(ann)[0].wire)["meta"]
    assert (meta["status"], meta["answers"]) == ("cancelled", None)


def test_asking_into_a_channel_joins_it(room):
    ann = room.join("ann")
    room.ask(ann, question("#x"))
    assert ann.channels == {"#x"}


def test_a_form_for_a_channel_that_closed_can_still_be_settled(room):
    form = room.ask(room.join("ann"), question("#x"))
    room.close_channel("#x")
    assert room.answer(form.id, {}).to == ()


def test_a_form_is_settled_in_a_stopped_room(room):
    form = room.ask(room.join("ann"), question())
    room.set_mode("stop")
    assert room.answer(form.id, {}).to == ("ann",)


@pytest.mark.parametrize(
    "settle", [lambda room, one: room.answer(one, {}), lambda room, one: room.cancel(one)], ids=["answer", "cancel"]
)
def test_a_form_is_settled_once(room, settle):
    form = room.ask(room.join("ann"), question())
    room.answer(form.id, {})
    with pytest.raises(UnknownForm):
        settle(room, form.id)


def test_a_refused_answer_leaves_the_form_pending(room):
    form = room.ask(room.join("ann"), question(ALL, Field("go", "Go", "radio", ("yes", "no"), True, False)))
    with pytest.raises(InvalidForm):
        room.answer(form.id, {"go": "perhaps"})
    assert room.answer(form.id, {"go": "yes"}).to == ("ann",)


def test_a_pending_form_is_shown_by_its_id(room):
    form = room.ask(room.join("ann"), question())
    assert room.form(form.id) == form.to_json()


@pytest.fixture
def ledger(room, clock):
    """Give ann, in #x; settled were, in this order, questions to all, #x and #y."""
    ann, bob = room.join("ann", "#x"), room.join("bob")
    for peer, to in ((ann, ALL), (ann, "#x"), (bob, "#y")):
        form = room.ask(peer, question(to, title=f"about {to}"))
        clock.advance(1)
        room.answer(form.id, {"why": "so"})
    return ann


def titles(rows: list[object]) -> list[str]:
    return [row["title"] for row in rows]


def test_the_ledger_has_all_decisions_oldest_first(room, ledger):
    assert titles(room.decisions(9)) == ["about all", "about #x", "about #y"]


def test_a_peer_sees_the_decisions_of_all_and_of_its_own_channels(room, ledger):
    assert titles(room.decisions(9, ledger)) == ["about all", "about #x"]


def test_a_peer_that_left_a_channel_sees_its_decisions_no_more(room, ledger):
    room.leave_channel(ledger, "#x")
    assert titles(room.decisions(9, ledger)) == ["about all"]


def test_the_ledger_is_cut_to_the_newest(room, ledger):
    assert titles(room.decisions(1)) == ["about #y"]


def test_a_limit_counts_what_the_peer_sees(room, ledger):
    assert titles(room.decisions(1, ledger)) == ["about #x"]


def test_a_line_of_the_ledger_says_who_asked_and_what_was_decided_when(room, clock, ledger):
    [line] = room.decisions(1)
    assert (line["asker"], line["title"], line["status"]) == ("bob", "about #y", "answered")
    assert (line["answer_summary"], line["reason"], line["to"]) == ("Why: so", None, "#y")
    assert (line["asked_ts"], line["ts"]) == (clock.wall() - 1, clock.wall())


# --- what can be seen ---


def test_an_absent_name_is_absent(room):
    assert room.presence("zoe") == {"peer": "zoe", "state": "absent", "present": False}


def test_presence_of_the_live_has_ages_in_tenths_of_a_second(room, clock):
    ann = room.join("ann")
    clock.advance(10)
    room.set_status(ann, "busy")
    clock.advance(2.34)
    assert room.presence("ann") == {
        "peer": "ann",
        "state": "live",
        "present": True,
        "last_seen_age": 12.3,
        "listening": False,
        "status": "busy",
        "status_age": 2.3,
        "usage": None,
        "wake": None,
    }


def test_presence_of_the_reaped_says_since_when(room, clock):
    room.join("ann")
    reap(room, clock)
    clock.advance(5)
    seen = room.presence("ann")
    assert (seen["state"], seen["present"], seen["reaped_age"]) == ("reaped", False, 5.0)


def test_whoever_was_away_too_long_is_absent_before_any_sweep(room, clock):
    room.join("ann")
    reap(room, clock)
    clock.advance(GRACE_S + 1)
    assert room.presence("ann")["state"] == "absent"


def test_a_listening_peer_was_seen_just_now(room, clock):
    room.note_listening(room.join("ann"), True)
    clock.advance(20)
    assert (room.presence("ann")["listening"], room.presence("ann")["last_seen_age"]) == (True, 0.0)


def test_looking_at_a_peer_does_not_keep_it_alive(room, clock):
    room.join("ann")
    clock.advance(PEER_TTL_S + 1)
    room.presence("ann")
    room.peer_rows()
    room.sweep()
    assert room.names() == []


def test_rows_list_the_live_then_the_reaped_by_name(room, clock):
    for name in ("dan", "cid", "bob", "ann"):
        room.join(name)
    reap(room, clock, room.roster.get("ann"), room.roster.get("cid"))
    assert [row["name"] for row in room.peer_rows()] == ["ann", "cid", "bob", "dan"]


def test_a_row_counts_what_the_peer_said_and_what_waits_for_it(room, pair):
    room.fetch(pair[1])
    room.say(pair[0], "bob", "four")
    ann, bob = room.peer_rows()
    assert (ann["msg_count"], ann["char_count"]) == (4, len("onetwothreefour"))
    assert (bob["waiting"], bob["unacknowledged"]) == (1, 3)


def test_a_peer_that_neither_calls_nor_reports_is_quiet(room, clock):
    room.join("ann")
    clock.advance(QUIET_AFTER_S + 1)
    assert room.peer_rows()[0]["quiet"] is True


def test_a_room_that_begins_within_the_second_of_the_one_before_gives_other_ids(clock, monkeypatch):
    """A console that stayed took the new room's messages for old ones, and did not show them."""
    ids = []
    for wall in (1000.25, 1000.5):
        monkeypatch.setattr(clock, "wall", lambda wall=wall: wall)
        room = caucus.Room(lambda event: None, clock, lambda: "token")
        peer, _ = room.register("here", "ann")
        ids.append({room.say(peer, ALL, f"{n}").message.id for n in range(5)})
    assert not ids[0] & ids[1]


def test_when_a_peer_is_called_quiet_is_the_rooms_own(clock):
    room = caucus.Room(lambda event: None, clock, lambda: "token", quiet_after_s=5.0)
    room.register("here", "ann")
    clock.advance(6.0)
    assert room.peers_seen(["ann"])[0][1]["quiet"] is True


def test_a_paused_peer_is_not_called_quiet(room, clock):
    room.join("ann")
    room.pause_peer("ann")
    clock.advance(QUIET_AFTER_S + 1)
    assert room.peer_rows()[0]["quiet"] is False


def test_a_listening_peer_is_not_called_quiet(room, clock):
    room.note_listening(room.join("ann"), True)
    clock.advance(QUIET_AFTER_S + 1)
    assert room.peer_rows()[0]["quiet"] is False


@pytest.mark.parametrize(("age", "is_stale"), [(0.5 * QUIET_AFTER_S, False), (0.7 * QUIET_AFTER_S, True)])
def test_a_status_line_goes_stale(room, clock, age, is_stale):
    room.set_status(room.join("ann"), "busy")
    clock.advance(age)
    assert room.peer_rows()[0]["status_stale"] is is_stale


def test_a_status_line_is_set_and_cleared(room):
    ann = room.join("ann")
    room.set_status(ann, "busy")
    assert room.presence("ann")["status"] == "busy"
    room.set_status(ann, None)
    assert room.presence("ann")["status"] is None


def test_the_same_status_again_is_fresh(room, clock):
    ann = room.join("ann")
    room.set_status(ann, "busy")
    clock.advance(9)
    room.set_status(ann, "busy")
    assert room.presence("ann")["status_age"] == 0.0


def test_clearing_a_status_that_is_not_set_is_no_event(room):
    ann = room.join("ann")
    before = len(room.events)
    room.set_status(ann, None)
    assert len(room.events) == before


USAGE = Usage("claude", 12, 45_000, 3_123, 0.31)


def test_usage_is_seen_where_the_status_line_is_and_leaves_it_alone(room, clock):
    ann = room.join("ann")
    assert room.peer_rows()[0]["usage"] is None
    room.set_status(ann, "busy")
    clock.advance(9)
    room.set_usage(ann, USAGE)
    seen = room.presence("ann")
    assert seen["usage"] == room.peer_rows()[0]["usage"] == USAGE.to_json()
    assert (seen["status"], seen["status_age"]) == ("busy", 9.0)


def test_a_status_line_without_usage_leaves_the_usage_alone(room):
    ann = room.join("ann")
    room.set_status(ann, "busy", USAGE)
    room.set_status(ann, None)
    assert (room.presence("ann")["status"], room.presence("ann")["usage"]) == (None, USAGE.to_json())


def test_a_line_and_usage_together_spend_one_unit_and_are_two_events(room):
    ann = room.join("ann")
    before = len(room.events)
    room.set_status(ann, "busy", USAGE)
    assert room.kinds(before) == ["StatusSet", "UsageSet"]
    for n in range(1, int(STATUS_BURST)):
        room.set_usage(ann, USAGE.but(turns=n))
    with pytest.raises(Throttled):
        room.set_usage(ann, USAGE)


def test_the_same_usage_again_is_no_event(room):
    ann = room.join("ann")
    room.set_usage(ann, USAGE)
    before = len(room.events)
    room.set_usage(ann, USAGE)
    room.set_usage(ann, USAGE.but(turns=13))
    assert room.kinds(before) == ["UsageSet"]


def test_a_replay_knows_what_the_models_cost(room):
    room.set_usage(room.join("ann"), USAGE)
    echo = replayed(room.events)
    assert state_of(echo) == state_of(room)
    assert state_of(room)["peers"]["ann"]["usage"] == USAGE.to_json()


def test_who_takes_a_seat_anew_has_cost_nothing_yet(room):
    room.set_usage(room.join("ann"), USAGE)
    room.leave(room.tokens["ann"])
    room.join("ann")
    assert room.presence("ann")["usage"] is None


def test_status_lines_have_a_throttle_of_their_own(room):
    ann = room.join("ann")
    for n in range(int(STATUS_BURST)):
        room.set_status(ann, str(n))
    with pytest.raises(Throttled):
        room.set_status(ann, "one more")
    assert room.say(ann, "ann", "hi").message.seq == 1


def test_peeking_drains_nothing(room, pair):
    assert room.peek(pair[1])["pending"] == 3
    assert len(room.fetch(pair[1])) == 3


def test_peeking_at_an_empty_mailbox_finds_nothing(room):
    assert room.peek(room.join("ann")) == {"pending": 0, "last": None}


def test_peeking_shows_the_newest_message(room, pair):
    assert room.peek(pair[1])["last"] == {
        "sender": "ann",
        "preview": "three",
        "preview_truncated": False,
        "content_chars": 5,
    }


def test_peeking_cuts_a_long_message(room, pair):
    room.say(pair[0], "bob", "x" * 121)
    last = room.peek(pair[1])["last"]
    assert (last["preview"], last["preview_truncated"], last["content_chars"]) == ("x" * 120 + " [+1 chars]", True, 121)


def test_peeking_counts_what_a_pause_holds(room, pair):
    room.set_mode("pause")
    assert room.peek(pair[1])["pending"] == 3


def test_peeking_does_not_count_what_was_fetched(room, pair):
    room.fetch(pair[1])
    assert room.peek(pair[1]) == {"pending": 0, "last": None}


def test_health_counts_peers_messages_and_what_waits(room, clock, pair):
    clock.advance(5)
    assert room.health() == {
        "uptime": 5.0,
        "peer_count": 2,
        "msg_per_min": 3,
        "char_per_min": len("onetwothree"),
        "msg_total": 3,
        "queue_depth": 3,
        "quiet": None,
    }


@pytest.mark.parametrize(("later", "count"), [(59, 3), (61, 0)])
def test_a_minute_of_traffic_is_what_health_shows(room, clock, pair, later, count):
    clock.advance(later)
    assert room.health()["msg_per_min"] == count


# --- refusals change nothing ---


def busy(room: RecordingRoom, monkeypatch: pytest.MonkeyPatch) -> dict[str, Peer]:
    """Fill a room in which every refusal is near: small caps, a held stick, a pending form."""
    caps = {"IDENTITIES_MAX": 4, "CHANNELS_PER_PEER_MAX": 2, "HANDS_MAX": 1, "FORMS_MAX": 1, "ASKED_MAX": 1}
    for cap, value in caps.items():
        monkeypatch.setattr(caucus, cap, value)
    peers = {name: room.join(name, "#x") for name in ("ann", "bob", "cid")}
    peers["dan"] = room.join("dan", "#y", "#z")
    room.use_floor(peers["ann"], "take", "#x", "plan")
    room.use_floor(peers["bob"], "raise", "#x", None)
    room.set_topic(peers["dan"], "#y", "tests")
    room.say(peers["dan"], ALL, "hi?", Manner(expects_answer=True))
    room.fetch(peers["ann"])
    room.ask(peers["cid"], question(ALL, Field("go", "Go", "radio", ("yes", "no"), True, False)))
    return peers


def tire(room: RecordingRoom, peer: Peer) -> None:
    """Let a peer say all that its rate allows."""
    with suppress(Throttled):
        for _ in range(int(SPEECH_BURST)):
            peer.speech.spend(room._mono())


THROTTLED = {
    "say": lambda room, dan: room.say(dan, ALL, "hi"),
    "say into a new channel": lambda room, dan: room.say(dan, "#x2", "hi"),
    "join": lambda room, dan: room.join_channel(dan, "#x"),
    "leave a channel": lambda room, dan: room.leave_channel(dan, "#y"),
    "topic": lambda room, dan: room.set_topic(dan, "#y", "other"),
    "floor": lambda room, dan: room.use_floor(dan, "take", ALL, None),
    "ask": lambda room, dan: room.ask(dan, question()),
}
REFUSED = {
    "a strange token": (UnknownToken, lambda room, peers: room.peer_of("strange")),
    "leaving with a strange token": (UnknownToken, lambda room, peers: room.leave("strange")),
    "a fifth identity": (RoomFull, lambda room, peers: room.register("here", "eve")),
    "a held floor": (FloorHeld, lambda room, peers: room.say(peers["bob"], "#x", "hi")),
    "a held floor of others": (FloorHeld, lambda room, peers: room.say(peers["dan"], "#x", "hi")),
    "joining too many": (TooManyChannels, lambda room, peers: room.join_channel(peers["dan"], "#new")),
    "speaking in too many": (TooManyChannels, lambda room, peers: room.say(peers["dan"], "#new", "hi")),
    "a topic of others": (NotAMember, lambda room, peers: room.set_topic(peers["dan"], "#x", "mine")),
    "a topic of no channel": (NotAMember, lambda room, peers: room.set_topic(peers["dan"], "#new", "mine")),
    "a stick of others, taken": (NotAMember, lambda room, peers: room.use_floor(peers["dan"], "take", "#x", None)),
    "a stick of others, raised": (NotAMember, lambda room, peers: room.use_floor(peers["dan"], "raise", "#x", None)),
    "a free stick, raised": (NoFloor, lambda room, peers: room.use_floor(peers["dan"], "raise", "#y", None)),
    "a free stick, dropped": (NoFloor, lambda room, peers: room.use_floor(peers["dan"], "drop", "#y", None)),
    "a free stick, cleared": (NoFloor, lambda room, peers: room.clear_floor("#y")),
    "another's stick, passed": (NotHolder, lambda room, peers: room.use_floor(peers["bob"], "pass", "#x", None)),
    "a hand too many": (TooManyHands, lambda room, peers: room.use_floor(peers["cid"], "raise", "#x", None)),
    "a taker too many": (TooManyHands, lambda room, peers: room.use_floor(peers["cid"], "take", "#x", None)),
    "a question too many": (TooManyForms, lambda room, peers: room.ask(peers["dan"], question("#y"))),
    "an answer to nothing": (UnknownForm, lambda room, peers: room.answer("strange", {})),
    "a look at no form": (UnknownForm, lambda room, peers: room.form("strange")),
    "a cancel of nothing": (UnknownForm, lambda room, peers: room.cancel("strange")),
    "an answer that does not fit": (InvalidForm, lambda room, peers: room.answer(room.forms()[0]["id"], {})),
    "an answer to no message": (UnknownMessage, lambda room, peers: room.say(peers["dan"], ALL, "hi", Manner(10**6))),
    "declining one's own question": (
        UnknownQuestion, lambda room, peers: room.say(peers["dan"], ALL, "hi", Manner(room.last_seq, DECLINED)),
    ),
    "asking too much": (
        TooManyQuestions, lambda room, peers: room.say(peers["dan"], ALL, "hi?", Manner(expects_answer=True)),
    ),
    "the operator's answer to nothing": (
        UnknownMessage, lambda room, peers: room.operator_say("", "hi", Manner(10**6)),
    ),
    "a mode that does not exist": (UnknownAction, lambda room, peers: room.set_mode("explode")),
    "a command that does not exist": (UnknownAction, lambda room, peers: room.command("ann", "explode")),
    "a command to nobody": (UnknownPeer, lambda room, peers: room.command("zoe", "reset")),
    "words to nobody": (UnknownPeer, lambda room, peers: room.operator_say("zoe", "hi")),
    "words to no channel": (UnknownChannel, lambda room, peers: room.operator_say("#new", "hi")),
    "kicking nobody": (UnknownPeer, lambda room, peers: room.kick("zoe")),
    "ringing for nobody": (UnknownPeer, lambda room, peers: room.ring("zoe")),
    "ringing where nobody waits": (NobodyWaits, lambda room, peers: room.ring("ann")),
    "prompts of nobody": (UnknownPeer, lambda room, peers: room.set_prompts("zoe", True)),
    "a prompt that nobody takes": (PromptsOff, lambda room, peers: room.ask_permission(peers["dan"], "Bash", "ls")),
    "pausing nobody": (UnknownPeer, lambda room, peers: room.pause_peer("zoe")),
    "resuming nobody": (UnknownPeer, lambda room, peers: room.resume_peer("zoe")),
    "closing no channel": (UnknownChannel, lambda room, peers: room.close_channel("#new")),
}


def assert_refused_without_a_trace(room, kind, act):
    before, count = state_of(room), len(room.events)
    with pytest.raises(kind):
        act()
    assert (state_of(room), room.events[count:]) == (before, [])


@pytest.mark.parametrize(("kind", "act"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_changes_nothing(room, monkeypatch, kind, act):
    peers = busy(room, monkeypatch)
    assert_refused_without_a_trace(room, kind, lambda: act(room, peers))


@pytest.mark.parametrize("act", THROTTLED.values(), ids=THROTTLED.keys())
def test_a_throttled_call_changes_nothing(room, monkeypatch, act):
    dan = busy(room, monkeypatch)["dan"]
    tire(room, dan)
    assert_refused_without_a_trace(room, Throttled, lambda: act(room, dan))


def test_a_throttled_status_changes_nothing(room):
    ann = room.join("ann")
    for _ in range(int(STATUS_BURST)):
        room.set_status(ann, "busy")
    assert_refused_without_a_trace(room, Throttled, lambda: room.set_status(ann, "free"))
    assert_refused_without_a_trace(room, Throttled, lambda: room.set_status(ann, "free", USAGE))
    assert_refused_without_a_trace(room, Throttled, lambda: room.set_usage(ann, USAGE))


@pytest.mark.parametrize("token", ["token-1", None])
def test_a_throttled_registration_changes_nothing(room, token):
    room.join("ann")
    for n in range(int(REGISTER_BURST)):
        room.register("here", *(("ann", "token-1") if token else (f"peer {n}",)))
    assert_refused_without_a_trace(room, Throttled, lambda: room.register("here", "ann", token))


@pytest.mark.parametrize("act", [THROTTLED["say"], THROTTLED["ask"], THROTTLED["floor"]], ids=["say", "ask", "floor"])
def test_a_call_refused_by_a_stop_changes_nothing(room, monkeypatch, act):
    dan = busy(room, monkeypatch)["dan"]
    room.set_mode("stop")
    assert_refused_without_a_trace(room, Stopped, lambda: act(room, dan))


def test_a_contested_name_changes_nothing_but_its_notice(room):
    room.join("ann")
    before, count = state_of(room), len(room.events)
    with pytest.raises(NameInUse):
        room.register("elsewhere", "ann")
    after = state_of(room)
    assert [type(event) for event in room.events[count:]] == [NameContested]
    assert {key for key in after if after[key] != before[key]} == {"log", "serial"}


def test_every_refusal_that_the_room_can_raise_is_tested_above():
    tree = ast.parse(inspect.getsource(caucus))
    core = [
        node
        for node in tree.body
        if getattr(node, "name", None) in ("TokenBucket", "floor_outcome", "Form", "Roster", "Room")
    ]
    raised = [node.exc for part in core for node in ast.walk(part) if isinstance(node, ast.Raise) and node.exc]
    names = {getattr(getattr(exc, "func", exc), "id", None) for exc in raised}
    known = {kind.__name__ for kind, _ in REFUSED.values()} | {"Throttled", "Stopped", "NameInUse"}
    known |= {"JournalUnavailable", "ValueError"}  # a disk's, and a row's: test_journal.py
    known |= {"LaneFull", "MatterClosed", "UnknownLoop"}  # test_holds.py
    known |= {"BudgetSpent", "UnknownBudget"}  # test_budgets.py
    known |= {"Invalid"}  # an end that is sent elsewhere: test_fate.py
    assert names == known


FREE_OF_CHARGE = {name: case for name, case in REFUSED.items() if case[0] is not RoomFull}


@pytest.mark.parametrize(("kind", "act"), FREE_OF_CHARGE.values(), ids=FREE_OF_CHARGE.keys())
def test_a_refusal_costs_no_speech(room, monkeypatch, kind, act):
    peers = busy(room, monkeypatch)
    for _ in range(int(SPEECH_BURST) + 1):
        with pytest.raises(kind):
            act(room, peers)


# --- events ---


def test_every_kind_of_event_can_be_applied(room):
    declared = {one for one in vars(caucus).values() if isinstance(one, type) and issubclass(one, Event)}
    assert set(room._appliers) == declared - {Event, PeerEvent}


def test_no_code_applies_an_event_that_does_not_exist(room):
    methods = {name for name in dir(Room) if name.startswith("_on_")}
    assert methods == {applier.__name__ for applier in room._appliers.values()}


def test_serials_count_events(room, monkeypatch):
    busy(room, monkeypatch)
    serials = [event.serial for event in room.events]
    assert serials == [*range(serials[0], serials[0] + len(serials))]


def test_no_event_carries_a_token(room, monkeypatch):
    busy(room, monkeypatch)
    assert not any(token in repr(event) for event in room.events for token in room.tokens.values())


def test_a_replayed_room_equals_the_live_one(room, clock, monkeypatch):
    peers = busy(room, monkeypatch)
    clock.advance(PEER_TTL_S + 1)
    room.note_listening(peers["bob"], True)
    room.sweep()
    room.set_mode("stop")
    room.set_mode("reset")
    room.kick("cid")
    assert state_of(replayed(room.events)) == state_of(room)


def test_what_is_shown_of_a_replayed_room_is_what_the_live_one_shows(room, monkeypatch):
    busy(room, monkeypatch)
    copy = replayed(room.events)
    assert (copy.channels(), copy.floors(), forms_of(copy)) == (room.channels(), room.floors(), room.forms())


def test_an_event_is_applied_before_it_is_told(clock):
    seen: list[int] = []
    room = caucus.Room(lambda event: seen.append(len(room.roster)), clock, lambda: "token")
    room.register("here", "ann")
    assert seen == [1]


def test_a_peer_is_told_of_as_left_after_its_sticks_passed_on(room, held):
    before = len(room.events)
    room.leave(room.tokens["ann"])
    assert room.kinds(before) == ["FloorPassed", "MessageRouted", "PeerLeft"]


def test_whoever_ended_is_told_with_the_reason(room):
    for name in ("ann", "bob"):
        room.join(name)
    room.leave(room.tokens["ann"])
    room.kick("bob")
    assert [event.why for event in room.events if isinstance(event, PeerLeft)] == ["left", "was kicked by the operator"]


def test_refusals_have_codes_of_their_own():
    codes = [kind.code for kind in Refusal.__subclasses__()]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    "refusal", [Invalid("to", "no"), Stopped(), Throttled(1.234), UnknownToken(), NoFloor("no", scope="#x")]
)
def test_a_refusal_has_a_body_that_json_can_carry(refusal):
    body = json.loads(json.dumps(refusal.body()))
    assert body["error"] == refusal.code
    assert "detail" in body


def test_one_message_of_the_operator_goes_to_several_peers(room):
    ann, bob, cid = (room.join(name) for name in ("ann", "bob", "cid"))
    sent = room.operator_say(("ann", "bob"), "please stop")
    assert (sent.to, sent.message.recipient) == (("ann", "bob"), "ann, bob")
    assert [m.id for m in (*room.fetch(ann), *room.fetch(bob), *room.fetch(cid))] == [sent.message.id] * 2
    assert room.receipt(sent)["who"] == {"ann": "fetched", "bob": "fetched"}
    answer = room.say(ann, "", "it is done", Manner(sent.message.seq))
    assert answer.message.recipient == caucus.OPERATOR
    count = len(room.events)
    with pytest.raises(UnknownPeer):
        room.operator_say(("ann", "nobody"), "and you")
    with pytest.raises(Invalid):
        room.operator_say(("ann", "bob"), "well?", Manner(expects_answer=True))
    assert len(room.events) == count


# --- words to the operator ---


def test_words_to_the_operator_stay_until_he_answers_them(room: RecordingRoom):
    api = room.join("api")
    first = room.say(api, OPERATOR, "may I?")
    room.say(api, OPERATOR, "and this?")
    room.say(api, OPERATOR, "a question", Manner(expects_answer=True))
    room.operator_say(ALL, "good morning")
    assert [appeal.text for appeal in room.appeals.values()] == ["may I?", "and this?"]
    room.operator_say("", "yes", Manner(reply_to=first.message.seq))
    assert [appeal.text for appeal in room.appeals.values()] == ["and this?"]
    assert state_of(replayed(room.events)) == state_of(room)


def test_of_words_to_the_operator_the_newest_of_each_peer_are_kept(room: RecordingRoom):
    room.set_rate(1e6, 1e6)
    room.say(room.join("web"), OPERATOR, "please look")
    api = room.join("api")
    for n in range(APPEALS_OF_ONE_MAX + 3):
        room.say(api, OPERATOR, f"call {n}")
    assert [appeal.text for appeal in room.appeals.values()][:2] == ["please look", "call 3"]
    assert len(room.appeals) == APPEALS_OF_ONE_MAX + 1
