"""Three venues that fail in every way, and clients of every kind: no book is ever wrong.

Each version of each client's books is compared with what the collector's ring says of it. By
default this goes on for seconds; ``make soak ARGS="-k digests"`` takes ten minutes, or
``ALPHAPULSE_SOAK_SECONDS``.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop

from alphapulse.errors import RingNotFound
from alphapulse.model import BookState
from alphapulse.shm import RingReader, remove_dead
from alphapulse.simulators import SIMULATORS, Market, VenueSimulator
from tests.digest_clients import DigestClient, Wish
from tests.digests import DEPTH, Checker, Truth
from tests.programs import Program, program

VENUES = ("coinbase", "kraken", "binance_us")
SYMBOLS = 3
PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.3
"""Between one fault and the next, about."""

WISHES = (
    Wish("whole", {"depth": "full"}),
    Wish("top", {"depth": DEPTH}),
    Wish("conflated", {"depth": DEPTH, "conflate_ms": 100}),
    Wish("conflated whole", {"depth": "full", "conflate_ms": 50}),
    Wish("restless", {"depth": "full"}, restless=True),
    Wish("restless top", {"depth": DEPTH}, restless=True),
    Wish("fickle", {"depth": "full"}, fickle=True),
    Wish("binary", {"format": "binary"}),
    Wish("binary top", {"format": "binary", "depth": DEPTH}),
    Wish("binary conflated", {"format": "binary", "conflate_ms": 100}),
    Wish("binary restless", {"format": "binary"}, restless=True),
    Wish("binary fickle", {"format": "binary"}, restless=True, fickle=True),
)


Working = asyncio.Future[list[None]]
"""Of coroutines that run in the background: done when one of them has failed, or all have ended."""


class Collector:
    """A venue's collector, which is killed and begins anew."""

    def __init__(self, venue: str, environ: dict[str, str]) -> None:
        self._venue = venue
        self._environ = environ
        self._process: Program | None = None
        self._ending = False

    async def run(self) -> None:
        """Start it as often as it ends, until it is ended in order."""
        while not self._ending:
            name = "alphapulse.collectors.daemon"
            async with program(name, self._venue, environ=self._environ) as self._process:
                await self._process.process.communicate()

    def kill(self) -> None:
        """End it without warning; it comes again."""
        self._signal(signal.SIGKILL)

    def end(self) -> None:
        """Have it end in order, for good."""
        self._ending = True
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.process.send_signal(number)


class Trouble:
    """What goes wrong, at random.

    Parameters
    ----------
    simulators, collectors : by venue
    rng : of the choice
    """

    def __init__(
        self,
        simulators: dict[str, VenueSimulator],
        collectors: dict[str, Collector],
        rng: random.Random,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._simulators = simulators
        self._collectors = collectors
        self._random = rng

    def cause(self) -> None:
        """Have something go wrong at some venue."""
        rng = self._random
        venue = rng.choice(VENUES)
        simulator = self._simulators[venue]
        symbol = rng.choice(list(simulator.symbols))
        faults = simulator.faults
        kinds: dict[str, tuple[int, Callable[[], object]]] = {
            "drop_update": (8, lambda: faults.drop_update(symbol)),
            "skip_trade": (2, lambda: faults.skip_trade(symbol)),
            "close": (3, faults.close),
            "abort": (3, faults.abort),
            "kill": (1, self._collectors[venue].kill),
        }
        if venue == "kraken":
            kinds["corrupt_checksum"] = (8, lambda: faults.corrupt_checksum(symbol))
        if venue == "binance_us":
            kinds["stale_snapshot"] = (2, lambda: faults.stale_snapshot(symbol))
        (kind,) = rng.choices(list(kinds), [weight for weight, _ in kinds.values()])
        self.counts[kind] += 1
        kinds[kind][1]()


def environment(prefix: str, simulators: dict[str, VenueSimulator]) -> dict[str, str]:
    """Settings of all programs, with short timers."""
    environ = {
        "ALPHAPULSE__RING__PREFIX": prefix,
        "ALPHAPULSE__LOG__LEVEL": "error",
        "STREAM_PORT": "0",
    }
    for venue, simulator in simulators.items():
        section = f"ALPHAPULSE__VENUES__{venue.upper()}"
        environ |= {
            f"{section}__SYMBOLS": ",".join(simulator.symbols),
            f"{section}__WS_URL": simulator.ws_url,
            f"{section}__REST_URL": simulator.rest_url,
            f"{section}__BACKOFF_FIRST_SECONDS": "0.05",
            f"{section}__BACKOFF_MAX_SECONDS": "0.5",
        }
    return environ


@asynccontextmanager
async def at_work(
    tasks: list[Coroutine[Any, Any, None]],
) -> AsyncIterator[asyncio.Future[list[None]]]:
    """Run coroutines in the background; what they raise, they raise here."""
    working = asyncio.gather(*tasks)
    try:
        yield working
    finally:
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working


async def nothing(left: Callable[[], list[str]], working: Working) -> None:
    """Wait until nothing is left, while everything goes on."""
    until = time.monotonic() + PATIENCE_SECONDS
    while found := left():
        assert time.monotonic() < until, found
        await asyncio.wait({working}, timeout=0.05)
        if working.done():
            working.result()


async def attach(prefix: str) -> dict[str, Truth]:
    """Read the rings from their beginnings, once they are there."""
    truths: dict[str, Truth] = {}
    async with asyncio.timeout(PATIENCE_SECONDS):
        for venue in VENUES:
            while venue not in truths:
                with suppress(RingNotFound):
                    truths[venue] = Truth(RingReader(venue, prefix=prefix, start="oldest"))
                await asyncio.sleep(0.02)
    return truths


def behind(client: DigestClient, truths: dict[str, Truth]) -> list[str]:
    """A client's books that aren't live, or not yet the ring's, while the markets rest."""
    found = []
    for (exchange, symbol), book in client.books.items():
        truth = truths[exchange]
        ring = truth.books.get(symbol)
        if ring is None or truth.states.get(symbol) is not BookState.LIVE:
            found.append(f"{exchange} {symbol} isn't live in the ring")
        elif not book.ready or book.digest != (
            ring.digest if client.whole(exchange, symbol) else ring.top(DEPTH)
        ):
            found.append(f"{client.wish.name}: {exchange} {symbol} is at {book.version}")
    return found


async def compare(prefix: str, seconds: float) -> None:
    """Go on for so long, then let the market rest, and see that all agree."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    market = Market(SYMBOLS, seed=seed, book_rate=60.0, trade_rate=5.0, levels=100)
    async with AsyncExitStack() as stack:
        stack.callback(remove_dead, prefix=prefix)  # of a test that has failed
        simulators = {
            venue: await stack.enter_async_context(SIMULATORS[venue](market)) for venue in VENUES
        }
        for simulator in simulators.values():
            # A collector keeps to the limit, but one that was killed has lost count.
            simulator.connections_budget = None
        symbols = list(simulators["kraken"].symbols)
        environ = environment(prefix, simulators)
        stream = await stack.enter_async_context(
            program("alphapulse.cli.serve", "stream", environ=environ)
        )
        url = f"ws://127.0.0.1:{await stream.port()}/ws"
        collectors = {venue: Collector(venue, environ) for venue in VENUES}
        collecting = await stack.enter_async_context(
            at_work([collector.run() for collector in collectors.values()])
        )
        truths = await attach(prefix)
        for truth in truths.values():
            stack.callback(truth.close)
        checker = Checker(truths)
        clients = [
            DigestClient(url, wish, checker, symbols, seed + number)
            for number, wish in enumerate(WISHES)
        ]
        trouble = Trouble(simulators, collectors, rng)
        working = await stack.enter_async_context(at_work([client.run() for client in clients]))
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.wait({working}, timeout=rng.expovariate(1 / PAUSE_SECONDS))
            if working.done():
                working.result()
            trouble.cause()
            checker.catch_up()
            assert not checker.differences
        for simulator in simulators.values():
            simulator.pause()

        def missing() -> list[str]:
            checker.catch_up()
            return [str(seen) for seen in checker.early] + [
                one for client in clients for one in behind(client, truths)
            ]

        await nothing(missing, working)
        report(checker, clients, trouble)
        for collector in collectors.values():
            collector.end()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await collecting
    assert not checker.differences


def report(checker: Checker, clients: list[DigestClient], trouble: Trouble) -> None:
    """Say what was done, and see that it was something."""
    for exchange, truth in checker.truths.items():
        print(exchange, dict(truth.counts))
        assert truth.counts["deltas"]
    print("trouble", dict(trouble.counts))
    for client in clients:
        count = checker.compared[client.wish.name]
        print(f"{client.wish.name}: {count} books compared, {client.connections} connections, "
              f"{client.resumed} resumed, {client.changes} changes of mind")  # fmt: skip
        assert count
        assert client.connections > 1 or not client.wish.restless
        assert client.changes or not client.wish.fickle


def test_every_clients_books_are_the_collectors(ring_prefix: str) -> None:
    uvloop.run(compare(ring_prefix, 12.0))


@pytest.mark.soak
def test_every_clients_books_are_the_collectors_for_long(ring_prefix: str) -> None:
    uvloop.run(compare(ring_prefix, float(os.environ.get("ALPHAPULSE_SOAK_SECONDS", "600"))))
