"""One exchange as the stream knows it: its ring's records on their way to its markets."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from alphapulse.delta import LevelStage, decode
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
from alphapulse.stream.market import Market
from alphapulse.stream.messages import encode_gap, encode_overrun

log = get_logger(__name__)


class Venue:
    """An exchange's markets; they stay known when the ring goes.

    Parameters
    ----------
    exchange : name of the venue
    stage : scratch memory shared by all books
    joined : called with each market that is new
    announce : ``announce(text, channel)``: tell an event that isn't one market's to all clients
        that subscribe to anything of the exchange, or to this channel of it
    """

    def __init__(
        self,
        exchange: str,
        stage: LevelStage,
        joined: Callable[[Market], None],
        announce: Callable[[str, Channel], None],
    ) -> None:
        self.exchange = exchange
        self.epoch = 0
        """Of the ring that is being read; 0 before there was one."""
        self.connected = False
        """Whether the ring has a writer at work."""
        self.sequence = 0
        """Of the ring's latest record that was taken."""
        self.markets: dict[str, Market] = {}
        """By unified symbol."""
        self._stage = stage
        self._joined = joined
        self._announce = announce
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
            self.sequence = record.sequence
            try:
                self._record(record, batch.instruments)
            except RecordError as error:
                log.warning("record skipped", exchange=self.exchange, problem=str(error))

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
        self.epoch = epoch
        self.connected = True
        self._suspended = False
        self._by_id = {}
        if not states:
            for market in self.markets.values():
                market.begin(market.instrument, epoch, None, reason)
        newest = {instrument.symbol: instrument for instrument in instruments.values()}
        for instrument in instruments.values():
            market = self._market(instrument)
            state = states.get(instrument.id)
            if state is not None and newest[instrument.symbol] is instrument:
                market.begin(instrument, epoch, state, reason)

    def _overrun(
        self,
        overrun: Overrun,
        instruments: Mapping[int, Instrument],
        states: Callable[[], Mapping[int, BookState]],
    ) -> None:
        log.warning(
            "records lost", exchange=self.exchange, count=overrun.count, reason=overrun.reason.text
        )
        self._announce(encode_overrun(overrun), Channel.RING)
        if overrun.reason is Reason.LAPPED:
            self._start(self.epoch, instruments, states(), Reason.LAPPED)

    def _market(self, instrument: Instrument) -> Market:
        """The market of an instrument, which may be new or have new exponents."""
        market = self._by_id.get(instrument.id)
        if market is None:
            market = self.markets.get(instrument.symbol)
            if market is None:
                market = Market(instrument, self.epoch, self._stage)
                self.markets[instrument.symbol] = market
                self._joined(market)
            self._by_id[instrument.id] = market
        return market

    def _record(self, record: RawRecord, instruments: Mapping[int, Instrument]) -> None:
        kind = record.type
        if kind == RecordType.DELTA:
            self._of(record, instruments).delta(record)
        elif kind == RecordType.SNAPSHOT:
            market = self._of(record, instruments)
            market.snapshot(record, instruments[record.instrument])
        elif kind != RecordType.HEARTBEAT:
            self._event(record, instruments)

    def _event(self, record: RawRecord, instruments: Mapping[int, Instrument]) -> None:
        event = decode(record.data, instruments, self.exchange)
        if isinstance(event, Trade):
            self._market(event.instrument).trade(event)
        elif isinstance(event, StateChange):
            self._market(event.instrument).ring_state(event)
        elif isinstance(event, InstrumentDefined):
            self._market(event.instrument)
        elif isinstance(event, Gap):
            if event.instrument is None or event.channel is Channel.RING:
                self._announce(encode_gap(event), event.channel)
            else:
                self._market(event.instrument).gap(event)

    def _of(self, record: RawRecord, instruments: Mapping[int, Instrument]) -> Market:
        market = self._by_id.get(record.instrument)
        if market is not None:
            return market
        instrument = instruments.get(record.instrument)
        if instrument is None:
            raise RecordError(f"instrument {record.instrument} was never announced")
        return self._market(instrument)
