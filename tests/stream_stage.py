"""A hub without sockets that reads one exchange's ring, and clients of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alphapulse.clock import monotonic_ns
from alphapulse.shm import Position, RingReader
from alphapulse.stream.client import Client, Limits
from alphapulse.stream.hub import Hub
from tests.stream_consumers import RecordConsumer
from tests.streaming import Consumer, Exchange, Inbox, feed, request

LIMITS = Limits(queue_bytes=1 << 20, behind_ns=10_000_000_000, subscriptions=100)


def reopened(prefix: str) -> Callable[[str, Position], RingReader]:
    """What opens rings for a hub whose clients resume."""
    return lambda exchange, start: RingReader(exchange, prefix=prefix, start=start)


class BookStage:
    """A hub that reads one exchange's ring, and its clients."""

    def __init__(self, prefix: str, **options: Any) -> None:
        self.prefix = prefix
        self.exchange = Exchange(prefix, **options)
        self.hub = Hub(["coinbase", "kraken"], LIMITS, open_ring=reopened(prefix))
        self.reader = RingReader("kraken", prefix=prefix)
        self.feed()

    def __enter__(self) -> BookStage:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()
        self.exchange.writer.close()

    def feed(self) -> None:
        """Hand over to the hub what the exchange has written."""
        feed(self.hub, self.reader)

    def texts(self, **fields: Any) -> tuple[Client, Consumer]:
        """A client that subscribes to JSON."""
        consumer = Consumer([self.exchange], _depth(fields))
        return self._client(consumer, fields), consumer

    def records(self, **fields: Any) -> tuple[Client, RecordConsumer]:
        """A client that subscribes to records."""
        consumer = RecordConsumer([self.exchange], _depth(fields))
        return self._client(consumer, {"format": "binary", **fields}), consumer

    def ask(self, client: Client, **fields: Any) -> None:
        """Send a request."""
        self.hub.request(client, request(**fields))
        self.hub.flush()

    def conflate(self, client: Client) -> None:
        """Find a client that takes nothing too far behind."""
        client.check(monotonic_ns() + LIMITS.behind_ns * 3 // 4)

    def resume(self, client: Client) -> None:
        """The client takes data again."""
        client.resume(monotonic_ns())
        self.hub.flush()

    def _client(self, consumer: Consumer | RecordConsumer, fields: dict[str, Any]) -> Client:
        client = self.hub.connect(Inbox(consumer))
        self.ask(client, type="subscribe", **fields)
        return client


def _depth(fields: dict[str, Any]) -> int | None:
    depth = fields.get("depth")
    return depth if isinstance(depth, int) else None
