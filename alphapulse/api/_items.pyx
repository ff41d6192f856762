# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""JSON of the rows that answers have thousands of: trades and bars."""

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t

from alphapulse.textwriter cimport NUMBER_BYTES, SECOND_PLACES, TextWriter, check_places

from msgspec import Raw

from alphapulse.model import Side

cdef enum:
    # What stands around the numbers and names.
    FRAME_BYTES = 128

cdef object _BUY = Side.BUY
cdef object _SELL = Side.SELL
cdef TextWriter _writer = TextWriter()


def trade_json(row not None, bytes names not None):
    """A `TradeItem` of a trade whose id is digits.

    Parameters
    ----------
    row : a `TradeRow`
    names : its symbol and exchange, as members
    """
    cdef object side = row.side
    cdef int price_places = row.price_exponent, size_places = row.size_exponent
    cdef int64_t timestamp_ns = row.timestamp_ns, price = row.price, size = row.size
    cdef str trade_id = row.trade_id
    cdef Py_ssize_t id_bytes
    cdef const char *digits = PyUnicode_AsUTF8AndSize(trade_id, &id_bytes)
    check_places(price_places)
    check_places(size_places)
    _writer.size = 0
    _writer.reserve(FRAME_BYTES + 3 * NUMBER_BYTES + len(names) + id_bytes)
    _writer.put(b'{"timestamp":', 13)
    _writer.number(timestamp_ns, SECOND_PLACES)
    _writer.put(b",", 1)
    _writer.put(names, len(names))
    _writer.put(b',"price":', 9)
    _writer.number(price, price_places)
    _writer.put(b',"volume":', 10)
    _writer.number(size, size_places)
    if side is _BUY:
        _writer.put(b',"side":"buy","trade_id":"', 26)
    elif side is _SELL:
        _writer.put(b',"side":"sell","trade_id":"', 27)
    else:
        raise ValueError(f"{side!r} is no side")
    _writer.put(digits, id_bytes)
    _writer.put(b'"}', 2)
    return Raw(_writer.data[: _writer.size])


def bar_json(row not None):
    """A `BarItem`; OverflowError where a number of it is longer than 64 bits."""
    cdef int64_t begin_ns, open_, high, low, close, volume, trades
    cdef int price_places, size_places
    begin_ns, open_, high, low, close, price_places, volume, size_places, trades = row
    check_places(price_places)
    check_places(size_places)
    _writer.size = 0
    _writer.reserve(FRAME_BYTES + 7 * NUMBER_BYTES)
    _writer.put(b'{"timestamp":', 13)
    _writer.number(begin_ns, SECOND_PLACES)
    _writer.put(b',"open":', 8)
    _writer.number(open_, price_places)
    _writer.put(b',"high":', 8)
    _writer.number(high, price_places)
    _writer.put(b',"low":', 7)
    _writer.number(low, price_places)
    _writer.put(b',"close":', 9)
    _writer.number(close, price_places)
    _writer.put(b',"volume":', 10)
    _writer.number(volume, size_places)
    _writer.put(b',"trades":', 10)
    _writer.number(trades, 0)
    _writer.put(b"}", 1)
    return Raw(_writer.data[: _writer.size])
