"""``/arbitrage/opportunities``: crossings between the live books."""

from __future__ import annotations

from msgspec import Raw
from starlette.requests import Request
from starlette.responses import Response

from alphapulse.api.bodies import OpportunitiesBody
from alphapulse.api.context import Context, elapsed_ms
from alphapulse.api.parameters import Parameters
from alphapulse.api.trades import json_response
from alphapulse.arbitrage import encode_opportunity
from alphapulse.config import BASIS_POINT_PLACES, MAX_BASIS_POINTS


async def opportunities(context: Context, request: Request) -> Response:
    """What can be bought at one venue and sold at another at a profit, after both fees."""
    query = Parameters(request, "min_bps", "symbol")
    min_bps = query.decimal("min_bps", MAX_BASIS_POINTS, BASIS_POINT_PLACES)
    symbol = query.symbol("symbol")
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
