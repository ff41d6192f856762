"""``/stats``: compression, changes, latencies, rings and who reads them."""

from __future__ import annotations

import asyncio
import math
from itertools import pairwise

from starlette.requests import Request
from starlette.responses import Response

from alphapulse import metrics
from alphapulse.api.answers import json_response
from alphapulse.api.bodies import (
    Distribution,
    ReaderStats,
    RingStats,
    SeriesStats,
    StatsBody,
    seconds,
)
from alphapulse.api.context import Context, elapsed_ms
from alphapulse.api.parameters import Exchange, Parameters, Symbol
from alphapulse.api.traffic import Traffic, compression_of, distribution_of
from alphapulse.shm import RingInfo, list_rings

EXCHANGE = Exchange("exchange", "One exchange instead of all.")
SYMBOL = Symbol("symbol", "One symbol instead of all.")

NS_PER_US = 1000
COLLECTOR = "collector"
VENUE = "venue"

_PERCENTILES = (0.5, 0.95, 0.99)


async def stats(context: Context, request: Request, query: Parameters) -> Response:
    """How well deltas compress, how long stages take, and the rings with their readers."""
    exchange, symbol = query[EXCHANGE] or None, query[SYMBOL]
    if exchange is not None:
        await context.check_exchange(exchange)
    if symbol is not None:
        await context.check_symbol(symbol, exchange)
    await context.markets.catch_up(exchange)
    counted = [
        (name, one, traffic)
        for name, ring in sorted(context.markets.rings.items())
        for one, traffic in sorted(ring.traffic.items())
        if exchange in (None, name) and symbol in (None, one)
    ]
    traffic = [one for _, _, one in counted]
    latencies = _latencies(traffic)
    if exchange is None and symbol is None:
        # These are counted by stage alone, by the collectors themselves.
        latencies |= await asyncio.to_thread(_stages)
    rings = await asyncio.to_thread(list_rings, prefix=context.settings.ring.prefix)
    body = StatsBody(
        exchange=exchange,
        symbol=symbol,
        since=seconds(context.started_ns),
        compression=compression_of(traffic),
        changes_per_update=distribution_of(one.changes for one in traffic),
        stage_latency_us=latencies,
        series=[_series(*each) for each in counted],
        rings=[_ring(ring) for ring in rings if exchange in (None, ring.venue)],
        processing_time_ms=elapsed_ms(request),
    )
    return json_response(body)


def _latencies(traffic: list[Traffic]) -> dict[str, Distribution]:
    return {
        VENUE: distribution_of((one.transit for one in traffic), NS_PER_US),
        COLLECTOR: distribution_of((one.latency for one in traffic), NS_PER_US),
    }


def _series(exchange: str, symbol: str, traffic: Traffic) -> SeriesStats:
    return SeriesStats(
        exchange=exchange,
        symbol=symbol,
        compression=compression_of([traffic]),
        changes_per_update=distribution_of([traffic.changes]),
        stage_latency_us=_latencies([traffic]),
    )


def _ring(ring: RingInfo) -> RingStats:
    return RingStats(
        exchange=ring.venue,
        name=ring.name,
        epoch=ring.epoch,
        pid=ring.pid,
        alive=ring.alive,
        stuck=ring.stuck,
        size_bytes=ring.size_bytes,
        position=ring.position,
        sequence=ring.sequence,
        instruments=ring.instruments,
        heartbeat=seconds(ring.heartbeat_ns or None),
        created=seconds(ring.created_ns or None),
        memory_bytes=ring.memory_bytes,
        problem=ring.problem or None,
        readers=[ReaderStats(**reader._asdict()) for reader in ring.readers],
    )


def _stages() -> dict[str, Distribution]:
    """Each stage of `metrics.STAGE_LATENCY`, of all processes, in microseconds."""
    buckets: dict[str, dict[float, float]] = {}
    sums: dict[str, float] = {}
    for sample in metrics.samples(metrics.STAGE_LATENCY):
        stage = sample.labels["stage"]
        if sample.name.endswith("_bucket"):
            buckets.setdefault(stage, {})[float(sample.labels["le"])] = sample.value
        elif sample.name.endswith("_sum"):
            sums[stage] = sample.value
    return {
        stage: histogram_distribution(sorted(found.items()), sums.get(stage, 0.0), 1e6)
        for stage, found in sorted(buckets.items())
    }


def histogram_distribution(
    buckets: list[tuple[float, float]], total: float, factor: float
) -> Distribution:
    """Percentiles of a histogram, interpolated within their bucket.

    Parameters
    ----------
    buckets : upper bounds, rising, the last one infinite, and how many observations are below
    total : sum of the observations
    factor : by which values are multiplied

    Returns
    -------
    Distribution
        its ``max`` is the bound of the highest bucket with an observation: none lies above; where
        that is infinite, it and percentiles there are null
    """
    count = buckets[-1][1]
    if not count:
        return Distribution(count=0, mean=None, p50=None, p95=None, p99=None, max=None)
    edges = [(0.0, 0.0), *buckets]

    def value(rank: float) -> float | None:
        for (low, below), (high, up_to) in pairwise(edges):
            if up_to >= rank:
                share = (rank - below) / (up_to - below)
                return _finite((low + (high - low) * share) * factor)
        return None

    highest = next(bound for bound, up_to in buckets if up_to >= count)
    p50, p95, p99 = (value(count * part) for part in _PERCENTILES)
    return Distribution(
        count=int(count),
        mean=_finite(total / count * factor),
        p50=p50,
        p95=p95,
        p99=p99,
        max=_finite(highest * factor),
    )


def _finite(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None
