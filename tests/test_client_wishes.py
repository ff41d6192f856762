"""What a client asks for again on a new connection has the effect of all that was asked before."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from alphapulse.client.messages import Subscribe, Unsubscribe
from alphapulse.client.subscribing import subscriptions
from alphapulse.client.wishes import Wishes

CHANNELS = ("trades", "orderbook", "state")
EXCHANGES = ("kraken", "coinbase")
SYMBOLS = ("BTC-USD", "ETH-USD")


def some(names: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(names), min_size=1, unique=True).map(tuple)


def maybe(names: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...] | None]:
    return st.none() | some(names)


REQUESTS = st.lists(
    st.builds(
        Subscribe,
        channels=some(CHANNELS),
        exchanges=maybe(EXCHANGES),
        symbols=maybe(SYMBOLS),
        depth=st.integers(1, 5),
    )
    | st.builds(
        Unsubscribe,
        channels=maybe(CHANNELS),
        exchanges=maybe(EXCHANGES),
        symbols=maybe(SYMBOLS),
    ),
    max_size=12,
)


def effect(requests: object) -> dict[tuple[str, str, str], object]:
    """Depth by channel, exchange and symbol, those included that appear later."""
    held: dict[tuple[str, str, str], object] = {}
    for key in product(CHANNELS, (*EXCHANGES, "later"), (*SYMBOLS, "LATER-USD")):
        for request in requests:  # type: ignore[attr-defined]
            named = (request.channels, request.exchanges, request.symbols)
            if all(names is None or name in names for names, name in zip(named, key, strict=True)):
                held[key] = getattr(request, "depth", None)
    return {key: depth for key, depth in held.items() if depth is not None}


@given(REQUESTS)
def test_what_is_kept_does_the_same(requests: list[Subscribe | Unsubscribe]) -> None:
    wishes = Wishes()
    for request in requests:
        wishes.add(request)
    wanted = effect(requests)
    assert effect(wishes) == wanted
    assert len(wishes) <= len(requests)
    for key in product(CHANNELS, (*EXCHANGES, "later"), (*SYMBOLS, "LATER-USD")):
        found = wishes.find(*key)
        assert (found.depth if found else None) == wanted.get(key)


def test_what_is_replaced_is_not_kept() -> None:
    wishes = Wishes()
    for depth in range(1, 100):
        wishes.add(Subscribe(channels=("orderbook",), exchanges=("kraken",), depth=depth))
        wishes.add(Subscribe(channels=("orderbook", "trades"), depth=depth))
        wishes.add(Unsubscribe(symbols=("BTC-USD",)))
    assert len(wishes) == 2
    assert wishes.concern("kraken")
    wishes.add(Unsubscribe())
    assert len(wishes) == 0
    assert not wishes.concern("kraken")


def test_what_has_no_records_is_asked_for_as_json() -> None:
    requests = subscriptions(
        ["trades", "orderbook", "bbo"],
        ["all", "kraken"],
        "BTC-USD",
        depth=10,
        conflate_ms=None,
        default_format="binary",
        wanted_format=None,
    )
    assert [(each.channels, each.exchanges, each.format) for each in requests] == [
        (("bbo",), ("all", "kraken"), "json"),
        (("orderbook",), ("all",), "json"),
        (("orderbook",), ("kraken",), "binary"),
        (("trades",), ("all", "kraken"), "binary"),
    ]
