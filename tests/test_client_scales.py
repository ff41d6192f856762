"""JSON's numbers become scaled integers without loss, whatever digits come in whatever order."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.client.scales import Scales, scaled
from alphapulse.errors import FixedPointError, RangeError
from alphapulse.fixed import format_decimal
from alphapulse.model import Instrument

NUMBERS = st.builds(format_decimal, st.integers(1, 10**9), st.integers(0, 9))


def numbers(price: str, size: str, scales: Scales) -> tuple[Instrument, int, int]:
    def scale(instrument: Instrument) -> tuple[Instrument, int, int]:
        return (
            instrument,
            scaled(msgspec.Raw(price.encode()), instrument.price_exponent, "price"),
            scaled(msgspec.Raw(size.encode()), instrument.size_exponent, "size"),
        )

    return scales.fit("kraken", "BTC-USD", scale)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=20))
def test_numbers_are_exact_at_the_finest_scale_so_far(pairs: list[tuple[str, str]]) -> None:
    scales = Scales()
    exponents = (0, 0)
    for price, size in pairs:
        instrument, scaled_price, scaled_size = numbers(price, size, scales)
        assert instrument.price(scaled_price) == Decimal(price)
        assert instrument.size(scaled_size) == Decimal(size)
        now = instrument.price_exponent, instrument.size_exponent
        assert now >= exponents
        exponents = now
        assert (instrument.base, instrument.quote) == ("BTC", "USD")


def test_a_scale_that_is_too_fine_is_begun_anew() -> None:
    scales = Scales()
    numbers("0.000000000000000001", "1", scales)
    instrument, price, _ = numbers("9000000000000000000", "0.5", scales)
    assert instrument.price(price) == Decimal("9e18")
    with pytest.raises(RangeError):
        numbers("90000000000000000000", "1", scales)
    with pytest.raises(FixedPointError):
        numbers("true", "1", scales)
