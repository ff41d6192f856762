"""A collector, or a backfill, in a process of its own, to be killed at will.

``python -m tests.backfill_process collector|backfill`` with all settings, as JSON, on stdin. The
backfill writes few trades at once and prints a line per batch, when it is written.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from alphapulse.collectors.daemon import run_venue
from alphapulse.config import Settings
from alphapulse.log import setup
from alphapulse.store import backfill, open_store, pen
from tests.store_process import tell_batches

ROWS = 20


async def collect(settings: Settings) -> None:
    """Collect the one venue that is switched on."""
    (name,) = settings.venues.enabled()
    await run_venue(name, settings)


async def fill(settings: Settings) -> None:
    """Fill gaps until killed."""
    pen.ROWS = ROWS
    backfill.SCAN_SECONDS = 0.05
    backfill.REST_SHARE = 1.0
    store = await open_store(settings)
    tell_batches(store)
    await backfill.run_backfill(settings, store, asyncio.Event())


if __name__ == "__main__":
    given = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
    setup(given.log, sys.argv[1])
    asyncio.run({"collector": collect, "backfill": fill}[sys.argv[1]](given))
