"""Every exception that AlphaPulse raises on purpose.

AlphaPulseError
├── ConfigError              a setting is unknown, malformed or contradicts another
├── FixedPointError          decimal text that no scaled int64 can hold exactly
│   ├── DecimalSyntaxError   the text is no finite decimal number
│   ├── PrecisionError       more digits after the point than the exponent allows
│   ├── RangeError           beyond int64 at this exponent, or negative where that makes no sense
│   └── LevelSyntaxError     a list of price levels that isn't what its layout promises
├── BookError                a book that can't go on from here; it needs a snapshot
│   ├── ChecksumMismatch     the venue's checksum isn't that of the book
│   ├── CrossedBook          the best bid isn't below the best ask
│   └── BookNotLive          a client's book that must not be shown at present
├── SymbolError              a symbol that no instrument of the venue bears
├── CaptureError             a file that is no capture, or a line of it that is none
├── RecordError              bytes that are no record of the wire format
├── RingError                shared memory
│   ├── RingNotFound         no segment of that name
│   ├── RingBusy             the name has a live writer
│   ├── RingTooSmall         the segment can't hold what the ring's promises need
│   ├── RingSpaceError       the machine has too little shared memory left
│   └── RingCorrupt          a segment's header or records contradict themselves
├── VenueError               a venue refused or failed
│   └── RateLimited          the venue asked to be left alone for a while
├── StoreError               the history store failed
├── RequestError             a client of ours asked for something that can't be done
└── ClientError              the client library can't do what its caller wants
    ├── ConnectionFailed     no connection to the server, or not again
    │   └── HandshakeRefused the server answered with an HTTP status other than 101
    ├── ClientClosed         the client was closed
    ├── AnswerTimeout        the server didn't answer a request in time
    ├── ProtocolError        the server sent what the stream's protocol doesn't know
    └── MissingPackage       an optional package isn't installed
"""

from __future__ import annotations

from decimal import Decimal


class AlphaPulseError(Exception):
    """Base of all exceptions raised on purpose by this package."""


class ConfigError(AlphaPulseError):
    """A setting that can't be used.

    Parameters
    ----------
    key : dotted name of the setting, as it is written in the file (``"ring.size_bytes"``)
    problem : what is wrong with it and what would be right
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


class FixedPointError(AlphaPulseError, ValueError):
    """Decimal text that no scaled int64 can hold exactly.

    Parameters
    ----------
    value : the offending text, shortened to 80 characters
    problem : what is wrong with it
    """

    def __init__(self, value: str, problem: str) -> None:
        value = value if len(value) <= 80 else f"{value[:77]}..."
        super().__init__(f"{value!r}: {problem}")
        self.value = value
        self.problem = problem


class DecimalSyntaxError(FixedPointError):
    """The text is no finite decimal number (``NaN``, ``1.2.3``, an empty string)."""


class PrecisionError(FixedPointError):
    """The value has more significant digits after the point than the exponent allows.

    Parameters
    ----------
    value : the offending text
    needed : the exponent that would hold it
    allowed : the exponent that was asked for
    field : ``"price"`` or ``"size"`` where a level was read, so that the right exponent can be
        raised; else None
    """

    def __init__(self, value: str, needed: int, allowed: int, field: str | None = None) -> None:
        super().__init__(value, f"needs {needed} decimal places, the instrument has {allowed}")
        self.needed = needed
        self.allowed = allowed
        self.field = field


class RangeError(FixedPointError):
    """The value doesn't fit int64 at this exponent, or is negative where that makes no sense."""


class LevelSyntaxError(FixedPointError):
    """A list of price levels that isn't the JSON that its layout promises."""


class BookError(AlphaPulseError):
    """A book that can't go on from here: it has no snapshot, missed a change or was found wrong."""


class ChecksumMismatch(BookError):
    """The venue's checksum isn't that of the book.

    Parameters
    ----------
    expected : as the venue sent it
    computed : of the book after the frame
    """

    def __init__(self, expected: int, computed: int) -> None:
        super().__init__(f"the venue's checksum is {expected}, the book's {computed}")
        self.expected = expected
        self.computed = computed


class CrossedBook(BookError):
    """The best bid isn't below the best ask.

    Parameters
    ----------
    bid, ask : the best prices
    """

    def __init__(self, bid: Decimal, ask: Decimal) -> None:
        super().__init__(f"best bid {bid:f} is not below best ask {ask:f}")
        self.bid = bid
        self.ask = ask


class BookNotLive(BookError):
    """A client's book that must not be shown: it isn't known to be right at present.

    Parameters
    ----------
    exchange, symbol : whose book
    state, reason : why, in the words of the protocol
    """

    def __init__(self, exchange: str, symbol: str, state: str, reason: str) -> None:
        super().__init__(f"the book of {exchange} {symbol} is {state} ({reason}), not live")
        self.exchange = exchange
        self.symbol = symbol
        self.state = state
        self.reason = reason


class SymbolError(AlphaPulseError, KeyError):
    """A symbol that no instrument of the venue bears."""

    def __init__(self, venue: str, symbol: str) -> None:
        super().__init__(f"{venue} has no instrument {symbol!r}")
        self.venue = venue
        self.symbol = symbol

    def __str__(self) -> str:
        return str(self.args[0])


class CaptureError(AlphaPulseError):
    """A file that can't be read as a capture.

    Parameters
    ----------
    path : the file
    line : 1-based line number, 0 where the file as a whole is meant
    problem : what is wrong and what would be right
    """

    def __init__(self, path: str, line: int, problem: str) -> None:
        super().__init__(f"{path}:{line}: {problem}" if line else f"{path}: {problem}")
        self.path = path
        self.line = line
        self.problem = problem


class RecordError(AlphaPulseError):
    """Bytes that are no record of the wire format (docs/wire-format.md)."""


class RingError(AlphaPulseError):
    """Base of everything that goes wrong with shared memory."""


class RingNotFound(RingError):
    """No segment of that name.

    Parameters
    ----------
    name : segment name, ``<prefix>.<venue>``
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"no ring named {name!r}; `alphapulse rings` lists those that exist")
        self.name = name


class RingBusy(RingError):
    """The name has a live writer.

    Parameters
    ----------
    name : segment name
    pid : the writer's process id as it wrote it down (of its own pid namespace)
    """

    def __init__(self, name: str, pid: int) -> None:
        super().__init__(f"ring {name!r} is being written by process {pid}")
        self.name = name
        self.pid = pid


class RingTooSmall(RingError):
    """The segment can't hold what the ring's promises need.

    Parameters
    ----------
    name : segment name
    size_bytes : the configured size of the ring's data area
    needed_bytes : the smallest size that would do
    """

    def __init__(self, name: str, size_bytes: int, needed_bytes: int) -> None:
        super().__init__(
            f"ring {name!r}: {size_bytes} bytes can't keep the snapshots of its books; "
            f"set ring.size_bytes to {needed_bytes} or more"
        )
        self.name = name
        self.size_bytes = size_bytes
        self.needed_bytes = needed_bytes


class RingSpaceError(RingError):
    """The machine has too little shared memory left for the segment.

    Parameters
    ----------
    name : segment name
    needed_bytes : how much the segment takes
    free_bytes : how much the machine has left
    """

    def __init__(self, name: str, needed_bytes: int, free_bytes: int) -> None:
        super().__init__(
            f"ring {name!r} needs {needed_bytes} bytes of shared memory, "
            f"{free_bytes} are free; enlarge /dev/shm or lower ring.size_bytes"
        )
        self.name = name
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes


class RingCorrupt(RingError):
    """A segment's header or records contradict themselves."""


class VenueError(AlphaPulseError):
    """A venue refused or failed.

    Parameters
    ----------
    venue : the exchange
    problem : what happened, with the venue's own words where it gave any
    """

    def __init__(self, venue: str, problem: str) -> None:
        super().__init__(f"{venue}: {problem}")
        self.venue = venue
        self.problem = problem


class RateLimited(VenueError):
    """The venue asked to be left alone for a while.

    Parameters
    ----------
    venue : the exchange
    status : HTTP status (429, 418)
    retry_after_seconds : how long, from the venue's answer
    """

    def __init__(self, venue: str, status: int, retry_after_seconds: float) -> None:
        super().__init__(venue, f"HTTP {status}, retry after {retry_after_seconds:g} s")
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class StoreError(AlphaPulseError):
    """The history store failed, or was asked for what it can't give."""


class RequestError(AlphaPulseError):
    """A client asked for something that can't be done.

    Parameters
    ----------
    code : machine-readable word (``"unknown_symbol"``)
    message : what was wrong and what would be right
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class ClientError(AlphaPulseError):
    """Base of the client library's own; what the server refuses is a `RequestError`."""


class ConnectionFailed(ClientError):
    """There is no connection to the server, or none again after it was lost.

    Parameters
    ----------
    url : the server's address
    problem : what went wrong
    attempts : how many were made in a row
    """

    def __init__(self, url: str, problem: str, attempts: int = 1) -> None:
        tried = f" after {attempts} attempts" if attempts > 1 else ""
        super().__init__(f"{url}: no connection{tried}: {problem}")
        self.url = url
        self.problem = problem
        self.attempts = attempts


class HandshakeRefused(ConnectionFailed):
    """The server answered the WebSocket handshake with an HTTP status other than 101.

    Parameters
    ----------
    url : the server's address
    status : HTTP status (401: the token is wrong or missing, 503: too many clients)
    problem : the server's words
    """

    def __init__(self, url: str, status: int, problem: str) -> None:
        super().__init__(url, f"HTTP {status}: {problem}" if problem else f"HTTP {status}")
        self.status = status


class ClientClosed(ClientError):
    """The client was closed, or not opened yet."""


class AnswerTimeout(ClientError):
    """The server didn't answer a request in time.

    Parameters
    ----------
    request : its type (``"subscribe"``)
    seconds : how long it was waited for
    """

    def __init__(self, request: str, seconds: float) -> None:
        super().__init__(
            f"no answer to {request!r} within {seconds:g} s; the connection is down, or so many "
            "events wait to be taken that the answer behind them can't be read"
        )
        self.request = request
        self.seconds = seconds


class ProtocolError(ClientError):
    """The server sent what the stream's protocol doesn't know: it is another program, or newer.

    Parameters
    ----------
    problem : what is wrong
    data : the beginning of the message
    """

    def __init__(self, problem: str, data: bytes) -> None:
        super().__init__(f"{problem}: {data[:200]!r}")
        self.problem = problem
        self.data = data[:200]


class MissingPackage(ClientError, ImportError):
    """An optional package isn't installed.

    Parameters
    ----------
    package : its name
    extra : the group of optional dependencies of this package that has it
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed: pip install {package}, or 'alphapulse[{extra}]'"
        )
        self.package = package
        self.extra = extra
