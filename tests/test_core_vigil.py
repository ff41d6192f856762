"""The thread that waits for a ring without the interpreter."""

from __future__ import annotations

import os
import random
import select
from collections.abc import Iterator
from threading import Thread

import pytest

from alphapulse._core.consumer import Consumer
from alphapulse._core.producer import Producer
from alphapulse._core.segment import OPEN, READERS_BYTES, ReadersPage, Segment
from alphapulse._core.vigil import Vigil
from tests.ring_memory import SECOND, heap, new_ring, producer
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


def both_ends() -> tuple[Producer, Consumer]:
    """A ring's writer, and a reader that it wakes."""
    memory, page = new_ring(1 << 20), heap(READERS_BYTES)
    writer = Producer(Segment(memory, writable=True), ReadersPage(page, create=True), lambda: 1)
    return writer, Consumer(Segment(memory), ReadersPage(page), 3)


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


def test_news_that_nobody_waits_for_is_told_when_somebody_does(post: Post) -> None:
    writer, consumer = both_ends()
    for unheard in (0, 1, 2):
        post.vigil.arm(consumer, 0, HOUR_NS, OPEN)
        writer.write(instrument_record(1))
        writer.wake()
        assert post.told()
        for _ in range(unheard):
            writer.write(instrument_record(1))
            writer.wake()
        while consumer.next(100):
            pass
    post.vigil.arm(consumer, 0, HOUR_NS, OPEN)
    writer.write(instrument_record(1))
    writer.wake()
    assert post.told()


def test_no_news_is_lost_whenever_it_comes(post: Post) -> None:
    """Each record is waited for, while the writer goes on at any moment."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    writer, consumer = both_ends()
    pauses = [chance.choice((0, 0, 100, 1000)) for _ in range(5000)]

    def write() -> None:
        for pause in pauses:
            for _ in range(pause):
                pass
            writer.write(instrument_record(1))
            writer.wake()

    thread = Thread(target=write)
    thread.start()
    taken = 0
    while taken < len(pauses):
        while records := consumer.next(100):
            assert not isinstance(records, tuple), "the ring holds all of them"
            taken += len(records)
        if taken < len(pauses):
            post.vigil.arm(consumer, 0, HOUR_NS, OPEN)
            assert post.told()
            post.vigil.hear()
    thread.join()


def test_it_can_be_ended_while_it_waits_and_before(post: Post) -> None:
    post.vigil.arm(Consumer(Segment(new_ring())), 0, HOUR_NS, OPEN)
    post.close()
    post.event = os.eventfd(0)
    Post().close()
