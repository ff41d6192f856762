from alphapulse._core.tracker import TrackedBook

LARGEST_JUMP: int
"""Ids that may be missing between two trades; beyond that the id itself is wrong."""
MOST_MATCHES: int
"""Matches that an aggregated trade may stand for; beyond that an id itself is wrong."""

class TradeState:
    """What the native path knows of a symbol's trades; `collectors.trades.TradeLog` adds the rest.

    Parameters
    ----------
    tracked : the symbol's book, for its instrument and its encoder
    """

    kind: int
    """What the ids count that are followed (`alphapulse.model.IdKind`); -1: not known yet."""
    last_id: int
    """Of the last trade in the venue's order; -1: none yet."""
    last_ns: int
    """When that was received."""
    last_exchange_ns: int
    """The latest time of a trade, by the venue's clock."""
    promised_id: int
    """The last trade's id as the latest heartbeat told it; -1: none did."""
    resumed: bool
    """Whether no new trade has come since the connection was replaced."""
    bridged: bool
    """Whether a trade has shown where the present connection joins on to the one before."""
    heard: bool
    """Whether something came about the symbol since the last look for silent ones."""
    published: int
    """Trades written to the ring."""
    def __init__(self, tracked: TrackedBook) -> None: ...
