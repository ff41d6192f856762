"""Which trades a store has: ids as ranges, since venues count their trades.

A store keeps this with the trades, in the same transaction, and asks it before it writes: that is
what makes a trade that comes twice (a venue repeats the latest ones after a reconnect, a writer
goes on from an older position) be kept once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

import msgspec

from alphapulse.history import TradeRow
from alphapulse.model import IdKind

MOST_RANGES = 512
"""Ranges remembered for one kind of id of one symbol.

Where a venue's ids aren't consecutive, each trade is a range of its own: an unseen id below the
oldest ranges is then taken as seen, so that what is remembered stays bounded.
"""

_KINDS = {"trade": IdKind.TRADE, "aggregate": IdKind.AGGREGATE}


class IdRanges:
    """A set of integers, as disjoint ranges in ascending order.

    Parameters
    ----------
    ranges : (first, last) pairs, ascending, not touching each other
    most : how many are kept at most; beyond it the two lowest become one
    """

    def __init__(self, ranges: Iterable[Sequence[int]] = (), most: int = MOST_RANGES) -> None:
        pairs = list(ranges)
        self._first = [first for first, _ in pairs]
        self._last = [last for _, last in pairs]
        self._most = most
        self.changed = False
        """Whether anything but the highest range's end has changed since `pairs` was asked for."""

    def extend(self, last: int) -> None:
        """Let the highest range end there, if it ends before."""
        self._last[-1] = max(self._last[-1], last)

    def add(self, number: int) -> bool:
        """Add a number. False if it was there already."""
        first, last = self._first, self._last
        if last and number == last[-1] + 1:
            last[-1] = number
            return True
        index = bisect_right(first, number) - 1
        if index >= 0 and number <= last[index]:
            return False
        extends = index >= 0 and last[index] == number - 1
        self.changed |= not (extends and index == len(first) - 1)
        precedes = index + 1 < len(first) and first[index + 1] == number + 1
        if extends and precedes:
            last[index] = last.pop(index + 1)
            del first[index + 1]
        elif extends:
            last[index] = number
        elif precedes:
            first[index + 1] = number
        else:
            first.insert(index + 1, number)
            last.insert(index + 1, number)
            if len(first) > self._most:
                del first[1], last[0]
        return True

    def pairs(self) -> list[tuple[int, int]]:
        """The ranges, (first, last), ascending."""
        self.changed = False
        return list(zip(self._first, self._last, strict=True))


class Series:
    """What a store has seen of one venue's symbol.

    Parameters
    ----------
    ids : ranges of integer ids by kind
    """

    def __init__(self, ids: dict[IdKind, IdRanges] | None = None) -> None:
        self._ids = ids or {}

    @classmethod
    def load(cls, text: str | bytes) -> Series:
        """From what `dump` gave."""
        document = msgspec.json.decode(text, type=dict[str, list[tuple[int, int]]])
        return cls({_KINDS[kind]: IdRanges(ranges) for kind, ranges in document.items()})

    def dump(self) -> str:
        """As JSON: ``{"trade": [[first, last], ...]}``."""
        document = {kind.text: ranges.pairs() for kind, ranges in self._ids.items()}
        return msgspec.json.encode(document).decode()

    @property
    def changed(self) -> bool:
        """Whether `dump` would now give more than an extension of each kind's highest range."""
        return any(ranges.changed for ranges in self._ids.values())

    def extend(self, kind: IdKind, highest: int) -> None:
        """Note that the highest range of a kind, which is known, goes on to this id."""
        self._ids[kind].extend(highest)

    def add(self, kind: IdKind, number: int) -> bool:
        """Note an integer id. False if it was noted before."""
        ranges = self._ids.get(kind)
        if ranges is None:
            ranges = self._ids[kind] = IdRanges()
        return ranges.add(number)


def text_ids(rows: Iterable[TradeRow]) -> list[tuple[str, str]]:
    """(symbol, id) of the rows whose ids are texts: those a store has to look up itself."""
    return [(row.symbol, row.trade_id) for row in rows if row.id_kind is IdKind.TEXT]


def sift(
    rows: Iterable[TradeRow], series: dict[str, Series], texts: set[tuple[str, str]]
) -> list[TradeRow]:
    """The rows that are new, each once, in their order; all of them are noted.

    Parameters
    ----------
    rows : of one exchange
    series : by symbol; missing ones are added
    texts : (symbol, id) of the text ids that the store has already; new ones are added
    """
    new = []
    symbol, ids = None, Series()
    for row in rows:
        if row.symbol != symbol:
            symbol = row.symbol
            ids = series.get(symbol) or series.setdefault(symbol, Series())
        if row.id_kind is IdKind.TEXT:
            identity = (row.symbol, row.trade_id)
            if identity in texts:
                continue
            texts.add(identity)
            new.append(row)
        elif ids.add(row.id_kind, int(row.trade_id)):
            new.append(row)
    return new
