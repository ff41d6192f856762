"""One venue's process: its ring, its connections, and a clean end.

``python -m alphapulse.collectors.daemon VENUE`` runs one by hand, with the settings of the file and
the environment; the supervisor hands its settings over on stdin.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
import uvloop

from alphapulse import log as logging_setup
from alphapulse import metrics
from alphapulse.clock import wall_ns
from alphapulse.collectors.backoff import Allowance
from alphapulse.collectors.complaints import Complaints
from alphapulse.collectors.context import Context
from alphapulse.collectors.exporter import Exporter
from alphapulse.collectors.feed import Feed
from alphapulse.collectors.latency import LatencySampler
from alphapulse.collectors.registry import VENUES, make_venue
from alphapulse.collectors.rest import RestClient
from alphapulse.collectors.session import Session
from alphapulse.collectors.venue import Venue
from alphapulse.config import RingSettings, Settings, load
from alphapulse.errors import ConfigError, RingBusy, RingError
from alphapulse.log import get_logger
from alphapulse.model import BookState, Reason
from alphapulse.shm import RingWriter

log = get_logger("alphapulse.collectors.daemon")

GAVE_UP = 2
"""Exit status where starting again wouldn't help."""

HANDOVER_SECONDS = 6.0
"""How long a start waits for a predecessor that is just ending to leave the ring."""

STOP_SECONDS = 3.0
"""What connections get for saying goodbye."""

_GC_THRESHOLDS = (20_000, 20, 50)
_PR_SET_PDEATHSIG = 1


async def run_venue(name: str, settings: Settings, *, stop: asyncio.Event | None = None) -> None:
    """Collect one venue until told to stop; then its books are stale and its ring is gone.

    Parameters
    ----------
    name : of the venue
    settings : all settings
    stop : ends it when set; without it SIGTERM and SIGINT do

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
    if stop is None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    writer = await _open_ring(name, settings.ring, stop)
    if writer is None:
        return
    with writer:
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


@contextmanager
def _gc_tuned() -> Iterator[None]:
    """Collect garbage seldom: what frames leave behind is freed by reference counts alone."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def die_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM when the parent process ends, however it does.

    Parameters
    ----------
    parent : its pid; if it is gone already, this process exits here
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}")
    if os.getppid() != parent:
        raise SystemExit(0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one venue's process; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m alphapulse.collectors.daemon", description="Collect one venue."
    )
    parser.add_argument("venue", choices=VENUES)
    parser.add_argument(
        "--supervised-by",
        type=int,
        metavar="PID",
        help="read the settings from stdin as JSON, and end with this process",
    )
    given = parser.parse_args(arguments)
    if given.supervised_by is not None:
        die_with_parent(given.supervised_by)
        settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
    else:
        try:
            settings = load()
        except ConfigError as error:
            print(error, file=sys.stderr)
            return GAVE_UP
    logging_setup.setup(settings.log, f"collector-{given.venue}")
    try:
        metrics.setup(settings.ring.prefix)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, _gc_tuned():
            runner.run(run_venue(given.venue, settings))
    except (ConfigError, RingError) as error:
        log.error("can't go on", exchange=given.venue, problem=str(error))  # noqa: TRY400
        return GAVE_UP
    except Exception:
        log.exception("crashed", exchange=given.venue)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
