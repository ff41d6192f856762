"""Unified symbols, ``BASE-QUOTE``, both ways, by the venue's metadata alone.

Where a quote begins in ``BTCUSDT`` is never guessed: only instruments that the venue has listed
can be looked up. Assets that venues name differently are unified here (``XBT`` is ``BTC``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from alphapulse.errors import SymbolError
from alphapulse.model import Instrument

UNIFIED_ASSETS = {"XBT": "BTC", "XDG": "DOGE"}
"""Venues' own names of assets that go by another name everywhere else."""


def unify_asset(asset: str) -> str:
    """The asset's common name, in upper case: ``xbt`` gives ``BTC``."""
    upper = asset.upper()
    return UNIFIED_ASSETS.get(upper, upper)


def unified_symbol(base: str, quote: str) -> str:
    """``BASE-QUOTE`` of a venue's base and quote assets."""
    return f"{unify_asset(base)}-{unify_asset(quote)}"


def normalize_symbol(text: str) -> str:
    """A unified symbol as users may write it: ``btc/usd`` and ``XBT-USD`` give ``BTC-USD``.

    Raises
    ------
    ValueError
        the text has no separator, so that base and quote can't be told apart
    """
    base, separator, quote = text.strip().replace("/", "-").partition("-")
    if not (separator and base and quote) or "-" in quote:
        raise ValueError(f"{text!r} is no symbol; write BASE-QUOTE, for example BTC-USD")
    return unified_symbol(base, quote)


class SymbolMap:
    """The instruments of one venue, by unified and by venue symbol.

    Parameters
    ----------
    exchange : name of the venue, for error messages
    instruments : as the venue's metadata lists them
    """

    def __init__(self, exchange: str, instruments: Iterable[Instrument] = ()) -> None:
        self.exchange = exchange
        self._by_symbol: dict[str, Instrument] = {}
        self._by_venue_symbol: dict[str, Instrument] = {}
        for instrument in instruments:
            self.add(instrument)

    def add(self, instrument: Instrument) -> None:
        """Add an instrument, or replace the one with the same symbol."""
        self._by_symbol[instrument.symbol] = instrument
        self._by_venue_symbol[instrument.venue_symbol] = instrument

    def by_symbol(self, symbol: str) -> Instrument:
        """Look up by unified symbol. Raises `SymbolError`."""
        try:
            return self._by_symbol[symbol]
        except KeyError:
            raise SymbolError(self.exchange, symbol) from None

    def by_venue_symbol(self, venue_symbol: str) -> Instrument:
        """Look up by the venue's own symbol. Raises `SymbolError`."""
        try:
            return self._by_venue_symbol[venue_symbol]
        except KeyError:
            raise SymbolError(self.exchange, venue_symbol) from None

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._by_symbol

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._by_symbol.values())

    def __len__(self) -> int:
        return len(self._by_symbol)
