"""The native queues and groups against plain-Python twins, and over real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.model import Reason
from alphapulse.stream._fanout import WRITE_BYTES, Item, Outbox, Ready
from alphapulse.stream._groups import Group
from alphapulse.stream.deflate import inflate
from alphapulse.stream.frames import payload_of, text_frame
from tests.reference import fanout as reference

EVENT, DELTA, SNAPSHOT = range(3)
SECOND = 1_000_000_000
QUEUE_BYTES = 2000
BEHIND_NS = 10 * SECOND


class Lapse:
    """Tells states of a view."""

    def __init__(self, name: int, make: Any) -> None:
        self._name = name
        self._make = make

    def stale(self) -> Any:
        return self._make(f"{self._name} is stale".encode(), EVENT, None, 0)

    def live(self) -> Any:
        return self._make(f"{self._name} is live".encode(), EVENT, None, 0)


class View:
    """A book view whose snapshots are numbered; both queues get the same.

    The first of them doesn't tell of what is left out.
    """

    def __init__(self, name: int, parts: int, size: int, make: Any) -> None:
        self.name = name
        self.lapse = Lapse(name, make) if name else None
        self.served = True
        self.version = 0
        self._parts = parts
        self._size = size
        self._make = make

    def serves(self, client: object) -> bool:
        return self.served

    def snapshot(self, reason: Reason) -> list[Any]:
        frames = (
            f"<{self.name} {reason.text} {self.version} {part}>".encode().ljust(self._size, b".")
            for part in range(self._parts)
        )
        return [self._make(frame, SNAPSHOT, self, 0) for frame in frames]


class Sink:
    """A connection that takes some writes, then none until it is told to go on."""

    def __init__(self) -> None:
        self.paused = False
        self.room: int | None = None
        """Bytes after which it is paused."""
        self.writes: list[bytes] = []
        self.closed: tuple[int, str] | None = None

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        if self.room is not None:
            self.room -= len(data)
            self.paused = self.room <= 0

    def close(self, code: int, reason: str) -> None:
        self.closed = code, reason


class Side:
    """One of the two implementations with its surroundings."""

    def __init__(self, parts: int, size: int) -> None:
        self.sink = Sink()
        self.views: list[View] = []
        self.now_ns = SECOND

    def act(self, name: str, *values: Any) -> None:
        getattr(self, f"_{name}")(*values)

    def seen(self) -> tuple[Any, ...]:
        raise NotImplementedError

    def _pause(self) -> None:
        self.sink.paused = True

    def _limit(self, room: int) -> None:
        self.sink.room = room

    def _serve(self, view: int, served: bool) -> None:
        self.views[view].served = served

    def _pass(self, seconds: int) -> None:
        self.now_ns += seconds * SECOND


class Native(Side):
    def __init__(self, parts: int, size: int) -> None:
        super().__init__(parts, size)
        self.ready: Ready[Outbox] = Ready()
        self.outbox = Outbox(self.sink, QUEUE_BYTES, BEHIND_NS, self.ready, self.now_ns)
        self.group: Group[Outbox] = Group()
        self.group.add(self.outbox)
        self.views = [View(name, parts, size, Item) for name in range(3)]
        self.conflations = 0

    def seen(self) -> tuple[Any, ...]:
        self.conflations += self.outbox.take_conflations()
        outbox = self.outbox
        return (
            *(self.sink.writes, self.sink.closed, outbox.closed, outbox.waiting_bytes),
            *(len(self.ready), self.conflations),
        )

    def _deliver(self, kind: int, view: int, size: int) -> None:
        frame = f"{kind} {view} {size}".encode().ljust(size, b"-")
        self.views[view].version += kind == DELTA
        shown = self.views[view] if kind == DELTA else None
        lapse = self.views[view].lapse if kind == DELTA else None
        self.group.deliver(Item(frame, kind, shown, self.now_ns, lapse))

    def _owe(self, view: int) -> None:
        self.group.owe(self.views[view], Reason.SUBSCRIBED)

    def _present(self, view: int) -> None:
        shown = self.views[view]
        self.group.present(shown.snapshot(Reason.RESYNCED), shown, Reason.RESYNCED)

    def _tell(self, view: int, live: bool) -> None:
        item = Item(f"state {view} {live}".encode(), EVENT, None, self.now_ns)
        self.group.tell(item, self.views[view], live)

    def _flush(self) -> None:
        closed = self.ready.flush(self.now_ns)
        assert closed == ([self.outbox] if self.outbox.closed else []) or not closed

    def _resume(self) -> None:
        self.sink.paused, self.sink.room = False, None
        self.outbox.resume(self.now_ns)

    def _check(self) -> None:
        self.outbox.check(self.now_ns)


class Twin(Side):
    def __init__(self, parts: int, size: int) -> None:
        super().__init__(parts, size)
        self.ready: list[reference.Outbox] = []
        self.outbox = reference.Outbox(self.sink, QUEUE_BYTES, BEHIND_NS, self.ready, self.now_ns)
        self.views = [View(name, parts, size, reference.Item) for name in range(3)]

    def seen(self) -> tuple[Any, ...]:
        outbox = self.outbox
        return (
            *(self.sink.writes, self.sink.closed, outbox.closed, outbox.waiting_bytes),
            *(len(self.ready), outbox.conflations),
        )

    def _deliver(self, kind: int, view: int, size: int) -> None:
        frame = f"{kind} {view} {size}".encode().ljust(size, b"-")
        self.views[view].version += kind == DELTA
        shown = self.views[view] if kind == DELTA else None
        lapse = self.views[view].lapse if kind == DELTA else None
        self.outbox.deliver(reference.Item(frame, kind, shown, self.now_ns, lapse))

    def _owe(self, view: int) -> None:
        self.outbox.owe(self.views[view], Reason.SUBSCRIBED)

    def _present(self, view: int) -> None:
        shown = self.views[view]
        self.outbox.present(shown.snapshot(Reason.RESYNCED), shown, Reason.RESYNCED)

    def _tell(self, view: int, live: bool) -> None:
        item = reference.Item(f"state {view} {live}".encode(), EVENT, None, self.now_ns)
        self.outbox.send_state(item, self.views[view], live)

    def _flush(self) -> None:
        turn, self.ready[:] = self.ready[:], []
        for outbox in turn:
            outbox.flush(self.now_ns)

    def _resume(self) -> None:
        self.sink.paused, self.sink.room = False, None
        self.outbox.resume(self.now_ns)

    def _check(self) -> None:
        self.outbox.check(self.now_ns)


views = st.integers(0, 2)
actions = st.one_of(
    st.tuples(
        st.just("deliver"), st.sampled_from([EVENT, DELTA, DELTA]), views, st.integers(8, 900)
    ),
    st.tuples(st.sampled_from(["owe", "present"]), views),
    st.tuples(st.just("tell"), views, st.booleans()),
    st.tuples(st.just("serve"), views, st.booleans()),
    st.tuples(st.just("limit"), st.integers(1, 3000)),
    st.tuples(st.just("pass"), st.integers(1, 8)),
    st.sampled_from([("pause",), ("resume",), ("check",), ("flush",), ("flush",)]),
)


@given(
    st.lists(actions, max_size=60),
    st.integers(1, 3),
    st.sampled_from([40, 700, WRITE_BYTES // 2, WRITE_BYTES + 1]),
)
def test_a_queue_does_as_its_twin(steps: list[tuple[Any, ...]], parts: int, size: int) -> None:
    native, twin = Native(parts, size), Twin(parts, size)
    for name, *values in steps:
        native.act(name, *values)
        twin.act(name, *values)
        assert native.seen() == twin.seen(), name
    for _ in range(50):
        native.act("resume")
        twin.act("resume")
        native.act("flush")
        twin.act("flush")
        assert native.seen() == twin.seen()


memberships = st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 30))


@given(st.lists(memberships, max_size=300), st.sets(st.integers(0, 30)))
def test_groups_are_sets_of_clients(steps: list[tuple[bool, int, int]], ended: set[int]) -> None:
    ready: Ready[Outbox] = Ready()
    sinks = [Sink() for _ in range(41)]
    outboxes = [Outbox(sink, QUEUE_BYTES, BEHIND_NS, ready, 0) for sink in sinks]
    groups: dict[int, Group[Outbox]] = {number: Group() for number in range(31)}
    twins: dict[int, set[int]] = {number: set() for number in groups}
    for joins, who, where in steps:
        if joins:
            groups[where].add(outboxes[who])
            twins[where].add(who)
        else:
            groups[where].discard(outboxes[who])
            twins[where].discard(who)
    for number in ended:
        del groups[number]
    for number, group in groups.items():
        members = {outboxes.index(outbox) for outbox in group}
        assert members == twins[number] == {n for n, one in enumerate(outboxes) if one in group}
        assert len(group) == len(members)
        group.deliver(Item(b"%d;" % number, EVENT, None, 0))
    ready.flush(0)
    for number, sink in enumerate(sinks):
        expected = [one for one in groups if number in twins[one]]
        assert b"".join(sink.writes) == b"".join(b"%d;" % one for one in expected)


class Transport:
    """Holds back what the socket doesn't take, as an event loop's transport does."""

    is_close_frame_sent = False

    def __init__(self, end: socket.socket) -> None:
        self.paused = False
        self.held = b""
        self.closed: tuple[int, str] | None = None
        self._end = end

    def write(self, data: bytes) -> None:
        assert not self.held
        self.held = data
        self.move()

    def move(self) -> None:
        with suppress(BlockingIOError):
            self.held = self.held[self._end.send(self.held) :]
        self.paused = bool(self.held)

    def close(self, code: int, reason: str) -> None:
        self.closed = code, reason


class Line:
    """A client's queue at one end of a small socket."""

    def __init__(self, *, compressed: bool = False) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.near.setblocking(False)
        self.far.setblocking(False)
        self.transport = Transport(self.near)
        self.ready: Ready[Outbox] = Ready()
        self.outbox = Outbox(self.transport, 1 << 24, BEHIND_NS, self.ready, 0, compressed)
        self.outbox.use_socket(self.near.fileno(), self.transport)
        self.got = b""

    def read(self) -> bool:
        """Take what is there; whether anything was."""
        try:
            data = self.far.recv(1 << 16)
        except BlockingIOError:
            return False
        self.got += data
        return bool(data)

    def read_all(self) -> None:
        while self.read() or len(self.ready) or self.transport.held:
            if self.transport.held:
                self.transport.move()
                if not self.transport.paused:
                    self.outbox.resume(0)
            self.ready.flush(0)

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.close()


@given(
    st.lists(st.integers(1, 3000) | st.sampled_from([WRITE_BYTES, WRITE_BYTES + 7]), max_size=40)
)
def test_a_socket_gets_every_byte_once_and_in_order(sizes: list[int]) -> None:
    line = Line()
    try:
        frames = [b"%d:" % number + bytes(size) for number, size in enumerate(sizes)]
        for number, frame in enumerate(frames):
            line.outbox.send(Item(frame, EVENT, None, 0))
            line.ready.flush(0)
            if number % 3 == 2:
                line.read()
        line.read_all()
        assert line.got == b"".join(frames)
        assert line.ready.messages == len(frames)
        assert line.outbox.waiting_bytes == 0
    finally:
        line.close()


def test_only_the_rest_of_one_frame_is_beyond_conflation(line: Line) -> None:
    view = View(0, 1, 100, Item)
    frames = [b"%04d" % number + bytes(996) for number in range(100)]
    for frame in frames:
        line.outbox.send(Item(frame, DELTA, view, 0))
    line.ready.flush(0)
    assert line.transport.paused
    assert 0 < len(line.transport.held) <= 1000
    line.outbox.check(6 * SECOND)
    assert line.outbox.take_conflations() == 1
    line.read_all()
    began = len(line.got) // 1000
    assert line.got == b"".join(frames[:began]) + view.snapshot(Reason.LAPPED)[0].frame


def test_nothing_follows_the_transports_own_close_frame(line: Line) -> None:
    line.transport.is_close_frame_sent = True
    line.outbox.send(Item(b"late", EVENT, None, 0))
    assert line.ready.flush(0) == [line.outbox]
    assert line.outbox.closed
    line.read_all()
    assert line.got == b""


def test_a_dead_socket_is_left_to_the_transport(line: Line) -> None:
    line.far.close()
    line.outbox.send(Item(b"lost", EVENT, None, 0))
    with pytest.raises(BrokenPipeError):
        line.ready.flush(0)


def test_a_frame_is_compressed_once_for_all_who_want_it() -> None:
    plain, *others = [Line(compressed=compressed) for compressed in (False, True, True)]
    text = '{"type":"trade"}' * 20
    try:
        group: Group[Outbox] = Group()
        for line in (plain, *others):
            group.add(line.outbox)
        group.deliver(Item(text_frame(text), EVENT, None, 0))
        for line in (plain, *others):
            line.ready.flush(0)
            line.read_all()
        assert plain.got == text_frame(text)
        assert others[0].got == others[1].got
        assert len(others[0].got) < len(plain.got)
        assert inflate(payload_of(others[0].got), 1 << 20).decode() == text
    finally:
        for line in (plain, *others):
            line.close()
