"""Instruments for JSON clients: decimal texts to scaled integers without knowing the venue's scale.

JSON events have exact decimal digits and no exponents. An instrument begins without decimal places
and is replaced by a finer one whenever a number needs more, as a collector does on a rescale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from alphapulse.errors import PrecisionError, RangeError
from alphapulse.fixed import parse_decimal
from alphapulse.model import Instrument

T = TypeVar("T")


class Scales:
    """The finest instrument so far of each (exchange, symbol); ids are 0."""

    def __init__(self) -> None:
        self._instruments: dict[tuple[str, str], Instrument] = {}

    def instrument(self, exchange: str, symbol: str) -> Instrument:
        """The instrument by whose exponents the symbol's numbers are scaled now."""
        found = self._instruments.get((exchange, symbol))
        if found is None:
            found = self._instruments[exchange, symbol] = Instrument.named(exchange, symbol)
        return found

    def fit(self, exchange: str, symbol: str, scale: Callable[[Instrument], T]) -> T:
        """What `scale` makes of the instrument, which gets the decimal places that are lacking.

        Parameters
        ----------
        scale : raises `PrecisionError`, with its ``field`` set, for want of decimal places

        Raises
        ------
        RangeError
            no scale of 64-bit integers holds the numbers
        """
        coarsened = False
        while True:
            instrument = self.instrument(exchange, symbol)
            try:
                return scale(instrument)
            except PrecisionError as error:
                self._refine(instrument, error)
            except RangeError:
                # Small numbers of earlier may have made the scale too fine for large ones.
                if coarsened:
                    raise
                coarsened = True
                self._instruments[exchange, symbol] = msgspec.structs.replace(
                    instrument, price_exponent=0, size_exponent=0
                )

    def _refine(self, instrument: Instrument, error: PrecisionError) -> None:
        name = "price_exponent" if error.field == "price" else "size_exponent"
        self._instruments[instrument.exchange, instrument.symbol] = msgspec.structs.replace(
            instrument, **{name: error.needed}
        )


def scaled(raw: msgspec.Raw, exponent: int, field: str) -> int:
    """Scaled integer of a JSON number.

    Raises
    ------
    PrecisionError
        with the ``field`` given, where the exponent is too small
    FixedPointError
        it is no number, or one beyond int64
    """
    text = bytes(raw).decode().strip().strip('"')
    try:
        return parse_decimal(text, exponent)
    except PrecisionError as error:
        raise PrecisionError(text, error.needed, exponent, field) from None
