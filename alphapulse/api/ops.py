"""``/health`` and ``/metrics``: how the installation is."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import aiohttp
import msgspec
from starlette.requests import Request
from starlette.responses import Response

import alphapulse
from alphapulse import metrics
from alphapulse.api.answers import json_response
from alphapulse.api.bodies import (
    NULL,
    CollectorHealth,
    Components,
    HealthBody,
    LivenessBody,
    StoreHealth,
    StreamHealth,
    WriterHealth,
    number,
    seconds,
)
from alphapulse.api.context import Context
from alphapulse.api.formats import Format
from alphapulse.api.lateness import lateness
from alphapulse.api.market import Ring
from alphapulse.api.parameters import Parameters
from alphapulse.clock import NS_PER_SECOND, wall_ns
from alphapulse.config import StreamSettings, VenueSettings
from alphapulse.errors import StoreError
from alphapulse.model import BookState

EXPOSITION = Format("prometheus", "text/plain")
SERVICE = "alphapulse"
OK = "ok"
DEGRADED = "degraded"
FAILED = "failed"
NOT_CONFIGURED = "not configured"
NOT_RUNNING = "not running"

STORE_TIMEOUT_SECONDS = 2.0
STREAM_TIMEOUT_SECONDS = 1.0
LATE_NS = 10 * NS_PER_SECOND
"""From when on the history is late: its place in a ring is written once a second or oftener."""

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


async def health(context: Context, request: Request, query: Parameters) -> Response:
    """All components; ``status`` is ``ok``, or ``degraded`` for the ``reasons`` listed."""
    return json_response(await examine(context))


async def live(context: Context, request: Request, query: Parameters) -> Response:
    """Whether this server answers."""
    return json_response(LivenessBody(status=OK))


async def ready(context: Context, request: Request, query: Parameters) -> Response:
    """Whether all is well: 503 while it isn't."""
    status = (await examine(context)).status
    response = json_response(LivenessBody(status=status))
    if status != OK:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return response


async def show_metrics(context: Context, request: Request, query: Parameters) -> Response:
    """Metrics of all processes, for Prometheus."""
    content_type, body = await asyncio.to_thread(metrics.render)
    return Response(body, headers={"Content-Type": content_type})


async def examine(context: Context) -> HealthBody:
    """Look at the store, its writer, the rings and the stream."""
    store, stream = await asyncio.gather(
        _store_health(context), _stream_health(context.settings.stream)
    )
    await context.markets.catch_up()
    venues = context.settings.venues.enabled()
    collectors = {
        name: _collector_health(context.markets.rings.get(name), venues.get(name))
        for name in sorted(venues.keys() | context.markets.rings.keys())
    }
    writer = await _writer_health(context, store)
    parts: dict[str, StoreHealth | WriterHealth | CollectorHealth] = {
        "store": store,
        "writer": writer,
        **collectors,
    }
    reasons = [f"{name}: {part.problem}" for name, part in parts.items() if part.problem]
    return HealthBody(
        status=DEGRADED if reasons else OK,
        service=SERVICE,
        version=alphapulse.__version__,
        timestamp=seconds(wall_ns()),
        components=Components(store=store, collectors=collectors, stream=stream, writer=writer),
        reasons=reasons,
    )


async def _store_health(context: Context) -> StoreHealth:
    try:
        async with asyncio.timeout(STORE_TIMEOUT_SECONDS):
            await context.history.ping()
    except TimeoutError:
        return StoreHealth(status=FAILED, problem=f"no answer in {STORE_TIMEOUT_SECONDS:g} s")
    except StoreError as error:
        return StoreHealth(status=FAILED, problem=str(error))
    return StoreHealth(status=OK)


async def _writer_health(context: Context, store: StoreHealth) -> WriterHealth:
    behind = await _lateness(context) if store.problem is None else None
    shown = {venue: number(late_ns, 9) for venue, late_ns in (behind or {}).items()}
    late = [venue for venue, late_ns in (behind or {}).items() if late_ns > LATE_NS]
    status, problem = OK, None
    if context.written is None:
        status = NOT_CONFIGURED
    elif not _holds(context.written):
        # Without a ring there is nothing to write.
        status = FAILED if context.markets.rings else NOT_RUNNING
        problem = "no process writes the history" if context.markets.rings else None
    elif behind is None:
        status = "unknown"
    elif late:
        status = DEGRADED
        each = ", ".join(f"{behind[venue] / NS_PER_SECOND:.0f} s of {venue}" for venue in late)
        problem = f"not stored as yet: {each}"
    return WriterHealth(status=status, problem=problem, behind_seconds=shown)


async def _lateness(context: Context) -> dict[str, int] | None:
    """See `lateness`; None where the store doesn't tell."""
    try:
        async with asyncio.timeout(STORE_TIMEOUT_SECONDS):
            return await lateness(context)
    except (TimeoutError, StoreError):
        return None


def _holds(written: Callable[[], bool]) -> bool:
    try:
        return written()
    except PermissionError:
        return True  # the lock is another user's; what has been stored tells


def _collector_health(ring: Ring | None, venue: VenueSettings | None) -> CollectorHealth:
    if ring is None:
        return CollectorHealth(
            status=FAILED, problem="its collector isn't running", heartbeat=NULL, books={}
        )
    states = Counter(state.text for state in ring.states().values())
    books = {state.text: states[state.text] for state in BookState}
    problem = ring.problem()
    status = FAILED if problem else OK
    with_books = venue is None or "orderbook" in venue.channels
    if problem is None and with_books and not books[BookState.LIVE.text]:
        status, problem = DEGRADED, "none of its books is live"
    return CollectorHealth(
        status=status,
        problem=problem,
        epoch=ring.reader.epoch,
        sequence=ring.reader.position.sequence - 1,
        heartbeat=seconds(ring.reader.heartbeat_ns),
        books=books,
    )


async def _stream_health(stream: StreamSettings) -> StreamHealth:
    if not stream.port:
        return StreamHealth(status=NOT_CONFIGURED)
    host = _WILDCARDS.get(stream.host, stream.host)
    host = f"[{host}]" if ":" in host else host
    url = f"http://{host}:{stream.port}/health"
    headers = {"Authorization": f"Bearer {stream.token}"} if stream.token else {}
    timeout = aiohttp.ClientTimeout(total=STREAM_TIMEOUT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, headers=headers) as response,
        ):
            body: Any = msgspec.json.decode(await response.read())
            clients = body.get("clients")
            status = OK if response.status == HTTPStatus.OK else FAILED
    except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError, AttributeError):
        return StreamHealth(status=NOT_RUNNING, url=url)
    return StreamHealth(
        status=status, url=url, clients=clients if isinstance(clients, int) else None
    )
