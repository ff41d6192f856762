"""What is taken from a ring, and when what is lost was lost."""

from __future__ import annotations

import pytest

from alphapulse.clock import NO_TIME, monotonic_ns
from alphapulse.config import StoreSettings
from alphapulse.history import GapRow
from alphapulse.shm import RingReader
from alphapulse.store.taking import Taking
from tests.trading import NOW_NS, Venue


def loss(prefix: str, frames: list[int], heard_ns: int = NO_TIME) -> GapRow:
    """What is written down of a loss.

    Parameters
    ----------
    prefix : of the ring
    frames : our times of a trade before the loss, if there are two, and of all those from it on
    heard_ns : our time of the last record before
    """
    *before, behind = frames
    taking = Taking("kraken", StoreSettings(), heard_ns)
    with Venue(prefix, size_bytes=1 << 14) as venue:
        for received_ns in before:
            venue.trade("BTC-USD", 0, received_ns=received_ns)
        with RingReader("kraken", prefix=prefix, start="oldest") as reader:
            if before:
                taking.collect(reader, monotonic_ns())
            for number in range(1, 1000):
                venue.trade("BTC-USD", number, received_ns=behind)
            collected = taking.collect(reader, monotonic_ns())
    assert collected.trades
    (gap,) = collected.gaps
    return gap


def test_a_loss_is_later_than_all_that_was_heard_before_it(ring_prefix: str) -> None:
    assert loss(ring_prefix, [NOW_NS, NOW_NS + 5]).since_ns == NOW_NS + 1


def test_a_loss_amid_a_frame_is_no_later_than_the_frame(ring_prefix: str) -> None:
    assert loss(ring_prefix, [NOW_NS, NOW_NS]).since_ns == NOW_NS


@pytest.mark.parametrize(("heard_ns", "since_ns"), [(NOW_NS, NOW_NS + 1), (NO_TIME, NO_TIME)])
def test_a_loss_before_all_that_is_taken_is_later_than_what_was_written(
    ring_prefix: str, heard_ns: int, since_ns: int
) -> None:
    assert loss(ring_prefix, [NOW_NS + 5], heard_ns).since_ns == since_ns
