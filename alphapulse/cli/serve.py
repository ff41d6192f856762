"""The servers: as programs of their own, and as processes of `up` and `demo`.

Each imports what it serves only when it runs, so that no process holds the others' libraries.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alphapulse.config import Settings
from alphapulse.errors import StoreError
from alphapulse.process import (
    GAVE_UP,
    Child,
    Ready,
    Service,
    Supervised,
    run_service,
    stop_event,
    supervise,
)

if TYPE_CHECKING:
    from alphapulse.store import Store

STORE_CLOSE_SECONDS = 7.0
"""What the store's writer gets for its last batch, and to end."""


async def serve_stream(settings: Settings, ready: Ready) -> int:
    """Run the WebSocket server, in as many processes as wanted, until told to stop."""
    if settings.stream.workers > 1:
        from alphapulse.stream.workers import run_workers

        return await run_workers(settings, ready=lambda port: ready(port=port))
    from alphapulse.stream.server import run_stream

    return await run_stream(settings, ready=lambda port: ready(port=port))


async def serve_api(settings: Settings, ready: Ready) -> int:
    """Run the REST server, and what writes the history that it serves, until told to stop."""
    from alphapulse.api.server import run_api
    from alphapulse.store import open_store
    from alphapulse.store.service import is_being_written

    stop = stop_event()
    store = await open_store(settings)
    writer = asyncio.create_task(_write_history(settings, store, stop), name="store")

    def written() -> bool:
        return not settings.store.redis_url or is_being_written(settings.ring.prefix)

    server = asyncio.create_task(
        run_api(settings, store, ready=lambda port: ready(port=port), stop=stop, written=written),
        name="api",
    )
    try:
        # The API without its writer would serve a history that stands still.
        await asyncio.wait({writer, server}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.set()
        await asyncio.wait({writer, server}, timeout=STORE_CLOSE_SECONDS)
        writer.cancel()
        await asyncio.wait({writer, server})
        await store.close()
    if not writer.cancelled():
        writer.result()
    return server.result()


async def _write_history(settings: Settings, store: Store, stop: asyncio.Event) -> None:
    """Have the history written until told to stop: here, by a child, or by a program apart.

    Redis gets a process of its own, since the writer's every batch would wait for requests.
    """
    if not settings.store.redis_url:
        from alphapulse.store.service import write_history

        await write_history(settings, store, stop)
    elif settings.store.writer == "child":
        child = Child("store", "alphapulse.cli.serve", ("store",))
        if await supervise([Supervised(child, settings, stop)], stop):
            raise StoreError("the history's writer gave up; its log says why")
    else:
        await stop.wait()


async def serve_store(settings: Settings, ready: Ready) -> int:
    """Write what the rings give to Redis until told to stop."""
    from alphapulse.store.service import run_store

    return await run_store(settings, stop=stop_event(), ready=lambda store: ready(store=store))


async def serve_collectors(settings: Settings, ready: Ready) -> int:
    """Run a process for each enabled venue until told to stop."""
    from alphapulse.collectors.supervisor import run_collectors

    return await run_collectors(settings)


SERVICES: dict[str, Service] = {
    "stream": serve_stream,
    "store": serve_store,
    "api": serve_api,
    "collectors": serve_collectors,
}


def serve(name: str, overrides: Mapping[str, Any] | None = None, config: Path | None = None) -> int:
    """Run a service as this process, with the settings of file, environment and command line."""
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    return run_service(
        name, SERVICES[name], (), overrides=given, config=str(config) if config else None
    )


def main() -> int:
    """Run as a supervised child: ``python -m alphapulse.cli.serve NAME --supervised-by PID``."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] not in SERVICES:
        print(f"usage: python -m alphapulse.cli.serve {{{'|'.join(SERVICES)}}}", file=sys.stderr)
        return GAVE_UP
    return run_service(arguments[0], SERVICES[arguments[0]], arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
