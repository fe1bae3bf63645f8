"""Section 8b: which conversations go round in circles, on what evidence, and which only look so."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loops import NEEDLESS_MAX, Conversation, conversations, detector, needless_when_held, play

import caucus
from caucus import (
    CALM,
    CONTENT_MAX,
    HOLD,
    LOOP_LANES_MAX,
    LOOP_MEMORY_MAX,
    OPERATOR,
    SLOW,
    Detector,
    Evidence,
    lane_between,
    lane_for,
)

CASES = [pytest.param(case, id=f"{part}-{case.name}") for part in ("tuned", "kept") for case in conversations(part)]
LOOPS = [param for param in CASES if param.values[0].loop]
HONEST = [param for param in CASES if not param.values[0].loop]


COUNTED = "numbered-loop"  # where only a number changes: not all are told from readings and counts that mean something


@pytest.mark.parametrize("case", [param for param in LOOPS if param.values[0].kind != COUNTED])
def test_a_loop_is_held(case: Conversation):
    at = needless_when_held(case)
    assert at is not None
    assert at <= NEEDLESS_MAX + 3


@pytest.mark.parametrize(("part", "counts", "late"), [
    ("tuned", False, 0), ("kept", False, 5), ("tuned", True, 6), ("kept", True, 11),
])
def test_a_loop_is_held_before_its_twelfth_needless_message_but_for_a_few(part: str, counts: bool, late: int):
    cases = [case for case in conversations(part) if case.loop and (case.kind == COUNTED) == counts]
    assert sum((needless_when_held(case) or NEEDLESS_MAX) >= NEEDLESS_MAX for case in cases) <= late


@pytest.mark.parametrize("case", HONEST)
def test_an_honest_conversation_is_never_held(case: Conversation):
    assert HOLD not in play(case).first


def test_few_honest_conversations_get_a_hint():  # two per cent are the aim
    hinted = [param.values[0].name for param in HONEST if play(param.values[0]).first]
    assert len(hinted) <= 0.025 * len(HONEST), hinted


def say(loops: Detector, *texts: str, lane: str = "#x", senders: str = "ab", start: int = 0) -> list[Evidence]:
    """Let agents speak in turn; give all evidence."""
    found = [loops.hear(lane, senders[at % len(senders)], text, at, 60.0 * at) for at, text in enumerate(texts, start)]
    return [one for one in found if one is not None]


@pytest.mark.parametrize(
    ("kind", "senders", "texts"),
    [
        ("thanks", "ab", ["Thank you so much!", "No, thank you!"]),
        ("sorry", "ab", ["I'm so sorry.", "No, my apologies."]),
        ("bye", "ab", ["Goodbye!", "Bye, see you soon!"]),
        ("waiting", "ab", ["Still waiting.", "No update, standing by."]),
        ("wordless", "ab", ["🎉", "🚀"]),
        ("monologue", "a", ["Is anybody there?", "Hello?"]),
        ("asking", "ab", ["Which port shall it be?", "Tell me which port it shall be?"]),
        ("echo", "ab", ["The quick fox jumps over dogs."]),
    ],
)
def test_evidence_names_what_goes_round(kind, senders, texts):
    last = say(detector(), *(texts * 16)[:16], senders=senders)[-1]
    assert (last.kind, last.level) == (kind, HOLD)
    assert set(last.names) == set(senders)
    assert last.words.startswith(f"{last.count} of the last {last.of} messages ")
    assert last.first_seq < last.last_seq == 15


def test_a_level_rises_by_and_by():
    levels = [one.level for one in say(detector(), *["Thanks!", "Thank you!"] * 8)]
    assert levels == sorted(levels)
    assert levels[-1] == HOLD


def test_something_new_calms_a_lane_and_says_so_once():
    loops = detector()
    say(loops, *["Thanks!", "Thank you!"] * 5)
    files = ["auth", "mail", "queue", "views", "export", "config", "models", "urls"]
    news = [f"src/{name}.py: {name}_all() raises {name.title()}Error" for name in files]
    found = say(loops, *news, start=10)
    assert [one.level for one in found][-1] == CALM
    assert [one.level for one in found].count(CALM) == 1


def test_what_was_before_a_refresh_does_not_count():
    loops = detector()
    say(loops, *["Thanks!", "Thank you!"] * 8)
    loops.refresh("#x")
    assert say(loops, "Thanks!", "Thank you!") == []


def test_a_pair_has_one_lane():
    assert lane_between("b", "a") == lane_between("a", "b") == "a ↔ b"


def test_lanes_are_bounded():
    loops = detector()
    for at in range(LOOP_LANES_MAX + 10):
        loops.hear(f"#c{at}", "a", "Thanks!", at, 60.0 * at)
    assert len(loops) == LOOP_LANES_MAX


@pytest.mark.parametrize("sign", ["x", "ü", "語", "🎉", "\u0301", "a ", "a\u0301", "1"])
def test_a_lane_keeps_16_kb_at_most_of_whatever_is_said(sign):
    loops = detector()
    for at in range(3 * LOOP_MEMORY_MAX):
        loops.hear("#x", "a", (sign * CONTENT_MAX)[:CONTENT_MAX], at, 60.0 * at)
    lane = loops._lanes["#x"]
    kept = [*lane.heard, *(head for _, head, _ in lane.heard), lane.heard, lane.before, *lane.before]
    assert sum(map(sys.getsizeof, kept)) <= 16_384


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=300)), max_size=30))
def test_any_text_can_be_heard(said):
    loops = detector()
    for at, (sender, text) in enumerate(said):
        found = loops.hear("#x", sender, text, at, 60.0 * at)
        assert found is None or (CALM <= found.level <= HOLD and found.count <= found.of <= LOOP_MEMORY_MAX)


def test_a_lane_that_is_not_known_any_more_is_calm_again_when_it_says_something_new():
    loops = detector()
    news = [f"src/{name}.py line {at}: {name}_all() raises {name.title()}Error" for at, name in
            enumerate(["auth", "mail", "queue", "views"])]
    found = [loops.hear("#x", "a", text, at, 60.0 * at, SLOW) for at, text in enumerate(news)]
    assert [one.level for one in found if one is not None] == [CALM]


def test_what_looking_costs_is_bounded(monkeypatch):
    loops, read = detector(), []
    monkeypatch.setattr(loops, "_read", lambda latest: read.append(len(latest)) or [(2, "thanks")] * len(latest))
    for at in range(10_000):  # a hundred lanes that thank, within a second
        loops.hear(f"#c{at % 100}", "ab"[at // 100 % 2], "Thanks!", at, at / 10_000)
    assert len(read) <= 2 * (caucus._READS_AT_ONCE + caucus._READS_PER_S + 1), "the latest few, and all"
    before = len(read)
    for at in range(1_000):  # one of them, within a minute
        loops.hear("#c1", "ab"[at % 2], "Thanks!", at, 1 + at * 0.06)
    assert len(read) - before <= 2 * (caucus._LOOKS_AT_ONCE + 60 * caucus._LOOKS_PER_S + 1)
    assert len(read) > before + 40


def test_the_operator_begins_the_lanes_anew_that_hear_him():
    loops = detector()
    lanes = [lane_for("a", to) for to in ("b", "c", "#x", "all")]
    for lane in lanes:
        loops.hear(lane, "a", "Thanks!", 1, 0.0)
    loops.refresh("b")
    assert [*loops._lanes] == lanes[1:]
    loops.refresh("#x")
    assert [*loops._lanes] == [lanes[1], lanes[3]]
    loops.refresh("all")
    assert len(loops) == 0


def test_what_is_said_to_the_operator_has_no_lane():
    assert lane_for("a", OPERATOR) == ""


def test_one_who_asks_of_one_commit_after_another_gets_short_answers_and_that_is_no_loop():
    commits = ["1a2b3c4", "9f8e7d6", "0c1d2e3", "5a6b7c8", "3e4f5a6", "7b8c9d0", "2d3e4f5", "8a9b0c1", "6f7a8b9"]
    verdicts = ["good", "bad", "good", "good", "bad", "bad", "good", "bad", "good"]
    said = [line for commit, word in zip(commits, verdicts, strict=True)
            for line in (f"please test commit {commit}", word)]
    assert say(detector(), *said) == []
