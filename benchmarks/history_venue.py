"""A Kraken on loopback whose trades come at a rate: ``python -m benchmarks.history_venue``.

Prints its address, then serves a `Task` a line on stdin, answering with how many trades it sent
since it began, each in a frame of its own and written to the socket when it is due.
"""

from __future__ import annotations

import asyncio
import sys
import time

import msgspec
import uvloop

from alphapulse.clock import wall_ns
from alphapulse.process import gc_tuned
from alphapulse.simulators import SIMULATORS, Market
from alphapulse.simulators.text import fixed_text, iso_text
from benchmarks.history_feed import Task
from benchmarks.history_market import EXCHANGE, SPECS, quote
from benchmarks.pacing import bursts

_LEVELS = 100
_LOOK_SECONDS = 0.01
_BUSY_SECONDS = 0.01
"""After so long the connections' other work has its turn, such as heartbeats."""


async def serve() -> None:
    """Serve tasks until stdin ends."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    market = Market(SPECS, levels=_LEVELS, history=0)
    async with SIMULATORS[EXCHANGE](market, start="manual") as simulator:
        print(simulator.ws_url, flush=True)
        first_ids = [book.next_trade_id for book in simulator.books.values()]
        sent = 0

        def send(number: int) -> None:
            topic, frame = _frame(number, first_ids)
            simulator.publish(topic, frame)
            simulator.flush()

        while line := await lines.readline():
            task = msgspec.json.decode(line, type=Task)
            # What nobody has subscribed to would be sent to nobody.
            while not all(  # noqa: ASYNC110 - a simulator has no event for it
                ("trade", name) in simulator.topics for name in simulator.books
            ):
                await asyncio.sleep(_LOOK_SECONDS)
            until = 0.0
            for count in bursts(task.rate, task.count):
                for number in range(sent, sent + count):
                    send(number)
                sent += count
                if time.monotonic() > until:
                    await asyncio.sleep(0)
                    until = time.monotonic() + _BUSY_SECONDS
            print(sent, flush=True)


def _frame(number: int, first_ids: list[int]) -> tuple[tuple[str, str], bytes]:
    """Trade `number` as the venue sends it, with its topic."""
    market, price, size, side = quote(number)
    spec = SPECS[market]
    symbol = f"{spec.base}/{spec.quote}"
    text = (
        f'{{"channel":"trade","type":"update","data":[{{"symbol":"{symbol}","side":"{side.text}",'
        f'"price":{fixed_text(price, spec.price_exponent)},'
        f'"qty":{fixed_text(size, spec.size_exponent)},"ord_type":"market",'
        f'"trade_id":{first_ids[market] + number // len(SPECS)},'
        f'"timestamp":"{iso_text(wall_ns())}"}}]}}'
    )
    return ("trade", symbol), text.encode()


if __name__ == "__main__":
    with gc_tuned():
        uvloop.run(serve())
