"""What a store lacks of a symbol's trades because of a gap, found from the trades around it.

Where a gap says which ids are missing, it is those that the store doesn't have. Else it is what
lies between the last trade that was heard before the gap and the first one behind it, told by our
times of their arrival: the venue's clock needn't agree with ours. What arrived just when a gap
begins may be on either side of it, as a frame's trades have the same time: ids tell what is missing
around it, and where it is all that there is, trades before it are asked for, too.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from alphapulse.clock import NO_TIME, NS_PER_SECOND
from alphapulse.fixed import INT64_MAX
from alphapulse.history import GapRow, History, OrderKey, TradeRow
from alphapulse.model import Channel, IdKind
from alphapulse.store.identity import IdRanges

MARGIN_NS = 2 * NS_PER_SECOND
"""How much before a gap the search for the last trade before it begins."""
LATE_NS = 5 * NS_PER_SECOND
"""How long before its arrival a trade may have been made."""
PAGE = 1000
"""Trades read from the store at once."""
NS_PER_MS = 1_000_000


class Missing:
    """Ids that aren't there, as disjoint ranges in ascending order.

    Parameters
    ----------
    first, last : bounds to begin with, both included; nothing is missing if `last` is less
    """

    def __init__(self, first: int, last: int) -> None:
        self._first = [first] if first <= last else []
        self._last = [last] if first <= last else []

    def __bool__(self) -> bool:
        return bool(self._first)

    def remove(self, first: int, last: int) -> bool:
        """These ids are there now; False, and nothing changed, unless all of them were missing."""
        index = bisect_right(self._first, first) - 1
        if index < 0 or last > self._last[index]:
            return False
        kept = [(self._first[index], first - 1), (last + 1, self._last[index])]
        kept = [pair for pair in kept if pair[0] <= pair[1]]
        self._first[index : index + 1] = [pair[0] for pair in kept]
        self._last[index : index + 1] = [pair[1] for pair in kept]
        return True

    def cut(self, first: int, last: int) -> None:
        """What lies outside these bounds isn't missed."""
        pairs = [
            (max(begin, first), min(end, last))
            for begin, end in zip(self._first, self._last, strict=True)
        ]
        pairs = [pair for pair in pairs if pair[0] <= pair[1]]
        self._first = [pair[0] for pair in pairs]
        self._last = [pair[1] for pair in pairs]

    def within(self, first: int, last: int) -> bool:
        """Whether any id between these bounds is missing."""
        index = bisect_left(self._last, first)
        return index < len(self._first) and self._first[index] <= last

    def groups(self, reach: int) -> list[tuple[int, int]]:
        """Bounds of what is missing; ranges with at most `reach` ids in between are one."""
        found: list[tuple[int, int]] = []
        for first, last in zip(self._first, self._last, strict=True):
            if found and first - found[-1][1] <= reach + 1:
                found[-1] = found[-1][0], last
            else:
                found.append((first, last))
        return found


class Hole:
    """Where a symbol's trades are missing because of a gap.

    Parameters
    ----------
    gap : the gap
    kind : of the ids, unless the store's trades tell of another

    Attributes
    ----------
    missing : ids that the store doesn't have
    after_id : of the last trade before the hole, None where unknown
    closed : whether a trade behind the hole is there
    since_ns, until_ns : the venue's times between which the missing trades lie, about
    filled : trades that were written to fill it
    aggregated : whether there are aggregates among them, though ids count single trades
    """

    def __init__(self, gap: GapRow, kind: IdKind) -> None:
        self.kind = kind
        self.begin_ns = begin_ns(gap)
        self._known = tells_ids(gap)
        self._first, self._last = gap.first or 0, gap.last or 0
        self.missing = Missing(self._first, self._last) if self._known else Missing(0, INT64_MAX)
        self.after_id = self._first - 1 if self._known else None
        self.closed = False
        since_ns = gap.received_ns if self.begin_ns is None else self.begin_ns
        self.since_ns = self._since_ns = since_ns - LATE_NS
        self._ahead_ns = INT64_MAX
        self.until_ns = self._end_ns = gap.received_ns + LATE_NS
        self.filled = 0
        self.aggregated = False
        self._aggregates = IdRanges(most=INT64_MAX)
        self._times: list[tuple[int, int]] = []
        self._latest: tuple[int, int] | None = None

    def precedes(self, row: TradeRow) -> bool:
        """Whether a trade was heard before the hole."""
        if row.id_kind is not self.kind or not _was_heard(row):
            return False
        if self._known:
            return int(row.trade_id) < self._first
        return self.begin_ns is not None and row.received_ns < self.begin_ns

    def since_of(self, first: int) -> int:
        """The venue's time of the trade before this missing one, as far as known."""
        before = [known for known in self._times if known[0] < first]
        return max(before)[1] if before else self.since_ns

    def take(self, row: TradeRow) -> bool:
        """Take in a trade of the store, in their order; False if it lies behind the hole."""
        if row.id_kind is not self.kind:
            if row.filled and row.id_kind is IdKind.AGGREGATE:
                self.aggregated = True
                self.filled += self.is_new(row)
            return True
        number = int(row.trade_id)
        if self.precedes(row):
            self._begin_after(number, row)
        elif self._follows(row, number):
            self._end_before(number, row)
            return False
        elif self.missing.remove(number, number):
            self.filled += row.filled
            self._learn_clock(row)
        if self._latest is not None and number != self._latest[0] + 1:
            self._times.append(self._latest)
        self._latest = number, row.timestamp_ns
        return True

    def is_new(self, row: TradeRow) -> bool:
        """Whether a trade that fills the hole isn't there yet, so far as `missing` doesn't tell."""
        return row.id_kind is self.kind or self._aggregates.add(int(row.trade_id))

    def _begin_after(self, number: int, row: TradeRow) -> None:
        """The hole is behind this trade, and so is all that was written to fill it."""
        self.filled, self.aggregated, self._times = 0, False, []
        self._aggregates = IdRanges(most=INT64_MAX)
        self.since_ns = row.timestamp_ns
        # Where the venue's clock is ahead of ours, so are its times of what is missing.
        self.until_ns = self._end_ns + max(row.timestamp_ns - row.received_ns, 0)
        if not self._known:
            self.after_id = number if self.after_id is None else max(number, self.after_id)
            self.missing.cut(self.after_id + 1, INT64_MAX)

    def _follows(self, row: TradeRow, number: int) -> bool:
        if self._known:
            return number > self._last
        if self.begin_ns is None or not _was_heard(row):
            return False
        behind = self.after_id is None or number > self.after_id
        return behind and row.received_ns > self.begin_ns

    def _end_before(self, number: int, row: TradeRow) -> None:
        self.closed = True
        if self._latest is not None:
            self._times.append(self._latest)
        if not self._known:
            self.missing.cut(0, number - 1)
            self._learn_clock(row)
        self.until_ns = row.timestamp_ns

    def _learn_clock(self, row: TradeRow) -> None:
        """With no trade before the hole, those around it tell the venue's time of the gap."""
        if self.after_id is None and _was_heard(row):
            ahead_ns = row.timestamp_ns - row.received_ns
            # What is missing may have taken as long as the slowest of them.
            self._ahead_ns = min(ahead_ns, self._ahead_ns)
            self.since_ns = self._since_ns + self._ahead_ns
            self.until_ns = max(self._end_ns + ahead_ns, self.until_ns)


def _was_heard(row: TradeRow) -> bool:
    """Whether a trade came over the feed, with an id that counts."""
    return not row.filled and row.received_ns != NO_TIME and row.id_kind is not IdKind.TEXT


def tells_ids(gap: GapRow) -> bool:
    """Whether a gap says which ids of trades are missing."""
    return gap.channel is Channel.TRADES and None not in (gap.first, gap.last)


def begin_ns(gap: GapRow) -> int | None:
    """Our time from which on something may be missing; None where nothing tells it."""
    if gap.since_ns != NO_TIME:
        return gap.since_ns
    # A ring's epoch is its time of creation.
    return None if gap.epoch is None else gap.epoch * NS_PER_MS


async def find_hole(store: History, gap: GapRow, symbol: str, kind: IdKind) -> Hole:
    """What a store lacks of a symbol because of a gap.

    Parameters
    ----------
    store : where the trades are
    gap : of trades, or of a ring's records
    symbol : the gap's, or one of the ring's
    kind : what ids count where no trade is there to tell
    """
    heard = await _last_heard(store, gap, symbol)
    hole: Hole | None = None
    beyond: OrderKey | None = None
    if heard is not None:
        hole, beyond = Hole(gap, heard.id_kind), heard.order_key
        hole.take(heard)
    while True:
        rows = await store.read_trades(gap.exchange, symbol, limit=PAGE, beyond=beyond)
        if hole is None:
            hole = Hole(gap, next((row.id_kind for row in rows if _was_heard(row)), kind))
        for row in rows:
            if row.id_kind is not IdKind.TEXT and not hole.take(row):
                return hole
        if len(rows) < PAGE:
            return hole
        beyond = rows[-1].order_key


async def _last_heard(store: History, gap: GapRow, symbol: str) -> TradeRow | None:
    """A trade that was heard before a gap, one of the last; None where there is none."""
    begin = begin_ns(gap)
    end = gap.received_ns if begin is None else begin - MARGIN_NS
    beyond: OrderKey | None = None
    while True:
        rows = await store.read_trades(
            gap.exchange, symbol, None, end, PAGE, newest=True, beyond=beyond
        )
        for row in reversed(rows):
            if _was_heard(row) and Hole(gap, row.id_kind).precedes(row):
                return row
        if len(rows) < PAGE:
            return None
        beyond = rows[0].order_key
