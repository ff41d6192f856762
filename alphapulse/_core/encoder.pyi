from typing import Self

from alphapulse._core.book import Book
from alphapulse._core.changes import ChangeSet

class Encoder:
    """Writes one record at a time (docs/wire-format.md) into memory of its own.

    The encoder is a buffer of exactly the latest record, without padding; `bytes(encoder)` copies
    it. The content is valid until the next record; while a memoryview of it exists, writing the
    next one raises BufferError. Sequence, ring id and `published_ns` are left 0 for the ring's
    writer, or set by `stamp`. Values that don't fit their field raise OverflowError or ValueError.
    """

    def __init__(self) -> None: ...
    def __len__(self) -> int:
        """Bytes of the latest record, 0 before the first."""
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def stamp(self, sequence: int, ring_id: int, published_ns: int) -> Self:
        """Set what the ring's writer otherwise sets."""
    def instrument(
        self,
        instrument_id: int,
        price_exponent: int,
        size_exponent: int,
        price_increment: int,
        size_increment: int,
        exchange: str,
        symbol: str,
        venue_symbol: str,
        base: str,
        quote: str,
        *,
        exchange_ns: int = ...,
        received_ns: int = ...,
        flags: int = 0,
    ) -> Self: ...
    def snapshot(
        self,
        book: Book,
        instrument_id: int,
        version: int,
        reason: int,
        depth: int = 0,
        trusted_bid: int | None = None,
        trusted_ask: int | None = None,
        *,
        exchange_ns: int = ...,
        received_ns: int = ...,
        flags: int = 0,
        limit: int = 0,
    ) -> Self:
        """The whole book, or its best `limit` levels a side."""
    def delta(
        self,
        changes: ChangeSet,
        instrument_id: int,
        version: int,
        prev_version: int,
        *,
        exchange_ns: int = ...,
        received_ns: int = ...,
        flags: int = 0,
    ) -> Self: ...
    def trade(
        self,
        instrument_id: int,
        price: int,
        size: int,
        side: int,
        trade_id: int | str,
        id_kind: int = 0,
        matches: int = 1,
        *,
        exchange_ns: int = ...,
        received_ns: int = ...,
        flags: int = 0,
    ) -> Self:
        """`trade_id` is an integer or its decimal digits, for `id_kind` 2 (text) any text."""
    def state(
        self,
        instrument_id: int,
        state: int,
        reason: int,
        *,
        exchange_ns: int = ...,
        received_ns: int = ...,
        flags: int = 0,
    ) -> Self: ...
    def gap(
        self,
        instrument_id: int,
        channel: int,
        reason: int,
        first: int | None = None,
        last: int | None = None,
        count: int | None = None,
        since_ns: int = ...,
        *,
        exchange_ns: int = ...,
        received_ns: int = ...,
        flags: int = 0,
    ) -> Self: ...
    def heartbeat(
        self,
        *,
        exchange_ns: int = ...,
        received_ns: int = ...,
        flags: int = 0,
    ) -> Self: ...
