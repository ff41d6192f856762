"""Books and their changes: from a venue's levels to records, and from records to books."""

from alphapulse._core.book import Book
from alphapulse._core.changes import ChangeSet
from alphapulse._core.fastpath import BAD_CHECKSUM, NOT_PLAIN, TAKEN, FastPath
from alphapulse._core.layouts import Field, FrameLayout, Levels
from alphapulse._core.levels import LevelLayout, LevelStage
from alphapulse._core.tracker import ConnectionState
from alphapulse._core.trades import LARGEST_JUMP, MOST_MATCHES, TradeState
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
    "LARGEST_JUMP",
    "MOST_MATCHES",
    "NOT_PLAIN",
    "TAKEN",
    "Book",
    "BookTracker",
    "BookView",
    "ChangeSet",
    "ChecksumRule",
    "ConnectionState",
    "Encoder",
    "FastPath",
    "Field",
    "FrameLayout",
    "Header",
    "LevelLayout",
    "LevelStage",
    "Levels",
    "Part",
    "TopView",
    "TradeState",
    "decode",
    "decode_header",
    "encode_instrument",
    "split_records",
]
