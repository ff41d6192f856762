"""What a reader gives at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from alphapulse._core.records import Records
from alphapulse.delta import decode
from alphapulse.model import Event, Instrument, InstrumentDefined, Overrun, RecordType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TRADE_ROW = [
    ("sequence", "<u8"),
    ("exchange_ns", "<i8"),
    ("received_ns", "<i8"),
    ("published_ns", "<i8"),
    ("price", "<i8"),
    ("size", "<i8"),
    ("trade_id", "<u8"),
    ("matches", "<u4"),
    ("side", "u1"),
    ("id_kind", "u1"),
    ("instrument", "<u2"),
]
"""One trade, as ``numpy.dtype`` takes it.

Times in nanoseconds, price and size scaled by the instrument's exponents; ``trade_id`` is 0 where
``id_kind`` is `IdKind.TEXT`.
"""

_TRADE_BYTES = 72


class Origin(NamedTuple):
    """Where a batch's records are from."""

    exchange: str
    epoch: int
    instruments: dict[int, Instrument]
    """By id, those of the epoch; the batches of one epoch have the same."""


class Batch(Records):
    """Records of one epoch, or exactly one `Overrun`, or nothing.

    Its length is the number of records; it is true if there is anything in it, an overrun
    included. Iteration gives raw records: buffers with `data`, `type`, `instrument`, `sequence`,
    `flags` and the three times. They stay valid as long as they are referred to. `nbytes` counts
    the bytes of the records as they lie in the ring, padding included. Made by `RingReader.read`.
    """

    __slots__ = ()

    origin: Origin
    overrun: Overrun | None

    @property
    def exchange(self) -> str:
        """Whose records."""
        return self.origin.exchange

    @property
    def epoch(self) -> int:
        """Of the records, or of what an overrun says was missed."""
        return self.origin.epoch

    @property
    def instruments(self) -> dict[int, Instrument]:
        """By id, those of the epoch; grows with the instruments announced in the batch."""
        return self.origin.instruments

    def events(self) -> Iterator[Event]:
        """The model's object of each record, in order; records of unknown types are left out.

        Raises
        ------
        RecordError
            a record can't be decoded; the reader itself can go on with the next batch
        """
        if self.overrun is not None:
            yield self.overrun
        exchange, _, instruments = self.origin
        for record in self:
            event = decode(record.data, instruments, exchange)
            if isinstance(event, InstrumentDefined):
                instruments[event.instrument.id] = event.instrument
            if event is not None:
                yield event

    def trades(self) -> NDArray[np.void]:
        """The trades among the records, as rows of `TRADE_ROW`."""
        # Most programs never ask for them, and it would be 9 MB of memory in each.
        import numpy as np

        rows = np.empty(self.count_type(RecordType.TRADE, _TRADE_BYTES), TRADE_ROW)
        self.trades_into(rows.view(np.uint8))
        return rows


def bits_of(*types: RecordType) -> int:
    """Types of records as `Batch.of_types` takes them."""
    return sum(1 << kind for kind in types)


def make_batch(origin: Origin, overrun: Overrun | None = None) -> Batch:
    """A batch without records."""
    batch = Batch()
    batch.origin = origin
    batch.overrun = overrun
    return batch
