"""``alphapulse export``: history as Parquet files, one for each symbol and day."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from alphapulse.cli.common import ConfigFile, Prefix, fail, load_settings, stop_on_sigterm
from alphapulse.client.repository import HttpRepository
from alphapulse.clock import NS_PER_SECOND
from alphapulse.config import Settings
from alphapulse.errors import RequestError, StoreError
from alphapulse.history import INTERVALS_NS, BookRow, GapRow, SeriesSummary, StateRow, TradeRow
from alphapulse.repository import OhlcvBar, nanoseconds_of, symbol_of, trade_row_of
from alphapulse.store import EmbeddedStore, RedisStore
from alphapulse.store.export import (
    BOOKS,
    GAPS,
    STATES,
    TRADES,
    Done,
    Item,
    Source,
    StoreSource,
    export,
    plan,
)

TABLES = (TRADES, *(f"bars_{interval}" for interval in INTERVALS_NS), BOOKS, GAPS, STATES)

GREET_SECONDS = 5.0
"""Longest wait for the first answer of a server."""

_HOUR = timedelta(hours=1)
_DAY = "YYYY-MM-DD"


class HttpSource:
    """Reads a REST server, an hour of trades at once.

    It doesn't tell when trades were received, what they stand for, and whether they were filled;
    nor of changes of books' states, nor of more than 1000 levels a side of a book.

    Parameters
    ----------
    repository : open; stays open
    """

    def __init__(self, repository: HttpRepository) -> None:
        self._repository = repository

    async def series(self) -> list[SeriesSummary]:
        """See `Source`; all have the times of the whole."""
        summary = await self._repository.get_data_summary()
        start, end = summary.date_range["start"], summary.date_range["end"]
        if start is None or end is None:
            return []
        span = int(start) * NS_PER_SECOND, int(end) * NS_PER_SECOND
        return [
            SeriesSummary(exchange, symbol, 0, *span)
            for exchange, symbols in summary.symbols_by_exchange.items()
            for symbol in symbols
        ]

    async def trades(
        self, exchange: str, symbol: str, start: datetime, end: datetime
    ) -> AsyncIterator[list[TradeRow]]:
        """See `Source`."""
        while start < end:
            after = start + _HOUR
            found = await self._repository.get_trades(symbol, exchange, start, after, exact=True)
            end_ns = nanoseconds_of(after)
            rows = [trade_row_of(trade, symbol, exchange) for trade in found]
            page = [row for row in rows if end_ns is None or row.timestamp_ns < end_ns]
            if page:
                yield page
            start = after

    async def bars(
        self, exchange: str, symbol: str, interval: str, start: datetime, end: datetime
    ) -> list[OhlcvBar]:
        """See `Source`."""
        last = end - timedelta(microseconds=1)
        return await self._repository.get_ohlcv(symbol, exchange, interval, start, last, exact=True)

    async def gaps(self) -> list[GapRow]:
        """See `Source`."""
        return await self._repository.read_gaps()

    async def states(self) -> list[StateRow]:
        """See `Source`; raises `RequestError`."""
        raise RequestError(
            "unknown_table", f"--table {STATES}: a server doesn't tell them; leave out --from"
        )

    async def names(self) -> list[tuple[str, str]]:
        """See `Source`."""
        exchanges = await self._repository.get_exchanges()
        return [
            (each, name) for each in exchanges for name in await self._repository.get_symbols(each)
        ]

    async def book(self, exchange: str, symbol: str, at_ns: int) -> BookRow | None:
        """See `Source`."""
        return await self._repository.read_book(exchange, symbol, at_ns)


def command(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Where the files go; made if it isn't there."),
    ],
    table: Annotated[
        str, typer.Option("--table", help=f"What to export: {', '.join(TABLES)}.")
    ] = TRADES,
    exchange: Annotated[str | None, typer.Option("--exchange", help="Only this exchange.")] = None,
    symbol: Annotated[
        str | None, typer.Option("--symbol", help="Only this symbol, for instance BTC-USD.")
    ] = None,
    start: Annotated[
        datetime | None,
        typer.Option(
            "--start",
            formats=["%Y-%m-%d"],
            metavar=_DAY,
            help="First day (UTC).",
            show_default="all",
        ),
    ] = None,
    end: Annotated[
        datetime | None,
        typer.Option(
            "--end", formats=["%Y-%m-%d"], metavar=_DAY, help="Last day (UTC).", show_default="all"
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write all files again, whole ones too.")
    ] = False,
    server: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Read a running server's REST instead of the store, http://127.0.0.1:3001 for "
            "instance; with its token, api.token, if it has one.",
        ),
    ] = None,
    config: ConfigFile = None,
    prefix: Prefix = None,
) -> None:
    """Write history as Parquet files, one for each symbol and day (UTC), exactly.

    That is trades, bars, books as they were kept, a row a level, gaps (what is missing, since when,
    and whether it was filled meanwhile) or changes of books' states:

    FOLDER/trades/exchange=kraken/symbol=BTC-USD/date=2026-11-20/part.parquet

    Read them all at once with DuckDB: SELECT * FROM 'FOLDER/trades/**/*.parquet'; with polars:
    pl.scan_parquet("FOLDER/trades", hive_partitioning=True); or with pandas and pyarrow:
    pd.read_parquet("FOLDER/trades"). Prices and volumes are decimals with 18 places.

    Run again, it writes what is new: a day's file is left alone once it was written after that
    day's end, and today's is written anew, as is one with gaps that were open. It may be ended at
    any time.

    The store is that of the settings. The embedded database serves one process: while
    `alphapulse up` or `alphapulse-api-server` has it open, use --from. Ends with status 1 where
    the store or the server fails.
    """
    if table not in TABLES:
        fail(f"--table {table}: use one of {', '.join(TABLES)}")
    if table == GAPS and symbol is not None:
        fail(f"--symbol {symbol}: a file of gaps has those of all symbols; leave it out")
    if start is not None and end is not None and start > end:
        fail(f"--start {_date(start)}: is after --end {_date(end)}")
    stop_on_sigterm()
    settings = load_settings(config, {"ring.prefix": prefix})
    try:
        wanted_symbol = None if symbol is None else symbol_of(symbol)

        def wanted(at: str, of: str | None) -> bool:
            return exchange in (None, at) and wanted_symbol in (None, of)

        async def run() -> None:
            async with _source(settings, server) as source:
                days = (None if day is None else day.date() for day in (start, end))
                items = await plan(source, folder, table, wanted, *days)
                if not items:
                    fail(f"there is nothing to export of {_what(exchange, symbol, start, end)}", 1)
                await _export(source, items, table, overwrite)

        asyncio.run(run())
    except RequestError as error:
        fail(str(error))
    except StoreError as error:
        fail(str(error), 1)


async def _greet(server: str, token: str) -> None:
    """See that a server is there at all, without the patience that a long export has with it."""
    repository = HttpRepository(
        server, token=token, timeout_seconds=GREET_SECONDS, retry_seconds=0.0
    )
    try:
        await repository.get_exchanges()
    except StoreError as error:
        raise StoreError(
            f"--from: {error}; is `alphapulse up` or `alphapulse-api-server` running there?"
        ) from error
    finally:
        await repository.close()


@asynccontextmanager
async def _source(settings: Settings, server: str | None) -> AsyncIterator[Source]:
    if server is not None:
        try:
            repository = HttpRepository(server, token=settings.api.token)
        except RequestError:
            fail(f"--from: {server!r} is none like http://127.0.0.1:3001")
        try:
            await _greet(server, settings.api.token)
            yield HttpSource(repository)
        finally:
            await repository.close()
        return
    store: EmbeddedStore | RedisStore
    if settings.store.redis_url:
        store = await RedisStore.open(settings.store, settings.ring.prefix)
    else:
        store = await EmbeddedStore.open(settings.store, read_only=True)
    try:
        venues = settings.venues.enabled().items()
        yield StoreSource(store, [(name, each) for name, venue in venues for each in venue.symbols])
    finally:
        await store.close()


async def _export(source: Source, items: list[Item], table: str, overwrite: bool) -> None:
    console = Console(soft_wrap=True)
    written = kept = rows = 0
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(table, total=len(items))
        async for done in export(source, items, table, overwrite=overwrite):
            progress.update(task, advance=1, description=_name(done.item))
            written += bool(done.rows)
            kept += done.kept
            rows += done.rows
            if done.rows and not console.is_terminal:
                console.print(_line(done), highlight=False)
    console.print(
        f"{written} files written with {rows:,} rows, {kept} were there already", highlight=False
    )


def _name(item: Item) -> str:
    return " ".join([item.exchange, *([item.symbol] if item.symbol else []), str(item.day)])


def _line(done: Done) -> str:
    return f"{_name(done.item)}: {done.rows:,} rows, {done.item.path}"


def _what(
    exchange: str | None, symbol: str | None, start: datetime | None, end: datetime | None
) -> str:
    names = f"{exchange or 'any exchange'}, {symbol or 'any symbol'}"
    first = f" from {_date(start)}" if start else ""
    return f"{names}{first}{f' to {_date(end)}' if end else ''}"


def _date(moment: datetime) -> date:
    return moment.replace(tzinfo=UTC).date()
