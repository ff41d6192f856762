# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Levels from rows of three integers, such as a NumPy array."""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_FORMAT,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.stdint cimport int64_t
from libc.string cimport strcmp

from alphapulse._core.levels cimport ASK, BID, LevelStage, StagedLevel


cdef struct LevelRow:
    int64_t side
    int64_t price
    int64_t size


cdef bint holds_int64(const char* form) noexcept:
    """Whether a buffer's items are native int64."""
    if form[0] == c"=" or form[0] == c"@" or form[0] == c"<":
        form += 1
    return (form[0] == c"l" or form[0] == c"q") and form[1] == 0


cdef bint holds_rows(const Py_buffer* view) noexcept:
    """Whether a buffer is one of rows, as a matrix or as structures."""
    if view.format is NULL:
        return False
    if view.ndim == 2:
        return view.shape[1] == 3 and view.itemsize == 8 and holds_int64(view.format)
    return view.ndim == 1 and view.itemsize == sizeof(LevelRow) and (
        strcmp(view.format, b"T{l:side:l:price:l:size:}") == 0
        or strcmp(view.format, b"T{q:side:q:price:q:size:}") == 0
    )


cdef int stage_rows(LevelStage stage, object rows) except -1:
    """Make a stage one of these rows' levels; where one is bad, it is left empty."""
    cdef Py_buffer view
    cdef const LevelRow* row
    cdef StagedLevel* level
    cdef Py_ssize_t i
    stage.count = 0
    PyObject_GetBuffer(rows, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
    try:
        if not holds_rows(&view):
            raise ValueError("levels are a stage, or rows of int64 side, price and size")
        stage.reserve(view.shape[0])
        row = <const LevelRow*>view.buf
        level = stage.items
        for i in range(view.shape[0]):
            if not (BID <= row.side <= ASK and row.price >= 1 and row.size >= 0):
                raise ValueError(
                    f"row {i} is no level: side {row.side}, price {row.price}, size {row.size}"
                )
            level.side = <int>row.side
            level.price = row.price
            level.size = row.size
            level.added = 0
            level += 1
            row += 1
        stage.count = view.shape[0]
    finally:
        PyBuffer_Release(&view)
    return 0
