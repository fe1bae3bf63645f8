"""Write a journal of very many messages, for the bench: python3 tests/long_journal.py FILE COUNT.

Prints, as JSON, the token of one peer, and a word that a thousandth of the messages have.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import caucus

PEERS, CHANNELS, CHARACTERS = 20, 5, 200
LETTERS = "etaoinshrdlucmfw"


def keep(journal: caucus.Journal, events: list[caucus.Event]) -> None:
    """Write events, as a turn of a hub does, and do at once what its threads do later."""
    journal._keep_house = journal._checkpoint  # type: ignore[method-assign]
    for event in events:
        journal.hear(event)
    assert journal.commit()
    events.clear()


def long_journal(path: str, count: int) -> dict[str, str]:
    """Have 20 peers speak: four in ten messages to all, four in a channel, two to one peer. The words are as in prose.

    The room is made as a hub makes it; of what was said only the messages are there, and all was read.
    """
    chance, clock, events = random.Random(1), caucus.ResumedClock(0.0), list[caucus.Event]()
    journal, room = caucus.Journal(path), caucus.Room(events.append, clock, caucus.new_secret)
    base, names, tokens = journal._base, [f"peer-{number}" for number in range(PEERS)], dict[str, str]()
    for number, name in enumerate(names):
        peer, tokens[name] = room.register(f"host {number}", name)
        room.join_channel(peer, f"#channel-{number % CHANNELS}")
    known = ["".join(chance.choices(LETTERS, k=chance.randint(2, 9))) for _ in range(20_000)]
    words = chance.choices(known, [1 / (rank + 1) for rank in range(len(known))], k=200_000)
    at, ts, serial = clock.mono(), clock.wall() - count, room._serial
    for seq in range(1, count + 1):
        sender, kind, start = names[seq % PEERS], seq % 10, seq * 37 % 199_000
        if kind < 8:
            channel = seq % CHANNELS
            to = caucus.ALL if kind < 4 else f"#channel-{channel}"
            who = names if kind < 4 else names[channel::CHANNELS]
        else:
            to = names[(seq * 7 + 3) % PEERS]
            who = [to]
        text = " ".join(words[start : start + 60])[: CHARACTERS - 12]
        text += " price_cents" if seq % 1000 == 0 else " 部署价格表" if seq % 1000 == 3 else ""
        text += " needle" if seq == count // 50 else ""
        serial += 1
        message = caucus.Message(caucus.id_of(serial), sender, to, text, "message", ts + seq, seq, "agent")
        hearers = tuple(name for name in who if name != sender or kind >= 8)
        events.append(caucus.MessageRouted(serial, at + seq / 1000, ts + seq, message, hearers))
        if len(events) >= 5_000:
            keep(journal, events)
    keep(journal, events)
    room._serial, room._seq, room.said_to_all = serial, count, count * 4 // 10
    base.execute("BEGIN")
    caucus.write_snapshot(base, room, at + count / 1000, journal.head)
    base.execute("COMMIT")
    journal.close()
    return {"token": tokens["peer-4"], "rare": known[15_000], "common": known[0]}


if __name__ == "__main__":
    print(json.dumps(long_journal(sys.argv[1], int(sys.argv[2]))))
