"""A store's writer in a process of its own, to be killed at will.

``python -m tests.store_process PREFIX PATH REDIS_URL [BUFFER_SIZE]``, an empty URL for the embedded
store. Prints a line per batch, when it is written.
"""

from __future__ import annotations

import asyncio
import sys

from alphapulse.config import LogSettings
from alphapulse.log import setup
from alphapulse.store import Store, WriteBatch, open_store
from alphapulse.store.writer import run_store_writer
from tests.trading import settings_for


def tell_batches(store: Store) -> None:
    """Have a store print how many trades of a batch were new, when it is written."""
    append = store.append

    async def told(batch: WriteBatch) -> int:
        new = await append(batch)
        print(new, flush=True)
        return new

    store.append = told  # type: ignore[method-assign]


async def main(prefix: str, path: str, redis_url: str, buffer_size: str = "20") -> None:
    settings = settings_for(
        prefix, path=path, redis_url=redis_url, buffer_size=int(buffer_size), retention_days=0
    )
    store = await open_store(settings)
    tell_batches(store)
    await run_store_writer(settings, store, asyncio.Event())


if __name__ == "__main__":
    setup(LogSettings(), "store")
    asyncio.run(main(*sys.argv[1:]))
