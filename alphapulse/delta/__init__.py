"""Books and their changes: from a venue's levels to records, and from records to books."""

from alphapulse._core.book import Book
from alphapulse._core.changes import ChangeSet
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
    "HEADER_SIZE",
    "Book",
    "BookTracker",
    "BookView",
    "ChangeSet",
    "ChecksumRule",
    "Encoder",
    "Header",
    "LevelLayout",
    "LevelStage",
    "Part",
    "TopView",
    "decode",
    "decode_header",
    "encode_instrument",
    "split_records",
]
