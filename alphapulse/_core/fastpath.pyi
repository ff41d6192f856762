from collections.abc import Mapping, Sequence

from typing_extensions import Buffer

from alphapulse._core.levels import LevelLayout
from alphapulse._core.producer import Producer
from alphapulse._core.tracker import TrackedBook

NOT_PLAIN: int
"""Nothing was done: the frame has to go the long way."""
TAKEN: int
"""All is done."""
BAD_CHECKSUM: int
"""The book was changed and contradicts the checksum; nothing was published."""
CROSSED: int
"""The book was changed and is crossed; nothing was published."""

class UpdateLayout:
    """Where a venue's frames have a plain book update: one symbol's changed levels, nothing else.

    Parameters
    ----------
    fixed : fields of the frame that must have these texts
    body : the field with the object that has the fields below; None: the frame itself has them
    in_list : whether that object is the only one of a list
    body_fixed : fields of that object that must have these texts
    symbol : field with the venue's symbol; it must come before the levels
    parts : one or two lists of levels: field, layout, side (None where each level has its own)
    time : field with the venue's time, None where there is none
    iso_time : whether it is ISO 8601 text (else an integer, in milliseconds or microseconds)
    checksum : field with the checksum
    first_id, last_id : fields with the ids of the first and the last update in the frame
    """

    @property
    def checksummed(self) -> bool: ...
    def __init__(
        self,
        *,
        symbol: str,
        parts: Sequence[tuple[str, LevelLayout, int | None]],
        fixed: Mapping[str, str] = ...,
        body: str | None = None,
        in_list: bool = False,
        body_fixed: Mapping[str, str] = ...,
        time: str | None = None,
        iso_time: bool = True,
        checksum: str | None = None,
        first_id: str | None = None,
        last_id: str | None = None,
    ) -> None: ...

class FastPath:
    """Takes plain updates of live books from a frame's bytes to a record in the ring.

    It takes a frame only if there is no question about it: the frame is as the layout says, its
    book is live, its ids continue the book's, every level can be used. Otherwise it does nothing,
    and the frame goes the long way, which does the same and everything else, in Python.

    Parameters
    ----------
    layout : of the venue's frames
    producer : the venue's ring
    """

    @property
    def layout(self) -> UpdateLayout: ...
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
    def __init__(self, layout: UpdateLayout, producer: Producer) -> None: ...
    def follow(self, venue_symbol: str, book: TrackedBook) -> None:
        """Take updates of this symbol to this book from now on."""
    def take(self, data: Buffer, received_ns: int) -> int:
        """Take a frame if it is a plain update; returns `TAKEN`, `NOT_PLAIN`, or what is wrong.

        Raises
        ------
        RingError
            the ring is closed
        """
