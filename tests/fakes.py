"""What the core takes from outside, in forms that a test commands: the clock, chance and the ear for events."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

from caucus import DECISIONS_MAX, Event, Field, Peer, Question, Room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class FakeClock:
    """Stands still until a test advances it."""

    def __init__(self) -> None:
        self._elapsed = 0.0

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self._elapsed += seconds

    def mono(self) -> float:
        """Give monotonic seconds; they begin where no test can mistake them for Unix seconds."""
        return 1_000.0 + self._elapsed

    def wall(self) -> float:
        """Give Unix seconds."""
        return 1_700_000_000.0 + self._elapsed


class RecordingRoom(Room):
    """A room that keeps what it emitted, and whose tokens are token-1, token-2, ..."""

    def __init__(self, clock: FakeClock) -> None:
        self.events: list[Event] = []
        self.listeners: list[Callable[[Event], None]] = [self.events.append]
        self.tokens: dict[str, str] = {}  # by name; of those who came by `join`
        serial = itertools.count(1)
        super().__init__(self._tell, clock, lambda: f"token-{next(serial)}")

    def _tell(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)

    def join(self, name: str, *channels: str) -> Peer:
        """Register a fresh peer, from an address of its own, and make it a member of `channels`."""
        peer, self.tokens[name] = self.register(f"host of {name}", name)
        for channel in channels:
            self.join_channel(peer, channel)
        return peer

    def peer_rows(self) -> list[Any]:
        """List everything that a console shows of each peer: the live, then the reaped, by name."""
        return [row for _, row in self.peers_seen(self.roster.all_names())]

    def forms(self) -> list[Any]:
        """List the pending questions, oldest first."""
        return forms_of(self)

    def kinds(self, since: int = 0) -> list[str]:
        """Name the events after the first `since`."""
        return [type(event).__name__ for event in self.events[since:]]


def forms_of(room: Room) -> list[Any]:
    """List the pending questions, oldest first."""
    forms: list[Any] = json.loads(room.forms_wire())["forms"]
    return forms


def state_of(room: Room) -> dict[str, Any]:
    """Give all that a replay must reproduce, readings of the clock excepted."""
    return {
        "mode": room.mode,
        "seq": room._seq,
        "serial": room._serial,
        "born": room.born,
        "rate": room.rate(),
        "log": [message.wire.decode() for message in room.log],
        "peers": {peer.name: _peer_state(peer) for peer in room.roster},
        "channels": {name: [[*one.members], room._channel_row(one)] for name, one in room._channels.items()},
        "receipts": [room.receipt(routed) for routed in room.recent.values()],
        "owed": [[*owed.values()] for owed in room.owed.values()],
        "appeals": [appeal.to_json() for appeal in room.appeals.values()],
        "sent": [[*key, event.message.seq, [*event.to]] for key, event in room._sent.items()],
        "rules": [room.rules, room.rules_version],
        "loops": [room.loops_row(), [[*loop.values()] for loop in room.loops.values()], room.held],
        "budgets": _budgets_state(room),
        "news": {name: [*told.items()] for name, told in room.news.items()},
        "said": [room.said_to_all, room.open_upto],
        "quiet": [room.quiet_stop_min, room._quiet_from],
        "floors": room.floors(),
        "forms": json.loads(room.forms_wire(has_prompts=True))["forms"],
        "decisions": room.decisions(DECISIONS_MAX),
    }


def _budgets_state(room: Room) -> list[Any]:
    budgets = room.budgets
    accounts = {one: {measure: [*a.values()] for measure, a in own.items()} for one, own in budgets.accounts.items()}
    limits = [[*one.values()] for one in budgets.listed()]
    return [limits, accounts, budgets.counters, budgets.waiting, [*budgets.gone], {*budgets.spent}, room.wanted_mode]


def _peer_state(peer: Peer) -> dict[str, Any]:
    return {
        "token_hash": peer.token_hash,
        "channels": sorted(peer.channels),
        "status": [peer.status, peer.status_at],
        "usage": None if peer.usage is None else peer.usage.to_json(),
        "flags": [peer.is_paused, peer.reaped_at, peer.joined_at, peer.takes_prompts, peer.interrupted_at],
        "rules_read": peer.rules_read,
        "counts": [peer.message_count, peer.character_count, peer.losses],
        "waiting": [message.seq for message in peer.mailbox.deliverable(held=False)],
        "fetched": [message.seq for message in peer.mailbox.fetched],
    }


def replayed(events: Iterable[Event]) -> Room:
    """Give an empty room to which `events` were applied; it was opened when all test rooms are."""
    room = Room(lambda event: None, FakeClock(), lambda: "unused")
    for event in events:
        room.apply(event)
    return room


def contents(messages: Iterable[object]) -> list[str]:
    """Give the words of messages."""
    return [message.content for message in messages]  # type: ignore[attr-defined]


def question(to: str = "all", *asked: Field, title: str = "Deploy?") -> Question:
    """Give a question; by default with one free field that may stay empty."""
    return Question("unused", to, title, asked or (Field("why", "Why", "text", (), False, False),))
