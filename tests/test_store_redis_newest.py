"""The newest trades are those of Redis at any moment, whoever has written them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from random import Random

import pytest
import redis as sync_redis

from alphapulse.errors import StoreError
from alphapulse.history import TradeRow
from alphapulse.store import RedisStore, WriteBatch
from alphapulse.store import redis_newest as module
from alphapulse.store.entries import Keys
from tests.trading import NOW_NS, RedisServer, redis_server, row, settings_for

KEPT = 20
LIMITS = (1, 7, KEPT)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few trades are kept, and few are read at once."""
    monkeypatch.setattr(module, "KEPT", KEPT)
    monkeypatch.setattr(module, "PAGE", 8)
    monkeypatch.setattr("alphapulse.store.redis.KEPT", KEPT)


async def open_store(redis: RedisServer, prefix: str) -> RedisStore:
    settings = settings_for(prefix, redis_url=redis.url, retention_days=0)
    return await RedisStore.open(settings.store, prefix)


@pytest.fixture
async def reader(redis: RedisServer, ring_prefix: str) -> AsyncIterator[RedisStore]:
    store = await open_store(redis, ring_prefix)
    yield store
    await store.close()


@pytest.fixture
async def writer(redis: RedisServer, ring_prefix: str) -> AsyncIterator[RedisStore]:
    """Another process, as far as the reader can tell."""
    store = await open_store(redis, ring_prefix)
    yield store
    await store.close()


async def append(store: RedisStore, *rows: TradeRow) -> None:
    await store.append(WriteBatch(exchange="kraken", trades=rows))


async def newest(store: RedisStore, limit: int = KEPT) -> list[str]:
    rows = await store.read_trades("kraken", "BTC-USD", limit=limit, newest=True)
    return [each.trade_id for each in rows]


async def everything(store: RedisStore) -> list[str]:
    return [each.trade_id for each in await store.read_trades("kraken", "BTC-USD")]


async def test_whatever_is_added_is_seen_at_once(reader: RedisStore, writer: RedisStore) -> None:
    assert await newest(reader) == []
    seed = 20261121
    random = Random(seed)
    numbers = list(range(1, 400))
    while numbers:
        batch = [numbers.pop(0) for _ in range(min(len(numbers), random.randrange(1, 30)))]
        # Now and then a trade is as much as a hundred places late.
        times = {number: number - random.choice([0] * 5 + [3, 100]) for number in batch}
        rows = [
            row(number, timestamp_ns=NOW_NS + time * 10**6, filled=number % 7 == 0)
            for number, time in times.items()
        ]
        await append(writer, *rows)
        expected = await everything(writer)
        for limit in LIMITS:
            assert await newest(reader, limit) == expected[-limit:], f"seed {seed}"


async def test_all_who_ask_at_once_are_told_what_was_there_before(
    reader: RedisStore, writer: RedisStore
) -> None:
    written = 0

    async def write() -> None:
        nonlocal written
        for number in range(1, 60):
            await append(writer, row(number))
            written = number

    async def ask() -> None:
        while written < 59:
            before = written
            found = await newest(reader, 1)
            assert int((found or ["0"])[0]) >= before

    await asyncio.gather(write(), *(ask() for _ in range(10)))


async def test_what_was_trimmed_is_not_shown(
    reader: RedisStore, writer: RedisStore, redis: RedisServer, ring_prefix: str
) -> None:
    await append(writer, *(row(number) for number in range(1, 15)))
    assert len(await newest(reader)) == 14
    name = Keys(ring_prefix, "kraken").trades("BTC-USD")
    with sync_redis.Redis.from_url(redis.url) as client:
        client.xtrim(name, maxlen=5, approximate=False)
        assert await newest(reader) == [str(number) for number in range(10, 15)]
        client.delete(name)
        assert await newest(reader) == []
        # As after a restart of a Redis that has saved nothing.
        client.flushdb()
    again = await open_store(redis, ring_prefix)
    await append(again, row(3), row(4))
    assert await newest(reader) == ["3", "4"]
    await again.close()


async def test_a_lost_connection_is_made_again(redis: RedisServer, ring_prefix: str) -> None:
    reader, writer = [await open_store(redis, ring_prefix) for _ in range(2)]
    await append(writer, row(1))
    assert await newest(reader) == ["1"]
    with sync_redis.Redis.from_url(redis.url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    writer, old = await open_store(redis, ring_prefix), writer
    await append(writer, row(2))
    assert await newest(reader) == ["1", "2"]
    for store in (reader, writer, old):
        await store.close()


async def test_a_redis_that_is_away_is_told(ring_prefix: str) -> None:
    with redis_server() as server:
        store = await open_store(server, ring_prefix)
        await append(store, row(1))
        assert await newest(store) == ["1"]
        server.stop()
        for _ in range(2):
            with pytest.raises(StoreError, match="Redis at"):
                await asyncio.gather(*(newest(store) for _ in range(3)))
        server.start()
        assert await newest(store) == []
        await store.close()
