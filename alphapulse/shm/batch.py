"""What a reader gives at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from alphapulse._core.records import RawRecord, Records
from alphapulse.delta import decode
from alphapulse.model import Event, Instrument, InstrumentDefined, Overrun, RecordType

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRADE_ROW = np.dtype(
    [
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
)
"""One trade: times in nanoseconds, price and size scaled by the instrument's exponents.

``trade_id`` is 0 where ``id_kind`` is `IdKind.TEXT`.
"""

_TRADE_BYTES = 72


class Batch:
    """Records of one epoch, or exactly one `Overrun`, or nothing.

    Its length is the number of records; it is true if there is anything in it, an overrun
    included. Iteration gives raw records: buffers with `data`, `type`, `instrument`, `sequence`,
    `flags` and the three times. They stay valid as long as they are referred to.

    Parameters
    ----------
    exchange, epoch : whose records
    instruments : by id, those of the epoch; grows with the instruments announced in the batch
    records : None for an overrun or an empty batch
    overrun : what the reader was not given
    """

    __slots__ = ("_records", "epoch", "exchange", "instruments", "overrun")

    def __init__(
        self,
        exchange: str,
        epoch: int,
        instruments: dict[int, Instrument],
        records: Records | None = None,
        overrun: Overrun | None = None,
    ) -> None:
        self.exchange = exchange
        self.epoch = epoch
        self.instruments = instruments
        self.overrun = overrun
        self._records = records

    def __len__(self) -> int:
        return 0 if self._records is None else len(self._records)

    def __bool__(self) -> bool:
        return self._records is not None or self.overrun is not None

    def __iter__(self) -> Iterator[RawRecord]:
        return iter(()) if self._records is None else iter(self._records)

    @property
    def nbytes(self) -> int:
        """Bytes of the records as they lie in the ring, padding included."""
        return 0 if self._records is None else self._records.nbytes

    def events(self) -> Iterator[Event]:
        """The model's object of each record, in order; records of unknown types are left out.

        Raises
        ------
        RecordError
            a record can't be decoded; the reader itself can go on with the next batch
        """
        if self.overrun is not None:
            yield self.overrun
        for record in self:
            event = decode(record.data, self.instruments, self.exchange)
            if isinstance(event, InstrumentDefined):
                self.instruments[event.instrument.id] = event.instrument
            if event is not None:
                yield event

    def trades(self) -> NDArray[np.void]:
        """The trades among the records, as rows of `TRADE_ROW`."""
        if self._records is None:
            return np.empty(0, TRADE_ROW)
        count = self._records.count_type(RecordType.TRADE, _TRADE_BYTES)
        rows = np.empty(count, TRADE_ROW)
        self._records.trades_into(rows.view(np.uint8))
        return rows
