"""The venues that a collector can follow: an explicit list, checked when the package starts."""

from __future__ import annotations

from alphapulse.collectors.binance_us import BinanceUs
from alphapulse.collectors.coinbase import Coinbase
from alphapulse.collectors.kraken import Kraken
from alphapulse.collectors.venue import Venue
from alphapulse.config import VenuesSettings
from alphapulse.errors import ConfigError

VENUES: tuple[str, ...] = (Coinbase.name, Kraken.name, BinanceUs.name)


def make_venue(name: str, settings: VenuesSettings) -> Venue:
    """The venue of that name.

    Raises
    ------
    ConfigError
        there is none, or its settings contradict its protocol
    """
    if name == Coinbase.name:
        return Coinbase(settings.coinbase)
    if name == Kraken.name:
        return Kraken(settings.kraken)
    if name == BinanceUs.name:
        return BinanceUs(settings.binance_us)
    raise ConfigError(f"venues.{name}", f"no such venue; known are {', '.join(VENUES)}")
