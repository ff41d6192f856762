"""What the embedded database is to forget: by age, in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import duckdb

from alphapulse.clock import NS_PER_SECOND, wall_ns
from alphapulse.config import StoreSettings
from alphapulse.errors import StoreError
from alphapulse.log import get_logger
from alphapulse.store import tables
from alphapulse.store.bars import STORED
from alphapulse.store.embedded_bars import BarTables
from alphapulse.store.embedded_file import transaction

SECONDS_BETWEEN_SWEEPS = 3600.0
"""How often what is older than the retention is deleted."""
ROWS_AT_ONCE = 100_000
"""Trades deleted in one transaction, about; others go on in between."""

_DAY_NS = 86400 * NS_PER_SECOND

log = get_logger(__name__)


class Retention:
    """Deletes what is older than the settings allow.

    Parameters
    ----------
    settings : ``retention_days`` and ``bar_retention_days`` are used
    """

    def __init__(self, settings: StoreSettings) -> None:
        self._age_ns = int(settings.retention_days * _DAY_NS)
        self._bar_age_ns = int(settings.bar_retention_days * _DAY_NS)
        self._deleted = False

    @property
    def limited(self) -> bool:
        """Whether anything is ever deleted."""
        return bool(self._age_ns or self._bar_age_ns)

    async def run(self, sweep: Callable[[], Awaitable[bool]]) -> None:
        """Delete what is old now, and then every hour, until cancelled.

        Parameters
        ----------
        sweep : deletes a piece, and tells whether there is more
        """
        while True:
            try:
                while await sweep():
                    pass
            except StoreError as error:
                log.warning("old history is not being deleted", problem=str(error))
            await asyncio.sleep(SECONDS_BETWEEN_SWEEPS)

    def delete_trades(
        self,
        cursor: duckdb.DuckDBPyConnection,
        prepare: Callable[[duckdb.DuckDBPyConnection], None],
    ) -> bool:
        """Delete some of the old trades; False if there are none any more.

        Parameters
        ----------
        cursor : not in a transaction
        prepare : called first in the transaction that deletes
        """
        if not self._age_ns:
            return False
        bounds = [wall_ns() - self._age_ns, ROWS_AT_ONCE]
        ((last_ns,),) = cursor.execute(tables.SELECT_OLD, bounds).fetchall()
        if last_ns is None:
            return False
        with transaction(cursor):
            prepare(cursor)
            cursor.execute("DELETE FROM trades WHERE timestamp_ns <= ?", [last_ns])
        self._deleted = True
        return True

    def delete_others(self, cursor: duckdb.DuckDBPyConnection, bars: BarTables) -> bool:
        """Delete the rest of what is old; whether trades were deleted since the last time.

        Parameters
        ----------
        cursor : not in a transaction
        bars : those of the file
        """
        now = wall_ns()
        with transaction(cursor):
            if self._age_ns:
                for query in tables.DELETE_OLD:
                    cursor.execute(query, [now - self._age_ns])
                # Those of a second, of which there are many, live no longer than the trades.
                bars.forget(cursor, STORED[:1], now - self._age_ns)
            if self._bar_age_ns:
                bars.forget(cursor, STORED, now - self._bar_age_ns)
        deleted, self._deleted = self._deleted, False
        return deleted


def reclaim(cursor: duckdb.DuckDBPyConnection) -> None:
    """Give the space of deleted rows to later ones, which is also done as the log grows."""
    try:
        cursor.execute("CHECKPOINT")
    except duckdb.TransactionException as error:
        log.debug("no checkpoint now", problem=str(error))
