"""Section 8: identities by name and by token."""

from __future__ import annotations

import random

import pytest

import caucus
from caucus import (
    GRACE_S,
    NAME_MAX,
    NEAREST_MAX,
    NameInUse,
    Peer,
    Rate,
    RoomFull,
    Roster,
    TokenBucket,
    UnknownToken,
    hash_of,
)

RATE = Rate(1.0, 1.0)


def peer(name: str, token: str | None = None) -> Peer:
    return Peer(name, hash_of(token or f"token of {name}"), 0.0, TokenBucket(RATE, 0.0), TokenBucket(RATE, 0.0))


@pytest.fixture
def roster() -> Roster:
    """Give a roster with bob and ann, who came in this order."""
    made = Roster()
    made.add(peer("bob"))
    made.add(peer("ann"))
    return made


def test_a_peer_has_no_more_fields_than_cpython_keeps_without_a_table_for_each():
    assert len(Peer.FIELDS) <= 30, "with one more, a peer takes a kilobyte more"


def test_a_peer_is_found_by_name(roster):
    assert roster.get("ann").name == "ann"


def test_an_absent_name_is_nobodys(roster):
    assert roster.get("cid") is None


def test_a_peer_is_found_by_its_token(roster):
    assert roster.holder_of("token of ann").name == "ann"


@pytest.mark.parametrize("token", ["", "token of cid", "tökén", "ann", "\ud800"])
def test_a_strange_token_is_nobodys(roster, token):
    with pytest.raises(UnknownToken):
        roster.holder_of(token)


def test_the_hash_of_a_token_is_not_a_token(roster):
    with pytest.raises(UnknownToken):
        roster.holder_of(hash_of("token of ann"))


def test_a_free_name_confirms_nobody(roster):
    assert roster.claim("cid", None) is None


def test_a_name_is_confirmed_to_whoever_shows_its_token(roster):
    assert roster.claim("ann", "token of ann") is roster.get("ann")


@pytest.mark.parametrize("token", [None, "", "token of bob", "tökén", "\ud800"])
def test_a_taken_name_is_refused_to_all_others(roster, token):
    with pytest.raises(NameInUse):
        roster.claim("ann", token)


def test_the_refusal_of_a_taken_name_shows_neither_token_nor_hash(roster):
    with pytest.raises(NameInUse) as caught:
        roster.claim("ann", None)
    shown = str(caught.value.body())
    assert "token of ann" not in shown
    assert hash_of("token of ann") not in shown


def test_the_refusal_of_a_taken_name_has_the_fields_that_clients_know(roster):
    with pytest.raises(NameInUse) as caught:
        roster.claim("ann", None)
    assert caught.value.body().keys() >= {"error", "project", "note"}


def free_beside(roster, name):
    with pytest.raises(NameInUse) as caught:
        roster.claim(name, None)
    return caught.value.extra["free"]


def test_the_refusal_of_a_taken_name_offers_free_ones(roster):
    assert free_beside(roster, "ann") == ["ann-2", "ann-3", "ann-4"]


def test_what_is_offered_counts_on_and_leaves_out_what_is_taken_or_looks_so(roster):
    for name in ("ann-2", "ánn-4"):
        roster.add(peer(name))
    assert free_beside(roster, "ann-2") == ["ann-3", "ann-5", "ann-6"]


def test_what_is_offered_is_a_name_however_long_the_taken_one(roster):
    roster.add(peer("x" * NAME_MAX))
    assert all(len(name) <= NAME_MAX for name in free_beside(roster, "x" * NAME_MAX))


def test_where_a_crowd_has_all_numbers_none_is_offered(roster):
    for n in range(2, NEAREST_MAX + 2):
        roster.add(peer(f"ann-{n}"))
    assert free_beside(roster, "ann") == []


def test_a_reaped_name_is_still_taken(roster):
    roster.reap(roster.get("ann"), 1.0)
    with pytest.raises(NameInUse):
        roster.claim("ann", None)


def test_a_full_room_refuses_a_new_name(roster, monkeypatch):
    monkeypatch.setattr(caucus, "IDENTITIES_MAX", 2)
    with pytest.raises(RoomFull):
        roster.claim("cid", None)


def test_a_full_room_still_confirms_its_own(roster, monkeypatch):
    monkeypatch.setattr(caucus, "IDENTITIES_MAX", 2)
    assert roster.claim("ann", "token of ann").name == "ann"


def test_a_removed_peer_is_gone_with_its_token(roster):
    roster.remove(roster.get("ann"), "left")
    assert len(roster) == 1
    with pytest.raises(UnknownToken):
        roster.holder_of("token of ann")


def test_the_live_are_listed_by_name_without_the_reaped(roster):
    roster.add(peer("cid"))
    roster.reap(roster.get("cid"), 1.0)
    assert (roster.live, roster.all_names()) == (["ann", "bob"], ["ann", "bob", "cid"])


def test_the_lists_of_names_stay_in_order_through_all_changes(roster):
    """They are changed in place, never sorted: each must always be what sorting would give."""
    chance = random.Random(6)
    for step in range(500):
        name = f"peer-{chance.randrange(40)}"
        known = roster.get(name)
        if known is None:
            roster.add(peer(name))
        elif chance.random() < 0.3:
            roster.remove(known, "left")
        elif known.is_live:
            roster.reap(known, float(step))
        else:
            roster.revive(known)
        live, away = (sorted(one.name for one in roster if one.is_live is is_live) for is_live in (True, False))
        assert (roster.live, roster.all_names()) == (live, live + away)


def test_only_the_neighbours_of_a_misspelt_name_are_compared_with_it(roster):
    many = Roster()
    for n in range(1000):
        many.add(peer(f"peer-{n:03}"))
    for n in range(500, 1000):
        many.reap(many.get(f"peer-{n:03}"), 1.0)
    near = many.names_near("peer-2x7")
    assert len(near) == 2 * caucus.NEAREST_MAX
    assert {"peer-270", "peer-279", "peer-500"} <= set(near)
    assert [len(many.names_near(name)) for name in ("", "\U0001f40d")] == [2 * caucus.NEAREST_MAX] * 2
    assert roster.names_near("anna") == ["ann", "bob"]


def test_a_peer_is_idle_when_it_was_silent_longer_than_the_limit():
    one = peer("ann")
    assert [one.is_idle(now, 300.0) for now in (0.0, 300.0, 300.1)] == [False, False, True]


def test_a_peer_with_a_parked_poll_is_never_idle():
    one = peer("ann")
    one.is_listening = True
    assert not one.is_idle(1e9, 300.0)


def test_a_reaped_peer_is_not_idle_again():
    one = peer("ann")
    one.reaped_at = 1.0
    assert not one.is_idle(1e9, 300.0)


def test_a_reaped_peer_is_forgotten_after_its_grace():
    one = peer("ann")
    one.reaped_at = 5.0
    assert [one.is_forgotten(5.0 + GRACE_S), one.is_forgotten(5.1 + GRACE_S)] == [False, True]


def test_a_live_peer_is_never_forgotten():
    assert not peer("ann").is_forgotten(1e9)


@pytest.mark.parametrize("twin", ["аnn", "ａnn", "ánn", "аnn".upper()])
def test_a_name_that_the_eye_takes_for_one_that_is_held_is_refused(roster, twin):
    with pytest.raises(NameInUse, match="looks like"):
        roster.claim(twin, None)


def test_a_name_in_another_case_is_a_name_of_its_own(roster):
    assert roster.claim("Ann", None) is None


def test_a_look_alike_is_free_once_its_twin_has_gone(roster):
    roster.remove(roster.get("ann"), "left")
    assert roster.claim("аnn", None) is None
