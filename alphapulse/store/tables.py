"""The embedded database's tables, and rows to and from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from alphapulse.history import FillStatus, GapFill, GapRow, StateRow
from alphapulse.model import BookState, Channel, Reason
from alphapulse.store._columns import trade_columns as trade_columns
from alphapulse.store.bars import STORED

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA_VERSION = 2

SCHEMA = """
CREATE TABLE IF NOT EXISTS about (
    schema_version INTEGER NOT NULL, trades_in_bars BIGINT NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS series (
    id INTEGER NOT NULL, exchange VARCHAR NOT NULL, symbol VARCHAR NOT NULL, ids VARCHAR NOT NULL
);
CREATE TABLE IF NOT EXISTS trades (
    series INTEGER NOT NULL,
    id_kind UTINYINT NOT NULL,
    trade_number UBIGINT NOT NULL,
    trade_text VARCHAR NOT NULL,
    timestamp_ns BIGINT NOT NULL,
    received_ns BIGINT NOT NULL,
    price BIGINT NOT NULL,
    price_exponent UTINYINT NOT NULL,
    size BIGINT NOT NULL,
    size_exponent UTINYINT NOT NULL,
    side UTINYINT NOT NULL,
    matches UINTEGER NOT NULL,
    filled BOOLEAN NOT NULL,
    entry BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS states (
    exchange VARCHAR NOT NULL,
    symbol VARCHAR NOT NULL,
    state UTINYINT NOT NULL,
    reason UTINYINT NOT NULL,
    timestamp_ns BIGINT NOT NULL,
    received_ns BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS gaps (
    id BIGINT NOT NULL,
    exchange VARCHAR NOT NULL,
    symbol VARCHAR,
    channel UTINYINT NOT NULL,
    reason UTINYINT NOT NULL,
    first BIGINT,
    last BIGINT,
    "count" BIGINT,
    since_ns BIGINT NOT NULL,
    received_ns BIGINT NOT NULL,
    epoch BIGINT,
    status VARCHAR NOT NULL,
    filled_ns BIGINT NOT NULL,
    filled BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS books (
    exchange VARCHAR NOT NULL, symbol VARCHAR NOT NULL, timestamp_ns BIGINT NOT NULL,
    body VARCHAR NOT NULL
);
CREATE TABLE IF NOT EXISTS positions (
    exchange VARCHAR NOT NULL, epoch BIGINT NOT NULL, sequence BIGINT NOT NULL
);
""" + "".join(
    f"""
CREATE TABLE IF NOT EXISTS bars_{interval} (
    series INTEGER NOT NULL,
    begin_ns BIGINT NOT NULL,
    price_exponent UTINYINT NOT NULL,
    size_exponent UTINYINT NOT NULL,
    open BIGINT NOT NULL,
    high BIGINT NOT NULL,
    low BIGINT NOT NULL,
    close BIGINT NOT NULL,
    volume HUGEINT NOT NULL,
    trades BIGINT NOT NULL,
    first_ns BIGINT NOT NULL, first_number UBIGINT NOT NULL, first_text VARCHAR NOT NULL,
    last_ns BIGINT NOT NULL, last_number UBIGINT NOT NULL, last_text VARCHAR NOT NULL
);
"""
    for interval in STORED
)
"""Times in nanoseconds; a price is ``price / 10**price_exponent``, a size likewise."""

# Of version 1: trades are numbered, gaps have names and what became of them. Bars are made of the
# trades when the file is opened.
_BEFORE = f"""
ALTER TABLE about ADD COLUMN trades_in_bars BIGINT DEFAULT 0;
UPDATE about SET schema_version = {SCHEMA_VERSION};
ALTER TABLE trades RENAME TO trades_1;
ALTER TABLE gaps RENAME TO gaps_1;
"""  # noqa: S608
_AFTER = """
INSERT INTO trades SELECT *, false, rowid FROM trades_1;
INSERT INTO gaps SELECT rowid + 1, *, NULL, 'open', -9223372036854775808, 0 FROM gaps_1;
DROP TABLE trades_1;
DROP TABLE gaps_1;
"""
MIGRATE_FROM_1 = _BEFORE + SCHEMA + _AFTER

INSERT_TRADES = """
INSERT INTO trades SELECT series, id_kind, trade_number, {text}, timestamp_ns, received_ns, price,
    price_exponent, size, size_exponent, side, matches, filled, entry
FROM temp.new_trades
"""
"""``temp``, since the file may have a table of that name."""

# By `GapRow.order_key`.
_SELECT_GAPS = """
SELECT id, symbol, channel, reason, first, last, "count", since_ns, received_ns, epoch, status,
    filled_ns, filled
FROM gaps WHERE exchange = $exchange AND received_ns BETWEEN $start AND $end
    AND ($symbol IS NULL OR symbol IS NULL OR symbol = $symbol) {beyond}
ORDER BY received_ns {way}, id {way} LIMIT $limit
"""
_GAPS_BEYOND = """
AND (received_ns, exchange || ' ' || lpad(id::VARCHAR, 40, ' ')) {sign} ($time, $text)
"""

INSERT_GAP = "INSERT INTO gaps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

FILL_GAP = "UPDATE gaps SET status = ?, filled_ns = ?, filled = ? WHERE exchange = ? AND id = ?"

SELECT_STATES = """
SELECT state, reason, timestamp_ns, received_ns FROM states
WHERE exchange = ? AND symbol = ? AND received_ns BETWEEN ? AND ?
ORDER BY received_ns DESC, rowid DESC LIMIT ?
"""

INSERT_STATE = "INSERT INTO states VALUES (?, ?, ?, ?, ?, ?)"

# First the time, which is a small column, then the one body of it.
SELECT_BOOK = """
SELECT body FROM books WHERE exchange = $exchange AND symbol = $symbol AND timestamp_ns = (
    SELECT max(timestamp_ns) FROM books
    WHERE exchange = $exchange AND symbol = $symbol AND timestamp_ns <= $at
) ORDER BY rowid DESC LIMIT 1
"""

INSERT_BOOK = "INSERT INTO books VALUES (?, ?, ?, ?)"

SELECT_HIGHEST = """
SELECT series, id_kind, max(trade_number) FROM trades WHERE id_kind < 2 GROUP BY series, id_kind
"""

SELECT_ENTRIES = """
SELECT greatest(trades_in_bars, (SELECT coalesce(max(entry) + 1, 0) FROM trades)) FROM about
"""

# The oldest in the order of storing, which is nearly that of time.
SELECT_OLD = """
SELECT max(timestamp_ns)
FROM (SELECT timestamp_ns FROM trades WHERE timestamp_ns < ? LIMIT ?)
"""

# The latest book of a symbol stays, however old.
DELETE_OLD = (
    "DELETE FROM states WHERE received_ns < ?",
    "DELETE FROM gaps WHERE received_ns < ?",
    """
    DELETE FROM books WHERE timestamp_ns < ? AND (exchange, symbol, timestamp_ns) NOT IN (
        SELECT (exchange, symbol, max(timestamp_ns)) FROM books GROUP BY exchange, symbol
    )
    """,
)

SELECT_SUMMARY = """
SELECT series.exchange, series.symbol, count(*), min(timestamp_ns), max(timestamp_ns)
FROM trades JOIN series ON trades.series = series.id
GROUP BY series.exchange, series.symbol ORDER BY series.exchange, series.symbol
"""


def insert_trades(columns: Mapping[str, NDArray[Any]]) -> str:
    """Statement that adds these columns; DuckDB looks for them in a variable `new_trades`."""
    # Texts are rare, and dear to hand over.
    return INSERT_TRADES.format(text="trade_text" if "trade_text" in columns else "''")


def select_gaps(newest: bool, beyond: bool) -> str:
    """Query for gaps, with values exchange, start, end, symbol, limit.

    Parameters
    ----------
    newest : the last ones, backwards, instead of the first ones
    beyond : only those beyond a place in the order, values time and text
    """
    sign, way = ("<", "DESC") if newest else (">", "ASC")
    return _SELECT_GAPS.format(beyond=_GAPS_BEYOND.format(sign=sign) if beyond else "", way=way)


def gap_of(row: tuple[Any, ...], exchange: str) -> GapRow:
    """Gap of a row that ``select_gaps`` gave."""
    number, symbol, channel, reason, first, last, count, since_ns, received_ns, *fate = row
    epoch, status, filled_ns, filled = fate
    return GapRow(
        exchange=exchange,
        symbol=symbol,
        channel=Channel(channel),
        reason=Reason(reason),
        first=first,
        last=last,
        count=count,
        since_ns=since_ns,
        received_ns=received_ns,
        epoch=epoch,
        id=str(number),
        status=FillStatus(status),
        filled_ns=filled_ns,
        filled=filled,
    )


def gap_values(gap: GapRow, number: int) -> tuple[Any, ...]:
    """Values for ``INSERT_GAP``; the number is to be the gap's id."""
    return (
        number,
        gap.exchange,
        gap.symbol,
        int(gap.channel),
        int(gap.reason),
        gap.first,
        gap.last,
        gap.count,
        gap.since_ns,
        gap.received_ns,
        gap.epoch,
        gap.status.value,
        gap.filled_ns,
        gap.filled,
    )


def fill_values(fill: GapFill, exchange: str) -> tuple[Any, ...]:
    """Values for ``FILL_GAP``."""
    return fill.status.value, fill.filled_ns, fill.filled, exchange, int(fill.id)


def state_of(row: tuple[Any, ...], exchange: str, symbol: str) -> StateRow:
    """Change of state of a row that ``SELECT_STATES`` gave."""
    state, reason, timestamp_ns, received_ns = row
    return StateRow(
        exchange=exchange,
        symbol=symbol,
        state=BookState(state),
        reason=Reason(reason),
        timestamp_ns=timestamp_ns,
        received_ns=received_ns,
    )


def state_values(row: StateRow) -> tuple[Any, ...]:
    """Values for ``INSERT_STATE``."""
    names = row.exchange, row.symbol
    return (*names, int(row.state), int(row.reason), row.timestamp_ns, row.received_ns)
