"""The thread that waits for a ring without the interpreter."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from threading import Thread

import pytest

from alphapulse._core.consumer import Consumer
from alphapulse._core.segment import OPEN, Segment
from alphapulse._core.vigil import Vigil
from tests.ring_memory import SECOND, new_ring, producer
from tests.ring_records import instrument_record

PATIENCE_SECONDS = 60.0
HOUR_NS = 3600 * SECOND


class Post:
    """A vigil at work, and the eventfd that it tells by."""

    def __init__(self) -> None:
        self.event = os.eventfd(0, os.EFD_NONBLOCK)
        self.vigil = Vigil(self.event)
        self._thread = Thread(target=self.vigil.run)
        self._thread.start()

    def told(self, seconds: float = PATIENCE_SECONDS) -> bool:
        if not select.select([self.event], [], [], seconds)[0]:
            return False
        return os.eventfd_read(self.event) > 0

    def close(self) -> None:
        while self._thread.is_alive():
            self.vigil.end()
            self._thread.join(0.01)
        os.close(self.event)


@pytest.fixture
def post() -> Iterator[Post]:
    post = Post()
    yield post
    post.close()


def test_it_tells_when_there_is_news_or_time_is_up(post: Post) -> None:
    memory = new_ring()
    writer = producer(memory)
    consumer = Consumer(Segment(memory))
    post.vigil.arm(consumer, 0, 1000, OPEN)
    assert post.told()
    assert consumer.drained
    post.vigil.arm(consumer, 1000, 1000, OPEN)
    assert post.told()
    writer.write(instrument_record(1))
    post.vigil.arm(consumer, 0, HOUR_NS, OPEN)
    assert post.told()
    assert not post.told(0)
    assert not consumer.drained


def test_arming_it_again_ends_the_wait_before(post: Post) -> None:
    first, second = new_ring(), new_ring()
    post.vigil.arm(Consumer(Segment(first)), 0, HOUR_NS, OPEN)
    while not post.told(0.01):
        post.vigil.arm(Consumer(Segment(second)), 0, HOUR_NS, OPEN)
    writer = producer(second)
    writer.write(instrument_record(1))
    consumer = Consumer(Segment(second))
    while not post.told(0.01):
        post.vigil.arm(consumer, 0, HOUR_NS, OPEN)


def test_it_can_be_ended_while_it_waits_and_before(post: Post) -> None:
    post.vigil.arm(Consumer(Segment(new_ring())), 0, HOUR_NS, OPEN)
    post.close()
    post.event = os.eventfd(0)
    Post().close()
