"""Decimal text to scaled integers and back, held against ``decimal.Decimal``."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.errors import DecimalSyntaxError, FixedPointError, PrecisionError, RangeError
from alphapulse.fixed import (
    INT64_MAX,
    INT64_MIN,
    MAX_EXPONENT,
    decimal_places,
    format_decimal,
    parse_decimal,
    rescale,
    split_decimal,
    to_decimal,
)

exponents = st.integers(0, MAX_EXPONENT)
scaled = st.integers(INT64_MIN + 1, INT64_MAX)


@st.composite
def numbers(draw: st.DrawFn) -> str:
    """Decimal text of every form that venues might use."""
    sign = draw(st.sampled_from(["", "-", "+"]))
    whole = draw(st.text("0123456789", max_size=24))
    fraction = draw(st.none() | st.text("0123456789", max_size=24))
    if not whole and not fraction:
        whole = "0"
    power = draw(st.none() | st.integers(-30, 30))
    text = sign + whole + ("" if fraction is None else f".{fraction}")
    if power is not None:
        text += draw(st.sampled_from(["e", "E"])) + draw(
            st.sampled_from([f"{power}", f"{power:+}"])
        )
    return text


def exact(text: str, exponent: int) -> Decimal:
    """What the text is worth at the exponent, by the standard library."""
    with localcontext(prec=200):
        return Decimal(text).scaleb(exponent)


@given(numbers(), exponents)
def test_parsing_gives_the_exact_integer_or_says_why_not(text: str, exponent: int) -> None:
    expected = exact(text, exponent)
    if expected != expected.to_integral_value():
        with pytest.raises(PrecisionError) as caught:
            parse_decimal(text, exponent)
        assert caught.value.allowed == exponent
        needed = exact(text, caught.value.needed)
        assert needed == needed.to_integral_value(), "the exponent named would hold it"
        assert int(needed) % 10 != 0, "and is the smallest that would"
    elif not INT64_MIN < expected <= INT64_MAX:
        with pytest.raises(RangeError):
            parse_decimal(text, exponent)
    else:
        assert parse_decimal(text, exponent) == int(expected)


@given(scaled, exponents)
def test_text_of_an_integer_is_exact_and_plain(value: int, exponent: int) -> None:
    text = format_decimal(value, exponent)
    assert Decimal(text) == Decimal(value).scaleb(-exponent)
    assert parse_decimal(text, exponent) == value
    assert "e" not in text.lower()
    assert not text.endswith(".")
    if "." in text:
        assert not text.endswith("0")
    assert text == "0" or text.lstrip("-")[0] != "0" or text.lstrip("-").startswith("0.")
    assert text != "-0"


@given(scaled, exponents)
def test_decimal_of_an_integer_is_exact(value: int, exponent: int) -> None:
    decimal = to_decimal(value, exponent)
    with localcontext(prec=60):
        assert decimal * 10**exponent == value


@given(numbers())
def test_splitting_leaves_no_trailing_zero(text: str) -> None:
    mantissa, places = split_decimal(text)
    with localcontext(prec=200):
        assert Decimal(mantissa).scaleb(-places) == Decimal(text)
    assert (mantissa, places) == (0, 0) or mantissa % 10 != 0


@given(numbers())
def test_decimal_places_are_the_smallest_exponent_that_does(text: str) -> None:
    places = decimal_places(text)
    at_places = exact(text, places)
    assert at_places == at_places.to_integral_value()
    if places:
        at_fewer = exact(text, places - 1)
        assert at_fewer != at_fewer.to_integral_value()


@given(scaled, exponents, exponents)
def test_rescaling_keeps_the_value_or_refuses(value: int, before: int, after: int) -> None:
    with localcontext(prec=60):
        expected = Decimal(value).scaleb(after - before)
    if expected != expected.to_integral_value():
        with pytest.raises(PrecisionError):
            rescale(value, before, after)
    elif not INT64_MIN < expected <= INT64_MAX:
        with pytest.raises(RangeError):
            rescale(value, before, after)
    else:
        assert rescale(value, before, after) == expected
        assert rescale(rescale(value, before, after), after, before) == value


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", ".", "-", "+", "e5", ".e5", "1e", "1e+", "1.2.3", "--1", "1_000", "1,000"),
        *("NaN", "nan", "Infinity", "-inf", "0x10", " 1", "1 ", "1\n", "\u0661", "1e99999", "null"),
        "9" * 1025,
    ],
)
def test_text_that_is_no_finite_number_is_refused(text: str) -> None:
    with pytest.raises(DecimalSyntaxError) as caught:
        parse_decimal(text, 8)
    assert len(str(caught.value)) < 200
    assert isinstance(caught.value, FixedPointError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("text", ["9" * 400, "1e9999", "-1e9999", "9223372036854775808"])
def test_numbers_beyond_int64_are_refused_without_being_built(text: str) -> None:
    with pytest.raises(RangeError):
        parse_decimal(text, 0)


@given(st.text())
def test_any_text_is_parsed_or_refused_by_name(text: str) -> None:
    shown = text
    try:
        parse_decimal(text, 8)
    except FixedPointError as error:
        shown = error.value
    assert shown == text if len(text) <= 80 else shown in (text, f"{text[:77]}...")


@pytest.mark.parametrize(
    ("text", "exponent", "value"),
    [
        ("29430.2", 1, 294302),
        ("29430.20000000", 1, 294302),
        ("0.18967538", 8, 18967538),
        ("1e-08", 8, 1),
        ("1E3", 0, 1000),
        ("0.00000000", 0, 0),
        ("-0", 0, 0),
        ("0e9999", 18, 0),
        (".5", 1, 5),
        ("5.", 0, 5),
        ("9223372036854775807", 0, INT64_MAX),
        ("-9223372036854775807", 0, -INT64_MAX),
        ("9.223372036854775807", 18, INT64_MAX),
    ],
)
def test_known_values(text: str, exponent: int, value: int) -> None:
    assert parse_decimal(text, exponent) == value


def test_the_smallest_int64_stands_for_no_number() -> None:
    with pytest.raises(RangeError):
        parse_decimal(str(INT64_MIN), 0)
