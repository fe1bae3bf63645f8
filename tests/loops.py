"""Conversations for the loop detector, and what it makes of them, as a table: python3 tests/loops.py [tuned|kept]."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caucus import CALM, HINT, HOLD, Detector, Evidence, lane_for, tables_in

CONVERSATIONS = Path(__file__).resolve().parent / "data" / "conversations"
NEEDLESS_MAX = 12  # a loop is held before so many


@dataclass(frozen=True)
class Conversation:
    """One case of the corpus."""

    name: str
    kind: str
    language: str
    loop: bool
    messages: list[list[Any]]
    needless_from: int = 0


@dataclass(frozen=True)
class Outcome:
    """What the detector made of one: the index of the message with which each level came first, and the evidence."""

    first: dict[int, int]
    evidence: list[Evidence]


def conversations(part: str) -> list[Conversation]:
    """Read one part of the corpus."""
    files = sorted((CONVERSATIONS / part).glob("*.toml"))
    return [Conversation(**one) for file in files for one in tomllib.loads(file.read_text("utf-8"))["conversation"]]


def detector() -> Detector:
    """Give one that has heard nothing."""
    return Detector(lambda: tables_in("docs/loops.toml"))


def play(case: Conversation, loops: Detector | None = None) -> Outcome:
    """Let a detector hear a conversation as the room would have it."""
    loops, now = loops or detector(), 1_000.0
    first: dict[int, int] = {}
    evidence = []
    lanes: set[str] = set()
    for at, entry in enumerate(case.messages):
        if len(entry) == 1:  # somebody joins
            for lane in lanes:
                loops.refresh(lane)
            continue
        sender, scope, text = entry[:3]
        lane, now = lane_for(sender, scope), now + float(entry[3])
        lanes.add(lane)
        if sender == "operator":
            loops.refresh(lane)
            continue
        if (found := loops.hear(lane, sender, text, at, now)) is not None:
            evidence.append(found)
            for level in range(HINT, found.level + 1):
                first.setdefault(level, at)
    return Outcome(first, evidence)


def needless_when_held(case: Conversation) -> int | None:
    """Count the needless messages when a loop is held, with the one that is; None: it never is."""
    held = play(case).first.get(HOLD)
    return None if held is None else held - case.needless_from + 1


def table(part: str) -> str:
    """Word what became of a part of the corpus, as a table."""
    cases = conversations(part)
    rows = ["| Loops | languages | cases | held at needless message | not in time |", "|---|---|---:|---|---:|"]
    for kind in sorted({case.kind for case in cases if case.loop}):
        these = [case for case in cases if case.kind == kind and case.loop]
        at = [needless_when_held(case) for case in these]
        late = sum(one is None or one >= NEEDLESS_MAX for one in at)
        when = ", ".join(map(str, sorted(one for one in at if one is not None)))
        rows.append(f"| {kind} | {', '.join(sorted({c.language for c in these}))} | {len(these)} | {when} | {late} |")
    rows += ["", "| Honest | languages | cases | hinted | slowed or held |", "|---|---|---:|---:|---:|"]
    for kind in sorted({case.kind for case in cases if not case.loop}):
        these = [case for case in cases if case.kind == kind and not case.loop]
        levels = [max(play(case).first, default=CALM) for case in these]
        hinted, worse = sum(level == HINT for level in levels), sum(level > HINT for level in levels)
        languages = ", ".join(sorted({case.language for case in these}))
        rows.append(f"| {kind} | {languages} | {len(these)} | {hinted} | {worse} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(sys.argv[1] if len(sys.argv) > 1 else "tuned"))
