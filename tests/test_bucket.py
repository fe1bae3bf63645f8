"""Section 4: a burst, its refill, and an honest retry_after."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caucus import Rate, Throttled, TokenBucket


def drain(bucket: TokenBucket, now: float) -> int:
    """Spend until refused; count."""
    for spent in range(1000):
        try:
            bucket.spend(now)
        except Throttled:
            return spent
    raise AssertionError("the bucket has no bottom")


def test_a_fresh_bucket_lets_its_burst_through_and_no_more():
    assert drain(TokenBucket(Rate(10.0, 2.0), 0.0), 0.0) == 10


def test_an_empty_bucket_refills_at_its_rate():
    bucket = TokenBucket(Rate(10.0, 2.0), 0.0)
    drain(bucket, 0.0)
    assert drain(bucket, 3.0) == 6


def test_a_bucket_never_holds_more_than_its_burst():
    assert drain(TokenBucket(Rate(10.0, 2.0), 0.0), 1_000.0) == 10


def test_a_check_spends_nothing():
    bucket = TokenBucket(Rate(3.0, 1.0), 0.0)
    for _ in range(9):
        bucket.check(0.0)
    assert drain(bucket, 0.0) == 3


def test_being_refused_spends_nothing():
    bucket = TokenBucket(Rate(1.0, 1.0), 0.0)
    drain(bucket, 0.0)
    for _ in range(9):
        with pytest.raises(Throttled):
            bucket.spend(0.5)
    assert drain(bucket, 1.0) == 1


def test_a_refusal_says_when_to_come_back_in_hundredths_of_a_second():
    bucket = TokenBucket(Rate(1.0, 2.0), 0.0)
    drain(bucket, 0.0)
    with pytest.raises(Throttled) as caught:
        bucket.spend(0.1)
    assert caught.value.body()["retry_after"] == 0.4


def test_a_retry_after_is_never_zero():
    bucket = TokenBucket(Rate(1.0, 2.0), 0.0)
    drain(bucket, 0.0)
    with pytest.raises(Throttled) as caught:
        bucket.spend(0.4999)
    assert caught.value.body()["retry_after"] >= 0.01


@settings(max_examples=100)
@given(
    burst=st.floats(1, 50),
    per_s=st.floats(0.05, 50),
    start=st.floats(0, 1e6),
    wait=st.floats(0, 1).map(lambda part: round(part, 3)),
)
def test_who_waits_for_retry_after_is_let_through(burst, per_s, start, wait):
    bucket = TokenBucket(Rate(burst, per_s), start)
    drain(bucket, start)
    try:
        bucket.check(start + wait / per_s)
    except Throttled as refusal:
        bucket.spend(start + wait / per_s + refusal.extra["retry_after"])


def test_one_change_retunes_all_buckets_of_a_rate():
    rate = Rate(10.0, 2.0)
    buckets = [TokenBucket(rate, 0.0) for _ in range(3)]
    rate.burst = 4.0
    assert [drain(bucket, 0.0) for bucket in buckets] == [4, 4, 4]


def test_a_bucket_is_full_again_when_all_that_was_spent_is_refilled():
    bucket = TokenBucket(Rate(4.0, 2.0), 0.0)
    bucket.spend(0.0)
    assert [bucket.is_full(0.0), bucket.is_full(0.4), bucket.is_full(0.5)] == [False, False, True]
