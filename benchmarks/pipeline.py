"""From a frame's bytes to its record, committed in a ring; beside cryptofeed's handlers."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING

from alphapulse.shm import RingWriter
from benchmarks.feeds import WARM_RING_BYTES, FeedRuns
from benchmarks.harness import (
    Absent,
    Contestant,
    Figures,
    Metric,
    Row,
    Session,
    ring_prefix,
    version_of,
)
from benchmarks.timing import METRICS, PERCENTILES, Timer
from benchmarks.traffic import Traffic, coinbase_advanced, load

if TYPE_CHECKING:
    from benchmarks.peers.cryptofeed_handlers import CryptofeedRuns

CHECKED_LEVELS = 10

NOTE = """\
Per frame: decoded, synchronised, applied to the book, checksum verified (Kraken), and on our side
committed to the ring as a record; changes that wait for their book's snapshot count with the
snapshots. cryptofeed ends in a callback that does nothing; its handlers read Kraken's WebSocket v1
and Coinbase's Advanced Trade, so it gets the same digits in those framings ('coinbase' is the
Exchange feed on our side). Means are of whole passes without a clock between frames; percentiles
are of single frames, less what the clock costs. Both sides include the loop that calls them, and
both must come to the same books."""


def run(session: Session) -> None:
    """Measure each capture."""
    rows = []
    for traffic, peer_traffic in (
        (load("kraken"), load("kraken")),
        (load("kraken-btcusd-depth10"), load("kraken-btcusd-depth10")),
        (load("binance_us"), load("binance_us")),
        (load("coinbase"), coinbase_advanced()),
        (coinbase_advanced(), coinbase_advanced()),
    ):
        rows += _compare(session, traffic, peer_traffic)
    session.show("Pipeline, nanoseconds per frame", rows, f"{_origins()}\n{NOTE}")


def _origins() -> str:
    names = ("kraken", "kraken-btcusd-depth10", "binance_us", "coinbase")
    return "Traffic: " + ", ".join(f"{name} ({load(name).origin})" for name in names) + "."


def _compare(session: Session, traffic: Traffic, peer_traffic: Traffic) -> list[Row]:
    name = f"pipeline/{traffic.name}"
    metrics = [*METRICS, *(Metric(f"snapshot/{one.key}", "ns") for one in METRICS)]
    with (
        ring_prefix() as prefix,
        RingWriter(traffic.venue_name, prefix=prefix, size_bytes=WARM_RING_BYTES) as writer,
    ):
        runs = FeedRuns(traffic, writer)
        runs.warm()
        ours = Contestant("alphapulse", lambda seconds: _measure(runs, seconds))
        peer = _cryptofeed(peer_traffic, runs)
        return session.compare(name, metrics, ours, [peer])


def _measure(runs: FeedRuns, seconds: float) -> Figures:
    timer = Timer()
    timer.repeat(runs.calls, seconds)
    return _figures(timer)


def _figures(timer: Timer) -> Figures:
    """Of a snapshot there are few in a capture: the mean and the median say all."""
    snapshot = timer.figures("snapshot")
    return {
        **timer.figures("update"),
        **{
            f"snapshot/{key}": value
            for key, value in snapshot.items()
            if key in ("mean", next(iter(PERCENTILES)))
        },
    }


def _cryptofeed(traffic: Traffic, runs: FeedRuns) -> Contestant | Absent:
    version = version_of("cryptofeed")
    if version is None:
        return Absent("cryptofeed")
    from benchmarks.peers.cryptofeed_handlers import CryptofeedRuns

    theirs = CryptofeedRuns(traffic)
    _check(runs, theirs)
    return Contestant("cryptofeed", lambda seconds: _measure_peer(theirs, seconds), version)


def _measure_peer(runs: CryptofeedRuns, seconds: float) -> Figures:
    timer = Timer()
    asyncio.run(timer.repeat_awaited(runs.calls, seconds))
    return _figures(timer)


def _check(ours: FeedRuns, theirs: CryptofeedRuns) -> None:
    """Both must have come to the same books, or they haven't done the same work."""
    found = {
        symbol.replace("-", ""): book for symbol, book in asyncio.run(theirs.final_books()).items()
    }
    for instrument, book in ours.books.items():
        bids, asks = found[instrument.symbol.replace("-", "")]
        for mine, peers, sign in ((book.bids(), bids, -1), (book.asks(), asks, 1)):
            best = sorted(peers.items(), key=lambda level: sign * level[0])
            scaled = [
                (
                    Decimal(price).scaleb(-instrument.price_exponent),
                    Decimal(size).scaleb(-instrument.size_exponent),
                )
                for price, size in mine[:CHECKED_LEVELS]
            ]
            if scaled != best[:CHECKED_LEVELS]:
                raise RuntimeError(f"cryptofeed has another book of {instrument.symbol}")
