"""Which pairs the generated market trades, with their increments."""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

import msgspec

from alphapulse.symbols import normalize_symbol


class PairSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One pair, the same at every venue. Prices and sizes are scaled by the exponents."""

    base: str
    quote: str
    price_exponent: int
    """Decimal places of prices."""
    size_exponent: int
    """Decimal places of sizes."""
    price: int
    """Where the price starts from, scaled."""
    tick: int = 1
    """Smallest price step, scaled."""
    lot: int = 1
    """Smallest size step, scaled."""
    size: int
    """Typical size of a level, scaled."""

    @property
    def symbol(self) -> str:
        """Unified symbol, ``BASE-QUOTE``."""
        return f"{self.base}-{self.quote}"


# base, price, decimal places of the price, tick, decimal places of the size, lot, typical size
_KNOWN: dict[str, tuple[int, int, int, int, int, int]] = {
    "BTC": (600_000, 1, 1, 8, 1, 25_000_000),
    "ETH": (300_000, 2, 1, 8, 1, 300_000_000),
    "SOL": (15_000, 2, 1, 8, 1_000, 4_000_000_000),
    "XRP": (60_000, 5, 1, 8, 1_000_000, 200_000_000_000),
    "DOGE": (1_200_000, 7, 1, 8, 1_000_000, 900_000_000_000),
    "ADA": (450_000, 6, 1, 8, 10_000, 300_000_000_000),
    "LTC": (7_500, 2, 1, 8, 100_000, 3_000_000_000),
    "AVAX": (2_700, 2, 1, 8, 1_000_000, 8_000_000_000),
    "LINK": (14_000, 3, 1, 8, 1_000_000, 10_000_000_000),
    "DOT": (63_000, 4, 1, 8, 1_000_000, 20_000_000_000),
}


def pair_spec(symbol: str) -> PairSpec:
    """Spec of a pair by its unified symbol; one that isn't well known gets a made-up price.

    Raises
    ------
    ValueError
        the text is no symbol
    """
    base, _, quote = normalize_symbol(symbol).partition("-")
    known = _KNOWN.get(base) if quote.startswith("USD") else None
    if known is None:
        seed = crc32(f"{base}-{quote}".encode())
        places = 2 + seed % 5
        known = (100_000 + seed % 900_000, places, 1, 8, 100_000, 10 ** (4 + places) * 5)
    price, price_exponent, tick, size_exponent, lot, size = known
    return PairSpec(
        base=base,
        quote=quote,
        price_exponent=price_exponent,
        size_exponent=size_exponent,
        price=price,
        tick=tick,
        lot=lot,
        size=size,
    )


def pair_specs(symbols: int | Iterable[str | PairSpec]) -> tuple[PairSpec, ...]:
    """Specs of the given symbols, or of that many: well known ones, then made-up ones.

    Raises
    ------
    ValueError
        there is none, a text is no symbol, or a symbol occurs twice
    """
    if isinstance(symbols, int):
        names = [f"{base}-USD" for base in _KNOWN][:symbols]
        names += [f"T{number:04d}-USD" for number in range(len(names), symbols)]
        symbols = names
    specs = tuple(s if isinstance(s, PairSpec) else pair_spec(s) for s in symbols)
    if not specs:
        raise ValueError("a market needs at least one symbol")
    seen: set[str] = set()
    for spec in specs:
        if spec.symbol in seen:
            raise ValueError(f"{spec.symbol} is listed twice")
        seen.add(spec.symbol)
    return specs
