"""Whatever happens, in any order: the promises of caucus.py's head hold, checked against a little model.

The model knows the rules in its own words: plain names, sets and lists, no events applied and no code of the room
used. It learns from what the public methods answered, and from the messages that the room says it routed, whose
audience it works out for itself. A second room lives on the events alone.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from unittest import mock

import hypothesis.strategies as st
import pytest
from fakes import FakeClock, question, state_of
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import caucus
from caucus import (
    ACKNOWLEDGED,
    ALL,
    ANSWERED,
    FETCHED,
    GRACE_S,
    LOST,
    OPERATOR,
    PEER_TTL_S,
    QUEUED,
    ROOM,
    SPENT,
    BudgetReached,
    BudgetSpent,
    BudgetsSet,
    Event,
    Field,
    FloorHeld,
    Invalid,
    InvalidForm,
    MailboxOverflowed,
    Manner,
    MessageRouted,
    ModeChanged,
    NameContested,
    NameInUse,
    NoFloor,
    NotAMember,
    NotHolder,
    Peer,
    PeerJoined,
    PeerLeft,
    PromptsOff,
    QuietReached,
    Refusal,
    Room,
    RoomFull,
    RoomReopened,
    Stopped,
    Throttled,
    TooManyChannels,
    TooManyForms,
    TooManyHands,
    TooManyQuestions,
    UnknownBudget,
    UnknownChannel,
    UnknownForm,
    UnknownMessage,
    UnknownPeer,
    UnknownQuestion,
    UnknownToken,
    Usage,
    budgets_of,
    encode_plain,
)

# Small, so that every cap is reached within a short story.
CAPS = {
    "MAILBOX_MAX": 6,
    "BATCH_MAX_BYTES": 500,  # two or three messages
    "IDENTITIES_MAX": 4,
    "CHANNELS_PER_PEER_MAX": 2,
    "HANDS_MAX": 2,
    "FORMS_MAX": 2,
    "LOG_MAX": 30,
    "RECENT_MAX": 25,
    "RECENT_NAMES_MAX": 40,
    "GONE_MAX": 2,
    "SENT_MAX": 4,
    "HELD_MAX": 3,
    "SPENDERS_GONE_MAX": 1,
    "ASKED_MAX": 2,
    "QUESTIONS_MAX": 3,
}
NAMES = ("ann", "ann", "bob", "bob", "cid", "cid", "dan", "eve")
CHANNELS = ("#x", "#x", "#y", "#z")
LANES = (ALL, *CHANNELS)
SCOPES = (ALL, ALL, *CHANNELS, "ann", "bob", "cid", "zoe")
SPANS_S = (0.3, 0.3, 2.0, 2.0, 2.0, 2.0, 2.0, 20.0, PEER_TTL_S - 1, PEER_TTL_S + 1, GRACE_S)
EITHER = (True, False)
BUDGETS = (
    "",
    "*: 3 messages",
    "*: 3 messages",
    "ann: 2 messages/h; *: 20 characters, $1",
    "room: 5 messages, 400 tokens/h",
    "room: 8 messages/h; bob: 1 wake, 50 tokens; *: 4 messages/h",
    "room: 8 messages/h; bob: 1 wake, 50 tokens; *: 4 messages/h",
)
CHOICE = Field("go", "Go?", "radio", ("yes", "no"), True, False)

OPERATIONS: list[tuple[int, str, dict[str, Sequence[Any]]]] = []  # weight in a long story, method, its arguments' pools


def operation(weight: int = 1, **pools: Sequence[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a method one step of a story, with arguments out of `pools`."""

    def declare(method: Callable[..., None]) -> Callable[..., None]:
        OPERATIONS.append((weight, method.__name__, pools))
        return rule(**{key: st.sampled_from(pool) for key, pool in pools.items()})(method)

    return declare


class ModelPeer:
    """One identity, as far as the promises speak of it."""

    def __init__(self, token: str, now: float) -> None:
        self.token = token
        self.channels: set[str] = set()
        self.is_paused = False
        self.is_listening = False
        self.last_seen = now
        self.reaped_at: float | None = None
        self.chat: list[int] = []  # seqs that wait, agents' and the hub's
        self.urgent: list[int] = []  # seqs that wait, the operator's
        self.fetched: list[int] = []  # seqs, ascending
        self.returned: set[int] = set()  # seqs that wait again
        self.late: set[int] = set()  # seqs that were handed out after a higher one
        self.handed_out = 0  # the highest seq
        self.acknowledged = 0  # the highest seq, as far as it was handed out
        self.heard: set[int] = set()  # seqs that it said, or that it was ever handed

    def held(self) -> int:
        return len(self.chat) + len(self.urgent) + len(self.fetched)

    def is_forgotten(self, now: float) -> bool:
        return self.reaped_at is not None and now - self.reaped_at > GRACE_S

    def overflow(self, back: set[int]) -> int:
        """Lose the oldest: what was handed out, then chatter, then what of it is held, then the operator's."""
        queue = next(queue for queue in (self.fetched, self.chat, self.urgent) if queue)
        free = [seq for seq in queue if seq not in back] if queue is self.chat else []
        queue.remove(lost := (free or queue)[0])
        return lost


class Story(RuleBasedStateMachine):
    """Random operations on a room, on its model, and on a room that only hears the events."""

    def __init__(self) -> None:
        super().__init__()
        self.caps = mock.patch.multiple(caucus, **CAPS)
        self.caps.start()
        self.clock = FakeClock()
        self.tokens_issued = 0
        self.events: list[Event] = []
        self.seen = 0  # events that the model has taken in
        self.room = Room(self.events.append, self.clock, self.new_token)
        self.echo = Room(lambda event: None, FakeClock(), lambda: "unused")  # its clock stands still
        self.serial: int = state_of(self.room)["serial"]  # type: ignore[assignment]
        self.room.loops_upto = self.echo.loops_upto = "off"  # all say the same
        self.peers: dict[str, ModelPeer] = {}
        self.spent: set[tuple[str, str]] = set()  # who has spent what, as the events tell it
        self.gone: list[str] = []  # of whom budgets know still
        self.waits: dict[str, list[int]] = {}  # seqs of what was said by whom meanwhile
        self.floors: dict[str, list[str]] = {}  # the holder first, then the hands
        self.topics: dict[str, str | None] = {}
        self.forms: dict[str, tuple[str, str]] = {}  # asker, audience
        self.mode = "running"
        self.seq = 0
        self.mode_told = "running"  # as the events tell it
        self.operator_seqs: set[int] = set()
        self.command_seqs: set[int] = set()
        self.acting: set[str] = set()  # who is about to go, and need not hear of it
        self.fates: dict[tuple[int, str], str] = {}  # of recent messages, by seq and recipient

    def teardown(self) -> None:
        self.caps.stop()

    def new_token(self) -> str:
        self.tokens_issued += 1
        return f"secret-{self.tokens_issued}"

    # --- the two ways to call the room ---

    def attempt(self, act: Callable[[], Any], *expected: tuple[type[Refusal], bool]) -> Any:
        """Call the room. It refuses for one of the reasons that hold in the model, or it does not refuse.

        None: refused; then nothing changed. `expected`: refusals, each with whether the model knows a reason for it.
        """
        before, count = state_of(self.room), len(self.events)
        reasons = [kind for kind, holds in expected if holds]
        refusal, result = None, None
        try:
            result = act()
        except Refusal as no:
            refusal = no
        if refusal is None:
            assert not reasons, f"not refused, in spite of {reasons}"
            return True if result is None else result
        told = [type(event) for event in self.events[count:]]
        if isinstance(refusal, NameInUse) and told == [NameContested]:
            before |= {key: state_of(self.room)[key] for key in ("serial", "log")}
        else:
            assert told == []
        assert state_of(self.room) == before, "a refusal changed the room"
        assert isinstance(refusal, Throttled) or type(refusal) in reasons, f"no reason for {refusal!r}"
        return None

    def caller(self, name: str) -> Peer | None:
        """Find `name` by its token, as every call of an agent begins; it is revived."""
        known, now = self.peers.get(name), self.clock.mono()
        token = known.token if known else "secret-of-nobody"
        is_dead = known is None or known.is_forgotten(now)
        peer = self.attempt(lambda: self.room.peer_of(token), (UnknownToken, is_dead))
        if peer is not None and known is not None:
            known.last_seen, known.reaped_at = now, None
            self.listen()
        return peer

    # --- the model's rules ---

    def audience(self, scope: str, but: str = "") -> set[str]:
        if scope == ALL:
            return set(self.peers) - {but}
        if scope.startswith("#"):
            return {name for name, peer in self.peers.items() if scope in peer.channels} - {but}
        return {scope} & set(self.peers)

    def quit_floors(self, name: str, scopes: Iterable[str]) -> None:
        for scope in scopes:
            line = self.floors.get(scope, [])
            if name in line:
                line.remove(name)
            if not line:
                self.floors.pop(scope, None)

    def end(self, name: str) -> None:
        self.acting.add(name)
        self.listen()
        self.quit_floors(name, [*self.floors])
        self.withdraw(name)
        del self.peers[name]

    def withdraw(self, asker: str) -> None:
        self.forms = {form_id: asked for form_id, asked in self.forms.items() if asked[0] != asker}

    def is_held(self, name: str) -> bool:
        return self.peers[name].is_paused or self.mode != "running" or self.has_spent(name)

    @property
    def back(self) -> set[int]:
        """What waits because its speaker is held."""
        return {seq for seqs in self.waits.values() for seq in seqs}

    def has_spent(self, *spenders: str) -> bool:
        return any(spender in spenders for spender, _ in self.spent)

    def is_refused(self, name: str) -> bool:
        """Whether as much waits of one that is held as may."""
        return self.has_spent(name, ROOM) and len(self.waits.get(name, ())) >= CAPS["HELD_MAX"]

    def hear_of_budgets(self, event: Event) -> None:
        """Take in who is held from here on, and let go what waits for nobody any more."""
        if isinstance(event, BudgetReached):
            (self.spent.add if event.level == SPENT else self.spent.discard)((event.spender, event.measure))
        elif isinstance(event, BudgetsSet):
            known = self.room.budgets.accounts
            self.spent = {(one, what) for one in known for what, a in known[one].items() if a.level == SPENT}
        elif isinstance(event, PeerLeft):  # what is kept of who is gone for long goes
            keeps = event.name in self.room.budgets.accounts or event.name in self.waits
            self.gone = [name for name in self.gone if name != event.name] + [event.name] * keeps
            for name in self.gone[: -CAPS["SPENDERS_GONE_MAX"]]:
                self.waits.pop(name, None)
                self.spent = {(one, what) for one, what in self.spent if one != name}
            self.gone = self.gone[-CAPS["SPENDERS_GONE_MAX"] :]
        elif isinstance(event, PeerJoined):
            self.gone = [name for name in self.gone if name != event.name]
        if not self.has_spent(ROOM):
            self.waits = {name: seqs for name, seqs in self.waits.items() if self.has_spent(name)}

    def listen(self, sent: MessageRouted | None = None) -> None:
        """Take in the events since the last time: mailboxes fill and overflow. Membership is that of the model now."""
        for event in self.events[self.seen :]:
            if isinstance(event, MailboxOverflowed):
                assert self.peers[event.name].held() == CAPS["MAILBOX_MAX"], "lost without need"
                assert self.peers[event.name].overflow(self.back) == event.lost_seq, "lost another than the oldest"
            elif isinstance(event, MessageRouted):
                self.check_routed(event)
            elif isinstance(event, ModeChanged):
                self.mode_told = event.mode
                self.mode = event.mode if event.wanted else self.mode
            self.hear_of_budgets(event)
        self.seen = len(self.events)
        self.acting.clear()

    def check_routed(self, event: MessageRouted) -> None:
        message, to = event.message, set(event.to)
        assert len(to) == len(event.to), "twice in one mailbox"
        assert to.issuperset(event.handed)
        self.seq += 1
        assert message.seq == self.seq, "seq repeats, skips or goes back"
        assert self.mode_told != "stopped" or message.origin == "operator", "spoken in a stopped room"
        if message.origin == "hub":
            members = self.audience(message.recipient)
            assert members - self.acting <= to <= members, "an announcement to others than its scope"
        elif message.kind == "answer" and json.loads(str(message.meta))["to"] == OPERATOR:
            assert not to, "the answer to a permission prompt is its host's alone"
        else:
            is_to_many = message.recipient == ALL or message.recipient.startswith("#")
            assert to == self.audience(message.recipient, message.sender if is_to_many else "")
        if message.origin == "operator":
            self.operator_seqs.add(message.seq)
        if message.kind == "control":
            self.command_seqs.add(message.seq)
        if message.origin == "agent" and self.has_spent(message.sender, ROOM):
            self.waits.setdefault(message.sender, []).append(message.seq)
        for name in to:
            peer = self.peers[name]
            is_let = self.mode_told == "running" and not peer.is_paused and not self.has_spent(name, message.sender)
            is_free = message.origin == "operator" or is_let
            is_waited_for = peer.is_listening and not peer.chat + peer.urgent and message.kind != "control"
            is_handed = is_free and is_waited_for and self.mode_told != "stopped"
            assert (name in event.handed) == is_handed, "handed to one who does not wait for it, or not to one who does"
            if is_handed:
                peer.heard.add(message.seq)
                peer.fetched.append(message.seq)
                peer.handed_out = message.seq
            else:
                (peer.urgent if message.origin == "operator" else peer.chat).append(message.seq)
            assert peer.held() <= CAPS["MAILBOX_MAX"], "a mailbox over its cap"

    # --- identity ---

    @initialize()
    def some_sit_down(self) -> None:
        self.room.set_quiet_stop(4)  # minutes: spans of time are shorter and longer than that
        for name in ("ann", "bob", "cid"):
            self.register(name, False)
            self.join_channel(name, "#x")

    @operation(12, name=NAMES, shows_token=EITHER)
    def register(self, name: str, shows_token: bool) -> None:
        now, known = self.clock.mono(), self.peers.get(name)
        is_over = known is not None and known.is_forgotten(now)
        token = known.token if known is not None and shows_token else None
        is_taken = known is not None and not is_over and token is None
        is_full = known is None and len(self.peers) >= CAPS["IDENTITIES_MAX"]
        answer = self.attempt(
            lambda: self.room.register(f"host of {name}", name, token),
            (NameInUse, is_taken),
            (RoomFull, is_full),
        )
        if answer is None:
            self.listen()
            return
        peer, given = answer
        assert peer.name == name
        if known is not None and not is_over:
            assert given == known.token
            known.last_seen, known.reaped_at = now, None
        else:
            assert known is None or given != known.token
            if is_over:
                self.end(name)
            self.peers[name] = ModelPeer(given, now)

    @operation(name=NAMES)
    def leave(self, name: str) -> None:
        known = self.peers.get(name)
        token = known.token if known else "secret-of-nobody"
        is_dead = known is None or known.is_forgotten(self.clock.mono())
        if self.attempt(lambda: self.room.leave(token), (UnknownToken, is_dead)):
            self.end(name)

    @operation(name=NAMES)
    def kick(self, name: str) -> None:
        if self.attempt(lambda: self.room.kick(name), (UnknownPeer, name not in self.peers)):
            self.end(name)

    @operation(
        4, seconds=(0.3, 0.3, 2.0, 2.0, 2.0, 2.0, 2.0, 20.0, PEER_TTL_S - 1, PEER_TTL_S + 1, GRACE_S), sweeps=EITHER
    )
    def time_passes(self, seconds: float, sweeps: bool) -> None:
        self.clock.advance(seconds)
        if sweeps:
            self.sweep()

    def sweep(self) -> None:
        now = self.clock.mono()
        idle = [n for n, p in self.peers.items() if p.reaped_at is None and not p.is_listening]
        idle = [n for n in idle if now - self.peers[n].last_seen > PEER_TTL_S]
        over = [n for n, p in self.peers.items() if p.is_forgotten(now)]
        self.room.sweep()
        self.listen_to_a_sweep(over, idle)
        for name in idle:
            self.quit_floors(name, [*self.floors])
            self.peers[name].reaped_at = now

    def listen_to_a_sweep(self, over: list[str], idle: list[str]) -> None:
        """Take in a sweep, in which some end between the announcements of others' sticks."""
        news, self.seen = self.events[self.seen :], len(self.events)
        for event in news:
            if type(event).__name__ == "PeerLeft":
                assert event.name in over, "forgotten too early"
                self.peers.pop(event.name)
                self.withdraw(event.name)
            elif type(event).__name__ == "PeerReaped":
                assert event.name in idle, "reaped too early"
                known = self.peers[event.name]
                known.urgent = [seq for seq in known.urgent if seq not in self.command_seqs]
            elif isinstance(event, QuietReached):
                assert self.mode == "running"
                assert not self.forms, "stopped while it waits for the operator"
                assert set(self.peers) - set(idle), "stopped an empty room"
                self.mode = "stopped"
                self.floors.clear()
            elif isinstance(event, MailboxOverflowed):
                assert self.peers[event.name].overflow(self.back) == event.lost_seq
            elif isinstance(event, MessageRouted):
                self.acting = set(idle)
                self.check_routed(event)
            elif isinstance(event, ModeChanged):
                self.mode = self.mode_told = event.mode
            self.hear_of_budgets(event)
        self.acting.clear()
        assert not set(over) & set(self.peers), "remembered too long"
        assert sum(type(event).__name__ == "PeerReaped" for event in news) == len(idle), "not reaped"

    @operation(name=NAMES, is_listening=EITHER)
    def note_listening(self, name: str, is_listening: bool) -> None:
        peer = self.caller(name)
        if peer is not None:
            self.room.note_listening(peer, is_listening)
            self.peers[name].is_listening = is_listening
            self.peers[name].last_seen = self.clock.mono()

    @operation(name=NAMES, status=(None, "busy", "idle"))
    def set_status(self, name: str, status: str | None) -> None:
        peer = self.caller(name)
        if peer is not None and self.attempt(lambda: self.room.set_status(peer, status)):
            assert self.room.presence(name)["status"] == status

    @operation(name=NAMES, turns=(1, 2), tokens=(0, 5, 100, 100, 350), cost=(None, 0.5))
    def set_usage(self, name: str, turns: int, tokens: int, cost: float | None) -> None:
        peer, usage = self.caller(name), Usage("m", turns, tokens, 0, cost)
        if peer is not None and self.attempt(lambda: self.room.set_usage(peer, usage)):
            assert self.room.presence(name)["usage"] == usage.to_json()

    # --- speech ---

    def channel_fault(self, name: str, scope: str) -> tuple[type[Refusal], bool]:
        channels = self.peers[name].channels
        is_new = scope.startswith("#") and scope not in channels
        return TooManyChannels, is_new and len(channels) >= CAPS["CHANNELS_PER_PEER_MAX"]

    def join(self, name: str, scope: str) -> None:
        if scope.startswith("#"):
            self.peers[name].channels.add(scope)

    @operation(16, name=NAMES, to=SCOPES)
    def say(self, name: str, to: str) -> None:
        peer = self.caller(name)
        if peer is None:
            return
        line = self.floors.get(to)
        is_stopped, is_bound = self.mode == "stopped", line is not None and line[0] != name
        kind, is_full = self.channel_fault(name, to)
        sent = self.attempt(
            lambda: self.room.say(peer, to, "words"),
            (Stopped, is_stopped),
            (FloorHeld, is_bound and not is_stopped),
            (BudgetSpent, self.is_refused(name) and not is_stopped and not is_bound),
            (kind, is_full and not is_stopped and not is_bound and not self.is_refused(name)),
        )
        if sent is not None:
            self.join(name, to)
            overflowed = {e.name for e in self.events[self.seen :] if isinstance(e, MailboxOverflowed)}
            assert set(sent.overflowed) == overflowed, "an overflow that the sender does not see"
            assert sent.missed == ((to,) if to not in self.peers and to != ALL and to[0] != "#" else ())
            self.listen()

    @operation(10, name=NAMES, to=SCOPES, back=(0, 0, 1, 1, 2, 4, 8, 30), how=(*Manner.KEYS, "reply_to", "asks"))
    def say_in_a_thread(self, name: str, to: str, back: int, how: str) -> None:
        """Answer, decline or settle what was said a moment ago, or ask."""
        peer = self.caller(name)
        if peer is None or self.mode == "stopped" or self.channel_fault(name, to)[1] or self.is_refused(name):
            return
        if (line := self.floors.get(to)) is not None and line[0] != name:
            return
        seq, asks = max(1, self.seq - back), how == "asks"
        manner = Manner(0 if asks else seq, Manner.KEYS.get(how, ""), asks)
        recent, owed = self.room.recent.get(seq), self.room.owed.get(seq)
        is_deaf = not asks and (recent is None or not (recent.message.sender == name or seq in self.peers[name].heard))
        was_here = recent is None or recent.serial > peer.serial
        is_mine = owed is not None and (owed.asker == name if how == "settles" else owed.is_owed_by(peer))
        ends = {} if owed is None else {"declines": owed.asker, "settles": owed.to}  # where such an end goes by itself
        asked = [one.asker for one in self.room.owed.values()]
        is_much = asked.count(name) >= CAPS["ASKED_MAX"] or len(asked) >= CAPS["QUESTIONS_MAX"]
        sent = self.attempt(
            lambda: self.room.say(peer, to, "words", manner),
            (UnknownMessage, is_deaf or (not asks and not was_here)),
            (UnknownQuestion, not asks and how != "reply_to" and not is_mine and not is_deaf and was_here),
            (TooManyQuestions, asks and is_much),
            (Invalid, how in ends and to != ends[how]),
        )
        if sent is not None:
            self.join(name, to)
            assert (sent.message.reply_to, sent.message.outcome) == (0 if asks else seq, manner.outcome)
            if how in ("declines", "settles") and owed is not None and (how == "settles" or owed.owing is not None):
                assert seq not in self.room.owed
            self.listen()

    @operation(2, name=NAMES, client_id=("one", "two", "six"))
    def say_perhaps_again(self, name: str, client_id: str) -> None:
        """The same client_id is the same message, for as long as it is remembered."""
        peer = self.caller(name)
        if peer is None or self.mode == "stopped" or self.floors.get(ALL, [name])[0] != name or self.is_refused(name):
            return
        known, before = self.room.said_before(peer.token_hash, Manner(client_id=client_id)), self.seq
        sent = self.attempt(lambda: self.room.say(peer, ALL, "words", Manner(client_id=client_id)))
        if sent is not None:
            self.listen()
            assert (sent.message.seq == self.seq == before + 1) if known is None else (sent == known)

    @operation(4, name=NAMES)
    def call(self, name: str) -> None:
        """The agent itself calls: what its process had acknowledged, it has taken in."""
        peer = self.caller(name)
        if peer is not None:
            self.room.note_call(peer)
            assert peer.mailbox.is_proven

    @operation(12, name=NAMES)
    def fetch(self, name: str) -> None:
        peer = self.caller(name)
        if peer is None:
            return
        mine, expected = self.peers[name], []
        if self.mode != "stopped":
            free = [seq for seq in mine.chat if seq not in self.back]
            expected = sorted(mine.urgent if self.is_held(name) else mine.urgent + free)
        assert self.room.has_deliverable(peer) is (self.mode == "stopped" or bool(expected))
        got = [message.seq for message in self.room.fetch(peer)]
        assert got == expected[: len(got)], "not what waits, in order"
        assert bool(got) == bool(expected), "nothing, though something waits"
        assert not self.is_held(name) or set(got) <= self.operator_seqs, "delivered through a pause"
        mine.chat = [seq for seq in mine.chat if seq not in got]
        mine.urgent = [seq for seq in mine.urgent if seq not in got]
        mine.fetched = sorted(mine.fetched + [seq for seq in got if seq not in self.command_seqs])
        mine.late |= {seq for seq in got if seq < mine.handed_out}
        mine.handed_out = max(mine.handed_out, *got, 0)
        mine.returned = {seq for seq in mine.returned if seq > max(got, default=0)}
        mine.heard |= set(got)

    @operation(6, name=NAMES, ahead=(0, 0, 0, 1, -1, -2, -4, 10**9))
    def acknowledge(self, name: str, ahead: int) -> None:
        peer = self.caller(name)
        if peer is not None:
            mine, seq = self.peers[name], self.seq + ahead
            self.room.acknowledge(peer, seq)
            known = min(seq, mine.handed_out)
            back = [one for one in mine.chat + mine.urgent if one in mine.returned]
            if known > mine.acknowledged or seq in mine.fetched + back:  # repeated, it says nothing of what came since
                mine.fetched = [one for one in mine.fetched if one > seq]
                freed = {one for one in back if one <= seq <= mine.handed_out}  # who says too much may be a stranger
                mine.chat = [one for one in mine.chat if one not in freed]
                mine.urgent = [one for one in mine.urgent if one not in freed]
            mine.acknowledged = max(mine.acknowledged, known)

    @operation(3, name=NAMES, chosen=(None, None, 0, 1, 2, 3))
    def unfetch(self, name: str, chosen: int | None) -> None:
        peer = self.caller(name)
        if peer is not None:
            mine = self.peers[name]
            back = mine.fetched if chosen is None else mine.fetched[chosen : chosen + 2]
            self.room.unfetch(peer, None if chosen is None else back)
            mine.chat = sorted(mine.chat + [seq for seq in back if seq not in self.operator_seqs])
            mine.urgent = sorted(mine.urgent + [seq for seq in back if seq in self.operator_seqs])
            mine.fetched = [seq for seq in mine.fetched if seq not in back]
            mine.returned |= set(back) - mine.late

    # --- restarts ---

    @operation(2)
    def restart(self) -> None:
        """Go on in a room that was made of what a journal keeps of this one."""
        rows = [json.loads(encode_plain(row)) for row in self.room.rows()]
        self.room = Room(self.events.append, self.clock, self.new_token)
        self.room.restore(rows)
        self.room.reopen()
        for mine in self.peers.values():
            back = mine.fetched
            mine.urgent = [seq for seq in mine.urgent if seq not in self.command_seqs]
            mine.chat = sorted(mine.chat + [seq for seq in back if seq not in self.operator_seqs])
            mine.urgent = sorted(mine.urgent + [seq for seq in back if seq in self.operator_seqs])
            mine.returned |= set(back) - mine.late
            mine.fetched, mine.is_listening, mine.last_seen = [], False, self.clock.mono()
        self.forms = {form_id: asked for form_id, asked in self.forms.items() if asked[1] != OPERATOR}

    # --- channels ---

    @operation(8, name=NAMES, channel=CHANNELS)
    def join_channel(self, name: str, channel: str) -> None:
        peer = self.caller(name)
        if peer is not None and self.attempt(
            lambda: self.room.join_channel(peer, channel), self.channel_fault(name, channel)
        ):
            self.join(name, channel)

    @operation(name=NAMES, channel=CHANNELS)
    def leave_channel(self, name: str, channel: str) -> None:
        peer = self.caller(name)
        if peer is not None and self.attempt(lambda: self.room.leave_channel(peer, channel)):
            self.acting.add(name)
            self.listen()
            self.quit_floors(name, [channel])
            self.peers[name].channels.discard(channel)

    @operation(4, name=NAMES, channel=CHANNELS, topic=(None, "plans"))
    def set_topic(self, name: str, channel: str, topic: str | None) -> None:
        peer = self.caller(name)
        if peer is not None:
            is_outside = channel not in self.peers[name].channels
            if self.attempt(lambda: self.room.set_topic(peer, channel, topic), (NotAMember, is_outside)):
                self.topics[channel] = topic

    # --- the floor ---

    @operation(16, name=NAMES, scope=LANES, verb=("take", "take", "take", "raise", "raise", "lower", "pass", "drop"))
    def use_floor(self, name: str, scope: str, verb: str) -> None:
        peer = self.caller(name)
        if peer is None:
            return
        line = self.floors.get(scope, [])
        is_stopped = self.mode == "stopped"
        is_outside = verb in ("take", "raise") and scope != ALL and scope not in self.peers[name].channels
        is_mute = verb in ("take", "raise") and not is_stopped and not is_outside and self.has_spent(name)
        is_checked = not is_stopped and not is_outside and not is_mute
        is_queueing = verb in ("take", "raise") and line != [] and name not in line
        answer = self.attempt(
            lambda: self.room.use_floor(peer, verb, scope, None),
            (Stopped, is_stopped),
            (NotAMember, not is_stopped and is_outside),
            (BudgetSpent, is_mute),
            (NoFloor, is_checked and line == [] and verb != "take"),
            (NotHolder, is_checked and line != [] and line[0] != name and verb in ("pass", "drop")),
            (TooManyHands, is_checked and is_queueing and len(line) > CAPS["HANDS_MAX"]),
        )
        if answer is None:
            return
        self.listen()
        if verb in ("take", "raise") and name not in line:
            line.append(name)
        elif verb == "drop":
            line.clear()
        elif verb == "pass" or (verb == "lower" and line[0] != name):
            line[:] = [one for one in line if one != name]
        self.floors[scope] = line
        if not line:
            del self.floors[scope]
        if verb in ("take", "raise"):
            assert answer.get("position", 0) == line.index(name)

    @operation(scope=LANES)
    def clear_floor(self, scope: str) -> None:
        if self.attempt(lambda: self.room.clear_floor(scope), (NoFloor, scope not in self.floors)):
            del self.floors[scope]

    # --- forms ---

    @operation(2, name=NAMES, to=LANES)
    def ask(self, name: str, to: str) -> None:
        peer = self.caller(name)
        if peer is None:
            return
        is_stopped, is_full = self.mode == "stopped", len(self.forms) >= CAPS["FORMS_MAX"]
        kind, is_crowded = self.channel_fault(name, to)
        form = self.attempt(
            lambda: self.room.ask(peer, question(to, CHOICE)),
            (Stopped, is_stopped),
            (TooManyForms, is_full and not is_stopped),
            (kind, is_crowded and not is_stopped and not is_full),
        )
        if form is not None:
            self.join(name, to)
            self.forms[form.id] = name, to

    @operation(answers=({"go": "yes"}, {"go": "no"}, {"go": "perhaps"}, {}, None), strange=EITHER)
    def answer(self, answers: Any, strange: bool) -> None:
        form_id = "strange" if strange or not self.forms else next(iter(self.forms))
        is_known, fits = form_id in self.forms, answers in ({"go": "yes"}, {"go": "no"})
        if is_known and self.forms[form_id][1] == OPERATOR and fits:
            answers = {"decision": "Deny"}
        sent = self.attempt(
            lambda: self.room.answer(form_id, answers),
            (UnknownForm, not is_known),
            (InvalidForm, is_known and not fits),
        )
        if sent is not None:
            assert set(sent.to) == self.audience(self.forms.pop(form_id)[1])

    @operation(strange=EITHER)
    def cancel(self, strange: bool) -> None:
        form_id = "strange" if strange or not self.forms else next(reversed(self.forms))
        if self.attempt(lambda: self.room.cancel(form_id), (UnknownForm, form_id not in self.forms)):
            del self.forms[form_id]

    @operation(2, name=NAMES, is_on=(True, True, False))
    def prompt(self, name: str, is_on: bool) -> None:
        if self.attempt(lambda: self.room.set_prompts(name, is_on), (UnknownPeer, name not in self.peers)) is None:
            return
        peer = self.caller(name)
        if peer is None:
            return
        is_stopped, is_full = self.mode == "stopped", len(self.forms) >= CAPS["FORMS_MAX"]
        form = self.attempt(
            lambda: self.room.ask_permission(peer, "Bash", "rm -rf build"),
            (Stopped, is_stopped),
            (PromptsOff, not is_on and not is_stopped),
            (TooManyForms, is_full and is_on and not is_stopped),
        )
        if form is not None:
            self.forms[form.id] = name, OPERATOR

    @operation(name=NAMES)
    def brake(self, name: str) -> None:
        """A hook asks before a tool: whatever holds it back, the room stays the same but for what is told of it."""
        peer = self.caller(name)
        if peer is not None and (why := self.room.brake_on(peer)) is not None:
            assert (why == "stopped") == (self.mode == "stopped")
            self.room.deny(peer, "Bash", why)

    # --- the operator ---

    @operation(3, action=("pause", "stop", "resume", "reset", "resume", "reset", "resume"))
    def set_mode(self, action: str) -> None:
        wanted = {"pause": "paused", "stop": "stopped"}.get(action, "running")
        is_barred = wanted == "running" and self.has_spent(ROOM)
        if self.attempt(lambda: self.room.set_mode(action), (BudgetSpent, is_barred)) is None:
            return
        self.mode = wanted
        if self.mode == "stopped":
            self.floors.clear()

    @operation(text=BUDGETS)
    def set_budgets(self, text: str) -> None:
        self.room.set_budgets(budgets_of(text))
        self.listen()

    @operation(2, spender=(*NAMES, ROOM, ROOM), measure=("messages", "messages/h"), limit=(None, None, 60))
    def raise_budget(self, spender: str, measure: str, limit: float | None) -> None:
        known = self.room.budgets.on(spender).get(measure)
        account = self.room.budgets.accounts.get(spender, {}).get(measure)
        spent = 0.0 if account is None else account.spent(self.clock.wall())
        act = lambda: self.room.raise_budget(spender, measure, limit)  # noqa: E731
        self.attempt(act, (UnknownBudget, known is None), (Invalid, known is not None and spent >= (limit or math.inf)))
        self.listen()

    @operation(name=NAMES)
    def end_spender(self, name: str) -> None:
        if self.attempt(lambda: self.room.end_spender(name), (UnknownBudget, not self.has_spent(name))):
            self.waits.pop(name, None)
            if name in self.peers:
                self.end(name)

    @operation(2, name=NAMES)
    def wake(self, name: str) -> None:
        """A waiter is told of mail, and a call follows."""
        peer = self.caller(name)
        if peer is not None and self.room.wake_for(peer, "claude"):
            before = self.is_held(name), bool(self.peers[name].urgent)
            assert self.room.pointer(peer) is None or before != (True, False), "woken through a pause"
            self.room.note_awake(peer)
            self.listen()

    @operation(3, to=SCOPES)
    def operator_say(self, to: str) -> None:
        is_channel = to.startswith("#")
        self.attempt(
            lambda: self.room.operator_say(to, "ruling"),
            (UnknownChannel, is_channel and not self.audience(to)),
            (UnknownPeer, not is_channel and to != ALL and to not in self.peers),
        )

    @operation(name=NAMES, verb=("interrupt", "reset"))
    def command(self, name: str, verb: str) -> None:
        known = self.peers.get(name)
        is_away = known is None or known.reaped_at is not None
        self.attempt(lambda: self.room.command(name, verb), (UnknownPeer, is_away))

    @operation(name=NAMES, is_paused=(True, False, False))
    def pause_peer(self, name: str, is_paused: bool) -> None:
        act = self.room.pause_peer if is_paused else self.room.resume_peer
        if self.attempt(lambda: act(name), (UnknownPeer, name not in self.peers)):
            self.peers[name].is_paused = is_paused

    @operation(channel=CHANNELS)
    def close_channel(self, channel: str) -> None:
        is_there = bool(self.audience(channel))
        if self.attempt(lambda: self.room.close_channel(channel), (UnknownChannel, not is_there)):
            self.floors.pop(channel, None)
            for peer in self.peers.values():
                peer.channels.discard(channel)

    @operation(per_s=(0.1, 2.0, 50.0, 50.0), burst=(1.0, 10.0, 100.0, 100.0))
    def set_rate(self, per_s: float, burst: float) -> None:
        self.room.set_rate(per_s, burst)
        assert self.room.rate() == {"refill_rate": per_s, "capacity": burst}

    # --- always ---

    @invariant()
    def the_promises_hold(self) -> None:
        self.listen()
        state: Any = state_of(self.room)
        self.check_mailboxes(state)
        self.check_floors(state)
        self.check_fates()
        assert {*self.room.held} == self.back
        assert {*self.room.budgets.spent} == {spender for spender, _ in self.spent}
        assert all(len(seqs) <= CAPS["HELD_MAX"] for seqs in self.waits.values())
        assert state["mode"] == self.mode == self.mode_told
        assert (self.room.stop is not None) is (self.mode == "stopped"), "whoever asks does not learn of the stop"
        assert {one["id"]: (one["asker"], one["to"]) for one in state["forms"]} == self.forms
        self.check_replay(state)

    def check_mailboxes(self, state: Any) -> None:
        """2, 5 and 6: what was routed waits, or was fetched and not acknowledged; nothing else does."""
        assert state["seq"] == self.seq
        assert set(state["peers"]) == set(self.peers)
        for name, peer in self.peers.items():
            known = state["peers"][name]
            assert known["waiting"] == sorted(peer.chat + peer.urgent)
            assert known["fetched"] == peer.fetched
            assert set(known["channels"]) == peer.channels
            assert (known["flags"][0], known["flags"][1]) == (peer.is_paused, peer.reaped_at)

    def check_fates(self) -> None:
        """What is said of a message's fate stays true: it goes forward only, but back to waiting if an answer was lost.

        And who owes an answer is here, as is who waits for it.
        """
        ranks, now = {kind: rank for rank, kind in enumerate((QUEUED, FETCHED, ACKNOWLEDGED, LOST, ANSWERED))}, {}
        for seq, routed in self.room.recent.items():
            for name in routed.to:
                if (state := self.room.state_of(routed, name)) is not None:
                    kind, before = state[0], self.fates.get((seq, name), QUEUED)
                    now[seq, name] = kind
                    is_back = (before, kind) == (FETCHED, QUEUED)
                    assert ranks[kind] >= ranks[before] or is_back, f"{seq} for {name} went from {before} to {kind}"
                    assert (before, kind) != (ACKNOWLEDGED, LOST), "lost what was taken in"
        self.fates = now
        for owed in self.room.owed.values():
            assert {owed.asker, owed.owing or OPERATOR} <= {*self.peers, OPERATOR}
            assert owed.left >= 1

    def check_floors(self, state: Any) -> None:
        """3: one holder, live and inside; so is everybody who waits. And a topic lives as long as a live member."""
        assert {scope: [one["holder"], *one["hands"]] for scope, one in state["floors"].items()} == self.floors
        for scope, line in self.floors.items():
            assert len(set(line)) == len(line)
            for name in line:
                peer = self.peers[name]
                assert peer.reaped_at is None, "a stick in a hand that is gone"
                assert scope == ALL or scope in peer.channels, "a stick in a hand outside"
        channels = self.room.channels()
        for channel in ("#x", "#y", "#z"):
            live = sorted(n for n in self.audience(channel) if self.peers[n].reaped_at is None)
            if not live:
                self.topics.pop(channel, None)
            listed = {"topic": self.topics.get(channel), "members": live} if live else None
            assert channels.get(channel) == listed

    def check_replay(self, state: Any) -> None:
        """7: a room that hears the events is the same room; and no event tells a token."""
        for event in self.events:
            before = event.after if isinstance(event, RoomReopened) else event.serial - 1
            assert before == self.serial < event.serial, "serials skip"
            assert "secret-" not in repr(event), "a token in an event"
            self.serial = event.serial
            kept = Event.from_row(event.to_row())
            assert kept == event, "a row lost something of its event"
            self.echo.apply(kept)
        del self.events[:]
        self.seen = 0
        if self.serial % 7 == 0:  # now and then through a snapshot
            rows = [json.loads(encode_plain(row)) for row in self.echo.rows()]
            self.echo = Room(lambda event: None, FakeClock(), lambda: "unused")
            self.echo.restore(rows)
            assert [json.loads(encode_plain(row)) for row in self.echo.rows()] == rows
        assert state_of(self.echo) == state


TestAnyStory = Story.TestCase
TestAnyStory.settings = settings(max_examples=30, stateful_step_count=30)


@pytest.mark.parametrize("seed", range(4 if "CAUCUS_TORTURE" in os.environ else 2))
def test_the_promises_hold_through_a_long_story(seed: int) -> None:
    chance, story = random.Random(seed), Story()
    weights = [weight for weight, _, _ in OPERATIONS]
    told = []  # read it from the end when this fails
    try:
        story.some_sit_down()
        for _, name, pools in chance.choices(OPERATIONS, weights, k=1000):
            told.append((name, {key: chance.choice(pool) for key, pool in pools.items()}))
            getattr(story, name)(**told[-1][1])
            story.the_promises_hold()
    finally:
        story.teardown()
