"""Which trades a store has: ids as ranges, since venues count their trades.

A store keeps this with the trades and asks it before it writes: that is what makes a trade that
comes twice (a venue repeats the latest ones after a reconnect, a writer goes on from an older
position) be kept once.
"""

from __future__ import annotations

from collections.abc import Iterable

from alphapulse.history import TradeRow
from alphapulse.model import IdKind
from alphapulse.store._identity import MOST_RANGES, IdRanges, Series, sift

__all__ = ["MOST_RANGES", "IdRanges", "Series", "sift", "text_ids"]


def text_ids(rows: Iterable[TradeRow]) -> list[tuple[str, str]]:
    """(symbol, id) of the rows whose ids are texts: those a store has to look up itself."""
    return [(row.symbol, row.trade_id) for row in rows if row.id_kind is IdKind.TEXT]
