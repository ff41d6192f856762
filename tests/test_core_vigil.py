"""Waits for a ring on behalf of an event loop: the kernel's own, and a thread's."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
from collections.abc import Iterator
from threading import Thread

import pytest

from alphapulse._core.consumer import Consumer
from alphapulse._core.producer import Producer
from alphapulse._core.segment import OPEN, READERS_BYTES, ReadersPage, Segment
from alphapulse._core.uring import UringVigil
from alphapulse._core.vigil import Vigil
from tests.ring_memory import SECOND, heap, new_ring, producer
from tests.ring_records import instrument_record
from tests.ring_waits import CLOCKS, KINDS

PATIENCE_SECONDS = 60.0
HOUR_NS = 3600 * SECOND


class Post:
    """A vigil at work, and the eventfd that it tells by."""

    def __init__(self, kind: str) -> None:
        self.event = os.eventfd(0, os.EFD_NONBLOCK)
        self._kernel = UringVigil(self.event) if kind == "kernel" else None
        self._vigil = Vigil(self.event)
        self._thread = Thread(target=self._vigil.run)
        self._thread.start()

    def arm(self, consumer: Consumer, timeout_ns: int, spin_ns: int = 0) -> None:
        if self._kernel is not None:
            self._kernel.arm(consumer, timeout_ns, OPEN)
        else:
            self._vigil.arm(consumer, spin_ns, timeout_ns, OPEN)

    def told(self, seconds: float = PATIENCE_SECONDS) -> bool:
        if not select.select([self.event], [], [], seconds)[0]:
            return False
        (self._kernel or self._vigil).hear()
        return True

    def close(self) -> None:
        if self._kernel is not None:
            self._kernel.close()
        while self._thread.is_alive():
            self._vigil.end()
            self._thread.join(0.01)
        os.close(self.event)


@pytest.fixture(params=KINDS)
def post(request: pytest.FixtureRequest) -> Iterator[Post]:
    post = Post(request.param)
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
    post.arm(consumer, 1000)
    assert post.told()
    assert consumer.drained
    post.arm(consumer, 1000, spin_ns=1000)
    assert post.told()
    writer.write(instrument_record(1))
    post.arm(consumer, HOUR_NS)
    assert post.told()
    assert not post.told(0)
    assert not consumer.drained


def always_in_time(kind: str) -> None:
    post, consumer = Post(kind), Consumer(Segment(new_ring()))
    try:
        post.arm(consumer, HOUR_NS)
        for _ in range(10):
            post.arm(consumer, 1000)
            assert post.told()
    finally:
        post.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clock", CLOCKS)
def test_time_is_up_whatever_the_clock_of_a_container(clock: list[str], kind: str) -> None:
    script = f"from {__name__} import always_in_time; always_in_time({kind!r})"
    subprocess.run([*clock, sys.executable, "-c", script], check=True)


def test_arming_it_again_ends_the_wait_before(post: Post) -> None:
    first, second = new_ring(), new_ring()
    post.arm(Consumer(Segment(first)), HOUR_NS)
    while not post.told(0.01):
        post.arm(Consumer(Segment(second)), HOUR_NS)
    writer = producer(second)
    writer.write(instrument_record(1))
    consumer = Consumer(Segment(second))
    while not post.told(0.01):
        post.arm(consumer, HOUR_NS)


def test_news_that_nobody_waits_for_is_told_when_somebody_does(post: Post) -> None:
    writer, consumer = both_ends()
    for unheard in (0, 1, 2):
        post.arm(consumer, HOUR_NS)
        writer.write(instrument_record(1))
        writer.wake()
        assert post.told()
        for _ in range(unheard):
            writer.write(instrument_record(1))
            writer.wake()
        while consumer.next(100):
            pass
    post.arm(consumer, HOUR_NS)
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
            post.arm(consumer, HOUR_NS)
            assert post.told()
    thread.join()


def test_it_can_be_ended_while_it_waits_and_before(post: Post) -> None:
    post.arm(Consumer(Segment(new_ring())), HOUR_NS)
    post.close()
    post.event = os.eventfd(0)
    for kind in KINDS:
        Post(kind).close()


if "kernel" in KINDS:

    def test_a_closed_one_says_so() -> None:
        event = os.eventfd(0, os.EFD_NONBLOCK)
        vigil = UringVigil(event)
        vigil.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            vigil.arm(Consumer(Segment(new_ring())), HOUR_NS, OPEN)
        with pytest.raises(OSError, match="Bad file descriptor"):
            vigil.hear()
        os.close(event)


def test_it_says_why_there_is_none() -> None:
    with pytest.raises(OSError, match="io_uring can't wait for a futex: "):
        UringVigil(-1)
