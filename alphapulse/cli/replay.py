"""A recording through the daemon's own path: decoder, book, ring and reader, to JSON events."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable
from itertools import chain
from urllib.parse import parse_qsl, urlsplit

import msgspec

from alphapulse.capture import Frame
from alphapulse.collectors.events import Instruments, VenueComplaint
from alphapulse.collectors.feed import Feed
from alphapulse.collectors.venue import Venue, printable
from alphapulse.model import Instrument
from alphapulse.shm import RingReader, RingWriter
from alphapulse.stream.messages import encode_event

FRAMES_PER_READ = 64
"""Frames written between two looks at the ring: far less than the ring holds."""

PREFIX = "alphapulse-normalize"
"""Each run has a ring of its own under this beginning; killed ones' are removed by the next."""

Print = Callable[[str], None]


class Totals(msgspec.Struct):
    """What a run has cost and found, over all repeats."""

    frames: int = 0
    events: int = 0
    seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    checksums_ok: int = 0
    checksums_bad: int = 0
    gaps: int = 0
    malformed: int = 0


def normalize(
    frames: Iterable[Frame],
    venue: Venue,
    *,
    ring_bytes: int,
    totals: Totals,
    emit: Print | None,
    complain: Print,
) -> None:
    """Put frames through decoder, synchroniser, tracker, ring and reader, from nothing.

    Parameters
    ----------
    frames : the recording, at least one frame
    venue : the protocol that it was recorded from
    ring_bytes : size of the private ring
    totals : what this run is added to; its seconds leave out reading frames and printing
    emit : takes each JSON event; None: events are decoded and counted only
    complain : takes what is wrong with a frame

    Raises
    ------
    CaptureError
        from ``frames``
    """
    frames = iter(frames)
    first = next(frames)
    replay = _Replay(venue, ring_bytes, first.t_ns, emit, complain)
    try:
        for frame in chain((first,), frames):
            replay.frame(frame)
        replay.read()
    finally:
        replay.close()
        replay.add_to(totals)


class _Replay:
    """One pass over a recording, with a ring of its own."""

    def __init__(
        self, venue: Venue, ring_bytes: int, now_ns: int, emit: Print | None, complain: Print
    ) -> None:
        self._venue = venue
        self._emit = emit
        self._complain = complain
        self._now_ns = now_ns
        prefix = f"{PREFIX}-{os.getpid()}-{secrets.token_hex(4)}"
        self._writer = RingWriter(
            venue.name, prefix=prefix, size_bytes=ring_bytes, clock=lambda: self._now_ns
        )
        self._reader = RingReader(venue.name, prefix=prefix, start="oldest")
        self._feed = Feed(venue, self._writer, symbols=None, complain=self._malformed)
        self._channel = venue.channel([])
        self._answers: dict[str, bytes] = {}
        self._requests: dict[str, Instrument] = {}
        self._frames = self._bytes_in = self._events = 0
        self._busy_ns = 0

    def close(self) -> None:
        """Remove the ring."""
        self._reader.close()
        self._writer.close()

    def add_to(self, totals: Totals) -> None:
        """Add this pass to the totals."""
        counts = self._feed.counts
        totals.frames += self._frames
        totals.events += self._events
        totals.seconds += self._busy_ns / 1e9
        totals.bytes_in += self._bytes_in
        totals.bytes_out += counts.bytes_out
        totals.checksums_ok += counts.checksums_ok
        totals.checksums_bad += counts.checksums_bad
        totals.gaps += counts.gaps
        totals.malformed += counts.malformed

    def frame(self, frame: Frame) -> None:
        """Take one line of the recording."""
        begun = time.perf_counter_ns()
        self._now_ns = frame.t_ns
        self._frames += 1
        self._bytes_in += len(frame.raw)
        if frame.src == "ws":
            for event in self._feed.receive(self._channel, frame.raw, frame.t_ns):
                if isinstance(event, Instruments):
                    self._defined()
                elif isinstance(event, VenueComplaint):
                    self._complain(f"{self._venue.name} says: {printable(event.text, 400)}")
        else:
            self._rest(frame.url or "", frame.raw)
        if self._feed.wanted:
            self._answer()
        self._feed.repeat_due(frame.t_ns)
        self._busy_ns += time.perf_counter_ns() - begun
        if self._frames % FRAMES_PER_READ == 0:
            self.read()

    def read(self) -> None:
        """Take from the ring what has come in, and print it."""
        while True:
            begun = time.perf_counter_ns()
            batch = self._reader.read()
            events = list(batch.events())
            self._busy_ns += time.perf_counter_ns() - begun
            if not events:
                return
            for event in events:
                text = encode_event(event, batch.epoch)
                if text is not None:
                    self._events += 1
                    if self._emit is not None:
                        self._emit(text)

    def _malformed(self, venue_symbol: str | None, problem: str) -> None:
        name = venue_symbol or "(symbol unknown)"
        self._complain(f"malformed: {self._venue.name} {name}: {problem}")

    def _defined(self) -> None:
        """The venue's metadata has come: from now on the connection carries all its symbols."""
        for instrument in self._feed.instruments:
            self._channel.symbols[instrument.venue_symbol] = instrument
            request = self._venue.snapshot_request(instrument)
            if request is not None:
                self._requests[_question(request.path)] = instrument

    def _rest(self, url: str, body: bytes) -> None:
        """A REST body answers the request for its path and symbol, once."""
        metadata = self._venue.metadata_request()
        if metadata is not None and _question(url) == _question(metadata.path):
            self._feed.rest_metadata(body, self._now_ns)
            self._defined()
            return
        question = _question(url)
        instrument = self._requests.get(question)
        if instrument is not None and self._venue.sequenced:
            self._feed.follow(instrument.venue_symbol, self._now_ns)
            self._answers[instrument.venue_symbol] = body

    def _answer(self) -> None:
        """Give the books that wait for a snapshot the answers that the recording has so far.

        Nobody answers a resubscription: such a book waits until the recording brings a snapshot.
        """
        for symbol in list(self._feed.wanted):
            body = self._answers.pop(symbol, None)
            if body is not None:
                reason = self._feed.wanted.pop(symbol)
                instrument = self._channel.symbols[symbol]
                if not self._feed.rest_snapshot(instrument, body, self._now_ns):
                    self._feed.wanted.setdefault(symbol, reason)


def _question(url: str) -> str:
    """What a request asks for: its path and parameters, but for how many levels it wants."""
    parts = urlsplit(url)
    parameters = sorted((key, value) for key, value in parse_qsl(parts.query) if key != "limit")
    return f"{parts.path}?{parameters}"
