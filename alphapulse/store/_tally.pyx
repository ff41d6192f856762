# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Everyday trades summed up by symbol and second; see `alphapulse.store.bars.BarTail`."""

from libc.stdint cimport int64_t, uint64_t

from alphapulse.store._identity cimport number_of

from alphapulse.clock import NS_PER_SECOND
from alphapulse.model import IdKind

cdef int64_t SECOND_NS = NS_PER_SECOND
cdef object TEXT = IdKind.TEXT


cdef class _Second:
    cdef int64_t begin_ns, first_ns, last_ns, open, high, low, close, trades
    cdef uint64_t first_number, last_number
    cdef int price_exponent, size_exponent
    # Sizes have 64 bits, so their sum may have more: in two pieces.
    cdef int64_t volume_high, volume_low

    cdef void begin(self, int64_t begin_ns, int price_exponent, int size_exponent, int64_t time_ns,
                    uint64_t number, int64_t price) noexcept:
        self.begin_ns = begin_ns
        self.price_exponent = price_exponent
        self.size_exponent = size_exponent
        self.first_ns = self.last_ns = time_ns
        self.first_number = self.last_number = number
        self.open = self.high = self.low = self.close = price

    cdef void add(self, int64_t time_ns, uint64_t number, int64_t price, int64_t size) noexcept:
        if time_ns > self.last_ns or (time_ns == self.last_ns and number > self.last_number):
            self.last_ns, self.last_number, self.close = time_ns, number, price
        elif time_ns < self.first_ns or (
            time_ns == self.first_ns and number < self.first_number
        ):
            self.first_ns, self.first_number, self.open = time_ns, number, price
        if price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.volume_high += size >> 32
        self.volume_low += size & 0xFFFFFFFF
        self.trades += 1

    cdef tuple values(self):
        """As the fields of a `Part` follow each other."""
        return (
            self.begin_ns, self.price_exponent, self.size_exponent,
            (self.first_ns, self.first_number, ""), (self.last_ns, self.last_number, ""),
            self.open, self.high, self.low, self.close,
            ((<object>self.volume_high) << 32) + self.volume_low, self.trades,
        )


cdef class Tally:
    """Trades of one exchange."""

    cdef dict _symbols
    cdef Py_ssize_t _count

    def __init__(self):
        self.clear()

    def __len__(self):
        """How many sums there are."""
        return self._count

    def add(self, rows):
        """Take in trades; the list of those that don't fit, by their ids, times, numbers or exponents."""
        cdef int64_t time_ns, begin_ns, price, size
        cdef uint64_t number
        cdef int price_exponent, size_exponent
        cdef list odd = []
        cdef dict seconds = None
        cdef object symbol = None
        cdef _Second second = None
        for row in rows:
            try:
                if row.id_kind is TEXT:
                    odd.append(row)
                    continue
                time_ns, price, size = row.timestamp_ns, row.price, row.size
                price_exponent, size_exponent = row.price_exponent, row.size_exponent
                number = number_of(row.trade_id)
            except OverflowError:
                odd.append(row)
                continue
            if time_ns < 0:
                odd.append(row)
                continue
            begin_ns = time_ns - time_ns % SECOND_NS
            if row.symbol is not symbol:
                symbol, second = row.symbol, None
                seconds = self._symbols.get(symbol)
                if seconds is None:
                    seconds = self._symbols[symbol] = {}
            if second is None or second.begin_ns != begin_ns:
                second = seconds.get(begin_ns)
                if second is None:
                    second = seconds[begin_ns] = _Second()
                    second.begin(begin_ns, price_exponent, size_exponent, time_ns, number, price)
                    self._count += 1
            if second.price_exponent != price_exponent or second.size_exponent != size_exponent:
                odd.append(row)
                continue
            second.add(time_ns, number, price, size)
        return odd

    def symbols(self):
        """Those with sums, the one that has had some for the longest time first."""
        return list(self._symbols)

    def take_out(self, symbol):
        """The values of a `Part` for each second of a symbol, in no order; they are forgotten."""
        cdef dict seconds = self._symbols.pop(symbol, {})
        cdef _Second second
        self._count -= len(seconds)
        return [second.values() for second in seconds.values()]

    def clear(self):
        """Forget everything."""
        self._symbols = {}
        self._count = 0
