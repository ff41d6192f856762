"""A million trades, hundreds of killed writers, dead Redis servers, rings too small: no loss.

By default it goes on for seconds; ``make soak ARGS="-k store_soak"`` takes a million trades, or as
many as ``ALPHAPULSE_SOAK_TRADES`` says.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import IO, Any, NamedTuple

import duckdb
import pytest
import redis

from alphapulse.config import Settings, StoreSettings
from alphapulse.history import INTERVALS_NS, FillStatus, GapRow
from alphapulse.model import Channel, Reason
from alphapulse.shm import Position
from alphapulse.simulators import Market
from alphapulse.simulators.kraken import KrakenSimulator
from alphapulse.store import Store, backfill, open_store
from alphapulse.store.entries import Keys
from tests import backfilling
from tests.backfilling import SOME, Site, running
from tests.collecting import Follower
from tests.support import ROOT
from tests.trading import (
    NOW_NS,
    RedisServer,
    Venue,
    settings_for,
    store_writer,
)

EXCHANGE = "kraken"
SYMBOLS = ("BTC-USD", "ETH-USD", "SOL-USD")
TRADES_A_SECOND = 100
"""Of the trades' own times, so that a million of them make bars of some hours."""
REPEATED = 0.02
"""Share of trades that the venue sends again later."""
RECORD_BYTES = 128
"""More than a trade takes in a ring."""
BUFFERS = (20, 200, 1000)
"""Rows of a batch, at most."""
LONGEST_SECONDS = (0.0, 0.05, 0.7)
"""Until a writer is killed, at most: at once, after a batch, or while it starts."""
UNSYNCED_BYTES = 100_000
"""What a machine that loses its power may not have on its disk, at most."""
REDIS_OPTIONS = ("--appendonly", "yes", "--appendfsync", "everysec")
PATIENCE_SECONDS = 120.0


class Size(NamedTuple):
    """How much is done."""

    trades: int
    kills: int
    restarts: int
    gaps: int


SHORT = Size(trades=12_000, kills=4, restarts=3, gaps=2)
LONG = Size(
    trades=int(os.environ.get("ALPHAPULSE_SOAK_TRADES", "1000000")), kills=200, restarts=20, gaps=20
)

SIZES = [
    pytest.param(SHORT, id="short"),
    pytest.param(LONG, id="long", marks=pytest.mark.soak),
]


class DurableRedis(RedisServer):
    """A Redis server whose files outlive it, in three ways of ending."""

    def __init__(self) -> None:
        super().__init__(*REDIS_OPTIONS)

    def shut_down(self, random: Random) -> None:
        """End it as a service manager does."""
        with redis.Redis.from_url(self.url) as client:
            client.shutdown()
        self.stop()

    def kill(self, random: Random) -> None:
        """End its process: what it has answered for is in its file, or about to be."""
        self.stop()

    def cut_power(self, random: Random) -> None:
        """End the machine: the last bytes never reached the disk."""
        self.stop()
        newest = max(
            (self.folder / "appendonlydir").glob("*.incr.aof"),
            key=lambda path: int(path.name.split(".")[-3]),
        )
        size = newest.stat().st_size
        os.truncate(newest, max(size - random.randrange(UNSYNCED_BYTES), 0))


ENDS = (DurableRedis.shut_down, DurableRedis.kill, DurableRedis.cut_power)


class Trading:
    """Makes the trades: ids in order, some of them again, of all symbols in turns.

    Parameters
    ----------
    venue : whose ring gets them
    random : decides on what comes again
    """

    def __init__(self, venue: Venue, random: Random) -> None:
        self.made = 0
        self._venue = venue
        self._random = random

    def make(self, count: int) -> None:
        """Write so many more."""
        for _ in range(count):
            self._write(self.made)
            self.made += 1
            if self._random.random() < REPEATED:
                self._write(self._random.randrange(self.made))

    def _write(self, number: int) -> None:
        time_ns = NOW_NS + number * 10**9 // TRADES_A_SECOND
        turn, index = divmod(number, len(SYMBOLS))
        self._venue.trade(SYMBOLS[index], turn + 1, exchange_ns=time_ns)

    def ids(self, symbol: str) -> list[int]:
        """All of a symbol's."""
        return list(range(1, (self.made - SYMBOLS.index(symbol) - 1) // len(SYMBOLS) + 2))


class Writers:
    """The store's writers, one after the other, each killed.

    Parameters
    ----------
    settings : what they get
    trading : what they write
    random : decides on when
    log : what they complain of
    """

    def __init__(
        self, settings: Settings, trading: Trading, random: Random, log: IO[bytes]
    ) -> None:
        self._log = log
        self._settings = settings
        self._trading = trading
        self._random = random
        self.counts: Counter[str] = Counter()

    @contextmanager
    def one(self) -> Iterator[subprocess.Popen[bytes]]:
        """A writer, killed on leaving, at a random moment after what is done meanwhile."""
        process = self._start()
        try:
            yield process
            time.sleep(self._random.uniform(0, self._random.choice(LONGEST_SECONDS)))
        finally:
            process.kill()
            process.communicate()
        self.counts["killed"] += 1

    def _start(self) -> subprocess.Popen[bytes]:
        store = self._settings.store
        arguments = [self._settings.ring.prefix, store.path, store.redis_url]
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.store_process"),
                *(*arguments, str(self._random.choice(BUFFERS))),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
        )

    def wait_for_batches(self, process: subprocess.Popen[bytes], most: int) -> None:
        """Wait until it has written some, to each of which a trade is added."""
        assert process.stdout is not None
        for _ in range(self._random.randint(1, most)):
            self._trading.make(1)
            ready, _, _ = select.select([process.stdout], [], [], PATIENCE_SECONDS)
            assert ready, f"the writer writes nothing; {self._complaints()}"
            assert process.stdout.readline(), f"the writer has ended; {self._complaints()}"
            self.counts["batches told of"] += 1

    def _complaints(self) -> str:
        self._log.seek(0)
        return self._log.read().decode()[-4000:]


@pytest.fixture(params=["embedded", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Settings that say where the history is; with ``server`` its Redis, None without."""
    options = {"path": str(tmp_path / "history.duckdb"), "retention_days": 0, "server": None}
    if request.param == "embedded":
        yield options
        return
    server = DurableRedis()
    try:
        server.start()
        yield options | {"redis_url": server.url, "server": server}
    finally:
        server.remove()


@pytest.mark.parametrize("size", SIZES)
async def test_no_killed_writer_and_no_dead_redis_loses_a_trade(
    size: Size, place: dict[str, Any], ring_prefix: str, tmp_path: Path
) -> None:
    seed = secrets.randbits(32)
    print("seed", seed)
    random = Random(seed)
    server: DurableRedis | None = place.pop("server")
    settings = settings_for(ring_prefix, **place)
    bytes_needed = int(size.trades * (1 + 2 * REPEATED)) * RECORD_BYTES
    with (
        Venue(ring_prefix, EXCHANGE, *SYMBOLS, size_bytes=bytes_needed) as venue,
        (tmp_path / "writers.log").open("w+b") as log,
    ):
        trading = Trading(venue, random)
        writers = Writers(settings, trading, random, log)
        torment(size, trading, writers, server, random)
        trading.make(size.trades - trading.made)
        store = await open_store(settings)
        async with store_writer(settings, store):
            await until_stored(store, trading)
        assert await store.read_gaps(EXCHANGE) == []
        for symbol in SYMBOLS:
            bars = await store.read_bars(EXCHANGE, symbol, INTERVALS_NS["1h"])
            assert sum(bar.trades for bar in bars) == len(trading.ids(symbol))
        await store.close()
    print(dict(writers.counts))
    assert writers.counts["killed"] == size.kills
    for symbol in SYMBOLS:
        stored = redis_ids(server, ring_prefix, symbol) if server else file_ids(settings, symbol)
        assert sorted(stored) == trading.ids(symbol), f"{symbol}, seed {seed}"


def torment(
    size: Size,
    trading: Trading,
    writers: Writers,
    server: DurableRedis | None,
    random: Random,
) -> None:
    """Kill writers while trades come in, and have Redis end as often as wanted."""
    share = size.trades // (size.kills + 1)
    restarts = set(random.sample(range(size.kills), size.restarts)) if server else set()
    ends = itertools.cycle(ENDS)
    for number in range(size.kills):
        trading.make(share // 2)
        with writers.one() as process:
            if number in restarts:
                assert server is not None
                end = next(ends)
                writers.wait_for_batches(process, 3)
                end(server, random)
                trading.make(share // 4)
                server.start()
                writers.wait_for_batches(process, 1)
                writers.counts[end.__name__] += 1
            elif random.random() < 0.8:
                writers.wait_for_batches(process, 10)
            trading.make(max(share * (number + 1) - trading.made, 0))
        if number % 10 == 9:
            print(f"{number + 1} of {size.kills} killed, {trading.made} trades", flush=True)


async def until_stored(store: Store, trading: Trading) -> None:
    """Wait until the newest trade of each symbol is there."""
    until = time.monotonic() + PATIENCE_SECONDS + trading.made / 2000
    for symbol in SYMBOLS:
        newest = str(trading.ids(symbol)[-1])
        while [row.trade_id for row in await newest_rows(store, symbol)] != [newest]:
            assert time.monotonic() < until, f"trade {newest} of {symbol} doesn't come"
            await asyncio.sleep(0.1)


async def newest_rows(store: Store, symbol: str) -> list[Any]:
    return list(await store.read_trades(EXCHANGE, symbol, limit=1, newest=True))


def redis_ids(server: DurableRedis, prefix: str, symbol: str) -> list[int]:
    """Ids of a symbol's trades, by any client of Redis."""
    with redis.Redis.from_url(server.url) as client:
        entries = client.xrange(Keys(prefix, EXCHANGE).trades(symbol))
    return [int(fields[b"trade_id"]) for _, fields in entries]


def file_ids(settings: Settings, symbol: str) -> list[int]:
    """Ids of a symbol's trades, by any client of DuckDB."""
    query = (
        "SELECT trade_number FROM trades JOIN series ON trades.series = series.id WHERE symbol = ?"
    )
    with duckdb.connect(settings.store.path, read_only=True) as database:
        return [number for (number,) in database.execute(query, [symbol]).fetchall()]


async def test_what_redis_forgot_while_the_writer_was_idle_is_written_again(
    ring_prefix: str,
) -> None:
    server = DurableRedis()
    try:
        server.start()
        settings = settings_for(ring_prefix, redis_url=server.url, buffer_size=10)
        with Venue(ring_prefix, EXCHANGE, *SYMBOLS) as venue:
            trading = Trading(venue, Random(1))
            store = await open_store(settings)
            async with store_writer(settings, store):
                trading.make(600)
                await until_stored(store, trading)
                server.cut_power(Random(2))
                server.start()
                assert len(redis_ids(server, ring_prefix, SYMBOLS[0])) < 200
                trading.make(1)
                await until_stored(store, trading)
            await store.close()
        for symbol in SYMBOLS:
            stored = redis_ids(server, ring_prefix, symbol)
            assert sorted(stored) == trading.ids(symbol)
    finally:
        server.remove()


@asynccontextmanager
async def followed(site: Site) -> AsyncIterator[Follower]:
    """A collector at work, and a reader of its ring that misses nothing."""
    async with site.collector() as at_work:
        reading = asyncio.create_task(read_all(at_work.follower))
        try:
            yield at_work.follower
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading


async def read_all(follower: Follower) -> None:
    """Read a ring until cancelled; its collector shares the loop, and can't outrun it."""
    while True:
        follower.read()
        await follower.reader.ready()


@pytest.mark.parametrize("size", SIZES)
async def test_what_small_rings_lose_is_told_exactly_and_filled(
    size: Size, place: dict[str, Any], ring_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "SCAN_SECONDS", 0.05)
    monkeypatch.setattr(backfill, "REST_SHARE", 1.0)
    place.pop("server")
    market = Market(
        backfilling.SYMBOLS, seed=22, book_rate=10, trade_rate=300, levels=12, memory=1_000_000
    )
    places: list[Position] = []
    async with (
        running(KrakenSimulator(market), ring_prefix, StoreSettings(**place)) as site,
        followed(site) as follower,
    ):
        for number in range(size.gaps):
            async with site.writer(), site.backfill():
                await site.until_stored(SOME)
                await site.until_settled(len(places))
            places.append(await site.lap())
            print(f"{number + 1} of {size.gaps} gaps forced", flush=True)
        async with site.writer(), site.backfill():
            await site.until_stored(SOME)
            await site.until_whole()
        await check_gaps(site, follower, places)


async def check_gaps(site: Site, follower: Follower, places: list[Position]) -> None:
    """Each gap is told to the record, and what came over REST is what lay in the gaps."""
    gaps = await site.store.read_gaps(EXCHANGE)
    # On a slow machine such a small ring laps a writer at work, too.
    assert {(gap.epoch, gap.first) for gap in gaps} >= set(places)
    for gap in gaps:
        assert (gap.channel, gap.reason, gap.symbol) == (Channel.RING, Reason.LAPPED, None)
        assert gap.status is FillStatus.FILLED
        assert gap.first is not None
        assert gap.last is not None
        assert gap.count is not None
        # It counts what of the books behind the last one was of no use, too.
        assert gap.count >= gap.last - gap.first + 1
    assert follower.overruns == [], "the test itself was too slow to know what was in the ring"
    filled = 0
    for symbol in backfilling.SYMBOLS:
        rows = await site.store.read_trades(EXCHANGE, symbol)
        numbers = [int(row.trade_id) for row in rows]
        lacking = set(range(numbers[0], numbers[-1] + 1)) - set(numbers)
        told = {int(one.trade_id): one.sequence for one in follower.trades[symbol]}
        assert not lacking, f"{symbol}: {[(one, told.get(one)) for one in lacking]}, {gaps}"
        assert len(set(numbers)) == len(numbers)
        from_rest = {row.trade_id for row in rows if row.filled}
        known = [trade for trade in follower.trades[symbol] if int(trade.trade_id) <= numbers[-1]]
        assert {one.trade_id for one in known if _lies_in(gaps, one.sequence)} == from_rest
        filled += len(from_rest)
    assert sum(gap.filled for gap in gaps) == filled > 0


def _lies_in(gaps: list[GapRow], sequence: int) -> bool:
    return any((gap.first or 0) <= sequence <= (gap.last or 0) for gap in gaps)
