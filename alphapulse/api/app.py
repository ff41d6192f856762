"""The paths of the REST server."""

from __future__ import annotations

from http import HTTPStatus

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from alphapulse.api import arbitrage, books, docs, ops, stats, trades
from alphapulse.api.bodies import (
    BarsBody,
    BookBody,
    ExchangesBody,
    HealthBody,
    LivenessBody,
    OpportunitiesBody,
    StatsBody,
    SummaryBody,
    SymbolsBody,
    TradesBody,
)
from alphapulse.api.context import Context
from alphapulse.api.endpoints import Endpoint
from alphapulse.api.formats import FORMAT, TABLE_FORMATS, accepted
from alphapulse.api.guard import PATH, Guard, problem_of
from alphapulse.api.pages import CURSOR
from alphapulse.api.parameters import END_TIME, START_TIME, Parameters

COMPRESSED_FROM_BYTES = 1024
COMPRESSION_LEVEL = 4
"""Of 1 to 9: half the time of the usual 9, for a few percent more bytes."""

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
        (trades.EXCHANGE, trades.INTERVAL, START_TIME, END_TIME, trades.LIMIT, CURSOR, FORMAT),
        _TABLES,
        tagged=True,
        paged=True,
    ),
    Endpoint("/orderbook/{symbol}", books.orderbook, BookBody, (books.EXCHANGE, books.DEPTH)),
    Endpoint("/exchanges", trades.exchanges, ExchangesBody, tagged=True),
    Endpoint("/symbols", trades.symbols, SymbolsBody, tagged=True),
    Endpoint("/symbols/{exchange}", trades.symbols, SymbolsBody, tagged=True),
    Endpoint("/summary", trades.summary, SummaryBody),
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


def create_app(context: Context) -> Starlette:
    """The ASGI application.

    Parameters
    ----------
    context : what the handlers work with
    """
    context.endpoints = ENDPOINTS
    routes = [route for endpoint in ENDPOINTS for route in _routes(endpoint, context)]
    api = context.settings.api
    middleware = [
        Middleware(
            GZipMiddleware,
            minimum_size=COMPRESSED_FROM_BYTES,
            compresslevel=COMPRESSION_LEVEL,
        ),
        Middleware(Guard, settings=api),
    ]
    if api.cors_origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=list(api.cors_origins),
            allow_methods=["GET"],
            allow_headers=["Authorization", "If-None-Match"],
            expose_headers=["ETag", "Link"],
        )
        middleware.insert(0, cors)
    app = Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={
            HTTPStatus.NOT_FOUND: _answer_error,
            HTTPStatus.METHOD_NOT_ALLOWED: _answer_error,
        },
    )
    app.router.redirect_slashes = False
    return app


def _routes(endpoint: Endpoint, context: Context) -> list[Route]:
    async def answer(request: Request) -> Response:
        request.scope[PATH] = endpoint.path
        if endpoint.negotiated and FORMAT not in endpoint.parameters:
            accepted(request, endpoint.formats)
        query = Parameters(request, endpoint.parameters, context.limits)
        return await endpoint.handler(context, request, query)

    # A symbol written BTC/USD, escaped or not, arrives as two parts of the path.
    paths = dict.fromkeys((endpoint.path, endpoint.path.replace("{symbol}", "{base}/{quote}")))
    return [Route(path, answer, methods=["GET"]) for path in paths]


async def _answer_error(request: Request, error: Exception) -> Response:
    return problem_of(error).response()
