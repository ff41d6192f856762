"""Clocks. All times are integer nanoseconds; wall times count from the Unix epoch."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

NO_TIME = -(2**63)
"""Stands for a time that the venue didn't give (``INT64_MIN``, as on the wire)."""

NS_PER_SECOND = 1_000_000_000

wall_ns = time.time_ns
"""Wall time now, in nanoseconds since the epoch."""

monotonic_ns = time.monotonic_ns
"""Monotonic time now, in nanoseconds; only differences mean something."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_iso8601(text: str) -> int:
    """Nanoseconds since the epoch of a venue's ISO 8601 time, to the last digit given.

    Accepts any number of digits after the second up to nine, ``Z`` or a numeric offset; a time
    without either is taken as UTC.

    Raises
    ------
    ValueError
        the text is no such time
    """
    # datetime keeps microseconds only, and 3.11 refuses some digit counts: cut the fraction out.
    head, point, tail = text.partition(".")
    fraction = ""
    if point:
        digits = 0
        while digits < len(tail) and tail[digits].isdigit():
            digits += 1
        fraction, zone = tail[:digits], tail[digits:]
        if not 1 <= digits <= 9:
            raise ValueError(f"{text!r} is no ISO 8601 time with 1 to 9 fractional digits")
        head += zone
    moment = datetime.fromisoformat(head)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    return seconds * NS_PER_SECOND + int(fraction.ljust(9, "0") or 0)
