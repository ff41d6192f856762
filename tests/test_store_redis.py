"""The Redis store's own: names of keys, other writers, outages, retention, metrics."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis.asyncio

from alphapulse import metrics
from alphapulse.clock import wall_ns
from alphapulse.config import StoreSettings
from alphapulse.errors import StoreError
from alphapulse.history import BookRow
from alphapulse.model import Level
from alphapulse.shm import Position
from alphapulse.store import RedisStore, WriteBatch
from tests.support import ROOT
from tests.trading import NOW_NS, RedisServer, redis_server, row, stored_ids

DAY_NS = 86400 * 10**9


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.Redis.from_url(server.url, decode_responses=True)
    yield client
    await client.aclose()


@pytest.fixture
async def stores(server: RedisServer, ring_prefix: str) -> AsyncIterator[list[RedisStore]]:
    """Two programs' stores of the same installation."""
    settings = StoreSettings(redis_url=server.url, retention_days=0)
    opened = [await RedisStore.open(settings, ring_prefix) for _ in range(2)]
    yield opened
    for store in opened:
        await store.close()


async def test_keys_and_fields_are_those_of_the_manual(
    stores: list[RedisStore], client: redis.asyncio.Redis, ring_prefix: str
) -> None:
    book = BookRow(
        exchange="kraken",
        symbol="BTC-USD",
        version=7,
        timestamp_ns=NOW_NS,
        price_exponent=2,
        size_exponent=4,
        bids=(Level(10000, 5000),),
        asks=(),
    )
    rows = [row(1, price=10050), row(0), row("x")]
    await stores[0].append(
        WriteBatch(exchange="kraken", trades=rows, books=[book], position=Position(5, 6))
    )
    base = f"{ring_prefix}:{{kraken}}"
    names = sorted([key async for key in client.scan_iter(f"{ring_prefix}:*")])
    tails = ("book:BTC-USD", "commits", "late:BTC-USD", "position", "series", "texts:BTC-USD")
    assert names == sorted(
        [f"{base}:{tail}" for tail in (*tails, "trades:BTC-USD")] + [f"{ring_prefix}:exchanges"]
    )
    manual = (ROOT / "docs" / "store.md").read_text()
    for tail in (*tails, "trades:BTC-USD", "gaps"):
        assert f"`{tail.replace('BTC-USD', 'SYMBOL')}`" in manual
    entries: Any = await client.xrange(f"{base}:trades:BTC-USD")
    assert entries[0] == (
        f"{NOW_NS // 10**6 + 1000}-0",
        {
            "trade_id": "1",
            "id_kind": "trade",
            "timestamp_ns": str(NOW_NS + 10**9),
            "received_ns": "",
            "price": "100.5",
            "volume": "0.5",
            "side": "buy",
            "matches": "1",
        },
    )
    assert entries[1][0] == f"{NOW_NS // 10**6 + 1000}-1"
    assert await client.hgetall(f"{base}:position") == {"epoch": "5", "sequence": "6"}
    body = await client.get(f"{base}:book:BTC-USD")
    assert json.loads(body or "")["bids"] == [["100", "0.5"]]
    series = await client.hget(f"{base}:series", "BTC-USD")
    assert json.loads(series or "") == {"trade": [[0, 1]]}


async def test_two_writers_keep_each_trade_once(stores: list[RedisStore]) -> None:
    for begin in range(0, 40, 4):
        for store in stores:
            rows = [row(number) for number in range(begin, begin + 6)]
            await store.append(WriteBatch(exchange="kraken", trades=rows))
    assert await stored_ids(stores[0]) == [str(number) for number in range(42)]


async def test_a_transaction_on_old_knowledge_is_refused(
    stores: list[RedisStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = stores
    await first.append(WriteBatch(exchange="kraken", trades=[row(1)]))
    from alphapulse.store import redis as module

    looked_up = module._known_texts
    interfere = [row(2)]

    async def late_look(*args: object) -> set[tuple[str, str]]:
        if interfere:
            await second.append(WriteBatch(exchange="kraken", trades=[interfere.pop()]))
        return await looked_up(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_known_texts", late_look)
    assert await first.append(WriteBatch(exchange="kraken", trades=[row(2), row(3)])) == 1
    assert await stored_ids(first) == ["1", "2", "3"]


async def test_old_trades_are_trimmed(server: RedisServer, ring_prefix: str) -> None:
    now_ns = wall_ns()
    store = await RedisStore.open(
        StoreSettings(redis_url=server.url, retention_days=1), ring_prefix
    )
    # Redis trims whole nodes of 100 entries.
    old = [row(n, timestamp_ns=now_ns - 3 * DAY_NS + n) for n in range(1, 1001)]
    await store.append(WriteBatch(exchange="kraken", trades=old))
    new = [row(n, timestamp_ns=now_ns + n) for n in range(1001, 1011)]
    store._next_sweep.clear()
    await store.append(WriteBatch(exchange="kraken", trades=new))
    ids = await stored_ids(store)
    assert ids[-10:] == [str(n) for n in range(1001, 1011)]
    assert len(ids) <= 110
    await store.close()


async def test_an_outage_is_a_store_error_and_the_store_recovers(ring_prefix: str) -> None:
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:
        store = await RedisStore.open(StoreSettings(redis_url=server.url), ring_prefix)
        batch = WriteBatch(exchange="kraken", trades=[row(1)], position=Position(1, 2))
        assert await store.append(batch) == 1
        server.stop()
        with pytest.raises(StoreError, match=r"Redis at unix://.* failed"):
            await store.append(WriteBatch(exchange="kraken", trades=[row(2)]))
        assert (await store.health_check())["status"] == "failed"
        server.start()
        assert await store.position("kraken") == Position(1, 2)
        assert await store.append(WriteBatch(exchange="kraken", trades=[row(1), row(2)])) == 1
        assert await stored_ids(store) == ["1", "2"]
        await store.close()


async def test_a_password_is_not_told() -> None:
    store = await RedisStore.open(
        StoreSettings(redis_url="redis://someone:hidden@127.0.0.1:1/0"), "aptest"
    )
    health = await store.health_check()
    assert health["status"] == "failed"
    assert "hidden" not in health["problem"]
    assert "127.0.0.1:1" in health["problem"]
    await store.close()


async def test_operations_are_counted(stores: list[RedisStore]) -> None:
    def count(name: str, **labels: str) -> float:
        return metrics.sample(name, **labels) or 0

    before = count("redis_operations_total", operation="ping", status="ok")
    timed = count("redis_operation_latency_ms_count", operation="ping")
    await stores[0].ping()
    assert count("redis_operations_total", operation="ping", status="ok") == before + 1
    assert count("redis_operation_latency_ms_count", operation="ping") == timed + 1
