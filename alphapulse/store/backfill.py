"""Gaps in the history are filled with what the venues' REST services still have, and marked.

It runs beside the writer, a task a venue, newest gaps first. What is missing is found by the ids
of the trades around it (`alphapulse.store.holes`), fetched page by page under a small share of the
venue's REST budget, and written as it comes; the last batch says what has become of the gap.
Nothing else is kept: a gap that isn't settled when this ends is begun anew the next time, and the
store leaves out the trades that it has.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence

from alphapulse.backoff import Backoff
from alphapulse.clock import NO_TIME, NS_PER_SECOND, wall_ns
from alphapulse.collectors.allowance import Allowance
from alphapulse.collectors.events import TradeEvent
from alphapulse.collectors.listing import Ids, Listing
from alphapulse.collectors.registry import make_venue
from alphapulse.collectors.rest import RestClient
from alphapulse.collectors.venue import TradeSpan
from alphapulse.config import Settings
from alphapulse.errors import (
    PrecisionError,
    RateLimited,
    RingError,
    StoreError,
    VenueError,
)
from alphapulse.fixed import INT64_MAX, MAX_EXPONENT, parse_decimal
from alphapulse.history import FillStatus, GapFill, GapRow, TradeRow
from alphapulse.log import get_logger
from alphapulse.model import Channel, Instrument
from alphapulse.shm import RingReader
from alphapulse.store.holes import Hole, begin_ns, find_hole, tells_ids
from alphapulse.store.pen import Pen
from alphapulse.store.repository import Store, WriteBatch

REST_SHARE = 0.25
"""Part of the REST budget that is used besides the collector, which shares the address."""
SCAN_SECONDS = 1.0
"""Least time between two looks at the store's gaps."""
SCAN_SHARE = 0.02
"""Most of the time that is spent on such looks."""
QUIET_NS = 30 * NS_PER_SECOND
"""How long a trade behind a gap is waited for; then the venue is asked what there is by now."""
REACH = 1000
"""Ids between two missing ranges up to which they are asked for together."""
MOST_PAGES = 1000
"""Pages that are read for one missing range."""
MOST_FILLS = 1000
"""Fates of gaps written at once."""
CANCEL_SECONDS = 0.5
"""How often what is under way is told to end."""
MOST_INCOMPLETE = 6
"""Listings without all that is missing, after which the rest counts as lost."""
MOST_FAILURES = 5
"""Failed attempts after which a gap older than `OLD_NS` is given up."""
OLD_NS = 24 * 3600 * NS_PER_SECOND
BACKOFF_FIRST_SECONDS = 1.0
BACKOFF_MAX_SECONDS = 300.0

log = get_logger(__name__)


async def run_backfill(settings: Settings, store: Store, stop: asyncio.Event) -> None:
    """Fill the gaps that a store holds, of all enabled venues, until told to stop.

    Parameters
    ----------
    settings : sections ``ring``, ``store`` and ``venues`` are used
    store : where gaps are, and trades go
    stop : ends this when set, whatever is under way
    """
    names = settings.venues.enabled() if settings.store.backfill else {}
    tasks = [asyncio.create_task(_Filler(name, settings, store).run()) for name in names]
    stopped = asyncio.ensure_future(stop.wait())
    try:
        done, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopped}:
            task.result()
    finally:
        pending = {stopped, *tasks}
        while pending:
            # More than once: a library may swallow a cancellation that comes with an answer.
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=CANCEL_SECONDS)


class _Work:
    """What was tried for a gap."""

    def __init__(self) -> None:
        self.due = 0.0
        """Time of the next attempt, in seconds of the monotonic clock."""
        self.incomplete = 0
        self.failures = 0
        self.filled: dict[str, int] = {}
        """Trades written for the symbols of which nothing is missing any more."""
        self._backoff = _backoff()

    def again(self) -> None:
        """Try again after a while."""
        self.due = time.monotonic() + self._backoff.failed()

    def is_exhausted(self, gap: GapRow) -> bool:
        """Whether what is still missing counts as lost."""
        if self.incomplete >= MOST_INCOMPLETE:
            return True
        return self.failures >= MOST_FAILURES and wall_ns() - gap.received_ns > OLD_NS


class _Filler:
    """Fills the gaps of one venue.

    Parameters
    ----------
    name : the venue
    settings, store : as for `run_backfill`
    """

    def __init__(self, name: str, settings: Settings, store: Store) -> None:
        self._name = name
        self._prefix = settings.ring.prefix
        self._store = store
        self._venue = make_venue(name, settings.venues)
        venue = self._venue.settings
        self._client = RestClient(
            name,
            venue.rest_url,
            Allowance(self._venue.limits.rest_weight, venue.rate_share * REST_SHARE),
            timeout_seconds=venue.rest_timeout_seconds,
            max_body_bytes=venue.max_message_bytes,
        )
        self._works: dict[str, _Work] = {}

    async def run(self) -> None:
        """Fill what is open or comes to be, until cancelled."""
        backoff = _backoff()
        async with self._client:
            while True:
                pause = 0.0
                try:
                    began = time.monotonic()
                    gaps = await self._open_gaps()
                    pause = (time.monotonic() - began) / SCAN_SHARE
                    await self._fill_all(gaps)
                    backoff = _backoff()
                except RateLimited:
                    # Logged by the client, which waits for as long as the venue wants.
                    log.debug("gaps have to wait", exchange=self._name)
                except (StoreError, VenueError) as error:
                    pause = backoff.failed()
                    log.warning(
                        "gaps are not being filled", exchange=self._name, problem=str(error)
                    )
                await asyncio.sleep(max(SCAN_SECONDS, pause))

    async def _open_gaps(self) -> list[GapRow]:
        """Newest first: what most readers want, and what a venue most likely still has."""
        gaps = await self._store.read_gaps(self._name)
        found = [gap for gap in gaps if gap.status is FillStatus.OPEN]
        self._works = {gap.id: self._works.get(gap.id) or _Work() for gap in found}
        return sorted(found, key=lambda gap: gap.received_ns, reverse=True)

    async def _fill_all(self, gaps: Sequence[GapRow]) -> None:
        """Try the gaps that are due.

        Raises
        ------
        StoreError, VenueError
            what ended this round; the venue's goes with a pause for the gap that it came with
        """
        hopeless = [gap for gap in gaps if not self._can_be_filled(gap)]
        for begin in range(0, len(hopeless), MOST_FILLS):
            await self._give_up(hopeless[begin : begin + MOST_FILLS])
        instruments: dict[str, Instrument] = {}
        for gap in gaps:
            work = self._works[gap.id]
            if not self._can_be_filled(gap) or work.due > time.monotonic():
                continue
            instruments = instruments or self._instruments()
            if not instruments:
                return
            try:
                await self._fill(gap, work, instruments)
            except RateLimited:
                raise
            except VenueError:
                work.failures += 1
                work.again()
                raise

    def _can_be_filled(self, gap: GapRow) -> bool:
        if gap.channel is Channel.ORDERBOOK or not self._venue.trades:
            return False
        return tells_ids(gap) or begin_ns(gap) is not None

    async def _give_up(self, gaps: Sequence[GapRow]) -> None:
        """Mark gaps of what has no history."""
        now_ns = wall_ns()
        fills = [
            GapFill(id=gap.id, status=FillStatus.UNAVAILABLE, filled_ns=now_ns, filled=0)
            for gap in gaps
        ]
        await self._store.append(WriteBatch(exchange=self._name, fills=fills))

    def _instruments(self) -> dict[str, Instrument]:
        """The ring's instruments by symbol, none where there is no ring."""
        try:
            with RingReader(self._name, prefix=self._prefix) as reader:
                return {one.symbol: one for one in reader.instruments.values()}
        except (RingError, PermissionError) as error:
            log.debug("no instruments as yet", exchange=self._name, problem=str(error))
            return {}

    async def _symbols(self, gap: GapRow, instruments: Mapping[str, Instrument]) -> list[str]:
        """Whose trades may be missing: of a ring's records, those of all that is collected."""
        if gap.symbol is not None:
            return [gap.symbol]
        collected = set(self._venue.settings.symbols)
        known = await self._store.summarise()
        stored = {series.symbol for series in known if series.exchange == self._name}
        return sorted(instruments.keys() | (collected & stored))

    async def _fill(self, gap: GapRow, work: _Work, instruments: Mapping[str, Instrument]) -> None:
        """Fill a gap as far as possible now, and mark it if nothing more is to be done."""
        waiting = False
        lacking: dict[str, int] = {}
        for symbol in await self._symbols(gap, instruments):
            if symbol in work.filled:
                continue
            hole = await find_hole(self._store, gap, symbol, self._venue.trade_ids)
            behind = hole.closed or tells_ids(gap)
            if not behind and wall_ns() - gap.received_ns < QUIET_NS:
                waiting = True
                continue
            try:
                whole = await self._fill_hole(hole, symbol, instruments.get(symbol))
            except VenueError as error:
                if isinstance(error, RateLimited) or not work.is_exhausted(gap):
                    raise
                whole = False
            (work.filled if whole else lacking)[symbol] = hole.filled
        if lacking:
            work.incomplete += 1
            if waiting or not work.is_exhausted(gap):
                work.again()
                return
        if not waiting:
            await self._mark(gap, sum([*work.filled.values(), *lacking.values()]), not lacking)

    async def _mark(self, gap: GapRow, filled: int, whole: bool) -> None:
        """Write down what has become of a gap."""
        some = FillStatus.PARTIAL if filled else FillStatus.UNAVAILABLE
        status = FillStatus.FILLED if whole else some
        # Behind the trades, not with them: how many were new is known once they are written.
        fill = GapFill(id=gap.id, status=status, filled_ns=wall_ns(), filled=filled)
        await self._store.append(WriteBatch(exchange=self._name, fills=[fill]))
        log.info(
            "a gap was dealt with",
            exchange=self._name,
            symbol=gap.symbol,
            channel=gap.channel.text,
            status=status.value,
            trades=filled,
        )

    async def _fill_hole(self, hole: Hole, symbol: str, instrument: Instrument | None) -> bool:
        """Write what the venue has of the missing trades; whether none is missing any more."""
        whole = True
        pen = Pen(self._store, self._name, symbol)
        try:
            for span in _spans(hole):
                if instrument is None:
                    return False
                listing = Listing(self._venue, self._client, instrument, span, MOST_PAGES)
                async for trades in listing.pages():
                    for trade, ids in trades:
                        await self._fill_in(hole, trade, ids, instrument, pen)
                whole = whole and listing.is_whole(hole.missing.within)
        except VenueError:
            await self._put_down(pen, hole)
            raise
        await self._put_down(pen, hole)
        return whole and not pen.refused

    async def _put_down(self, pen: Pen, hole: Hole) -> None:
        await pen.flush()
        hole.filled += pen.new

    async def _fill_in(
        self, hole: Hole, trade: TradeEvent, ids: Ids, instrument: Instrument, pen: Pen
    ) -> None:
        """Write a listed trade if all that it stands for is missing."""
        try:
            row = _row(trade, instrument)
        except ValueError as error:
            log.warning("a trade can't be stored", exchange=self._name, problem=str(error))
            return
        if hole.missing.remove(*ids) and hole.is_new(row):
            await pen.write(row)


def _spans(hole: Hole) -> Iterator[TradeSpan]:
    """What to ask the venue for."""
    for first, last in hole.missing.groups(REACH):
        unbounded = first == 0 and hole.after_id is None
        yield TradeSpan(
            after_id=None if unbounded else first - 1,
            before_id=None if last == INT64_MAX else last + 1,
            since_ns=hole.since_of(first),
            until_ns=hole.until_ns,
            id_kind=hole.kind,
            aggregated=hole.aggregated,
        )


def _row(trade: TradeEvent, instrument: Instrument) -> TradeRow:
    """Row of a listed trade. Raises ``ValueError`` for one that can't be."""
    price, price_exponent = _scaled(trade.price, instrument.price_exponent)
    size, size_exponent = _scaled(trade.size, instrument.size_exponent)
    if trade.exchange_ns == NO_TIME or trade.trade_id < 0:
        raise ValueError(f"trade {trade.trade_id} has no time, or a negative id")
    return TradeRow(
        exchange=instrument.exchange,
        symbol=instrument.symbol,
        trade_id=str(trade.trade_id),
        id_kind=trade.id_kind,
        timestamp_ns=trade.exchange_ns,
        price=price,
        price_exponent=price_exponent,
        size=size,
        size_exponent=size_exponent,
        side=trade.side,
        matches=trade.matches,
        filled=True,
    )


def _scaled(text: str, exponent: int) -> tuple[int, int]:
    """A positive number as integer and exponent, the instrument's if that is enough."""
    try:
        value = parse_decimal(text, exponent)
    except PrecisionError as error:
        if error.needed > MAX_EXPONENT:
            raise
        exponent = error.needed
        value = parse_decimal(text, exponent)
    if value <= 0:
        raise ValueError(f"{text!r} is neither a price nor a size")
    return value, exponent


def _backoff() -> Backoff:
    return Backoff(BACKOFF_FIRST_SECONDS, BACKOFF_MAX_SECONDS, 0.0)
