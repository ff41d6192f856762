"""Stands in for websocat, as far as docs/stream.md uses it: ``[-H HEADER] [--no-close] URL``.

Lines of the input are sent, messages are printed; ``--no-close`` goes on after the input's end.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from websockets.asyncio.client import ClientConnection, connect


async def send(socket: ClientConnection) -> None:
    """Send the lines of the input."""
    for line in sys.stdin:
        await socket.send(line.rstrip("\n"))


async def main() -> None:
    """Speak to the server until it ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("--no-close", action="store_true")
    parser.add_argument("url")
    arguments = parser.parse_args()
    headers = [tuple(header.split(": ", 1)) for header in arguments.headers]
    async with connect(arguments.url, additional_headers=headers, max_size=None) as socket:
        if arguments.no_close:
            await send(socket)
        async for message in socket:
            print(message, flush=True)


asyncio.run(main())
