"""Settings: a TOML file, overridden by the environment, with unknown keys refused by name.

`load` gives the frozen `Settings`; `describe` says for each of them where its value comes from. All
keys are listed in docs/configuration.md.
"""

from alphapulse.config.loading import SHORT_VARIABLES, Described, describe, load, setting_keys
from alphapulse.config.sections import (
    ApiSettings,
    ArbitrageSettings,
    BinanceUsSettings,
    CoinbaseSettings,
    FeesSettings,
    KrakenSettings,
    LogSettings,
    MetricsSettings,
    RingSettings,
    ServerSettings,
    Settings,
    StoreSettings,
    StreamSettings,
    VenueSettings,
    VenuesSettings,
)
from alphapulse.config.servers import is_loopback, refuse_exposure
from alphapulse.config.values import BASIS_POINT_PLACES, MAX_BASIS_POINTS

__all__ = [
    "BASIS_POINT_PLACES",
    "MAX_BASIS_POINTS",
    "SHORT_VARIABLES",
    "ApiSettings",
    "ArbitrageSettings",
    "BinanceUsSettings",
    "CoinbaseSettings",
    "Described",
    "FeesSettings",
    "KrakenSettings",
    "LogSettings",
    "MetricsSettings",
    "RingSettings",
    "ServerSettings",
    "Settings",
    "StoreSettings",
    "StreamSettings",
    "VenueSettings",
    "VenuesSettings",
    "describe",
    "is_loopback",
    "load",
    "refuse_exposure",
    "setting_keys",
]
