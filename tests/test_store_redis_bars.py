"""Bars in Redis: whatever is stored and whatever isn't as yet, they are those of all trades."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from random import Random

import pytest
import redis.asyncio

from alphapulse.config import StoreSettings
from alphapulse.history import INTERVALS_NS
from alphapulse.store import RedisStore, WriteBatch
from alphapulse.store import redis_bars as module
from alphapulse.store.bars import bars_of, parts_of
from alphapulse.store.entries import Keys
from alphapulse.store.redis_bars import BarReader
from alphapulse.store.redis_venue import BAR_TURNS
from tests.trading import NOW_NS, RedisServer, redis_server, row

SPANS_NS = {"seconds": 20 * 10**9, "hours": 3 * 3600 * 10**9, "months": 90 * 86400 * 10**9}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
async def stores(server: RedisServer, ring_prefix: str) -> AsyncIterator[list[RedisStore]]:
    """Two programs' stores of the same installation."""
    settings = StoreSettings(redis_url=server.url, retention_days=0)
    opened = [await RedisStore.open(settings, ring_prefix) for _ in range(2)]
    yield opened
    for store in opened:
        await store.close()


@pytest.mark.parametrize("span", SPANS_NS)
async def test_bars_are_those_of_all_trades(
    stores: list[RedisStore], monkeypatch: pytest.MonkeyPatch, span: str
) -> None:
    seed = 20261124
    random = Random(f"{seed} {span}")
    monkeypatch.setattr(module, "PAGE", 7)
    monkeypatch.setattr(module, "BUCKETS_AT_ONCE", 2)
    begin_ns = NOW_NS // (86400 * 10**9) * 86400 * 10**9
    number = 0
    rows = []
    for _ in range(60):
        batch = []
        for _ in range(random.randrange(6)):
            number += 1
            time_ns = begin_ns + random.randrange(SPANS_NS[span])
            fields = {
                "timestamp_ns": time_ns,
                "price": random.randrange(1, 10**6),
                "price_exponent": random.randrange(4),
                "size": random.randrange(1, 10**6),
                "size_exponent": random.randrange(4),
                "filled": random.random() < 0.2,
            }
            batch.append(row(f"t{number}" if random.random() < 0.1 else number, **fields))
        rows += batch
        store = random.choice(stores)
        venue = store._venues.get("kraken")
        if venue is not None:
            venue._bars_due = random.choice([0.0, venue._bars_due])
        await store.append(WriteBatch(exchange="kraken", trades=batch))
        if random.random() < 0.1:
            await store._venues["kraken"].close()
        interval_ns = INTERVALS_NS[random.choice(list(INTERVALS_NS))]
        expected = bars_of(parts_of(rows, interval_ns), interval_ns)
        found = await stores[0].read_bars("kraken", "BTC-USD", interval_ns)
        assert [_plain(bar) for bar in found] == [_plain(bar) for bar in expected], f"seed {seed}"
        limit = random.randrange(1, 4)
        first = await stores[1].read_bars("kraken", "BTC-USD", interval_ns, limit=limit)
        last = await stores[1].read_bars(
            "kraken", "BTC-USD", interval_ns, None, None, limit, newest=True
        )
        assert [_plain(bar) for bar in first] == [_plain(bar) for bar in expected[:limit]]
        assert [_plain(bar) for bar in last] == [_plain(bar) for bar in expected[-limit:]]
        if expected:
            start, end = sorted(random.choices([bar.timestamp_ns for bar in expected], k=2))
            found = await stores[0].read_bars("kraken", "BTC-USD", interval_ns, start, end)
            within = [bar for bar in expected if start <= bar.timestamp_ns <= end]
            assert [_plain(bar) for bar in found] == [_plain(bar) for bar in within]


async def test_bars_that_are_stored_while_they_are_read_count_once(
    stores: list[RedisStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, reading = stores
    await writing.append(WriteBatch(exchange="kraken", trades=[row(1), row(2)]))
    read = BarReader._buckets
    new = [row(number) for number in (3, 4)]

    async def slow_read(self: BarReader, *args: object) -> list[int]:
        buckets = await read(self, *args)  # type: ignore[arg-type]
        batch = WriteBatch(exchange="kraken", trades=[new.pop()] if new else [])
        await writing._venues["kraken"].append(batch, all_bars=bool(new))
        return buckets

    monkeypatch.setattr(BarReader, "_buckets", slow_read)
    bars = await reading.read_bars("kraken", "BTC-USD", INTERVALS_NS["1d"])
    assert sum(bar.trades for bar in bars) == 4


async def test_series_take_turns_in_having_their_bars_stored(
    stores: list[RedisStore], server: RedisServer, ring_prefix: str
) -> None:
    writing, reading = stores
    symbols = [f"A{number}-USD" for number in range(2 * BAR_TURNS + 1)]
    marks = Keys(ring_prefix, "kraken").marks
    stored = []
    async with redis.asyncio.Redis.from_url(server.url) as client:
        for number in range(1, BAR_TURNS + 2):
            rows = [row(number, symbol=symbol) for symbol in symbols]
            await writing.append(WriteBatch(exchange="kraken", trades=rows))
            writing._venues["kraken"]._bars_due = 0.0
            stored.append(await client.hlen(marks))
            for symbol in (symbols[0], symbols[-1]):
                (bar,) = await reading.read_bars("kraken", symbol, INTERVALS_NS["1d"])
                assert bar.trades == number
    assert stored == [0, *(min(3 * turn, len(symbols)) for turn in range(1, BAR_TURNS + 1))]


async def test_bars_expire_with_their_buckets(server: RedisServer, ring_prefix: str) -> None:
    settings = StoreSettings(redis_url=server.url, retention_days=2, bar_retention_days=1000)
    store = await RedisStore.open(settings, ring_prefix)
    await store.append(WriteBatch(exchange="kraken", trades=[row(1)]))
    await store.close()
    async with redis.asyncio.Redis.from_url(server.url, decode_responses=True) as client:
        lives = {
            key.split(":")[3]: await client.ttl(key) / 86400
            async for key in client.scan_iter(f"{ring_prefix}:*bars:*BTC-USD:*")
        }
    assert 1 < lives["1s"] <= 3
    assert 999 < lives["1m"] <= 1001
    assert lives["1d"] > 1000


def _plain(bar: tuple[int, ...]) -> tuple[object, ...]:
    """A bar without regard to how many zeros its numbers end with."""
    begin, *prices, price_exponent, volume, size_exponent, trades = bar
    return begin, [p / 10**price_exponent for p in prices], volume / 10**size_exponent, trades
