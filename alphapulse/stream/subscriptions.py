"""One client's subscriptions: which books and trades it wants, now and when they appear later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from alphapulse.errors import RequestError
from alphapulse.stream.requests import (
    ALL,
    CONSOLIDATED,
    Channel,
    Format,
    Look,
    Names,
    Subscribe,
    Unsubscribe,
)


class _Rule(NamedTuple):
    order: int
    """A later rule goes before an earlier one."""
    look: Look | None
    """None where the rule takes back a part of a wider one."""


_Key = tuple[Channel, str | None, str | None]
"""Channel, exchange, symbol; None for any."""


@lru_cache(maxsize=1 << 16)
def _key(channel: Channel, exchange: str | None, symbol: str | None) -> _Key:
    """One object for equal keys, which thousands of clients have in common."""
    return channel, exchange, symbol


class Subscriptions:
    """The rules that a client has given, of which the latest that fits a book counts.

    Parameters
    ----------
    limit : most rules at a time
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rules: dict[_Key, _Rule] = {}
        self._order = 0
        self.tells_epochs = False
        """Whether the client has ever asked to be told epochs."""

    def __len__(self) -> int:
        return len(self._rules)

    def find(self, channel: Channel, exchange: str, symbol: str) -> Look | None:
        """How something is subscribed to; None for not at all.

        Parameters
        ----------
        exchange : or `requests.ALL` for what there is of all exchanges together
        """
        latest: _Rule | None = None
        anywhere = () if exchange == ALL and channel == "orderbook" else (None,)
        for key in product((channel,), (exchange, *anywhere), (symbol, None)):
            rule = self._rules.get(key)
            if rule is not None and (latest is None or rule.order > latest.order):
                latest = rule
        return None if latest is None else latest.look

    def concern(self, exchange: str, channels: tuple[Channel, ...]) -> Format | None:
        """In which format to tell what concerns anything of these channels of an exchange.

        Returns
        -------
        Format or None
            binary where nothing else is subscribed to, None where nothing is at all
        """
        formats = {
            rule.look.format
            for key, rule in self._rules.items()
            if rule.look is not None and key[0] in channels and key[1] in (None, ALL, exchange)
        }
        if not formats:
            return None
        return "json" if "json" in formats else "binary"

    def add(self, request: Subscribe) -> None:
        """Subscribe; earlier rules for the same are replaced.

        Raises
        ------
        RequestError
            ``too_many_subscriptions``; nothing has changed
        """
        keys = set(_keys(request.channels, request.exchanges, request.symbols))
        kept = self._outside(request)
        self._check(len(kept) + len(keys))
        self._order += 1
        self._rules = kept | dict.fromkeys(keys, _Rule(self._order, request.look))
        self.tells_epochs |= request.epochs

    def remove(self, request: Unsubscribe) -> None:
        """Unsubscribe, also from a part of what was subscribed to as a whole.

        Raises
        ------
        RequestError
            ``too_many_subscriptions``: exceptions count as well; nothing has changed
        """
        kept = self._outside(request)
        wider = tuple(
            channel
            for channel in request.channels
            if any(
                key[0] == channel
                and rule.look is not None
                and _meets(key, exchanges_of(channel, request.exchanges))
                and (key[2] is None or request.symbols is None or key[2] in request.symbols)
                for key, rule in kept.items()
            )
        )
        keys = set(_keys(wider, request.exchanges, request.symbols))
        together = kept.get(("orderbook", ALL, None))
        if "orderbook" in wider and request.exchanges is None and together is not None:
            # The book of all exchanges together is found by its name alone.
            keys |= {_key("orderbook", ALL, symbol) for symbol in request.symbols or ()}
        self._check(len(kept) + len(keys))
        self._order += 1
        self._rules = kept | dict.fromkeys(keys, _Rule(self._order, None))

    def _check(self, count: int) -> None:
        if count > self._limit:
            raise RequestError(
                "too_many_subscriptions",
                f"a client may hold {self._limit} subscriptions, this would make {count}; "
                "leave out exchanges or symbols to subscribe to all of them at once",
            )

    def _outside(self, request: Subscribe | Unsubscribe) -> dict[_Key, _Rule]:
        """The rules that a request's names don't cover wholly."""
        # Subscribing to every exchange's book leaves the book of all together as it is.
        whole = isinstance(request, Unsubscribe)
        return {
            key: rule
            for key, rule in self._rules.items()
            if not (
                key[0] in request.channels
                and _covers(exchanges_of(key[0], request.exchanges), key, whole)
                and (request.symbols is None or key[2] in request.symbols)
            )
        }


def exchanges_of(channel: Channel, exchanges: Names) -> Names:
    """What a request's exchanges mean for a channel: "all" may be each of them."""
    if exchanges is not None and ALL in exchanges and channel not in CONSOLIDATED:
        return None
    return exchanges


def _keys(channels: Iterable[Channel], exchanges: Names, symbols: Names) -> Iterator[_Key]:
    for channel in channels:
        named = exchanges_of(channel, exchanges)
        for exchange in (None,) if named is None else named:
            for symbol in (None,) if symbols is None else symbols:
                yield _key(channel, exchange, symbol)


def _covers(exchanges: Names, key: _Key, whole: bool) -> bool:
    if exchanges is None:
        return whole or not (key[0] == "orderbook" and key[1] == ALL)
    return key[1] in exchanges


def _meets(key: _Key, exchanges: Names) -> bool:
    if exchanges is None or key[1] in exchanges:
        return True
    return key[1] is None and not (key[0] == "orderbook" and exchanges == {ALL})
