"""A hard hour in a room, seeded: eight agents, Markdown of every kind, a form, a stick, a flood, one gone silent.

    python3 tests/hard_hour.py      lives through it on a hub, and leaves that to look at
"""

from __future__ import annotations

import contextlib
import random
import sys
from dataclasses import dataclass
from typing import Any

from browsers import CHOICE, LONG
from hubs import HubProcess, running_hub

NAMES = ("api", "billing", "docs", "gateway", "mobile", "ops", "payments", "web")
FLOODER, SILENT, DEAF = "ops", "docs", "mobile"
CHANNELS = ("#plans", "#release", "#incident")
NEEDLE = "payments answers 409 to the second capture of order 7731"
SILENT_S = 4.0  # a hub for this hour calls a peer quiet after so long
KINDS = (
    "the migration of table {n} is through, {n} 000 rows in {m} ms",
    "**Plan {n}**\n\n1. stop the writer\n2. copy `orders_{n}`\n3. start it on port {m}",
    "```python\ndef step_{n}(rows):\n    return [row for row in rows if row.id % {m}]\n```",
    "| step | ms |\n|---|--:|\n| parse {n} | {m} |\n| write | 12 |",
    "> what did the log say at {m}?\n\nIt said `timeout` for shard {n}, twice",
    "See [the run](https://ci.example/{n}) of *last night*; {m} tests are new",
    "- [x] schema {n}\n- [ ] client {m}",
)


@dataclass(frozen=True)
class Hour:
    """What came of it."""

    hub: HubProcess
    tokens: dict[str, str]
    needle_seq: int


def talk(hub: HubProcess, tokens: dict[str, str], chance: random.Random, count: int) -> int:
    """Have all but those with a part of their own talk; give the seq of the message that will be sought."""
    speakers, needle = [name for name in NAMES if name not in (FLOODER, SILENT)], 0
    for n in range(count):
        sender = chance.choice(speakers)
        to = chance.choice(("all", *CHANNELS, *(name for name in speakers if name not in (sender, DEAF))))
        if n == count // 4:
            needle = int(hub.say(tokens["payments"], "#incident", NEEDLE)["seq"])
        hub.say(tokens[sender], to, chance.choice(KINDS).format(n=n, m=chance.randrange(100, 9_999)))
    return needle


def live_through(hub: HubProcess, seed: int = 7, count: int = 400) -> Hour:
    """Live through the hour on a hub, at the pace of a machine."""
    chance = random.Random(seed)
    with hub.console() as operator:
        operator.send(set_rate={"refill_rate": 1e6, "capacity": 1e6})
        operator.next("rate")
        tokens = {name: hub.register(name) for name in NAMES}
        for name in NAMES:
            for channel in CHANNELS:
                hub.post("/channels/join", token=tokens[name], channel=channel)
        hub.post("/channels/topic", token=tokens["api"], channel="#release", topic="`v2` goes out *today*")
        needle = talk(hub, tokens, chance, count)
        hub.post("/floor", token=tokens["gateway"], action="take", scope="#incident", reason="I read the `log`")
        hub.say(tokens["web"], "human", "may I take the *old* form off the page?")
        ask(hub, tokens["billing"])
        operator.send(set_rate={"refill_rate": 2.0, "capacity": 10.0})
        operator.next("rate")
    for _ in range(120):
        hub.post("/send", token=tokens[FLOODER], to="all", content="still failing, look at it now!")
    for name in NAMES:
        if name != DEAF:
            read_all(hub, tokens[name])
    return Hour(hub, tokens, needle)


def read_all(hub: HubProcess, token: str) -> None:
    """Fetch and acknowledge all that waits for a peer."""
    seq = 0
    while messages := hub.receive(token, ack_seq=seq)["messages"]:
        seq = messages[-1]["seq"]


def ask(hub: HubProcess, token: str) -> None:
    """Ask the operator with code and emphasis in the question."""
    fields: list[dict[str, Any]] = [
        {**CHOICE, "label": "How shall `capture()` **fail**?", "options": ["`409`", "`200`, again"]},
        LONG,
    ]
    hub.post("/ask", token=token, to="all", title="May `payments` answer *twice*?", fields=fields)


@contextlib.contextmanager
def hard_hour() -> Any:
    """Give the hour, on a hub of its own."""
    with running_hub("--loops", "off", "--quiet-after", str(SILENT_S)) as hub:
        yield live_through(hub)


if __name__ == "__main__":
    with hard_hour() as hour, contextlib.suppress(KeyboardInterrupt, EOFError):
        print(f"{hour.hub.url} until Enter is pressed", file=sys.stderr)
        input()
