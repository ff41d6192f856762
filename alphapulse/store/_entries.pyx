# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Trades as the commands that append them to a Redis stream."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport INT64_MIN, int64_t, uint64_t
from libc.string cimport memcpy

from alphapulse.errors import StoreError
from alphapulse.model import IdKind, Side

cdef enum:
    NS_PER_MS = 1_000_000
    # Room for all of a command but its head and the trade's id.
    FIELDS_BYTES = 512
    MOST_DIGITS = 20
    MOST_EXPONENT = 18

cdef dict KINDS = {int(kind): bulk(kind.text) for kind in IdKind}
cdef dict SIDES = {int(side): bulk(side.text) for side in Side}
cdef object TEXT = IdKind.TEXT
cdef bytes TRADE_ID = bulk("trade_id")
cdef bytes ID_KIND = bulk("id_kind")
cdef bytes TIMESTAMP = bulk("timestamp_ns")
cdef bytes RECEIVED = bulk("received_ns")
cdef bytes PRICE = bulk("price")
cdef bytes VOLUME = bulk("volume")
cdef bytes SIDE = bulk("side")
cdef bytes MATCHES = bulk("matches")
cdef bytes FILLED = bulk("filled") + bulk("1")


cdef bytes bulk(str text):
    """A text as an argument of a command."""
    encoded = text.encode()
    return b"$%d\r\n%b\r\n" % (len(encoded), encoded)


cdef class TradeStream:
    """A stream of trades, to which they are appended; the fields are those of docs/store.md.

    Parameters
    ----------
    key : name of the stream
    ms, number : id of its newest entry
    """

    cdef readonly uint64_t ms
    cdef readonly uint64_t number
    cdef readonly bint late
    cdef bytes _plain
    cdef bytes _filled

    def __init__(self, str key not None, uint64_t ms, uint64_t number):
        named = bulk("XADD") + bulk(key)
        self._plain = b"*19\r\n" + named
        self._filled = b"*21\r\n" + named
        self.ms = ms
        self.number = number

    @property
    def last(self):
        """Id of the newest entry."""
        return f"{self.ms}-{self.number}"

    cpdef bytes append(self, row):
        """The command that appends a trade, as it is sent.

        Its entry's id begins with its time in milliseconds, unless that of the entry before is
        later: then `late` says so.

        Parameters
        ----------
        row : `alphapulse.history.TradeRow`

        Raises
        ------
        StoreError
            an exponent is none
        OverflowError
            a number doesn't fit 64 bits
        """
        cdef int64_t timestamp_ns = row.timestamp_ns
        cdef int64_t received_ns = row.received_ns
        cdef uint64_t ms = <uint64_t>timestamp_ns // NS_PER_MS if timestamp_ns > 0 else 0
        cdef bint filled = row.filled
        cdef bytes head = self._filled if filled else self._plain
        cdef Py_ssize_t length
        cdef const char* trade_id = PyUnicode_AsUTF8AndSize(row.trade_id, &length)
        cdef char* start = <char*>PyMem_Malloc(len(head) + length + FIELDS_BYTES)
        cdef char* at
        if start == NULL:
            raise MemoryError
        try:
            if ms > self.ms:
                self.ms = ms
                self.number = 0
            else:
                self.number += 1
            self.late = ms != self.ms or timestamp_ns < 0
            at = put(start, head)
            at = put_id(at, self.ms, self.number)
            at = put(at, TRADE_ID)
            at = put_bulk(at, trade_id, length)
            at = put(put(at, ID_KIND), <bytes>KINDS[row.id_kind])
            at = put_integer(put(at, TIMESTAMP), timestamp_ns)
            at = put(at, RECEIVED)
            at = put_bulk(at, NULL, 0) if received_ns == INT64_MIN else put_integer(at, received_ns)
            at = put_decimal(put(at, PRICE), row.price, exponent_of(row.price_exponent))
            at = put_decimal(put(at, VOLUME), row.size, exponent_of(row.size_exponent))
            at = put(put(at, SIDE), <bytes>SIDES[row.side])
            at = put_integer(put(at, MATCHES), row.matches)
            if filled:
                at = put(at, FILLED)
            return PyBytes_FromStringAndSize(start, at - start)
        finally:
            PyMem_Free(start)


def append_all(rows, dict streams not None):
    """The commands that append trades, and those to be noted apart.

    Parameters
    ----------
    rows : of one exchange
    streams : by symbol

    Returns
    -------
    tuple of two lists
        the commands; the rows, with their entries' ids, that are late or whose ids are texts
    """
    cdef list commands = [], noted = []
    cdef TradeStream stream
    for row in rows:
        stream = streams[row.symbol]
        commands.append(stream.append(row))
        if stream.late or row.id_kind is TEXT:
            noted.append((row, stream.last if stream.late else None))
    return commands, noted


cdef int exponent_of(int exponent) except -1:
    if not 0 <= exponent <= MOST_EXPONENT:
        raise StoreError(f"an exponent of {exponent}; 0 to {MOST_EXPONENT} would be right")
    return exponent


cdef inline char* put(char* at, bytes text) noexcept:
    memcpy(at, <const char*>text, <size_t>len(text))
    return at + len(text)


cdef char* put_bulk(char* at, const char* text, Py_ssize_t length) noexcept:
    cdef char[MOST_DIGITS] digits
    cdef int count = write_digits(digits, <uint64_t>length)
    at[0] = c"$"
    memcpy(at + 1, digits + MOST_DIGITS - count, <size_t>count)
    at += 1 + count
    at[0] = c"\r"
    at[1] = c"\n"
    if length:
        memcpy(at + 2, text, <size_t>length)
    at += 2 + length
    at[0] = c"\r"
    at[1] = c"\n"
    return at + 2


cdef char* put_id(char* at, uint64_t ms, uint64_t number) noexcept:
    cdef char[2 * MOST_DIGITS + 1] text
    cdef char[MOST_DIGITS] digits
    cdef int first = write_digits(digits, ms), second
    memcpy(text, digits + MOST_DIGITS - first, <size_t>first)
    text[first] = c"-"
    second = write_digits(digits, number)
    memcpy(text + first + 1, digits + MOST_DIGITS - second, <size_t>second)
    return put_bulk(at, text, first + 1 + second)


cdef char* put_integer(char* at, int64_t value) noexcept:
    return put_decimal(at, value, 0)


cdef char* put_decimal(char* at, int64_t value, int exponent) noexcept:
    """Exact text: no exponent, no trailing zeros, no bare point."""
    cdef char[2 * MOST_DIGITS + 2] text
    cdef char[MOST_DIGITS] digits
    cdef uint64_t magnitude = <uint64_t>value if value >= 0 else 0 - <uint64_t>value
    cdef int count, whole, length = 0, i
    while exponent and magnitude % 10 == 0:
        magnitude //= 10
        exponent -= 1
    count = write_digits(digits, magnitude)
    whole = count - exponent
    if value < 0:
        text[length] = c"-"
        length += 1
    if whole <= 0:
        text[length] = c"0"
        length += 1
    else:
        memcpy(text + length, digits + MOST_DIGITS - count, <size_t>whole)
        length += whole
    if exponent:
        text[length] = c"."
        length += 1
        for i in range(-whole):
            text[length] = c"0"
            length += 1
        i = count if whole <= 0 else exponent
        memcpy(text + length, digits + MOST_DIGITS - i, <size_t>i)
        length += i
    return put_bulk(at, text, length)


cdef int write_digits(char* digits, uint64_t value) noexcept:
    """Write a number at the end of `MOST_DIGITS` characters; how many it takes."""
    cdef int count = 0
    while True:
        count += 1
        digits[MOST_DIGITS - count] = <char>(c"0" + value % 10)
        value //= 10
        if value == 0:
            return count
