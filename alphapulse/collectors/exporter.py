"""What a collector counts, as metrics: brought up to date once a second, not per frame."""

from __future__ import annotations

import asyncio

import prometheus_client

from alphapulse import metrics
from alphapulse.collectors.feed import Feed
from alphapulse.collectors.latency import LatencySampler
from alphapulse.collectors.session import Session

EXPORT_SECONDS = 1.0


class _Total:
    """A counter that follows a total kept elsewhere.

    Bound before there is anything to count: the step from no series to 1 is no increase to
    Prometheus, so that an alert would miss the first incident.
    """

    __slots__ = ("_child", "_shown")

    def __init__(self, child: prometheus_client.Counter) -> None:
        self._child = child
        self._shown = 0

    def show(self, total: int) -> None:
        """Count what has been added since the last call."""
        if total != self._shown:
            self._child.inc(total - self._shown)
            self._shown = total


class _Symbol:
    """The metrics of one symbol; ``checked`` where the venue's checksums prove its book."""

    def __init__(self, exchange: str, symbol: str, *, checked: bool) -> None:
        labels = {"exchange": exchange, "symbol": symbol}
        self._labels = labels
        self.state = metrics.BOOK_STATE.bind(**labels)
        self.trades = _Total(metrics.TRADES_PROCESSED.bind(**labels))
        self.trade_gaps = _Total(metrics.BOOK_GAPS.bind(**labels, channel="trades"))
        self.book_gaps = _Total(metrics.BOOK_GAPS.bind(**labels, channel="orderbook"))
        self.checksums = _Total(metrics.CHECKSUM_FAILURES.bind(**labels)) if checked else None
        self.malformed = _Total(metrics.MALFORMED_FRAMES.bind(**labels))
        self._resyncs: dict[str, _Total] = {}

    def resyncs(self, reason: str) -> _Total:
        """The resynchronisations of one reason."""
        total = self._resyncs.get(reason)
        if total is None:
            labels = {**self._labels, "reason": reason}
            total = self._resyncs[reason] = _Total(metrics.BOOK_RESYNCS.bind(**labels))
        return total


class Exporter:
    """Shows a feed's and a session's figures as metrics.

    Parameters
    ----------
    feed, session, sampler : what has the figures
    """

    def __init__(self, feed: Feed, session: Session, sampler: LatencySampler) -> None:
        exchange = feed.venue.name
        self._exchange = exchange
        self._feed = feed
        self._session = session
        self._sampler = sampler
        self._frames = _Total(metrics.WEBSOCKET_MESSAGES.bind(exchange=exchange))
        self._unnamed = _Total(metrics.MALFORMED_FRAMES.bind(exchange=exchange, symbol=""))
        self._connected = metrics.WEBSOCKET_CONNECTED.bind(exchange=exchange)
        self._symbols: dict[str, _Symbol] = {}

    async def run(self) -> None:
        """Export once a second until cancelled."""
        while True:
            self.export()
            await asyncio.sleep(EXPORT_SECONDS)

    def export(self) -> None:
        """Bring the metrics up to date."""
        feed = self._feed
        counts = feed.counts
        self._frames.show(counts.frames)
        self._connected.set(1 if self._session.connected else 0)
        self._sampler.flush()
        trades = feed.published_trades()
        for book in feed.books.values():
            instrument = book.instrument
            shown = self._symbols.get(instrument.symbol)
            if shown is None:
                shown = self._symbols[instrument.symbol] = _Symbol(
                    self._exchange, instrument.symbol, checked=book.tracker.rule is not None
                )
            seen = feed.publisher.tally(instrument)
            shown.state.set(int(book.state))
            shown.trades.show(trades[instrument.symbol])
            shown.trade_gaps.show(seen.trade_gaps)
            shown.book_gaps.show(seen.book_gaps)
            if shown.checksums is not None:
                shown.checksums.show(seen.checksums_bad)
            shown.malformed.show(seen.malformed)
            for reason, count in seen.resyncs.items():
                shown.resyncs(reason.text).show(count)
        self._unnamed.show(counts.unnamed)
