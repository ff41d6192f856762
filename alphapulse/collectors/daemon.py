"""One venue's process: its ring, its connections, and a clean end.

``python -m alphapulse.collectors.daemon VENUE`` runs one by hand, with the settings of the file and
the environment; the supervisor hands its settings over on stdin.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from alphapulse import metrics
from alphapulse.clock import wall_ns
from alphapulse.collectors.allowance import Allowance
from alphapulse.collectors.complaints import Complaints
from alphapulse.collectors.context import Context
from alphapulse.collectors.exporter import Exporter
from alphapulse.collectors.feed import Feed
from alphapulse.collectors.latency import LatencySampler
from alphapulse.collectors.registry import VENUES, make_venue
from alphapulse.collectors.rest import RestClient
from alphapulse.collectors.session import Session
from alphapulse.collectors.venue import Venue
from alphapulse.config import RingSettings, Settings
from alphapulse.errors import ConfigError, RingBusy
from alphapulse.log import get_logger
from alphapulse.model import BookState, Reason
from alphapulse.process import GAVE_UP, Ready, run_service, stop_event
from alphapulse.shm import RingWriter

log = get_logger("alphapulse.collectors.daemon")

HANDOVER_SECONDS = 6.0
"""How long a start waits for a predecessor that is just ending to leave the ring."""

STOP_SECONDS = 3.0
"""What connections get for saying goodbye."""


async def run_venue(
    name: str,
    settings: Settings,
    *,
    stop: asyncio.Event | None = None,
    ready: Ready | None = None,
) -> None:
    """Collect one venue until told to stop; then its books are stale and its ring is gone.

    Parameters
    ----------
    name : of the venue
    settings : all settings
    stop : ends it when set; without it SIGTERM, SIGINT and SIGHUP do
    ready : called as soon as there is a ring

    Raises
    ------
    ConfigError
        the settings contradict the venue's protocol, or the ring can't be made with them
    RingBusy
        another process collects the venue under this prefix
    RingError
        the ring can't be written
    """
    venue = make_venue(name, settings.venues)
    stop = stop_event() if stop is None else stop
    writer = await _open_ring(name, settings.ring, stop)
    if writer is None:
        return
    with writer:
        if ready is not None:
            ready(venue=name, ring=writer.name)
        await _collect(venue, writer, settings, stop)
    log.info("stopped", exchange=name)


async def _open_ring(name: str, settings: RingSettings, stop: asyncio.Event) -> RingWriter | None:
    """The venue's ring, waited for while a predecessor is ending; None if told to stop."""
    loop = asyncio.get_running_loop()
    patience = loop.time() + HANDOVER_SECONDS
    told = False
    while not stop.is_set():
        try:
            return _make_ring(name, settings)
        except RingBusy as error:
            if loop.time() > patience:
                raise
            if not told:
                log.warning("waiting for the ring", exchange=name, problem=str(error))
                told = True
        try:
            async with asyncio.timeout(0.1):
                await stop.wait()
        except TimeoutError:
            continue
    return None


def _make_ring(name: str, settings: RingSettings) -> RingWriter:
    group: str | int | None = settings.group or None
    if isinstance(group, str) and group.isdigit():
        group = int(group)
    try:
        return RingWriter(
            name,
            prefix=settings.prefix,
            size_bytes=settings.size_bytes,
            max_instruments=settings.max_instruments,
            group=group,
        )
    except KeyError as error:
        raise ConfigError("ring.group", f"there is no group {settings.group!r}") from error
    except PermissionError as error:
        if group is None:
            raise
        problem = (
            f"{settings.group!r} can't be given the ring: {error.strerror}; is this user in it?"
        )
        raise ConfigError("ring.group", problem) from error
    except ValueError as error:
        raise ConfigError("ring.size_bytes", str(error)) from error


async def _collect(
    venue: Venue, writer: RingWriter, settings: Settings, stop: asyncio.Event
) -> None:
    complaints = Complaints(venue.name, log)
    feed = Feed(
        venue,
        writer,
        symbols=frozenset(venue.settings.symbols),
        complain=lambda symbol, problem: complaints.add("malformed", symbol, problem=problem),
    )
    sampler = LatencySampler(venue.name)
    rest = RestClient(
        venue.name,
        venue.settings.rest_url,
        Allowance(venue.limits.rest_weight, venue.settings.rate_share),
        timeout_seconds=venue.settings.rest_timeout_seconds,
        max_body_bytes=venue.settings.max_message_bytes,
    )
    async with rest:
        context = Context(venue, feed, rest, complaints, sampler)
        session = Session(context, venue.settings.symbols)
        exporter = Exporter(feed, session, sampler)
        process = metrics.ProcessSampler(f"collector-{venue.name}")
        log.info("collecting", exchange=venue.name, symbols=list(venue.settings.symbols))
        working = asyncio.create_task(session.run())
        others = [
            asyncio.create_task(exporter.run()),
            asyncio.create_task(process.run(settings.metrics.sample_seconds)),
        ]
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({working, stopping, *others}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (working, stopping, *others):
                task.cancel()
            done, _ = await asyncio.wait({working, stopping, *others}, timeout=STOP_SECONDS)
            feed.fail(tuple(feed.books), BookState.STALE, Reason.STOPPED, wall_ns())
            writer.wake()
            exporter.export()
        for task in done:
            if not task.cancelled():
                task.result()


def main(arguments: Sequence[str]) -> int:
    """Run one venue's process; returns its exit status."""
    if not arguments or arguments[0] not in VENUES:
        print(
            f"usage: python -m alphapulse.collectors.daemon {{{','.join(VENUES)}}}",
            file=sys.stderr,
        )
        return GAVE_UP
    name = arguments[0]

    async def collect(settings: Settings, ready: Ready) -> int:
        await run_venue(name, settings, ready=ready)
        return 0

    return run_service(f"collector-{name}", collect, arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
