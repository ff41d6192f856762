from collections.abc import Mapping

from alphapulse._core.book import Book
from alphapulse._core.encoder import Encoder
from alphapulse._core.levels import LevelStage

class TrackedBook:
    """What the native path knows of a tracked book; `alphapulse.delta.BookTracker` adds the rest.

    Parameters
    ----------
    stage, encoder : scratch memory, to be shared among the trackers of a thread
    """

    book: Book
    version: int
    """Of the latest delta or resetting snapshot."""
    ready: bool
    """Whether there is a book, and nothing is known to be wrong with it."""
    live: bool
    """Whether plain updates may be taken without further questions."""
    last_id: int
    """The venue's id of the last update in the book, where the venue numbers them."""
    exchange_ns: int
    """The venue's time of the book."""
    @property
    def stage(self) -> LevelStage: ...
    @property
    def encoder(self) -> Encoder: ...
    def __init__(self, stage: LevelStage, encoder: Encoder) -> None: ...
    def scale(self, instrument_id: int, price_exponent: int, size_exponent: int) -> None:
        """Go by this instrument from now on."""
    def check_by(self, price_digits: int | None, size_digits: int = 0) -> None:
        """Verify Kraken's checksum at these decimal places; None: there is no checksum."""

class ConnectionState:
    """What the native path knows of a connection whose messages are counted.

    Parameters
    ----------
    renamed : symbols under which the venue may answer, and those that were subscribed to
    """

    last_message: int
    """The number of its last message; -1: none yet."""
    def __init__(self, renamed: Mapping[str, str] = ...) -> None: ...
