"""cryptofeed's Redis stream backend, fed as its feeds do: ``-m ...cryptofeed_redis PORT COUNT``.

Says when the trades are made; writes them when it gets a line, and says what that took.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop
from cryptofeed.backends.redis import TradeStream
from cryptofeed.types import Trade

from alphapulse.process import gc_tuned
from benchmarks.history_market import plain_trades

_WAITING = 1000
"""Most trades in the backend's queue, and so in a pipeline: as many as our batches have."""


async def write(port: int, count: int) -> None:
    """Write so many trades to the Redis at that port when told to."""
    now = time.time()
    trades = [
        Trade("KRAKEN", one.symbol, one.side, one.size, one.price, now, id=one.trade_id)
        for one in plain_trades(count)
    ]
    backend = TradeStream(host="127.0.0.1", port=port)
    backend.start(asyncio.get_running_loop())
    print("ready", flush=True)
    sys.stdin.readline()
    begun, cpu = time.monotonic(), time.process_time()
    for trade in trades:
        await backend(trade, now)
        while backend.queue.qsize() >= _WAITING:  # noqa: ASYNC110 - the backend has no event
            await asyncio.sleep(0)
    await backend.queue.join()
    spent = {"seconds": time.monotonic() - begun, "cpu_seconds": time.process_time() - cpu}
    print(json.dumps(spent), flush=True)
    await backend.stop()


if __name__ == "__main__":
    with gc_tuned():
        uvloop.run(write(int(sys.argv[1]), int(sys.argv[2])))
