# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""JSON texts of what most events consist of: scaled integers, times, levels and changes."""

from libc.stdint cimport int64_t

from alphapulse.textwriter cimport NUMBER_BYTES, SECOND_PLACES, TextWriter, check_places

from alphapulse.model import Action, BookSide

cdef enum:
    # What stands around two numbers.
    CHANGE_BYTES = 64

cdef dict _SIDES = {int(side): side.text.encode() for side in BookSide}
cdef dict _ACTIONS = {int(action): action.text.encode() for action in Action}


cdef TextWriter _writer = TextWriter()


def decimal_text(int64_t value, int places):
    """A scaled integer."""
    check_places(places)
    _writer.size = 0
    _writer.reserve(NUMBER_BYTES)
    _writer.number(value, places)
    return _writer.text(0)


def times_text(int64_t exchange_ns, int64_t received_ns, int64_t sequence):
    """Members that say when something happened; begins with a comma."""
    _writer.size = 0
    _put_times(exchange_ns, received_ns, sequence)
    return _writer.text(0)


def delta_json(
    bytes names not None, int64_t version, int64_t prev_version, times, changes,
    int price_places, int size_places,
):
    """A book's net difference.

    Parameters
    ----------
    names : the first members of the event's data
    times : (exchange_ns, received_ns, sequence)
    changes : as (side, price, size, action), numbered as in the model
    """
    cdef int64_t exchange_ns, received_ns, sequence
    # All of them first: what makes them may write texts of its own.
    cdef list listed = list(changes)
    exchange_ns, received_ns, sequence = times
    check_places(price_places)
    check_places(size_places)
    _writer.size = 0
    _writer.reserve(len(names) + 2 * NUMBER_BYTES + 2 * CHANGE_BYTES)
    _writer.put(b'{"type":"orderbook_delta","data":{', 34)
    _writer.put(names, len(names))
    _writer.put(b',"version":', 11)
    _writer.number(version, 0)
    _writer.put(b',"prev_version":', 16)
    _writer.number(prev_version, 0)
    _put_times(exchange_ns, received_ns, sequence)
    _writer.put(b',"changes":[', 12)
    _put_changes(listed, price_places, size_places)
    _writer.reserve(3)
    _writer.put(b"]}}", 3)
    return _writer.data[: _writer.size]


cdef int _put_times(int64_t exchange_ns, int64_t received_ns, int64_t sequence) except -1:
    _writer.reserve(4 * NUMBER_BYTES + CHANGE_BYTES)
    _writer.put(b',"timestamp":', 13)
    _writer.time(exchange_ns, SECOND_PLACES)
    _writer.put(b',"timestamp_ns":', 16)
    _writer.time(exchange_ns, 0)
    _writer.put(b',"received_ns":', 15)
    _writer.time(received_ns, 0)
    _writer.put(b',"sequence":', 12)
    _writer.number(sequence, 0)
    return 0


cdef int _put_changes(list changes, int price_places, int size_places) except -1:
    cdef int64_t price, size
    cdef bytes name
    cdef bint more = False
    for side, price, size, action in changes:
        _writer.reserve(2 * NUMBER_BYTES + CHANGE_BYTES)
        if more:
            _writer.put(b",", 1)
        more = True
        name = _SIDES[side]
        _writer.put(b'{"side":"', 9)
        _writer.put(name, len(name))
        _writer.put(b'","price":', 10)
        _writer.number(price, price_places)
        _writer.put(b',"volume":', 10)
        _writer.number(size, size_places)
        name = _ACTIONS[action]
        _writer.put(b',"action":"', 11)
        _writer.put(name, len(name))
        _writer.put(b'"}', 2)
    return 0


def level_texts(levels, int price_places, int size_places):
    """Each level as [price, volume]."""
    cdef int64_t price, size
    cdef list texts = []
    check_places(price_places)
    check_places(size_places)
    _writer.reserve(2 * NUMBER_BYTES + CHANGE_BYTES)
    for price, size in levels:
        _writer.size = 0
        _writer.put(b"[", 1)
        _writer.number(price, price_places)
        _writer.put(b",", 1)
        _writer.number(size, size_places)
        _writer.put(b"]", 1)
        texts.append(_writer.text(0))
    return texts
