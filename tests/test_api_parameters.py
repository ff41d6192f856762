"""Times in requests: any exact number of seconds, any ISO 8601 time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from alphapulse.api.parameters import END_TIME, START_TIME, Limits, Parameters
from alphapulse.api.problems import Problem
from alphapulse.fixed import INT64_MAX, format_decimal

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def start_of(text: str, *, escaped: bool = True) -> int | None:
    value = quote(text) if escaped else text
    query = f"start_time={value}".encode()
    request = Request({"type": "http", "query_string": query, "headers": []})
    return Parameters(request, (START_TIME, END_TIME), Limits(most=1)).span()[0]


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_seconds_are_exact(time_ns: int) -> None:
    assert start_of(format_decimal(time_ns, 9)) == time_ns


@given(
    st.integers(-8 * 10**15, 8 * 10**15),
    st.integers(-23 * 60, 23 * 60),
    st.sampled_from([" ", "T"]),
    st.booleans(),
)
def test_iso_8601_times_are_exact(
    microseconds: int, minutes: int, separator: str, escaped: bool
) -> None:
    zone = timezone(timedelta(minutes=minutes))
    moment = (EPOCH + timedelta(microseconds=microseconds)).astimezone(zone)
    text = moment.isoformat(separator)
    assert start_of(text, escaped=escaped or separator == " ") == microseconds * 1000


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-11-21t10:00:00.25z", "2026-11-21T10:00:00.25Z"),
        ("2026-11-21T10:00:00,25Z", "2026-11-21T10:00:00.25Z"),
        ("2026-11-21T10:00", "2026-11-21T10:00:00Z"),
        ("2026-11-21T10:00:00+0530", "2026-11-21T04:30:00Z"),
    ],
)
def test_iso_8601_has_several_ways_of_writing_a_time(text: str, same: str) -> None:
    assert start_of(text) == start_of(same)


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("9999-12-31T23:59:59.999999", INT64_MAX),
        ("2262-04-11T23:47:17Z", INT64_MAX),
        ("2262-04-11T23:47:16.854775806Z", INT64_MAX - 1),
        ("1677-09-21T00:12:43", -INT64_MAX),
        ("0001-01-01T00:00:00+14:00", -INT64_MAX),
    ],
)
def test_a_date_beyond_what_can_be_kept_is_the_nearest_that_can(text: str, time_ns: int) -> None:
    assert start_of(text) == time_ns


@given(st.text(max_size=30).filter(lambda text: not re.match(r"[+-]?\d", text)))
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(Problem) as caught:
        start_of(text)
    assert (caught.value.parameter, caught.value.status) == ("start_time", 400)


@pytest.mark.parametrize("text", ["", "1e9", "1_000", "0x10", "12:00", "9223372037", "inf", "١"])
def test_near_misses_are_refused(text: str) -> None:
    with pytest.raises(Problem):
        start_of(text)


def test_milliseconds_are_told_from_seconds() -> None:
    with pytest.raises(Problem, match=r"'1690730998343' is out.*not milliseconds"):
        start_of("1690730998343")


def test_a_span_that_ends_before_it_begins_is_told_with_both_ends() -> None:
    query = b"start_time=2026-11-21&end_time=1690730998.5"
    request = Request({"type": "http", "query_string": query, "headers": []})
    with pytest.raises(Problem, match=r"'2026-11-21' is after end_time, '1690730998\.5'") as caught:
        Parameters(request, (START_TIME, END_TIME), Limits(most=1)).span()
    assert caught.value.parameter == "start_time"
