"""What clients are told about their own requests, as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from alphapulse.errors import RequestError
from alphapulse.stream.requests import EVERYTHING, FULL, Names, Subscribe, Unsubscribe

PONG = '{"type":"pong"}'

MAX_MESSAGE = 500
"""Characters of an error's message that are sent."""

_ENCODE = msgspec.json.Encoder().encode


def subscribed(request: Subscribe, epochs: Mapping[str, int], waiting: Iterable[str]) -> str:
    """Confirm a subscription.

    Parameters
    ----------
    request : what was asked for
    epochs : of the rings that the subscription reads now, by exchange
    waiting : exchanges whose ring isn't there yet; they join in when it is
    """
    return _text(
        type="subscribed",
        channels=request.channels,
        exchanges=_listed(request.exchanges),
        symbols=_listed(request.symbols),
        format="json",
        depth="full" if request.depth == FULL else request.depth,
        epochs=dict(epochs),
        waiting=sorted(waiting),
    )


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


def _text(**fields: object) -> str:
    return _ENCODE(fields).decode()
