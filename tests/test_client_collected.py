"""Collected events as tables: exact where that is asked for; lacking packages are named."""

from __future__ import annotations

import builtins
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from alphapulse.client import Collected
from alphapulse.clock import NO_TIME
from alphapulse.errors import MissingPackage
from alphapulse.model import BookSnapshot, Level, Reason, Side, Trade
from tests.support import make_instrument

INSTRUMENT = make_instrument(id=1, size_exponent=8)
TIME_NS = 1_690_730_998_343_415_001


def trade(number: int, exchange_ns: int = TIME_NS) -> Trade:
    return Trade(
        exchange="kraken",
        sequence=number,
        exchange_ns=exchange_ns,
        received_ns=TIME_NS + number,
        instrument=INSTRUMENT,
        price=2943020 + number,
        size=10,
        side=Side.SELL,
        trade_id=str(number),
    )


def snapshot() -> BookSnapshot:
    return BookSnapshot(
        exchange="kraken",
        sequence=9,
        exchange_ns=NO_TIME,
        received_ns=TIME_NS,
        instrument=INSTRUMENT,
        version=7,
        reason=Reason.SUBSCRIBED,
        bids=(Level(100, 1), Level(99, 2)),
        asks=(Level(101, 3),),
    )


@pytest.fixture
def collected() -> Collected:
    collected = Collected()
    for event in (trade(0), snapshot(), trade(1, NO_TIME)):
        collected.append(event)
    return collected


def test_it_keeps_the_latest() -> None:
    collected = Collected(limit=2)
    for number in range(5):
        collected.append(trade(number))
    assert collected.trades().columns["sequence"] == [3, 4]
    assert (len(collected), collected.dropped) == (2, 3)
    assert [type(event) for event in collected] == [Trade, Trade]
    with pytest.raises(ValueError, match="limit 0"):
        Collected(0)


@pytest.mark.parametrize(
    ("numbers", "prices", "sizes"),
    [
        ("float", [29430.2, 29430.21], [1e-7, 1e-7]),
        ("decimal", [Decimal("29430.20"), Decimal("29430.21")], [Decimal("1e-7")] * 2),
        ("scaled", [2943020, 2943021], [10, 10]),
    ],
)
def test_trades_as_floats_or_exactly(
    collected: Collected, numbers: Any, prices: list[Any], sizes: list[Any]
) -> None:
    table = collected.trades(numbers)
    assert len(table) == 2
    assert table.columns["price"] == prices
    assert table.columns["size"] == sizes
    assert table.columns["exchange_ns"] == [TIME_NS, None]
    assert table.columns["side"] == ["sell", "sell"]
    assert ("price_exponent" in table.columns) is (numbers == "scaled")
    assert list(table.rows())[1]["trade_id"] == "1"
    with pytest.raises(ValueError, match="one of float, decimal, scaled"):
        collected.trades("text")  # type: ignore[arg-type]


def test_snapshots_have_a_row_for_each_level(collected: Collected) -> None:
    rows = list(collected.snapshots(numbers="scaled").rows())
    assert [(row["side"], row["level"], row["price"], row["size"]) for row in rows] == [
        ("bid", 0, 100, 1),
        ("bid", 1, 99, 2),
        ("ask", 0, 101, 3),
    ]
    assert {row["version"] for row in rows} == {7}
    assert len(collected.snapshots(depth=1)) == 2
    assert len(collected.snapshots(depth=0)) == 3


@pytest.mark.parametrize("numbers", ["float", "decimal", "scaled"])
def test_pandas(collected: Collected, numbers: Any) -> None:
    frame = collected.trades(numbers).to_pandas()
    assert list(frame["price"]) == collected.trades(numbers).columns["price"]
    assert int(frame["exchange_ns"][0]) == TIME_NS
    assert frame["exchange_ns"].isna().tolist() == [False, True]
    assert frame["received_time"][0].value == TIME_NS
    assert str(frame["received_time"].dtype) == "datetime64[ns, UTC]"
    assert frame["exchange_time"].isna().tolist() == [False, True]
    assert len(Collected().trades(numbers).to_pandas()) == 0


@pytest.mark.parametrize("numbers", ["float", "decimal", "scaled"])
def test_polars(collected: Collected, numbers: Any) -> None:
    frame = collected.snapshots(numbers=numbers).to_polars()
    assert frame["price"].to_list() == collected.snapshots(numbers=numbers).columns["price"]
    assert frame["received_ns"].to_list() == [TIME_NS] * 3
    assert frame["received_time"][0] == datetime.fromtimestamp(TIME_NS // 10**9, UTC).replace(
        microsecond=343415
    )
    assert frame["exchange_time"].null_count() == 3
    assert len(Collected().trades(numbers).to_polars()) == 0


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_a_package_that_is_not_installed_is_named(
    collected: Collected, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == package:
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackage, match=f"pip install {package}") as caught:
        getattr(collected.trades(), f"to_{package}")()
    assert isinstance(caught.value, ImportError)
    assert "alphapulse[notebook]" in str(caught.value)
