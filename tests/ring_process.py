"""A ring's writer or reader in a process of its own, steered line by line, to be killed at will.

``python -m tests.ring_process writer|reader PREFIX``. Lines on stdin are Python expressions over
``ring`` (the writer or reader) and this module's names; each one's value is printed. What opening
the ring raised is printed as the first line instead of ``open``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from alphapulse.errors import RingError
from alphapulse.shm import Position, RingReader, RingWriter, remove_dead
from tests.reference.ring import LIVE
from tests.ring_records import (
    UNKNOWN,
    instrument_record,
    record,
    snapshot_record,
    state_record,
)
from tests.support import ROOT

PATIENCE_SECONDS = 30

Attach = Callable[..., RingReader]
"""Where to begin, and the reader's settings."""


def eventually(condition: Callable[[], object]) -> None:
    """Wait until a condition holds that another process or thread brings about."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until, "it didn't come about"
        time.sleep(0.001)


def put(ring: RingWriter, count: int) -> int:
    """Write records of no known type; the last sequence."""
    for i in range(count):
        ring.write(record(UNKNOWN, 0, b"%d" % i))
    ring.wake()
    return ring.sequence


def begin_book(writer: RingWriter, number: int = 1) -> None:
    """Write an instrument, its snapshot and that it is live."""
    writer.write(instrument_record(number))
    writer.write(snapshot_record(number))
    writer.write(state_record(number, LIVE))


def fork_idle() -> int:
    """Fork a child that stays for as long as stdin is open."""
    pid = os.fork()
    if pid == 0:
        os.read(0, 1)
        os._exit(0)
    return pid


class Steered:
    """The process, from outside."""

    def __init__(self, role: str, prefix: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.ring_process", role, prefix],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def answer(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def do(self, expression: str) -> str:
        """The value of an expression, as it is printed there."""
        assert self._process.stdin
        self._process.stdin.write(f"{expression}\n")
        self._process.stdin.flush()
        return self.answer()

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream
            stream.close()


Start = Callable[..., Steered]
"""``writer`` or ``reader``, and whether to wait until the ring is open."""


@contextmanager
def steering(prefix: str) -> Iterator[Start]:
    """Start writers and readers of these rings; they are killed in the end."""
    started: list[Steered] = []

    def start(role: str, *, wait: bool = True) -> Steered:
        process = Steered(role, prefix)
        started.append(process)
        if wait:
            assert process.answer() == "open"
        return process

    try:
        yield start
    finally:
        for process in started:
            process.kill()
        remove_dead(prefix=prefix)


@contextmanager
def attaching(prefix: str) -> Iterator[Attach]:
    """Attach readers within this process; they are closed in the end."""
    readers: list[RingReader] = []

    def attach(where: str | Position = "latest", **options: int) -> RingReader:
        reader = RingReader("kraken", prefix=prefix, start=where, **options)  # type: ignore[arg-type]
        readers.append(reader)
        return reader

    try:
        yield attach
    finally:
        for reader in readers:
            reader.close()


def main() -> None:
    """Open the ring, then do as told."""
    role, prefix = sys.argv[1:]
    try:
        ring = (
            RingWriter("kraken", prefix=prefix, size_bytes=1 << 16, max_instruments=8)
            if role == "writer"
            else RingReader("kraken", prefix=prefix)
        )
    except RingError as error:
        print(error, flush=True)
        return
    print("open", flush=True)
    for line in sys.stdin:
        print(eval(line, globals(), {"ring": ring}), flush=True)  # noqa: S307


if __name__ == "__main__":
    main()
