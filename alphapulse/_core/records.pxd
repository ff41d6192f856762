from libc.stdint cimport uint8_t


cdef class Chunk:
    cdef uint8_t *data
    cdef Py_ssize_t size


cdef class RawRecord:
    cdef Chunk chunk
    cdef uint8_t *start
    cdef Py_ssize_t length


cdef class Records:
    cdef Chunk chunk
    cdef Py_ssize_t begin
    cdef Py_ssize_t end
    cdef Py_ssize_t count
    cdef public object origin
    cdef public object overrun
