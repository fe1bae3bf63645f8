"""Section 6: the table, every pair of it."""

from __future__ import annotations

import pytest

from caucus import FLOOR, FLOOR_VERBS, Floor, NoFloor, NotHolder, floor_outcome

VERBS = (*FLOOR_VERBS, "quit", "clear")

# The manual's words, written down a second time: (the floor is, verb) -> outcome, or the refusal.
MANUAL = {
    ("free", "take"): "grant",
    ("free", "raise"): NoFloor,
    ("free", "lower"): NoFloor,
    ("free", "pass"): NoFloor,
    ("free", "drop"): NoFloor,
    ("free", "quit"): "stay",
    ("free", "clear"): NoFloor,
    ("mine", "take"): "grant",
    ("mine", "raise"): "stay",
    ("mine", "lower"): "stay",
    ("mine", "pass"): "next",
    ("mine", "drop"): "release",
    ("mine", "quit"): "next",
    ("mine", "clear"): "release",
    ("theirs", "take"): "queue",
    ("theirs", "raise"): "queue",
    ("theirs", "lower"): "unqueue",
    ("theirs", "pass"): NotHolder,
    ("theirs", "drop"): NotHolder,
    ("theirs", "quit"): "unqueue",
    ("theirs", "clear"): NotHolder,
}


def floor(view: str, *hands: str) -> Floor | None:
    """Give a floor as `me` sees it."""
    if view == "free":
        return None
    return Floor("#x", "me" if view == "mine" else "ann", "why", 5.0, dict.fromkeys(hands))


def test_the_manual_speaks_of_every_pair():
    assert set(MANUAL) == {(view, verb) for view in ("free", "mine", "theirs") for verb in VERBS}


def test_the_table_has_no_pair_that_the_manual_does_not_know():
    assert set(FLOOR) <= set(MANUAL)


@pytest.mark.parametrize(("view", "verb"), [pair for pair, outcome in MANUAL.items() if isinstance(outcome, str)])
def test_a_pair_of_the_table_has_the_outcome_of_the_manual(view, verb):
    assert floor_outcome(floor(view), "#x", "me", verb) == MANUAL[view, verb]


@pytest.mark.parametrize(("view", "verb"), [pair for pair, outcome in MANUAL.items() if not isinstance(outcome, str)])
def test_a_pair_that_is_not_in_the_table_is_refused(view, verb):
    with pytest.raises(MANUAL[view, verb]):
        floor_outcome(floor(view), "#x", "me", verb)


def test_a_refusal_for_want_of_a_stick_names_the_scope():
    with pytest.raises(NoFloor) as caught:
        floor_outcome(None, "#x", "me", "drop")
    assert caught.value.body().items() >= {"error": "no_floor", "scope": "#x"}.items()


def test_a_refusal_for_another_holder_names_it():
    with pytest.raises(NotHolder) as caught:
        floor_outcome(floor("theirs"), "#x", "me", "drop")
    assert caught.value.body().items() >= {"error": "not_holder", "scope": "#x", "held_by": "ann"}.items()


def test_the_holder_has_position_zero_and_the_hands_follow_from_one():
    held = floor("theirs", "bob", "me")
    assert [held.position(name) for name in ("ann", "bob", "me")] == [0, 1, 2]


def test_the_first_raised_hand_is_next():
    assert floor("theirs", "bob", "me").first_hand() == "bob"


def test_nobody_is_next_when_no_hand_is_raised():
    assert floor("theirs").first_hand() is None


def test_a_floor_shows_its_holder_reason_hands_and_since_when():
    shown = {"scope": "#x", "holder": "ann", "reason": "why", "hands": ["bob", "me"], "since": 5.0}
    assert floor("theirs", "bob", "me").to_json() == shown
