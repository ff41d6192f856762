"""A process per venue, supervised."""

from __future__ import annotations

import asyncio

from alphapulse.config import Settings
from alphapulse.log import get_logger
from alphapulse.process import GAVE_UP, Child, Supervised, stop_event, supervise

log = get_logger(__name__)


def venue_children(settings: Settings) -> list[Child]:
    """The processes to run: one for each venue that is switched on."""
    return [
        Child(f"collector-{name}", "alphapulse.collectors.daemon", (name,))
        for name in settings.venues.enabled()
    ]


async def run_collectors(settings: Settings, *, stop: asyncio.Event | None = None) -> int:
    """Run a process for each venue that is switched on, until told to stop.

    Call it from the program's main thread: the processes end with the thread that started them.

    Parameters
    ----------
    settings : all settings; the processes get them as they are here
    stop : ends it when set; without it SIGTERM, SIGINT and SIGHUP do

    Returns
    -------
    int
        exit status: 0, or `GAVE_UP` if a venue could not be collected at all
    """
    children = venue_children(settings)
    if not children:
        log.error("nothing to do: no venue is enabled; see venues.<name>.enabled")
        return GAVE_UP
    stop = stop_event() if stop is None else stop
    return await supervise([Supervised(child, settings, stop) for child in children], stop)
