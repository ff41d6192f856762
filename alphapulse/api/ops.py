"""``/health`` and ``/metrics``: how the installation is."""

from __future__ import annotations

import asyncio
from collections import Counter
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
    seconds,
)
from alphapulse.api.context import Context
from alphapulse.api.formats import Format
from alphapulse.api.market import Ring
from alphapulse.api.parameters import Parameters
from alphapulse.clock import wall_ns
from alphapulse.config import StreamSettings, VenueSettings
from alphapulse.errors import StoreError
from alphapulse.model import BookState

EXPOSITION = Format("prometheus", "text/plain")
SERVICE = "alphapulse"
OK = "ok"
DEGRADED = "degraded"
FAILED = "failed"

STORE_TIMEOUT_SECONDS = 2.0
STREAM_TIMEOUT_SECONDS = 1.0

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
    """Look at the store, the rings and the stream."""
    store, stream = await asyncio.gather(
        _store_health(context), _stream_health(context.settings.stream)
    )
    await context.markets.catch_up()
    venues = context.settings.venues.enabled()
    collectors = {
        name: _collector_health(context.markets.rings.get(name), venues.get(name))
        for name in sorted(venues.keys() | context.markets.rings.keys())
    }
    reasons = [] if store.problem is None else [f"store: {store.problem}"]
    reasons += [
        f"{name}: {collector.problem}"
        for name, collector in collectors.items()
        if collector.problem is not None
    ]
    return HealthBody(
        status=DEGRADED if reasons else OK,
        service=SERVICE,
        version=alphapulse.__version__,
        timestamp=seconds(wall_ns()),
        components=Components(store=store, collectors=collectors, stream=stream),
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
        return StreamHealth(status="not configured")
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
        return StreamHealth(status="not running", url=url)
    return StreamHealth(
        status=status, url=url, clients=clients if isinstance(clients, int) else None
    )
