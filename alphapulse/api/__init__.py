"""REST over the history and the live books, health, and metrics."""

from alphapulse.api.app import create_app
from alphapulse.api.market import LiveMarkets
from alphapulse.api.server import run_api

__all__ = ["LiveMarkets", "create_app", "run_api"]
