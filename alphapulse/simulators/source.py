"""A capture as the source of a simulator."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from urllib.parse import parse_qs, urlsplit

import msgspec

Topic = tuple[str, str]
"""Channel and venue symbol; the symbol is empty where a channel has none."""

EVERYONE: tuple[Topic, ...] = ()
"""Where a frame goes that names no symbol."""

RestKey = tuple[str, str]
"""Path of a request, and its ``symbol`` or the empty string."""


class CaptureSource(msgspec.Struct, frozen=True, kw_only=True):
    """Play a recording.

    Attributes
    ----------
    path : the capture
    speed : 1 for its own pace, N for N times faster, None for as fast as it is read
    symbols : the venue's symbols whose subscriptions the start waits for; all of the capture's
        if None
    """

    path: str
    speed: float | None = None
    symbols: tuple[str, ...] | None = None


def rest_key(url: str) -> RestKey:
    """What a request and a recorded body have in common."""
    parts = urlsplit(url)
    return parts.path, parse_qs(parts.query).get("symbol", [""])[0]


class RestBodies:
    """Recorded REST bodies: each answers once its line of the capture has passed."""

    def __init__(self) -> None:
        self._recorded: set[RestKey] = set()
        self._passed: dict[RestKey, bytes] = {}
        self._changed = asyncio.Event()
        self.ended = False
        """No more bodies come."""

    def expect(self, keys: Iterable[RestKey]) -> None:
        """Bodies that the capture has somewhere."""
        self._recorded.update(keys)

    def add(self, key: RestKey, body: bytes) -> None:
        """A body's line has passed."""
        self._passed[key] = body
        self._notify()

    def end(self) -> None:
        """The capture has been played."""
        self.ended = True
        self._notify()

    async def get(self, key: RestKey, timeout_seconds: float) -> bytes | None:
        """The latest body for a request; waits for one that is still to come, None if none is."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while key not in self._passed:
                    if self.ended or key not in self._recorded:
                        return None
                    await self._changed.wait()
        except TimeoutError:
            return None
        return self._passed[key]

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
