"""Budgets are never exceeded, whoever waits and whatever the venue asks for."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.collectors.allowance import Allowance, TokenBucket
from alphapulse.collectors.venue import Budget
from tests.support import ManualClock

budgets = st.builds(Budget, st.integers(1, 100), st.integers(1, 600), st.integers(1, 50))
steps = st.lists(
    st.tuples(st.floats(0, 50), st.integers(1, 20), st.sampled_from([0.0, 0.0, 0.0, 7.0])),
    max_size=60,
)


@given(budget=budgets, share=st.floats(0.05, 1), steps=steps)
def test_no_window_sees_more_than_burst_and_rate_allow(
    budget: Budget, share: float, steps: list[tuple[float, int, float]]
) -> None:
    clock = ManualClock()
    bucket = TokenBucket(budget, share, clock=clock)
    rate = budget.amount * share / budget.seconds
    burst = max(1.0, budget.burst * share)
    taken: list[tuple[float, float]] = []
    held_until = 0.0
    for pause, wanted, hold in steps:
        clock.now += pause
        amount = min(wanted, burst)
        if bucket.take(amount):
            assert clock.now >= held_until - 1e-6
            taken.append((clock.now, amount))
        if hold:
            bucket.hold(hold)
            held_until = max(held_until, clock.now + hold)
    for index, (start, _) in enumerate(taken):
        total = 0.0
        for now, amount in taken[index:]:
            total += amount
            assert total <= burst + (now - start) * rate + 1e-2


@given(budget=budgets, amounts=st.lists(st.integers(1, 200), min_size=1, max_size=20))
def test_the_wait_that_is_told_suffices(budget: Budget, amounts: list[int]) -> None:
    clock = ManualClock()
    bucket = TokenBucket(budget, clock=clock)
    for amount in amounts:
        wait = bucket.wait_seconds(amount)
        if wait > 0.1:
            clock.now += wait * 0.9
            assert not bucket.take(amount)
            wait *= 0.1
        clock.now += wait + 1e-6
        assert bucket.take(amount)


def test_more_than_the_burst_is_paid_off_afterwards() -> None:
    clock = ManualClock()
    bucket = TokenBucket(Budget(10, 1, 10), clock=clock)
    assert bucket.take(50)
    assert bucket.wait_seconds(1) == pytest.approx(4.1)


def test_a_hold_ends_with_one_and_not_with_a_burst() -> None:
    clock = ManualClock()
    bucket = TokenBucket(Budget(1, 1, 10), clock=clock)
    bucket.hold(30)
    assert bucket.wait_seconds() == pytest.approx(30)
    clock.now += 30
    assert bucket.take()
    assert not bucket.take()


def test_a_smaller_allowance_counts_at_once() -> None:
    clock = ManualClock()
    bucket = TokenBucket(Budget(100, 1, 100), clock=clock)
    bucket.change(Budget(1, 1, 2))
    assert bucket.take()
    assert bucket.take()
    assert not bucket.take()


async def test_tasks_pass_in_the_order_in_which_they_came() -> None:
    allowance = Allowance(Budget(1000, 1, 1))
    passed: list[int] = []

    async def pass_through(number: int) -> None:
        await allowance.take()
        passed.append(number)

    await asyncio.gather(*(pass_through(number) for number in range(10)))
    assert passed == list(range(10))


async def test_a_cancelled_task_takes_nothing() -> None:
    allowance = Allowance(Budget(1, 3600, 1))
    assert allowance.try_take()
    waiting = asyncio.create_task(allowance.take())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    allowance.change(Budget(1_000_000, 1, 1))
    await allowance.take()


async def test_a_hold_concerns_those_who_wait_already() -> None:
    allowance = Allowance(Budget(100, 1, 1))
    assert allowance.try_take()
    waiting = asyncio.create_task(allowance.take())
    await asyncio.sleep(0)
    allowance.hold(3600)
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    waiting.cancel()
