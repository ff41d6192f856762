"""Books and their changes: from a venue's levels to records, and from records to books."""

from alphapulse._core.book import Book
from alphapulse._core.changes import ChangeSet
from alphapulse._core.fastpath import BAD_CHECKSUM, NOT_PLAIN, TAKEN, FastPath, UpdateLayout
from alphapulse._core.levels import LevelLayout, LevelStage
from alphapulse.delta.codec import (
    HEADER_SIZE,
    Encoder,
    Header,
    decode,
    decode_header,
    encode_instrument,
    split_records,
)
from alphapulse.delta.tracker import BookTracker, ChecksumRule, Part
from alphapulse.delta.view import BookView, TopView

__all__ = [
    "BAD_CHECKSUM",
    "HEADER_SIZE",
    "NOT_PLAIN",
    "TAKEN",
    "Book",
    "BookTracker",
    "BookView",
    "ChangeSet",
    "ChecksumRule",
    "Encoder",
    "FastPath",
    "Header",
    "LevelLayout",
    "LevelStage",
    "Part",
    "TopView",
    "UpdateLayout",
    "decode",
    "decode_header",
    "encode_instrument",
    "split_records",
]
