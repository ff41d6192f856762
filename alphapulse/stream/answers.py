"""What clients are told about their own requests, as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from alphapulse.errors import RequestError
from alphapulse.stream.requests import EVERYTHING, FULL, Look, Names, Subscribe, Unsubscribe

PONG = '{"type":"pong"}'

MAX_MESSAGE = 500
"""Characters of an error's message that are sent."""

_ENCODE = msgspec.json.Encoder().encode


def subscribed(
    request: Subscribe,
    epochs: Mapping[str, int],
    sequences: Mapping[str, int],
    waiting: Iterable[str],
    resumed: Mapping[str, str],
) -> str:
    """Confirm a subscription.

    Parameters
    ----------
    request : what was asked for
    epochs : of the rings that the subscription reads now, by exchange
    sequences : of the rings' latest records that were taken, after which the events begin
    waiting : exchanges whose ring isn't there yet; they join in when it is
    resumed : by exchange, ``records`` or ``snapshot``: what comes of what was missed
    """
    return _text(
        type="subscribed",
        channels=request.channels,
        exchanges=_listed(request.exchanges),
        symbols=_listed(request.symbols),
        **_looked(request.look),
        epochs=dict(epochs),
        sequences=dict(sequences),
        waiting=sorted(waiting),
        **({"resumed": dict(resumed)} if resumed else {}),
    )


def epoch(exchange: str, number: int) -> str:
    """Tell that an exchange's sequences and versions count from a new beginning."""
    return _text(type="epoch", exchange=exchange, epoch=number)


def unsubscribed(request: Unsubscribe) -> str:
    """Confirm that a subscription has ended."""
    return _text(
        type="unsubscribed",
        channels=request.channels,
        exchanges=_listed(request.exchanges),
        symbols=_listed(request.symbols),
    )


def refused(error: RequestError) -> str:
    """Tell why a request wasn't served."""
    message = error.message
    if len(message) > MAX_MESSAGE:
        message = f"{message[: MAX_MESSAGE - 3]}..."
    return _text(type="error", code=error.code, message=message)


def _listed(names: Names) -> list[str]:
    return [EVERYTHING] if names is None else sorted(names)


def _looked(look: Look) -> dict[str, object]:
    conflated = {"conflate_ms": look.conflate_ms} if look.conflate_ms else {}
    return {
        "format": look.format,
        "depth": "full" if look.depth == FULL else look.depth,
        **conflated,
    }


def _text(**fields: object) -> str:
    return _ENCODE(fields).decode()
