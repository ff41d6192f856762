from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from alphapulse.stream.door import AT_ONCE, Door, Visitor, listen

MOST = 3


class Porch:
    """A door and what it has said."""

    def __init__(self) -> None:
        [bound] = listen("127.0.0.1", 0, shared=False)
        self.evicted = 0
        self.left = 0
        self.door = Door(bound, MOST, self._evict, self._leave)
        self.door.setblocking(False)
        self.door.listen(100)
        self.address = self.door.getsockname()

    def _evict(self) -> None:
        self.evicted += 1

    def _leave(self) -> None:
        self.left += 1


@pytest.fixture
def porch() -> Iterator[Porch]:
    porch = Porch()
    yield porch
    porch.door.close()


@contextmanager
def visits(porch: Porch, count: int) -> Iterator[list[tuple[socket.socket, Visitor]]]:
    with ExitStack() as stack:
        pairs = []
        for _ in range(count):
            outside = stack.enter_context(socket.create_connection(porch.address))
            outside.settimeout(10)
            visitor, _ = porch.door.accept()
            pairs.append((outside, stack.enter_context(visitor)))
        yield pairs


def test_the_oldest_handshake_is_ended_when_there_are_too_many(porch: Porch) -> None:
    with visits(porch, MOST + 1) as pairs:
        assert (porch.evicted, porch.door.waiting) == (1, MOST)
        assert pairs[0][0].recv(1) == b""
        pairs[1][1].sendall(b"x")
        assert pairs[1][0].recv(1) == b"x"
    assert (porch.left, porch.door.waiting) == (MOST, 0)


def test_who_was_admitted_is_not_counted_any_more(porch: Porch) -> None:
    with visits(porch, MOST) as pairs:
        for _, visitor in pairs:
            porch.door.admit(visitor.fileno())
        assert porch.door.waiting == 0
        with visits(porch, MOST):
            assert porch.evicted == 0
    assert porch.left == MOST


def test_others_have_their_turn_between_many_arrivals(porch: Porch) -> None:
    with ExitStack() as stack:
        for _ in range(AT_ONCE + 1):
            stack.enter_context(socket.create_connection(porch.address))
        for _ in range(AT_ONCE):
            stack.enter_context(porch.door.accept()[0])
        with pytest.raises(BlockingIOError, match="enough for now"):
            porch.door.accept()
        stack.enter_context(porch.door.accept()[0])
        with pytest.raises(BlockingIOError):
            porch.door.accept()


def test_without_a_file_descriptor_left_the_visitor_is_turned_away(porch: Porch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_connection(porch.address) as outside:
        outside.settimeout(10)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            with pytest.raises(BlockingIOError) as blocked:
                porch.door.accept()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert blocked.value.errno == errno.EAGAIN
        assert porch.evicted == 1
        assert outside.recv(1) == b""
    with visits(porch, 1):
        assert porch.door.waiting == 1


def test_a_port_is_shared_only_where_both_say_so() -> None:
    [first] = listen("127.0.0.1", 0, shared=True)
    with first:
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            listen("127.0.0.1", port, shared=False)
        [second] = listen("127.0.0.1", port, shared=True)
        second.close()


def test_all_addresses_of_a_host_have_one_port() -> None:
    bound = listen("localhost", 0, shared=False)
    try:
        assert len({one.getsockname()[1] for one in bound}) == 1
    finally:
        for one in bound:
            one.close()
