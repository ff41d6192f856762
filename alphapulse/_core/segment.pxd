from alphapulse._core.ring cimport ap_readers, ap_ring, ap_slot


cdef class Segment:
    cdef Py_buffer view
    cdef bint held
    cdef ap_ring ring
    cdef readonly bint writable
    cdef readonly str name


cdef class ReadersPage:
    cdef Py_buffer view
    cdef bint held
    cdef ap_readers *readers
    cdef ap_slot *slots
