"""The client library: a stream server's, or a local ring's, events and books.

`StreamClient` within asyncio, `BlockingStreamClient` in scripts, `LocalClient` on the machine where
the collectors run. All give the same events and keep the same books.
"""

from alphapulse.client.books import Books, LocalBook, PriceLevel
from alphapulse.client.consolidated import ConsolidatedBook
from alphapulse.client.events import (
    OVERALL,
    ArbitrageUpdate,
    Bbo,
    ConsolidatedChange,
    ConsolidatedDelta,
    ConsolidatedLevel,
    ConsolidatedSnapshot,
    Disconnected,
    Quote,
    Reconnected,
    Source,
    StreamEvent,
)
from alphapulse.client.stream import StreamClient

__all__ = [
    "OVERALL",
    "ArbitrageUpdate",
    "Bbo",
    "Books",
    "ConsolidatedBook",
    "ConsolidatedChange",
    "ConsolidatedDelta",
    "ConsolidatedLevel",
    "ConsolidatedSnapshot",
    "Disconnected",
    "LocalBook",
    "PriceLevel",
    "Quote",
    "Reconnected",
    "Source",
    "StreamClient",
    "StreamEvent",
]
