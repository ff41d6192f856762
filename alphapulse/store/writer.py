"""From the rings into the store: a follower for each venue's ring."""

from __future__ import annotations

import asyncio

from alphapulse.config import Settings
from alphapulse.shm import list_rings
from alphapulse.store.follower import Follower
from alphapulse.store.repository import Store

SCAN_SECONDS = 1.0
"""How often new rings are looked for."""


async def run_store_writer(settings: Settings, store: Store, stop: asyncio.Event) -> None:
    """Write what all rings of ``ring.prefix`` give into the store, until told to stop.

    Rings may come, go and be replaced. What is in the rings by the time of stopping is written
    before this returns, if the store answers.

    Parameters
    ----------
    settings : sections ``ring`` and ``store`` are used
    store : where to write
    stop : ends this when set
    """
    followers: dict[str, Follower] = {}
    tasks: dict[str, asyncio.Task[None]] = {}
    stopped = asyncio.ensure_future(stop.wait())
    try:
        while True:
            # Asked before the look: what has a ring by the time of stopping is followed, too.
            stopping = stop.is_set()
            for ring in list_rings(prefix=settings.ring.prefix):
                if ring.venue not in tasks and not ring.problem:
                    if ring.venue not in followers:
                        followers[ring.venue] = Follower(ring.venue, settings, store, stop)
                    # Also the next ring's: it knows what the store has had.
                    tasks[ring.venue] = asyncio.create_task(followers[ring.venue].run())
            if stopping:
                break
            done, _ = await asyncio.wait(
                {stopped, *tasks.values()},
                timeout=SCAN_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for venue in [venue for venue, task in tasks.items() if task in done]:
                tasks.pop(venue).result()
        for follower in followers.values():
            follower.nudge()
        await asyncio.gather(*tasks.values())
    finally:
        stopped.cancel()
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
