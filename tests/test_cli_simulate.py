"""`alphapulse simulate` where it can't do what it is asked for."""

from __future__ import annotations

import socket

import pytest

from tests.programs import ended

COMMAND = ("alphapulse.cli", "simulate", "kraken")


@pytest.mark.parametrize("before", [0, 1])
async def test_a_port_in_use_is_named_with_what_helps(before: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, out, error = await ended(*COMMAND, "--port", str(port - before))
    assert (status, out) == (2, "")
    assert error == (
        f"alphapulse: can't listen on 127.0.0.1:{port}: Address already in use; choose another "
        "--port (0: any free ones), or stop what listens there\n"
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "nosuch.invalid"])
async def test_a_host_that_is_not_this_one_is_named(host: str) -> None:
    status, _, error = await ended(*COMMAND, "--host", host)
    assert status == 2
    assert f"can't listen on {host}:0: " in error
    assert "Unknown error" not in error
    assert error.endswith("; choose as --host an address of this machine\n")


@pytest.mark.parametrize("symbols", ["0", "10001", "9" * 5000])
async def test_a_market_has_a_bounded_number_of_symbols(symbols: str) -> None:
    status, _, error = await ended(*COMMAND, "--symbols", symbols)
    assert status == 2
    assert "write how many, 1 to 10000, or names like BTC-USD,ETH-USD" in error
