"""What all connections of one venue share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from alphapulse.backoff import Backoff
from alphapulse.clock import wall_ns
from alphapulse.collectors.allowance import Allowance
from alphapulse.collectors.complaints import Complaints
from alphapulse.collectors.events import Acknowledged, VenueStatus
from alphapulse.collectors.feed import Feed
from alphapulse.collectors.latency import LatencySampler
from alphapulse.collectors.rest import RestClient
from alphapulse.collectors.running import RunningClock
from alphapulse.collectors.venue import Venue
from alphapulse.config import VenueSettings

REPEAT_EVERY_FRAMES = 8
"""Within a burst, how often it is checked whether a book has to be repeated for newcomers."""


class Context:
    """What all connections of one venue share: protocol, feed, budgets, complaints.

    Parameters
    ----------
    venue, feed : the protocol, and where frames go
    rest : the venue's REST service
    complaints : where the log gets what goes wrong
    sampler : what measures latencies
    """

    def __init__(
        self,
        venue: Venue,
        feed: Feed,
        rest: RestClient,
        complaints: Complaints,
        sampler: LatencySampler,
    ) -> None:
        self.venue = venue
        self.feed = feed
        self.rest = rest
        self.complaints = complaints
        self.sampler = sampler
        self.settings: VenueSettings = venue.settings
        self.clock = RunningClock()
        self.connects = Allowance(venue.limits.connects, self.settings.rate_share)
        # A banned address that goes on connecting is banned for longer.
        rest.banned = self.connects.hold
        self._messages = self._message_allowance()
        self.news = asyncio.Event()
        """Set when a book wants a snapshot, or instruments have come."""
        self.refused: Callable[[Acknowledged], None] = lambda event: None
        """What to do about a refused subscription."""
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets the exception of something without which the collector can't go on."""

    @property
    def in_maintenance(self) -> bool:
        """Whether the venue has said that it isn't trading: silence is no stall then."""
        return self.feed.status is VenueStatus.MAINTENANCE

    @property
    def shares_messages(self) -> bool:
        """Whether all connections together have one budget of messages."""
        return self.venue.limits.messages_per_address

    def messages(self) -> Allowance:
        """The budget of messages of another connection."""
        return self._messages if self.shares_messages else self._message_allowance()

    def _message_allowance(self) -> Allowance:
        return Allowance(self.venue.limits.messages, self.settings.rate_share)

    def backoff(self) -> Backoff:
        """Pauses as the settings want them."""
        settings = self.settings
        return Backoff(
            settings.backoff_first_seconds,
            settings.backoff_max_seconds,
            settings.backoff_reset_seconds,
        )

    def burst_ended(self, now_ns: int) -> None:
        """Records have been written, and for now no more come: see to newcomers and readers."""
        feed = self.feed
        feed.repeat_due(now_ns)
        feed.writer.wake()
        if feed.wanted:
            self.news.set()

    def touch(self) -> None:
        """The same after something else than a frame has written records."""
        self.burst_ended(wall_ns())

    def fail(self, error: BaseException) -> None:
        """End the collector with this error."""
        if not self.failure.done():
            self.failure.set_exception(error)
