"""``alphapulse arbitrage`` as a program."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.programs import TIMEOUT_SECONDS, ended, program
from tests.trading import Venue, cross

COMMAND = ("alphapulse.cli", "arbitrage")
FEES = ("--fee", "kraken=26", "--fee", "coinbase=2.5")


@pytest.fixture
def venues(ring_prefix: str) -> Iterator[tuple[Venue, Venue]]:
    """Kraken sells for less than Coinbase buys for."""
    with Venue(ring_prefix, "kraken") as kraken, Venue(ring_prefix, "coinbase") as coinbase:
        cross(kraken, coinbase)
        yield kraken, coinbase


def parse(line: str) -> Any:
    return json.loads(line, parse_float=Decimal)


@pytest.mark.parametrize(
    ("ending", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
async def test_lines_follow_the_rings(
    venues: tuple[Venue, Venue], ring_prefix: str, ending: signal.Signals, status: int
) -> None:
    kraken, _ = venues
    arguments = (*COMMAND, "--json", "--prefix", ring_prefix, *FEES)
    # What a ring that isn't beaten shows of life is old before the program has started.
    environ = {"ALPHAPULSE__ARBITRAGE__MAX_AGE_SECONDS": "1000"}
    async with program(*arguments, environ=environ) as running:
        opened = parse((await running.line("opened")).string)
        assert opened["type"] == "arbitrage"
        data = opened["data"]
        assert (data["buy_exchange"], data["sell_exchange"]) == ("kraken", "coinbase")
        assert (data["volume"], data["profit"]) == (Decimal("2.4"), Decimal("3.824616"))
        assert (data["status"], data["reason"]) == ("opened", None)
        kraken.change("BTC-USD", {}, {"100": "0"})
        changed = parse((await running.line("changed")).string)["data"]
        assert changed["buy_best"] == Decimal("100.1")
        assert changed["best_profit"] == Decimal("3.824616")
        kraken.change("BTC-USD", {}, {"100.1": "0", "101": "0"})
        closed = parse((await running.line("closed")).string)["data"]
        assert closed["reason"] == "uncrossed"
        assert closed["duration_ms"] > 0
        assert await running.end(ending) == status


@pytest.mark.parametrize(
    ("ending", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
async def test_the_table_lives_in_a_terminal(
    venues: tuple[Venue, Venue], ring_prefix: str, ending: signal.Signals, status: int
) -> None:
    master, slave = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *COMMAND, "--prefix", ring_prefix, *FEES),
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
    )
    os.close(slave)
    try:
        shown = b""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while b"BTC-USD" not in shown:
                shown += await asyncio.to_thread(os.read, master, 65536)
            process.send_signal(ending)
            # On Linux, reading a terminal that nobody else has open any more is an error.
            with contextlib.suppress(OSError):
                while data := await asyncio.to_thread(os.read, master, 65536):
                    shown += data
            assert await process.wait() == status, shown.decode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        os.close(master)
    assert b"Traceback" not in shown


async def test_once(venues: tuple[Venue, Venue], ring_prefix: str) -> None:
    arguments = ("--once", "--prefix", ring_prefix, *FEES)
    lasting = {"ALPHAPULSE__ARBITRAGE__MAX_AGE_SECONDS": "1000"}
    (_, narrow, error), (_, wide, _), (_, lines, _), (_, nothing, _) = await asyncio.gather(
        ended(*COMMAND, *arguments, "--symbol", "btc/usd", **lasting, COLUMNS="80"),
        ended(*COMMAND, *arguments, **lasting, COLUMNS="200"),
        ended(*COMMAND, *arguments, "--json", **lasting),
        ended(*COMMAND, *arguments, "--min-bps", "9000", **lasting),
    )
    assert error == ""
    shown = "BTC-USD  kraken  coinbase     2.4   159.30  3.8246 USD   0.0 s"
    assert shown in narrow
    assert f"{shown}   100.0375  101.916667     187.85  3.8246" in wide
    assert [parse(line)["data"]["status"] for line in lines.splitlines()] == ["opened"]
    assert "no opportunity at the moment" in nothing
    assert "BTC-USD  kraken to coinbase  171.45 bps" in nothing


async def test_what_is_wrong_is_said(venues: tuple[Venue, Venue], ring_prefix: str) -> None:
    prefix = ("--prefix", ring_prefix)
    cases = [
        (
            ("--prefix", "aptest-nobody"),
            1,
            "no rings with a collector under prefix 'aptest-nobody'",
        ),
        ((*prefix, "--fee", "kraken"), 2, "--fee 'kraken': write VENUE=BPS"),
        ((*prefix, "--fee", "kraken=-1"), 2, "from 0 to 9999"),
        ((*prefix, "--fee", "kraken=nan"), 2, "from 0 to 9999"),
        ((*prefix, "--min-bps", "-5"), 2, "arbitrage.min_bps: -5 can't be used"),
        ((*prefix, "--fee", "krakn=1"), 2, "no ring of krakn"),
        ((*prefix, "--min-bps", "much"), 2, "--min-bps 'much' is no number"),
        ((*prefix, "--min-bps", "-1"), 2, "arbitrage.min_bps"),
        ((*prefix, "--symbol", "BTCUSD"), 2, "'BTCUSD' is no symbol"),
    ]
    results = [await ended(*COMMAND, *arguments) for arguments, _, _ in cases]
    for (arguments, expected, said), (status, _, error) in zip(cases, results, strict=True):
        assert (status, said in error) == (expected, True), (arguments, error)


async def test_help_explains() -> None:
    status, out, _ = await ended(*COMMAND, "--help")
    assert status == 0
    for word in ("--fee", "--min-bps", "after both fees", "For example"):
        assert word in out
