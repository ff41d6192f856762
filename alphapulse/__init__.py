"""Exact order books and trades from crypto exchanges, in one format.

Programs on the same machine read the shared-memory rings (`alphapulse.shm.RingReader`); what they
get are the records of `alphapulse.model`, exported here, with prices and sizes as scaled integers
(`alphapulse.fixed`). History is read through a `MarketDataRepository`, which `open_repository`
opens wherever it is. Every exception raised on purpose is an `AlphaPulseError`.
"""

from alphapulse.errors import AlphaPulseError
from alphapulse.model import (
    Action,
    BookDelta,
    BookSide,
    BookSnapshot,
    BookState,
    Change,
    Channel,
    Event,
    Gap,
    Heartbeat,
    IdKind,
    Instrument,
    InstrumentDefined,
    Level,
    Overrun,
    Reason,
    Side,
    StateChange,
    Trade,
)
from alphapulse.opening import open_repository
from alphapulse.repository import MarketDataRepository

__version__ = "0.1.0"

__all__ = [
    "Action",
    "AlphaPulseError",
    "BookDelta",
    "BookSide",
    "BookSnapshot",
    "BookState",
    "Change",
    "Channel",
    "Event",
    "Gap",
    "Heartbeat",
    "IdKind",
    "Instrument",
    "InstrumentDefined",
    "Level",
    "MarketDataRepository",
    "Overrun",
    "Reason",
    "Side",
    "StateChange",
    "Trade",
    "__version__",
    "open_repository",
]
