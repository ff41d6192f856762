"""Rows of what a ring gives."""

from __future__ import annotations

import msgspec

from alphapulse import metrics
from alphapulse.clock import NO_TIME, monotonic_ns, wall_ns
from alphapulse.config import StoreSettings
from alphapulse.delta import decode
from alphapulse.errors import RecordError
from alphapulse.history import (
    BookRow,
    GapRow,
    StateRow,
    TradeRow,
    gap_row,
    overrun_row,
    state_row,
    trade_row,
)
from alphapulse.log import get_logger
from alphapulse.model import Gap, Overrun, RecordType, StateChange, Trade
from alphapulse.shm import Batch, RawRecord, RingReader, bits_of
from alphapulse.store.kept_books import KeptBooks

READ_RECORDS = 1024
"""Records taken from the ring at once."""
READ_NS = 2_000_000
"""How long the ring is read before others of the loop have their turn."""

log = get_logger(__name__)


class Collected:
    """What is to be written next."""

    def __init__(self) -> None:
        self.trades: list[TradeRow] = []
        self.gaps: list[GapRow] = []
        self.states: list[StateRow] = []
        self.books: list[BookRow] = []
        self.drained = False
        """Whether that is all that the ring had."""
        self.empty = False
        """Whether the ring had nothing at all."""

    def __bool__(self) -> bool:
        return bool(self.trades or self.gaps or self.states or self.books)


class Taking:
    """Makes rows of one venue's records.

    Parameters
    ----------
    venue : its name
    settings : section ``store``
    heard_ns : our time of the last record that was taken before, ``NO_TIME`` if unknown
    """

    def __init__(self, venue: str, settings: StoreSettings, heard_ns: int) -> None:
        self._venue = venue
        self._most = settings.buffer_size
        self._read_ns = min(settings.batch_timeout_ms * 1_000_000, READ_NS)
        self._books = KeptBooks(venue, settings.book_interval_seconds, settings.book_levels)
        self._wanted = bits_of(RecordType.GAP, RecordType.STATE, *self._books.types)
        self._seen_ns = heard_ns
        self._lost: int | None = None
        self._overruns = metrics.RING_OVERRUNS.bind(service="store", exchange=venue)

    def collect(self, reader: RingReader, now_ns: int) -> Collected:
        """Take what the ring has, up to a batch; `now_ns` is of the monotonic clock."""
        collected = Collected()
        self._lost = None
        room = self._most
        while room > 0:
            wanted = min(room, READ_RECORDS)
            batch = reader.read(wanted)
            if not batch:
                collected.empty = room == self._most
                collected.drained = True
                break
            self._take(batch, collected)
            # What has come since the batch was read makes the next one.
            collected.drained = 0 < len(batch) < wanted
            room = self._most - len(collected.trades)
            if collected.drained or monotonic_ns() - now_ns >= self._read_ns:
                break
        book = self._books.next()
        if book is not None:
            collected.books.append(book)
        return collected

    def _take(self, batch: Batch, collected: Collected) -> None:
        if batch.overrun is not None:
            self._lose(batch.overrun, collected)
            return
        taken = len(collected.trades)
        rows = batch.trade_rows(batch.instruments, batch.exchange, TradeRow)
        if len(rows) == len(batch) or len(rows) == batch.count_type(RecordType.TRADE, 0):
            collected.trades += rows
        else:
            self._take_records(batch, bits_of(RecordType.TRADE), collected)
        if len(rows) < len(batch):
            self._take_records(batch, self._wanted, collected)
        received_ns = batch.received_ns
        if self._lost is not None:
            self._tell_apart(collected, self._lost, taken, received_ns)
            self._lost = None
        if received_ns != NO_TIME:
            self._seen_ns = received_ns

    def _lose(self, overrun: Overrun, collected: Collected) -> None:
        self._overruns.inc()
        log.warning(
            "records lost before they were stored",
            exchange=self._venue,
            count=overrun.count,
            reason=overrun.reason.text,
        )
        self._lost = len(collected.gaps)
        collected.gaps.append(overrun_row(overrun, self._seen_ns, wall_ns()))
        self._books.lose()

    def _tell_apart(self, collected: Collected, lost: int, taken: int, received_ns: int) -> None:
        """Date a loss behind all that was heard before it, if nothing behind it is as old.

        A frame's records have one time: of those with that of the last before the loss, some may
        be behind it.

        Parameters
        ----------
        lost : which of the gaps it is
        taken : trades that were taken before those behind it
        received_ns : our time of the last record behind it so far
        """
        seen_ns = self._seen_ns
        behind = collected.trades[taken:]
        if (
            seen_ns != NO_TIME
            and min([received_ns, *(row.received_ns for row in behind)]) > seen_ns
        ):
            gap = collected.gaps[lost]
            collected.gaps[lost] = msgspec.structs.replace(gap, since_ns=seen_ns + 1)

    def _take_records(self, batch: Batch, wanted: int, collected: Collected) -> None:
        for record in batch.of_types(wanted):
            try:
                self._take_record(record, batch, collected)
            except RecordError as error:
                log.warning("a record can't be stored", exchange=self._venue, problem=str(error))

    def _take_record(self, record: RawRecord, batch: Batch, collected: Collected) -> None:
        if record.type in self._books.types:
            self._books.take(record, batch.instruments)
            return
        event = decode(record.data, batch.instruments, self._venue)
        if isinstance(event, Trade):
            collected.trades.append(trade_row(event))
        elif isinstance(event, Gap):
            collected.gaps.append(gap_row(event))
        elif isinstance(event, StateChange):
            collected.states.append(state_row(event))
            self._books.tell(event.symbol, event.state)
