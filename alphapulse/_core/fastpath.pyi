from collections.abc import Iterable

from typing_extensions import Buffer

from alphapulse._core.layouts import FrameLayout
from alphapulse._core.producer import Producer
from alphapulse._core.tracker import ConnectionState, TrackedBook
from alphapulse._core.trades import TradeState

NOT_PLAIN: int
"""Nothing was done: the frame has to go the long way."""
TAKEN: int
"""All is done."""
BAD_CHECKSUM: int
"""The book was changed and contradicts the checksum; nothing was published."""
CROSSED: int
"""The book was changed and is crossed; nothing was published."""

class FastPath:
    """Takes everyday frames from their bytes to records in the ring.

    It takes a frame only if there is no question about it: the frame is of one of the layouts,
    its book is live, its ids continue those before, every digit can be used. Otherwise it does
    nothing, and the frame goes the long way, which does the same and everything else, in Python.

    Parameters
    ----------
    layouts : of the venue's frames, those that come most often first
    producer : the venue's ring
    """

    timed: bool
    """Whether frames are to be timed, for `read_ns` and `exchange_ns`."""
    @property
    def read_ns(self) -> int:
        """When the latest timed frame had been read, with nothing done about it yet."""
    @property
    def exchange_ns(self) -> int:
        """The venue's time in the latest timed frame."""
    @property
    def layouts(self) -> tuple[FrameLayout, ...]: ...
    @property
    def culprit(self) -> TrackedBook | None:
        """The book that the latest frame proved wrong."""
    @property
    def frames(self) -> int:
        """Frames taken since the start."""
    @property
    def bytes_in(self) -> int:
        """Their size."""
    @property
    def records(self) -> int:
        """Records written for them."""
    @property
    def bytes_out(self) -> int:
        """Bytes committed to the ring for them, padding included."""
    @property
    def checksums_ok(self) -> int:
        """Checksums that matched."""
    def __init__(self, layouts: Iterable[FrameLayout], producer: Producer) -> None: ...
    def follow(self, venue_symbol: str, book: TrackedBook, trades: TradeState) -> None:
        """Take what comes about this symbol to this book and these trades from now on."""
    def take(
        self, data: Buffer, received_ns: int, connection: ConnectionState | None = None
    ) -> int:
        """Take a frame if it is a plain one; returns `TAKEN`, `NOT_PLAIN`, or what is wrong.

        Parameters
        ----------
        connection : the one that the frame came over, where the venue counts its messages

        Raises
        ------
        RingError
            the ring is closed
        """
