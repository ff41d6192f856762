"""What a trade costs at each venue and what counts as an opportunity, as integers of one scale."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from alphapulse.config import ArbitrageSettings
from alphapulse.fixed import decimal_places, parse_decimal

BPS_PLACES = 4
"""A basis point is 10**-4 of an amount."""


class Terms:
    """Fees and limits.

    Parameters
    ----------
    fees_bps : taker's fee of each venue, in basis points of the amount; venues without one aren't
        considered
    min_bps : least profit after fees, in basis points of the purchase, of each part of a trade
    max_age_ns : oldest sign of life of a venue, in nanoseconds
    max_skew_ns : most that one book's latest change may have come later than the other's, each
        compared with its venue's quickest, in nanoseconds
    depth : levels a side that are looked at
    """

    def __init__(
        self,
        fees_bps: Mapping[str, Decimal],
        *,
        min_bps: Decimal = Decimal(0),
        max_age_ns: int = 3_000_000_000,
        max_skew_ns: int = 500_000_000,
        depth: int = 50,
    ) -> None:
        places = max(decimal_places(str(bps)) for bps in (min_bps, *fees_bps.values()))
        self.fees_bps = dict(fees_bps)
        self.min_bps = min_bps
        self.max_age_ns = max_age_ns
        self.max_skew_ns = max_skew_ns
        self.depth = depth
        self.exponent = places + BPS_PLACES
        self.unit: int = 10**self.exponent
        """What the factors below are multiples of."""
        self.margin = 0 if min_bps else 1
        """No profit at all is none, so that without `min_bps` a crossing must exceed the costs."""
        self._least = _scaled(min_bps, places)
        self._fees = {exchange: _scaled(bps, places) for exchange, bps in fees_bps.items()}

    @classmethod
    def from_settings(
        cls, settings: ArbitrageSettings, fees_bps: Mapping[str, Decimal] | None = None
    ) -> Terms:
        """The terms of the settings; `fees_bps` replaces or adds some venues' fees."""
        return cls(
            {**msgspec.structs.asdict(settings.fees_bps), **(fees_bps or {})},
            min_bps=settings.min_bps,
            max_age_ns=round(settings.max_age_seconds * 1e9),
            max_skew_ns=round(settings.max_skew_ms * 1e6),
            depth=settings.depth,
        )

    def at_least(self, min_bps: Decimal) -> Terms:
        """The same with another least profit."""
        return Terms(
            self.fees_bps,
            min_bps=min_bps,
            max_age_ns=self.max_age_ns,
            max_skew_ns=self.max_skew_ns,
            depth=self.depth,
        )

    def knows(self, exchange: str) -> bool:
        """Whether the venue's fee is known."""
        return exchange in self._fees

    def pays(self, exchange: str) -> int:
        """What a buyer pays for one unit's worth at the venue, its fee included."""
        return self.unit + self._fees[exchange]

    def gets(self, exchange: str) -> int:
        """What a seller gets for one unit's worth at the venue, its fee taken off."""
        return self.unit - self._fees[exchange]

    def needs(self, exchange: str) -> int:
        """What a seller has to get for one unit's worth bought at the venue to make it count."""
        return self.pays(exchange) + self._least


def _scaled(bps: Decimal, places: int) -> int:
    return parse_decimal(str(bps), places)
