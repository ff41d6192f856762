"""Clocks. All times are integer nanoseconds; wall times count from the Unix epoch."""

from __future__ import annotations

import re
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
_SECOND = timedelta(seconds=1)


# The fraction belongs to the seconds alone: "12:30.5" is half a minute nowhere in venues' messages.
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?)"
    r"(?:(?<=:\d\d:\d\d)\.(\d{1,9}))?"
    r"(Z|[+-]\d\d:?\d\d)?",
    re.ASCII,
)


def parse_iso8601(text: str) -> int:
    """Nanoseconds since the epoch of a venue's ISO 8601 time, to the last digit given.

    Accepts any number of digits after the second up to nine, ``Z`` or a numeric offset; a time
    without either is taken as UTC, a date alone as its midnight.

    Raises
    ------
    ValueError
        the text is no such time
    """
    # datetime keeps microseconds only, and 3.11 refuses some digit counts: leave the fraction out.
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:80]!r} is no ISO 8601 time with up to 9 fractional digits")
    head, fraction, zone = match.groups("")
    moment = datetime.fromisoformat(head + zone)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = (moment - _EPOCH) // _SECOND
    return seconds * NS_PER_SECOND + int(fraction.ljust(9, "0") or 0)
