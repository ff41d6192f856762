"""One crossing, told alike by the library, the command, REST and the stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from websockets.asyncio.client import ClientConnection, connect

from alphapulse.arbitrage import Terms, encode_event
from alphapulse.client.arbitrage import ArbitrageDetector
from alphapulse.config import ArbitrageSettings, FeesSettings, Settings
from alphapulse.store import open_store
from alphapulse.stream.server import StreamServer
from tests.programs import TIMEOUT_SECONDS, program
from tests.serving import Api, api_settings, serving
from tests.trading import Venue

FEES = {"kraken": Decimal("25.5"), "coinbase": Decimal(40)}
SETTINGS = ArbitrageSettings(
    fees_bps=FeesSettings(**FEES), min_bps=Decimal("0.5"), max_age_seconds=1000.0
)
COMMAND = (
    *("alphapulse.cli", "arbitrage", "--json", "--min-bps", "0.5"),
    *("--fee", "kraken=25.5", "--fee", "coinbase=40", "--prefix"),
)

MOMENT = {
    *("opened_ns", "at_ns", "duration_ms", "status", "reason"),
    *("buy_age_ms", "sell_age_ms"),
}
"""Fields that depend on when somebody looked."""


def parse(text: str | bytes) -> Any:
    return json.loads(text, parse_float=Decimal)


def figures(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in MOMENT}


@asynccontextmanager
async def streaming(settings: Settings) -> AsyncIterator[ClientConnection]:
    """A server, and a client that has subscribed to crossings."""
    server = StreamServer(settings)
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(server.run(stop, port.set_result))
    try:
        url = f"ws://127.0.0.1:{await port}/ws?channels=arbitrage&symbols=BTC-USD"
        async with connect(url) as client:
            assert parse(await client.recv())["type"] == "subscribed"
            yield client
    finally:
        stop.set()
        await task


async def told(client: ClientConnection, status: str) -> dict[str, Any]:
    """The next event, of this status."""
    event = parse(await client.recv())
    assert (event["type"], event["data"]["status"]) == ("arbitrage", status)
    data: dict[str, Any] = event["data"]
    return data


async def answered(api: Api, volume: str) -> dict[str, Any]:
    """What REST says, once it knows this volume."""
    body = await api.until(
        "/arbitrage/opportunities",
        lambda body: [str(item["volume"]) for item in body["data"]] == [volume],
    )
    data: dict[str, Any] = body["data"][0]
    return data


async def test_all_say_the_same(ring_prefix: str, tmp_path: Path) -> None:
    settings = replace(
        api_settings(ring_prefix, path=str(tmp_path / "history.duckdb")), arbitrage=SETTINGS
    )
    store = await open_store(settings)
    environ = {"ALPHAPULSE__ARBITRAGE__MAX_AGE_SECONDS": "1000"}
    terms = Terms.from_settings(SETTINGS)
    with (
        Venue(ring_prefix, "kraken") as kraken,
        Venue(ring_prefix, "coinbase") as coinbase,
        ArbitrageDetector(terms, prefix=ring_prefix) as detector,
    ):
        kraken.book("BTC-USD", {"29000": "1"}, {"29500.1": "0.25", "29500.2": "1", "29990": "9"})
        coinbase.define("BTC-USD", price_exponent=1, size_exponent=8)
        coinbase.book("BTC-USD", {"29750.5": "0.50000001", "29690": "1"}, {"30000": "1"})
        async with (
            serving(settings, store) as api,
            streaming(settings) as client,
            program(*COMMAND, ring_prefix, environ=environ) as command,
            asyncio.timeout(TIMEOUT_SECONDS),
        ):
            (event,) = detector.poll()
            ours = parse(encode_event(event))["data"]
            # Bought 0.25 at 29500.1 and 0.25000001 at 29500.2; the next level makes too little.
            assert str(ours["volume"]) == "0.50000001"
            assert str(ours["buy_amount"]) == "14750.075295002"
            assert str(ours["sell_amount"]) == "14875.250297505"
            assert str(ours["buy_fee"]) == "37.6126920022551"
            assert str(ours["sell_fee"]) == "59.50100119002"
            assert str(ours["profit"]) == "28.0613093107249"
            opened = [
                await told(client, "opened"),
                parse((await command.line("opened")).string)["data"],
                await answered(api, "0.50000001"),
            ]
            assert [figures(data) for data in opened] == [figures(ours)] * 3

            coinbase.change("BTC-USD", {"29800": "0.1"}, {})
            (event,) = detector.poll()
            ours = parse(encode_event(event))["data"]
            assert str(ours["volume"]) == "0.60000001"
            changed = [
                await told(client, "changed"),
                parse((await command.line("changed")).string)["data"],
                await answered(api, "0.60000001"),
            ]
            assert [figures(data) for data in changed] == [figures(ours)] * 3
            assert ours["best_profit"] == ours["profit"]

            kraken.change("BTC-USD", {}, {"29500.1": "0", "29500.2": "0"})
            (event,) = detector.poll()
            closed = [
                parse(encode_event(event))["data"],
                await told(client, "closed"),
                parse((await command.line("closed")).string)["data"],
            ]
            assert {data["reason"] for data in closed} == {"uncrossed"}
            assert [figures(data) for data in closed] == [figures(ours)] * 3
            assert (await api.get("/arbitrage/opportunities"))["data"] == []
    await store.close()
