"""Several simulated venues at once, here and in a process of their own."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from alphapulse.errors import CaptureError, ConfigError
from alphapulse.simulators import Endpoints, SimulationSettings, run, start_simulators
from tests.simulator_client import Client, get, post
from tests.support import ROOT

PROGRAM = """
import asyncio, json, signal
from alphapulse.simulators import SimulationSettings, run

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run(SimulationSettings(), lambda urls: print(json.dumps(urls), flush=True), stop)
    print("stopped", flush=True)

asyncio.run(main())
"""


async def test_venues_share_a_market() -> None:
    async with start_simulators(SimulationSettings(symbols=("BTC-USD",), levels=20)) as venues:
        assert list(venues) == ["coinbase", "kraken", "binance_us"]
        assert len({venue.ws_url for venue in venues.values()}) == 3
        bests = [venue.book("BTC-USD").bids[0][0] for venue in venues.values()]
        assert max(bests) / min(bests) < 1.02


async def test_runs_until_it_is_stopped() -> None:
    stop = asyncio.Event()
    told: list[dict[str, Endpoints]] = []

    def announce(urls: dict[str, Endpoints]) -> None:
        told.append(urls)
        asyncio.get_running_loop().call_soon(stop.set)

    await asyncio.wait_for(run(SimulationSettings(events=3, book_rate=0), announce, stop), 30)
    assert told[0]["kraken"].ws_url.endswith("/v2")


async def test_a_damaged_recording_ends_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"t":1,"src":"ws","raw":"{}"}\n')
    settings = SimulationSettings(venues=("kraken",), capture=str(path), start="now")

    def damage(_: dict[str, Endpoints]) -> None:
        path.write_text("damaged\n")

    with pytest.raises(CaptureError):
        await asyncio.wait_for(run(settings, damage, asyncio.Event()), 30)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"venues": ()}, "venues"),
        ({"venues": ("kraken", "kraken")}, "venues"),
        ({"venues": ("mtgox",)}, "venues"),
        ({"ports": {"mtgox": (1, 2)}}, "venues"),
        ({"capture": "x"}, "capture"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SimulationSettings(**settings)
    assert caught.value.key == key


async def test_a_market_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="BTCUSD"):
        async with start_simulators(SimulationSettings(symbols=("BTCUSD",))):
            pass


async def test_works_from_another_process() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        urls = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
        ws_url, rest_url = urls["kraken"]
        async with Client(ws_url) as client:
            await client.receive()
            assert (await post(f"{rest_url}/control/send_text", {"text": "garbage"}))[0] == 200
            frames: list[str | None] = []
            while "garbage" not in frames:
                frames.append(await client.receive_raw())
            _, _, state = await get(f"{rest_url}/control")
            assert len(state["connections"]) == 1
            process.send_signal(signal.SIGTERM)
            assert await client.closed() == 1001
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"stopped\n"
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
