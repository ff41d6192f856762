"""`LocalClient`: the rings of this machine, with the interface of a `StreamClient`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Literal

from alphapulse.client.base import Client
from alphapulse.client.events import OVERALL
from alphapulse.client.local_feed import Alive, Attached, Lapped, LocalEntry, LocalFeed
from alphapulse.client.messages import Format, Subscribe, Subscribed, Unsubscribe
from alphapulse.client.subscribing import Names, channel_names, symbol_names
from alphapulse.errors import ClientClosed, RequestError, RingError, RingNotFound
from alphapulse.log import get_logger
from alphapulse.model import Reason
from alphapulse.shm import DEFAULT_PREFIX, RingInfo, RingReader, list_rings
from alphapulse.symbols import normalize_symbol

log = get_logger(__name__)

BATCH_RECORDS = 256
LOOK_SECONDS = 0.25
"""How often to look which rings there are and whether their writers are at work."""

CHANNELS = ("trades", "orderbook", "state")
MAX_DEPTH = 100_000


class LocalClient(Client[LocalEntry]):
    """Reads the rings of this machine; events and books are those of a `StreamClient`.

        async with LocalClient("kraken") as client:
            await client.subscribe(["trades", "orderbook"], symbols=["BTC-USD"])
            async for event in client:
                ...

    Nothing waits in this process: who takes events too slowly is overtaken by the ring's writer,
    gets a `Gap` with the number of records lost, and each book begins anew.

    Parameters
    ----------
    venues : one or several; None for all that have a ring, now or later
    prefix : first part of the rings' names
    wait_for_rings : go on without an error where a named venue has no ring yet
    spin_ns : how long to poll before sleeping; see `RingReader`
    """

    def __init__(
        self,
        venues: str | Iterable[str] | None = None,
        *,
        prefix: str = DEFAULT_PREFIX,
        wait_for_rings: bool = False,
        spin_ns: int = 0,
    ) -> None:
        self._feed = LocalFeed()
        super().__init__(self._feed)
        self._venues = symbol_names(venues)
        self._prefix = prefix
        self._wait_for_rings = wait_for_rings
        self._spin_ns = spin_ns
        self._readers: dict[str, RingReader] = {}
        self._health: dict[str, Reason | None] = {}
        self._waits: dict[str, asyncio.Task[None]] = {}
        self._closing: asyncio.Future[None] | None = None
        self._look_at = 0.0

    async def _open(self) -> None:
        """Attach to the rings.

        Raises
        ------
        RingNotFound
            a venue that was named has no ring
        """
        self._closing = asyncio.get_running_loop().create_future()
        self.hold(self._look())
        lacking = [venue for venue in self._venues or () if venue not in self._readers]
        if lacking and not self._wait_for_rings:
            await self.close()
            raise RingNotFound(f"{self._prefix}.{lacking[0]}")
        # What the rings' directories say is known before the first subscription.
        self._events.extend(event for entry in self._entries for event in self._meaning.take(entry))
        self._entries.clear()

    async def close(self) -> None:
        """Let go of the rings. May be called again."""
        if self._closing is not None and not self._closing.done():
            self._closing.set_result(None)
        for wait in self._waits.values():
            wait.cancel()
        await asyncio.gather(*self._waits.values(), return_exceptions=True)
        self._waits.clear()
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    async def subscribe(
        self,
        channels: str | Iterable[str],
        exchanges: Names = None,
        symbols: Names = None,
        *,
        depth: int | Literal["full"] | None = None,
        conflate_ms: int | None = None,
        format: Format | None = None,  # noqa: A002  the protocol's own word
    ) -> list[Subscribed]:
        """Subscribe, from the event after the one given last on.

        Parameters
        ----------
        channels : ``trades``, ``orderbook``, ``state``: one or several
        exchanges, symbols : one or several; None for all, those included that appear later
        depth : levels a side; None or ``"full"`` for all
        conflate_ms : not served
        format : has no meaning here

        Raises
        ------
        RequestError
            it can't be served, with the codes of the stream's protocol
        """
        self._check_open()
        if conflate_ms is not None:
            raise RequestError("unsupported", "conflate_ms: only a stream server conflates")
        if isinstance(depth, int) and not 1 <= depth <= MAX_DEPTH:
            raise RequestError("bad_request", f"depth {depth}: 1 to {MAX_DEPTH}, or 'full'")
        request = Subscribe(
            channels=_channels(channels),
            exchanges=self._exchanges(exchanges),
            symbols=_symbols(symbols),
            depth="full" if depth is None else depth,
        )
        self._check_symbols(request)
        self._events.extend(self._feed.subscribe(request))
        epochs = self._feed.epochs
        wanted = request.exchanges or self._venues or tuple(epochs)
        return [
            Subscribed(
                channels=request.channels,
                exchanges=request.exchanges or ("*",),
                symbols=request.symbols or ("*",),
                format="binary",
                depth=request.depth,
                epochs={name: epochs[name] for name in wanted if name in epochs},
                waiting=tuple(name for name in wanted if name not in epochs),
            )
        ]

    async def unsubscribe(
        self,
        channels: str | Iterable[str] | None = None,
        exchanges: Names = None,
        symbols: Names = None,
    ) -> None:
        """Take subscriptions back, or a part of them; None for all. Raises `RequestError`."""
        self._check_open()
        self._feed.unsubscribe(
            Unsubscribe(
                channels=CHANNELS if channels is None else _channels(channels),
                exchanges=self._exchanges(exchanges),
                symbols=_symbols(symbols),
            )
        )

    async def snapshot(self, exchanges: Names = None, symbols: Names = None) -> None:
        """Have subscribed books told once more, reason ``requested``. Raises `RequestError`."""
        self._check_open()
        events = self._feed.again(self._exchanges(exchanges), _symbols(symbols))
        if events is None:
            raise RequestError("not_subscribed", "no book of your subscriptions fits")
        self._events.extend(events)

    async def take(self) -> list[LocalEntry]:
        """What the rings have next; waits for it.

        Raises
        ------
        ClientClosed
            the client was closed
        """
        clock = asyncio.get_running_loop().time
        while True:
            self._check_open()
            entries: list[LocalEntry] = []
            if clock() >= self._look_at:
                self._look_at = clock() + LOOK_SECONDS
                entries += self._look()
            for exchange, reader in list(self._readers.items()):
                entries += self._read(exchange, reader)
            if entries:
                return entries
            await self._wait(max(self._look_at - clock(), 0))

    def _read(self, exchange: str, reader: RingReader) -> list[LocalEntry]:
        try:
            batch = reader.read(BATCH_RECORDS)
        except RingError as error:
            log.warning("ring given up", exchange=exchange, problem=str(error))
            self._release(exchange)
            return [Alive(exchange, Reason.DISCONNECTED)]
        if batch.overrun is not None:
            return [Lapped(batch.overrun, dict(reader.states))]
        if batch and self._health.get(exchange) is not None:
            self._health[exchange] = None
        return [batch] if batch else []

    def _look(self) -> list[LocalEntry]:
        """Attach to rings that are new; notice those that are dead or stuck."""
        entries: list[LocalEntry] = []
        rings = {info.venue: info for info in list_rings(prefix=self._prefix)}
        for exchange, info in rings.items():
            wanted = self._venues is None or exchange in self._venues
            if wanted and exchange not in self._readers and info.alive and not info.problem:
                entries += self._attach(exchange)
        for exchange, reader in self._readers.items():
            entries += self._watch(exchange, reader, rings.get(exchange))
        return entries

    def _attach(self, exchange: str) -> list[LocalEntry]:
        try:
            reader = RingReader(exchange, prefix=self._prefix, spin_ns=self._spin_ns)
        except (RingError, PermissionError) as error:
            log.warning("ring can't be read", exchange=exchange, problem=str(error))
            return []
        self._readers[exchange] = reader
        self._health[exchange] = None
        states = dict(reader.states)
        return [Attached(exchange, reader.epoch, dict(reader.instruments), states)]

    def _watch(self, exchange: str, reader: RingReader, info: RingInfo | None) -> list[LocalEntry]:
        if reader.lag:
            return []  # what is still to be read comes first
        health = None
        if info is None or not info.alive:
            health = Reason.DISCONNECTED
        elif info.stuck:
            health = Reason.SILENT
        if health is self._health[exchange]:
            return []
        self._health[exchange] = health
        return [Alive(exchange, health)]

    def _release(self, exchange: str) -> None:
        """Let go of a ring; the next look finds it again, if it is of any use."""
        self._readers.pop(exchange).close()
        wait = self._waits.pop(exchange, None)
        if wait is not None:
            wait.cancel()

    async def _wait(self, seconds: float) -> None:
        """Sleep until a ring has news, or for so long."""
        for exchange, reader in self._readers.items():
            if exchange not in self._waits:
                self._waits[exchange] = asyncio.create_task(reader.ready())
        assert self._closing is not None
        waits: list[asyncio.Future[None]] = [*self._waits.values(), self._closing]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        self._waits = {name: task for name, task in self._waits.items() if not task.done()}

    def _check_open(self) -> None:
        self._check_opened()
        if self._closing is None or self._closing.done():
            raise ClientClosed("the client is closed")

    def _exchanges(self, names: Names) -> tuple[str, ...] | None:
        wanted = symbol_names(names)
        if wanted is None:
            return None
        wanted = tuple(name.strip().lower() for name in wanted)
        if OVERALL in wanted:
            raise RequestError("unsupported", "exchange all: only a stream server has it")
        known = {*self._readers, *(self._venues or ())}
        unknown = [name for name in wanted if name not in known]
        if unknown:
            there = ", ".join(sorted(known)) or "none"
            raise RequestError("unknown_exchange", f"no exchange {unknown[0]!r}; there are {there}")
        return wanted

    def _check_symbols(self, request: Subscribe) -> None:
        wanted = request.exchanges or self._venues or tuple(self._readers)
        waiting = [name for name in wanted if not self._feed.symbols((name,))]
        known = self._feed.symbols(wanted)
        unknown = [name for name in request.symbols or () if name not in known]
        if unknown and not waiting and wanted:
            where = ", ".join(wanted)
            raise RequestError("unknown_symbol", f"no symbol {unknown[0]!r} at {where}")


def open_local(
    venues: str | Iterable[str] | None = None, *, prefix: str = DEFAULT_PREFIX
) -> LocalClient:
    """A client of this machine's rings; use it with ``async with``."""
    return LocalClient(venues, prefix=prefix)


def _channels(given: str | Iterable[str]) -> tuple[str, ...]:
    names = channel_names(given)
    for name in names:
        if name in ("bbo", "arbitrage"):
            raise RequestError("unsupported", f"channel {name}: only a stream server has it")
        if name not in CHANNELS:
            there = ", ".join(CHANNELS)
            raise RequestError("bad_request", f"no channel {name!r}; there are {there}")
    return names


def _symbols(names: Names) -> tuple[str, ...] | None:
    wanted = symbol_names(names)
    if wanted is None:
        return None
    try:
        return tuple(dict.fromkeys(normalize_symbol(name) for name in wanted))
    except ValueError as error:
        raise RequestError("unknown_symbol", str(error)) from None
