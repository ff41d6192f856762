"""Programs that tests of the stream start and kill: ``python -m tests.stream_processes ROLE``.

``venue PREFIX`` writes a ring until it is killed; ``server`` serves as its environment says.
"""

from __future__ import annotations

import sys

import uvloop

from alphapulse.config import load
from alphapulse.model import BookSide, BookState, Reason
from alphapulse.stream.server import run_stream
from tests.streaming import Exchange


def venue(prefix: str) -> None:
    """Change a book with each line of input, and say so."""
    exchange = Exchange(prefix)
    exchange.reset("BTC-USD", {100: 1}, {}, Reason.RESYNCED)
    exchange.state("BTC-USD", BookState.LIVE, Reason.RESYNCED)
    print(exchange.epoch, flush=True)
    for number, _ in enumerate(sys.stdin, start=2):
        exchange.change("BTC-USD", (BookSide.BID, 100, number))
        print(exchange.versions["BTC-USD"], flush=True)


def server() -> None:
    """Serve, and say at which port."""
    sys.exit(uvloop.run(run_stream(load(), ready=lambda port: print(port, flush=True))))


if __name__ == "__main__":
    if sys.argv[1] == "venue":
        venue(sys.argv[2])
    else:
        server()
