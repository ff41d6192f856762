"""What exported files hold: their columns, and the scratch database that each is gathered in."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from alphapulse.clock import NO_TIME, NS_PER_SECOND
from alphapulse.history import BookRow, FillStatus, GapRow, StateRow, TradeRow
from alphapulse.model import IdKind
from alphapulse.repository import OhlcvBar
from alphapulse.store import tables

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEMORY_LIMIT = "256MB"
"""Of the scratch database."""

_TRADES = """
CREATE TABLE IF NOT EXISTS rows (
    "timestamp" TIMESTAMP_NS NOT NULL,
    received TIMESTAMP_NS,
    trade_id VARCHAR NOT NULL,
    id_kind VARCHAR NOT NULL,
    price DECIMAL(38, 18) NOT NULL,
    volume DECIMAL(38, 18) NOT NULL,
    side VARCHAR NOT NULL,
    matches UINTEGER,
    filled BOOLEAN NOT NULL
)
"""

# A decimal times a power of ten has the digits of both: exact up to 38.
_INSERT_TRADES = """
INSERT INTO rows SELECT
    make_timestamp_ns(timestamp_ns),
    CASE WHEN received_ns <> $no_time THEN make_timestamp_ns(received_ns) END,
    trade_id,
    CAST($kinds AS VARCHAR[])[id_kind + 1],
    price::DECIMAL(19, 0) * CAST($powers AS DECIMAL(19, 18)[])[price_exponent + 1],
    size::DECIMAL(19, 0) * CAST($powers AS DECIMAL(19, 18)[])[size_exponent + 1],
    CASE side WHEN 2 THEN 'sell' ELSE 'buy' END,
    nullif(matches, 0),
    filled
FROM new_rows
"""

_BARS = """
CREATE TABLE IF NOT EXISTS rows (
    "timestamp" TIMESTAMP_NS NOT NULL,
    open DECIMAL(38, 18) NOT NULL,
    high DECIMAL(38, 18) NOT NULL,
    low DECIMAL(38, 18) NOT NULL,
    close DECIMAL(38, 18) NOT NULL,
    volume DECIMAL(38, 18) NOT NULL,
    trades BIGINT NOT NULL
)
"""

_INSERT_BARS = """
INSERT INTO rows
SELECT make_timestamp_ns(timestamp_ns), open, high, low, close, volume, trades FROM new_rows
"""

_GAPS = """
CREATE TABLE IF NOT EXISTS rows (
    "timestamp" TIMESTAMP_NS NOT NULL,
    since TIMESTAMP_NS,
    symbol VARCHAR,
    channel VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    "first" BIGINT,
    "last" BIGINT,
    "count" BIGINT,
    epoch BIGINT,
    status VARCHAR NOT NULL,
    filled BIGINT NOT NULL,
    filled_time TIMESTAMP_NS
)
"""

# An empty text stands for what is unknown.
_INSERT_GAPS = """
INSERT INTO rows SELECT
    make_timestamp_ns(received_ns),
    CASE WHEN since_ns <> $no_time THEN make_timestamp_ns(since_ns) END,
    nullif(symbol, ''), channel, reason,
    nullif("first", '')::BIGINT, nullif("last", '')::BIGINT,
    nullif("count", '')::BIGINT, nullif(epoch, '')::BIGINT,
    status, filled,
    CASE WHEN filled_ns <> $no_time THEN make_timestamp_ns(filled_ns) END
FROM new_rows
"""

_STATES = """
CREATE TABLE IF NOT EXISTS rows (
    "timestamp" TIMESTAMP_NS NOT NULL,
    received TIMESTAMP_NS NOT NULL,
    state VARCHAR NOT NULL,
    reason VARCHAR NOT NULL
)
"""

_INSERT_STATES = """
INSERT INTO rows
SELECT make_timestamp_ns(timestamp_ns), make_timestamp_ns(received_ns), state, reason FROM new_rows
"""

_BOOKS = """
CREATE TABLE IF NOT EXISTS rows (
    "timestamp" TIMESTAMP_NS NOT NULL,
    version BIGINT NOT NULL,
    side VARCHAR NOT NULL,
    level INTEGER NOT NULL,
    price DECIMAL(38, 18) NOT NULL,
    volume DECIMAL(38, 18) NOT NULL
)
"""

_INSERT_BOOKS = """
INSERT INTO rows SELECT
    make_timestamp_ns(timestamp_ns),
    version,
    CASE WHEN bid = 1 THEN 'bid' ELSE 'ask' END,
    level,
    price::DECIMAL(19, 0) * CAST($powers AS DECIMAL(19, 18)[])[price_exponent + 1],
    size::DECIMAL(19, 0) * CAST($powers AS DECIMAL(19, 18)[])[size_exponent + 1]
FROM new_rows
"""

# Books are read newest first.
_ORDER_BOOKS = 'ORDER BY "timestamp", side DESC, level'

_COPY = "COPY (FROM rows {order}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)"

_NO_TIME = {"no_time": NO_TIME}
_POWERS = {"powers": [f"1e-{exponent}" for exponent in range(19)]}
_VALUES = {**_NO_TIME, **_POWERS, "kinds": [kind.text for kind in IdKind]}


class Scratch:
    """The rows of one file to be; a context manager. All methods may raise ``duckdb.Error``.

    They are gathered in ``TMPDIR``, so that memory stays bounded.

    Attributes
    ----------
    count : how many there are
    """

    def __init__(self) -> None:
        self.count = 0
        self._order = ""
        self._folder = tempfile.TemporaryDirectory(prefix="alphapulse-export-")
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": MEMORY_LIMIT,
            "autoinstall_known_extensions": False,
        }
        self._database = duckdb.connect(f"{self._folder.name}/scratch.duckdb", config=config)

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()
        self._folder.cleanup()

    def add_trades(self, trades: Sequence[TradeRow]) -> None:
        columns = tables.trade_columns(trades, [0] * len(trades), 0)
        columns["trade_id"] = _texts(trade.trade_id for trade in trades)
        self._add(len(trades), _TRADES, _INSERT_TRADES, columns, _VALUES)

    def add_bars(self, bars: Sequence[OhlcvBar]) -> None:
        columns = {
            "timestamp_ns": _integers(int(bar.timestamp * NS_PER_SECOND) for bar in bars),
            "trades": _integers(bar.trades for bar in bars),
        }
        for name in ("open", "high", "low", "close", "volume"):
            columns[name] = _texts(f"{getattr(bar, name):f}" for bar in bars)
        self._add(len(bars), _BARS, _INSERT_BARS, columns)

    def add_gaps(self, gaps: Sequence[GapRow]) -> None:
        columns = {
            "symbol": _texts(gap.symbol or "" for gap in gaps),
            "channel": _texts(gap.channel.text for gap in gaps),
            "reason": _texts(gap.reason.text for gap in gaps),
            "status": _texts(gap.status.value for gap in gaps),
        }
        for name in ("received_ns", "since_ns", "filled_ns", "filled"):
            columns[name] = _integers(getattr(gap, name) for gap in gaps)
        for name in ("first", "last", "count", "epoch"):
            values = [getattr(gap, name) for gap in gaps]
            columns[name] = _texts("" if value is None else str(value) for value in values)
        self._add(len(gaps), _GAPS, _INSERT_GAPS, columns, _NO_TIME)

    def add_states(self, states: Sequence[StateRow]) -> None:
        columns = {
            "timestamp_ns": _integers(state.timestamp_ns for state in states),
            "received_ns": _integers(state.received_ns for state in states),
            "state": _texts(state.state.text for state in states),
            "reason": _texts(state.reason.text for state in states),
        }
        self._add(len(states), _STATES, _INSERT_STATES, columns)

    def add_books(self, books: Sequence[BookRow]) -> None:
        levels = [
            (book, bid, place, level)
            for book in books
            for bid, side in ((1, book.bids), (0, book.asks))
            for place, level in enumerate(side, start=1)
        ]
        columns = {
            "bid": _integers(bid for _, bid, _, _ in levels),
            "level": _integers(place for _, _, place, _ in levels),
            "price": _integers(level.price for *_, level in levels),
            "size": _integers(level.size for *_, level in levels),
        }
        for name in ("timestamp_ns", "version", "price_exponent", "size_exponent"):
            columns[name] = _integers(getattr(book, name) for book, *_ in levels)
        self._order = _ORDER_BOOKS
        self._add(len(levels), _BOOKS, _INSERT_BOOKS, columns, _POWERS)

    def write(self, path: Path) -> None:
        """Make a file of them, which takes its name when it is whole. May raise ``OSError``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{path.name}.*"):
            if not Path("/proc", left.suffix[1:]).exists():
                left.unlink(missing_ok=True)
        # The name begins with a dot: whoever reads the folder meanwhile doesn't see it.
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self._database.execute(_COPY.format(order=self._order, path=_quoted(unfinished)))
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    def _add(
        self,
        count: int,
        create: str,
        insert: str,
        columns: dict[str, NDArray[Any]],
        values: dict[str, Any] | None = None,
    ) -> None:
        if not count:
            return
        self._database.execute(create)
        self._database.register("new_rows", columns)
        self._database.execute(insert, values)
        self._database.unregister("new_rows")
        self.count += count


def has_open_gaps(path: Path) -> bool:
    """Whether a file of gaps has one of which nothing had become as yet; also if unreadable."""
    query = f"SELECT count(*) FROM '{_quoted(path)}' WHERE status = '{FillStatus.OPEN}'"  # noqa: S608
    try:
        with duckdb.connect() as database:
            found = database.execute(query).fetchone()
    except duckdb.Error:
        return True
    return found is None or found[0] > 0


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _texts(values: Iterator[str]) -> NDArray[Any]:
    return np.array(list(values), object)


def _integers(values: Iterator[int]) -> NDArray[Any]:
    return np.array(list(values), np.int64)
