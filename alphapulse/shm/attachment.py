"""A reader's hold on one epoch of a ring."""

from __future__ import annotations

from alphapulse._core.consumer import Consumer
from alphapulse.delta import decode
from alphapulse.errors import RecordError, RingCorrupt
from alphapulse.model import BookState, Instrument, InstrumentDefined
from alphapulse.shm.batch import Batch, Origin, make_batch
from alphapulse.shm.segment import Mapping, view


class Attachment:
    """One segment, opened read-only, with the cursor in it and what its directory says.

    Raises
    ------
    RingCorrupt
        the segment contradicts itself
    """

    def __init__(self, venue: str, mapping: Mapping) -> None:
        self.mapping = mapping
        self.segment = view(mapping)
        self.epoch = self.segment.epoch
        self.instruments: dict[int, Instrument] = {}
        self.origin = Origin(venue, self.epoch, self.instruments)
        self.consumer = Consumer(self.segment, kind=Batch, origin=self.origin)
        self.nothing = make_batch(self.origin)
        self._venue = venue
        self.refresh()

    def refresh(self) -> None:
        """Take over the instruments that the directory has gained."""
        while self.consumer.known < self.segment.instrument_count:
            record = self.segment.entry(self.consumer.known)[1]
            try:
                event = decode(record, {}, self._venue)
            except RecordError as error:
                raise RingCorrupt(f"{self.segment.name}: directory: {error}") from error
            if not isinstance(event, InstrumentDefined):
                raise RingCorrupt(f"{self.segment.name}: no instrument in the directory")
            self.instruments.setdefault(event.instrument.id, event.instrument)
            self.consumer.known += 1

    def states(self) -> dict[int, BookState]:
        """Each instrument's state as of now, by id."""
        found = {}
        for index in range(self.segment.instrument_count):
            entry = self.segment.entry(index)
            try:
                found[entry[0]] = BookState(entry[2])
            except ValueError:
                raise RingCorrupt(f"{self.segment.name}: state {entry[2]} of {entry[0]}") from None
        return found

    def abandoned(self) -> bool:
        """Whether the segment has lost its writer and its name without having been ended."""
        return not self.mapping.is_at(self.mapping.path) and not self.mapping.owned()

    def close(self) -> None:
        """Close the file; the memory goes with the last record that was given out of it."""
        self.mapping.close()
