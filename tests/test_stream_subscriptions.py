from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.errors import RequestError
from alphapulse.stream.requests import (
    ALL,
    CHANNELS,
    CONSOLIDATED,
    Channel,
    Look,
    Subscribe,
    Unsubscribe,
)
from alphapulse.stream.subscriptions import Subscriptions

EXCHANGES = ("coinbase", "kraken", ALL)
THREE: tuple[Channel, ...] = ("trades", "orderbook", "state")
SYMBOLS = ("A-USD", "B-USD", "C-USD")

channels = st.lists(st.sampled_from(CHANNELS), min_size=1, unique=True).map(tuple)
exchanges = st.none() | st.frozensets(st.sampled_from(EXCHANGES), min_size=1)
symbols = st.none() | st.frozensets(st.sampled_from(SYMBOLS), min_size=1)
requests = st.builds(
    Subscribe, channels, exchanges, symbols, st.builds(Look, st.integers(0, 5), st.just("json"))
) | st.builds(Unsubscribe, channels, exchanges, symbols)


def fits(request: Subscribe | Unsubscribe, channel: Channel, exchange: str, symbol: str) -> bool:
    exchanges = request.exchanges
    if exchanges is not None and ALL in exchanges and channel not in CONSOLIDATED:
        exchanges = None
    # The book of all exchanges together is to be subscribed to by name.
    anywhere = exchange != ALL or channel != "orderbook" or isinstance(request, Unsubscribe)
    return (
        channel in request.channels
        and (anywhere if exchanges is None else exchange in exchanges)
        and (request.symbols is None or symbol in request.symbols)
    )


@given(st.lists(requests, max_size=12))
def test_the_latest_request_that_fits_counts(
    history: list[Subscribe | Unsubscribe],
) -> None:
    subscriptions = Subscriptions(1000)
    for request in history:
        if isinstance(request, Subscribe):
            subscriptions.add(request)
        else:
            subscriptions.remove(request)
    for channel in CHANNELS:
        for exchange in (*EXCHANGES, "later"):
            for symbol in (*SYMBOLS, "LATER-USD"):
                latest = [each for each in history if fits(each, channel, exchange, symbol)][-1:]
                wanted = latest[0].look if latest and isinstance(latest[0], Subscribe) else None
                assert subscriptions.find(channel, exchange, symbol) == wanted
                if wanted is not None:
                    assert subscriptions.concern(exchange, (channel,)) == "json"
    subscriptions.remove(Unsubscribe(CHANNELS, None, None))
    assert len(subscriptions) == 0


def test_the_number_of_subscriptions_is_bounded() -> None:
    subscriptions = Subscriptions(6)
    some = frozenset({"A-USD", "B-USD"})
    subscriptions.add(Subscribe(THREE, None, some, Look(5)))
    with pytest.raises(RequestError, match="may hold 6 subscriptions, this would make 9") as error:
        subscriptions.add(Subscribe(THREE, None, frozenset({"C-USD"}), Look(5)))
    assert error.value.code == "too_many_subscriptions"
    assert subscriptions.find("trades", "kraken", "C-USD") is None
    subscriptions.add(Subscribe(THREE, None, some, Look(7)))
    assert subscriptions.find("trades", "kraken", "A-USD") == Look(7)
    subscriptions.add(Subscribe(THREE, None, None, Look(9)))
    assert len(subscriptions) == 3
    with pytest.raises(RequestError):
        subscriptions.remove(Unsubscribe(THREE, None, frozenset("ABCD")))
    assert subscriptions.find("trades", "kraken", "A") == Look(9)
