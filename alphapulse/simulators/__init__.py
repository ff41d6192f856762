"""The venues' side of each protocol: real servers fed by a capture or a generated market."""

from __future__ import annotations

from alphapulse.simulators.base import FinalBook, VenueSimulator
from alphapulse.simulators.binance_us import BinanceUsSimulator
from alphapulse.simulators.coinbase import CoinbaseSimulator
from alphapulse.simulators.coinbase_advanced import CoinbaseAdvancedSimulator
from alphapulse.simulators.faults import FAULTS, Faults
from alphapulse.simulators.kraken import KrakenSimulator
from alphapulse.simulators.market import Market
from alphapulse.simulators.runner import (
    SIMULATORS,
    Endpoints,
    SimulationSettings,
    run,
    start_simulators,
)
from alphapulse.simulators.source import CaptureSource
from alphapulse.simulators.specs import PairSpec

__all__ = [
    "FAULTS",
    "SIMULATORS",
    "BinanceUsSimulator",
    "CaptureSource",
    "CoinbaseAdvancedSimulator",
    "CoinbaseSimulator",
    "Endpoints",
    "Faults",
    "FinalBook",
    "KrakenSimulator",
    "Market",
    "PairSpec",
    "SimulationSettings",
    "VenueSimulator",
    "run",
    "start_simulators",
]
