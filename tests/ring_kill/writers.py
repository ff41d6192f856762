"""Forks ring writers on command, so that each starts at once, and says when one has ended.

``python -m tests.ring_kill.writers PREFIX SEED``; each line on stdin starts one: ``start`` writes
until it is killed, ``finish`` writes a little, then a last record, and ends the ring. On stdout:
``pid N`` (of the process to kill), ``begun EPOCH BEFORE SEQUENCE``, ``finished EPOCH SEQUENCE``,
``ended``.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from itertools import count

from alphapulse.shm import RingWriter
from tests.reference.ring import DELTA, SNAPSHOT
from tests.ring_records import UNKNOWN, checked_body, instrument_record, record

VENUE = "kraken"
LAST = 201
BOOKS = 3


def say(text: str) -> None:
    """One line, written at once, so that it is there even if the process is killed next."""
    os.write(1, f"{text}\n".encode())


def flood(writer: RingWriter, chance: random.Random) -> Iterator[None]:
    """Write for ever; yields after each burst."""
    for book in range(1, BOOKS + 1):
        writer.write(instrument_record(book))
        writer.write(record(SNAPSHOT, book, body(writer, 50)))
    pause = chance.choice([0.0, 0.0, 0.0002])
    sizes = [chance.randrange(0, chance.choice([40, 1500])) for _ in range(64)]
    while True:
        for i in range(chance.randrange(1, 200)):
            kind = DELTA if i % 3 else UNKNOWN
            writer.write(record(kind, 1 + i % BOOKS, body(writer, sizes[i % 64])))
            for book in writer.due(time.time_ns()):
                writer.write(record(SNAPSHOT, book, body(writer, 50)))
        writer.wake()
        yield
        if pause:
            time.sleep(pause)


def body(writer: RingWriter, size: int) -> bytes:
    """Body of the record that is written next."""
    return checked_body(writer.sequence + 1, writer.epoch, size)


def write(prefix: str, seed: int, finish: bool) -> None:
    """Be one writer."""
    chance = random.Random(seed)
    size = chance.choice([1 << 16, 1 << 18, 1 << 20])
    writer = RingWriter(VENUE, prefix=prefix, size_bytes=size, max_instruments=8)
    before = writer.predecessor or (0, 0, 0)
    say(f"begun {writer.epoch} {before[0]} {before[1]}")
    for bursts, _ in enumerate(flood(writer, chance)):
        if finish and bursts == 20:
            break
    writer.write(record(LAST, 0, body(writer, 0)))
    writer.wake()
    say(f"finished {writer.epoch} {writer.sequence}")
    writer.close()


def main() -> None:
    """Fork a writer per line of stdin."""
    prefix, seed = sys.argv[1], int(sys.argv[2])
    for number, line in zip(count(), sys.stdin, strict=False):
        pid = os.fork()
        if pid == 0:
            write(prefix, seed + number, line.strip() == "finish")
            os._exit(0)
        say(f"pid {pid}")
        os.waitpid(pid, 0)
        say("ended")


if __name__ == "__main__":
    main()
