"""Scanner of JSON and of decimal numbers: no objects, no copies.

It accepts exactly JSON; bytes above 0x7f in strings are passed over unread. Numbers follow the
rule of `alphapulse.fixed`. Only `take_plain_number` reads beyond the end.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp

cdef enum:
    MAX_NESTING = 64
    MAX_NUMBER_LENGTH = 1024
    MAX_SIGNIFICANT = 19
    # Digits that int64 holds in any case.
    MOST_PLAIN_DIGITS = 18

cdef extern from *:
    """
    #include <stdint.h>
    static const uint64_t alphapulse_powers[20] = {
        1u, 10u, 100u, 1000u, 10000u, 100000u,
        1000000u, 10000000u, 100000000u, 1000000000u,
        10000000000u, 100000000000u, 1000000000000u, 10000000000000u,
        100000000000000u, 1000000000000000u, 10000000000000000u,
        100000000000000000u, 1000000000000000000u, 10000000000000000000u,
    };
    """
    # Powers of ten, 10**0 to 10**19.
    const uint64_t[20] POWERS "alphapulse_powers"
    const int64_t INT64_LARGEST "INT64_MAX"

cdef enum Problem:
    OK = 0
    BAD_STRUCTURE
    BAD_DECIMAL
    TOO_PRECISE
    TOO_LARGE
    NEGATIVE
    NOT_POSITIVE
    NO_MEMORY
    TOO_MANY

cdef enum SpanKind:
    ABSENT = 0
    NUMBER
    STRING
    OTHER


cdef struct Span:
    const unsigned char* start
    Py_ssize_t length
    SpanKind kind


cdef struct Scan:
    const unsigned char* at
    const unsigned char* end
    # What went wrong, filled in before a function returns a problem.
    Span culprit
    const char* why
    const char* field
    int allowed
    # The number that has the most decimal places of those that have too many, as far as they are
    # in the field of the first such number; none while `precise_field` is NULL.
    Span precise
    const char* precise_field
    int needed
    int precise_allowed


cdef inline void skip_space(Scan* scan) noexcept nogil:
    while scan.at < scan.end and (
        scan.at[0] == c" " or scan.at[0] == c"\n" or scan.at[0] == c"\r" or scan.at[0] == c"\t"
    ):
        scan.at += 1


cdef inline Problem malformed(Scan* scan, const char* why) noexcept nogil:
    """The JSON is wrong at the current position."""
    scan.culprit.start = scan.at
    scan.culprit.length = scan.end - scan.at
    scan.why = why
    return BAD_STRUCTURE


cdef inline Problem expect(Scan* scan, unsigned char character, const char* why) noexcept nogil:
    skip_space(scan)
    if scan.at == scan.end or scan.at[0] != character:
        return malformed(scan, why)
    scan.at += 1
    return OK


cdef inline bint is_hex(unsigned char c) noexcept nogil:
    return c"0" <= c <= c"9" or c"a" <= c <= c"f" or c"A" <= c <= c"F"


cdef inline Problem scan_escape(Scan* scan) noexcept nogil:
    """From a backslash to after its escape."""
    cdef int i
    if scan.end - scan.at < 2:
        return malformed(scan, b"a string is cut off")
    if scan.at[1] == c"u":
        if scan.end - scan.at < 6:
            return malformed(scan, b"a string is cut off")
        for i in range(2, 6):
            if not is_hex(scan.at[i]):
                return malformed(scan, b"is no escape")
        scan.at += 6
        return OK
    if scan.at[1] in (c'"', c"\\", c"/", c"b", c"f", c"n", c"r", c"t"):
        scan.at += 2
        return OK
    return malformed(scan, b"is no escape")


cdef inline Problem scan_string(Scan* scan, Span* span) noexcept nogil:
    """From an opening quote to after the closing one; the span leaves both out."""
    scan.at += 1
    span.start = scan.at
    span.kind = STRING
    while scan.at < scan.end:
        if scan.at[0] == c'"':
            span.length = scan.at - span.start
            scan.at += 1
            return OK
        if scan.at[0] == c"\\":
            if scan_escape(scan) != OK:
                return BAD_STRUCTURE
        elif scan.at[0] < 0x20:
            return malformed(scan, b"is a control character in a string")
        else:
            scan.at += 1
    return malformed(scan, b"a string is cut off")


cdef inline bint is_digit(const unsigned char* at, const unsigned char* end) noexcept nogil:
    return at < end and c"0" <= at[0] <= c"9"


cdef inline bint is_json_number(const unsigned char* at, const unsigned char* end) noexcept nogil:
    if at < end and at[0] == c"-":
        at += 1
    if not is_digit(at, end):
        return False
    if at[0] == c"0":
        at += 1
    else:
        while is_digit(at, end):
            at += 1
    if at < end and at[0] == c".":
        at += 1
        if not is_digit(at, end):
            return False
        while is_digit(at, end):
            at += 1
    if at < end and (at[0] == c"e" or at[0] == c"E"):
        at += 1
        if at < end and (at[0] == c"+" or at[0] == c"-"):
            at += 1
        if not is_digit(at, end):
            return False
        while is_digit(at, end):
            at += 1
    return at == end


cdef inline bint in_bare_token(unsigned char c) noexcept nogil:
    return (
        c"0" <= c <= c"9" or c"a" <= c <= c"z" or c"A" <= c <= c"Z"
        or c == c"." or c == c"-" or c == c"+" or c == c"_"
    )


cdef inline bint is_literal(const Span* span) noexcept nogil:
    if span.length == 4:
        return memcmp(span.start, b"true", 4) == 0 or memcmp(span.start, b"null", 4) == 0
    return span.length == 5 and memcmp(span.start, b"false", 5) == 0


cdef inline Problem scan_bare(Scan* scan, Span* span) noexcept nogil:
    """A number, ``true``, ``false`` or ``null``."""
    span.start = scan.at
    while scan.at < scan.end and in_bare_token(scan.at[0]):
        scan.at += 1
    span.length = scan.at - span.start
    if span.length == 0:
        return malformed(scan, b"is no JSON value")
    if is_json_number(span.start, scan.at):
        span.kind = NUMBER
        return OK
    if is_literal(span):
        span.kind = OTHER
        return OK
    scan.culprit = span[0]
    return BAD_DECIMAL


cdef inline Problem scan_nested(Scan* scan, int nesting) noexcept nogil:
    """A list or an object whose content doesn't matter."""
    cdef bint keyed = scan.at[0] == c"{"
    cdef unsigned char close = c"}" if keyed else c"]"
    cdef Span ignored
    cdef Problem problem
    if nesting >= MAX_NESTING:
        return malformed(scan, b"is nested too deeply")
    scan.at += 1
    skip_space(scan)
    if scan.at < scan.end and scan.at[0] == close:
        scan.at += 1
        return OK
    while True:
        if keyed:
            problem = scan_key(scan, &ignored)
            if problem != OK:
                return problem
        problem = scan_value(scan, &ignored, nesting + 1)
        if problem != OK:
            return problem
        skip_space(scan)
        if scan.at < scan.end and scan.at[0] == close:
            scan.at += 1
            return OK
        if expect(scan, c",", b"expected a comma or the end of a list or object") != OK:
            return BAD_STRUCTURE


cdef inline Problem scan_key(Scan* scan, Span* key) noexcept nogil:
    """An object's key and the colon after it."""
    skip_space(scan)
    if scan.at == scan.end or scan.at[0] != c'"':
        return malformed(scan, b"expected a key")
    if scan_string(scan, key) != OK:
        return BAD_STRUCTURE
    return expect(scan, c":", b"expected a colon")


cdef inline Problem scan_value(Scan* scan, Span* span, int nesting) noexcept nogil:
    """Any JSON value."""
    cdef Problem problem
    skip_space(scan)
    if scan.at == scan.end:
        return malformed(scan, b"the list is cut off")
    if scan.at[0] == c'"':
        return scan_string(scan, span)
    if scan.at[0] == c"[" or scan.at[0] == c"{":
        span.start = scan.at
        span.kind = OTHER
        problem = scan_nested(scan, nesting)
        span.length = scan.at - span.start
        return problem
    return scan_bare(scan, span)


cdef inline Problem read_exponent(const unsigned char* at, const unsigned char* end,
                           int* exponent) noexcept nogil:
    """What follows the ``e``: a sign or none, one to four digits, nothing else."""
    cdef bint negative = False
    cdef int value = 0
    if at < end and (at[0] == c"+" or at[0] == c"-"):
        negative = at[0] == c"-"
        at += 1
    if not 1 <= end - at <= 4:
        return BAD_DECIMAL
    while at < end:
        if not is_digit(at, end):
            return BAD_DECIMAL
        value = value * 10 + (at[0] - c"0")
        at += 1
    exponent[0] = -value if negative else value
    return OK


cdef inline Problem read_decimal(const unsigned char* at, Py_ssize_t length, int exponent,
                          int64_t* value, int* needed) noexcept nogil:
    """Scaled integer of a decimal text that must not be negative."""
    cdef const unsigned char* end = at + length
    cdef bint negative = False, point = False
    # `mantissa` holds the first 19 significant digits of `significant`; `zeros` end the text.
    cdef uint64_t mantissa = 0
    cdef int digits = 0, significant = 0, zeros = 0, places = 0, power = 0, shift
    cdef unsigned char digit
    if length > MAX_NUMBER_LENGTH:
        return BAD_DECIMAL
    if at < end and (at[0] == c"-" or at[0] == c"+"):
        negative = at[0] == c"-"
        at += 1
    while at < end:
        digit = at[0] - c"0"
        if digit <= 9:
            digits += 1
            places += point
            zeros = 0 if digit else zeros + 1
            if mantissa or digit:
                significant += 1
                if significant <= MAX_SIGNIFICANT:
                    mantissa = mantissa * 10 + digit
        elif at[0] == c"." and not point:
            point = True
        else:
            break
        at += 1
    if digits == 0:
        return BAD_DECIMAL
    if at < end:
        if at[0] != c"e" and at[0] != c"E":
            return BAD_DECIMAL
        if read_exponent(at + 1, end, &power) != OK:
            return BAD_DECIMAL
    if mantissa == 0:
        value[0] = 0
        return OK
    shift = exponent - places + power
    if shift < 0 or shift > 18 or significant > MAX_SIGNIFICANT:
        # Leave out the zeros that end the text, then it may fit after all.
        shift += zeros
        if shift < 0:
            needed[0] = exponent - shift
            return TOO_PRECISE
        significant -= zeros
        if significant > MAX_SIGNIFICANT:
            return TOO_LARGE
        mantissa //= POWERS[min(significant + zeros, MAX_SIGNIFICANT) - significant]
        if shift > 18:
            return TOO_LARGE
    if mantissa > <uint64_t>INT64_LARGEST // POWERS[shift]:
        return TOO_LARGE
    if negative:
        return NEGATIVE
    value[0] = <int64_t>(mantissa * POWERS[shift])
    return OK


cdef inline bint take_plain_number(const unsigned char** at, int exponent,
                                   int64_t* value) noexcept nogil:
    """Step over an everyday number, in quotes or not, which `read_decimal` would read the same.

    It has digits before its point, no sign and no exponent; zeros may go beyond the decimal places
    that there are. Looks at 42 bytes at most, and minds no end: so many must be there.
    """
    cdef const unsigned char* text = at[0]
    cdef const unsigned char* first
    cdef bint quoted = text[0] == c'"'
    cdef int64_t number = 0
    cdef Py_ssize_t length
    cdef unsigned char digit
    text += quoted
    first = text
    while True:
        digit = text[0] - c"0"
        if digit > 9:
            break
        number = number * 10 + digit
        text += 1
        if text - first > MOST_PLAIN_DIGITS:
            return False
    length = text - first
    if length == 0 or length + exponent > MOST_PLAIN_DIGITS or (first[0] == c"0" and length > 1):
        return False
    if text[0] == c".":
        text += 1
        first = text
        while text - first < exponent:
            digit = text[0] - c"0"
            if digit > 9:
                break
            number = number * 10 + digit
            text += 1
        length = text - first
        while text[0] == c"0" and text - first < MOST_PLAIN_DIGITS:
            text += 1
        if text == first:
            return False
        exponent -= <int>length
    if quoted:
        if text[0] != c'"':
            return False
        text += 1
    if text[0] != c"," and text[0] != c"}" and text[0] != c"]":
        return False
    value[0] = number * <int64_t>POWERS[exponent]
    at[0] = text
    return True
