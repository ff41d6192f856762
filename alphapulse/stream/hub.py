"""Everything of the stream but the sockets: rings' records in, each client's frames out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from alphapulse import metrics
from alphapulse.arbitrage import Terms
from alphapulse.clock import monotonic_ns
from alphapulse.config import ArbitrageSettings
from alphapulse.errors import RequestError
from alphapulse.shm import Position, RingReader
from alphapulse.stream import answers
from alphapulse.stream.client import Client, Limits, Ready, Sink, check_all
from alphapulse.stream.desk import Desk
from alphapulse.stream.items import event_item
from alphapulse.stream.requests import Ping, Request, Snapshot, Subscribe, Unsubscribe
from alphapulse.stream.venue import Venue


class Hub:
    """The markets of all exchanges, and the clients.

    Whoever calls something here that may produce frames calls `flush` afterwards, once for as much
    as is due: what a client gets by then goes out in one write.

    Parameters
    ----------
    exchanges : names of the venues that may have a ring; others are known once theirs is there
    limits : of each client
    later : how to have something called soon, after others of the event loop; at once where None
    wake : how to call something after some seconds; where None, `flush` is called often enough
    open_ring : opens a reader of an exchange's ring at a position, for clients that resume
    terms : fees and limits of the channel ``arbitrage``; those of the default settings where None
    """

    def __init__(
        self,
        exchanges: Iterable[str],
        limits: Limits,
        later: Callable[[Callable[[], None]], object] | None = None,
        wake: Callable[[float, Callable[[], None]], object] | None = None,
        open_ring: Callable[[str, Position], RingReader] | None = None,
        terms: Terms | None = None,
    ) -> None:
        self.clients: dict[Client, None] = {}
        if terms is None:
            terms = Terms.from_settings(ArbitrageSettings())
        self.desk = Desk(self.clients, open_ring, wake, terms)
        self.behind = False
        """Whether there is more to be read of some rings, so that books aren't of the same time."""
        self._limits = limits
        self._ready: Ready[Client] = Ready()
        self._later = later
        self._scheduled = False
        self._conflations = metrics.STREAM_CONFLATIONS.bind()
        self._messages = metrics.Tally(metrics.STREAM_MESSAGES.bind())
        for exchange in exchanges:
            self.venue(exchange)

    @property
    def venues(self) -> Mapping[str, Venue]:
        """The exchanges by name."""
        return self.desk.venues

    def venue(self, exchange: str) -> Venue:
        """An exchange, known from now on."""
        return self.desk.venue(exchange)

    def connect(self, sink: Sink, *, compressed: bool = False) -> Client:
        """A client has come, who may have agreed to compressed messages."""
        client = Client(sink, self._limits, self._ready, monotonic_ns(), compressed=compressed)
        self.clients[client] = None
        return client

    def disconnect(self, client: Client) -> None:
        """A client is gone. May be called again."""
        client.drop()
        self.clients.pop(client, None)
        self._conflations.inc(client.take_conflations())
        self.desk.leave(client)

    def request(self, client: Client, request: Request) -> None:
        """Serve a client.

        Raises
        ------
        RequestError
            it can't be served; `refuse` tells the client
        """
        if isinstance(request, Subscribe):
            self.desk.subscribe(client, request)
        elif isinstance(request, Unsubscribe):
            self.desk.unsubscribe(client, request)
        elif isinstance(request, Snapshot):
            self.desk.send_again(client, request)
        elif isinstance(request, Ping):
            client.send(event_item(answers.PONG))

    def refuse(self, client: Client, error: RequestError) -> None:
        """Tell a client why its request isn't served."""
        client.send(event_item(answers.refused(error)))

    def flush(self) -> None:
        """Send what is due."""
        if self._scheduled:
            self._send()
        else:
            self._go_on()

    def check(self) -> None:
        """Conflate and close slow clients, free memory; to be called several times a second."""
        now_ns = monotonic_ns()
        self._messages.count = self._ready.messages
        self._messages.flush()
        closed, conflations = check_all(list(self.clients), now_ns)
        self._conflations.inc(conflations)
        for client in closed:
            self.disconnect(client)
        self.desk.tidy()

    def describe(self) -> Mapping[str, object]:
        """What the health page says."""
        return {
            "clients": len(self.clients),
            "rings": {
                exchange: {
                    "connected": venue.connected,
                    "epoch": venue.epoch,
                    "sequence": venue.sequence,
                    "symbols": len(venue.markets),
                }
                for exchange, venue in self.venues.items()
            },
        }

    def _go_on(self) -> None:
        """Send what is due, and a portion of what clients have missed; the rest later."""
        self._scheduled = False
        while self._portion():
            if self._later is not None:
                self._scheduled = True
                self._later(self._go_on)
                return

    def _portion(self) -> bool:
        """Whether there is more to do at once."""
        more = self.desk.resume()
        self._send()
        return more or bool(self._ready)

    def _send(self) -> None:
        """Give each client that something is due to its turn."""
        now_ns = monotonic_ns()
        self.desk.timetable.run(now_ns)
        self._turn(now_ns)
        if self.desk.arbitrage.advance(now_ns, behind=self.behind):
            self._turn(now_ns)
        self.desk.timetable.arrange(now_ns, self.flush)

    def _turn(self, now_ns: int) -> None:
        for client in self._ready.flush(now_ns):
            self.disconnect(client)
