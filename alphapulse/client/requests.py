"""Requests on their way: each has one answer, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from alphapulse.client.messages import (
    Answer,
    Ping,
    Pong,
    Refusal,
    Request,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
)
from alphapulse.errors import RequestError

_ANSWERS: dict[type, type] = {
    Subscribe: Subscribed,
    Unsubscribe: Unsubscribed,
    Ping: Pong,
}


class LinkLost(Exception):
    """The connection ended before the answer came; for use within this package."""


class _Pending(NamedTuple):
    request: Request
    answer: asyncio.Future[Answer | None]


class Requests:
    """The requests of one connection that wait for an answer.

    A request for snapshots is answered by the snapshots alone, unless it is refused; a ping sent
    after it tells that it wasn't.
    """

    def __init__(self) -> None:
        self._pending: deque[_Pending] = deque()

    def expect(self, request: Request) -> asyncio.Future[Answer | None]:
        """A request is sent; its answer, None where it wasn't refused and has no other."""
        future: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._pending.append(_Pending(request, future))
        return future

    def answered(self, answer: Answer) -> None:
        """An answer has arrived."""
        while self._pending:
            request, future = self._pending.popleft()
            if isinstance(answer, Refusal):
                if not future.done():
                    future.set_exception(RequestError(answer.code, answer.message))
                return
            fits = isinstance(answer, _ANSWERS.get(type(request), ()))
            if not future.done():
                future.set_result(answer if fits else None)
            if fits:
                return

    def fail(self) -> None:
        """The connection has ended."""
        while self._pending:
            future = self._pending.popleft().answer
            if not future.done():
                future.set_exception(LinkLost())
