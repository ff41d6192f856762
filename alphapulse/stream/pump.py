"""From the rings to the hub: finds a prefix's rings, reads them, and sees whether they live."""

from __future__ import annotations

import asyncio

from alphapulse import metrics
from alphapulse.clock import monotonic_ns
from alphapulse.errors import RingError
from alphapulse.log import get_logger
from alphapulse.shm import RingInfo, RingReader, list_rings
from alphapulse.stream.hub import Hub
from alphapulse.stream.venue import Venue

log = get_logger(__name__)

SERVICE = "stream"

LOOK_SECONDS = 0.25
"""How often to look which rings there are and whether their writers are at work."""

BATCH_RECORDS = 64
"""Records taken of one ring before the other rings have their turn."""

TURN_NS = 10_000_000
"""How long records are taken before clients are sent what has become due, and requests are served.

What they make due for a client goes out in one write: the busier the rings, the larger the writes.
"""


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
        self._busy: dict[str, None] = {}
        """Rings that have news, in the order in which it came."""
        self._scheduled = False

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
            for exchange in list(self.readers):
                self._release(exchange)

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
        metrics.RING_OVERRUNS.bind(service=SERVICE, exchange=exchange)  # from 0 on
        states = {} if whole else reader.states
        self._hub.venue(exchange).attach(reader.epoch, reader.instruments, states)
        self.readers[exchange] = reader
        self._await(exchange)

    def _watch(self, venue: Venue, reader: RingReader, info: RingInfo | None) -> None:
        metrics.RING_LAG.bind(service=SERVICE, exchange=venue.exchange).set(reader.lag)
        if reader.lag:
            return  # what is still to be read comes first
        venue.seen_ns = max(venue.seen_ns, reader.heartbeat_ns)
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

    def _await(self, exchange: str) -> None:
        """Have records taken when there are any."""
        reader = self.readers[exchange]

        def news() -> None:
            if self.readers.get(exchange) is reader:
                self._busy[exchange] = None
                self._turn()

        reader.when_ready(news)

    def _turn(self) -> None:
        """Take records of all rings that have any, for a while, then send what is due."""
        until_ns = monotonic_ns() + TURN_NS
        drained = []
        while self._busy:
            for exchange in list(self._busy):
                if self._take(exchange):
                    del self._busy[exchange]
                    drained.append(exchange)
            if monotonic_ns() > until_ns:
                break
        self._hub.behind = bool(self._busy)
        self._hub.flush()
        for exchange in drained:
            if exchange in self.readers:
                self._await(exchange)
        if self._busy and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._continue)

    def _continue(self) -> None:
        self._scheduled = False
        self._turn()

    def _take(self, exchange: str) -> bool:
        """Hand over to the hub a portion of a ring's records; whether that was the last."""
        reader = self.readers[exchange]
        try:
            batch = reader.read(BATCH_RECORDS)
        except RingError as error:
            log.warning("ring given up", exchange=exchange, problem=str(error))
            self._hub.venue(exchange).lost()
            self._release(exchange)
            return True
        if batch.overrun is not None:
            metrics.RING_OVERRUNS.bind(service=SERVICE, exchange=exchange).inc()
        if batch:
            self._hub.venue(exchange).take(batch, lambda: reader.states)
        return len(batch) < BATCH_RECORDS and batch.overrun is None

    def _release(self, exchange: str) -> None:
        """Let go of a ring; the next look finds it again, if it is of any use."""
        self.readers.pop(exchange).close()
