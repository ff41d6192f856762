"""The metrics' names, labels, units and meanings.

Names are a contract with dashboards and alerts: they don't change.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import prometheus_client
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

REGISTRY = prometheus_client.CollectorRegistry()
"""What this process counts; `exposition.render` adds the other processes."""

M = TypeVar("M", bound=MetricWrapperBase)

# The moment at which a series began is of no use where processes come and go.
prometheus_client.disable_created_metrics()


class Declared:
    """A metric's name, help text and label names.

    Parameters
    ----------
    name : as it is exposed, unit and ``_total`` included
    help : one sentence
    labels : label names; `bind` takes a value for each
    """

    kind: str
    _metric: MetricWrapperBase | None

    def __init__(self, name: str, help: str, *labels: str) -> None:  # noqa: A002
        self.name = name
        self.help = help
        self.labels = labels

    @property
    def is_bound(self) -> bool:
        """Whether this process counts it."""
        return self._metric is not None

    def empty_family(self) -> Metric:
        """The metric as it is exposed while nothing has been counted."""
        return Metric(self.name.removesuffix("_total"), self.help, self.kind)

    def _child(self, metric: M, labels: dict[str, str]) -> M:
        if set(labels) != set(self.labels):
            raise ValueError(
                f"{self.name} has labels {', '.join(self.labels) or 'none'}, "
                f"not {', '.join(labels) or 'none'}"
            )
        return metric.labels(**labels) if labels else metric


class Counter(Declared):
    """A total that only grows."""

    kind = "counter"
    _metric: prometheus_client.Counter | None = None

    def bind(self, **labels: str) -> prometheus_client.Counter:
        """The counter of these labels; keep it. Raises ``ValueError`` for other labels."""
        if self._metric is None:
            self._metric = prometheus_client.Counter(
                self.name, self.help, self.labels, registry=REGISTRY
            )
        return self._child(self._metric, labels)


class Gauge(Declared):
    """A value that goes up and down; that of a process is gone when the process is.

    Parameters
    ----------
    name, help, labels : as for `Declared`
    combine : how values of several processes make one: their sum, or the newest
    """

    kind = "gauge"
    _metric: prometheus_client.Gauge | None = None

    def __init__(
        self,
        name: str,
        help: str,  # noqa: A002
        *labels: str,
        combine: Literal["livesum", "livemostrecent"],
    ) -> None:
        super().__init__(name, help, *labels)
        self.combine = combine

    def bind(self, **labels: str) -> prometheus_client.Gauge:
        """The gauge of these labels; keep it. Raises ``ValueError`` for other labels.

        Where the newest value counts, only ``set`` can be used, not ``inc`` or ``dec``.
        """
        if self._metric is None:
            self._metric = prometheus_client.Gauge(
                self.name,
                self.help,
                self.labels,
                registry=REGISTRY,
                multiprocess_mode=self.combine,
            )
        return self._child(self._metric, labels)


class Histogram(Declared):
    """A distribution, in buckets whose upper bounds are given in the unit of the name."""

    kind = "histogram"
    _metric: prometheus_client.Histogram | None = None

    def __init__(
        self,
        name: str,
        help: str,  # noqa: A002
        *labels: str,
        buckets: tuple[float, ...],
    ) -> None:
        super().__init__(name, help, *labels)
        self.buckets = buckets

    def bind(self, **labels: str) -> prometheus_client.Histogram:
        """The histogram of these labels; keep it. Raises ``ValueError`` for other labels."""
        if self._metric is None:
            self._metric = prometheus_client.Histogram(
                self.name, self.help, self.labels, registry=REGISTRY, buckets=self.buckets
            )
        return self._child(self._metric, labels)


class Tally:
    """A counter's cheap side, for loops that can't afford a write to shared memory each time.

    Add to ``count``, which is a plain integer, and call `flush` about once a second.
    """

    __slots__ = ("_child", "_flushed", "count")

    def __init__(self, child: prometheus_client.Counter) -> None:
        self._child = child
        self._flushed = 0
        self.count = 0

    def flush(self) -> None:
        """Share what was counted since the last call."""
        if self.count != self._flushed:
            self._child.inc(self.count - self._flushed)
            self._flushed = self.count


FINE_MS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 50.0, 200.0, 1000.0)
COARSE_MS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0)
STAGE_SECONDS = (
    *(1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4),
    *(1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1, 1.0),
)

TRADES_PROCESSED = Counter(
    "trades_processed_total", "Trades written to the ring.", "exchange", "symbol"
)
PROCESSING_LATENCY = Histogram(
    "processing_latency_ms",
    "From a frame's arrival to its records in the ring, in milliseconds.",
    "exchange",
    buckets=FINE_MS,
)
WEBSOCKET_MESSAGES = Counter(
    "websocket_messages_total", "Frames received from the venue.", "exchange"
)
WEBSOCKET_CONNECTED = Gauge(
    "websocket_connected",
    "1 while all of the venue's connections are open, else 0.",
    "exchange",
    combine="livemostrecent",
)
REDIS_OPERATIONS = Counter(
    "redis_operations_total", "Commands sent to Redis, by outcome.", "operation", "status"
)
REDIS_OPERATION_LATENCY = Histogram(
    "redis_operation_latency_ms",
    "From a command to Redis's answer, in milliseconds.",
    "operation",
    buckets=COARSE_MS,
)
HTTP_REQUESTS = Counter(
    "http_requests_total", "REST requests answered.", "method", "path", "status"
)
HTTP_REQUEST_DURATION = Histogram(
    "http_request_duration_ms",
    "From a REST request to its answer, in milliseconds.",
    "method",
    "path",
    buckets=COARSE_MS,
)
MEMORY_USAGE = Gauge(
    "memory_usage_bytes",
    "Memory of the process, its part of shared pages included (PSS).",
    "service",
    combine="livesum",
)
CPU_USAGE = Gauge(
    "cpu_usage_percent",
    "CPU time of the process since the last sample, 100 for a whole core.",
    "service",
    combine="livesum",
)
BOOK_STATE = Gauge(
    "book_state",
    "0 syncing, 1 live, 2 stale, 3 invalid.",
    "exchange",
    "symbol",
    combine="livemostrecent",
)
BOOK_GAPS = Counter(
    "book_gaps_total",
    "Losses seen, by channel (orderbook or trades).",
    "exchange",
    "symbol",
    "channel",
)
BOOK_RESYNCS = Counter(
    "book_resyncs_total", "Books rebuilt from a new snapshot.", "exchange", "symbol", "reason"
)
CHECKSUM_FAILURES = Counter(
    "checksum_failures_total",
    "Books that didn't match the venue's checksum.",
    "exchange",
    "symbol",
)
MALFORMED_FRAMES = Counter(
    "malformed_frames_total",
    "Frames that couldn't be used; symbol is empty where it couldn't be told.",
    "exchange",
    "symbol",
)
RING_OVERRUNS = Counter(
    "ring_overruns_total", "Times that the writer lapped a reader.", "service", "exchange"
)
RING_LAG = Gauge(
    "ring_lag_records",
    "Records that the reader is behind the writer.",
    "service",
    "exchange",
    combine="livemostrecent",
)
STAGE_LATENCY = Histogram(
    "stage_latency_seconds",
    "Time that a message spends in one stage of its way.",
    "stage",
    buckets=STAGE_SECONDS,
)
CLOCK_SKEW = Gauge(
    "clock_skew_seconds",
    "The venue's time minus ours at arrival; above 0 the clocks disagree.",
    "exchange",
    combine="livemostrecent",
)
STREAM_CLIENTS = Gauge("stream_clients", "WebSocket clients connected.", combine="livesum")
STREAM_CONFLATIONS = Counter(
    "stream_conflations_total", "Pending deltas of a slow client replaced by a snapshot."
)
STREAM_MESSAGES = Counter("stream_messages_total", "Messages handed to clients' connections.")
STREAM_CLOSES = Counter(
    "stream_closes_total", "Connections of clients that ended, by reason.", "reason"
)
STREAM_REFUSED = Counter(
    "stream_refused_total", "Connections that didn't get as far as a WebSocket.", "reason"
)
STREAM_RATE_LIMITED = Counter(
    "stream_rate_limited_total", "Frames of clients beyond their allowed rate."
)
STORE_ROWS = Counter("store_rows_total", "Trades written to the store.", "exchange")
STORE_LAG = Gauge(
    "store_lag_records",
    "Records that the store's writer is behind the ring.",
    "exchange",
    combine="livemostrecent",
)

ALL = tuple(value for value in list(globals().values()) if isinstance(value, Declared))
"""Every metric, in the order of declaration."""
