"""From real rings into both stores: exactly once, through kills, outages and new rings."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
from redis import Redis
from structlog.testing import capture_logs

from alphapulse import metrics
from alphapulse.clock import NO_TIME, wall_ns
from alphapulse.config import Settings
from alphapulse.errors import StoreError
from alphapulse.history import INTERVALS_NS
from alphapulse.model import BookState, Channel, IdKind, Reason, Side
from alphapulse.shm import Position, RingWriter
from alphapulse.store import Store, WriteBatch, open_store
from alphapulse.store.follower import BEGINNING
from alphapulse.store.writer import run_store_writer
from tests.support import ROOT
from tests.trading import (
    NOW_NS,
    PATIENCE_SECONDS,
    RedisServer,
    Venue,
    eventually,
    redis_server,
    row,
    settings_for,
    store_writer,
    stored_ids,
)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=["embedded", "redis"])
def settings(request: pytest.FixtureRequest, ring_prefix: str, tmp_path: Path) -> Settings:
    options: dict[str, Any] = {"path": str(tmp_path / "history.duckdb"), "retention_days": 0}
    if request.param == "redis":
        options["redis_url"] = request.getfixturevalue("redis").url
    return settings_for(ring_prefix, **options)


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    store = await open_store(settings)
    yield store
    await store.close()


def ids(*numbers: int) -> list[str]:
    return [str(number) for number in numbers]


def start_writer(settings: Settings) -> subprocess.Popen[str]:
    arguments = [settings.ring.prefix, settings.store.path, settings.store.redis_url]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.store_process", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


async def wait_for_ids(store: Store, expected: list[str], **which: str) -> None:
    async def there() -> bool:
        return await stored_ids(store, **which) == expected

    await eventually(there)


async def test_what_rings_hold_and_get_is_written(settings: Settings, store: Store) -> None:
    with Venue(settings.ring.prefix, "kraken", "BTC-USD", "ETH-USD") as kraken:
        kraken.trade("BTC-USD", 1)
        async with store_writer(settings, store):
            await wait_for_ids(store, ids(1))
            with Venue(settings.ring.prefix, "coinbase") as coinbase:
                coinbase.trade("BTC-USD", 77)
                await wait_for_ids(store, ids(77), exchange="coinbase")
                kraken.trade("ETH-USD", "a-1", side=Side.SELL, size=1, exchange_ns=NOW_NS + 7)
                await wait_for_ids(store, ["a-1"], symbol="ETH-USD")
        (trade,) = await store.read_trades("kraken", "ETH-USD")
        assert trade.id_kind is IdKind.TEXT
        assert trade.side is Side.SELL
        assert (trade.exact_price, trade.exact_size) == (Decimal(100), Decimal("0.0001"))
        assert trade.timestamp_ns == NOW_NS + 7


async def test_a_writer_ends_though_its_ring_never_does(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = asyncio.Event()
    append = store.append
    with Venue(settings.ring.prefix) as venue:
        numbers = itertools.count(1)
        venue.trade("BTC-USD", next(numbers))
        at_stop = 0

        async def append_and_get_more(batch: WriteBatch) -> int:
            nonlocal at_stop
            new = await append(batch)
            if new and not stop.is_set():
                stop.set()
                for at_stop in itertools.islice(numbers, 5000):
                    venue.trade("BTC-USD", at_stop)
            venue.trade("BTC-USD", next(numbers))
            return new

        monkeypatch.setattr(store, "append", append_and_get_more)
        await asyncio.wait_for(run_store_writer(settings, store, stop), PATIENCE_SECONDS)
        stored = [int(trade_id) for trade_id in await stored_ids(store)]
        assert stored == list(range(1, len(stored) + 1))
        assert len(stored) >= at_stop
        # The next one goes on behind them.
        stop.clear()
        monkeypatch.setattr(store, "append", append)
        async with store_writer(settings, store):
            pass
        assert await stored_ids(store) == [str(number) for number in range(1, next(numbers))]


async def test_a_repeated_trade_is_written_once_and_a_gap_is_kept(
    settings: Settings, store: Store
) -> None:
    with Venue(settings.ring.prefix) as venue:
        for number in (1, 2, 2, 1, 5, 4):
            venue.trade("BTC-USD", number, exchange_ns=NOW_NS + number)
        venue.gap("BTC-USD", 3, 3)
        async with store_writer(settings, store):
            await wait_for_ids(store, ids(1, 2, 4, 5))
        (gap,) = await store.read_gaps("kraken")
        assert (gap.symbol, gap.channel, gap.first, gap.last) == ("BTC-USD", Channel.TRADES, 3, 3)


async def test_the_latest_book_is_written(settings: Settings, store: Store) -> None:
    with Venue(settings.ring.prefix) as venue:
        venue.book("BTC-USD", {"100.01": "2.5"}, {"100.02": "1"})
        async with store_writer(settings, store):

            async def book() -> Any:
                return await store.get_orderbook_snapshot("BTC-USD", "kraken")

            found = await eventually(book)
            assert [(level.price, level.size) for level in found.bids] == [(100.01, 2.5)]


async def test_changes_of_state_are_written(settings: Settings, store: Store) -> None:
    with Venue(settings.ring.prefix) as venue:
        venue.book("BTC-USD", {"100.01": "2.5"}, {"100.02": "1"})
        venue.state("BTC-USD", BookState.STALE, Reason.DISCONNECTED)
        async with store_writer(settings, store):

            async def both() -> bool:
                return len(await store.read_states("kraken", "BTC-USD")) == 2

            await eventually(both)
    states = await store.read_states("kraken", "BTC-USD")
    assert [(row.state, row.reason) for row in states] == [
        (BookState.LIVE, Reason.SUBSCRIBED),
        (BookState.STALE, Reason.DISCONNECTED),
    ]
    assert states[0].received_ns <= states[1].received_ns
    assert await store.read_states("kraken", "BTC-USD", limit=1) == states[1:]
    assert await store.get_orderbook_snapshot("BTC-USD", "kraken") is None, "it isn't live"


async def test_the_place_in_the_ring_is_kept_and_used(settings: Settings, store: Store) -> None:
    with Venue(settings.ring.prefix) as venue:
        for number in range(1, 6):
            venue.trade("BTC-USD", number, exchange_ns=NOW_NS + number)
        async with store_writer(settings, store):
            pass
        assert await stored_ids(store) == ids(1, 2, 3, 4, 5)
        place = Position(venue.writer.epoch, venue.writer.sequence + 1)
        assert await store.position("kraken") == place
        venue.trade("BTC-USD", 6, exchange_ns=NOW_NS + 6)
        # Not what was written, but the place in the ring says what comes next.
        await store.append(WriteBatch(exchange="kraken", position=Position(*place)))
        async with store_writer(settings, store):
            await wait_for_ids(store, ids(1, 2, 3, 4, 5, 6))
        assert await store.read_gaps("kraken") == []


async def test_a_closed_ring_leaves_but_the_time_without_one(
    settings: Settings, store: Store
) -> None:
    async def over() -> bool:
        return await store.position("kraken") == BEGINNING

    async with store_writer(settings, store):
        for number in (1, 2):
            with Venue(settings.ring.prefix) as venue:
                venue.trade("BTC-USD", number, exchange_ns=NOW_NS + number)
                await wait_for_ids(store, ids(*range(1, number + 1)))
            await eventually(over)
    (gap,) = await store.read_gaps("kraken")
    assert (gap.channel, gap.reason, gap.symbol) == (Channel.RING, Reason.RESTARTED, None)
    assert (gap.first, gap.last, gap.count) == (None, None, None)
    before, after = await store.read_trades("kraken", "BTC-USD")
    assert gap.since_ns == before.received_ns < after.received_ns


async def test_a_ring_replaced_by_a_successor_is_read_to_its_end(
    settings: Settings, store: Store
) -> None:
    with Venue(settings.ring.prefix) as venue:
        venue.trade("BTC-USD", 1)
        async with store_writer(settings, store):
            await wait_for_ids(store, ids(1))
            first = venue.writer.epoch
            venue.trade("BTC-USD", 2, exchange_ns=NOW_NS + 2)
            venue.writer.enlarge(2 << 20)
            venue.define("BTC-USD")
            venue.trade("BTC-USD", 3, exchange_ns=NOW_NS + 3)
            await wait_for_ids(store, ids(1, 2, 3))
        place = await store.position("kraken")
        assert place is not None
        assert place.epoch == venue.writer.epoch > first
    assert await store.read_gaps("kraken") == []


async def test_what_the_ring_no_longer_holds_is_a_gap(settings: Settings, store: Store) -> None:
    with Venue(settings.ring.prefix, size_bytes=1 << 14) as venue:
        venue.trade("BTC-USD", 1)
        async with store_writer(settings, store):
            await wait_for_ids(store, ids(1))
        place = await store.position("kraken")
        assert place is not None
        for number in range(2, 1000):
            venue.trade("BTC-USD", number, exchange_ns=NOW_NS + number)
        async with store_writer(settings, store):

            async def caught_up() -> bool:
                return (await stored_ids(store))[-1] == "999"

            await eventually(caught_up)
        (gap,) = await store.read_gaps("kraken")
        assert (gap.channel, gap.reason) == (Channel.RING, Reason.LAPPED)
        assert gap.first == place.sequence
        assert gap.last is not None
        found = {int(trade_id) for trade_id in await stored_ids(store)}
        # One record per trade: what isn't in the store is in the gap, and nothing else.
        missing = set(range(1, 1000)) - found
        assert gap.count == len(missing) == gap.last - gap.first + 1
        assert missing == set(range(2, 2 + len(missing)))


async def test_a_position_of_a_ring_that_is_gone_is_a_gap(settings: Settings, store: Store) -> None:
    await store.append(WriteBatch(exchange="kraken", position=Position(5, 10)))
    with Venue(settings.ring.prefix) as venue:
        venue.trade("BTC-USD", 1)
        async with store_writer(settings, store):
            await wait_for_ids(store, ids(1))
    (gap,) = await store.read_gaps("kraken")
    assert (gap.channel, gap.reason, gap.first) == (Channel.RING, Reason.RESTARTED, 10)
    assert (gap.last, gap.count) == (None, None)


async def test_a_position_beyond_the_ring_is_void(settings: Settings, store: Store) -> None:
    with Venue(settings.ring.prefix) as venue:
        venue.trade("BTC-USD", 1)
        place = Position(venue.writer.epoch, 10**6)
        await store.append(WriteBatch(exchange="kraken", position=place))
        async with store_writer(settings, store):
            await wait_for_ids(store, ids(1))


async def test_a_ring_lapped_before_it_was_ever_read_is_a_gap(
    settings: Settings, store: Store
) -> None:
    with Venue(settings.ring.prefix, size_bytes=1 << 14) as venue:
        for number in range(1, 1000):
            venue.trade("BTC-USD", number, exchange_ns=NOW_NS + number)
        async with store_writer(settings, store):

            async def caught_up() -> bool:
                return (await stored_ids(store))[-1:] == ["999"]

            await eventually(caught_up)
    (gap,) = await store.read_gaps("kraken")
    assert (gap.channel, gap.reason, gap.first) == (Channel.RING, Reason.STARTED, 1)


async def test_an_outage_of_the_store_loses_nothing(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = 20261122
    random = Random(seed)
    append = store.append
    failures = 0

    async def unreliable(batch: WriteBatch) -> int:
        nonlocal failures
        fate = random.random()
        if failures >= 6 or fate < 0.5:
            return await append(batch)
        failures += 1
        if fate < 0.75:
            await append(batch)  # written, but nobody hears of it
        raise StoreError("away")

    monkeypatch.setattr(store, "append", unreliable)
    expected = []
    with Venue(settings.ring.prefix) as venue:
        async with store_writer(settings, store):
            number = 0
            while failures < 6:
                number += 1
                venue.trade("BTC-USD", number, exchange_ns=NOW_NS + number)
                expected.append(str(number))
                seen = failures

                async def handled(seen: int = seen) -> bool:
                    return failures > seen or await stored_ids(store) == expected

                await eventually(handled)
            await wait_for_ids(store, expected)
    assert await store.read_gaps("kraken") == [], f"seed {seed}"


async def test_redis_restarting_loses_nothing(ring_prefix: str) -> None:
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:
        settings = settings_for(ring_prefix, redis_url=server.url, buffer_size=10)
        store = await open_store(settings)
        with Venue(ring_prefix) as venue:
            async with store_writer(settings, store):
                for begin in range(1, 4):
                    for number in range(begin * 100, begin * 100 + 100):
                        venue.trade("BTC-USD", number, exchange_ns=NOW_NS + number)
                    await wait_for_ids(store, ids(*range(100, begin * 100 + 100)))
                    server.stop()
                    venue.trade(
                        "BTC-USD", begin * 100 + 100, exchange_ns=NOW_NS + begin * 100 + 100
                    )
                    server.start()
                await wait_for_ids(store, ids(*range(100, 401)))
        assert await store.read_gaps("kraken") == []
        await store.close()


@pytest.mark.parametrize("restarted", [True, False])
async def test_a_redis_that_comes_back_empty_is_told(ring_prefix: str, restarted: bool) -> None:
    with redis_server() as server, capture_logs() as logs:
        settings = settings_for(ring_prefix, redis_url=server.url)
        store = await open_store(settings)
        with Venue(ring_prefix, size_bytes=1 << 14) as venue:

            async def kept_up() -> bool:
                place = await store.position("kraken")
                return place is not None and place.sequence == venue.writer.sequence + 1

            async with store_writer(settings, store):
                for number in range(1, 1000):
                    venue.trade("BTC-USD", number, exchange_ns=NOW_NS + number)
                    if number % 50 == 0:
                        await eventually(kept_up)
                await eventually(kept_up)
                before_ns = wall_ns()
                if restarted:
                    server.stop()
                    server.start()
                else:
                    with Redis.from_url(server.url) as client:
                        client.flushall()
                    # What comes from elsewhere hides nothing.
                    other = WriteBatch(exchange="kraken", trades=[row(1, symbol="ETH-USD")])
                    await store.append(other)
                venue.trade("BTC-USD", 1000, exchange_ns=NOW_NS + 1000)

                async def caught_up() -> bool:
                    return (await stored_ids(store))[-1:] == ["1000"]

                await eventually(caught_up)
        held = len(await stored_ids(store))
        assert held < 1000
        all_lost, lapped = await store.read_gaps("kraken")
        assert (all_lost.channel, all_lost.reason) == (Channel.RING, Reason.STARTED)
        assert (all_lost.symbol, all_lost.first, all_lost.last, all_lost.count) == (None,) * 4
        assert all_lost.since_ns == NO_TIME
        assert before_ns < all_lost.received_ns < wall_ns()
        # Of the ring's own records it is known how many there were: trades, and an instrument.
        assert (lapped.reason, lapped.first, lapped.count) == (Reason.STARTED, 1, 1001 - held)
        assert "BTC-USD" in await store.get_symbols("kraken")
        assert [each for each in logs if each["log_level"] == "error"]
        await store.close()


async def test_a_writer_killed_at_any_moment_continues(settings: Settings) -> None:
    seed = 20261123
    random = Random(seed)
    total = 3000
    with Venue(settings.ring.prefix) as venue:
        for number in range(1, total + 1):
            venue.trade("BTC-USD", number, exchange_ns=NOW_NS + number)
            if random.random() < 0.1:
                venue.trade("BTC-USD", max(number - random.randrange(50), 1))
        written = 0
        for _ in range(6):
            process = start_writer(settings)
            with process:
                assert process.stdout is not None
                for _ in range(random.randrange(1, 20)):
                    written += int(process.stdout.readline())
                process.kill()
        assert 0 < written < total
        store = await open_store(settings)
        before = len(await stored_ids(store))
        assert before >= written, "what was said to be written is there"
        async with store_writer(settings, store):
            await wait_for_ids(store, ids(*range(1, total + 1)))
        assert await store.read_gaps("kraken") == [], f"seed {seed}"
        bars = await store.read_bars("kraken", "BTC-USD", INTERVALS_NS["1m"])
        assert sum(bar.trades for bar in bars) == total
        await store.close()


async def test_rows_are_counted(settings: Settings, store: Store) -> None:
    before = metrics.sample("store_rows_total", exchange="binance_us") or 0
    with Venue(settings.ring.prefix, "binance_us") as venue:
        for number in (1, 1, 2):
            venue.trade("BTC-USD", number)
        async with store_writer(settings, store):
            await wait_for_ids(store, ids(1, 2), exchange="binance_us")
    assert metrics.sample("store_rows_total", exchange="binance_us") == before + 2
    assert metrics.sample("store_lag_records", exchange="binance_us") == 0


async def test_a_damaged_ring_stops_nothing_else(settings: Settings, store: Store) -> None:
    broken = RingWriter("coinbase", prefix=settings.ring.prefix, size_bytes=1 << 14)
    path = Path("/dev/shm") / f"{settings.ring.prefix}.coinbase"
    with path.open("r+b") as file:
        file.write(b"\xff" * 64)
    with Venue(settings.ring.prefix) as venue:
        venue.trade("BTC-USD", 1)
        async with store_writer(settings, store):
            await wait_for_ids(store, ids(1))
    broken.close()
