"""The examples of docs/client.md, as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from alphapulse.model import BookSide
from tests.clients import PATIENCE_SECONDS, ServerThread, server_thread
from tests.streaming import Exchange
from tests.support import ROOT

BID, ASK = BookSide
EXAMPLES = [
    example
    for example in re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "client.md").read_text(encoding="utf-8"), re.DOTALL
    )
    if "open_repository" not in example  # tests/test_opening.py has that one
]
SHOWN = [
    r"kraken buy 100\.55 0\.0007\nkraken \d+ PriceLevel\(price=Decimal\('100\.51'\)",
    r"BTC-USD 100\.55",
    r"kraken PriceLevel\(price=Decimal\('100\.51'\)",
    r"\+00:00 +100\.55 +0\.0007 +buy\n(.*\n)*.*shape: \(\d+, 4\)",
]
"""What each of them prints, among other things."""


@pytest.fixture
def server(ring_prefix: str) -> Iterator[tuple[ServerThread, str, Exchange, Exchange]]:
    with (
        Exchange(ring_prefix) as kraken,
        Exchange(ring_prefix, "coinbase") as coinbase,
        server_thread(ring_prefix) as server,
    ):
        kraken.reset("BTC-USD", {10050: 1}, {10060: 2})
        yield server, ring_prefix, kraken, coinbase


@pytest.mark.parametrize("number", range(len(SHOWN)))
def test_an_example(server: tuple[ServerThread, str, Exchange, Exchange], number: int) -> None:
    served, prefix, kraken, _ = server
    assert len(EXAMPLES) == len(SHOWN)
    code = EXAMPLES[number].replace("ws://127.0.0.1:8765/ws", served.url)
    code = code.replace('prefix="alphapulse"', f'prefix="{prefix}"')
    enough = threading.Event()
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as script:
        mover = threading.Thread(target=_move, args=(kraken, enough))
        mover.start()
        end = threading.Timer(PATIENCE_SECONDS, script.kill)
        end.start()
        try:
            text = ""
            assert script.stdout is not None
            while not re.search(SHOWN[number], text):
                line = script.stdout.readline()
                assert line, text
                text += line
        finally:
            end.cancel()
            enough.set()
            mover.join()
            script.kill()


def _move(exchange: Exchange, enough: threading.Event) -> None:
    size = 0
    while not enough.wait(0.005):
        size += 1
        exchange.trade("BTC-USD", 10055, 7)
        exchange.change("BTC-USD", (BID, 10051, size))
