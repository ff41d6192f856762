"""What the ring benchmark asks of a way to pass messages on, and the ring's own answer to it.

A `Link` is made in the benchmark's process and travels to the processes of the sender and of the
readers, each of which opens its end. Every reader gets every message: 100 bytes, of which eight,
at `STAMP_AT`, are the sender's monotonic clock in the runs that measure times. The loops belong to
the link, so that none pays for a call that another doesn't need.
"""

from __future__ import annotations

import asyncio
import struct
from abc import ABC, abstractmethod
from array import array
from contextlib import AbstractContextManager, ExitStack
from typing import Literal, TypeAlias

import uvloop

from alphapulse.clock import monotonic_ns
from alphapulse.shm import RingReader, RingWriter

Mode: TypeAlias = Literal["one", "joined", "spin", "sleep", "asyncio"]
"""Throughput message by message or many at a time; times to a reader that polls, sleeps, awaits."""

MESSAGE_BYTES = 100
STAMP_AT = 40
"""Where the header of a record ends."""
JOINED = 100
"""Messages that are handed over together in mode ``joined``."""
STAMP = struct.Struct("<q")

_VENUE = "bench"
_UNKNOWN_TYPE = 200
_RING_BYTES = 64 << 20
_SPIN_NS = 100_000_000
_PATIENCE_SECONDS = 30.0

RECORD = struct.pack("<IBBHQqqq", MESSAGE_BYTES, _UNKNOWN_TYPE, 0, 0, 0, 0, 0, 0) + bytes(
    MESSAGE_BYTES - STAMP_AT
)
"""A message that is a record of a type which the wire format doesn't have."""


class Sender(AbstractContextManager["Sender"]):
    """The sending end, in its own process."""

    @abstractmethod
    def burst(self, count: int) -> None:
        """Send so many messages as fast as it goes."""

    @abstractmethod
    def send(self, message: bytearray) -> None:
        """Send one message, and see that a sleeping reader wakes."""

    def __exit__(self, *error: object) -> None:
        """Close the end; nothing to do unless a link has more to say."""


class Receiver(AbstractContextManager["Receiver"]):
    """A reading end, in its own process."""

    @abstractmethod
    def drain(self, count: int) -> None:
        """Return when so many messages have come, each of them an object unless joined."""

    @abstractmethod
    def times(self, count: int) -> array[int]:
        """One-way times of the next `count` messages, nanoseconds."""

    def __exit__(self, *error: object) -> None:
        """Close the end; nothing to do unless a link has more to say."""


class Link(ABC):
    """A way to pass messages from one process to others.

    Parameters
    ----------
    prefix : of the names of whatever it makes
    mode : what is going to be measured
    readers : how many
    """

    name: str
    distribution: str
    """Whose version is stated."""
    modes: frozenset[Mode]
    """What it is measured in."""

    def __init__(self, prefix: str, mode: Mode, readers: int) -> None:
        self.prefix = prefix
        self.mode = mode
        self.readers = readers

    def open(self, stack: ExitStack) -> None:  # noqa: B027
        """Start what neither end can start, to be ended by `stack`; most have nothing."""

    @abstractmethod
    def sender(self) -> Sender:
        """Open the sending end; called first."""

    @abstractmethod
    def receiver(self, index: int) -> Receiver:
        """Open the end of one reader; the sender is open already."""


class RingLink(Link):
    """The ring, through its public classes, with its default size."""

    name = "ring"
    distribution = ""
    modes = frozenset({"one", "joined", "spin", "sleep", "asyncio"})

    def sender(self) -> Sender:
        return _RingSender(self)

    def receiver(self, index: int) -> Receiver:
        return _RingReceiver(self)


class _RingSender(Sender):
    def __init__(self, link: RingLink) -> None:
        self._joined = link.mode == "joined"
        self.writer = RingWriter(
            _VENUE, prefix=link.prefix, size_bytes=_RING_BYTES, max_instruments=8
        )
        self._write, self._wake = self.writer.write, self.writer.wake

    def __exit__(self, *error: object) -> None:
        self.writer.close()

    def burst(self, count: int) -> None:
        if self._joined:
            write_run = self.writer.write_run
            run = (RECORD + bytes(-len(RECORD) % 8)) * JOINED
            for _ in range(count // JOINED):
                write_run(run)
        else:
            write = self.writer.write
            record = RECORD
            for _ in range(count):
                write(record)
        self.writer.wake()

    def send(self, message: bytearray) -> None:
        self._write(message)
        self._wake()


class _RingReceiver(Receiver):
    def __init__(self, link: RingLink) -> None:
        self._mode = link.mode
        # Like the limit, a reader that is to be fast polls; it sleeps in the modes that say so.
        spin_ns = _SPIN_NS if link.mode in ("one", "joined", "spin") else 0
        self.reader = RingReader(_VENUE, prefix=link.prefix, spin_ns=spin_ns)

    def __exit__(self, *error: object) -> None:
        self.reader.close()

    def drain(self, count: int) -> None:
        reader, read, got = self.reader, self.reader.read, 0
        joined = self._mode == "joined"
        while got < count:
            batch = read()
            if not batch:
                reader.wait(_PATIENCE_SECONDS)
            elif batch.overrun is not None:
                raise RuntimeError(f"overtaken: {batch.overrun}")
            elif joined:
                got += len(batch)
            else:
                for _record in batch:
                    got += 1

    def times(self, count: int) -> array[int]:
        if self._mode == "asyncio":
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(self._awaited(count))
        times = array("q")
        read, wait, unpack = self.reader.read, self.reader.wait, STAMP.unpack_from
        while len(times) < count:
            for record in read():
                times.append(monotonic_ns() - unpack(record, STAMP_AT)[0])
            wait(_PATIENCE_SECONDS)
        return times

    async def _awaited(self, count: int) -> array[int]:
        times = array("q")
        read, ready, unpack = self.reader.read, self.reader.ready, STAMP.unpack_from
        while len(times) < count:
            await ready()
            for record in read():
                times.append(monotonic_ns() - unpack(record, STAMP_AT)[0])
        return times
