"""Section 5: what waits, what was handed out, and what an acknowledgement frees."""

from __future__ import annotations

import pytest

from caucus import Mailbox, Message, id_of


def message(seq: int, origin: str = "agent", kind: str = "message") -> Message:
    return Message(id_of(seq), "ann", "bob", f"text {seq}", kind, 0.0, seq, origin)


def mailbox(*spoken: int, operator: tuple[int, ...] = ()) -> Mailbox:
    """Give a mailbox to which the agents' and the operator's messages came in order of seq."""
    box = Mailbox()
    for seq in sorted((*spoken, *operator)):
        box.put(message(seq, "operator" if seq in operator else "agent"))
    return box


def waiting(box: Mailbox) -> list[int]:
    return [one.seq for one in box.deliverable(held=False)]


def fetched(box: Mailbox) -> list[int]:
    return [one.seq for one in box.fetched]


def test_an_empty_mailbox_has_nothing_to_deliver():
    assert not Mailbox().has_deliverable(held=False)


def test_messages_wait_in_the_order_of_seq():
    assert waiting(mailbox(1, 3, 4, operator=(2, 5))) == [1, 2, 3, 4, 5]


def test_fetching_keeps_the_messages():
    box = mailbox(1, 2)
    box.fetch(held=False)
    assert (len(box), box.waiting, fetched(box)) == (2, 0, [1, 2])


def test_what_was_fetched_is_not_delivered_again():
    box = mailbox(1)
    box.fetch(held=False)
    box.put(message(2))
    assert waiting(box) == [2]


def test_acknowledging_frees_what_was_fetched_up_to_it():
    box = mailbox(1, 2, 3)
    box.fetch(held=False)
    box.acknowledge(2)
    assert fetched(box) == [3]


def test_an_acknowledgement_beyond_anything_fetched_frees_only_what_was_fetched():
    box = mailbox(1)
    box.fetch(held=False)
    box.put(message(2))
    box.acknowledge(1_000_000)
    assert (fetched(box), waiting(box)) == ([], [2])


def test_an_acknowledgement_of_what_only_waits_frees_nothing():
    box = mailbox(1, 2)
    box.acknowledge(2)
    assert waiting(box) == [1, 2]


@pytest.mark.parametrize(("seq", "frees"), [(2, True), (3, True)])
def test_an_acknowledgement_is_news_when_it_would_free_something(seq, frees):
    box = mailbox(2)
    box.fetch(held=False)
    assert box.acknowledged_by(seq) is frees


def test_an_acknowledgement_of_an_empty_mailbox_is_no_news():
    assert not Mailbox().acknowledged_by(9)


def test_a_held_mailbox_delivers_operator_traffic_only():
    box = mailbox(1, 3, operator=(2,))
    assert [one.seq for one in box.deliverable(held=True)] == [2]


def test_a_held_mailbox_with_agents_traffic_only_has_nothing_deliverable():
    assert not mailbox(1).has_deliverable(held=True)


def test_a_held_mailbox_with_operator_traffic_has_something_deliverable():
    assert mailbox(1, operator=(2,)).has_deliverable(held=True)


def test_fetching_from_a_held_mailbox_leaves_the_rest_waiting():
    box = mailbox(1, 3, operator=(2,))
    box.fetch(held=True)
    assert (fetched(box), waiting(box)) == ([2], [1, 3])


def test_what_the_operator_overtook_is_fetched_into_its_place():
    box = mailbox(1, 3, operator=(2,))
    box.fetch(held=True)
    box.fetch(held=False)
    assert fetched(box) == [1, 2, 3]


def test_a_command_is_not_kept_once_fetched():
    box = mailbox(1)
    box.put(message(2, "operator", "control"))
    box.fetch(held=False)
    assert fetched(box) == [1]


def test_unfetching_puts_messages_back_in_front_of_what_came_meanwhile():
    box = mailbox(1, 2, operator=(3,))
    box.fetch(held=False)
    box.put(message(4))
    box.put(message(5, "operator"))
    box.unfetch([1, 2, 3])
    assert (fetched(box), waiting(box)) == ([], [1, 2, 3, 4, 5])


def test_unfetching_some_keeps_the_others_fetched():
    box = mailbox(1, 2, 3)
    box.fetch(held=False)
    box.unfetch([2])
    assert (fetched(box), waiting(box)) == ([1, 3], [2])


def test_unfetched_operator_traffic_still_pierces_a_pause():
    box = mailbox(1, operator=(2,))
    box.fetch(held=False)
    box.unfetch([1, 2])
    assert [one.seq for one in box.deliverable(held=True)] == [2]


def test_unfetching_what_was_never_fetched_changes_nothing():
    box = mailbox(1)
    box.unfetch([1, 99])
    assert (fetched(box), waiting(box)) == ([], [1])


def test_a_message_can_be_fetched_again_after_unfetching():
    box = mailbox(1)
    box.fetch(held=False)
    box.unfetch([1])
    box.fetch(held=False)
    assert fetched(box) == [1]


def test_what_was_taken_back_is_freed_by_a_reader_that_had_it_after_all():
    box = mailbox(1, 2, 5, operator=(3,))
    box.fetch(held=False)
    box.unfetch([1, 3, 5])
    box.put(message(6))
    assert box.acknowledged_by(3)
    box.acknowledge(3)
    assert (waiting(box), fetched(box)) == ([5, 6], [])


def test_a_repeated_acknowledgement_frees_nothing_that_was_taken_back_since():
    box = mailbox(1, operator=(2,))
    box.fetch(held=True)
    box.acknowledge(2)
    box.fetch(held=False)
    box.unfetch([1])
    assert not box.acknowledged_by(2)
    assert waiting(box) == [1]


def test_what_was_taken_back_is_not_freed_by_one_who_counts_otherwise():
    box = mailbox(1)
    box.fetch(held=False)
    box.unfetch([1])
    box.acknowledge(1_000_000_000)
    assert waiting(box) == [1]


def test_what_was_taken_back_and_lost_is_forgotten():
    box = mailbox(1)
    box.fetch(held=False)
    box.unfetch([1])
    box.lose()
    box.acknowledge(1)
    assert not box.acknowledged_by(1)


def test_an_overflow_loses_what_was_handed_out_then_what_waits_and_the_operators_words_last():
    box = mailbox(2, 3, 5, 6, operator=(1, 4))
    box.fetch(held=True)
    box.put(message(7, "operator"))
    lost = []
    while len(box):
        lost.append(box.oldest().seq)
        box.lose()
    assert lost == [1, 4, 2, 3, 5, 6, 7]


def test_an_overflow_loses_what_is_held_for_the_operator_only_when_nothing_else_is_left():
    box = mailbox(1, 2, 3, operator=(4,))
    held = {1: 1, 2: 1}
    lost = []
    while len(box):
        lost.append(box.oldest(held).seq)
        box.lose(held)
    assert lost == [3, 1, 2, 4]


def test_what_a_poll_waited_for_is_out_at_once():
    box = mailbox(1)
    box.put(message(2), is_out=True)
    assert (fetched(box), waiting(box), box.handed_out) == ([2], [1], 2)


def test_dropping_commands_keeps_the_operators_words():
    box = mailbox(1, operator=(2,))
    box.put(message(3, "operator", "control"))
    box.drop_commands()
    assert waiting(box) == [1, 2]


def test_fetching_up_to_a_seq_leaves_the_rest_waiting_in_order():
    box = mailbox(1, 3, 5, operator=(2, 4))
    box.fetch(held=False, upto=3)
    assert (fetched(box), waiting(box)) == ([1, 2, 3], [4, 5])
    box.acknowledge(3)
    box.fetch(held=False)
    assert fetched(box) == [4, 5]


def test_fetching_up_to_a_seq_through_a_pause_leaves_what_it_holds():
    box = mailbox(1, 3, operator=(2, 4))
    box.fetch(held=True, upto=2)
    assert (fetched(box), waiting(box)) == ([2], [1, 3, 4])


def test_what_waits_again_and_is_held_back_is_not_acknowledged_with_what_came_after_it():
    box = mailbox(1)
    box.fetch(held=False)
    box.unfetch([1])
    box.put(message(2, origin="operator"))
    box.fetch(held=True)
    box.acknowledge(2)
    assert waiting(box) == [1]


def test_what_came_after_a_higher_seq_and_waits_again_is_not_acknowledged_with_that():
    box = mailbox(1)
    box.put(message(2, origin="operator"))
    box.fetch(held=True)
    box.fetch(held=False)
    box.unfetch([1])
    again = Mailbox.from_plain(box.to_plain(), {one.id: one for one in box})
    for one in (box, again):
        one.acknowledge(2)
        assert waiting(one) == [1]
