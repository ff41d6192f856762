"""Trades of one symbol: each once, in the venue's order, and every loss reported with its size."""

from __future__ import annotations

from alphapulse.clock import NO_TIME
from alphapulse.collectors.events import TradeEvent, TradeMark
from alphapulse.collectors.publisher import Publisher
from alphapulse.delta import LARGEST_JUMP, BookTracker, TradeState
from alphapulse.errors import PrecisionError, RangeError
from alphapulse.fixed import INT64_MAX, parse_decimal
from alphapulse.model import Channel, Instrument, Reason

NO_ID = UNDECIDED = -1

MOST_MISSING_RANGES = 64
"""Reported losses remembered, so that a trade that comes late after all is told from a repeat."""


class TradeLog(TradeState):
    """Checks the ids of one symbol's trades and publishes each trade once.

    What the native path needs as well, and changes, is in `TradeState`.

    Parameters
    ----------
    tracker : the symbol's book, for its instrument
    publisher : where trades and gaps go
    """

    def __init__(self, tracker: BookTracker, publisher: Publisher) -> None:
        super().__init__(tracker)
        self._tracker = tracker
        self._publisher = publisher
        self._missing: list[tuple[int, int]] = []

    @property
    def instrument(self) -> Instrument:
        return self._tracker.instrument

    def reconnected(self) -> None:
        """The connection is a new one: what is missing now was lost in between."""
        self.resumed = self.last_id != NO_ID
        self.bridged = not self.resumed
        self.promised_id = NO_ID

    def broken(self, received_ns: int) -> None:
        """Messages of the connection are lost; how many trades were in them nobody can tell."""
        self._publisher.gap(
            self.instrument, Channel.TRADES, Reason.GAP, received_ns, since_ns=self.last_ns
        )

    def trade(self, event: TradeEvent, received_ns: int) -> None:
        """Publish a trade unless it was published before; report those missing before it.

        Raises
        ------
        FixedPointError
            price or size can't be held at the instrument's exponents, or aren't positive
        """
        if self.kind == UNDECIDED:
            self.kind = event.id_kind
        elif event.id_kind != self.kind:
            # Single and aggregated trades tell of the same matches: the kind seen first counts.
            return
        price, size = self._scaled(event)
        if event.recent and not self.resumed:
            # Made before we listened: they only tell where we begin.
            self.last_id = max(event.trade_id, self.last_id)
            self.last_ns = received_ns
            return
        if self.last_id != NO_ID and event.trade_id > self.last_id:
            if event.trade_id > self.last_id + 1 and (event.contiguous or not self.bridged):
                self._lost(event.trade_id - 1, received_ns, countable=event.contiguous)
            self.last_id = event.trade_id
        elif self.last_id == NO_ID or self._began_anew(event):
            if self.last_id != NO_ID:
                self.broken(received_ns)
            self.last_id = event.trade_id
        elif not self._was_missing(event.trade_id):
            self.bridged = True
            return
        self.last_ns = received_ns
        self.last_exchange_ns = max(self.last_exchange_ns, event.exchange_ns)
        self.resumed = self.resumed and event.recent
        self.bridged = True
        self.published += 1
        self._publisher.trade(
            self.instrument,
            price=price,
            size=size,
            side=event.side,
            trade_id=event.trade_id,
            id_kind=event.id_kind,
            matches=event.matches,
            exchange_ns=event.exchange_ns,
            received_ns=received_ns,
        )

    def _began_anew(self, event: TradeEvent) -> bool:
        """Whether the venue counts from a lower id again: a later trade with an earlier id."""
        return (
            event.trade_id < self.last_id
            and not event.recent
            and event.exchange_ns > self.last_exchange_ns > NO_TIME
            and not any(first <= event.trade_id <= last for first, last in self._missing)
        )

    def _scaled(self, event: TradeEvent) -> tuple[int, int]:
        price = _parse(event.price, self.instrument.price_exponent, "price")
        size = _parse(event.size, self.instrument.size_exponent, "size")
        if price <= 0:
            raise RangeError(event.price, "is no price of a trade")
        if size <= 0:
            raise RangeError(event.size, "is no size of a trade")
        self._check_id(event.trade_id)
        return price, size

    def _check_id(self, trade_id: int) -> None:
        if not 0 <= trade_id <= INT64_MAX:
            raise RangeError(str(trade_id), "is no trade id")
        # One wrong id far ahead would make repeats of all that follow.
        if self.last_id != NO_ID and trade_id > self.last_id + LARGEST_JUMP:
            raise RangeError(str(trade_id), f"can't be a trade id soon after {self.last_id}")

    def mark(self, mark: TradeMark, received_ns: int) -> None:
        """Compare with the id of the last trade as the venue tells it.

        A heartbeat may overtake its trade, so its id counts as missing only when the next
        heartbeat comes and the trade hasn't.
        """
        self._check_id(mark.last_trade_id)
        if self.last_id == NO_ID:
            # Unless settled, the trade itself may still come: it begins the sequence then.
            if mark.settled:
                self.last_id, self.last_ns = mark.last_trade_id, received_ns
            return
        due = mark.last_trade_id if mark.settled else self.promised_id
        self.promised_id = NO_ID if mark.settled else mark.last_trade_id
        if due > self.last_id:
            self._lost(due, received_ns, countable=True)
            self.last_id = due
            self.last_ns = received_ns
        if mark.settled:
            self.resumed = False

    def _lost(self, last: int, received_ns: int, *, countable: bool) -> None:
        first = self.last_id + 1
        self._missing.append((first, last))
        del self._missing[:-MOST_MISSING_RANGES]
        self._publisher.gap(
            self.instrument,
            Channel.TRADES,
            Reason.RECONNECTED if self.resumed else Reason.GAP,
            received_ns,
            first=first,
            last=last,
            count=last - first + 1 if countable else None,
            since_ns=self.last_ns,
        )

    def _was_missing(self, trade_id: int) -> bool:
        """Whether a late trade was reported missing; from now on it isn't."""
        for index, (first, last) in enumerate(self._missing):
            if first <= trade_id <= last:
                rest = [(first, trade_id - 1), (trade_id + 1, last)]
                self._missing[index : index + 1] = [part for part in rest if part[0] <= part[1]]
                self._publisher.counts.late_trades += 1
                return True
        return False


def _parse(text: str, exponent: int, field: str) -> int:
    try:
        return parse_decimal(text, exponent)
    except PrecisionError as error:
        raise PrecisionError(error.value, error.needed, error.allowed, field) from None
