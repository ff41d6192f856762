"""A seeded market: pairs whose prices the venues share, up to an offset that wanders.

`Market` holds what is common; `Market.venue` gives one venue's books and its endless sequence of
events. The sequence depends on the seed, the venue's name, the settings and the starting time
alone. The common price is a function of the seed and the absolute time, so venues that run in
processes of their own agree on it.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable
from itertools import accumulate
from math import log
from random import Random
from typing import NamedTuple
from zlib import crc32

from alphapulse.clock import NS_PER_SECOND, wall_ns
from alphapulse.simulators.book import ASK, BID, Change, Fill, VenueBook
from alphapulse.simulators.noise import Noise, mix
from alphapulse.simulators.specs import PairSpec, pair_specs

STEP_NS = 100_000_000
"""How long a price holds, in nanoseconds."""

FAST_EVENTS_PER_SECOND = 100_000
"""Events per second of market time where no rate is given; real time is then the machine's."""

_ONE_BP = 100_000
"""A basis point in the unit of the noises, which is 10**-9 of the price."""

MAX_CROSSED_LEVELS = 16
"""How many levels that the price ran over one event removes at most."""


class MarketEvent(NamedTuple):
    """One change of a book; with `fills`, the one that a taker's order made."""

    t_ns: int
    book: VenueBook
    changes: tuple[Change, ...]
    fills: tuple[Fill, ...]


class Market:
    """Settings and prices that all venues of a market share.

    Parameters
    ----------
    symbols : unified symbols, specs, or how many; the first are the liquid ones (Zipf)
    seed : everything else follows from it
    book_rate : book updates a second of each venue, all pairs together; 0 or None means as fast
        as the machine goes
    trade_rate : taker orders a second of each venue, all pairs together; without a book rate,
        orders per 100,000 events
    levels : levels a side of each book, about
    events : after how many events of a venue it ends; None for never
    start_ns : time at which it begins, nanoseconds since the epoch; now if None
    offset_bps : how far a venue's price wanders off the common one, about
    history : matches of each pair before the beginning
    memory : matches of each pair that REST remembers
    """

    def __init__(
        self,
        symbols: int | Iterable[str | PairSpec] = 3,
        *,
        seed: int = 1,
        book_rate: float | None = 50.0,
        trade_rate: float = 2.0,
        levels: int = 200,
        events: int | None = None,
        start_ns: int | None = None,
        offset_bps: float = 8.0,
        history: int = 60,
        memory: int = 20_000,
    ) -> None:
        if (book_rate or 0) < 0 or trade_rate < 0:
            raise ValueError("a market's rates can't be negative")
        if levels < 1 or history < 0 or memory < 1:
            raise ValueError("levels and memory must be 1 or more, history 0 or more")
        self.specs = pair_specs(symbols)
        self.seed = seed
        self.book_rate = book_rate or None
        self.trade_rate = trade_rate
        self.levels = levels
        self.events = events
        self.start_ns = wall_ns() if start_ns is None else start_ns
        self.offset_bps = offset_bps
        self.history = history
        self.memory = memory
        # 0.5 bp per sqrt(second), over periods from 0.8 s to a day.
        self._paths = [
            Noise(mix(seed, crc32(spec.symbol.encode())), 3, 20, _ONE_BP // 6)
            for spec in self.specs
        ]

    def price(self, index: int, t_ns: int) -> int:
        """Common price of the pair with that index at that time, in its ticks."""
        spec = self.specs[index]
        base = spec.price // spec.tick
        return base + base * self._paths[index].at(t_ns // STEP_NS) // NS_PER_SECOND

    def venue(self, name: str) -> VenueMarket:
        """Books and events of one venue."""
        return VenueMarket(self, name)


class _Pair:
    """What one venue knows about one pair beside its book."""

    def __init__(self, market: Market, index: int, key: int, book: VenueBook) -> None:
        self.index = index
        self.book = book
        spec = book.spec
        ticks = spec.price // spec.tick
        # Levels may reach half-way down to zero; near the price they lie up to 2 bps apart.
        self.spacing = max(1, min(ticks // 5_000, ticks // (2 * market.levels + 2)))
        amplitude = round(market.offset_bps * _ONE_BP) >> 5
        self.offset = Noise(mix(key, 1), 6, 10, amplitude) if amplitude else None
        self.spread = Noise(mix(key, 2), 5, 9, _ONE_BP >> 5)
        self.step = -1
        self.bid_limit = 0
        self.ask_limit = 0


class VenueMarket:
    """One venue's side of a market. Made by `Market.venue`."""

    def __init__(self, market: Market, name: str) -> None:
        self.market = market
        self.name = name
        self.paced = market.book_rate is not None
        self.left = market.events
        """Events until the end; None without one."""
        venue_key = mix(market.seed, crc32(name.encode()))
        self._random = Random(venue_key).random
        rate = (market.book_rate or FAST_EVENTS_PER_SECOND) + market.trade_rate
        self._mean_gap_ns = NS_PER_SECOND / rate
        self._trade_share = market.trade_rate / rate
        weights = list(accumulate(1 / (n + 1) for n in range(len(market.specs))))
        self._weights = [weight / weights[-1] for weight in weights]
        self._offset_unit = max(round(4 * market.offset_bps * _ONE_BP), 1)
        self._t_ns = market.start_ns
        self.next_ns = market.start_ns
        """When the next event is due."""
        self._pairs = [
            self._pair(index, spec, venue_key) for index, spec in enumerate(market.specs)
        ]
        self.books = [pair.book for pair in self._pairs]

    def step(self) -> MarketEvent:
        """Make the next event; the book has it already. `RuntimeError` after the end."""
        if self.left is not None:
            if self.left <= 0:
                raise RuntimeError("the market has ended")
            self.left -= 1
        random = self._random
        t_ns = self.next_ns
        self.next_ns = t_ns + int(-log(1.0 - random()) * self._mean_gap_ns)
        pair = self._pairs[bisect(self._weights, random(), 0, len(self._pairs) - 1)]
        if t_ns // STEP_NS != pair.step:
            self._set_limits(pair, t_ns)
        if random() < self._trade_share:
            return self._trade(pair, t_ns)
        return MarketEvent(t_ns, pair.book, self._move(pair), ())

    def _pair(self, index: int, spec: PairSpec, venue_key: int) -> _Pair:
        market = self.market
        key = mix(venue_key, crc32(spec.symbol.encode()))
        book = VenueBook(
            spec,
            first_trade_id=100_000 + key % 1_000_000_000,
            first_update_id=1_000_000 + (key >> 32),
            memory=market.memory,
        )
        pair = _Pair(market, index, key, book)
        self._set_limits(pair, self._t_ns)
        for side, price, sign in ((BID, pair.bid_limit, -1), (ASK, pair.ask_limit, 1)):
            levels = book.side(side)
            for _ in range(market.levels):
                levels.set(price, self._size(spec))
                price += sign * spec.tick * (1 + int(self._random() * (2 * pair.spacing - 1)))
        for number in range(market.history, 0, -1):
            buy = self._random() < 0.5
            book.fill(
                self._t_ns - number * NS_PER_SECOND // 4,
                book.asks.best() if buy else book.bids.best(),
                [self._size(spec)],
                buy,
            )
        return pair

    def _set_limits(self, pair: _Pair, t_ns: int) -> None:
        """The highest bid and the lowest ask that the venue's price allows."""
        pair.step = step = t_ns // STEP_NS
        spec = pair.book.spec
        middle = self.market.price(pair.index, t_ns)
        if pair.offset is not None:
            # Squared, with its sign: mostly near the common price, at times far off.
            off = pair.offset.at(step)
            middle += middle * (off * abs(off) // self._offset_unit) // NS_PER_SECOND
        half = 1 + middle * abs(pair.spread.at(step)) // NS_PER_SECOND
        pair.bid_limit = max(middle - half, 1) * spec.tick
        pair.ask_limit = (max(middle - half, 1) + 2 * half) * spec.tick

    def _size(self, spec: PairSpec) -> int:
        lots = int(spec.size * -log(1.0 - self._random())) // spec.lot
        return lots * spec.lot if lots else spec.lot

    def _move(self, pair: _Pair) -> tuple[Change, ...]:
        """Take away what the price ran over, or else change one or two levels at random."""
        book, random = pair.book, self._random
        changes: list[Change] = []
        bids, asks = book.bids, book.asks
        while bids.keys[-1] > pair.bid_limit and len(bids) > 1:
            changes.append(book.change(BID, bids.best(), 0))
            if len(changes) >= MAX_CROSSED_LEVELS:
                break
        while -asks.keys[-1] < pair.ask_limit and len(asks) > 1:
            if len(changes) >= MAX_CROSSED_LEVELS:
                break
            changes.append(book.change(ASK, asks.best(), 0))
        if not changes:
            changes.append(self._touch(pair, BID if random() < 0.5 else ASK))
            if random() < 0.2:
                changes.append(self._touch(pair, BID if random() < 0.5 else ASK))
        return tuple(changes)

    def _touch(self, pair: _Pair, side: int) -> Change:
        """Add, change or remove one level, mostly near the best."""
        book, random = pair.book, self._random
        levels = book.side(side)
        count = len(levels.keys)
        chance = random()
        deep = chance > 0.95
        if chance < 0.5 or deep or count > self.market.levels:
            rank = int(random() * count) if deep else int(-5.0 * log(1.0 - random()))
            price = levels.at(min(rank, count - 1))
            remove = count > 1 and count > self.market.levels - 3 and random() < 0.6
            return book.change(side, price, 0 if remove else self._size(book.spec))
        # Between the limit and the levels near the best: fills the hole after the price moved.
        other = book.side(1 - side).best()
        away = int(-4.0 * log(1.0 - random()) * pair.spacing) * book.spec.tick
        if side == BID:
            price = max(min(pair.bid_limit, other - book.spec.tick) - away, book.spec.tick)
        else:
            price = max(pair.ask_limit, other + book.spec.tick) + away
        return book.change(side, price, self._size(book.spec))

    def _trade(self, pair: _Pair, t_ns: int) -> MarketEvent:
        """A taker's order, matched against one to three makers at the best price."""
        book, random = pair.book, self._random
        buy = random() < 0.5
        side = ASK if buy else BID
        levels = book.side(side)
        price = levels.best()
        lot = book.spec.lot
        lots = levels.sizes[price] // lot
        all_of_it = len(levels) > 1 and (lots < 2 or random() < 0.2)
        taken = lots if all_of_it else max(1, int(lots * random() * 0.5))
        sizes: list[int] = []
        while taken > 1 and len(sizes) < 2 and random() < 0.25:
            part = 1 + int(random() * (taken - 1))
            sizes.append(part * lot)
            taken -= part
        sizes.append(taken * lot)
        fills = book.fill(t_ns, price, sizes, buy)
        left = max(levels.sizes[price] - sum(sizes), 0)
        if not left and len(levels) == 1:
            left = lot
        return MarketEvent(t_ns, book, (book.change(side, price, left),), fills)
