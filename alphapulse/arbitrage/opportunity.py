"""An opportunity as it is told: exact decimals, and the two books that it is from."""

from __future__ import annotations

from decimal import Decimal
from enum import Enum

import msgspec

from alphapulse.fixed import format_decimal

BPS_DIGITS = 4
"""Decimal places of basis points that are told; they are quotients and may have no end."""
AVERAGE_DIGITS = 4
"""Decimal places of average prices beyond the books' own."""


class Status(Enum):
    """What has become of an opportunity."""

    OPENED = "opened"
    CHANGED = "changed"
    CLOSED = "closed"


class Opportunity(msgspec.Struct, frozen=True, kw_only=True):
    """Buying at one venue and selling at another at a profit, as of `at_ns`.

    Volumes, amounts, fees and profits are exact. Averages and basis points are quotients, rounded
    half to even. Times are nanoseconds since the epoch, None where unknown.
    """

    symbol: str
    currency: str
    """Of prices, amounts, fees and profits: the symbol's quote currency."""
    buy_exchange: str
    sell_exchange: str
    volume: Decimal
    """What can be bought and sold at a profit, in the symbol's base currency."""
    complete: bool
    """False where the books were looked at no further: more volume may be profitable."""
    buy_price: Decimal
    """Average price of the volume."""
    sell_price: Decimal
    buy_best: Decimal
    """Best price."""
    sell_best: Decimal
    buy_limit: Decimal
    """Worst price of the volume: the limit of an order for all of it."""
    sell_limit: Decimal
    buy_amount: Decimal
    """Price times size of all that is bought, before the fee."""
    sell_amount: Decimal
    buy_fee_bps: Decimal
    sell_fee_bps: Decimal
    buy_fee: Decimal
    sell_fee: Decimal
    profit: Decimal
    """``sell_amount - sell_fee - buy_amount - buy_fee``."""
    gross_bps: Decimal
    """``(sell_amount - buy_amount) / buy_amount``."""
    net_bps: Decimal
    """``profit / buy_amount``."""
    best_profit: Decimal
    """The largest since it opened."""
    best_net_bps: Decimal
    opened_ns: int
    at_ns: int
    buy_version: int
    """Of the book."""
    sell_version: int
    buy_timestamp_ns: int | None
    """The venue's time of the book's latest change."""
    sell_timestamp_ns: int | None
    buy_received_ns: int
    """Our time of it."""
    sell_received_ns: int
    buy_skew_ns: int | None
    """The venue's quickest way to us, with the difference of the clocks in it."""
    sell_skew_ns: int | None
    buy_lag_ns: int | None
    """How much longer than that the book's latest change took."""
    sell_lag_ns: int | None

    @property
    def duration_ns(self) -> int:
        """How long it has lasted."""
        return self.at_ns - self.opened_ns

    @property
    def buy_age_ns(self) -> int:
        """Time since the book of the purchase changed; a quiet book is no stale one."""
        return self.at_ns - self.buy_received_ns

    @property
    def sell_age_ns(self) -> int:
        """Time since the book of the sale changed."""
        return self.at_ns - self.sell_received_ns


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An opportunity has opened, changed or closed."""

    status: Status
    reason: str | None = None
    """Why it closed: ``uncrossed``, ``not_live`` (a book), ``stale`` (a venue) or ``late``."""
    opportunity: Opportunity
    """As it is now; one that has closed, as it was last, at the time of its end."""


def exact(value: int, exponent: int) -> Decimal:
    """A scaled integer, without trailing zeros."""
    return Decimal(format_decimal(value, exponent))


def quotient(numerator: int, denominator: int, places: int) -> Decimal:
    """A quotient rounded half to even.

    Parameters
    ----------
    denominator : above 0
    places : decimal places of the result
    """
    whole, rest = divmod(numerator * 10**places, denominator)
    if 2 * rest > denominator or (2 * rest == denominator and whole % 2):
        whole += 1
    return exact(whole, places)


_MILLISECONDS = (
    *("duration_ns", "buy_age_ns", "sell_age_ns"),
    *("buy_skew_ns", "sell_skew_ns", "buy_lag_ns", "sell_lag_ns"),
)


def encode_opportunity(
    opportunity: Opportunity, status: Status | None = None, reason: str | None = None
) -> str:
    """A JSON object; numbers have exact digits, spans are in milliseconds.

    Parameters
    ----------
    status, reason : of an event; left out without a status
    """
    fields = {name: getattr(opportunity, name) for name in opportunity.__struct_fields__}
    fields |= {name: getattr(opportunity, name) for name in _MILLISECONDS}
    texts = [f'"{_shown(name)}":{_value(name, value)}' for name, value in fields.items()]
    if status is not None:
        texts.append(f'"status":"{status.value}","reason":{_text(reason)}')
    return f"{{{','.join(texts)}}}"


def encode_event(event: Event) -> str:
    """A JSON object, as the stream and ``alphapulse arbitrage --json`` tell it."""
    data = encode_opportunity(event.opportunity, event.status, event.reason)
    return f'{{"type":"arbitrage","data":{data}}}'


def _shown(name: str) -> str:
    return name.removesuffix("_ns") + "_ms" if name in _MILLISECONDS else name


def _value(name: str, value: object) -> str:
    if name in _MILLISECONDS and isinstance(value, int):
        return format_decimal(value, 6)
    if isinstance(value, Decimal):
        return f"{value:f}"
    return _text(value)


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
