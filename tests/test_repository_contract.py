"""One contract for whatever `open_repository` opens: each store, and REST over each of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

from alphapulse import MarketDataRepository, open_repository
from alphapulse.client.repository import HttpRepository
from alphapulse.errors import RequestError, StoreError
from alphapulse.history import INTERVALS_NS, BookRow, TradeRow
from alphapulse.model import IdKind, Level, Side
from alphapulse.store import Store, WriteBatch, open_store
from tests.reference import bars as reference
from tests.serving import api_settings, serving
from tests.trading import NOW_NS, RedisServer, redis_server, row

KINDS = ["embedded", "redis", "http over embedded", "http over redis"]
NOW = datetime.fromtimestamp(NOW_NS // 10**9, UTC)
FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


class Opened(NamedTuple):
    """A repository, and the store behind it."""

    repository: MarketDataRepository
    store: Store


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=KINDS)
async def opened(
    request: pytest.FixtureRequest, ring_prefix: str, tmp_path: Path
) -> AsyncIterator[Opened]:
    kind: str = request.param
    path = str(tmp_path / "history.duckdb")
    url = request.getfixturevalue("redis").url if "redis" in kind else ""
    async with AsyncExitStack() as stack:
        where = url or path
        if "http" in kind:
            settings = api_settings(
                ring_prefix,
                api={"writable": True, "token": "right"},
                path=path,
                redis_url=url,
                retention_days=0,
            )
            store = await open_store(settings)
            stack.push_async_callback(store.close)
            api = await stack.enter_async_context(serving(settings, store))
            where = f"http://127.0.0.1:{api.port}/"
        repository = await open_repository(where, prefix=ring_prefix, token="right")
        stack.push_async_callback(repository.close)
        yield Opened(repository, store if "http" in kind else repository)  # type: ignore[arg-type]


@pytest.fixture
def repository(opened: Opened) -> MarketDataRepository:
    return opened.repository


def trade(number: float | str, **fields: Any) -> dict[str, Any]:
    """A trade as programs save it."""
    defaults = {
        "timestamp": 1763640000 + (0 if isinstance(number, str) else number),
        "price": "100.5",
        "volume": "0.25",
        "side": "buy",
        "trade_id": number,
    }
    return {**defaults, **fields}


def plain(rows: list[TradeRow]) -> list[tuple[Any, ...]]:
    """What trades say, exactly."""
    return [
        (
            Decimal(each.timestamp_ns).scaleb(-9),
            each.exact_price,
            each.exact_size,
            each.side.text,
            each.trade_id,
            each.id_kind.text,
        )
        for each in rows
    ]


async def test_it_is_a_repository(repository: MarketDataRepository) -> None:
    assert isinstance(repository, MarketDataRepository)
    for name in ("save_trades", "get_trades", "get_ohlcv", "get_orderbook_snapshot", "get_symbols",
                 "get_data_summary", "health_check", "close"):  # fmt: skip
        method = getattr(repository, name)
        assert inspect.iscoroutinefunction(method), name
        declared = inspect.signature(getattr(MarketDataRepository, name)).parameters
        assert ["self", *inspect.signature(method).parameters] == list(declared), name


async def test_nothing_is_found_where_nothing_is(repository: MarketDataRepository) -> None:
    assert await repository.health_check() == {"status": "ok"}
    for symbol, exchange in (("BTC-USD", "kraken"), ("BTC-USD", "nowhere"), ("A-B", "all")):
        assert await repository.get_trades(symbol, exchange) == []
        assert await repository.get_ohlcv(symbol, exchange) == []
        assert await repository.get_orderbook_snapshot(symbol, exchange) is None
        assert await repository.get_orderbook_snapshot(symbol, exchange, NOW) is None
        assert await repository.get_symbols(exchange) == []
    summary = await repository.get_data_summary()
    assert (summary.total_records, summary.date_range) == (0, {"start": None, "end": None})
    # Of a symbol that is there, at an exchange that has it not, and at times without a trade.
    await repository.save_trades([trade(1)], "BTC-USD", "kraken")
    assert await repository.get_trades("ETH-USD", "kraken") == []
    assert await repository.get_trades("BTC-USD", "coinbase") == []
    assert await repository.get_trades("BTC-USD", "kraken", NOW, NOW - timedelta(days=1)) == []
    assert await repository.get_trades("BTC-USD", "kraken", None, FIRST) == []
    assert await repository.get_trades("BTC-USD", "kraken", LAST) == []


async def test_programs_written_for_the_protocol_work(repository: MarketDataRepository) -> None:
    moment = datetime(2026, 11, 20, 12, 0, 0, 250_000, tzinfo=UTC)
    trades = [
        trade(7, timestamp=moment, price=0.1, volume="1e-8", side="sell"),
        trade("x-1", timestamp=1763640001.5, price=Decimal("29430.20"), volume=2),
    ]
    answer = await repository.save_trades(trades, "btc/usd", "coinbase")
    assert answer == {"success": True, "saved": 2, "duplicates": 0}
    again = await repository.save_trades(trades[:1], "BTC-USD", "coinbase")
    assert again == {"success": True, "saved": 0, "duplicates": 1}
    found = await repository.get_trades("BTC/USD", "coinbase")
    assert [(each.price, each.volume, each.side, each.trade_id) for each in found] == [
        (29430.2, 2.0, "buy", "x-1"),
        (0.1, 1e-8, "sell", "7"),
    ]
    assert {type(each.price) for each in found} == {type(each.timestamp) for each in found}
    assert isinstance(found[0].price, float)
    assert found[0]["timestamp"] == 1763640001.5
    assert dict(found[1])["price"] == 0.1
    assert (found[0].symbol, found[0].exchange, found[0].id_kind) == ("BTC-USD", "coinbase", "text")
    (sold,) = await repository.get_trades(
        "BTC-USD", "coinbase", start_time=moment, end_time=moment, exact=True
    )
    assert sold.timestamp == Decimal(int(moment.timestamp() * 1000)) / 1000
    assert (sold.price, sold.volume) == (Decimal("0.1"), Decimal("1e-8"))
    naive = moment.replace(tzinfo=None)
    bars = await repository.get_ohlcv(
        "BTC-USD", "coinbase", "1h", start_time=naive - timedelta(hours=1)
    )
    assert [(bar.open, bar.volume, bar.trades) for bar in bars] == [(0.1, 1e-8, 1)]


async def test_digits_are_the_venues(opened: Opened) -> None:
    most = 2**63 - 1
    rows = [
        row(1, price=1, price_exponent=18, size=most, size_exponent=18),
        row(2, price=most, price_exponent=0, size=1, size_exponent=0, side=Side.SELL),
        row(2**64 - 1, timestamp_ns=NOW_NS + 3 * 10**9 + 1, price=2943020, price_exponent=2),
        row("a-\u00e9 '\"\\", timestamp_ns=NOW_NS + 4 * 10**9),
        row(7, id_kind=IdKind.AGGREGATE, timestamp_ns=NOW_NS + 5 * 10**9),
    ]
    await opened.store.append(WriteBatch(exchange="kraken", trades=rows))
    found = await opened.repository.get_trades("BTC-USD", "kraken", exact=True)
    given = [
        (each.timestamp, each.price, each.volume, each.side, each.trade_id, each.id_kind)
        for each in found
    ]
    assert given == plain(rows)
    floats = await opened.repository.get_trades("BTC-USD", "kraken")
    # The nearest float of the exact number, wherever it comes from.
    assert [each.price for each in floats] == [float(each.price) for each in found]
    assert [each.timestamp for each in floats] == [float(each.timestamp) for each in found]
    saved = await opened.repository.save_trades(found, "BTC-USD", "coinbase")
    assert saved["saved"] == len(rows)
    copied = await opened.repository.get_trades("BTC-USD", "coinbase", exact=True)
    assert [{**dict(each), "exchange": ""} for each in copied] == [
        {**dict(each), "exchange": ""} for each in found
    ]


async def test_any_span_and_limit_gives_what_a_plain_list_gives(opened: Opened) -> None:
    seed = 20261121
    random = Random(seed)
    rows = [
        row(number, timestamp_ns=NOW_NS + random.randrange(100) * 10**6)
        for number in random.sample(range(1000), 150)
    ]
    await opened.store.append(WriteBatch(exchange="kraken", trades=rows))
    ordered = sorted(rows, key=lambda each: each.order_key)
    repository = opened.repository
    if isinstance(repository, HttpRepository):
        repository._page_rows = 7
    for _ in range(25):
        start, end = (
            NOW + timedelta(milliseconds=random.randrange(-5, 105))
            if random.random() < 0.7
            else None
            for _ in range(2)
        )
        limit = random.choice([None, 1, 6, 7, 8, 40, 1000])
        expected = [
            each.trade_id
            for each in ordered
            if (start is None or each.timestamp_ns >= _ns(start))
            and (end is None or each.timestamp_ns <= _ns(end))
        ]
        if limit is not None:
            expected = expected[-limit:] if start is None else expected[:limit]
        found = await repository.get_trades("BTC-USD", "kraken", start, end, limit)
        question = f"seed {seed}: {start} {end} {limit}"
        assert [each.trade_id for each in found] == expected, question


def _ns(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


@pytest.mark.parametrize("interval", ["1s", "5m", "1d"])
async def test_bars_of_one_exchange_and_of_all(opened: Opened, interval: str) -> None:
    interval_ns = INTERVALS_NS[interval]
    seed = 20261122
    random = Random(seed)

    def some(exchange: str) -> list[TradeRow]:
        return [
            row(
                number,
                exchange=exchange,
                timestamp_ns=NOW_NS + random.randrange(20 * interval_ns // 10**6) * 10**6,
                price=random.randrange(1, 10**6),
                price_exponent=random.choice([2, 2, 8]),
                size=random.randrange(1, 10**9),
                size_exponent=random.choice([8, 0, 18]),
            )
            for number in random.sample(range(1, 10**6), 60)
        ]

    repository = opened.repository
    if isinstance(repository, HttpRepository):
        repository._page_rows = 3
    kraken, coinbase = some("kraken"), some("coinbase")
    await opened.store.append(WriteBatch(exchange="kraken", trades=kraken))
    await opened.store.append(WriteBatch(exchange="coinbase", trades=coinbase))
    for exchange, rows in (("kraken", kraken), ("all", [*coinbase, *kraken])):
        expected = reference.bars(rows, interval_ns)
        bars = await repository.get_ohlcv("BTC-USD", exchange, interval, exact=True)
        found = [
            (int(bar.timestamp * 10**9), bar.open, bar.high, bar.low, bar.close, bar.volume,
             bar.trades)
            for bar in bars
        ]  # fmt: skip
        assert found == [tuple(bar) for bar in expected], f"seed {seed}"
        second = datetime.fromtimestamp(expected[1].timestamp_ns // 10**9, UTC)
        fourth = datetime.fromtimestamp(expected[3].timestamp_ns // 10**9, UTC)
        part = await repository.get_ohlcv("BTC-USD", exchange, interval, second, fourth, exact=True)
        assert part == bars[1:4]
        floats = await repository.get_ohlcv("BTC-USD", exchange, interval)
        assert [bar.volume for bar in floats] == [float(bar.volume) for bar in bars]


async def test_books_that_are_kept_are_given_by_their_time(opened: Opened) -> None:
    for version in (1, 2):
        book = BookRow(
            exchange="kraken",
            symbol="BTC-USD",
            version=version,
            timestamp_ns=NOW_NS + version * 10**9,
            price_exponent=2,
            size_exponent=18,
            bids=(Level(10000 + version, 1), Level(10000, 2**63 - 1)),
            asks=(Level(10010, 500),),
        )
        await opened.store.append(WriteBatch(exchange="kraken", books=[book]))
    ask = opened.repository.get_orderbook_snapshot
    newest = await ask("BTC/USD", "kraken", exact=True)
    assert newest is not None
    assert (newest.symbol, newest.exchange) == ("BTC-USD", "kraken")
    assert newest.timestamp == Decimal(NOW_NS // 10**9 + 2)
    best = newest.bids[0]
    assert (best.price, best["size"]) == (Decimal("100.02"), Decimal("1e-18"))
    assert newest.bids[1].size == Decimal(2**63 - 1).scaleb(-18)
    assert [(level.price, level.size) for level in newest.asks] == [
        (Decimal("100.1"), Decimal("5e-16"))
    ]
    at_first = await ask("BTC-USD", "kraken", NOW + timedelta(seconds=1.5))
    assert at_first is not None
    assert at_first.bids[0].price == 100.01
    assert await ask("BTC-USD", "kraken", NOW) is None


async def test_the_summary_counts(opened: Opened) -> None:
    repository = opened.repository
    await repository.save_trades([trade(1), trade(2.5, trade_id=2)], "BTC-USD", "kraken")
    await repository.save_trades([trade(3)], "ETH-USD", "kraken")
    await repository.save_trades([trade(0)], "BTC-USD", "coinbase")
    summary = await repository.get_data_summary()
    assert summary.total_symbols == 2
    assert summary.total_exchanges == 2
    assert summary.total_records == 4
    assert summary.symbols_by_exchange == {
        "coinbase": ["BTC-USD"],
        "kraken": ["BTC-USD", "ETH-USD"],
    }
    assert summary.record_count_by_symbol == {"BTC-USD": 3, "ETH-USD": 1}
    assert summary.date_range == {"start": 1763640000.0, "end": 1763640003.0}
    assert await repository.get_symbols("kraken") == ["BTC-USD", "ETH-USD"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"price": "NaN"}, "trade 1: 'NaN'"),
        ({"price": None}, "price"),
        ({"volume": "1e-19"}, "1e-19"),
        ({"side": "up"}, "up"),
        ({"trade_id": "x", "id_kind": "trade"}, "trade x"),
        ({"id_kind": "none"}, "none"),
        ({"timestamp": "yesterday"}, "yesterday"),
        ({"timestamp": float("inf")}, "inf"),
        ({"timestamp": 10**12}, "1000000000000"),
        ({"timestamp": LAST}, "9999"),
        ({"price": -1}, "trade 1: its price"),
        ({"volume": "-0.1"}, "trade 1: its volume"),
        ({"trade_id": ""}, "trade_id"),
        ({"trade_id": "x" * 257}, "trade_id"),
    ],
)
async def test_a_trade_that_can_not_be_stored_is_refused(
    opened: Opened, change: dict[str, Any], named: str
) -> None:
    with pytest.raises(RequestError, match=named):
        await opened.repository.save_trades([trade(2), trade(1, **change)], "BTC-USD", "coinbase")
    assert await opened.store.summarise() == []


async def test_unusable_questions_are_refused(repository: MarketDataRepository) -> None:
    with pytest.raises(RequestError, match="BTCUSD"):
        await repository.get_trades("BTCUSD", "coinbase")
    with pytest.raises(RequestError, match="1s, 1m, 5m"):
        await repository.get_ohlcv("BTC-USD", "coinbase", "2m")
    for exchange in ("all", "", "Kraken", "a:b", "{x}", "x" * 33):
        with pytest.raises(RequestError, match=f"exchange: '{re.escape(exchange)}'"):
            await repository.save_trades([trade(1)], "BTC-USD", exchange)
    for symbol in ("BTC}-USD", "B:C-USD", "BTC-" + "U" * 61):
        with pytest.raises(RequestError, match=f"symbol: '{symbol}'"):
            await repository.save_trades([trade(1)], symbol, "kraken")
    summary = await repository.get_data_summary()
    assert summary.total_exchanges == 0


async def test_nobody_wants_less_than_one_trade(repository: MarketDataRepository) -> None:
    await repository.save_trades([trade(1), trade(2)], "BTC-USD", "kraken")
    for limit in (0, -1):
        assert await repository.get_trades("BTC-USD", "kraken", limit=limit) == []
        assert await repository.get_trades("BTC-USD", "kraken", FIRST, limit=limit) == []
    assert len(await repository.get_trades("BTC-USD", "kraken", limit=1)) == 1


async def test_a_closed_repository_says_so_and_may_be_closed_again(opened: Opened) -> None:
    repository = opened.repository
    await repository.save_trades([trade(1)], "BTC-USD", "kraken")
    await repository.close()
    await repository.close()
    if isinstance(repository, HttpRepository):
        with pytest.raises(StoreError, match="closed"):
            await repository.get_trades("BTC-USD", "kraken")
