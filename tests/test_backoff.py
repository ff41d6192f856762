"""Pauses grow, differ, and reset only after data has flowed."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from alphapulse.backoff import Backoff


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_backoff(clock: ManualClock, first: float = 0.5, most: float = 60.0) -> Backoff:
    return Backoff(first, most, 30.0, clock=clock, rng=random.Random(7))


@given(
    first=st.floats(0.01, 10),
    most=st.floats(0.01, 1000),
    seed=st.integers(0, 2**32),
    failures=st.integers(1, 100),
)
def test_a_pause_lies_within_half_of_its_doubling_mean(
    first: float, most: float, seed: int, failures: int
) -> None:
    backoff = Backoff(first, most, 30.0, clock=ManualClock(), rng=random.Random(seed))
    mean = first
    for _ in range(failures):
        assert mean * 0.5 <= backoff.failed() <= mean * 1.5
        mean = min(mean * 2, max(first, most))


def test_pauses_differ_so_that_collectors_do_not_reconnect_in_step() -> None:
    pauses = {Backoff(1.0, 60.0, 30.0).failed() for _ in range(20)}
    assert len(pauses) > 10


def test_a_connection_that_opens_and_dies_never_resets_the_pause() -> None:
    clock = ManualClock()
    backoff = make_backoff(clock)
    for _ in range(20):
        clock.now += 5
        backoff.flowing()
        clock.now += 5
        backoff.flowing()
        pause = backoff.failed()
    assert pause >= 30.0


def test_data_that_flowed_long_enough_resets_the_pause() -> None:
    clock = ManualClock()
    backoff = make_backoff(clock)
    for _ in range(10):
        backoff.failed()
    backoff.flowing()
    clock.now += 30
    backoff.flowing()
    assert backoff.failed() <= 0.75


def test_time_without_data_does_not_count() -> None:
    clock = ManualClock()
    backoff = make_backoff(clock)
    backoff.failed()
    backoff.failed()
    clock.now += 3600
    backoff.flowing()
    assert backoff.failed() >= 1.0
