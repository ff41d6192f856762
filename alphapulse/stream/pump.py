"""From the rings to the hub: finds a prefix's rings, reads them, and sees whether they live."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from alphapulse import metrics
from alphapulse.errors import RingError
from alphapulse.log import get_logger
from alphapulse.shm import RingInfo, RingReader, list_rings
from alphapulse.stream.hub import Hub
from alphapulse.stream.venue import Venue

log = get_logger(__name__)

SERVICE = "stream"

LOOK_SECONDS = 0.25
"""How often to look which rings there are and whether their writers are at work."""

BATCH_RECORDS = 256
"""Records handled at a time, before clients and other rings have their turn."""


class Pump:
    """Reads all rings of a prefix into a hub, those that appear later included.

    Parameters
    ----------
    hub : what the records are for
    prefix : of the rings' names
    """

    def __init__(self, hub: Hub, prefix: str) -> None:
        self._hub = hub
        self._prefix = prefix
        self.looked = asyncio.Event()
        """Set when it has looked for rings for the first time, whatever came of it."""
        self._known: set[str] = set()
        self.readers: dict[str, RingReader] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look for rings, and after their readers, until cancelled."""
        try:
            while True:
                try:
                    self.look()
                finally:
                    self.looked.set()
                self._hub.check()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await self._stop()

    def look(self) -> None:
        """Attach to rings that are new; tell the hub of those that are dead or stuck."""
        rings = {info.venue: info for info in list_rings(prefix=self._prefix)}
        for exchange, info in rings.items():
            if exchange not in self.readers and info.alive and not info.problem:
                # A ring that began while we run is read from its first record on: clients who
                # wait for its venue miss no trade. Of others only the present counts.
                fresh = self.looked.is_set() and exchange not in self._known
                self._attach(exchange, whole=fresh and info.position <= info.size_bytes)
        for exchange, reader in self.readers.items():
            self._watch(self._hub.venue(exchange), reader, rings.get(exchange))
        self._hub.flush()

    def _attach(self, exchange: str, *, whole: bool) -> None:
        self._known.add(exchange)
        try:
            reader = RingReader(
                exchange, prefix=self._prefix, start="oldest" if whole else "latest"
            )
        except (RingError, PermissionError) as error:
            log.warning("ring can't be read", exchange=exchange, problem=str(error))
            return
        log.info("ring attached", exchange=exchange, epoch=reader.epoch)
        states = {} if whole else reader.states
        self._hub.venue(exchange).attach(reader.epoch, reader.instruments, states)
        self.readers[exchange] = reader
        self._tasks[exchange] = asyncio.create_task(
            self._read(exchange, reader), name=f"read ring of {exchange}"
        )

    def _watch(self, venue: Venue, reader: RingReader, info: RingInfo | None) -> None:
        metrics.RING_LAG.bind(service=SERVICE, exchange=venue.exchange).set(reader.lag)
        if reader.lag:
            return  # what is still to be read comes first
        if info is None or not info.alive:
            if venue.connected:
                # A ring that is gone was closed properly; one without its owner was not.
                tell = log.info if info is None else log.warning
                tell("ring without a writer", exchange=venue.exchange)
                venue.lost()
        elif info.stuck:
            venue.suspend()
        else:
            venue.restore()

    async def _read(self, exchange: str, reader: RingReader) -> None:
        """Hand records over as they come, in portions."""
        venue = self._hub.venue(exchange)
        overruns = metrics.RING_OVERRUNS.bind(service=SERVICE, exchange=exchange)
        try:
            while True:
                await reader.ready()
                batch = reader.read(BATCH_RECORDS)
                if batch.overrun is not None:
                    overruns.inc()
                if batch:
                    venue.take(batch, lambda: reader.states)
                    self._hub.flush()
                await asyncio.sleep(0)
        except RingError as error:
            log.warning("ring given up", exchange=exchange, problem=str(error))
            venue.lost()
            self._hub.flush()
            self._release(exchange)

    def _release(self, exchange: str) -> None:
        """Let go of a ring; the next look finds it again, if it is of any use."""
        self.readers.pop(exchange).close()
        self._tasks.pop(exchange)

    async def _stop(self) -> None:
        tasks: Iterable[asyncio.Task[None]] = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for reader in self.readers.values():
            reader.close()
        self.readers.clear()
