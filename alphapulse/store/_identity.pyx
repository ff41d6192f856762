# cython: language_level=3, boundscheck=False, wraparound=True, cdivision=True
"""Which trades a store has; see `alphapulse.store.identity`."""

from bisect import bisect_right

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint64_t

import msgspec

from alphapulse.model import IdKind

MOST_RANGES = 512

cdef enum:
    # Digits of which any number fits 64 bits.
    SAFE_DIGITS = 19

cdef dict KINDS = {"trade": IdKind.TRADE, "aggregate": IdKind.AGGREGATE}
cdef object TEXT = IdKind.TEXT


cdef class IdRanges:
    cdef list _first
    cdef list _last
    # The end of the highest range; its place in `_last` is only kept when it is asked for.
    cdef uint64_t _highest
    cdef Py_ssize_t _most
    cdef public bint changed

    def __init__(self, ranges=(), Py_ssize_t most=MOST_RANGES):
        pairs = list(ranges)
        self._first = [first for first, _ in pairs]
        self._last = [last for _, last in pairs]
        self._highest = self._last[-1] if self._last else 0
        self._most = most
        self.changed = False

    def extend(self, uint64_t last):
        self._highest = max(self._highest, last)

    def add(self, uint64_t number):
        return self.take(number)

    cdef bint take(self, uint64_t number) except -1:
        if self._last and number == self._highest + 1 and number:
            self._highest = number
            return True
        return self.insert(number)

    cdef bint insert(self, uint64_t number) except -1:
        cdef list first = self._first, last = self._last
        cdef Py_ssize_t index = bisect_right(first, number) - 1
        if last:
            last[-1] = self._highest
        if index >= 0 and number <= <uint64_t>last[index]:
            return False
        extends = index >= 0 and <uint64_t>last[index] == number - 1
        precedes = index + 1 < len(first) and <uint64_t>first[index + 1] == number + 1
        self.changed = True
        if extends and precedes:
            last[index] = last.pop(index + 1)
            del first[index + 1]
        elif extends:
            last[index] = number
        elif precedes:
            first[index + 1] = number
        else:
            first.insert(index + 1, number)
            last.insert(index + 1, number)
            if len(first) > self._most:
                del first[1], last[0]
        self._highest = last[-1]
        return True

    def pairs(self):
        self.changed = False
        if self._last:
            self._last[-1] = self._highest
        return list(zip(self._first, self._last, strict=True))


cdef class Series:
    cdef dict _ids

    def __init__(self, ids=None):
        self._ids = ids or {}

    @classmethod
    def load(cls, text):
        document = msgspec.json.decode(text, type=dict[str, list[tuple[int, int]]])
        return cls({KINDS[kind]: IdRanges(ranges) for kind, ranges in document.items()})

    def dump(self):
        document = {kind.text: ranges.pairs() for kind, ranges in self._ids.items()}
        return msgspec.json.encode(document).decode()

    @property
    def changed(self):
        return any(ranges.changed for ranges in self._ids.values())

    def extend(self, kind, uint64_t highest):
        (<IdRanges?>self._ids[kind]).extend(highest)

    def add(self, kind, uint64_t number):
        return self.take(kind, number)

    cdef bint take(self, kind, uint64_t number) except -1:
        ranges = self._ids.get(kind)
        if ranges is None:
            ranges = self._ids[kind] = IdRanges()
        return (<IdRanges>ranges).take(number)


def sift(rows, dict series not None, set texts not None):
    cdef list new = []
    cdef Series ids = None
    cdef object symbol = None, kind
    for row in rows:
        if row.symbol is not symbol:
            symbol = row.symbol
            ids = series.get(symbol)
            if ids is None:
                ids = series[symbol] = Series()
        kind = row.id_kind
        if kind is TEXT:
            identity = (symbol, row.trade_id)
            if identity not in texts:
                texts.add(identity)
                new.append(row)
        elif ids.take(kind, number_of(row.trade_id)):
            new.append(row)
    return new


cdef uint64_t number_of(str text) except? 0:
    """The number of decimal digits."""
    cdef Py_ssize_t length, i
    cdef const char* digits = PyUnicode_AsUTF8AndSize(text, &length)
    cdef uint64_t number = 0
    if 0 < length <= SAFE_DIGITS:
        for i in range(length):
            if not c"0" <= digits[i] <= c"9":
                break
            number = 10 * number + <uint64_t>(digits[i] - c"0")
        else:
            return number
    return int(text)
