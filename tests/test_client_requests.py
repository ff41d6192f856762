"""Answers find their requests, whatever the server leaves out or refuses."""

from __future__ import annotations

import asyncio

import pytest

from alphapulse.client.messages import (
    Ping,
    Pong,
    Refusal,
    SendSnapshot,
    Subscribe,
    Subscribed,
    Unsubscribe,
)
from alphapulse.client.requests import LinkLost, Requests
from alphapulse.errors import RequestError

SUBSCRIBE = Subscribe(channels=("trades",))
SUBSCRIBED = Subscribed(channels=("trades",), exchanges=("*",), symbols=("*",))


async def test_answers_come_in_order() -> None:
    requests = Requests()
    first, second = requests.expect(SUBSCRIBE), requests.expect(Ping())
    requests.answered(SUBSCRIBED)
    requests.answered(Pong())
    assert await first is SUBSCRIBED
    assert isinstance(await second, Pong)
    requests.answered(Pong())  # unasked for


async def test_a_request_for_snapshots_is_granted_by_what_follows() -> None:
    requests = Requests()
    granted, ping = requests.expect(SendSnapshot()), requests.expect(Ping())
    requests.answered(Pong())
    assert await granted is None
    assert isinstance(await ping, Pong)


async def test_a_refusal_is_the_oldest_requests() -> None:
    requests = Requests()
    refused, ping = requests.expect(SendSnapshot()), requests.expect(Ping())
    requests.answered(Refusal(code="not_subscribed", message="no book"))
    requests.answered(Pong())
    with pytest.raises(RequestError, match="no book") as caught:
        await refused
    assert caught.value.code == "not_subscribed"
    assert isinstance(await ping, Pong)


async def test_who_waits_no_more_is_passed_over() -> None:
    requests = Requests()
    given_up, other = requests.expect(SUBSCRIBE), requests.expect(Unsubscribe())
    given_up.cancel()
    requests.answered(SUBSCRIBED)
    with pytest.raises(asyncio.CancelledError):
        await given_up
    requests.fail()
    with pytest.raises(LinkLost):
        await other
