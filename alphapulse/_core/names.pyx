# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""What is known by a name, found by the name's bytes as they stand in a frame."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from alphapulse._core.fields cimport PREFIX_WORDS_BYTES, words_of


cdef inline Py_ssize_t place_of(const Words* words, Py_ssize_t length,
                                Py_ssize_t mask) noexcept nogil:
    cdef uint64_t value = (
        words.first * <uint64_t>0x9E3779B97F4A7C15U
        ^ words.second * <uint64_t>0xC2B2AE3D27D4EB4FU ^ <uint64_t>length
    )
    value *= <uint64_t>0x9E3779B97F4A7C15U
    return <Py_ssize_t>(value >> 32) & mask


cdef class NameTable:
    def __cinit__(self):
        self.entries = {}
        self.lay_out(16)

    def __dealloc__(self):
        free(self.slots)

    def __len__(self):
        return len(self.entries)

    def __setitem__(self, str name not None, value):
        self.put(name.encode(), value)

    def get(self, bytes name not None):
        cdef Span span
        cdef PyObject* found
        span.start = <const unsigned char*>PyBytes_AS_STRING(name)
        span.length = PyBytes_GET_SIZE(name)
        found = self.find(&span, span.start + span.length)
        return None if found is NULL else <object>found

    cdef int put(self, bytes name, object value) except -1:
        """Make a name known, or let it stand for something else from now on."""
        cdef const unsigned char* text
        if name not in self.entries and 2 * <Py_ssize_t>(len(self.entries) + 1) > self.size:
            self.lay_out(2 * self.size)
        self.entries[name] = value
        text = <const unsigned char*>PyBytes_AS_STRING(name)
        self.enter(text, PyBytes_GET_SIZE(name), <PyObject*>value)
        return 0

    cdef int lay_out(self, Py_ssize_t size) except -1:
        """Make the slots anew: a power of two of them, at least half of them empty."""
        cdef Slot* slots = <Slot*>calloc(<size_t>size, sizeof(Slot))
        cdef bytes name
        if slots is NULL:
            raise MemoryError
        free(self.slots)
        self.slots = slots
        self.size = size
        for name, value in self.entries.items():
            self.enter(
                <const unsigned char*>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name),
                <PyObject*>value,
            )
        return 0

    cdef void enter(self, const unsigned char* text, Py_ssize_t length, PyObject* value) noexcept:
        """Set the slot of a name in `entries`."""
        cdef Words words = words_of(text, length, text + length)
        cdef Slot* slot = self.slot_of(&words, text, length)
        # The map keeps the first object of a name that comes again.
        if slot.value is NULL:
            slot.words = words
            slot.text = text
            slot.length = length
        slot.value = value

    cdef Slot* slot_of(self, const Words* words, const unsigned char* text,
                       Py_ssize_t length) noexcept:
        """The name's slot, or the empty one where it would be."""
        cdef Py_ssize_t mask = self.size - 1
        cdef Py_ssize_t at = place_of(words, length, mask)
        cdef Slot* slot = &self.slots[at]
        while slot.value is not NULL:
            if (
                slot.words.first == words.first and slot.words.second == words.second
                and slot.length == length
                and (
                    length <= PREFIX_WORDS_BYTES
                    or memcmp(slot.text, text, <size_t>length) == 0
                )
            ):
                return slot
            at = (at + 1) & mask
            slot = &self.slots[at]
        return slot

    cdef PyObject* find(self, const Span* name, const unsigned char* end) noexcept:
        """What goes by a name in a buffer that ends at `end`; borrowed, NULL where unknown."""
        cdef Words words = words_of(name.start, name.length, end)
        return self.slot_of(&words, name.start, name.length).value
