"""The Redis store's own: names of keys, other writers, outages, retention, metrics."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Iterator
from random import Random
from typing import Any

import pytest
import redis.asyncio

from alphapulse import metrics
from alphapulse.clock import NO_TIME, wall_ns
from alphapulse.config import StoreSettings
from alphapulse.errors import StoreError
from alphapulse.history import BookRow, FillStatus, GapFill, GapRow, StateRow
from alphapulse.model import BookState, Channel, Level, Reason
from alphapulse.shm import Position
from alphapulse.store import RedisStore, WriteBatch
from alphapulse.store.redis_venue import VenueWriter
from tests.support import ROOT
from tests.trading import NOW_NS, RedisServer, eventually, redis_server, row, stored_ids

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
    state = StateRow(
        exchange="kraken",
        symbol="BTC-USD",
        state=BookState.STALE,
        reason=Reason.DISCONNECTED,
        timestamp_ns=NOW_NS - 1,
        received_ns=NOW_NS,
    )
    gap = GapRow(
        exchange="kraken",
        symbol=None,
        channel=Channel.RING,
        reason=Reason.LAPPED,
        first=5,
        last=9,
        count=5,
        since_ns=NO_TIME,
        received_ns=NOW_NS,
        epoch=77,
    )
    rows = [row(1, price=10050), row(0, filled=True), row("x")]
    first = WriteBatch(
        exchange="kraken",
        trades=rows,
        gaps=[gap],
        states=[state],
        books=[book],
        position=Position(5, 6),
    )
    await stores[0].append(first)
    [gap] = await stores[0].read_gaps("kraken")
    fill = GapFill(id=gap.id, status=FillStatus.FILLED, filled_ns=NOW_NS, filled=3)
    await stores[0].append(WriteBatch(exchange="kraken", fills=[fill]))
    await stores[0].close()
    base = f"{ring_prefix}:{{kraken}}"
    names = sorted([key async for key in client.scan_iter(f"{ring_prefix}:*")])
    tails = {key.removeprefix(f"{base}:") for key in names if key.startswith(base)}
    assert {f"{base}:{tail}" for tail in tails} | {f"{ring_prefix}:exchanges"} == set(names)
    manual = (ROOT / "docs" / "store.md").read_text()
    for tail in tails:
        kind = re.sub(r"^bars:1[smhd]", "bars:INTERVAL", tail.replace("BTC-USD", "SYMBOL"))
        assert f"`{re.sub(r':[0-9]+$', ':BEGIN', kind)}`" in manual
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
    assert entries[1][1]["filled"] == "1"
    assert await client.hgetall(f"{base}:marks") == {"BTC-USD": entries[-1][0]}
    assert await client.xrange(f"{base}:states:BTC-USD") == [
        (
            f"{NOW_NS // 10**6}-0",
            {
                "state": "stale",
                "reason": "disconnected",
                "timestamp_ns": str(NOW_NS - 1),
                "received_ns": str(NOW_NS),
            },
        )
    ]
    assert await client.hgetall(f"{base}:fills") == {
        gap.id: json.dumps(
            {"status": "filled", "filled_ns": NOW_NS, "filled": 3}, separators=(",", ":")
        )
    }
    kept: Any = await client.xrange(f"{base}:books:BTC-USD")
    assert kept[0][1] == {"book": await client.get(f"{base}:book:BTC-USD")}
    assert await client.hgetall(f"{base}:position") == {"epoch": "5", "sequence": "6"}
    body = await client.get(f"{base}:book:BTC-USD")
    assert json.loads(body or "")["bids"] == [["100", "0.5"]]
    series = await client.hget(f"{base}:series", "BTC-USD")
    assert json.loads(series or "") == {"trade": [[0, 1]]}


def gap(number: int) -> GapRow:
    return GapRow(
        exchange="kraken",
        symbol="BTC-USD",
        channel=Channel.TRADES,
        reason=Reason.GAP,
        first=number,
        last=number,
        count=1,
        since_ns=NO_TIME,
        received_ns=NOW_NS + number * 10**6,
    )


async def test_a_page_of_gaps_is_read_by_itself(
    stores: list[RedisStore], client: redis.asyncio.Redis
) -> None:
    gaps = [gap(number) for number in range(500)]
    await stores[0].append(WriteBatch(exchange="kraken", gaps=gaps))
    for newest, expected in ((True, [498, 499]), (False, [0, 1])):
        await client.config_resetstat()
        found = await stores[0].read_gaps("kraken", limit=2, newest=newest)
        assert [each.first for each in found] == expected
        calls = (await client.info("commandstats"))["cmdstat_xrange"]["calls"]
        assert calls <= 3


async def test_gaps_without_an_index_get_one(
    stores: list[RedisStore], client: redis.asyncio.Redis, ring_prefix: str
) -> None:
    await stores[0].append(WriteBatch(exchange="kraken", gaps=[gap(2), gap(1)]))
    before = await stores[0].read_gaps("kraken")
    await client.delete(f"{ring_prefix}:{{kraken}}:gap_times")
    await stores[1].append(WriteBatch(exchange="kraken", gaps=[gap(3)]))
    found = await stores[1].read_gaps("kraken")
    assert found[:2] == before
    assert [each.first for each in found] == [1, 2, 3]


async def test_the_index_of_gaps_is_trimmed_with_them(
    server: RedisServer, client: redis.asyncio.Redis, ring_prefix: str
) -> None:
    settings = StoreSettings(redis_url=server.url, retention_days=0, max_trades=100)
    store = await RedisStore.open(settings, ring_prefix)
    await store.append(WriteBatch(exchange="kraken", gaps=[gap(number) for number in range(900)]))
    await store.close()
    # The first batch of a writer sweeps.
    store = await RedisStore.open(settings, ring_prefix)
    await store.append(WriteBatch(exchange="kraken", trades=[row(1)]))
    base = f"{ring_prefix}:{{kraken}}"
    left = await client.xlen(f"{base}:gaps")
    assert left < 300
    assert await client.zcard(f"{base}:gap_times") == left
    assert len(await store.read_gaps("kraken", limit=1000)) == left
    await store.close()


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
    interfere = [row(2)]
    find = VenueWriter._find

    async def late_look(self: VenueWriter, *args: Any) -> set[tuple[str, str]]:
        if interfere and self is first._venues["kraken"]:
            await second.append(WriteBatch(exchange="kraken", trades=[interfere.pop()]))
        return await find(self, *args)

    monkeypatch.setattr(VenueWriter, "_find", late_look)
    trades = [row(2), row(3), row("x", timestamp_ns=row(4).timestamp_ns)]
    assert await first.append(WriteBatch(exchange="kraken", trades=trades)) == 2
    assert await stored_ids(first) == ["1", "2", "3", "x"]


@pytest.mark.parametrize("limits", [{"retention_days": 1}, {"retention_days": 0, "max_trades": 10}])
async def test_old_trades_are_trimmed_and_their_bars_stay(
    server: RedisServer, ring_prefix: str, limits: dict[str, Any]
) -> None:
    now_ns = wall_ns()
    settings = StoreSettings(redis_url=server.url, **limits)
    store = await RedisStore.open(settings, ring_prefix)
    # Redis trims whole nodes of 100 entries.
    old = [row(n, timestamp_ns=now_ns - 3 * DAY_NS + n) for n in range(1, 1001)]
    await store.append(WriteBatch(exchange="kraken", trades=old))
    new = [row(n, timestamp_ns=now_ns + n) for n in range(1001, 1011)]
    await store.append(WriteBatch(exchange="kraken", trades=new))
    assert len(await stored_ids(store)) == 1010, "none of them is in a stored bar"
    await store.close()
    store = await RedisStore.open(settings, ring_prefix)
    await store.append(WriteBatch(exchange="kraken", trades=[row(1), row(1010)]))
    ids = await stored_ids(store)
    assert ids[-10:] == [str(n) for n in range(1001, 1011)]
    assert len(ids) <= 110
    bars = await store.read_bars("kraken", "BTC-USD", 86400 * 10**9)
    assert sum(bar.trades for bar in bars) == 1010
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


async def test_tasks_of_a_process_write_one_after_the_other(stores: list[RedisStore]) -> None:
    seed = 20261125
    random = Random(seed)
    batches = [[row(n + k) for k in range(random.randrange(1, 9))] for n in range(0, 100, 4)]
    random.shuffle(batches)
    appended = await asyncio.gather(
        *(stores[0].append(WriteBatch(exchange="kraken", trades=batch)) for batch in batches)
    )
    expected = {int(trade.trade_id) for batch in batches for trade in batch}
    assert sum(appended) == len(expected), f"seed {seed}"
    assert await stored_ids(stores[0]) == [str(number) for number in sorted(expected)]


async def test_a_connection_that_is_cut_is_replaced(
    stores: list[RedisStore], client: redis.asyncio.Redis
) -> None:
    store = stores[0]
    await store.append(WriteBatch(exchange="kraken", trades=[row(1)]))
    await client.client_kill_filter(_type="normal", skipme=True)
    link = store._venues["kraken"]._link
    assert link is not None

    async def noticed() -> bool:
        return link.closed

    await eventually(noticed)
    assert await store.append(WriteBatch(exchange="kraken", trades=[row(1), row(2)])) == 1
    assert await stored_ids(store) == ["1", "2"]


async def test_what_redis_refuses_is_a_store_error_and_leaves_nothing(
    stores: list[RedisStore], client: redis.asyncio.Redis
) -> None:
    store = stores[0]
    await store.append(WriteBatch(exchange="kraken", trades=[row(1)]))
    # Less than what it has: further writes are refused.
    await client.config_set("maxmemory", "1")
    batch = WriteBatch(exchange="kraken", trades=[row(2)], position=Position(1, 2))
    with pytest.raises(StoreError, match="maxmemory"):
        await store.append(batch)
    await client.config_set("maxmemory", "0")
    assert await store.position("kraken") is None
    assert await store.append(batch) == 1
    assert await stored_ids(store) == ["1", "2"]


async def test_a_cluster_keeps_a_venue_on_one_node(ring_prefix: str) -> None:
    """With cluster mode on, Redis refuses transactions over several slots."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with redis_server(
        "--cluster-enabled", "yes", "--port", str(port), "--cluster-port", "0"
    ) as one:
        async with redis.asyncio.Redis.from_url(one.url, decode_responses=True) as client:
            await client.execute_command("CLUSTER ADDSLOTSRANGE 0 16383")

            async def works() -> bool:
                about: Any = await client.execute_command("CLUSTER INFO")
                return bool(about["cluster_state"] == "ok")

            await eventually(works)
        settings = StoreSettings(redis_url=one.url, max_trades=5)
        store = await RedisStore.open(settings, ring_prefix)
        for exchange in ("kraken", "coinbase"):
            trades = [row(number, exchange=exchange) for number in (1, 0)]
            trades += [row("x", exchange=exchange), row(9, exchange=exchange, symbol="ETH-USD")]
            await store.append(
                WriteBatch(exchange=exchange, trades=trades, position=Position(1, 2))
            )
        await store.close()
        store = await RedisStore.open(settings, ring_prefix)
        for exchange in ("kraken", "coinbase"):
            assert await stored_ids(store, exchange=exchange) == ["0", "x", "1"]
            [bar] = await store.read_bars(exchange, "BTC-USD", 86400 * 10**9)
            assert bar.trades == 3
        assert len(await store.summarise()) == 4
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

    async def counted() -> bool:
        return count("redis_operations_total", operation="ping", status="ok") == before + 1

    await eventually(counted)
    assert count("redis_operation_latency_ms_count", operation="ping") == timed + 1
