"""The paths of the REST server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from http import HTTPStatus

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from alphapulse.api import arbitrage, books, docs, gaps, ops, stats, trades, writing
from alphapulse.api.answers import compress
from alphapulse.api.bodies import (
    BarsBody,
    BookBody,
    ExchangesBody,
    GivenTrades,
    HealthBody,
    LivenessBody,
    OpportunitiesBody,
    SavedBody,
    StatsBody,
    SummaryBody,
    SymbolsBody,
    TradesBody,
)
from alphapulse.api.context import STARTED, Context
from alphapulse.api.endpoints import GET, POST, Endpoint
from alphapulse.api.formats import FORMAT, TABLE_FORMATS, accepted
from alphapulse.api.guard import Guard, problem_of
from alphapulse.api.meter import OTHER, Meter
from alphapulse.api.pages import CURSOR
from alphapulse.api.parameters import END_TIME, START_TIME, Parameters
from alphapulse.api.routing import Routes
from alphapulse.errors import StoreError

ANSWER_SECONDS = 8.0
"""How long the store may take: who waits for 10 s is still told that it doesn't answer."""

_TABLES = tuple(TABLE_FORMATS.values())

ENDPOINTS = (
    # Before the next one, which would take `recent` for a part of a symbol.
    Endpoint(
        "/trades/{symbol}/recent",
        trades.recent_trades,
        TradesBody,
        (trades.EXCHANGE, trades.LIMIT, CURSOR, FORMAT),
        _TABLES,
        tagged=True,
        paged=True,
    ),
    Endpoint(
        "/trades/{symbol}",
        trades.trades,
        TradesBody,
        (trades.EXCHANGE, START_TIME, END_TIME, trades.LIMIT, CURSOR, FORMAT),
        _TABLES,
        tagged=True,
        paged=True,
    ),
    Endpoint(
        "/ohlcv/{symbol}",
        trades.ohlcv,
        BarsBody,
        (trades.BARS_EXCHANGE, trades.INTERVAL, START_TIME, END_TIME, trades.LIMIT, CURSOR, FORMAT),
        _TABLES,
        tagged=True,
        paged=True,
    ),
    Endpoint(
        "/trades/{symbol}",
        writing.save_trades,
        SavedBody,
        (writing.EXCHANGE,),
        method=POST,
        request_body=GivenTrades,
        max_body_bytes=writing.MAX_TRADES_BYTES,
    ),
    # Before the next one, which would take `snapshot` for a part of a symbol.
    Endpoint(
        "/orderbook/{symbol}/snapshot",
        writing.save_book,
        BookBody,
        (books.VENUE, writing.DEPTH),
        method=POST,
        refusals=(HTTPStatus.CONFLICT,),
    ),
    Endpoint(
        "/orderbook/{symbol}",
        books.orderbook,
        BookBody,
        (books.EXCHANGE, books.DEPTH, books.TIMESTAMP),
    ),
    Endpoint("/exchanges", trades.exchanges, ExchangesBody, tagged=True),
    Endpoint("/symbols", trades.symbols, SymbolsBody, tagged=True),
    Endpoint("/symbols/{exchange}", trades.symbols, SymbolsBody, tagged=True),
    Endpoint("/summary", trades.summary, SummaryBody),
    Endpoint(
        "/gaps",
        gaps.gaps,
        gaps.GapsBody,
        (gaps.EXCHANGE, gaps.SYMBOL, START_TIME, END_TIME, gaps.LIMIT, CURSOR),
        paged=True,
    ),
    Endpoint("/stats", stats.stats, StatsBody, (stats.EXCHANGE, stats.SYMBOL)),
    Endpoint(
        "/arbitrage/opportunities",
        arbitrage.opportunities,
        OpportunitiesBody,
        (arbitrage.MIN_BPS, arbitrage.SYMBOL),
    ),
    Endpoint("/health", ops.health, HealthBody, negotiated=False),
    Endpoint("/health/live", ops.live, LivenessBody, negotiated=False),
    Endpoint(
        "/health/ready",
        ops.ready,
        LivenessBody,
        negotiated=False,
        others=(HTTPStatus.SERVICE_UNAVAILABLE,),
    ),
    Endpoint("/metrics", ops.show_metrics, None, formats=(ops.EXPOSITION,), negotiated=False),
    Endpoint("/openapi.json", docs.schema, None, negotiated=False, tagged=True),
    Endpoint("/docs", docs.page, None, formats=(docs.HTML,), negotiated=False, tagged=True),
)


def create_app(context: Context) -> ASGIApp:
    """The ASGI application.

    Parameters
    ----------
    context : what the handlers work with
    """
    context.endpoints = ENDPOINTS
    app: ASGIApp = _Api(context)
    api = context.settings.api
    if not api.cors_origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=list(api.cors_origins),
        allow_methods=[GET],
        allow_headers=["Authorization", "If-None-Match"],
        expose_headers=["ETag", "Link"],
    )


class _Api:
    """Answers requests: guard, endpoint, handler, compression, metrics.

    Parameters
    ----------
    context : what the handlers work with
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._guard = Guard(context.settings.api)
        self._routes = Routes(context.endpoints)
        self._meter = Meter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope[STARTED] = began = time.perf_counter()
        path = OTHER
        try:
            self._guard.check(scope)
            endpoint, scope["path_params"] = self._routes.find(scope["method"], scope["path"])
            path = endpoint.path
            response = await self._answer(endpoint, Request(scope, receive))
        except ClientDisconnect:
            return
        except Exception as error:
            response = problem_of(error).response()
        compress(scope, response)
        try:
            await response(scope, receive, send)
        finally:
            milliseconds = (time.perf_counter() - began) * 1000
            self._meter.count(scope["method"], path, response.status_code, milliseconds)

    async def _answer(self, endpoint: Endpoint, request: Request) -> Response:
        self._guard.check_body(request.scope, endpoint.max_body_bytes)
        if endpoint.method != GET:
            self._guard.check_writing(request.scope)
        if endpoint.negotiated and FORMAT not in endpoint.parameters:
            accepted(request, endpoint.formats)
        query = Parameters(request, endpoint.parameters, self._context.limits)
        answer = endpoint.handler(self._context, request, query)
        # What is given up half-way is as if it hadn't been asked for; a write might have been done.
        return await (_in_time(answer) if endpoint.method == GET else answer)


async def _in_time(answer: Awaitable[Response]) -> Response:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await answer
    except TimeoutError:
        raise StoreError(f"the store gave no answer in {ANSWER_SECONDS:g} s") from None
