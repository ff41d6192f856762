"""Fields of everyday frames: printable ASCII without escapes, so that a string ends at a quote.

What a helper here doesn't read isn't wrong, only not everyday. Nothing is read beyond the end.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from alphapulse._core.scan cimport OK, STRING, Scan, Span, scan_value, skip_space

cdef enum:
    MAX_INTEGER_DIGITS = 18
    PREFIX_WORDS_BYTES = 16
    DATE_TO_MINUTE = 17

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>

    typedef signed char alphapulse_bytes __attribute__((vector_size(16)));

    /* Nonzero bytes where one is above 0x7f, below 0x20, or a backslash. */
    static inline alphapulse_bytes alphapulse_odd(const unsigned char *at) {
        alphapulse_bytes bytes;
        memcpy(&bytes, at, 16);
        return (alphapulse_bytes)((bytes < 0x20) | (bytes == '\\\\'));
    }

    static inline int alphapulse_plain(const unsigned char *at, size_t length) {
        alphapulse_bytes odd = {0};
        unsigned char rest[16];
        uint64_t words[2];
        size_t i;
        for (i = 0; i + 32 <= length; i += 32)
            odd |= alphapulse_odd(at + i) | alphapulse_odd(at + i + 16);
        if (i + 16 <= length) {
            odd |= alphapulse_odd(at + i);
            i += 16;
        }
        if (i < length) {
            if (length >= 16) {
                odd |= alphapulse_odd(at + length - 16);
            } else {
                memset(rest, ' ', 16);
                memcpy(rest, at, length);
                odd |= alphapulse_odd(rest);
            }
        }
        memcpy(words, &odd, 16);
        return (words[0] | words[1]) == 0;
    }

    /* Loaded from 16 - n on: ones in the first n bytes. */
    static const unsigned char alphapulse_masks[32] = {
        255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    };
    """
    bint is_plain_text "alphapulse_plain"(const unsigned char* at, size_t length) noexcept nogil
    const unsigned char[32] MASKS "alphapulse_masks"


cdef struct Words:
    # The first 16 bytes of a text, zeros where it is shorter.
    uint64_t first
    uint64_t second


cdef struct Prefix:
    Words words
    Words masks
    const unsigned char* text
    Py_ssize_t length


cdef struct Minute:
    # The time text read last, as far as the colon before its seconds, and what it stands for.
    unsigned char text[DATE_TO_MINUTE]
    int64_t ns


cdef inline Words load_words(const unsigned char* at) noexcept nogil:
    cdef Words words
    memcpy(&words.first, at, 8)
    memcpy(&words.second, at + 8, 8)
    return words


cdef inline Words mask_words(Py_ssize_t length) noexcept nogil:
    return load_words(
        MASKS + PREFIX_WORDS_BYTES
        - (length if length < PREFIX_WORDS_BYTES else PREFIX_WORDS_BYTES)
    )


cdef inline Words words_of(const unsigned char* at, Py_ssize_t length,
                           const unsigned char* end) noexcept nogil:
    """The beginning of a text in a buffer that ends at `end`."""
    cdef unsigned char[PREFIX_WORDS_BYTES] copied
    cdef Words words, masks
    if end - at >= PREFIX_WORDS_BYTES:
        words = load_words(at)
        masks = mask_words(length)
        words.first &= masks.first
        words.second &= masks.second
        return words
    memcpy(copied, MASKS + PREFIX_WORDS_BYTES, PREFIX_WORDS_BYTES)
    memcpy(copied, at, <size_t>(length if length < PREFIX_WORDS_BYTES else PREFIX_WORDS_BYTES))
    return load_words(copied)


cdef inline Prefix prefix_of(const unsigned char* text, Py_ssize_t length) noexcept nogil:
    cdef Prefix prefix
    prefix.text = text
    prefix.length = length
    prefix.words = words_of(text, length, text + length)
    prefix.masks = mask_words(length)
    return prefix


cdef inline bint skip_prefix(Scan* scan, const Prefix* prefix) noexcept nogil:
    """Go behind a text if it comes next."""
    cdef Py_ssize_t left = scan.end - scan.at
    cdef Words words
    if left >= PREFIX_WORDS_BYTES:
        words = load_words(scan.at)
        if (
            (words.first ^ prefix.words.first) & prefix.masks.first
            | (words.second ^ prefix.words.second) & prefix.masks.second
        ):
            return False
        if prefix.length <= PREFIX_WORDS_BYTES:
            scan.at += prefix.length
            return True
    if left < prefix.length or memcmp(scan.at, prefix.text, <size_t>prefix.length) != 0:
        return False
    scan.at += prefix.length
    return True


cdef inline bint skip_character(Scan* scan, unsigned char character) noexcept nogil:
    """Go behind a character if it comes next, white space apart."""
    if scan.at < scan.end and scan.at[0] == character:
        scan.at += 1
        return True
    skip_space(scan)
    if scan.at < scan.end and scan.at[0] == character:
        scan.at += 1
        return True
    return False


cdef inline bint read_string(Scan* scan, Span* span) noexcept nogil:
    """A string; the span leaves its quotes out."""
    cdef const unsigned char* end
    if not skip_character(scan, c'"'):
        return False
    end = <const unsigned char*>memchr(scan.at, c'"', <size_t>(scan.end - scan.at))
    if end is NULL:
        return False
    span.start = scan.at
    span.length = end - scan.at
    span.kind = STRING
    scan.at = end + 1
    return True


cdef inline bint read_value(Scan* scan, Span* span) noexcept nogil:
    """Any JSON value."""
    skip_space(scan)
    if scan.at < scan.end and scan.at[0] == c'"':
        return read_string(scan, span)
    return scan_value(scan, span, 1) == OK


cdef inline bint read_digits(Scan* scan, int64_t* value) noexcept nogil:
    """One to 18 decimal digits, as many as there are."""
    cdef const unsigned char* start = scan.at
    cdef int64_t result = 0
    cdef unsigned char digit
    while scan.at < scan.end:
        digit = scan.at[0] - c"0"
        if digit > 9:
            break
        if scan.at - start >= MAX_INTEGER_DIGITS:
            return False
        result = result * 10 + digit
        scan.at += 1
    value[0] = result
    return scan.at != start


cdef inline bint read_integer(Scan* scan, int64_t* value) noexcept nogil:
    """A JSON integer without sign, of at most 18 digits; what follows it is not looked at."""
    cdef const unsigned char* start
    skip_space(scan)
    start = scan.at
    return read_digits(scan, value) and (start[0] != c"0" or scan.at - start == 1)


cdef inline bint read_quoted_integer(Scan* scan, int64_t* value) noexcept nogil:
    """A string of one to 18 digits."""
    if not skip_character(scan, c'"') or not read_digits(scan, value):
        return False
    if scan.at == scan.end or scan.at[0] != c'"':
        return False
    scan.at += 1
    return True


cdef inline int two_digits(const unsigned char* at) noexcept nogil:
    """Value of two decimal digits; a negative number if they aren't."""
    cdef unsigned char tens = at[0] - c"0", ones = at[1] - c"0"
    return tens * 10 + ones if tens <= 9 and ones <= 9 else -1


cdef inline int days_in(int year, int month) noexcept nogil:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


cdef inline int64_t days_since_epoch(int year, int month, int day) noexcept nogil:
    """Days from 1970-01-01, by the Gregorian calendar with years that begin in March."""
    cdef int shifted = year - (month <= 2)
    cdef int of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return (
        <int64_t>shifted * 365 + shifted // 4 - shifted // 100 + shifted // 400
        + of_year - 719468
    )


cdef inline bint read_minute(const unsigned char* at, Minute* minute) noexcept nogil:
    """``2021-04-17T16:49:`` of the years 1971 to 2261."""
    cdef int century = two_digits(at), year = two_digits(at + 2), month = two_digits(at + 5)
    cdef int day = two_digits(at + 8), hour = two_digits(at + 11), past = two_digits(at + 14)
    if (
        at[4] != c"-" or at[7] != c"-" or at[10] != c"T" or at[13] != c":" or at[16] != c":"
        or century < 0 or year < 0
    ):
        return False
    year += century * 100
    if not (
        1971 <= year <= 2261 and 1 <= month <= 12 and 1 <= day <= days_in(year, month)
        and 0 <= hour <= 23 and 0 <= past <= 59
    ):
        return False
    memcpy(minute.text, at, DATE_TO_MINUTE)
    minute.ns = (
        ((days_since_epoch(year, month, day) * 24 + hour) * 60 + past) * <int64_t>60_000_000_000
    )
    return True


cdef inline bint read_iso_time(Scan* scan, Minute* minute, int64_t* value) noexcept nogil:
    """``"2021-04-17T16:49:23.327760Z"``; other forms go the long way.

    Parameters
    ----------
    minute : what the latest time had, since most come in the same minute; zeros at first
    """
    cdef const unsigned char* at
    cdef int second, places = 0
    cdef int64_t fraction = 0
    cdef unsigned char digit
    if not skip_character(scan, c'"') or scan.end - scan.at < 21:
        return False
    at = scan.at
    if memcmp(at, minute.text, DATE_TO_MINUTE) != 0 and not read_minute(at, minute):
        return False
    second = two_digits(at + DATE_TO_MINUTE)
    if not 0 <= second <= 59:
        return False
    at += DATE_TO_MINUTE + 2
    if at[0] == c".":
        at += 1
        while at < scan.end and places < 9:
            digit = at[0] - c"0"
            if digit > 9:
                break
            fraction = fraction * 10 + digit
            places += 1
            at += 1
        if places == 0:
            return False
        while places < 9:
            fraction *= 10
            places += 1
    if scan.end - at < 2 or at[0] != c"Z" or at[1] != c'"':
        return False
    scan.at = at + 2
    value[0] = minute.ns + second * <int64_t>1_000_000_000 + fraction
    return True


cdef inline bint read_epoch_time(Scan* scan, int64_t* value) noexcept nogil:
    """Milliseconds, or microseconds, told by their size."""
    cdef int64_t number
    if not read_integer(scan, &number) or number == 0:
        return False
    if number < <int64_t>100_000_000_000_000:
        if number > <int64_t>9_223_372_036_854:
            return False
        value[0] = number * 1_000_000
    else:
        if number > <int64_t>9_223_372_036_854_775:
            return False
        value[0] = number * 1_000
    return True
