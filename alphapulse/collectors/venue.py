"""The contract of a venue: frames in, events and outgoing messages out, no I/O.

A `Venue` knows one exchange's protocol; it makes a `Channel` per WebSocket connection, which holds
what belongs to that connection alone (sequence numbers, request ids, acknowledgements to come).
`session.py` drives any venue over real connections, `alphapulse normalize` over a recorded one.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import msgspec

from alphapulse.clock import NO_TIME, parse_iso8601
from alphapulse.collectors.events import (
    Acknowledged,
    BookSnapshotEvent,
    Instruments,
    Malformed,
    TradeEvent,
    VenueComplaint,
    VenueEvent,
)
from alphapulse.config import VenueSettings
from alphapulse.delta import ConnectionState, FrameLayout
from alphapulse.errors import AlphaPulseError
from alphapulse.fixed import INT64_MAX, MAX_EXPONENT
from alphapulse.model import IdKind, Instrument


class RestRequest(NamedTuple):
    """A GET request to the venue's REST service.

    Parameters
    ----------
    path : path and query, from the slash on
    weight : what it costs of the venue's REST budget
    headers : further headers (an API key)
    """

    path: str
    weight: int = 1
    headers: Mapping[str, str] = {}


class RestAnswer(NamedTuple):
    """Body and headers of a successful answer; names of headers in any case."""

    body: bytes
    headers: Mapping[str, str]


class Budget(NamedTuple):
    """At most ``amount`` per ``seconds``; ``burst`` may come at once."""

    amount: float
    seconds: float
    burst: float


class Limits(NamedTuple):
    """What the venue allows one address, shared by all of its connections."""

    connects: Budget
    messages: Budget
    """Client messages of one connection, or of all together."""
    rest_weight: Budget
    messages_per_address: bool = False
    """Whether `messages` is for all connections together."""


class Liveness(NamedTuple):
    """Signs of life that the venue promises, in seconds; None where it promises nothing."""

    connection_seconds: float | None
    """Longest silence of a healthy connection; None: probe with a WebSocket ping."""
    symbol_seconds: float | None
    """Longest silence of a healthy symbol (per-product heartbeats)."""
    rotate_seconds: float | None
    """Replace a connection of this age by an overlapping one."""


class TradeSpan(NamedTuple):
    """Trades of one symbol that a venue's REST service is asked for.

    Parameters
    ----------
    after_id : of the last trade before the span, None where unknown
    before_id : of the first trade behind the span, None where unknown
    since_ns, until_ns : the venue's times between which the span's trades lie, both included;
        `since_ns` is that of `after_id`'s trade where that is known
    id_kind : of the bounds, and of the trades that are wanted
    aggregated : take aggregates although single trades are wanted
    """

    after_id: int | None
    before_id: int | None
    since_ns: int
    until_ns: int
    id_kind: IdKind = IdKind.TRADE
    aggregated: bool = False

    def reaches_back(self, trade: TradeEvent) -> bool:
        """Whether a page that begins with this trade holds the span's first one."""
        if self.after_id is not None:
            return trade.trade_id <= self.after_id + 1
        return trade.exchange_ns < self.since_ns

    def ends_by(self, trade: TradeEvent) -> bool:
        """Whether a page that ends with this trade holds the span's last one."""
        if self.before_id is not None:
            last_id = trade.trade_id
            if trade.id_kind is not self.id_kind and trade.first_match is not None:
                last_id = trade.first_match + trade.matches - 1
            return last_id >= self.before_id - 1
        return trade.exchange_ns > self.until_ns


class TradesPage(NamedTuple):
    """A page of a venue's REST trades, oldest first.

    Parameters
    ----------
    trades : the trades; there may be some of beyond the span
    more : the request for the next page; None at the span's end, and where the venue has no more
    """

    trades: list[TradeEvent]
    more: RestRequest | None


class Channel(ABC):
    """One WebSocket connection's side of the protocol.

    Parameters
    ----------
    symbols : the instruments that the connection carries
    """

    def __init__(self, symbols: Sequence[Instrument]) -> None:
        self.symbols = {instrument.venue_symbol: instrument for instrument in symbols}
        self.awaited: set[tuple[str, str]] = set()
        """(channel, venue symbol) of subscriptions that the venue hasn't answered yet."""

    connection: ConnectionState | None = None
    """What the native path has to know of the connection, where the venue counts its messages."""

    all_or_nothing: ClassVar[bool] = False
    """Whether an error about one symbol refuses all that the same message asked for."""

    def granted(self, keys: Collection[tuple[str, str]]) -> list[VenueEvent]:
        """Acknowledgements of those subscriptions among these that were still awaited."""
        answered = sorted(self.awaited.intersection(keys))
        self.awaited.difference_update(answered)
        return [Acknowledged(channel, symbol) for channel, symbol in answered]

    def refused(self, text: str) -> list[VenueEvent]:
        """What an error in words refuses: awaited subscriptions whose symbol it names."""
        named = sorted(key for key in self.awaited if re.search(rf"\b{re.escape(key[1])}\b", text))
        self.awaited.difference_update(named)
        if not named:
            return [VenueComplaint(text)]
        return [Acknowledged(channel, symbol, text) for channel, symbol in named]

    @property
    @abstractmethod
    def url(self) -> str:
        """Where to connect."""

    @abstractmethod
    def open(self, now_ns: int) -> list[bytes]:
        """Messages to send as soon as the connection is open."""

    @abstractmethod
    def subscribe(self, keys: Collection[tuple[str, str]], now_ns: int) -> list[bytes]:
        """Messages that ask again for subscriptions: (channel, venue symbol), as in `awaited`."""

    @abstractmethod
    def resubscribe(self, venue_symbol: str, now_ns: int) -> list[bytes]:
        """Messages that make the venue send that symbol's book anew; none where REST does it."""

    @abstractmethod
    def decode(self, data: bytes | memoryview) -> list[VenueEvent]:
        """Events of one frame. Raises ``msgspec.MsgspecError`` or ``ValueError`` if malformed."""

    def receive(self, data: bytes | memoryview) -> list[VenueEvent]:
        """Events of one frame; never raises: what can't be used comes back as `Malformed`."""
        try:
            return self.decode(data)
        except (msgspec.MsgspecError, ValueError, AlphaPulseError, RecursionError) as error:
            # RecursionError: brackets nested some thousand deep.
            return [self.malformed(data, error)]

    def malformed(self, data: bytes | memoryview, error: Exception) -> Malformed:
        """What is wrong with a frame, with the symbol that it seems to be about."""
        head = bytes(data[:_NAMED_WITHIN_BYTES])
        symbol = self.symbol_of(head) or self.symbol_of(bytes(data[-_NAMED_WITHIN_BYTES:]))
        problem = f"{error} in a frame of {len(data)} bytes: {_shorten(head)}"
        return Malformed(symbol, problem, book=symbol is not None and self.is_book(head))

    @abstractmethod
    def symbol_of(self, head: bytes) -> str | None:
        """The symbol that a frame which doesn't decode seems to be about."""

    @abstractmethod
    def is_book(self, head: bytes) -> bool:
        """Whether a frame which doesn't decode seems to be about a book."""


class Venue(ABC):
    """One exchange's protocol.

    Parameters
    ----------
    settings : the section ``venues.<name>`` of the settings
    """

    name: ClassVar[str]
    limits: ClassVar[Limits]

    def __init__(self, settings: VenueSettings) -> None:
        self.settings = settings
        self.books = "orderbook" in settings.channels
        self.trades = "trades" in settings.channels

    @property
    @abstractmethod
    def book_channel(self) -> str:
        """The subscription whose refusal means that a symbol's book won't come."""

    @property
    @abstractmethod
    def liveness(self) -> Liveness:
        """Signs of life that the venue promises."""

    @property
    @abstractmethod
    def sequenced(self) -> bool:
        """Whether books come as numbered changes to a REST snapshot (else by snapshot frames)."""

    @property
    def plain_frames(self) -> Sequence[FrameLayout]:
        """What everyday frames look like, for the native path; those that come most often first.

        A frame that fits may bypass `Channel.decode`, which has to make the same of it.
        """
        return ()

    @property
    def depth(self) -> int:
        """Levels a side subscribed to, and so kept; 0 for all."""
        return 0

    @abstractmethod
    def metadata_request(self) -> RestRequest | None:
        """Where the instruments are listed; None where they come over the WebSocket."""

    @abstractmethod
    def parse_metadata(self, body: bytes) -> list[VenueEvent]:
        """`Instruments` of a metadata answer, and `Malformed` for each entry that can't be used.

        Raises ``msgspec.MsgspecError`` where the answer as a whole can't be used.
        """

    @abstractmethod
    def channel(self, symbols: Sequence[Instrument]) -> Channel:
        """The protocol of a new connection that carries these instruments."""

    def plan(self, symbols: Sequence[Instrument]) -> list[list[Instrument]]:
        """Which instruments share a connection."""
        size = self.settings.symbols_per_connection
        return [list(symbols[i : i + size]) for i in range(0, len(symbols), size)]

    def checksum_digits(self, instrument: Instrument) -> tuple[int, int] | None:
        """Decimal places of price and size in the venue's checksum; None if it has none."""
        return None

    @abstractmethod
    def snapshot_request(self, instrument: Instrument) -> RestRequest | None:
        """Where the whole book is, for synchronising or for checking it; None if nowhere."""

    @abstractmethod
    def parse_snapshot(self, instrument: Instrument, body: bytes) -> BookSnapshotEvent:
        """The book of a REST answer. Raises ``msgspec.MsgspecError``, ``ValueError``."""

    def parse_budget(self, body: bytes) -> Budget | None:
        """The REST budget that a metadata answer states; None where it states none."""
        return None

    @property
    def trade_ids(self) -> IdKind:
        """What the ids of the feed's trades count."""
        return IdKind.TRADE

    @abstractmethod
    def trades_request(self, instrument: Instrument, span: TradeSpan) -> RestRequest | None:
        """Where the span's trades are listed; None if nowhere."""

    @abstractmethod
    def parse_trades(
        self, instrument: Instrument, span: TradeSpan, request: RestRequest, answer: RestAnswer
    ) -> TradesPage:
        """One page of the span's trades.

        Parameters
        ----------
        instrument, span : as for `trades_request`
        request : that one, or the page's before
        answer : to the request

        Raises
        ------
        msgspec.MsgspecError, ValueError
            it can't be used
        RateLimited
            the venue asks in its body to be left alone
        """


def by_channel(keys: Collection[tuple[str, str]]) -> dict[str, list[str]]:
    """Symbols of each channel, in order."""
    found: dict[str, list[str]] = {}
    for channel, symbol in sorted(keys):
        found.setdefault(channel, []).append(symbol)
    return found


MOST_NAMES_BYTES = 255
"""Of an instrument's symbols and assets in all: its record must fit into a ring's directory."""

_NAMED_WITHIN_BYTES = 512
"""A frame names its symbol near one of its ends; a 50 MB one isn't searched whole."""

_NUMBER_STARTS = frozenset("-0123456789")


def printable(text: str, limit: int) -> str:
    """Text of a venue's, fit to be shown in one line: control characters escaped, cut short."""
    shown = text if len(text) <= limit else f"{text[: limit - 3]}..."
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in shown
    )


def _shorten(head: bytes) -> str:
    text = head[:120].decode("utf-8", "replace")
    return text + "..." if len(head) > 120 else text


def read_instruments(
    entries: Iterable[msgspec.Raw], read: Callable[[msgspec.Raw], Instrument]
) -> list[VenueEvent]:
    """`Instruments` of a venue's list; an entry that can't be used doesn't spoil the others."""
    instruments: list[Instrument] = []
    found: list[VenueEvent] = []
    for entry in entries:
        try:
            instruments.append(_checked(read(entry)))
        except (msgspec.MsgspecError, ValueError, AlphaPulseError) as error:
            problem = f"{error} in an entry of the metadata: {_shorten(bytes(entry))}"
            found.append(Malformed(None, problem, book=False))
    return [Instruments(instruments), *found]


def _checked(instrument: Instrument) -> Instrument:
    if max(instrument.price_exponent, instrument.size_exponent) > MAX_EXPONENT:
        raise ValueError(f"more than {MAX_EXPONENT} decimal places")
    names = instrument.symbol, instrument.venue_symbol, instrument.base, instrument.quote
    size = sum(len(name.encode()) for name in names)
    if size > MOST_NAMES_BYTES:
        raise ValueError(f"{size} bytes of names")
    return instrument


def search_text(pattern: re.Pattern[bytes], head: bytes) -> str | None:
    """First group of a pattern in the beginning of a frame, as text."""
    match = pattern.search(head)
    return match[1].decode("utf-8", "replace") if match else None


def scalar_text(raw: msgspec.Raw) -> str:
    """Digits of a JSON number, or content of a JSON string, exactly as the venue sent them.

    Raises
    ------
    ValueError
        it is neither
    """
    text = bytes(raw).decode()
    if len(text) >= 2 and text[0] == '"':
        return text[1:-1]
    if text[:1] in _NUMBER_STARTS and text:
        return text
    raise ValueError(f"{_shorten(bytes(raw))} is neither a number nor a string")


def timestamp_ns(text: str) -> int:
    """Nanoseconds of a venue's ISO 8601 time; ``NO_TIME`` where it is a zero time.

    Venues write "unknown" as year 1 or as the epoch itself; year 2262 and later don't fit.
    """
    value = parse_iso8601(text)
    return value if 0 < value <= INT64_MAX else NO_TIME
