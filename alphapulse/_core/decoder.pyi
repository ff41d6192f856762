from typing_extensions import Buffer

from alphapulse._core.book import Book
from alphapulse._core.levels import LevelStage

HEADER_SIZE: int
"""Bytes of a record's header."""

HeaderFields = tuple[int, int, int, int, int, int, int, int, int]

def read_header(data: Buffer) -> HeaderFields:
    """(length, type, flags, instrument, sequence, ring id, exchange, received, published ns).

    Raises
    ------
    RecordError
        fewer bytes than a header, or than the record's length
    """

def decode(data: Buffer) -> tuple[HeaderFields, tuple[object, ...] | None]:
    """Header and body of exactly one record without padding; the body is None for unknown types.

    Bodies: instrument (price exponent, size exponent, price increment, size increment, exchange,
    symbol, venue symbol, base, quote); snapshot (version, reason, depth, trusted bid or None,
    trusted ask or None, bids, asks) with levels (price, size); delta (version, prev_version,
    changes) with changes (side, price, size, action); trade (price, size, side, trade id, id kind,
    matches); state (state, reason); gap (channel, reason, first or None, last or None,
    count or None, since ns); heartbeat ().

    Raises
    ------
    RecordError
        the bytes are no such record
    """

def peek_version(data: Buffer) -> int:
    """Version of a snapshot or delta record without reading the rest. Raises `RecordError`."""

def load_snapshot(
    data: Buffer, book: Book, stage: LevelStage
) -> tuple[int, int, int, int | None, int | None]:
    """Replace a book by a snapshot record.

    Returns
    -------
    tuple
        (version, reason, depth, trusted bid or None, trusted ask or None)

    Raises
    ------
    RecordError
        the bytes are no snapshot record; the book is as before
    """

def apply_delta(data: Buffer, book: Book, stage: LevelStage, version: int) -> int:
    """Apply a delta record to a book at `version`; returns the new version.

    Raises
    ------
    RecordError
        the bytes are no delta record; the book is as before
    BookError
        the delta's `prev_version` isn't `version`, and the book is as before; or the delta
        contradicts the book's content, which then is of no use any more
    """
