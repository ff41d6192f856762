# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""JSON of the rows that answers have thousands of: trades and bars."""

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t
from libc.string cimport strlen

from alphapulse.textwriter cimport NUMBER_BYTES, SECOND_PLACES, TextWriter, check_places

from msgspec import Raw

from alphapulse.model import IdKind, Side

cdef enum:
    # What stands around the numbers and names.
    FRAME_BYTES = 128

cdef object _BUY = Side.BUY
cdef object _SELL = Side.SELL
cdef object _TRADE = IdKind.TRADE
# For one call at a time: none of them lets another thread in.
cdef TextWriter _writer = TextWriter()


def trade_json(row not None, bytes names not None):
    """A `TradeItem` of a trade whose id is digits.

    Parameters
    ----------
    row : a `TradeRow`
    names : its symbol and exchange, as members
    """
    _writer.size = 0
    put_trade(_writer, row, names)
    return Raw(_writer.data[: _writer.size])


def trades_json(list rows not None, bytes names not None, other):
    """An array of `TradeItem`.

    Parameters
    ----------
    rows : each a `TradeRow`
    names : symbol and exchange of all of them, as members
    other : gives the JSON of a trade whose id isn't that of a single match
    """
    cdef TextWriter writer = TextWriter()
    for row in rows:
        put_text(writer, b"," if writer.size else b"[")
        if row.id_kind is _TRADE:
            put_trade(writer, row, names)
        else:
            put_text(writer, other(row))
    put_text(writer, b"]" if writer.size else b"[]")
    return Raw(writer.data[: writer.size])


def bars_json(list rows not None, other):
    """An array of `BarItem`.

    Parameters
    ----------
    rows : each a `BarRow`
    other : gives the JSON of a bar with a number that is longer than 64 bits
    """
    cdef TextWriter writer = TextWriter()
    cdef Py_ssize_t before
    for row in rows:
        put_text(writer, b"," if writer.size else b"[")
        before = writer.size
        try:
            put_bar(writer, row)
        except OverflowError:
            writer.size = before
            put_text(writer, other(row))
    put_text(writer, b"]" if writer.size else b"[]")
    return Raw(writer.data[: writer.size])


cdef int put_text(TextWriter writer, bytes text) except -1:
    writer.reserve(len(text))
    writer.put(text, len(text))
    return 0


cdef int put_trade(TextWriter writer, row, bytes names) except -1:
    cdef object side = row.side
    cdef int price_places = row.price_exponent, size_places = row.size_exponent
    cdef int64_t timestamp_ns = row.timestamp_ns, price = row.price, size = row.size
    cdef str trade_id = row.trade_id
    cdef Py_ssize_t id_bytes
    cdef const char *digits = PyUnicode_AsUTF8AndSize(trade_id, &id_bytes)
    check_places(price_places)
    check_places(size_places)
    writer.reserve(FRAME_BYTES + 3 * NUMBER_BYTES + len(names) + id_bytes)
    put_member(writer, b'{"timestamp":', timestamp_ns, SECOND_PLACES)
    writer.put(b",", 1)
    writer.put(names, len(names))
    put_member(writer, b',"price":', price, price_places)
    put_member(writer, b',"volume":', size, size_places)
    if side is _BUY:
        writer.put(b',"side":"buy","trade_id":"', 26)
    elif side is _SELL:
        writer.put(b',"side":"sell","trade_id":"', 27)
    else:
        raise ValueError(f"{side!r} is no side")
    writer.put(digits, id_bytes)
    writer.put(b'"}', 2)
    return 0


cdef int put_bar(TextWriter writer, row) except -1:
    """Raise OverflowError where a number is longer than 64 bits."""
    cdef int64_t begin_ns, open_, high, low, close, volume, trades
    cdef int price_places, size_places
    begin_ns, open_, high, low, close, price_places, volume, size_places, trades = row
    check_places(price_places)
    check_places(size_places)
    writer.reserve(FRAME_BYTES + 7 * NUMBER_BYTES)
    put_member(writer, b'{"timestamp":', begin_ns, SECOND_PLACES)
    put_member(writer, b',"open":', open_, price_places)
    put_member(writer, b',"high":', high, price_places)
    put_member(writer, b',"low":', low, price_places)
    put_member(writer, b',"close":', close, price_places)
    put_member(writer, b',"volume":', volume, size_places)
    put_member(writer, b',"trades":', trades, 0)
    writer.put(b"}", 1)
    return 0


cdef inline void put_member(
    TextWriter writer, const char *name, int64_t value, int places
) noexcept:
    writer.put(name, strlen(name))
    writer.number(value, places)
