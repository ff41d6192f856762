# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Rows as columns: what takes a batch of trades to the embedded database."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

import numpy as np

from alphapulse.model import IdKind

cdef object TEXT = IdKind.TEXT


def trade_columns(rows, series, int64_t first_entry):
    """Columns of table ``trades``, as NumPy arrays; without ``trade_text`` where it would be empty.

    Parameters
    ----------
    rows : the trades
    series : id of each trade's series
    first_entry : what the first one's ``entry`` is
    """
    cdef list trades = list(rows)
    cdef list numbers = list(series)
    cdef Py_ssize_t count = len(trades), index
    if len(numbers) != count:
        raise ValueError(f"{len(numbers)} series for {count} trades")
    columns = {
        "series": np.empty(count, np.int32),
        "id_kind": np.empty(count, np.uint8),
        "trade_number": np.zeros(count, np.uint64),
        "timestamp_ns": np.empty(count, np.int64),
        "received_ns": np.empty(count, np.int64),
        "price": np.empty(count, np.int64),
        "price_exponent": np.empty(count, np.uint8),
        "size": np.empty(count, np.int64),
        "size_exponent": np.empty(count, np.uint8),
        "side": np.empty(count, np.uint8),
        "matches": np.empty(count, np.uint32),
        "filled": np.empty(count, np.bool_),
        "entry": np.arange(first_entry, first_entry + count, dtype=np.int64),
    }
    cdef int32_t[::1] series_ids = columns["series"]
    cdef uint8_t[::1] id_kinds = columns["id_kind"]
    cdef uint64_t[::1] trade_numbers = columns["trade_number"]
    cdef int64_t[::1] times = columns["timestamp_ns"], received = columns["received_ns"]
    cdef int64_t[::1] prices = columns["price"], sizes = columns["size"]
    cdef uint8_t[::1] price_exponents = columns["price_exponent"]
    cdef uint8_t[::1] size_exponents = columns["size_exponent"]
    cdef uint8_t[::1] sides = columns["side"], filled = columns["filled"].view(np.uint8)
    cdef uint32_t[::1] matches = columns["matches"]
    cdef list texts = None
    for index in range(count):
        row = trades[index]
        kind = row.id_kind
        if kind is TEXT:
            if texts is None:
                texts = [""] * count
            texts[index] = row.trade_id
        else:
            trade_numbers[index] = int(row.trade_id)
        series_ids[index] = numbers[index]
        id_kinds[index] = kind
        times[index] = row.timestamp_ns
        received[index] = row.received_ns
        prices[index] = row.price
        price_exponents[index] = row.price_exponent
        sizes[index] = row.size
        size_exponents[index] = row.size_exponent
        sides[index] = row.side
        matches[index] = row.matches
        filled[index] = row.filled
    if texts is not None:
        columns["trade_text"] = np.array(texts, object)
    return columns
