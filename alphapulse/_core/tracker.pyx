# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The state of books and connections that Python and the native path share."""


cdef class TrackedBook:
    def __init__(self, LevelStage stage not None, Encoder encoder not None):
        self.stage = stage
        self.encoder = encoder

    def scale(self, uint16_t instrument_id, int price_exponent, int size_exponent):
        if not (0 <= price_exponent <= 18 and 0 <= size_exponent <= 18):
            raise ValueError(f"exponents are 0 to 18, not {price_exponent}, {size_exponent}")
        if self.checked:
            self.price_shift += self.price_exponent - price_exponent
            self.size_shift += self.size_exponent - size_exponent
        self.instrument_id = instrument_id
        self.price_exponent = price_exponent
        self.size_exponent = size_exponent

    def check_by(self, price_digits, int size_digits=0):
        self.checked = price_digits is not None
        if self.checked:
            self.price_shift = <int>price_digits - self.price_exponent
            self.size_shift = size_digits - self.size_exponent


cdef class ConnectionState:
    def __init__(self, renamed=None):
        self.last_message = -1
        if renamed:
            self.renamed = NameTable()
            for name, symbol in renamed.items():
                self.renamed[name] = symbol.encode()
