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


async def test_dead_rings_are_removed_where_that_is_asked_for(ring_prefix: str) -> None:
    with steering(ring_prefix) as start:
        start("writer").kill()
        _, out, _ = await ended(*COMMAND, "--prefix", ring_prefix, "--json")
        assert json.loads(out)["status"] == "dead"
        status, out, _ = await ended(*COMMAND, "--prefix", ring_prefix, "--remove-dead")
    assert status == 0
    assert f"removed {ring_prefix}.kraken\n" in out
    assert f"no rings under prefix '{ring_prefix}'" in out
