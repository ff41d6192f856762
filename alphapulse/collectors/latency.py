"""How long frames take, sampled: the others cost nothing."""

from __future__ import annotations

from collections.abc import Iterable

from alphapulse import metrics
from alphapulse.clock import NO_TIME

SAMPLE_MASK = 63
"""One frame of 64 is measured (a power of two, minus one)."""

MOST_SAMPLES = 4096
"""Samples that are held before they are shared, however soon that is."""

_MOST_SKEWED_NS = 10**18


class LatencySampler:
    """Latencies and clock skew of one venue.

    Parameters
    ----------
    exchange : name of the venue

    Attributes
    ----------
    due : whether the next frame is to be measured whatever its number; set once a second, so that
        a quiet venue has samples too
    """

    def __init__(self, exchange: str) -> None:
        self.due = True
        self._decode = metrics.STAGE_LATENCY.bind(stage="decode")
        self._publish = metrics.STAGE_LATENCY.bind(stage="publish")
        self._processing = metrics.PROCESSING_LATENCY.bind(exchange=exchange)
        self._skew = metrics.CLOCK_SKEW.bind(exchange=exchange)
        self._most_skewed_ns: int | None = None
        self._times_ns: list[tuple[int, int, int]] = []
        """Of samples that aren't shared yet: to be decoded, to be published, and both."""

    def sample(
        self, exchange_ns: Iterable[int], received_ns: int, decoded_ns: int, published_ns: int
    ) -> None:
        """Take a frame's times: the venue's, at its arrival, decoded, all its records written."""
        self.due = False
        self._times_ns.append(
            (decoded_ns - received_ns, published_ns - decoded_ns, published_ns - received_ns)
        )
        if len(self._times_ns) >= MOST_SAMPLES:
            self._share()
        for time_ns in exchange_ns:
            if time_ns == NO_TIME:
                continue
            skew_ns = time_ns - received_ns
            # A nonsensical time is the venue's error and no skew of clocks.
            if abs(skew_ns) < _MOST_SKEWED_NS and (
                self._most_skewed_ns is None or skew_ns > self._most_skewed_ns
            ):
                self._most_skewed_ns = skew_ns

    def flush(self) -> None:
        """Share what was sampled since the last call; of the skews that of the fastest way."""
        self.due = True
        self._share()
        if self._most_skewed_ns is not None:
            self._skew.set(self._most_skewed_ns / 1e9)
            self._most_skewed_ns = None

    def _share(self) -> None:
        # All at once: each of them alone would find the code for it out of the caches.
        for decode_ns, publish_ns, both_ns in self._times_ns:
            self._decode.observe(max(0, decode_ns) / 1e9)
            self._publish.observe(max(0, publish_ns) / 1e9)
            self._processing.observe(max(0, both_ns) / 1e6)
        self._times_ns.clear()
