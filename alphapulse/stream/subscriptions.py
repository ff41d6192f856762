"""One client's subscriptions: which books and trades it wants, now and when they appear later."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from alphapulse.errors import RequestError
from alphapulse.stream.requests import Channel, Names, Subscribe, Unsubscribe


class _Rule(NamedTuple):
    order: int
    """A later rule goes before an earlier one."""
    depth: int | None
    """Levels a side; None where the rule takes back a part of a wider one."""


_Key = tuple[Channel, str | None, str | None]
"""Channel, exchange, symbol; None for any."""


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

    def __len__(self) -> int:
        return len(self._rules)

    def find(self, channel: Channel, exchange: str, symbol: str) -> int | None:
        """Depth subscribed to, `requests.FULL` for the whole book; None for no subscription."""
        latest: _Rule | None = None
        for key in product((channel,), (exchange, None), (symbol, None)):
            rule = self._rules.get(key)
            if rule is not None and (latest is None or rule.order > latest.order):
                latest = rule
        return None if latest is None else latest.depth

    def concern(self, exchange: str, channels: tuple[Channel, ...]) -> bool:
        """Whether anything of these channels of an exchange is subscribed to."""
        return any(
            rule.depth is not None and key[0] in channels and key[1] in (None, exchange)
            for key, rule in self._rules.items()
        )

    def add(self, request: Subscribe) -> None:
        """Subscribe; earlier rules for the same are replaced.

        Raises
        ------
        RequestError
            ``too_many_subscriptions``; nothing has changed
        """
        keys = list(_keys(request.channels, request.exchanges, request.symbols))
        kept = self._outside(request.channels, request.exchanges, request.symbols)
        self._check(len(kept) + len(keys))
        self._order += 1
        self._rules = kept | dict.fromkeys(keys, _Rule(self._order, request.depth))

    def remove(self, request: Unsubscribe) -> None:
        """Unsubscribe, also from a part of what was subscribed to as a whole.

        Raises
        ------
        RequestError
            ``too_many_subscriptions``: exceptions count as well; nothing has changed
        """
        kept = self._outside(request.channels, request.exchanges, request.symbols)
        wider = tuple(
            channel
            for channel in request.channels
            if any(
                key[0] == channel
                and rule.depth is not None
                and _meets(key[1], request.exchanges)
                and _meets(key[2], request.symbols)
                for key, rule in kept.items()
            )
        )
        keys = list(_keys(wider, request.exchanges, request.symbols))
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

    def _outside(
        self, channels: tuple[Channel, ...], exchanges: Names, symbols: Names
    ) -> dict[_Key, _Rule]:
        """The rules that these names don't cover wholly."""
        return {
            key: rule
            for key, rule in self._rules.items()
            if not (key[0] in channels and _covers(exchanges, key[1]) and _covers(symbols, key[2]))
        }


def _keys(channels: tuple[Channel, ...], exchanges: Names, symbols: Names) -> Iterator[_Key]:
    return product(
        channels,
        (None,) if exchanges is None else exchanges,
        (None,) if symbols is None else symbols,
    )


def _covers(names: Names, name: str | None) -> bool:
    return names is None or name in names


def _meets(name: str | None, names: Names) -> bool:
    return name is None or names is None or name in names
