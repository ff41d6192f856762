"""Writes the trades that fill a hole, and makes sure of them."""

from __future__ import annotations

from alphapulse import metrics
from alphapulse.history import TradeRow
from alphapulse.log import get_logger
from alphapulse.store.repository import Store, WriteBatch

ROWS = 1000
"""Trades written at once."""

log = get_logger(__name__)


class Pen:
    """Writes one symbol's trades, some at a time.

    Parameters
    ----------
    store : where to write
    exchange, symbol : whose trades

    Attributes
    ----------
    new : trades that were written and weren't there before
    refused : trades that the store didn't take, though it doesn't have them: ranges of ids that are
        many enough become one for it (`alphapulse.store.identity`)
    """

    def __init__(self, store: Store, exchange: str, symbol: str) -> None:
        self._store = store
        self._exchange = exchange
        self._symbol = symbol
        self._rows: list[TradeRow] = []
        self._written = metrics.STORE_ROWS.bind(exchange=exchange)
        self.new = 0
        self.refused = 0

    async def write(self, row: TradeRow) -> None:
        """Write a trade, with others. Raises `StoreError`."""
        self._rows.append(row)
        if len(self._rows) >= ROWS:
            await self.flush()

    async def flush(self) -> None:
        """Write what waits. Raises `StoreError`."""
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        new = await self._store.append(WriteBatch(exchange=self._exchange, trades=rows))
        self._written.inc(new)
        self.new += new
        if new < len(rows):
            await self._look_for(rows)

    async def _look_for(self, rows: list[TradeRow]) -> None:
        """Some were there already, or are thought to be."""
        times = [row.timestamp_ns for row in rows]
        found = await self._store.read_trades(self._exchange, self._symbol, min(times), max(times))
        there = {(row.id_kind, row.trade_id) for row in found}
        refused = sum((row.id_kind, row.trade_id) not in there for row in rows)
        self.refused += refused
        if refused:
            log.warning(
                "the store takes trades for known that it doesn't have",
                exchange=self._exchange,
                symbol=self._symbol,
                trades=refused,
            )
