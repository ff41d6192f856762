"""How far the history's writer is behind the rings, whichever process it is."""

from __future__ import annotations

import asyncio

from alphapulse.api.context import Context
from alphapulse.clock import wall_ns
from alphapulse.errors import RingError
from alphapulse.shm import Batch, Position, RingReader


async def lateness(context: Context) -> dict[str, int]:
    """Age in nanoseconds of each ring's oldest record that isn't known to be stored; 0 without one.

    What a ring no longer holds counts with the age of the oldest record that it does. Rings that
    are gone or can't be read are left out. Raises `StoreError`.
    """
    venues = list(context.markets.rings)
    positions = await asyncio.gather(*(context.history.position(venue) for venue in venues))
    prefix, now_ns = context.settings.ring.prefix, wall_ns()
    found = {}
    for venue, position in zip(venues, positions, strict=True):
        try:
            published_ns = _published_ns(venue, prefix, position)
        except (RingError, PermissionError):
            continue
        found[venue] = 0 if published_ns is None else max(now_ns - published_ns, 0)
    return found


def _published_ns(venue: str, prefix: str, position: Position | None) -> int | None:
    """When the record at this position came into the ring, or the next one; None if none did."""
    with _reader(venue, prefix, position) as reader:
        batch: Batch = reader.read(1)
        while batch.overrun is not None:
            batch = reader.read(1)
        return next((record.published_ns for record in batch), None)


def _reader(venue: str, prefix: str, position: Position | None) -> RingReader:
    if position is not None:
        try:
            return RingReader(venue, prefix=prefix, start=position)
        except ValueError:
            pass  # beyond the ring's end: it is another machine's, and the writer begins anew
    return RingReader(venue, prefix=prefix, start="oldest")
