"""JSON messages to events and books."""

from __future__ import annotations

import msgspec

from alphapulse.client.desk import Desk
from alphapulse.client.events import (
    OVERALL,
    ArbitrageUpdate,
    Bbo,
    ConsolidatedChange,
    ConsolidatedDelta,
    ConsolidatedLevel,
    ConsolidatedSnapshot,
    Quote,
    Source,
    StreamEvent,
)
from alphapulse.client.messages import (
    ArbitrageMessage,
    BboData,
    BboMessage,
    DeltaData,
    DeltaMessage,
    EventMessage,
    GapData,
    GapMessage,
    QuoteData,
    SnapshotData,
    SnapshotMessage,
    StateData,
    StateMessage,
    TradeData,
    TradeMessage,
    decode_opportunity,
    decode_shared_changes,
    decode_shared_levels,
)
from alphapulse.client.scales import Scales, scaled
from alphapulse.clock import NO_TIME
from alphapulse.delta import LevelLayout
from alphapulse.errors import BookError
from alphapulse.model import (
    Action,
    BookDelta,
    BookSide,
    BookSnapshot,
    BookState,
    Channel,
    Gap,
    IdKind,
    Instrument,
    Level,
    Reason,
    Side,
    StateChange,
    Trade,
)

_LEVELS = LevelLayout.pairs()
_CHANGES = LevelLayout.objects(
    price="price", size="volume", side="side", bids=("bid",), asks=("ask",)
)
_SIDES = {"bid": BookSide.BID, "ask": BookSide.ASK}


class JsonFeed:
    """Turns the stream's JSON events into objects, and keeps the books that they describe.

    Numbers that aren't what the protocol promises raise `ValueError`, which all errors of
    `alphapulse.fixed` are.

    Parameters
    ----------
    desk : the client's books
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._scales = Scales()
        self._parts: dict[tuple[str, str], list[SnapshotData]] = {}

    def take(self, message: EventMessage) -> list[StreamEvent]:
        """Events of a message; none for a part of a book, or a delta of a book that is wrong."""
        match message:
            case DeltaMessage(data=data):
                return self._shared_delta(data) if data.exchange == OVERALL else self._delta(data)
            case TradeMessage(data=data):
                new = self._desk.is_new_trade(data.exchange, data.symbol, data.sequence)
                return [self._trade(data)] if new else []
            case SnapshotMessage(data=data):
                return self._snapshot(data)
            case StateMessage(data=data):
                return self._state(data)
            case BboMessage(data=data):
                return [_bbo(data)]
            case GapMessage(data=data):
                return [self._gap(data)]
            case ArbitrageMessage(data=raw):
                return [_arbitrage(raw)]
        return []

    def disconnected(self) -> None:
        """What was begun won't be finished."""
        self._parts.clear()

    def _trade(self, data: TradeData) -> Trade:
        def scale(instrument: Instrument) -> tuple[Instrument, int, int]:
            price = scaled(data.price, instrument.price_exponent, "price")
            return instrument, price, scaled(data.volume, instrument.size_exponent, "size")

        instrument, price, size = self._scales.fit(data.exchange, data.symbol, scale)
        return Trade(
            exchange=data.exchange,
            **data.times,
            instrument=instrument,
            price=price,
            size=size,
            side=Side.BUY if data.side == "buy" else Side.SELL,
            trade_id=data.trade_id,
            id_kind=IdKind[data.id_kind.upper()],
            matches=0,
        )

    def _snapshot(self, data: SnapshotData) -> list[StreamEvent]:
        parts = [data]
        if data.parts > 1:
            parts = self._parts.setdefault((data.exchange, data.symbol), [])
            if data.part == 1 or (parts and parts[0].version != data.version):
                parts.clear()
            parts.append(data)
            if len(parts) < data.parts:
                return []
            del self._parts[data.exchange, data.symbol]
        if data.exchange == OVERALL:
            return [self._shared_snapshot(parts)]
        return [self._whole(parts)]

    def _whole(self, parts: list[SnapshotData]) -> BookSnapshot:
        data = parts[0]
        stage = self._desk.stage

        def scale(instrument: Instrument) -> tuple[Instrument, int]:
            stage.clear()
            bids = sum(self._parse(part.bids, BookSide.BID, instrument) for part in parts)
            for part in parts:
                self._parse(part.asks, BookSide.ASK, instrument)
            return instrument, bids

        instrument, bids = self._scales.fit(data.exchange, data.symbol, scale)
        reason = Reason[data.reason.upper()]
        book = self._desk.book(data.exchange, data.symbol)
        book.load_levels(
            instrument,
            version=data.version,
            reason=reason,
            epoch=data.epoch,
            sequence=data.sequence,
        )
        times = data.times
        book.set_times(times["exchange_ns"], times["received_ns"])
        levels = [Level(price, size) for _, price, size in stage]
        return BookSnapshot(
            exchange=data.exchange,
            **times,
            instrument=instrument,
            version=data.version,
            reason=reason,
            bids=tuple(levels[:bids]),
            asks=tuple(levels[bids:]),
        )

    def _parse(self, raw: msgspec.Raw, side: BookSide, instrument: Instrument) -> int:
        return self._desk.stage.parse(
            bytes(raw), _LEVELS, side, instrument.price_exponent, instrument.size_exponent
        )

    def _delta(self, data: DeltaData) -> list[StreamEvent]:
        self._parts.pop((data.exchange, data.symbol), None)
        book = self._desk.book(data.exchange, data.symbol)
        if book.asked or book.has(data.version):
            return []
        stage = self._desk.stage

        def scale(instrument: Instrument) -> Instrument:
            stage.clear()
            stage.parse(
                bytes(data.changes),
                _CHANGES,
                None,
                instrument.price_exponent,
                instrument.size_exponent,
            )
            return instrument

        instrument = self._scales.fit(data.exchange, data.symbol, scale)
        try:
            changes = book.change_levels(
                instrument,
                version=data.version,
                prev_version=data.prev_version,
                sequence=data.sequence,
            )
        except BookError:
            return [self._desk.broken(book, instrument, Reason.GAP, data.sequence)]
        times = data.times
        book.set_times(times["exchange_ns"], times["received_ns"])
        return [
            BookDelta(
                exchange=data.exchange,
                **times,
                instrument=instrument,
                version=data.version,
                prev_version=data.prev_version,
                changes=changes,
            )
        ]

    def _state(self, data: StateData) -> list[StreamEvent]:
        state, reason = BookState[data.state.upper()], Reason[data.reason.upper()]
        instrument = self._scales.instrument(data.exchange, data.symbol)
        if data.exchange == OVERALL:
            self._desk.all_of(data.symbol).tell(state, reason)
        else:
            self._parts.pop((data.exchange, data.symbol), None)
            self._desk.book(data.exchange, data.symbol).tell(state, reason)
        return [
            StateChange(
                exchange=data.exchange,
                **data.times,
                instrument=instrument,
                state=state,
                reason=reason,
            )
        ]

    def _gap(self, data: GapData) -> Gap:
        instrument = None
        if data.symbol is not None:
            instrument = self._scales.instrument(data.exchange, data.symbol)
        return Gap(
            exchange=data.exchange,
            sequence=0,
            received_ns=_time(data.received_ns),
            instrument=instrument,
            channel=Channel[data.channel.upper()],
            reason=Reason[data.reason.upper()],
            first=data.first,
            last=data.last,
            count=data.count,
            since_ns=_time(data.since_ns),
        )

    def _shared_snapshot(self, parts: list[SnapshotData]) -> ConsolidatedSnapshot:
        data = parts[0]
        times = data.times
        snapshot = ConsolidatedSnapshot(
            symbol=data.symbol,
            version=data.version,
            epoch=data.epoch,
            reason=Reason[data.reason.upper()],
            sources={
                name: Source(source.version, BookState[source.state.upper()], source.epoch)
                for name, source in data.sources.items()
            },
            bids=tuple(level for part in parts for level in _shared_levels(part.bids)),
            asks=tuple(level for part in parts for level in _shared_levels(part.asks)),
            exchange_ns=times["exchange_ns"],
            received_ns=times["received_ns"],
        )
        self._desk.all_of(data.symbol).load(snapshot)
        return snapshot

    def _shared_delta(self, data: DeltaData) -> list[StreamEvent]:
        self._parts.pop((data.exchange, data.symbol), None)
        book = self._desk.all_of(data.symbol)
        if book.asked:
            return []
        times = data.times
        delta = ConsolidatedDelta(
            symbol=data.symbol,
            version=data.version,
            prev_version=data.prev_version,
            changes=tuple(
                ConsolidatedChange(
                    _SIDES[change.side],
                    change.price,
                    change.volume,
                    Action[change.action.upper()],
                    change.exchanges,
                )
                for change in decode_shared_changes(data.changes)
            ),
            source=data.source,
            exchange_ns=times["exchange_ns"],
            received_ns=times["received_ns"],
        )
        try:
            book.apply(delta)
        except BookError:
            self._desk.ask(book)
            return []
        return [delta]


def _shared_levels(raw: msgspec.Raw) -> list[ConsolidatedLevel]:
    return [
        ConsolidatedLevel(level.price, level.volume, level.exchanges)
        for level in decode_shared_levels(raw)
    ]


def _bbo(data: BboData) -> Bbo:
    return Bbo(
        exchange=data.exchange,
        symbol=data.symbol,
        bid=_quote(data.bid, data.exchange),
        ask=_quote(data.ask, data.exchange),
        state=BookState[data.state.upper()],
        source=data.source,
        **data.times,
    )


def _quote(data: QuoteData | None, exchange: str) -> Quote | None:
    if data is None:
        return None
    names = exchange if data.exchanges is None else data.exchanges
    return Quote(data.price, data.volume, (names,) if isinstance(names, str) else names)


def _arbitrage(raw: msgspec.Raw) -> ArbitrageUpdate:
    data = decode_opportunity(raw)
    return ArbitrageUpdate(symbol=data["symbol"], status=data["status"], data=data)


def _time(time_ns: int | None) -> int:
    return NO_TIME if time_ns is None else time_ns
