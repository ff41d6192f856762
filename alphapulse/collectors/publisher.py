"""Writes a venue's records into its ring, and keeps count of what happened.

The only thing in a collector that knows both the encoder and the ring.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from alphapulse.clock import NO_TIME, wall_ns
from alphapulse.delta import Encoder, encode_instrument
from alphapulse.errors import RingTooSmall
from alphapulse.model import BookState, Channel, IdKind, Instrument, Reason, RecordType, Side
from alphapulse.shm import RingWriter


class Counts(msgspec.Struct):
    """What a collector has seen and done since its start."""

    frames: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    """Bytes committed to the ring, padding included."""
    records: int = 0
    checksums_ok: int = 0
    checksums_bad: int = 0
    gaps: int = 0
    resyncs: int = 0
    malformed: int = 0
    unnamed: int = 0
    """Malformed frames of which nobody can tell the symbol."""
    late_trades: int = 0
    """Trades that came after they had been reported missing."""


class SymbolCounts(msgspec.Struct):
    """What a collector has seen of one symbol since its start."""

    trade_gaps: int = 0
    book_gaps: int = 0
    checksums_bad: int = 0
    malformed: int = 0
    resyncs: dict[Reason, int] = {}


class Publisher:
    """Encodes and writes records.

    Parameters
    ----------
    writer : the venue's ring
    exchange : name of the venue
    announce : ``announce(received_ns)``: publishes all that a new, empty ring needs
    """

    def __init__(self, writer: RingWriter, exchange: str, announce: Callable[[int], None]) -> None:
        self.writer = writer
        self.exchange = exchange
        self.counts = Counts()
        self.tallies: dict[str, SymbolCounts] = {}
        """By unified symbol."""
        self._announce = announce
        self._encoder = Encoder()

    def tally(self, instrument: Instrument) -> SymbolCounts:
        """What has been seen of a symbol."""
        tally = self.tallies.get(instrument.symbol)
        if tally is None:
            tally = self.tallies[instrument.symbol] = SymbolCounts()
        return tally

    def checksum_failed(self, instrument: Instrument) -> None:
        """Count a book that doesn't match the venue's checksum."""
        self.counts.checksums_bad += 1
        self.tally(instrument).checksums_bad += 1

    def malformed(self, instrument: Instrument | None, *, again: bool = False) -> None:
        """Count a frame that can't be used, as one however much of it can't.

        Parameters
        ----------
        instrument : whose, as far as it is known
        again : whether the frame has been counted already, for something else in it
        """
        if instrument is not None:
            self.tally(instrument).malformed += 1
        elif not again:
            self.counts.unnamed += 1
        if not again:
            self.counts.malformed += 1

    def write(self, record: Encoder | bytes) -> None:
        """Write a record; a ring that has become too small for its books is enlarged first."""
        before = self.writer.position
        try:
            self.writer.write(record)
        except RingTooSmall as error:
            kept = bytes(record)
            self.enlarge(error)
            # The announced snapshots include what a delta would add to them.
            if kept[4] != RecordType.DELTA:
                self.write(kept)
            return
        self.counts.bytes_out += self.writer.position - before
        self.counts.records += 1

    def enlarge(self, error: RingTooSmall) -> None:
        """Go on in a ring of the size that is needed, which begins with all books as they are."""
        self.writer.enlarge(error.needed_bytes)
        self._announce(wall_ns())

    def instrument(self, instrument: Instrument, received_ns: int) -> None:
        """Announce an instrument."""
        self.write(encode_instrument(self._encoder, instrument, received_ns=received_ns))

    def state(
        self, instrument: Instrument, state: BookState, reason: Reason, received_ns: int
    ) -> None:
        """Tell a book's new state."""
        self.write(self._encoder.state(instrument.id, state, reason, received_ns=received_ns))

    def gap(
        self,
        instrument: Instrument | None,
        channel: Channel,
        reason: Reason,
        received_ns: int,
        *,
        first: int | None = None,
        last: int | None = None,
        count: int | None = None,
        since_ns: int = NO_TIME,
    ) -> None:
        """Tell a loss: what, from where to where, how many if known, why."""
        self.counts.gaps += 1
        if instrument is not None:
            tally = self.tally(instrument)
            if channel is Channel.TRADES:
                tally.trade_gaps += 1
            else:
                tally.book_gaps += 1
        self.write(
            self._encoder.gap(
                instrument.id if instrument else 0,
                channel,
                reason,
                first=first,
                last=last,
                count=count,
                since_ns=since_ns,
                received_ns=received_ns,
            )
        )

    def trade(
        self,
        instrument: Instrument,
        *,
        price: int,
        size: int,
        side: Side,
        trade_id: int,
        id_kind: IdKind,
        matches: int,
        exchange_ns: int,
        received_ns: int,
    ) -> None:
        """Write a trade."""
        self.write(
            self._encoder.trade(
                instrument.id,
                price=price,
                size=size,
                side=side,
                trade_id=trade_id,
                id_kind=id_kind,
                matches=matches,
                exchange_ns=exchange_ns,
                received_ns=received_ns,
            )
        )

    def heartbeat(self, received_ns: int) -> None:
        """Tell that the collector lives."""
        self.write(self._encoder.heartbeat(received_ns=received_ns))
        self.writer.beat()
