"""``/arbitrage/opportunities``: crossings between the live books."""

from __future__ import annotations

from msgspec import Raw
from starlette.requests import Request
from starlette.responses import Response

from alphapulse.api.answers import json_response
from alphapulse.api.bodies import OpportunitiesBody
from alphapulse.api.context import Context, elapsed_ms
from alphapulse.api.parameters import Number, Parameters, Symbol
from alphapulse.arbitrage import encode_opportunity
from alphapulse.config import BASIS_POINT_PLACES, MAX_BASIS_POINTS

MIN_BPS = Number(
    "min_bps",
    "Least profit of each part that is counted, in basis points.",
    MAX_BASIS_POINTS,
    BASIS_POINT_PLACES,
)
SYMBOL = Symbol("symbol", "One symbol instead of all.")


async def opportunities(context: Context, request: Request, query: Parameters) -> Response:
    """What can be bought at one venue and sold at another at a profit, after both fees."""
    min_bps, symbol = query[MIN_BPS], query[SYMBOL]
    if symbol is not None:
        await context.check_symbol(symbol, None)
    await context.crossings.catch_up()
    found = [
        Raw(encode_opportunity(opportunity).encode())
        for opportunity in context.crossings.opportunities(symbol, min_bps)
    ]
    return json_response(
        OpportunitiesBody(data=found, count=len(found), processing_time_ms=elapsed_ms(request))
    )
