"""From what a caller wants to the requests that bring it about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from alphapulse.client.events import OVERALL
from alphapulse.client.messages import Depth, Format, Subscribe

Names = str | Iterable[str] | None
"""One name or several; None for all."""

JSON_ONLY = ("bbo", "arbitrage")
"""Channels that have no records."""


def channel_names(channels: str | Iterable[str]) -> tuple[str, ...]:
    """Channels in the order given, each once.

    Raises
    ------
    ValueError
        there is none
    """
    names = symbol_names(channels)
    if not names:
        raise ValueError("no channel: trades, orderbook, state, bbo or arbitrage")
    return names


def symbol_names(names: Names) -> tuple[str, ...] | None:
    """Names in the order given, each once; None for all."""
    if names is None or names == "*":
        return None
    return tuple(dict.fromkeys((names,) if isinstance(names, str) else names))


def subscriptions(
    channels: str | Iterable[str],
    exchanges: Names,
    symbols: Names,
    *,
    depth: Depth | None,
    conflate_ms: int | None,
    default_format: Format,
    wanted_format: Format | None,
) -> list[Subscribe]:
    """The requests for a subscription: more than one where a part is served as JSON only.

    Parameters
    ----------
    default_format : the client's
    wanted_format : the caller's, which the server may refuse
    """
    names = channel_names(channels)
    places = symbol_names(exchanges)

    def request(
        some: tuple[str, ...], where: tuple[str, ...] | None, how: Literal["json", "binary"]
    ) -> Subscribe:
        return Subscribe(
            channels=some,
            exchanges=where,
            symbols=symbol_names(symbols),
            depth=depth,
            format=how,
            conflate_ms=conflate_ms,
        )

    if wanted_format is not None or default_format == "json":
        return [request(names, places, wanted_format or default_format)]
    as_json = tuple(name for name in names if name in JSON_ONLY)
    as_records = tuple(name for name in names if name not in JSON_ONLY)
    requests = []
    if as_json:
        requests.append(request(as_json, places, "json"))
    if as_records and places is not None and OVERALL in places and "orderbook" in as_records:
        requests.append(request(("orderbook",), (OVERALL,), "json"))
        others = tuple(place for place in places if place != OVERALL)
        if others:
            requests.append(request(("orderbook",), others, "binary"))
        as_records = tuple(name for name in as_records if name != "orderbook")
    if as_records:
        requests.append(request(as_records, places, "binary"))
    return requests
