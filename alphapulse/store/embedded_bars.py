"""Bars in the embedded database: tables up to a mark, and in memory what has come since.

To write bars with every batch would be dear. They are written once in a while, in one transaction
with the mark: how many entries of table ``trades`` they have. After a crash the entries beyond it
are summed up again, so that no trade is counted twice or left out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import repeat
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
from msgspec.structs import replace

from alphapulse.clock import NS_PER_SECOND, monotonic_ns
from alphapulse.fixed import INT64_MAX
from alphapulse.history import INTERVALS_NS, OrderKey
from alphapulse.store.bars import STORED, Part, source_of
from alphapulse.store.embedded_file import transaction

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_PARTS = 4096
"""Parts in memory above which they are written."""
LONGEST_NS = 60 * NS_PER_SECOND
"""Longest time that bars go unwritten."""
ENTRIES_AT_ONCE = 500_000
"""Trades summed up in one query where bars have to catch up."""

Group = tuple[int, int, int, int]
"""Series, begin of the bar, exponents: what a row of the tables stands for."""

_SECOND = INTERVALS_NS["1s"]
_DAY = INTERVALS_NS["1d"]
EARLIEST_NS = -(INT64_MAX // _DAY) * _DAY
"""The first midnight that 64 bits hold, in 1677: the day before has no bars."""

_COLUMNS = (
    *("series", "begin_ns", "price_exponent", "size_exponent", "open", "high", "low", "close"),
    *("volume", "trades", "first_ns", "first_number", "first_text"),
    *("last_ns", "last_number", "last_text"),
)

# The mark comes with the bars, so that both are of one moment.
_SELECT = """
SELECT NULL, trades_in_bars, {nulls} FROM about
UNION ALL SELECT {columns} FROM bars_{interval} WHERE series = ? AND begin_ns BETWEEN ? AND ?
"""

_SELECT_SAME = """
SELECT {columns} FROM bars_{interval}
WHERE begin_ns BETWEEN ? AND ? AND ({group}) IN (SELECT ({group}) FROM new_bars)
"""

_DELETE_SAME = """
DELETE FROM bars_{interval}
WHERE begin_ns BETWEEN ? AND ? AND ({group}) IN (SELECT ({group}) FROM new_bars)
"""

_INSERT = """
INSERT INTO bars_{interval} SELECT series, begin_ns, price_exponent, size_exponent, open, high, low,
    close, volume_high::HUGEINT * 4294967296 + volume_low, trades,
    first_ns, first_number, first_text, last_ns, last_number, last_text
FROM new_bars
"""

_SUM_UP = """
WITH chosen AS (
    SELECT *, timestamp_ns - ((timestamp_ns % $second) + $second) % $second AS begin_ns,
        (timestamp_ns, trade_number, trade_text) AS place
    FROM trades WHERE entry BETWEEN $first AND $last AND timestamp_ns >= $earliest
), summed AS (
    SELECT series, begin_ns, price_exponent, size_exponent, arg_min(price, place), max(price),
        min(price), arg_max(price, place), sum(size), count(*), min(place) AS first,
        max(place) AS last
    FROM chosen GROUP BY series, begin_ns, price_exponent, size_exponent
)
SELECT * EXCLUDE (first, last), first[1], first[2], first[3], last[1], last[2], last[3] FROM summed
"""

_SPANS = "SELECT series, min(begin_ns), max(begin_ns) FROM bars_1d GROUP BY series"

_FORGET = "DELETE FROM bars_{interval} WHERE begin_ns < ?"


class BarTables:
    """Bars of all series; written by one thread, read by any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By mark: what has come after it, by second. While bars are being written there are two.
        self._fresh: dict[int, dict[Group, Part]] = {0: {}}
        self._mark = 0
        self._written_ns = monotonic_ns()
        self._spans: dict[int, tuple[int, int]] = {}

    def load(self, cursor: duckdb.DuckDBPyConnection, entries: int, *, write: bool) -> None:
        """Begin with what the tables hold.

        Parameters
        ----------
        cursor : not in a transaction
        entries : how many entries table ``trades`` has had
        write : whether bars that lag are written; else they stay in memory
        """
        (self._mark,) = cursor.execute("SELECT trades_in_bars FROM about").fetchall()[0]
        self._fresh = {self._mark: {}}
        spans = cursor.execute(_SPANS).fetchall()
        self._spans = {series: (first, last + _DAY - 1) for series, first, last in spans}
        begin = self._mark
        while begin < entries:
            end = min(begin + ENTRIES_AT_ONCE, entries)
            values = {"first": begin, "last": end - 1, "second": _SECOND, "earliest": EARLIEST_NS}
            self._take_in(map(_part_of, cursor.execute(_SUM_UP, values).fetchall()))
            if write:
                self.write(cursor, end)
            begin = end

    def add(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Take in trades that were added to table ``trades``, given as its columns."""
        timely = columns["timestamp_ns"] >= EARLIEST_NS
        if not timely.all():
            columns = {name: column[timely] for name, column in columns.items()}
        if timely.any():
            self._take_in(_parts_of(columns))

    def _take_in(self, parts: Iterable[tuple[int, Part]]) -> None:
        summed = list(parts)
        with self._lock:
            fresh = self._fresh[self._mark]
            for series, part in summed:
                group = series, part.begin_ns, part.price_exponent, part.size_exponent
                whole = fresh.setdefault(group, part)
                if whole is not part:
                    whole.merge(part)
                span = self._spans.get(series)
                if span is None:
                    self._spans[series] = part.begin_ns, part.last[0]
                elif not span[0] <= part.begin_ns <= part.last[0] <= span[1]:
                    self._spans[series] = min(span[0], part.begin_ns), max(span[1], part.last[0])

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        fresh = self._fresh[self._mark]
        late = monotonic_ns() - self._written_ns >= LONGEST_NS
        return len(fresh) >= MOST_PARTS or (late and bool(fresh))

    def write(self, cursor: duckdb.DuckDBPyConnection, entries: int) -> None:
        """Write what has come since bars were last written.

        Parameters
        ----------
        cursor : not in a transaction
        entries : how many entries of ``trades`` have been taken in, ever
        """
        fresh = self._fresh[self._mark]
        if not fresh:
            return
        try:
            with transaction(cursor):
                bars = fresh
                for interval in STORED:
                    bars = _coarser(bars, INTERVALS_NS[interval])
                    _store(cursor, interval, bars)
                cursor.execute("UPDATE about SET trades_in_bars = ?", [entries])
                # From the commit on readers meet the new mark; until it they meet the old one.
                self._fresh = {**self._fresh, entries: {}}
        except BaseException:
            self._fresh = {self._mark: fresh}
            raise
        self._mark = entries
        self._fresh = {entries: self._fresh[entries]}
        self._written_ns = monotonic_ns()

    def span(self, series: int) -> tuple[int, int] | None:
        """Times between which bars begin; None if there are none."""
        return self._spans.get(series)

    def read(
        self,
        cursor_of: Callable[[], duckdb.DuckDBPyConnection],
        series: int,
        interval_ns: int,
        start_ns: int,
        end_ns: int,
    ) -> list[Part]:
        """Parts of all bars that begin in the span, any number of each.

        Parameters
        ----------
        cursor_of : gives the thread's, not in a transaction
        series : id
        interval_ns : length of the bars
        start_ns, end_ns : the span, both ends included
        """
        source = source_of(interval_ns)
        start = -(-start_ns // interval_ns) * interval_ns
        end = (end_ns // interval_ns + 1) * interval_ns - 1
        query, cursor = _query(_SELECT, source), cursor_of()
        while True:
            rows = cursor.execute(query, [series, start, end]).fetchall()
            marks = [row[1] for row in rows if row[0] is None]
            with self._lock:
                fresh = self._fresh.get(marks[0])
                if fresh is not None:
                    # Copied, since they go on growing.
                    parts = [
                        replace(part)
                        for (number, begin, _, _), part in fresh.items()
                        if number == series and start <= begin <= end
                    ]
                    break
            # Bars were written in between.
        return [*(_part_of(row)[1] for row in rows if row[0] is not None), *parts]

    def forget(
        self, cursor: duckdb.DuckDBPyConnection, intervals: Iterable[str], oldest_ns: int
    ) -> None:
        """Delete bars that are older. The cursor is in a transaction."""
        for interval in intervals:
            cursor.execute(_query(_FORGET, interval), [oldest_ns])


def _parts_of(columns: Mapping[str, NDArray[Any]]) -> Iterator[tuple[int, Part]]:
    """Series and part of each second, in arrays: trade by trade would take most of a batch's time.

    Columns are those of table ``trades``; ``trade_text`` may be missing.
    """
    times, numbers = columns["timestamp_ns"], columns["trade_number"]
    texts = columns.get("trade_text")
    begins = times - times % _SECOND
    group = columns["series"], begins, columns["price_exponent"], columns["size_exponent"]
    places = (numbers, times) if texts is None else (texts.astype(str), numbers, times)
    order = np.lexsort((*places, *group))
    differ = [column[order][1:] != column[order][:-1] for column in group]
    starts = np.flatnonzero(np.concatenate(([True], np.logical_or.reduce(differ))))
    counts = np.diff(np.append(starts, len(order)))
    prices, sizes = columns["price"][order], columns["size"][order]
    highs, lows = np.maximum.reduceat(prices, starts), np.minimum.reduceat(prices, starts)
    # Sums of 64-bit sizes; in two pieces, since arrays have no wider integers.
    sums = np.add.reduceat(sizes >> 32, starts), np.add.reduceat(sizes & 0xFFFFFFFF, starts)
    ends = starts + counts - 1
    first, last = order[starts], order[ends]

    def keys(places: NDArray[Any]) -> Iterator[OrderKey]:
        names = repeat("", len(places)) if texts is None else map(str, texts[places])
        return zip(times[places].tolist(), numbers[places].tolist(), names, strict=True)

    volumes = map(_joined, sums[0].tolist(), sums[1].tolist())
    columns_of_parts = (
        *(column[first].tolist() for column in group[1:]),
        *(keys(first), keys(last)),
        *(values.tolist() for values in (prices[starts], highs, lows, prices[ends])),
        *(volumes, counts.tolist()),
    )
    yield from zip(group[0][first].tolist(), map(Part, *columns_of_parts), strict=True)


def _joined(high: int, low: int) -> int:
    return (high << 32) + low


def _query(template: str, interval: str) -> str:
    return template.format(
        interval=interval,
        columns=", ".join(_COLUMNS),
        nulls=", ".join("NULL" for _ in _COLUMNS[2:]),
        group=", ".join(_COLUMNS[:4]),
    )


def _store(cursor: duckdb.DuckDBPyConnection, interval: str, bars: dict[Group, Part]) -> None:
    """Write bars, merged with what the table has of them; they stay as they are."""
    begins = [group[1] for group in bars]
    span = [min(begins), max(begins)]
    cursor.register("new_bars", _columns(bars))
    try:
        stored = cursor.execute(_query(_SELECT_SAME, interval), span).fetchall()
        if stored:
            bars = dict(bars)
            for row in stored:
                series, part = _part_of(row)
                group = series, part.begin_ns, part.price_exponent, part.size_exponent
                part.merge(bars[group])
                bars[group] = part
            cursor.execute(_query(_DELETE_SAME, interval), span)
            cursor.register("new_bars", _columns(bars))
        cursor.execute(_query(_INSERT, interval))
    finally:
        cursor.unregister("new_bars")


def _coarser(bars: dict[Group, Part], interval_ns: int) -> dict[Group, Part]:
    """Bars of an interval out of those of a shorter one, or the same; these stay as they are."""
    if interval_ns == _SECOND:
        return bars
    found: dict[Group, Part] = {}
    for (series, begin_ns, *exponents), part in bars.items():
        begin_ns -= begin_ns % interval_ns
        group = series, begin_ns, exponents[0], exponents[1]
        whole = found.get(group)
        if whole is None:
            found[group] = replace(part, begin_ns=begin_ns)
        else:
            whole.merge(part)
    return found


def _columns(groups: dict[Group, Part]) -> dict[str, NDArray[Any]]:
    parts = list(groups.values())
    volumes = [part.volume for part in parts]
    return {
        "series": np.array([series for series, _, _, _ in groups], np.int32),
        "begin_ns": np.array([part.begin_ns for part in parts], np.int64),
        "price_exponent": np.array([part.price_exponent for part in parts], np.uint8),
        "size_exponent": np.array([part.size_exponent for part in parts], np.uint8),
        "open": np.array([part.open for part in parts], np.int64),
        "high": np.array([part.high for part in parts], np.int64),
        "low": np.array([part.low for part in parts], np.int64),
        "close": np.array([part.close for part in parts], np.int64),
        # Sums of 64-bit sizes; in two pieces, since arrays have no wider integers.
        "volume_high": np.array([volume >> 32 for volume in volumes], np.int64),
        "volume_low": np.array([volume & 0xFFFFFFFF for volume in volumes], np.int64),
        "trades": np.array([part.trades for part in parts], np.int64),
        "first_ns": np.array([part.first[0] for part in parts], np.int64),
        "first_number": np.array([part.first[1] for part in parts], np.uint64),
        "first_text": np.array([part.first[2] for part in parts], object),
        "last_ns": np.array([part.last[0] for part in parts], np.int64),
        "last_number": np.array([part.last[1] for part in parts], np.uint64),
        "last_text": np.array([part.last[2] for part in parts], object),
    }


def _part_of(row: tuple[Any, ...]) -> tuple[int, Part]:
    """Series and part of a row with ``_COLUMNS``."""
    series, begin_ns, price_exponent, size_exponent, first, high, low, last, volume, n, *keys = row
    return series, Part(
        begin_ns,
        price_exponent,
        size_exponent,
        (keys[0], keys[1], keys[2]),
        (keys[3], keys[4], keys[5]),
        first,
        high,
        low,
        last,
        int(volume),
        n,
    )
