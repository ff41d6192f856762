"""Reads a ring through all its epochs, checks every record, and reports as JSON.

``python -m tests.ring_kill.reader PREFIX SPIN_NS``; says ``attached`` once it is, ends with the
record that `tests.ring_kill.writers` writes last. Report: per epoch the records given and those
said to be lost, and what was wrong.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

from alphapulse.shm import Batch, RingReader
from tests.reference.ring import INSTRUMENT
from tests.ring_kill.writers import LAST, VENUE
from tests.ring_records import is_whole


class Account:
    """What has come, and what is wrong with it."""

    def __init__(self) -> None:
        self.given: Counter[int] = Counter()
        self.lost: Counter[int] = Counter()
        self.overruns = 0
        self.wrong: list[str] = []
        self.finished = False
        self._epoch = 0
        self._sequence = 0

    def add(self, batch: Batch) -> None:
        """Take a batch into account."""
        if batch.overrun is not None:
            overrun = batch.overrun
            self.overruns += 1
            if overrun.count is None or overrun.last is None:
                self.wrong.append(f"{overrun}")
            else:
                self.lost[overrun.epoch] += overrun.count
                self._enter(overrun.epoch)
                if overrun.first <= self._sequence:
                    self.wrong.append(f"{overrun} after {self._sequence}")
                self._sequence = overrun.last
            return
        self._enter(batch.epoch)
        for raw in batch:
            sequence, kind = raw.sequence, raw.type
            if sequence <= self._sequence:
                self.wrong.append(f"{batch.epoch}: {sequence} after {self._sequence}")
            if kind != INSTRUMENT and not is_whole(raw.data, sequence, batch.epoch):
                self.wrong.append(f"{batch.epoch}: {sequence} is torn: {bytes(raw.data)!r}")
            self._sequence = sequence
            self.finished = self.finished or kind == LAST
        self.given[batch.epoch] += len(batch)

    def _enter(self, epoch: int) -> None:
        if epoch < self._epoch:
            self.wrong.append(f"epoch {epoch} after {self._epoch}")
        if epoch != self._epoch:
            self._epoch, self._sequence = epoch, 0


def main() -> None:
    """Read until the last record."""
    account = Account()
    reader = RingReader(VENUE, prefix=sys.argv[1], start="oldest", spin_ns=int(sys.argv[2]))
    print("attached", flush=True)
    while not account.finished:
        batch = reader.read(256)
        if batch:
            account.add(batch)
        else:
            reader.wait(None)
    reader.close()
    report = {
        "given": account.given,
        "lost": account.lost,
        "overruns": account.overruns,
        "wrong": account.wrong[:20],
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
