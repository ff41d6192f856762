"""Every metric, declared once, and what shows those of all processes together.

A program calls `setup` first thing, then binds what it will count to fixed labels, once, and uses
the bound child from then on::

    trades = metrics.TRADES_PROCESSED.bind(exchange="kraken", symbol="BTC-USD")
    trades.inc()

All processes of one ``ring.prefix`` write to memory-mapped files of one directory; `render`, in any
of them, adds them up. Without `setup` a process counts for itself alone (tests, notebooks).
"""

from alphapulse.metrics.declared import (
    ALL,
    BOOK_GAPS,
    BOOK_RESYNCS,
    BOOK_STATE,
    CHECKSUM_FAILURES,
    CLOCK_SKEW,
    CPU_USAGE,
    HTTP_REQUEST_DURATION,
    HTTP_REQUESTS,
    MALFORMED_FRAMES,
    MEMORY_USAGE,
    PROCESSING_LATENCY,
    REDIS_OPERATION_LATENCY,
    REDIS_OPERATIONS,
    RING_LAG,
    RING_OVERRUNS,
    STAGE_LATENCY,
    STORE_LAG,
    STORE_ROWS,
    STREAM_CLIENTS,
    STREAM_CLOSES,
    STREAM_CONFLATIONS,
    STREAM_MESSAGES,
    STREAM_RATE_LIMITED,
    STREAM_REFUSED,
    TRADES_PROCESSED,
    WEBSOCKET_CONNECTED,
    WEBSOCKET_MESSAGES,
    Counter,
    Gauge,
    Histogram,
    Tally,
)
from alphapulse.metrics.exposition import render, sample, samples, setup
from alphapulse.metrics.process import ProcessSampler

__all__ = [
    "ALL",
    "BOOK_GAPS",
    "BOOK_RESYNCS",
    "BOOK_STATE",
    "CHECKSUM_FAILURES",
    "CLOCK_SKEW",
    "CPU_USAGE",
    "HTTP_REQUESTS",
    "HTTP_REQUEST_DURATION",
    "MALFORMED_FRAMES",
    "MEMORY_USAGE",
    "PROCESSING_LATENCY",
    "REDIS_OPERATIONS",
    "REDIS_OPERATION_LATENCY",
    "RING_LAG",
    "RING_OVERRUNS",
    "STAGE_LATENCY",
    "STORE_LAG",
    "STORE_ROWS",
    "STREAM_CLIENTS",
    "STREAM_CLOSES",
    "STREAM_CONFLATIONS",
    "STREAM_MESSAGES",
    "STREAM_RATE_LIMITED",
    "STREAM_REFUSED",
    "TRADES_PROCESSED",
    "WEBSOCKET_CONNECTED",
    "WEBSOCKET_MESSAGES",
    "Counter",
    "Gauge",
    "Histogram",
    "ProcessSampler",
    "Tally",
    "render",
    "sample",
    "samples",
    "setup",
]
