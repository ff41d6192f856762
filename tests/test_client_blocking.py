"""The blocking clients: interrupted, timed out, and ended with their script."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from alphapulse.client import BlockingLocalClient, BlockingStreamClient, connect
from alphapulse.errors import (
    ClientClosed,
    ClientError,
    ConnectionFailed,
    RequestError,
    RingNotFound,
)
from alphapulse.model import Trade
from tests.clients import PATIENCE_SECONDS, ServerThread, server_thread
from tests.streaming import Exchange
from tests.support import ROOT


@pytest.fixture
def exchange(ring_prefix: str) -> Iterator[Exchange]:
    with Exchange(ring_prefix) as exchange:
        yield exchange


@pytest.fixture
def server(ring_prefix: str, exchange: Exchange) -> Iterator[ServerThread]:
    with server_thread(ring_prefix) as server:
        yield server


def test_a_loop_over_events(server: ServerThread, exchange: Exchange) -> None:
    with connect(server.url, "trades", symbols="BTC-USD") as client:
        assert client.connected
        assert client.ping() > 0
        ids = [exchange.trade("BTC-USD") for _ in range(1000)]
        for event, trade_id in zip(client, ids, strict=False):
            assert isinstance(event, Trade)
            assert event.trade_id == trade_id
            if trade_id == ids[-1]:
                break
    with pytest.raises(ClientClosed):
        client.get(0)
    client.close()
    with pytest.raises(ClientError, match="opened before"):
        client.open()


def test_waiting_has_a_limit_and_loses_nothing(server: ServerThread, exchange: Exchange) -> None:
    with BlockingStreamClient(server.url, format="json") as client:
        client.subscribe("trades")
        assert client.get(0.01) is None
        assert len(client.collect(seconds=0.01)) == 0
        exchange.trade("BTC-USD")
        event = client.get(PATIENCE_SECONDS)
        assert isinstance(event, Trade)
        exchange.trade("BTC-USD")
        exchange.trade("BTC-USD")
        assert len(client.collect(1)) == 1
        assert len(client.collect(until=lambda event: isinstance(event, Trade), limit=1)) == 1
        with pytest.raises(ValueError, match="collect what"):
            client.collect()


def test_threads_end_with_the_client(server: ServerThread) -> None:
    before = threading.active_count()
    with BlockingStreamClient(server.url):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_errors_come_to_the_caller(server: ServerThread, ring_prefix: str) -> None:
    before = threading.active_count()
    with pytest.raises(ConnectionFailed):
        BlockingStreamClient("ws://127.0.0.1:9/ws").open()
    with pytest.raises(RequestError, match="fills"):
        connect(server.url, "fills")
    with pytest.raises(RingNotFound, match="mtgox"):
        BlockingLocalClient("mtgox", prefix=ring_prefix).open()
    assert threading.active_count() == before


SCRIPT = """
import sys
from alphapulse.client import connect
client = connect(sys.argv[1], "trades")
print("ready", flush=True)
try:
    for event in client:
        print(event.trade_id, flush=True)
except KeyboardInterrupt:
    print("interrupted", client.connected, flush=True)
    for event in client:
        print(event.trade_id, flush=True)
        break
"""


def test_ctrl_c_ends_the_waiting_and_loses_nothing(
    server: ServerThread, exchange: Exchange
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, server.url],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "ready\n"
        exchange.trade("BTC-USD")
        assert script.stdout.readline() == "1\n"
        script.send_signal(signal.SIGINT)
        assert script.stdout.readline() == "interrupted True\n"
        exchange.trade("BTC-USD")
        assert script.stdout.readline() == "2\n"
        assert script.wait(PATIENCE_SECONDS) == 0, "a script ends without closing"
