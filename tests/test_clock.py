"""Clocks, and ISO 8601 times to the last digit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.clock import NO_TIME, NS_PER_SECOND, monotonic_ns, parse_iso8601, wall_ns

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

moments = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=0)
)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
fractions = st.text("0123456789", min_size=1, max_size=9)


def seconds_of(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(seconds=1)


@given(moments, zones, fractions)
def test_every_digit_counts_in_every_zone(moment: datetime, zone: timezone, fraction: str) -> None:
    aware = moment.replace(tzinfo=zone)
    head, offset = aware.isoformat()[:19], aware.isoformat()[19:]
    nanoseconds = int(fraction.ljust(9, "0"))
    expected = seconds_of(aware) * NS_PER_SECOND + nanoseconds
    assert parse_iso8601(f"{head}.{fraction}{offset}") == expected


@given(moments)
def test_without_a_zone_or_with_z_it_is_utc(moment: datetime) -> None:
    expected = seconds_of(moment.replace(tzinfo=UTC)) * NS_PER_SECOND
    text = moment.isoformat()
    assert parse_iso8601(text) == parse_iso8601(f"{text}Z") == expected
    assert parse_iso8601(f"{text}.5Z") == expected + NS_PER_SECOND // 2


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("2023-07-30T15:29:58.343415Z", 1690730998343415000),
        ("1969-12-31T23:59:59.5Z", -NS_PER_SECOND // 2),
        ("2024-02-29 12:00:00+00:00", 1709208000 * NS_PER_SECOND),
    ],
)
def test_known_times(text: str, nanoseconds: int) -> None:
    assert parse_iso8601(text) == nanoseconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "2024-02-30T00:00:00Z", "2024-01-01T25:00:00Z", "2024-01-01T00:00:00.Z"),
        *("2024-01-01T00:00:00.1234567890Z", "2024-01-01T00:00:00.1x", "2024-01-01T00:00:00.1.2Z"),
        *("2024-01-01T00:00:00.+5Z", "1690730998.343415"),
        *("2024-01-01.5", "2024-01-01T00:00.5Z", "2024-01-01T00:00:00.\u0661Z", "2024-01-01Z"),
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_iso8601(text)


@given(st.text(alphabet="0123456789-:T.Z+ \u0661\u00b2x", max_size=40))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        nanoseconds = parse_iso8601(text)
    except ValueError:
        return
    assert isinstance(nanoseconds, int)


def test_no_time_lies_before_all_times() -> None:
    assert NO_TIME == -(2**63)
    assert parse_iso8601("1900-01-01T00:00:00Z") > NO_TIME


def test_clocks_count_nanoseconds() -> None:
    assert parse_iso8601("2024-01-01") < wall_ns() < parse_iso8601("2200-01-01")
    assert monotonic_ns() <= monotonic_ns()
