"""What a venue's class says of its protocol, apart from how a simulator is run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from starlette.responses import Response
from starlette.routing import Route

from alphapulse.simulators.connection import Connection
from alphapulse.simulators.market import MarketEvent
from alphapulse.simulators.source import Topic
from alphapulse.simulators.specs import PairSpec
from alphapulse.simulators.web import json_response


class VenueProtocol(ABC):
    """The venue's side of one exchange's protocol; `VenueSimulator` calls it."""

    exchange: ClassVar[str]
    """Name of the venue."""
    awaited: ClassVar[dict[str, tuple[str, ...]]]
    """Channels of a capture that must have a subscriber before it is played, each with those
    that would do."""
    trade_channels: ClassVar[frozenset[str]]
    """Which of the awaited channels carry trades; the others carry books."""
    metadata_path: ClassVar[str] = ""
    """REST path whose recorded body is served from the beginning."""

    @abstractmethod
    def name_symbol(self, spec: PairSpec) -> str:
        """The venue's symbol of a pair."""

    @abstractmethod
    def message(self, connection: Connection, message: bytes) -> None:
        """A client sent this."""

    def control_frame(self, connection: Connection, pong: bool = False) -> None:
        """A client sent a ping, or a pong; some venues count them."""
        return

    @abstractmethod
    def event(self, event: MarketEvent) -> None:
        """The market moved: tell the subscribers."""

    @abstractmethod
    def route(self, raw: bytes) -> tuple[Topic, ...] | None:
        """Who gets a recorded frame.

        Topics (any subscriber of any of them), `EVERYONE`, or None if it isn't played, as
        acknowledgements, which are made up.
        """

    @abstractmethod
    def routes(self) -> list[Route]:
        """REST routes; handlers wrapped by `rest`."""

    def serves(self, path: str) -> bool:
        """Whether the venue takes WebSocket connections at this path."""
        return path in {"", "/"}

    def greet(self, connection: Connection) -> None:
        """A client has connected."""
        return

    def heartbeat(self) -> None:
        """Called once a second."""
        return

    def flush_batches(self, until_ns: int | None = None) -> None:
        """Send the batches that end by then (market time), or all that waits."""
        return

    def batch_due_ns(self) -> int | None:
        """Market time at which the next batch must be sent, None if nothing waits."""
        return None

    def list_recorded(self, body: bytes) -> None:
        """Note the symbols of a recorded metadata body."""
        return

    def scanned(self, raw: bytes) -> None:
        """See each WebSocket frame of a capture before the play, for metadata."""
        return

    def send_recorded(self, connection: Connection, raw: bytes) -> None:
        """Send a recorded frame as this connection gets it."""
        connection.send(raw)

    def played(self, raw: bytes) -> None:
        """See each WebSocket frame of a capture as it is played."""
        return

    def keep_snapshot(self, symbol: str) -> None:
        """Remember the book for a later stale answer, where the venue has REST snapshots."""
        return

    def rest_refusal(self, status: int, retry_after_seconds: float) -> Response:
        """The venue's way of turning a request away."""
        return json_response(
            {"message": "rate limit exceeded"},
            status,
            {"Retry-After": str(max(1, round(retry_after_seconds)))},
        )

    def rest_over_budget(self) -> Response:
        """Answer a request beyond the venue's budget."""
        return self.rest_refusal(429, 1.0)
