"""The embedded database: trades a second into it, and REST on ten million while writing goes on."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from alphapulse.clock import NS_PER_SECOND, wall_ns
from alphapulse.config import StoreSettings
from alphapulse.history import TradeRow
from alphapulse.store import EmbeddedStore, WriteBatch
from benchmarks import http_load, programs
from benchmarks.harness import (
    Contestant,
    Figures,
    Metric,
    Row,
    Session,
    percentiles,
    progress,
    ring_prefix,
)
from benchmarks.history_market import EXCHANGE, SPECS, rows
from benchmarks.history_parts import settings, start_ring_feed

TRADES = 10_000_000
"""In the file that is read."""
RATE = 10_000.0
"""Trades a second that are written meanwhile."""

APPEND = (
    Metric("rate", "trades/s", more_is_better=True),
    Metric("cpu", "us/trade"),
    Metric("file", "bytes/trade"),
)
ANSWER = (Metric("p50", "ms"), Metric("p99", "ms"), Metric("max", "ms"))
REQUESTS = (
    Metric("rate", "requests/s", more_is_better=True),
    Metric("load-client-cpu", "% of a core"),
)
WRITING = (Metric("server-cpu", "% of a core"), Metric("memory", "MB"))

NOTE = """\
`append`: batches of 10,000 into a new file, of a market that makes 100,000 trades/s; the peer is
Python's SQLite with a table whose primary key is exchange, symbol and id, WAL, synchronous=NORMAL,
and no bars. `fill`: {trades:,} trades of ten symbols in a week, so that most seconds' bars have
only one or two. The others read this file over REST, while 10,000 trades/s come through a ring
into it; the server has one CPU, the feed and the load client the other. `trades-*`: pages of
1,000. `bars-day`: the 1,440 bars of a day. `recent`: newest 100 of each symbol in turns, 8
connections; `recent-quiet`: without writing.
Goals: append 100,000 trades/s; p99 of `trades-*` under 10 ms and of `bars-day` under 50 ms; 2,000
requests/s."""

_BATCH = 10_000
_APPEND_PER_SECOND = 200_000
_BUSY_PER_SECOND = 100_000
_WEEK_NS = 7 * 86400 * NS_PER_SECOND
_DAY_SECONDS = 86400
_PAGE = 1000
_DAY_BARS = 1440
_CONNECTIONS = 8
_SEED = 1
_WARM_SECONDS = 1.0

_SQLITE_TABLE = """
CREATE TABLE trades (
    exchange TEXT, symbol TEXT, trade_id TEXT, timestamp_ns INTEGER, received_ns INTEGER,
    price INTEGER, price_exponent INTEGER, size INTEGER, size_exponent INTEGER, side INTEGER,
    PRIMARY KEY (exchange, symbol, trade_id)
) WITHOUT ROWID
"""
_SQLITE_INSERT = "INSERT OR IGNORE INTO trades VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def run(session: Session, trades: int = TRADES) -> None:
    """Measure, and show the table.

    Parameters
    ----------
    trades : in the file that is read
    """
    found: list[Row] = []
    ours = Contestant("ours", lambda seconds: append(round(_APPEND_PER_SECOND * seconds)))
    sqlite = Contestant(
        "SQLite",
        lambda seconds: sqlite_append(round(_APPEND_PER_SECOND * seconds)),
        sqlite3.sqlite_version,
    )
    found += session.compare("history/embedded/append", APPEND, ours, [sqlite])
    if any(
        session.wants(f"history/embedded/{name}") for name in ("fill", "recent-quiet", *_READINGS)
    ):
        with tempfile.TemporaryDirectory(prefix="apbench-") as folder:
            found += _reading(session, Path(folder) / "history.duckdb", trades)
    session.show("History: the embedded database", found, NOTE.format(trades=trades))


def _reading(session: Session, path: Path, trades: int) -> list[Row]:
    found = session.compare(
        "history/embedded/fill",
        APPEND,
        Contestant("ours", lambda _: append(trades, path)),
        rounds=1,
    )
    if not found:
        append(trades, path)
    with served(path, trades) as quiet:
        ours = Contestant("ours", quiet.recent)
        found += session.compare("history/embedded/recent-quiet", REQUESTS, ours)
    with served(path, trades, writing=True) as server:
        for name, (metrics, measure) in _READINGS.items():
            ours = Contestant("ours", partial(measure, server))
            found += session.compare(f"history/embedded/{name}", metrics, ours)
    return found


def append(trades: int, path: Path | None = None) -> Figures:
    """Append so many trades to a new file.

    Parameters
    ----------
    trades : how many: of a market that makes `_BUSY_PER_SECOND`, as it would come
    path : of a file that is kept; its trades are those of a week
    """
    with tempfile.TemporaryDirectory(prefix="apbench-") as folder:
        file = path or Path(folder) / "history.duckdb"
        span_ns = trades * NS_PER_SECOND // _BUSY_PER_SECOND if path is None else _WEEK_NS
        figures = asyncio.run(_append(trades, span_ns, file))
        return {**figures, "file": file.stat().st_size / trades}


async def _append(trades: int, span_ns: int, path: Path) -> Figures:
    store = await EmbeddedStore.open(StoreSettings(path=str(path)))
    spent = cpu = 0.0
    written = 0
    for number, batch in enumerate(_batches(trades, span_ns)):
        if number % 50 == 0 and trades >= 1_000_000:
            progress(f"history/embedded: {written:,} of {trades:,} trades are in the file")
        begun, cpu_begun = time.perf_counter(), time.process_time()
        written += await store.append(WriteBatch(exchange=EXCHANGE, trades=batch))
        spent += time.perf_counter() - begun
        cpu += time.process_time() - cpu_begun
    begun, cpu_begun = time.perf_counter(), time.process_time()
    await store.close()
    spent += time.perf_counter() - begun
    cpu += time.process_time() - cpu_begun
    if written != trades:
        raise RuntimeError(f"{written} trades were written of {trades}")
    return {"rate": trades / spent, "cpu": cpu * 1e6 / trades}


def _batches(trades: int, span_ns: int) -> Iterator[list[TradeRow]]:
    """Trades of the time until now."""
    begin_ns = wall_ns() - span_ns
    for first in range(0, trades, _BATCH):
        yield rows(first, min(_BATCH, trades - first), begin_ns, span_ns // trades)


def sqlite_append(trades: int) -> Figures:
    """As `append`, with SQLite."""
    with tempfile.TemporaryDirectory(prefix="apbench-") as folder:
        path = Path(folder) / "history.sqlite"
        database = sqlite3.connect(path)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(_SQLITE_TABLE)
        spent = cpu = 0.0
        for batch in _batches(trades, trades * NS_PER_SECOND // _BUSY_PER_SECOND):
            begun, cpu_begun = time.perf_counter(), time.process_time()
            with database:
                database.executemany(_SQLITE_INSERT, map(_values, batch))
            spent += time.perf_counter() - begun
            cpu += time.process_time() - cpu_begun
        (written,) = database.execute("SELECT count(*) FROM trades").fetchone()
        database.close()
        if written != trades:
            raise RuntimeError(f"{written} trades were written of {trades}")
        size = path.stat().st_size
    return {"rate": trades / spent, "cpu": cpu * 1e6 / trades, "file": size / trades}


def _values(row: TradeRow) -> tuple[str | int, ...]:
    return (
        row.exchange,
        row.symbol,
        row.trade_id,
        row.timestamp_ns,
        row.received_ns,
        row.price,
        row.price_exponent,
        row.size,
        row.size_exponent,
        int(row.side),
    )


class _Page(msgspec.Struct):
    """As far as it matters of a page."""

    count: int
    next: str | None = None


_PAGES = msgspec.json.Decoder(_Page)


class Server:
    """The REST server at work on a file.

    Parameters
    ----------
    pid, port : of its process
    begin_seconds, end_seconds : epoch times between which the file's trades are
    """

    def __init__(self, pid: int, port: int, begin_seconds: float, end_seconds: float) -> None:
        self._pid = pid
        self.port = port
        self._begin = begin_seconds
        self._end = end_seconds
        self._random = random.Random(_SEED)

    def writing(self, seconds: float) -> Figures:
        """What writing alone costs the server."""
        before = programs.cpu_seconds(self._pid)
        # There is nothing to wait for: the time is what is measured over.
        time.sleep(max(2 * seconds, 2.0))
        spent = programs.cpu_seconds(self._pid) - before
        memory = programs.private_bytes(self._pid)
        return {"server-cpu": spent / max(2 * seconds, 2.0) * 100, "memory": memory / 1e6}

    def random_pages(self, seconds: float) -> Figures:
        """Pages from random times on."""

        def path() -> str:
            start = self._random.uniform(self._begin, self._end - _DAY_SECONDS)
            return f"/trades/{self._symbol()}?{_QUERY}&limit={_PAGE}&start_time={start:.3f}"

        return self._answers(seconds, path, _PAGE)

    def next_pages(self, seconds: float) -> Figures:
        """Pages that the one before names as its next, from the first one on."""
        symbol = self._symbol()
        first = f"/trades/{symbol}?{_QUERY}&limit={_PAGE}&start_time={self._begin:.3f}"
        following = first

        def path() -> str:
            return following

        def taken(page: _Page) -> None:
            nonlocal following
            following = page.next or first

        return self._answers(seconds, path, 1, taken)

    def newest_pages(self, seconds: float) -> Figures:
        """The newest page."""
        return self._answers(
            seconds, lambda: f"/trades/{self._symbol()}?{_QUERY}&limit={_PAGE}", _PAGE
        )

    def days_of_bars(self, seconds: float) -> Figures:
        """Days of 1m bars, from random minutes on."""

        def path() -> str:
            start = self._random.uniform(self._begin + 60, self._end - _DAY_SECONDS) // 60 * 60
            end = start + _DAY_SECONDS - 60
            span = f"start_time={start:.0f}&end_time={end:.0f}"
            return f"/ohlcv/{self._symbol()}?{_QUERY}&interval=1m&limit={_DAY_BARS}&{span}"

        return self._answers(seconds, path, 1)

    def recent(self, seconds: float) -> Figures:
        """As many requests for recent trades as it answers."""
        paths = [f"/trades/{spec.symbol}/recent?{_QUERY}&limit=100" for spec in SPECS]
        http_load.run(self.port, paths, _WARM_SECONDS, _CONNECTIONS)
        load = http_load.run(self.port, paths, 2 * seconds, _CONNECTIONS)
        return {
            "rate": load.requests / load.seconds,
            "load-client-cpu": load.client_cpu_seconds / load.seconds * 100,
        }

    def _symbol(self) -> str:
        return self._random.choice(SPECS).symbol

    def _answers(
        self,
        seconds: float,
        path: Callable[[], str],
        least: int,
        taken: Callable[[_Page], None] = lambda page: None,
    ) -> Figures:
        """Times of answers, one after the other, each with so many items at least."""
        connection = http_load.Connection(self.port)
        found: list[float] = []
        until = time.monotonic() + 2 * seconds
        try:
            while not found or time.monotonic() < until:
                one = path()
                begun = time.perf_counter()
                body = connection.get(one)
                found.append((time.perf_counter() - begun) * 1e3)
                page = _PAGES.decode(body)
                if page.count < least:
                    raise RuntimeError(f"{one} has {page.count} items")
                taken(page)
        finally:
            connection.close()
        p50, p99, most = percentiles(found, [50.0, 99.0, 100.0])
        return {"p50": p50, "p99": p99, "max": most}


_QUERY = f"exchange={EXCHANGE}"


class _Reading(NamedTuple):
    metrics: tuple[Metric, ...]
    measure: Callable[[Server, float], Figures]


_READINGS = {
    "writing": _Reading(WRITING, Server.writing),
    "trades-random": _Reading(ANSWER, Server.random_pages),
    "trades-cursor": _Reading(ANSWER, Server.next_pages),
    "trades-newest": _Reading(ANSWER, Server.newest_pages),
    "bars-day": _Reading(ANSWER, Server.days_of_bars),
    "recent": _Reading(REQUESTS, Server.recent),
}


@contextmanager
def served(path: Path, trades: int, *, writing: bool = False) -> Iterator[Server]:
    """A REST server on a file of so many trades, on a CPU of its own.

    Parameters
    ----------
    writing : have `RATE` trades a second come in
    """
    cpus = sorted(os.sched_getaffinity(0))
    first, others = set(cpus[:1]), set(cpus[1:]) or set(cpus)
    with ExitStack() as stack:
        prefix = stack.enter_context(ring_prefix())
        environ = settings(
            prefix,
            store__path=str(path),
            api__port="0",
            api__max_limit=str(max(_PAGE, _DAY_BARS)),
        )
        command = [sys.executable, "-m", "alphapulse.cli.serve", "api"]
        process = programs.start(stack, command, cpus=first, environ=environ)
        port = int(programs.read(process).split()[-1])
        os.sched_setaffinity(0, others)
        stack.callback(os.sched_setaffinity, 0, cpus)
        end = time.time()
        if writing:
            feed = start_ring_feed(stack, prefix, first=trades, cpus=others)
            feed.begin(sys.maxsize, RATE)
        yield Server(process.pid, port, end - _WEEK_NS / NS_PER_SECOND + _DAY_SECONDS / 2, end)
