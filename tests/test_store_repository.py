"""One contract for every store: exact, each trade once, in transactions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import pytest
from msgspec.structs import replace

from alphapulse.clock import NO_TIME
from alphapulse.errors import StoreError
from alphapulse.history import (
    ALL,
    INTERVALS_NS,
    BookRow,
    FillStatus,
    GapFill,
    GapRow,
    StateRow,
    TradeRow,
    in_order,
)
from alphapulse.model import BookState, Channel, IdKind, Level, Reason, Side
from alphapulse.shm import Position
from alphapulse.store import Store, WriteBatch, open_store
from tests.reference import bars as reference
from tests.trading import NOW_NS, RedisServer, redis_server, row, settings_for, stored_ids

INT64_MAX = 2**63 - 1

Open: TypeAlias = Callable[[], Awaitable[Store]]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=["embedded", "redis"])
async def reopen(
    request: pytest.FixtureRequest, ring_prefix: str, tmp_path: Path
) -> AsyncIterator[Open]:
    """Opens the test's store; called again, closes it first."""
    options: dict[str, Any] = {"path": str(tmp_path / "history.duckdb"), "retention_days": 0}
    if request.param == "redis":
        options["redis_url"] = request.getfixturevalue("redis").url
    opened: list[Store] = []

    async def again() -> Store:
        for store in opened:
            await store.close()
        opened[:] = [await open_store(settings_for(ring_prefix, **options))]
        return opened[0]

    yield again
    for store in opened:
        await store.close()


@pytest.fixture
async def store(reopen: Open) -> Store:
    return await reopen()


async def append(store: Store, *rows: TradeRow, position: Position | None = None) -> int:
    exchange = rows[0].exchange if rows else "kraken"
    return await store.append(WriteBatch(exchange=exchange, trades=rows, position=position))


def exact(row: TradeRow) -> tuple[Any, ...]:
    """All that a trade says, without scales."""
    price = reference.value(row.price, row.price_exponent)
    size = reference.value(row.size, row.size_exponent)
    names = row.exchange, row.symbol, row.trade_id, row.id_kind
    return (*names, row.timestamp_ns, row.received_ns, price, size, row.side, row.matches)


async def test_an_empty_store_answers(store: Store) -> None:
    assert await store.read_trades("kraken", "BTC-USD") == []
    assert await store.read_bars("kraken", "BTC-USD", 10**9) == []
    assert await store.read_gaps("kraken") == []
    assert await store.read_book("kraken", "BTC-USD") is None
    assert await store.summarise() == []
    assert await store.position("kraken") is None


async def test_a_limit_of_nothing_gives_nothing(store: Store) -> None:
    await append(store, row(1), row(2))
    for newest in (False, True):
        assert await store.read_trades("kraken", "BTC-USD", limit=0, newest=newest) == []
        assert await store.read_trades("kraken", "BTC-USD", NOW_NS, limit=0, newest=newest) == []
        for exchange in ("kraken", ALL):
            bars = await store.read_bars(exchange, "BTC-USD", 10**9, limit=0, newest=newest)
            assert bars == []


async def test_every_field_comes_back_exactly(store: Store) -> None:
    rows = [
        row(1, price=1, price_exponent=18, size=INT64_MAX, size_exponent=18, received_ns=NOW_NS),
        row(2, price=INT64_MAX, price_exponent=0, size=1, size_exponent=0, side=Side.SELL),
        row(2**64 - 1, timestamp_ns=NOW_NS + 3 * 10**9 + 1, matches=2**32 - 1),
        row("a-\u00e9 '\"", timestamp_ns=NOW_NS + 4 * 10**9, matches=0),
        row(7, id_kind=IdKind.AGGREGATE),
    ]
    assert await append(store, *rows) == 5
    found = await store.read_trades("kraken", "BTC-USD")
    assert [exact(each) for each in found] == [exact(each) for each in in_order(rows)]


async def test_a_trade_is_kept_once(reopen: Open) -> None:
    store = await reopen()
    assert await append(store, row(1), row(2), row(1), row("a"), row("a")) == 3
    # The same identity counts, whatever else is told of it.
    assert await append(store, row(1, timestamp_ns=NOW_NS + 77), row("a", price=3), row(3)) == 1
    store = await reopen()
    assert await append(store, row(2), row(3), row("a")) == 0
    others = [
        row(1, id_kind=IdKind.AGGREGATE),
        row("1"),
        row(1, symbol="ETH-USD"),
    ]
    assert await append(store, *others) == 3
    assert await append(store, row(1, exchange="coinbase")) == 1
    assert len(await store.read_trades("kraken", "BTC-USD")) == 6


async def test_late_trades_take_their_place(store: Store) -> None:
    await append(store, row(5), row(9))
    await append(store, row(7), row(6), row(1))
    await append(store, row(7), row(8))
    assert await stored_ids(store) == ["1", "5", "6", "7", "8", "9"]
    newest = await store.read_trades("kraken", "BTC-USD", limit=3, newest=True)
    assert [each.trade_id for each in newest] == ["7", "8", "9"]
    first = await store.read_trades("kraken", "BTC-USD", limit=3)
    assert [each.trade_id for each in first] == ["1", "5", "6"]


async def test_trades_of_one_time_are_in_the_order_of_their_numbers(store: Store) -> None:
    ids = [10, 9, 100, 2]
    await append(store, *(row(number, timestamp_ns=NOW_NS + number % 2) for number in ids))
    assert await stored_ids(store) == ["2", "10", "100", "9"]
    newest = await store.read_trades("kraken", "BTC-USD", limit=2, newest=True)
    assert [each.trade_id for each in newest] == ["100", "9"]


async def test_any_span_and_limit_gives_what_a_plain_list_gives(store: Store) -> None:
    seed = 20261120
    random = Random(seed)
    rows = [
        row(number, timestamp_ns=NOW_NS + random.randrange(200) * 250_000)
        for number in random.sample(range(1000), 300)
    ]
    for begin in range(0, 300, 37):
        await append(store, *rows[begin : begin + 37])
    ordered = in_order(rows)
    for _ in range(60):
        bounds = [NOW_NS + random.randrange(-10, 210) * 250_000 for _ in range(2)]
        start, end = (bound if random.random() < 0.8 else None for bound in bounds)
        limit = random.choice([None, 1, 7, 50, 1000])
        newest = random.random() < 0.5
        plain = [
            each
            for each in ordered
            if (start is None or each.timestamp_ns >= start)
            and (end is None or each.timestamp_ns <= end)
        ]
        if limit is not None:
            plain = plain[-limit:] if newest else plain[:limit]
        found = await store.read_trades("kraken", "BTC-USD", start, end, limit, newest=newest)
        question = f"seed {seed}: {start} {end} {limit} {newest}"
        assert [each.trade_id for each in found] == [each.trade_id for each in plain], question


@pytest.mark.parametrize("interval", sorted(INTERVALS_NS))
async def test_bars_equal_a_plain_group_by(store: Store, interval: str) -> None:
    interval_ns = INTERVALS_NS[interval]
    seed = 20261121
    random = Random(seed)
    rows = [
        row(
            number,
            timestamp_ns=NOW_NS + random.randrange(20 * interval_ns // 10**6) * 10**6,
            price=random.randrange(1, 10**6) if number % 9 else INT64_MAX,
            price_exponent=random.choice([2, 2, 8, 18]),
            size=random.randrange(1, 10**9) if number % 7 else INT64_MAX,
            size_exponent=random.choice([8, 8, 0, 18]),
        )
        for number in random.sample(range(1, 10**6), 120)
    ]
    await append(store, *rows[:100])
    await append(store, *rows[100:])
    expected = reference.bars(rows, interval_ns)

    async def ask(*bounds: int | None, **options: Any) -> list[reference.Bar]:
        found = await store.read_bars("kraken", "BTC-USD", interval_ns, *bounds, **options)
        return [reference.plain(bar) for bar in found]

    assert await ask() == expected, f"seed {seed}"
    assert await ask(limit=3) == expected[:3]
    assert await ask(limit=3, newest=True) == expected[-3:]
    # A bar belongs to a span if it begins in it, and is whole then.
    second, fifth = expected[1].timestamp_ns, expected[4].timestamp_ns
    assert await ask(second, fifth) == expected[1:5]
    assert await ask(second + 1, fifth - 1) == expected[2:4]
    assert await ask(second, fifth, limit=2, newest=True) == expected[3:5]


async def test_the_position_is_written_with_the_data(reopen: Open) -> None:
    store = await reopen()
    place = Position(1_700_000_000_000, 2**48 - 1)
    await append(store, row(1), position=place)
    await append(store, row(2))
    store = await reopen()
    assert await store.position("kraken") == place
    assert await store.position("coinbase") is None
    await append(store, position=Position(0, 0))
    assert await store.position("kraken") == Position(0, 0)


async def test_a_batch_that_fails_leaves_nothing(store: Store) -> None:
    await append(store, row(1), position=Position(1, 1))
    bad = row(3, price="no number")
    with pytest.raises((StoreError, TypeError, ValueError)):
        await append(store, row(2), bad, position=Position(1, 2))
    assert await stored_ids(store) == ["1"]
    assert await store.position("kraken") == Position(1, 1)
    assert await append(store, row(2), position=Position(1, 2)) == 1


async def test_gaps_are_kept(store: Store) -> None:
    whole = GapRow(
        exchange="kraken",
        symbol="BTC-USD",
        channel=Channel.TRADES,
        reason=Reason.RECONNECTED,
        first=5,
        last=9,
        count=5,
        since_ns=NOW_NS - 5,
        received_ns=NOW_NS,
    )
    vague = GapRow(
        exchange="kraken",
        symbol=None,
        channel=Channel.RING,
        reason=Reason.RESTARTED,
        first=None,
        last=None,
        count=None,
        since_ns=NO_TIME,
        received_ns=NOW_NS + 1,
    )
    await store.append(WriteBatch(exchange="kraken", gaps=[vague, whole]))
    first, second = await store.read_gaps("kraken")
    assert [nameless(first), nameless(second)] == [whole, vague]
    assert first.id
    assert second.id not in ("", first.id)
    assert await store.read_gaps("kraken", NOW_NS + 1) == [second]
    assert await store.read_gaps("kraken", None, NOW_NS) == [first]
    assert await store.read_gaps("coinbase") == []


def nameless(gap: GapRow) -> GapRow:
    """A gap as it was before a store named it."""
    return replace(gap, id="")


async def test_any_page_of_gaps_is_that_of_a_plain_list(store: Store) -> None:
    seed = 20261121
    random = Random(seed)
    lost = GapRow(
        exchange="kraken",
        symbol=None,
        channel=Channel.RING,
        reason=Reason.LAPPED,
        first=None,
        last=None,
        count=None,
        since_ns=NOW_NS,
        received_ns=NOW_NS,
    )
    for _ in range(12):
        gaps = [
            replace(
                lost,
                symbol=random.choice([None, "BTC-USD", "ETH-USD"]),
                received_ns=NOW_NS + random.choice([0, 0, 1, 10**6, random.randrange(10**9)]),
            )
            for _ in range(10)
        ]
        await store.append(WriteBatch(exchange="kraken", gaps=gaps))
    held = await store.read_gaps("kraken")
    assert len(held) == 120
    assert held == sorted(held, key=lambda gap: gap.order_key)
    for _ in range(80):
        start, end = (random.choice([None, random.choice(held).received_ns]) for _ in range(2))
        beyond = random.choice([None, random.choice(held).order_key])
        symbol = random.choice([None, "BTC-USD", "NO-SUCH"])
        limit = random.choice([None, 0, 1, 2, 15, 119, 1000])
        newest = random.random() < 0.5
        plain = [
            gap
            for gap in held
            if (start is None or gap.received_ns >= start)
            and (end is None or gap.received_ns <= end)
            and (symbol is None or gap.symbol in (None, symbol))
            and (beyond is None or gap.order_key != beyond)
            and (beyond is None or (gap.order_key < beyond) == newest)
        ]
        if limit is not None:
            plain = plain[max(len(plain) - limit, 0) :] if newest else plain[:limit]
        found = await store.read_gaps(
            "kraken", start, end, limit, symbol=symbol, newest=newest, beyond=beyond
        )
        assert found == plain, f"seed {seed}: {start} {end} {limit} {symbol} {newest} {beyond}"


async def test_what_has_become_of_a_gap_is_kept(reopen: Open) -> None:
    store = await reopen()
    gaps = [
        GapRow(
            exchange="kraken",
            symbol="BTC-USD",
            channel=Channel.TRADES,
            reason=Reason.GAP,
            first=number,
            last=number,
            count=1,
            since_ns=NOW_NS,
            received_ns=NOW_NS + number,
        )
        for number in (1, 2)
    ]
    await store.append(WriteBatch(exchange="kraken", gaps=gaps))
    first, second = await store.read_gaps("kraken")
    late = row(1, filled=True)
    for status, filled in ((FillStatus.PARTIAL, 0), (FillStatus.FILLED, 1)):
        fill = GapFill(id=first.id, status=status, filled_ns=NOW_NS + 7, filled=filled)
        await store.append(WriteBatch(exchange="kraken", trades=[late], fills=[fill]))
    store = await reopen()
    told = replace(first, status=FillStatus.FILLED, filled_ns=NOW_NS + 7, filled=1)
    assert await store.read_gaps("kraken") == [told, second]
    assert [each.filled for each in await store.read_trades("kraken", "BTC-USD")] == [True]


async def test_states_are_kept(reopen: Open) -> None:
    store = await reopen()
    states = [
        StateRow(
            exchange="kraken",
            symbol=symbol,
            state=state,
            reason=reason,
            timestamp_ns=NOW_NS + number,
            received_ns=NOW_NS + number * 10**6,
        )
        for number, (symbol, state, reason) in enumerate(
            [
                ("BTC-USD", BookState.SYNCING, Reason.STARTED),
                ("ETH-USD", BookState.SYNCING, Reason.STARTED),
                ("BTC-USD", BookState.LIVE, Reason.SUBSCRIBED),
                ("BTC-USD", BookState.STALE, Reason.DISCONNECTED),
            ]
        )
    ]
    await store.append(WriteBatch(exchange="kraken", states=states[:2]))
    await store.append(WriteBatch(exchange="kraken", states=states[2:]))
    store = await reopen()
    syncing, live, stale = (each for each in states if each.symbol == "BTC-USD")
    assert await store.read_states("kraken", "BTC-USD") == [syncing, live, stale]
    assert await store.read_states("kraken", "BTC-USD", limit=2) == [live, stale]
    span = live.received_ns, live.received_ns
    assert await store.read_states("kraken", "BTC-USD", *span) == [live]
    assert await store.read_states("kraken", "ETH-USD") == [states[1]]
    assert await store.read_states("coinbase", "BTC-USD") == []


async def test_books_are_kept_by_their_time(reopen: Open) -> None:
    def book(version: int, symbol: str = "BTC-USD") -> BookRow:
        return BookRow(
            exchange="kraken",
            symbol=symbol,
            version=version,
            timestamp_ns=NOW_NS + version,
            price_exponent=2,
            size_exponent=18,
            bids=(Level(10001, 1), Level(10000, INT64_MAX)),
            asks=(Level(10002, 500),),
        )

    store = await reopen()
    await store.append(WriteBatch(exchange="kraken", books=[book(1), book(5, "ETH-USD")]))
    await store.save_book(book(2))
    await store.append(WriteBatch(exchange="kraken", books=[book(4)]))
    store = await reopen()
    for at, version in ((None, 4), (NOW_NS + 4, 4), (NOW_NS + 3, 2), (NOW_NS + 1, 1)):
        assert await store.read_book("kraken", "BTC-USD", at) == book(version), at
    for at in (NOW_NS, 0, -INT64_MAX):
        assert await store.read_book("kraken", "BTC-USD", at) is None, at
    assert await store.read_book("kraken", "BTC-USD", INT64_MAX) == book(4)
    assert await store.read_book("kraken", "DOGE-USD") is None


async def test_several_may_write_at_once(store: Store) -> None:
    async def write(first: int) -> int:
        found = [
            await append(store, *(row(number) for number in range(begin, begin + 5)))
            for begin in range(first, first + 20, 2)
        ]
        return sum(found)

    saved = await asyncio.gather(*(write(first) for first in (0, 3, 10)))
    assert sum(saved) == 10 + 18 + 5
    assert await stored_ids(store) == [str(number) for number in range(33)]


async def test_the_summary_counts(store: Store) -> None:
    await append(store, row(1), row(2), row(3, symbol="ETH-USD"))
    await append(store, row(0, exchange="coinbase"))
    assert [tuple(each) for each in await store.summarise()] == [
        ("coinbase", "BTC-USD", 1, NOW_NS, NOW_NS),
        ("kraken", "BTC-USD", 2, NOW_NS + 10**9, NOW_NS + 2 * 10**9),
        ("kraken", "ETH-USD", 1, NOW_NS + 3 * 10**9, NOW_NS + 3 * 10**9),
    ]


async def test_a_closed_store_does_nothing_more(store: Store) -> None:
    await append(store, row(1))
    await store.read_trades("kraken", "BTC-USD", limit=1, newest=True)
    await store.summarise()
    await store.close()
    for ask in (
        lambda: append(store, row(2)),
        lambda: store.read_trades("kraken", "BTC-USD"),
        lambda: store.read_trades("kraken", "BTC-USD", limit=1, newest=True),
        lambda: store.read_bars("kraken", "BTC-USD", INTERVALS_NS["1m"]),
        lambda: store.read_gaps("kraken"),
        lambda: store.read_book("kraken", "BTC-USD"),
        lambda: store.position("kraken"),
        store.summarise,
        store.ping,
    ):
        with pytest.raises(StoreError, match="the store is closed"):
            await ask()


async def test_a_closed_store_may_be_closed_again(store: Store) -> None:
    await append(store, row(1))
    await store.close()
    await store.close()
