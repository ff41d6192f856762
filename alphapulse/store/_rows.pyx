# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Rows of trades where there are thousands of them, out of columns of the embedded database."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from alphapulse.errors import StoreError
from alphapulse.history import TradeRow
from alphapulse.model import IdKind, Side

cdef list _KINDS = list(IdKind)
cdef list _SIDES = [None, Side.BUY, Side.SELL]


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
    cdef const uint8_t[::1] sides = columns["side"], filled = columns["filled"].view("u1")
    cdef const uint32_t[::1] matches = columns["matches"]
    cdef object texts = columns["trade_text"]
    cdef int kinds = len(_KINDS)
    cdef Py_ssize_t index
    cdef list rows = []
    for index in range(times.shape[0]):
        if not 1 <= sides[index] <= 2 or id_kinds[index] >= kinds:
            raise StoreError(
                f"table trades is damaged: a trade of {exchange} {symbol} has side {sides[index]} "
                f"and id_kind {id_kinds[index]}; known are 1, 2 and 0 to {kinds - 1}"
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
