"""What the room does about lanes that go round in circles: hints, slowing, holds, and the operator's rulings."""

from __future__ import annotations

import json
import random

import pytest
from fakes import FakeClock, RecordingRoom, contents, replayed, state_of
from loops import detector

from caucus import (
    CALM,
    CLOSED,
    FREE,
    GO_ON_MAX,
    HELD,
    HELD_MAX,
    HINT,
    HOLD,
    LOOPS_MAX,
    SHARE_WAIT_S,
    SLOW,
    WATCHED,
    Evidence,
    Invalid,
    LaneFull,
    LaneRuled,
    LoopSeen,
    Manner,
    MatterClosed,
    Peer,
    Rate,
    Refusal,
    Share,
    Throttled,
    UnknownAction,
    UnknownLoop,
    Viewer,
    lane_between,
    peer_name_of,
)


class Script:
    """Stands for the detector, and finds what a test wants it to find."""

    def __init__(self) -> None:
        self.level = CALM
        self.refreshed: list[str] = []

    def hear(
        self, lane: str, sender: str, text: str, seq: int, now: float, level: int = CALM, may_go_on: bool = False
    ) -> Evidence | None:
        """Give evidence of the level that the test has set."""
        return Evidence("thanks", self.level, 9, 12, (sender,), max(1, seq - 11), seq, "9 of the last 12 only thank")

    def refresh(self, scope: str) -> None:
        """Note it."""
        self.refreshed.append(scope)
        self.level = CALM


class LoopingRoom(RecordingRoom):
    """A room with a scripted detector, and no limit to how fast one may speak."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.script = Script()
        self.detector = self.script  # type: ignore[assignment]
        self.set_rate(1e6, 1e6)

    def hold(self, peer: Peer, to: str) -> None:
        """Have a peer say something that is held."""
        self.script.level = HOLD
        self.say(peer, to, "thank you!")

    def restored(self) -> RecordingRoom:
        """Give the room that its rows make."""
        room = RecordingRoom(FakeClock())
        room.restore(json.loads(json.dumps([*self.rows()], default=lambda value: value.values())))
        return room


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def room(clock: FakeClock) -> LoopingRoom:
    return LoopingRoom(clock)


LANE = lane_between("ann", "bob")


def test_a_lane_is_the_same_from_both_sides_and_no_name_can_forge_it(room: LoopingRoom) -> None:
    assert lane_between("bob", "ann") == lane_between("ann", "bob") == "ann ↔ bob"
    with pytest.raises(Invalid, match="arrow"):
        peer_name_of({"project": "ann ↔ bob"}, "project")


def test_a_hint_changes_nothing_but_is_told_and_shown(room: LoopingRoom) -> None:
    ann, bob = room.join("ann"), room.join("bob")
    room.script.level = HINT
    sent = room.say(ann, "bob", "thanks")
    assert contents(room.fetch(bob)) == ["thanks"]
    loop = room.loop_of(sent.message)
    assert loop is not None
    assert loop.state == WATCHED
    assert "bring something new" in loop.hint
    assert room.loops_row()["lanes"] == [
        {"lane": LANE, "state": "watched", "ts": loop.ts, "credit": 0, "waiting": 0, "waits_from": 0, "kind": "thanks",
         "level": "hint", "count": 9, "of": 12, "names": ["ann"], "first_seq": 1, "last_seq": 1,
         "words": "9 of the last 12 only thank"}
    ]


def test_the_same_level_again_is_no_event(room: LoopingRoom) -> None:
    ann, _ = room.join("ann"), room.join("bob")
    room.script.level = HINT
    for _ in range(5):
        room.say(ann, "bob", "thanks")
    assert room.kinds().count("LoopSeen") == 1


def test_a_lane_that_says_something_new_is_no_loop_any_more(room: LoopingRoom) -> None:
    ann, _ = room.join("ann"), room.join("bob")
    room.script.level = SLOW
    room.say(ann, "bob", "thanks")
    room.script.level = CALM
    room.say(ann, "bob", "line 12 of parser.py is wrong")
    assert room.loops == {}


def test_in_a_held_lane_what_agents_say_waits_and_other_lanes_go_on(room: LoopingRoom) -> None:
    ann, bob, eve = room.join("ann"), room.join("bob"), room.join("eve")
    room.hold(ann, "bob")
    room.script.level = CALM
    room.say(bob, "ann", "and thank you!")
    room.say(ann, "all", "news for all")
    room.say(eve, "bob", "news for bob")
    assert contents(room.fetch(bob)) == ["news for all", "news for bob"]
    assert room.fetch(ann) == []
    assert room.loops[LANE].state == HELD
    assert len(room.loops[LANE].waiting) == 2


def test_what_waits_for_a_ruling_is_no_news_for_a_poll_or_a_waiter(room: LoopingRoom) -> None:
    ann, bob = room.join("ann"), room.join("bob")
    room.wake_for(bob, "claude")
    room.hold(ann, "bob")
    assert not room.has_deliverable(bob)
    assert room.pointer(bob) is None
    room.rule(LANE, "continue")
    assert room.has_deliverable(bob)
    assert room.pointer(bob) is not None


def test_what_waits_for_a_ruling_is_not_peeked_at_and_counted_apart(room: LoopingRoom) -> None:
    ann, bob = room.join("ann"), room.join("bob")
    room.say(ann, "bob", "line 12 is wrong")
    room.hold(ann, "bob")
    assert room.peek(bob)["pending"] == 1
    assert room.peek(bob)["last"]["preview"] == "line 12 is wrong"  # type: ignore[index, call-overload]
    [(_, row)] = room.peers_seen(["bob"])
    assert (row["waiting"], row["held"]) == (2, 1)
    room.rule(LANE, "continue")
    [(_, row)] = room.peers_seen(["bob"])
    assert (row["waiting"], row["held"]) == (2, 0)


def test_the_operator_is_never_held(room: LoopingRoom) -> None:
    ann, bob = room.join("ann"), room.join("bob")
    room.hold(ann, "bob")
    room.operator_say("bob", "stop thanking")
    room.operator_say("all", "all of you")
    assert contents(room.fetch(bob)) == ["stop thanking", "all of you"]
    assert room.loops[LANE].state == HELD, "a word of the operator is no ruling"


def test_nobody_reads_in_the_history_what_is_held(room: LoopingRoom) -> None:
    ann, bob = room.join("ann", "#x"), room.join("bob", "#x")
    room.hold(ann, "#x")
    (routed,) = [one for one in room.recent.values() if one.message.origin == "agent"]
    assert not Viewer.of(room, bob).may_read(routed)
    assert Viewer.of(room, ann).may_read(routed), "its own words"
    room.rule("#x", "continue")
    assert Viewer.of(room, bob).may_read(routed)


def test_continue_delivers_what_waited_and_lets_twenty_more_through(room: LoopingRoom) -> None:
    ann, bob = room.join("ann"), room.join("bob")
    room.hold(ann, "bob")
    room.rule(LANE, "continue")
    assert contents(room.fetch(bob)) == ["thank you!"]
    for at in range(GO_ON_MAX):
        room.say(ann, "bob", f"{at}")
    assert len(room.fetch(bob)) == GO_ON_MAX
    room.say(ann, "bob", "one more")
    assert room.fetch(bob) == []
    assert room.loops[LANE].state == HELD


def test_a_closed_matter_takes_no_words_of_agents_until_it_is_opened(room: LoopingRoom) -> None:
    ann, bob = room.join("ann"), room.join("bob")
    room.hold(ann, "bob")
    room.rule(LANE, "close")
    said = contents(room.fetch(bob))
    assert said[0] == "thank you!", "nothing is lost"
    assert "closed this matter" in said[1]
    assert "closed this matter" in contents(room.fetch(ann))[0]
    seq = room.last_seq
    with pytest.raises(MatterClosed):
        room.say(bob, "ann", "ok, thank you")
    assert room.last_seq == seq
    room.say(bob, "all", "something else")
    room.rule(LANE, "watch")
    room.script.level = CALM
    room.say(bob, "ann", "now to the tests")
    assert LANE not in room.loops


def test_a_word_of_the_operator_opens_a_closed_channel(room: LoopingRoom) -> None:
    ann, _ = room.join("ann", "#x"), room.join("bob", "#x")
    room.hold(ann, "#x")
    room.rule("#x", "close")
    room.operator_say("#x", "and now: who takes the tests?")
    room.say(ann, "#x", "I do")
    assert "#x" not in room.loops


def test_a_lane_that_may_run_is_shown_but_never_held(room: LoopingRoom) -> None:
    ann, bob = room.join("ann"), room.join("bob")
    room.hold(ann, "bob")
    room.rule(LANE, "run")
    room.script.level = HOLD
    for at in range(50):
        room.say(ann, "bob", f"{at}")
    assert len(room.fetch(bob)) == 51
    assert room.loops[LANE].state == FREE
    assert room.loops[LANE].evidence.level == HINT
    room.rule(LANE, "watch")
    room.hold(ann, "bob")
    assert room.loops[LANE].state == HELD


def test_stop_ends_a_hold_and_loses_nothing(room: LoopingRoom) -> None:
    ann, bob = room.join("ann"), room.join("bob")
    room.hold(ann, "bob")
    room.set_mode("stop")
    assert room.loops == {}
    assert room.held == {}
    room.set_mode("reset")
    assert contents(room.fetch(bob)) == ["thank you!"]


@pytest.mark.parametrize("goes", ["leave", "kick"])
def test_a_hold_ends_with_its_pair(room: LoopingRoom, goes: str) -> None:
    ann, bob = room.join("ann"), room.join("bob")
    room.hold(ann, "bob")
    if goes == "leave":
        room.leave(room.tokens["ann"])
    else:
        room.kick("ann")
    assert room.loops == {}
    assert contents(room.fetch(bob)) == ["thank you!"]


def test_a_hold_ends_with_its_channel(room: LoopingRoom) -> None:
    ann, bob = room.join("ann", "#x"), room.join("bob", "#x")
    room.hold(ann, "#x")
    room.leave_channel(bob, "#x")
    assert room.loops["#x"].state == HELD
    room.leave_channel(ann, "#x")
    assert room.loops == {}
    assert contents(room.fetch(bob)) == ["thank you!"]
    room.join_channel(ann, "#y")
    room.join_channel(bob, "#y")
    room.hold(ann, "#y")
    room.close_channel("#y")
    assert room.loops == {}
    assert contents(room.fetch(bob)) == ["thank you!"]


def test_the_silence_of_the_operator_lets_a_lane_go_once_and_slowly(room: LoopingRoom, clock: FakeClock) -> None:
    room.set_loops("hold", 600.0)
    ann, bob = room.join("ann"), room.join("bob")
    room.hold(ann, "bob")
    clock.advance(599)
    room.peer_of(room.tokens["ann"]), room.peer_of(room.tokens["bob"])
    room.sweep()
    assert room.loops[LANE].state == HELD
    clock.advance(2)
    room.sweep()
    assert contents(room.fetch(bob)) == ["thank you!"]
    assert room.loops[LANE].evidence.level == SLOW
    for _ in range(GO_ON_MAX + 1):
        clock.advance(10)
        room.say(ann, "bob", "thanks")
    assert room.loops[LANE].state == HELD
    clock.advance(1_000)
    room.peer_of(room.tokens["ann"]), room.peer_of(room.tokens["bob"])
    room.sweep()
    assert room.loops[LANE].state == HELD, "once"


def test_an_operator_who_speaks_is_not_silent(room: LoopingRoom, clock: FakeClock) -> None:
    room.set_loops("hold", 600.0)
    ann, _ = room.join("ann"), room.join("bob")
    room.hold(ann, "bob")
    clock.advance(500)
    room.operator_say("all", "I am here")
    clock.advance(200)
    room.sweep()
    assert room.loops[LANE].state == HELD


def test_a_word_of_the_operator_begins_anew(room: LoopingRoom) -> None:
    ann, _ = room.join("ann"), room.join("bob")
    room.script.level = SLOW
    room.say(ann, "bob", "thanks")
    room.operator_say("bob", "look at the tests instead")
    assert room.loops == {}
    assert room.script.refreshed == ["bob"]


def test_a_word_of_the_operator_elsewhere_changes_nothing(room: LoopingRoom) -> None:
    ann, _, _ = room.join("ann"), room.join("bob"), room.join("eve")
    room.script.level = SLOW
    room.say(ann, "bob", "thanks")
    room.operator_say("eve", "hello")
    assert room.loops[LANE].evidence.level == SLOW


def test_of_one_lane_only_so_much_waits(room: LoopingRoom) -> None:
    ann, bob = room.join("ann"), room.join("bob")
    for _ in range(HELD_MAX):
        room.hold(ann, "bob")
    with pytest.raises(LaneFull) as refused:
        room.say(bob, "ann", "more")
    assert refused.value.status != 409, "clients take that for a stopped room"
    room.rule(LANE, "run")
    assert len(room.fetch(bob)) == HELD_MAX


def test_of_very_many_lanes_those_that_are_only_watched_are_forgotten_first(room: LoopingRoom) -> None:
    ann = room.join("ann")
    names = [f"b{at}" for at in range(LOOPS_MAX + 3)]
    for name in names:
        room.join(name)
    room.hold(ann, names[0])
    for name in names[1:]:
        room.script.level = HINT
        room.say(ann, name, "thanks")
    assert len(room.loops) == LOOPS_MAX
    assert room.loops[lane_between("ann", names[0])].state == HELD
    assert lane_between("ann", names[1]) not in room.loops
    assert lane_between("ann", names[-1]) in room.loops


def test_in_a_slowed_lane_all_together_speak_a_quarter_as_fast(room: LoopingRoom, clock: FakeClock) -> None:
    room.set_rate(2.0, 8.0)
    ann, bob = room.join("ann"), room.join("bob")
    room.script.level = SLOW
    room.say(ann, "bob", "thanks")
    said = 0
    for _ in range(400):
        clock.advance(0.1)
        for peer, to in ((ann, "bob"), (bob, "ann")):
            try:
                room.say(peer, to, "thanks")
                said += 1
            except Throttled:
                pass
    assert 18 <= said <= 24, "40 s at 0.5 a second, and a burst of 2"
    room.say(ann, "all", "elsewhere it is as fast as ever")


def test_who_was_refused_goes_before_who_has_spoken(clock: FakeClock) -> None:
    share = Share(Rate(1.0, 1.0), clock.mono())
    share.check("ann", clock.mono())
    share.spend("ann", clock.mono())
    for name in ("bob", "ann"):
        with pytest.raises(Throttled):
            share.check(name, clock.mono())
    clock.advance(1.0)
    with pytest.raises(Throttled):
        share.check("ann", clock.mono())
    share.check("bob", clock.mono())
    share.spend("bob", clock.mono())
    clock.advance(1.0)
    share.check("ann", clock.mono())


def test_who_was_refused_and_went_away_keeps_nobody_waiting(clock: FakeClock) -> None:
    share = Share(Rate(1.0, 1.0), clock.mono())
    share.spend("ann", clock.mono())
    with pytest.raises(Throttled):
        share.check("bob", clock.mono())
    clock.advance(SHARE_WAIT_S + 1)
    share.check("ann", clock.mono())


def test_the_hub_goes_as_far_as_it_is_set(room: LoopingRoom) -> None:
    ann, bob = room.join("ann"), room.join("bob")
    room.set_loops("hint", 0.0)
    room.script.level = HOLD
    room.say(ann, "bob", "thanks")
    assert room.loops[LANE].evidence.level == HINT
    assert contents(room.fetch(bob)) == ["thanks"]
    room.set_loops("off", 0.0)
    assert room.loops == {}
    room.say(ann, "bob", "thanks")
    assert room.loops == {}


def test_a_held_lane_is_let_go_when_the_hub_is_to_hold_none(room: LoopingRoom) -> None:
    ann, bob = room.join("ann"), room.join("bob")
    room.hold(ann, "bob")
    room.set_loops("slow", 0.0)
    assert room.loops == {}
    assert contents(room.fetch(bob)) == ["thank you!"]


def test_what_is_no_ruling_is_refused_and_changes_nothing(room: LoopingRoom) -> None:
    ann, _ = room.join("ann"), room.join("bob")
    with pytest.raises(UnknownLoop):
        room.rule(LANE, "continue")
    room.hold(ann, "bob")
    before = len(room.events)
    for ruling in ("silence", "over", "maybe", ""):
        with pytest.raises(UnknownAction):
            room.rule(LANE, ruling)
    with pytest.raises(UnknownLoop):
        room.rule(LANE, "watch")
    with pytest.raises(UnknownAction):
        room.set_loops("loud", 0.0)
    assert len(room.events) == before


def test_what_is_held_is_not_overdue(room: LoopingRoom, clock: FakeClock) -> None:
    ann, _ = room.join("ann"), room.join("bob")
    room.hold(ann, "bob")
    for _ in range(30):
        clock.advance(10)
        room.peer_of(room.tokens["ann"]), room.peer_of(room.tokens["bob"])
        room.sweep()
    assert "Overdue" not in room.kinds()


def test_the_same_client_id_again_is_not_said_again_in_a_held_lane(room: LoopingRoom) -> None:
    ann, _ = room.join("ann"), room.join("bob")
    room.script.level = HOLD
    manner = Manner(client_id="once")
    first = room.say(ann, "bob", "thanks", manner)
    assert room.say(ann, "bob", "thanks", manner).message.seq == first.message.seq
    room.rule(LANE, "close")
    assert room.say(ann, "bob", "thanks", manner).message.seq == first.message.seq


def test_a_replayed_and_a_restored_room_hold_the_same(room: LoopingRoom) -> None:
    ann, bob = room.join("ann", "#x"), room.join("bob", "#x")
    room.hold(ann, "bob")
    room.hold(bob, "#x")
    room.rule("#x", "continue")
    room.hold(bob, "#x")
    room.set_loops("hold", 60.0)
    again, restored = replayed(room.events), room.restored()
    assert state_of(again) == state_of(room) == state_of(restored)
    assert restored.held == room.held
    assert restored.loops_row() == room.loops_row()


def test_events_of_loops_come_through_their_rows(room: LoopingRoom) -> None:
    ann, _ = room.join("ann"), room.join("bob")
    room.hold(ann, "bob")
    room.rule(LANE, "continue")
    kinds = {LoopSeen, LaneRuled}
    seen = [event for event in room.events if type(event) in kinds]
    assert len(seen) == 2
    for event in seen:
        assert type(event).from_row(event.to_row()) == event
        assert event.notice is not None


def test_notices_of_loops_name_the_lane_and_why(room: LoopingRoom) -> None:
    ann, _ = room.join("ann"), room.join("bob")
    room.hold(ann, "bob")
    room.rule(LANE, "close")
    told = [message.content for message in room.log if message.origin == "hub"][-2:]
    assert told == [
        "thanks in ann ↔ bob, held for the operator: 9 of the last 12 only thank",
        "ann ↔ bob is closed by the operator",
    ]
    assert room.loops[LANE].state == CLOSED


class Tale:
    """Random operations on a room whose lanes are held and ruled on, and what each peer has been handed."""

    NAMES, SCOPES = ("ann", "bob", "eve"), ("all", "#x", "ann", "bob", "eve")

    def __init__(self, seed: int) -> None:
        self.chance, self.clock = random.Random(seed), FakeClock()
        self.room = LoopingRoom(self.clock)
        self.due: dict[int, list[int]] = {}  # by the serial of who is to get them: seqs
        self.got: dict[int, list[int]] = {}
        for name in self.NAMES:
            self.room.join(name, "#x")

    def peer(self) -> Peer | None:
        """Choose a peer that is here."""
        return self.room.roster.get(self.chance.choice(self.NAMES))

    def note(self, seq: int) -> None:
        """Note who is to get what was said."""
        for name in self.room.recent[seq].to:
            self.due.setdefault(self.room.roster.by_name[name].serial, []).append(seq)

    def say(self) -> None:
        if (peer := self.peer()) is not None:
            self.room.script.level = self.chance.choice((CALM, HINT, SLOW, HOLD, HOLD))
            self.note(self.room.say(peer, self.chance.choice(self.SCOPES), "thank you").message.seq)

    def fetch(self) -> None:
        if (peer := self.peer()) is not None:
            held, batch = {*self.room.held}, self.room.fetch(peer)
            assert held.isdisjoint(m.seq for m in batch), "what is held went out"
            assert self.room.mode == "running" or all(m.origin == "operator" for m in batch)
            self.got.setdefault(peer.serial, []).extend(m.seq for m in batch)
            if batch and self.chance.random() < 0.7:
                self.room.acknowledge(peer, batch[-1].seq)
            elif batch:
                self.room.unfetch(peer)
                self.got[peer.serial] = self.got[peer.serial][: -len(batch)]

    def operator(self) -> None:
        to = self.chance.choice(self.SCOPES)
        seq = self.room.operator_say(to, "a word").message.seq
        self.note(seq)
        assert seq not in self.room.held
        for name in self.room.recent[seq].to:
            peer = self.room.roster.by_name[name]
            assert self.room.mode == "stopped" or self.room.has_deliverable(peer), "the operator is held"

    def rule(self) -> None:
        lanes = [*self.room.loops] or ["#x"]
        self.room.rule(self.chance.choice(lanes), self.chance.choice(("continue", "close", "run", "watch")))

    def mode(self) -> None:
        self.room.set_mode(self.chance.choice(("pause", "resume", "stop", "reset")))

    def settings(self) -> None:
        self.room.set_loops(self.chance.choice(("off", "hint", "slow", "hold", "hold", "hold")), 0.0)

    def come_and_go(self) -> None:
        name = self.chance.choice(self.NAMES)
        if self.room.roster.get(name) is not None:
            self.room.kick(name)
        self.room.join(name, *self.chance.choice(((), ("#x",))))

    def membership(self) -> None:
        if (peer := self.peer()) is not None:
            self.chance.choice((self.room.join_channel, self.room.leave_channel))(peer, "#x")

    def step(self) -> None:
        acts = (self.say,) * 8 + (self.fetch,) * 4 + (self.rule,) * 3 + (self.operator, self.mode, self.settings,
                                                                        self.come_and_go, self.membership)
        self.clock.advance(self.chance.choice((0.0, 0.1, 30.0)))
        seq = self.room.last_seq
        try:
            self.chance.choice(acts)()
        except Refusal:
            assert self.room.last_seq == seq, "a refusal said something"
        told = {one for routed in self.due.values() for one in routed}
        for late in range(seq + 1, self.room.last_seq + 1):  # what the room itself has said meanwhile
            if late not in told:
                self.note(late)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_held_and_ruled_nothing_is_lost_and_every_hold_ends(seed: int) -> None:
    tale = Tale(seed)
    for _ in range(250):
        tale.step()
        room = tale.room
        waiting = [seq for loop in room.loops.values() for seq in loop.waiting]
        assert sorted(waiting) == sorted(room.held), "each that is held waits in one lane"
        assert all(loop.state == HELD for loop in room.loops.values() if loop.waiting)
    assert state_of(replayed(room.events)) == state_of(room) == state_of(room.restored())
    room.set_mode("reset")
    room.set_mode("resume")
    for loop in [*room.loops.values()]:
        if loop.state == HELD:
            room.rule(loop.lane, tale.chance.choice(("continue", "close", "run")))
    for peer in room.roster:
        while batch := room.fetch(peer):
            tale.got.setdefault(peer.serial, []).extend(m.seq for m in batch)
        due = set(tale.due.get(peer.serial, []))
        assert due <= {*tale.got.get(peer.serial, [])}, "lost"
        assert len(tale.got.get(peer.serial, [])) == len({*tale.got.get(peer.serial, [])}), "twice"


def test_who_waits_as_it_is_told_is_not_passed_by_who_hammers(clock: FakeClock) -> None:
    share, said, due = Share(Rate(2.0, 0.5), clock.mono()), dict.fromkeys("abcdefg", 0), dict.fromkeys("abcdefg", 0.0)
    for _ in range(600):  # a minute; a tries each 0.1 s, all others when they are told to
        for name in said:
            if name == "a" or clock.mono() >= due[name]:
                try:
                    share.check(name, clock.mono())
                    share.spend(name, clock.mono())
                    said[name] += 1
                except Throttled as refusal:
                    due[name] = clock.mono() + refusal.retry_s
        clock.advance(0.1)
    assert max(said.values()) - min(said.values()) <= 2, said


def test_what_nobody_hears_is_no_loop_and_a_name_that_is_reborn_begins_anew(clock: FakeClock) -> None:
    room = RecordingRoom(clock)
    room.detector = detector()
    room.set_rate(1e6, 1e6)
    ann, _ = room.join("ann"), room.join("cat")
    for _ in range(20):
        clock.advance(1)
        room.say(ann, "ghost", "Thank you!")
    assert room.loops == {}
    for _ in range(12):
        clock.advance(1)
        room.say(ann, "cat", "Thank you!")
    assert room.loops["ann ↔ cat"].state == HELD
    room.leave(room.tokens["cat"])
    room.join("cat")
    room.say(ann, "cat", "Thank you!")
    assert room.loops == {}
