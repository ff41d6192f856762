"""``alphapulse book`` as a program."""

from __future__ import annotations

import signal

import pytest

from alphapulse.model import BookState, Reason
from alphapulse.shm.names import FOLDER
from tests.programs import ended, program
from tests.trading import Venue

COMMAND = ("alphapulse.cli", "book")


async def test_a_live_book_is_printed_best_prices_in_the_middle(ring_prefix: str) -> None:
    with Venue(ring_prefix) as venue:
        venue.book("BTC-USD", {"100": "1", "99.5": "2"}, {"101": "0.5", "102": "7"})
        arguments = ("kraken", "btc/usd", "--once", "--prefix", ring_prefix, "--levels", "2")
        status, out, err = await ended(*COMMAND, *arguments)
    assert (status, err) == (0, "")
    first, *rows = out.splitlines()
    assert first.split() == ["kraken", "BTC-USD", "live"]
    assert [row.split()[0] for row in rows[:5]] == ["102.00", "101.00", "spread", "100.00", "99.50"]
    assert "2 bids, 2 asks" in rows[5]


async def test_the_ladder_follows_the_ring_until_it_is_ended(ring_prefix: str) -> None:
    arguments = (*COMMAND, "kraken", "BTC-USD", "--prefix", ring_prefix)
    with Venue(ring_prefix) as venue:
        venue.book("BTC-USD", {"100": "1"}, {"101": "1"})
        async with program(*arguments, environ={"TERM": "xterm", "FORCE_COLOR": "1"}) as running:
            await running.line(r"100\.00")
            venue.change("BTC-USD", {"100.5": "3"}, {})
            await running.line(r"100\.50")
            venue.state("BTC-USD", BookState.STALE, Reason.DISCONNECTED)
            await running.line("no book to show")
            assert await running.end(signal.SIGINT) == 0


async def test_a_book_that_is_not_live_is_not_shown(ring_prefix: str) -> None:
    with Venue(ring_prefix) as venue:
        venue.book("BTC-USD", {"100": "1"}, {"101": "1"})
        venue.state("BTC-USD", BookState.INVALID, Reason.CHECKSUM)
        arguments = ("kraken", "BTC-USD", "--once", "--timeout", "0", "--prefix", ring_prefix)
        status, out, err = await ended(*COMMAND, *arguments)
    assert (status, out) == (1, "")
    assert "BTC-USD is " in err


async def test_what_there_is_instead_is_named(ring_prefix: str) -> None:
    with Venue(ring_prefix, "kraken", "BTC-USD", "ETH-USD") as venue:
        venue.book("BTC-USD", {"100": "1"}, {"101": "1"})
        at = ("--prefix", ring_prefix, "--once")
        cases = [
            (("kraken", "BTC-USDC"), 1, "kraken has no BTC-USDC in its ring; it has BTC-USD"),
            (("coinbase", "BTC-USD"), 1, "rings under this prefix: kraken"),
            (("kraken", "BTC"), 2, "BTC"),
        ]
        for arguments, expected, words in cases:
            status, out, err = await ended(*COMMAND, *arguments, *at)
            assert (status, out) == (expected, ""), err
            assert words in err
            assert "Traceback" not in err


@pytest.mark.parametrize("content", [b"", b"x" * 9000])
async def test_a_ring_that_cant_be_read_is_told(ring_prefix: str, content: bytes) -> None:
    path = FOLDER / f"{ring_prefix}.kraken"
    path.write_bytes(content)
    try:
        arguments = ("kraken", "BTC-USD", "--once", "--prefix", ring_prefix)
        status, out, err = await ended(*COMMAND, *arguments)
    finally:
        path.unlink()
    assert (status, out) == (1, "")
    assert err.startswith(f"alphapulse: {ring_prefix}.kraken")
