"""The client library: a stream server's, or a local ring's, events and books.

`StreamClient` within asyncio, `BlockingStreamClient` in scripts, `LocalClient` on the machine where
the collectors run. All give the same events and keep the same books.
"""

from alphapulse.client.blocking import BlockingLocalClient, BlockingStreamClient, connect
from alphapulse.client.books import Books, LocalBook, PriceLevel
from alphapulse.client.collected import Collected, Table
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
from alphapulse.client.local import LocalClient, open_local
from alphapulse.client.stream import StreamClient

__all__ = [
    "OVERALL",
    "ArbitrageUpdate",
    "Bbo",
    "BlockingLocalClient",
    "BlockingStreamClient",
    "Books",
    "Collected",
    "ConsolidatedBook",
    "ConsolidatedChange",
    "ConsolidatedDelta",
    "ConsolidatedLevel",
    "ConsolidatedSnapshot",
    "Disconnected",
    "LocalBook",
    "LocalClient",
    "PriceLevel",
    "Quote",
    "Reconnected",
    "Source",
    "StreamClient",
    "StreamEvent",
    "Table",
    "connect",
    "open_local",
]
