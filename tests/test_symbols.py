"""Unified symbols both ways, by metadata alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.errors import AlphaPulseError, SymbolError
from alphapulse.model import Instrument
from alphapulse.symbols import SymbolMap, normalize_symbol, unified_symbol, unify_asset

assets = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=1, max_size=10)


def instrument(venue_symbol: str, base: str, quote: str, **fields: int) -> Instrument:
    return Instrument(
        id=fields.get("id", 1),
        exchange="venue",
        symbol=unified_symbol(base, quote),
        venue_symbol=venue_symbol,
        base=unify_asset(base),
        quote=unify_asset(quote),
        price_exponent=fields.get("price_exponent", 2),
        size_exponent=8,
    )


@pytest.mark.parametrize(
    ("asset", "unified"),
    [("XBT", "BTC"), ("xbt", "BTC"), ("XDG", "DOGE"), ("DOGE", "DOGE"), ("eth", "ETH"), ("1", "1")],
)
def test_assets_have_one_name(asset: str, unified: str) -> None:
    assert unify_asset(asset) == unified
    assert unify_asset(unified) == unified


@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        ("BTC-USD", "BTC-USD"),
        ("btc/usd", "BTC-USD"),
        ("XBT/EUR", "BTC-EUR"),
        (" XDG-xbt ", "DOGE-BTC"),
        ("1INCH-USD", "1INCH-USD"),
    ],
)
def test_users_may_write_symbols_as_they_like(text: str, symbol: str) -> None:
    assert normalize_symbol(text) == symbol


@pytest.mark.parametrize(
    "text", ["", "-", "BTC", "BTCUSDT", "BTC-", "-USD", "A-B-C", "A/B-C", "//"]
)
def test_where_a_quote_begins_is_never_guessed(text: str) -> None:
    with pytest.raises(ValueError, match="is no symbol; write BASE-QUOTE"):
        normalize_symbol(text)


@given(assets, assets)
def test_normalizing_is_done_once(base: str, quote: str) -> None:
    symbol = unified_symbol(base, quote)
    assert normalize_symbol(symbol) == symbol
    assert normalize_symbol(f"{base.lower()}/{quote}") == symbol


@pytest.mark.parametrize(
    ("venue_symbol", "base", "quote", "symbol"),
    [
        ("BTC-USD", "BTC", "USD", "BTC-USD"),
        ("BTC/USD", "BTC", "USD", "BTC-USD"),
        ("XBT/USD", "XBT", "USD", "BTC-USD"),
        ("BTCUSDT", "BTC", "USDT", "BTC-USDT"),
        ("XDGUSD", "XDG", "USD", "DOGE-USD"),
        # The same letters, cut in two ways: only metadata can tell.
        ("ABCDEF", "AB", "CDEF", "AB-CDEF"),
        ("ABCDEF", "ABCD", "EF", "ABCD-EF"),
    ],
)
def test_a_venues_symbols_are_found_both_ways(
    venue_symbol: str, base: str, quote: str, symbol: str
) -> None:
    listed = instrument(venue_symbol, base, quote)
    symbols = SymbolMap("venue", [listed])
    assert symbols.by_venue_symbol(venue_symbol) is listed
    assert symbols.by_symbol(symbol) is listed
    assert symbol in symbols
    assert list(symbols) == [listed]
    assert len(symbols) == 1


def test_what_the_venue_has_not_listed_is_refused_by_name() -> None:
    symbols = SymbolMap("kraken", [instrument("BTC/USD", "BTC", "USD")])
    assert "BTC/USD" not in symbols
    for look_up, name in ((symbols.by_symbol, "ETH-USD"), (symbols.by_venue_symbol, "BTC-USD")):
        with pytest.raises(SymbolError) as caught:
            look_up(name)
        assert str(caught.value) == f"kraken has no instrument {name!r}"
        assert (caught.value.venue, caught.value.symbol) == ("kraken", name)
        assert isinstance(caught.value, AlphaPulseError)


def test_a_rescaled_instrument_takes_the_place_of_the_old_one() -> None:
    symbols = SymbolMap("venue", [instrument("BTCUSD", "BTC", "USD", id=1, price_exponent=2)])
    finer = instrument("BTCUSD", "BTC", "USD", id=2, price_exponent=4)
    symbols.add(finer)
    assert symbols.by_symbol("BTC-USD") is finer
    assert symbols.by_venue_symbol("BTCUSD") is finer
    assert len(symbols) == 1
