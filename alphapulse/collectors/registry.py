"""The venues that a collector can follow: an explicit list, checked when the package starts."""

from __future__ import annotations

from alphapulse.collectors.binance_us import BinanceUs
from alphapulse.collectors.coinbase import Coinbase
from alphapulse.collectors.kraken import Kraken
from alphapulse.collectors.venue import Venue
from alphapulse.config import VenueSettings
from alphapulse.errors import ConfigError

VENUES: dict[str, type[Venue]] = {venue.name: venue for venue in (Coinbase, Kraken, BinanceUs)}


def make_venue(name: str, settings: VenueSettings) -> Venue:
    """The venue of that name.

    Raises
    ------
    ConfigError
        there is none, or its settings contradict its protocol
    """
    if name not in VENUES:
        raise ConfigError(f"venues.{name}", f"no such venue; known are {', '.join(VENUES)}")
    return VENUES[name](settings)
