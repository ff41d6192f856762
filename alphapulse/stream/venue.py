"""One exchange as the stream knows it: its ring's records on their way to its markets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from alphapulse.clock import wall_ns
from alphapulse.delta import decode
from alphapulse.errors import RecordError
from alphapulse.log import get_logger
from alphapulse.model import (
    BookState,
    Channel,
    Gap,
    Instrument,
    InstrumentDefined,
    Overrun,
    Reason,
    RecordType,
    StateChange,
    Trade,
)
from alphapulse.shm import Batch, RawRecord
from alphapulse.stream.items import Told, told_gap
from alphapulse.stream.market import Market

log = get_logger(__name__)

_DELTA = int(RecordType.DELTA)
"""Most records are of this type."""


class Floor(Protocol):
    """All exchanges' markets together."""

    def create(self, venue: Venue, instrument: Instrument) -> Market:
        """A market that is new; whoever subscribed to all, or to it in advance, gets it."""

    def announce(self, venue: Venue, told: Told, channel: Channel) -> None:
        """Tell a loss that isn't one market's to those whom it concerns."""

    def turn_over(self, venue: Venue) -> None:
        """Tell that the venue has a new epoch."""


class Venue:
    """An exchange's markets; they stay known when the ring goes.

    Parameters
    ----------
    exchange : name of the venue
    floor : where its markets are kept, and who hears what isn't one market's
    """

    def __init__(self, exchange: str, floor: Floor) -> None:
        self.exchange = exchange
        self.epoch = 0
        """Of the ring that is being read; 0 before there was one."""
        self.connected = False
        """Whether the ring has a writer at work."""
        self.sequence = 0
        """Of the ring's latest record that was taken."""
        self.seen_ns = 0
        """Wall time of the latest sign of life, as far as the ring was read; 0 for none."""
        self.markets: dict[str, Market] = {}
        """By unified symbol."""
        self.first_sequence = 0
        """Of the first record that was taken in the epoch."""
        self._floor = floor
        self._by_id: dict[int, Market] = {}
        self._suspended = False

    def attach(
        self, epoch: int, instruments: Mapping[int, Instrument], states: Mapping[int, BookState]
    ) -> None:
        """Begin with a ring at the live books' latest snapshots.

        Parameters
        ----------
        instruments, states : the ring's directory, by instrument id
        """
        reason = Reason.RESTARTED if self.epoch else Reason.SUBSCRIBED
        self._start(epoch, instruments, states, reason)

    def take(self, batch: Batch, states: Callable[[], Mapping[int, BookState]]) -> None:
        """Handle what a reader gave.

        Parameters
        ----------
        batch : not empty
        states : gives the books' states by instrument id as the ring's directory has them
        """
        if batch.overrun is not None:
            self._overrun(batch.overrun, batch.instruments, states)
            return
        if batch.epoch != self.epoch:
            self._start(batch.epoch, batch.instruments, {}, Reason.RESTARTED)
        self.restore()
        self.connected = True
        for record in batch:
            self.first_sequence = self.first_sequence or record.sequence
            self.sequence = record.sequence
            try:
                self._record(record, batch.instruments)
            except RecordError as error:
                log.warning("record skipped", exchange=self.exchange, problem=str(error))
        self.seen_ns = record.published_ns

    def lost(self) -> None:
        """The ring has no writer: nothing of it is current any more."""
        self.connected = False
        self._suspended = False
        for market in self.markets.values():
            market.fail(BookState.STALE, Reason.DISCONNECTED, self.sequence)

    def suspend(self) -> None:
        """The ring's writer lives, but hasn't said so for a while."""
        if self.connected and not self._suspended:
            self._suspended = True
            for market in self.markets.values():
                market.suspend(Reason.SILENT, self.sequence)

    def restore(self) -> None:
        """The ring's writer is at work."""
        if self._suspended:
            self._suspended = False
            for market in self.markets.values():
                market.restore(Reason.RESYNCED, self.sequence)

    def _start(
        self,
        epoch: int,
        instruments: Mapping[int, Instrument],
        states: Mapping[int, BookState],
        reason: Reason,
    ) -> None:
        renewed = epoch != self.epoch
        if renewed or not states:
            for market in self.markets.values():
                market.begin(None, reason)
        self.epoch = epoch
        self.connected = True
        self._suspended = False
        self._by_id = {}
        if renewed:
            self.sequence = self.first_sequence = 0
            for market in self.markets.values():
                market.renew(epoch)
            self._floor.turn_over(self)
        newest = {instrument.symbol: instrument for instrument in instruments.values()}
        for instrument in instruments.values():
            market = self._market(instrument)
            market.adopt(instrument)
            state = states.get(instrument.id)
            if state is not None and newest[instrument.symbol] is instrument:
                market.begin(state, reason)

    def _overrun(
        self,
        overrun: Overrun,
        instruments: Mapping[int, Instrument],
        states: Callable[[], Mapping[int, BookState]],
    ) -> None:
        log.warning(
            "records lost", exchange=self.exchange, count=overrun.count, reason=overrun.reason.text
        )
        self._floor.announce(self, told_gap(overrun.as_gap(wall_ns())), Channel.RING)
        if overrun.reason is Reason.LAPPED:
            self._start(self.epoch, instruments, states(), Reason.LAPPED)

    def _market(self, instrument: Instrument) -> Market:
        """The market of an instrument, which may be new or have new exponents."""
        market = self._by_id.get(instrument.id)
        if market is None:
            market = self.markets.get(instrument.symbol)
            if market is None:
                market = self._floor.create(self, instrument)
            self._by_id[instrument.id] = market
        return market

    def _record(self, record: RawRecord, instruments: Mapping[int, Instrument]) -> None:
        kind = record.type
        if kind == _DELTA:
            self._of(record, instruments).delta(record)
        elif kind == RecordType.SNAPSHOT:
            market = self._of(record, instruments)
            market.snapshot(record, instruments[record.instrument])
        elif kind != RecordType.HEARTBEAT:
            self._event(record, instruments)

    def _event(self, record: RawRecord, instruments: Mapping[int, Instrument]) -> None:
        event = decode(record.data, instruments, self.exchange)
        if isinstance(event, Trade):
            self._market(event.instrument).trade(event, record)
        elif isinstance(event, StateChange):
            self._market(event.instrument).ring_state(event, record)
        elif isinstance(event, InstrumentDefined):
            market = self._market(event.instrument)
            market.define(event.instrument, bytes(record.data))
        elif isinstance(event, Gap):
            if event.instrument is None or event.channel is Channel.RING:
                told = told_gap(event, bytes(record.data))
                self._floor.announce(self, told, event.channel)
            else:
                self._market(event.instrument).gap(event, event.instrument, record)

    def _of(self, record: RawRecord, instruments: Mapping[int, Instrument]) -> Market:
        market = self._by_id.get(record.instrument)
        if market is not None:
            return market
        instrument = instruments.get(record.instrument)
        if instrument is None:
            raise RecordError(f"instrument {record.instrument} was never announced")
        return self._market(instrument)
