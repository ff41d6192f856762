"""Numbers and times as the venues write them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from alphapulse.clock import NS_PER_SECOND


def fixed_text(value: int, exponent: int) -> str:
    """Decimal text with exactly that many decimal places, trailing zeros kept."""
    if not exponent:
        return str(value)
    digits = str(value)
    if len(digits) <= exponent:
        digits = digits.rjust(exponent + 1, "0")
    return f"{digits[:-exponent]}.{digits[-exponent:]}"


@lru_cache(maxsize=1024)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def iso_text(t_ns: int, digits: int = 6) -> str:
    """ISO 8601 in UTC with that many fractional digits, 1 to 9."""
    second, rest = divmod(t_ns, NS_PER_SECOND)
    return f"{_second_text(second)}.{rest // 10 ** (9 - digits):0{digits}d}Z"
