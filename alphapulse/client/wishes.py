"""What a client is subscribed to, as requests that bring it about again on a new connection."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from alphapulse.client.messages import Subscribe, Unsubscribe

Names = tuple[str, ...] | None
"""Exchanges or symbols; None for all."""

MAX_WISHES = 10_000
"""Beyond what any server allows a client."""


class Wishes:
    """Granted requests in their order, without those that later ones have made void."""

    def __init__(self) -> None:
        self._granted: list[Subscribe | Unsubscribe] = []

    def __iter__(self) -> Iterator[Subscribe | Unsubscribe]:
        return iter(self._granted)

    def __len__(self) -> int:
        return len(self._granted)

    def add(self, request: Subscribe | Unsubscribe) -> None:
        """A request was granted."""
        kept = [rest for each in self._granted if (rest := _without(each, request)) is not None]
        if isinstance(request, Subscribe) or any(_concerns(request, each) for each in kept):
            kept.append(request)
        self._granted = kept[-MAX_WISHES:]

    def find(self, channel: str, exchange: str, symbol: str) -> Subscribe | None:
        """The latest wish for something, unless it was taken back."""
        for each in reversed(self._granted):
            named = each.channels is None or channel in each.channels
            if named and _meets(each.exchanges, (exchange,)) and _meets(each.symbols, (symbol,)):
                return each if isinstance(each, Subscribe) else None
        return None

    def concern(self, exchange: str) -> bool:
        """Whether anything of an exchange is wished for."""
        return any(
            isinstance(each, Subscribe) and _meets(each.exchanges, (exchange,))
            for each in self._granted
        )


def _without(
    earlier: Subscribe | Unsubscribe, later: Subscribe | Unsubscribe
) -> Subscribe | Unsubscribe | None:
    """What is left of a request after one that goes before it."""
    if not (
        _covers(later.exchanges, earlier.exchanges) and _covers(later.symbols, earlier.symbols)
    ):
        return earlier
    if later.channels is None:
        return None
    if earlier.channels is None:
        return earlier
    channels = tuple(channel for channel in earlier.channels if channel not in later.channels)
    if channels == earlier.channels:
        return earlier
    return msgspec.structs.replace(earlier, channels=channels) if channels else None


def _concerns(request: Unsubscribe, earlier: Subscribe | Unsubscribe) -> bool:
    """Whether taking back takes anything back."""
    if not isinstance(earlier, Subscribe):
        return False
    channels = request.channels is None or not set(request.channels).isdisjoint(earlier.channels)
    return (
        channels
        and _meets(request.exchanges, earlier.exchanges)
        and _meets(request.symbols, earlier.symbols)
    )


def _covers(names: Names, others: Names) -> bool:
    return names is None or (others is not None and set(others) <= set(names))


def _meets(names: Names, others: Names) -> bool:
    return names is None or others is None or not set(names).isdisjoint(others)
