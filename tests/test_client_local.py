"""The client of local rings, where a server has no part: laps, dead writers, several venues."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from alphapulse.client import LocalClient, StreamEvent, open_local
from alphapulse.errors import ClientClosed, RequestError, RingNotFound
from alphapulse.model import (
    BookDelta,
    BookSide,
    BookSnapshot,
    BookState,
    Channel,
    Gap,
    Reason,
    StateChange,
    Trade,
)
from tests.clients import PATIENCE_SECONDS
from tests.streaming import Exchange
from tests.support import ROOT

BID, ASK = BookSide


async def until(client: LocalClient, wanted: Callable[[StreamEvent], bool]) -> StreamEvent:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not wanted(event := await anext(client)):
            pass
        return event


def a(kind: type[Any]) -> Callable[[StreamEvent], bool]:
    return lambda event: isinstance(event, kind)


async def test_several_venues_in_one_loop(ring_prefix: str) -> None:
    with (
        Exchange(ring_prefix, "kraken") as kraken,
        Exchange(ring_prefix, "coinbase") as coinbase,
    ):
        async with open_local(["kraken", "coinbase"], prefix=ring_prefix) as client:
            (answer,) = await client.subscribe(["trades", "orderbook"])
            assert answer.epochs == {"kraken": kraken.epoch, "coinbase": coinbase.epoch}
            kraken.trade("BTC-USD")
            coinbase.trade("BTC-USD")
            seen = {(await until(client, a(Trade))).exchange for _ in range(2)}  # type: ignore[union-attr]
            assert seen == {"kraken", "coinbase"}
            assert set(client.books) == {("kraken", "BTC-USD"), ("coinbase", "BTC-USD")}


async def test_a_client_that_is_overtaken_is_told_and_begins_anew(ring_prefix: str) -> None:
    with Exchange(ring_prefix, size_bytes=1 << 16) as exchange:
        async with LocalClient("kraken", prefix=ring_prefix) as client:
            await client.subscribe(["trades", "orderbook"])
            await until(client, a(BookSnapshot))
            book = client.books["kraken", "BTC-USD"]
            assert book.live
            first = exchange.writer.sequence + 1
            for number in range(3000):
                exchange.change("BTC-USD", (BID, 100, number + 1))
                if number % 100 == 0:
                    exchange.repeat("BTC-USD")
            gap = await until(client, a(Gap))
            assert isinstance(gap, Gap)
            assert (gap.channel, gap.reason, gap.first) == (Channel.RING, Reason.LAPPED, first)
            assert gap.count
            state = await until(client, a(StateChange))
            assert isinstance(state, StateChange)
            assert (state.state, state.reason) == (BookState.STALE, Reason.LAPPED)
            again = await until(client, a(BookSnapshot))
            assert isinstance(again, BookSnapshot)
            assert again.reason is Reason.LAPPED
            version = exchange.versions["BTC-USD"]
            if again.version < version:
                await until(
                    client, lambda event: isinstance(event, BookDelta) and event.version == version
                )
            assert dict(book.scaled_bids()) == exchange.books["BTC-USD"][0]


async def test_a_killed_collectors_books_are_not_shown(ring_prefix: str) -> None:
    pipe = asyncio.subprocess.PIPE
    collector = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.stream_processes", "venue", ring_prefix),
        cwd=ROOT,
        stdin=pipe,
        stdout=pipe,
    )
    try:
        assert collector.stdout is not None
        await collector.stdout.readline()
        async with LocalClient("kraken", prefix=ring_prefix) as client:
            await client.subscribe("orderbook")
            await until(client, a(BookSnapshot))
            collector.kill()
            await collector.wait()
            state = await until(
                client,
                lambda event: isinstance(event, StateChange) and event.state is BookState.STALE,
            )
            assert isinstance(state, StateChange)
            assert state.reason is Reason.DISCONNECTED
            assert not client.books["kraken", "BTC-USD"].live
    finally:
        if collector.returncode is None:
            collector.kill()
        await collector.communicate()
    with Exchange(ring_prefix):
        pass  # a successor that ends in order leaves nothing behind


async def test_rings_may_come_later(ring_prefix: str) -> None:
    with pytest.raises(RingNotFound, match="kraken"):
        await LocalClient("kraken", prefix=ring_prefix).open()
    async with LocalClient("kraken", prefix=ring_prefix, wait_for_rings=True) as client:
        (answer,) = await client.subscribe("orderbook", "kraken", "BTC-USD")
        assert answer.waiting == ("kraken",)
        with Exchange(ring_prefix):
            assert isinstance(await until(client, a(BookSnapshot)), BookSnapshot)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [(("bbo",), {}), (("orderbook", "all"), {}), (("orderbook",), {"conflate_ms": 100})],
)
async def test_what_only_a_server_has_is_refused(
    ring_prefix: str, arguments: Any, options: Any
) -> None:
    with Exchange(ring_prefix):
        async with LocalClient(prefix=ring_prefix) as client:
            with pytest.raises(RequestError, match="stream server") as caught:
                await client.subscribe(*arguments, **options)
            assert caught.value.code == "unsupported"


async def test_closing_ends_the_waiting(ring_prefix: str) -> None:
    with Exchange(ring_prefix):
        client = await LocalClient(prefix=ring_prefix).open()
        waiting = asyncio.ensure_future(anext(client))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(ClientClosed):
            await waiting
