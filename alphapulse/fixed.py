"""Decimal text to scaled int64 and back, exactly.

A value with exponent ``e`` is held as the integer ``n = value * 10**e``: 29430.2 at exponent 1 is
294302. This is the only place in Python that scales; the native core has the same rule in
``_core/levels.pyx``, and property tests drive both with the same text.
"""

from __future__ import annotations

import re
from decimal import Decimal

from alphapulse.errors import DecimalSyntaxError, PrecisionError, RangeError

INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)
MAX_EXPONENT = 18
"""The largest exponent: 10**18 still fits int64."""

_NUMBER = re.compile(r"([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,4}))?", re.ASCII)


def split_decimal(text: str) -> tuple[int, int]:
    """``(mantissa, places)`` with value = mantissa / 10**places and no trailing zero digit.

    ``places`` may be negative: ``"1200"`` gives ``(12, -2)``; zero gives ``(0, 0)``.

    Raises
    ------
    DecimalSyntaxError
        the text is no finite decimal number
    """
    match = _NUMBER.fullmatch(text) if len(text) <= 1024 else None
    if match is None or not (match[2] or match[3]):
        raise DecimalSyntaxError(text, "is no finite decimal number")
    sign, whole, fraction, exponent = match[1], match[2], match[3] or "", match[4]
    digits = (whole + fraction).lstrip("0")
    stripped = digits.rstrip("0")
    if not stripped:
        return 0, 0
    places = len(fraction) - int(exponent or 0) - (len(digits) - len(stripped))
    return int(f"{sign}{stripped}"), places


def parse_decimal(text: str, exponent: int) -> int:
    """Scaled integer of a decimal text; trailing zeros beyond the exponent are no loss.

    Parameters
    ----------
    text : decimal number, exponent notation allowed (``"1e-08"``)
    exponent : decimal places of the instrument, 0 to 18

    Raises
    ------
    DecimalSyntaxError
        the text is no finite decimal number
    PrecisionError
        it has more digits after the point than ``exponent``
    RangeError
        it doesn't fit int64
    """
    mantissa, places = split_decimal(text)
    if places > exponent:
        raise PrecisionError(text, places, exponent)
    # A mantissa has at least one digit, so 19 more can't fit: don't build 10**9999 to find out.
    if mantissa and exponent - places > 19:
        raise RangeError(text, f"doesn't fit int64 at {exponent} decimal places")
    value = mantissa * 10 ** (exponent - places) if mantissa else 0
    if not INT64_MIN < value <= INT64_MAX:
        raise RangeError(text, f"doesn't fit int64 at {exponent} decimal places")
    return value


def decimal_places(text: str) -> int:
    """Decimal places that the text needs, at least 0: the exponent of an increment.

    ``"0.01000"`` gives 2, ``"1e-08"`` gives 8, ``"100"`` gives 0.

    Raises
    ------
    DecimalSyntaxError
        the text is no finite decimal number
    """
    return max(split_decimal(text)[1], 0)


def format_decimal(value: int, exponent: int) -> str:
    """Exact text of a scaled integer: no exponent, no trailing zeros, no bare point."""
    if exponent == 0:
        return str(value)
    if value < 0:
        return f"-{format_decimal(-value, exponent)}"
    whole, part = divmod(value, 10**exponent)
    return f"{whole}.{str(part).zfill(exponent).rstrip('0')}" if part else str(whole)


def to_decimal(value: int, exponent: int) -> Decimal:
    """Exact ``Decimal`` of a scaled integer."""
    return Decimal(value).scaleb(-exponent)


def rescale(value: int, from_exponent: int, to_exponent: int) -> int:
    """The same value at another exponent.

    Raises
    ------
    PrecisionError
        digits would be lost
    RangeError
        the result doesn't fit int64
    """
    return parse_decimal(format_decimal(value, from_exponent), to_exponent)
