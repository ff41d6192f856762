"""``alphapulse rings`` as a program."""

from __future__ import annotations

import json

from alphapulse.shm import RingReader
from alphapulse.shm.names import FOLDER
from tests.programs import ended
from tests.ring_process import steering
from tests.trading import Venue

COMMAND = ("alphapulse.cli", "rings")


async def test_rings_are_listed_with_their_writers_and_readers(ring_prefix: str) -> None:
    unreadable = FOLDER / f"{ring_prefix}.coinbase"
    unreadable.write_bytes(b"x")
    with Venue(ring_prefix) as venue, RingReader("kraken", prefix=ring_prefix) as reader:
        venue.book("BTC-USD", {"100": "1"}, {"101": "1"})
        status, out, _ = await ended(*COMMAND, "--prefix", ring_prefix, "--json")
        table = (await ended(*COMMAND, "--prefix", ring_prefix, COLUMNS="200"))[1]
        assert reader.lag
    unreadable.unlink()
    assert status == 0
    bad, good = (json.loads(line) for line in out.splitlines())
    assert (bad["venue"], bad["status"]) == ("coinbase", "unreadable")
    assert (good["venue"], good["status"], good["sequence"]) == ("kraken", "live", 3)
    assert [each["lag"] for each in good["readers"]] == [2]
    assert f"{ring_prefix}.kraken" in table
    assert "live" in table


async def test_rings_of_other_prefixes_are_named_where_there_are_none(ring_prefix: str) -> None:
    with Venue(f"{ring_prefix}-desk"):
        status, out, _ = await ended(*COMMAND, "--prefix", ring_prefix)
        book = await ended("alphapulse.cli", "book", "kraken", "BTC-USD", "--prefix", ring_prefix)
        crossings = await ended("alphapulse.cli", "arbitrage", "--prefix", ring_prefix)
    assert status == 0
    assert f"no rings under prefix '{ring_prefix}'; there are some" in out
    for text in (out, book[2], crossings[2]):
        assert f"--prefix {ring_prefix}-desk" in text


async def test_a_narrow_table_keeps_names_whole(ring_prefix: str) -> None:
    prefix = f"{ring_prefix}-with-quite-a-long-name"
    with Venue(prefix, "binance_us"):
        _, out, _ = await ended(*COMMAND, "--prefix", prefix, COLUMNS="80")
    assert f"{prefix}.binance_us" in out


async def test_dead_rings_are_removed_where_that_is_asked_for(ring_prefix: str) -> None:
    with steering(ring_prefix) as start:
        start("writer").kill()
        _, out, _ = await ended(*COMMAND, "--prefix", ring_prefix, "--json")
        assert json.loads(out)["status"] == "dead"
        status, out, _ = await ended(*COMMAND, "--prefix", ring_prefix, "--remove-dead")
    assert status == 0
    assert f"removed {ring_prefix}.kraken\n" in out
    assert f"no rings under prefix '{ring_prefix}'" in out
