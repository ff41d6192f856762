"""The book of all exchanges together, as its subscribers know it.

A level has the total of what the exchanges quote at its price, and who quotes how much. Numbers are
integers scaled by the most decimal places that any of the books has, of any size: a sum may exceed
64 bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from alphapulse.fixed import format_decimal
from alphapulse.model import Action, BookSide, Reason
from alphapulse.stream import messages
from alphapulse.stream.client import Group, Item, Kind
from alphapulse.stream.frames import text_frame
from alphapulse.stream.messages import quote
from alphapulse.stream.requests import ALL, FULL, Look

if TYPE_CHECKING:
    from alphapulse.stream._fanout import Outbox
    from alphapulse.stream.client import Client
    from alphapulse.stream.market import Market
    from alphapulse.stream.pool import Pool, Touched

Quoted = dict[str, int]
"""Scaled size by exchange; empty where nobody quotes a price."""


class Scale(NamedTuple):
    """Decimal places of prices and of sizes."""

    price: int
    size: int


class ConsolidatedView:
    """A consolidated book at one look.

    Of a limited depth it remembers the levels that it has shown; of the whole book only, if events
    are told every so often, those that have changed since the latest.

    Parameters
    ----------
    pool : the books
    """

    decodes = True
    """`advance` needs to know what a delta says."""
    lapse = None
    """Nobody goes on with this after a lost connection."""

    def __init__(self, look: Look, pool: Pool) -> None:
        self.look = look
        self.clients: Group[Client] = Group()
        self._pool = pool
        self._snapshots: dict[Reason, list[Item]] = {}
        self._told_ns = 0
        self._late = False
        self._scheduled = False
        self.reset()

    def serves(self, client: Outbox) -> bool:
        """Whether the client is subscribed to this view, and any of the books is live."""
        return client in self.clients and not self._halted

    def reset(self) -> None:
        """Begin anew with the books of now."""
        pool, depth = self._pool, self.look.depth
        self._scale = pool.scale
        self._shown: list[dict[int, Quoted]] = [
            {} if depth == FULL else pool.levels(side, depth, self._scale) for side in BookSide
        ]
        """Of a limited depth: what subscribers know, by side and price, best first."""
        self._before: dict[tuple[int, int], Quoted] = {}
        """Of the whole book: what subscribers know of the levels that have changed since."""
        self._late = False
        self._halted = False
        self._snapshots.clear()
        self._mark()

    def advance(self, market: Market, touched: Touched, now_ns: int) -> None:
        """Follow a change of one of the books."""
        if self.look.depth == FULL:
            self._remember(market, touched)
        if self.look.conflate_ms:
            self._defer()
        elif self.look.depth == FULL:
            self._tell(self._changes_of_levels(), now_ns)
        elif self._concerned(market, touched):
            self._tell(self._changes_of_view(), now_ns)

    def halt(self) -> None:
        """No book is live: what hasn't been told won't be."""
        self._late = False
        self._halted = True

    def due(self, now_ns: int) -> None:
        """Tell what has changed since the event before."""
        self._scheduled = False
        if not self._late or not self.clients:
            return
        self._late = False
        full = self.look.depth == FULL
        self._tell(self._changes_of_levels() if full else self._changes_of_view(), now_ns)

    def snapshot(self, reason: Reason) -> list[Item]:
        """The view as of its latest event, in one or more frames."""
        items = self._snapshots.get(reason)
        if items is None:
            texts = messages.join_parts(
                self._head(reason),
                *(self._level_texts(side) for side in BookSide),
                marked=self.look.depth == FULL,
            )
            items = [Item(text_frame(text), Kind.SNAPSHOT, self, 0) for text in texts]
            self._snapshots[reason] = items
        return items

    def drop_snapshots(self) -> None:
        """Free the frames that are kept for clients who ask at the same time."""
        self._snapshots.clear()

    def _mark(self) -> None:
        """The view is told as of now."""
        pool = self._pool
        self._version = pool.version
        self._times = pool.times
        self._source = pool.source
        self._sources = [
            (market.exchange, market.book.version, market.epoch, market.state.state)
            for market in pool.markets.values()
        ]

    def _defer(self) -> None:
        self._late = True
        if not self._scheduled:
            self._scheduled = True
            at_ns = self._told_ns + self.look.conflate_ms * 1_000_000
            self._pool.shared.timetable.add(at_ns, self)

    def _remember(self, market: Market, touched: Touched) -> None:
        """Keep what subscribers know of levels, before it is forgotten."""
        instrument, scale = market.instrument, self._scale
        price_factor = 10 ** (scale.price - instrument.price_exponent)
        size_factor = 10 ** (scale.size - instrument.size_exponent)
        for side, own, before, _ in touched:
            price = own * price_factor
            if (side, price) not in self._before:
                sizes = self._pool.quoted(side, price, scale)
                sizes.pop(market.exchange, None)
                if before:
                    sizes[market.exchange] = before * size_factor
                self._before[side, price] = sizes

    def _concerned(self, market: Market, touched: Touched) -> bool:
        """Whether a change can be one of the levels shown."""
        factor = 10 ** (self._scale.price - market.instrument.price_exponent)
        for side, own, _, _ in touched:
            shown = self._shown[side - 1]
            if len(shown) < self.look.depth:
                return True
            worst = next(reversed(shown))
            price = own * factor
            if price >= worst if side == BookSide.BID else price <= worst:
                return True
        return False

    def _changes_of_levels(self) -> list[str]:
        changes = []
        for side in BookSide:
            prices = [price for which, price in self._before if which == side]
            for price in sorted(prices, reverse=side is BookSide.BID):
                before = self._before[side, price]
                after = self._pool.quoted(side, price, self._scale)
                if before != after:
                    changes.append(self._change(side, price, before, after))
        self._before.clear()
        return changes

    def _changes_of_view(self) -> list[str]:
        changes = []
        for side in BookSide:
            before = self._shown[side - 1]
            after = self._pool.levels(side, self.look.depth, self._scale)
            if before == after:
                continue
            self._shown[side - 1] = after
            for price in sorted({*before, *after}, reverse=side is BookSide.BID):
                old, new = before.get(price, {}), after.get(price, {})
                if old != new:
                    changes.append(self._change(side, price, old, new))
        return changes

    def _tell(self, changes: list[str], now_ns: int) -> None:
        if not changes:
            return
        before = self._version
        self._mark()
        self._told_ns = now_ns
        self._snapshots.clear()
        text = (
            f'{{"type":"orderbook_delta","data":{{{self._names()}'
            f',"version":{self._version},"prev_version":{before}'
            f'{messages.encode_times(self._times)},"source":{quote(self._source)}'
            f',"changes":[{",".join(changes)}]}}}}'
        )
        self.clients.deliver(Item(text_frame(text), Kind.DELTA, self, now_ns))

    def _change(self, side: BookSide, price: int, before: Quoted, after: Quoted) -> str:
        action = (Action.UPDATE if before else Action.ADD) if after else Action.REMOVE
        return (
            f'{{"side":"{side.text}","price":{format_decimal(price, self._scale.price)}'
            f',"volume":{format_decimal(sum(after.values()), self._scale.size)}'
            f',"action":"{action.text}","exchanges":{self._who(after)}}}'
        )

    def _head(self, reason: Reason) -> str:
        sources = (
            f'{quote(exchange)}:{{"version":{version},"epoch":{epoch},"state":"{state.text}"}}'
            for exchange, version, epoch, state in self._sources
        )
        return (
            f'{{"type":"orderbook_snapshot","data":{{{self._names()}'
            f',"version":{self._version},"reason":"{reason.text}"'
            f'{messages.encode_times(self._times)},"epoch":{self._pool.shared.epoch}'
            f',"source":{quote(self._source)},"sources":{{{",".join(sources)}}}'
        )

    def _level_texts(self, side: BookSide) -> Iterable[str]:
        scale = self._scale
        for price, sizes in self._known(side).items():
            total = format_decimal(sum(sizes.values()), scale.size)
            yield f"[{format_decimal(price, scale.price)},{total},{self._who(sizes)}]"

    def _known(self, side: BookSide) -> dict[int, Quoted]:
        """The levels of a side that subscribers know, best first."""
        if self.look.depth != FULL:
            return self._shown[side - 1]
        levels = self._pool.levels(side, FULL, self._scale)
        changed = {price: who for (which, price), who in self._before.items() if which == side}
        if not changed:
            return levels
        levels.update(changed)
        return {
            price: levels[price]
            for price in sorted(levels, reverse=side is BookSide.BID)
            if levels[price]
        }

    def _who(self, sizes: Quoted) -> str:
        members = (
            f"{quote(exchange)}:{format_decimal(size, self._scale.size)}"
            for exchange, size in sorted(sizes.items())
        )
        return f"{{{','.join(members)}}}"

    def _names(self) -> str:
        return f'"exchange":"{ALL}","symbol":{quote(self._pool.symbol)}'
