"""The paths of the REST server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from alphapulse.api import arbitrage, books, ops, trades
from alphapulse.api.context import Context
from alphapulse.api.guard import PATH, Guard, problem_of

Handler = Callable[[Context, Request], Awaitable[Response]]

# A symbol written BTC/USD, escaped or not, arrives as two parts of the path.
SYMBOL_PATHS: list[tuple[str, str, Handler]] = [
    ("/trades", "/recent", trades.recent_trades),
    ("/trades", "", trades.trades),
    ("/ohlcv", "", trades.ohlcv),
    ("/orderbook", "", books.orderbook),
]

PATHS: list[tuple[str, Handler]] = [
    ("/health", ops.health),
    ("/health/live", ops.live),
    ("/health/ready", ops.ready),
    ("/exchanges", trades.exchanges),
    ("/symbols", trades.symbols),
    ("/symbols/{exchange}", trades.symbols),
    ("/summary", trades.summary),
    ("/arbitrage/opportunities", arbitrage.opportunities),
    ("/metrics", ops.show_metrics),
]


def create_app(context: Context) -> Starlette:
    """The ASGI application.

    Parameters
    ----------
    context : what the handlers work with
    """
    routes = [_route(path, path, handler, context) for path, handler in PATHS]
    for head, tail, handler in SYMBOL_PATHS:
        shown = f"{head}/{{symbol}}{tail}"
        routes += [
            _route(f"{head}/{symbol}{tail}", shown, handler, context)
            for symbol in ("{symbol}", "{base}/{quote}")
        ]
    api = context.settings.api
    middleware = [Middleware(Guard, settings=api)]
    if api.cors_origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=list(api.cors_origins),
            allow_methods=["GET"],
            allow_headers=["Authorization"],
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


def _route(path: str, shown: str, handler: Handler, context: Context) -> Route:
    async def endpoint(request: Request) -> Response:
        request.scope[PATH] = shown
        return await handler(context, request)

    return Route(path, endpoint, methods=["GET"])


async def _answer_error(request: Request, error: Exception) -> Response:
    return problem_of(error).response()
