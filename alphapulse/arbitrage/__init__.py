"""Crossings between venues after fees: a pure engine, told of books and asked what there is.

`Engine` does no input or output and knows no clock; whoever has books (a reader of rings, the
REST server, the stream) tells it of their changes. What it computes is said in docs/arbitrage.md.
"""

from alphapulse.arbitrage.books import Levels, Quote, Venue
from alphapulse.arbitrage.engine import Engine, Nearest
from alphapulse.arbitrage.opportunity import (
    Event,
    Opportunity,
    Status,
    encode_event,
    encode_opportunity,
)
from alphapulse.arbitrage.terms import Terms

__all__ = [
    "Engine",
    "Event",
    "Levels",
    "Nearest",
    "Opportunity",
    "Quote",
    "Status",
    "Terms",
    "Venue",
    "encode_event",
    "encode_opportunity",
]
