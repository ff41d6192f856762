# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Rows of trades where there are thousands of them: of a ring's records, and of the database."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from alphapulse._core.records cimport Records
from alphapulse._core.ring cimport ap_padded
from alphapulse._core.wire cimport (
    HEADER_BYTES,
    ID_TEXT,
    NO_TIME,
    TRADE,
    TRADE_BODY,
    get_u32,
    get_u64,
)

import numpy as np

from alphapulse.errors import StoreError
from alphapulse.history import TradeRow
from alphapulse.model import IdKind, Side

cdef list _KINDS = list(IdKind)
cdef list _SIDES = [None, Side.BUY, Side.SELL]


def rows_of_records(Records records not None, dict instruments not None, str exchange not None):
    """Rows of everyday trades: ids are numbers, and nothing is wrong with them.

    Parameters
    ----------
    records : from the ring; others among them are passed over
    instruments : by id
    exchange : whose records
    """
    cdef Py_ssize_t at = records.begin
    cdef const uint8_t *record
    cdef int64_t exchange_ns, received_ns
    cdef list rows = []
    while at < records.end:
        record = records.chunk.data + at
        at += ap_padded(get_u32(record))
        # One whose id is text is longer.
        if record[4] != TRADE or get_u32(record) != HEADER_BYTES + TRADE_BODY:
            continue
        instrument = instruments.get(record[6] | record[7] << 8)
        if instrument is None or not 1 <= record[68] <= 2 or record[69] >= ID_TEXT:
            continue
        exchange_ns = <int64_t>get_u64(record + 16)
        received_ns = <int64_t>get_u64(record + 24)
        rows.append(
            TradeRow(
                exchange=exchange,
                symbol=instrument.symbol,
                trade_id=str(get_u64(record + 56)),
                id_kind=_KINDS[record[69]],
                timestamp_ns=received_ns if exchange_ns == NO_TIME else exchange_ns,
                received_ns=received_ns,
                price=<int64_t>get_u64(record + 40),
                price_exponent=instrument.price_exponent,
                size=<int64_t>get_u64(record + 48),
                size_exponent=instrument.size_exponent,
                side=_SIDES[record[68]],
                matches=get_u32(record + 64),
            )
        )
    return rows


def rows_of_columns(columns, str exchange not None, str symbol not None):
    """Rows of columns that the embedded database gave.

    Parameters
    ----------
    columns : arrays of one length, by the names of table ``trades``
    exchange, symbol : of all of them

    Raises
    ------
    StoreError
        a code is none of this version's
    """
    cdef const uint8_t[::1] id_kinds = columns["id_kind"]
    cdef const uint64_t[::1] trade_numbers = columns["trade_number"]
    cdef const int64_t[::1] times = columns["timestamp_ns"], received = columns["received_ns"]
    cdef const int64_t[::1] prices = columns["price"], sizes = columns["size"]
    cdef const uint8_t[::1] price_exponents = columns["price_exponent"]
    cdef const uint8_t[::1] size_exponents = columns["size_exponent"]
    cdef const uint8_t[::1] sides = columns["side"], filled = columns["filled"].view(np.uint8)
    cdef const uint32_t[::1] matches = columns["matches"]
    cdef object texts = columns["trade_text"]
    cdef Py_ssize_t index
    cdef list rows = []
    for index in range(times.shape[0]):
        if not 1 <= sides[index] <= 2 or id_kinds[index] > ID_TEXT:
            raise StoreError(
                f"table trades is damaged: a trade of {exchange} {symbol} has side {sides[index]} "
                f"and id_kind {id_kinds[index]}; known are 1, 2 and 0 to {ID_TEXT}"
            )
        rows.append(
            TradeRow(
                exchange=exchange,
                symbol=symbol,
                trade_id=texts[index] or str(trade_numbers[index]),
                id_kind=_KINDS[id_kinds[index]],
                timestamp_ns=times[index],
                received_ns=received[index],
                price=prices[index],
                price_exponent=price_exponents[index],
                size=sizes[index],
                size_exponent=size_exponents[index],
                side=_SIDES[sides[index]],
                matches=matches[index],
                filled=filled[index] != 0,
            )
        )
    return rows
