"""What clients ask for: JSON or a query string in, checked requests out.

Everything here raises `RequestError` with a code that programs can go by: ``malformed`` (no JSON
object in UTF-8), ``bad_request`` (a field is missing, unknown or has a wrong value),
``unknown_symbol`` (text that can't be a symbol) and ``unsupported`` (what doesn't go together).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple, get_args
from urllib.parse import parse_qsl

import msgspec
from msgspec import UNSET, Meta, UnsetType

from alphapulse.errors import RequestError
from alphapulse.symbols import normalize_symbol

Channel = Literal["trades", "orderbook", "state", "bbo", "arbitrage"]
"""What can be subscribed to."""

Format = Literal["json", "binary"]

CHANNELS: tuple[Channel, ...] = get_args(Channel)

JSON_ONLY: frozenset[Channel] = frozenset({"bbo", "arbitrage"})
"""Channels whose events aren't records."""

CONSOLIDATED: frozenset[Channel] = frozenset({"orderbook", "bbo", "arbitrage"})
"""Channels that have something of all exchanges together; of others `ALL` means each of them."""

FULL = 0
"""Depth that stands for the whole book."""

EVERYTHING = "*"
"""Stands for all exchanges or all symbols, later ones included."""

ALL = "all"
"""Stands for all exchanges taken together."""

MAX_DEPTH = 100_000
MAX_CONFLATE_MS = 60_000
MAX_SEQUENCE = (1 << 48) - 1
MAX_EPOCH = (1 << 53) - 1

Names = frozenset[str] | None
"""Exchanges or symbols; None for all, later ones included."""


class Look(NamedTuple):
    """How a subscription wants to be served. Those that are equal share what is made for them."""

    depth: int
    """Levels a side, `FULL` for the whole book."""
    format: Format = "json"
    conflate_ms: int = 0
    """Least time between two events of a book; 0 for every change."""


_look = lru_cache(maxsize=4096)(Look)
"""One object for equal looks: a client's memory shouldn't grow by what all clients share."""


class ResumePoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last record of an exchange's ring that a client has seen."""

    epoch: Annotated[int, Meta(ge=0, le=MAX_EPOCH)]
    sequence: Annotated[int, Meta(ge=0, le=MAX_SEQUENCE)]
    """0 for none of the epoch."""


class Subscribe(msgspec.Struct, frozen=True):
    """Wishes for some channels, each replacing an earlier wish for the same book."""

    channels: tuple[Channel, ...]
    exchanges: Names
    symbols: Names
    look: Look
    resume: Mapping[str, ResumePoint] = {}
    """By exchange, where the client was before."""
    epochs: bool = False
    """Whether epochs that begin later are to be told: to who takes records, or may resume."""


class Unsubscribe(msgspec.Struct, frozen=True):
    """What isn't wished any more."""

    channels: tuple[Channel, ...]
    exchanges: Names
    symbols: Names


class Snapshot(msgspec.Struct, frozen=True):
    """Books of the subscription that are to be sent again."""

    exchanges: Names
    symbols: Names


class Ping(msgspec.Struct, frozen=True):
    """Wants a pong."""


Request = Subscribe | Unsubscribe | Snapshot | Ping

OneOrMore = str | list[str]
Depth = Annotated[int, Meta(ge=1, le=MAX_DEPTH)]
ConflateMs = Annotated[int, Meta(ge=1, le=MAX_CONFLATE_MS)]


class _Message(msgspec.Struct, tag_field="type", forbid_unknown_fields=True):
    """As a client writes it."""


class _Subscribe(_Message, tag="subscribe"):
    channels: Channel | list[Channel]
    exchanges: OneOrMore | None = None
    symbols: OneOrMore | None = None
    depth: Depth | Literal["full"] | None = None
    format: Format = "json"
    conflate_ms: ConflateMs | None = None
    resume: dict[str, ResumePoint] | UnsetType = UNSET


class _Unsubscribe(_Message, tag="unsubscribe"):
    channels: Channel | list[Channel] | None = None
    exchanges: OneOrMore | None = None
    symbols: OneOrMore | None = None


class _Snapshot(_Message, tag="snapshot"):
    channels: Channel | list[Channel] | None = None
    exchanges: OneOrMore | None = None
    symbols: OneOrMore | None = None


class _Ping(_Message, tag="ping"):
    pass


_Any = _Subscribe | _Unsubscribe | _Snapshot | _Ping
_DECODER = msgspec.json.Decoder(_Any)


class _Kind(msgspec.Struct):
    """A message as far as it says what it is."""

    type: str


_FIELDS = {
    str(kind.__struct_config__.tag): ("type", *kind.__struct_fields__) for kind in get_args(_Any)
}
"""What each type of message may have."""
_FIELD = re.compile(r"`\$\.(\w+)")
_UNKNOWN = re.compile(r"unknown field `(\w{1,32})`\Z")
_EXPECTED = {
    "type": "subscribe, unsubscribe, snapshot or ping",
    "channels": f"a list of {', '.join(CHANNELS)}",
    "exchanges": "a list of names, or * for all",
    "symbols": "a list of symbols like BTC-USD, or * for all",
    "depth": f'a whole number from 1 to {MAX_DEPTH}, or "full"',
    "format": '"json" or "binary"',
    "conflate_ms": f"a whole number of milliseconds from 1 to {MAX_CONFLATE_MS}",
    "resume": '{"kraken": {"epoch": .., "sequence": ..}, ...}, of the last event that was seen',
}
_LISTS = ("channels", "exchanges", "symbols")


def parse_request(payload: bytes, default_depth: int) -> Request:
    """The request in a client's message.

    Parameters
    ----------
    payload : the message's bytes
    default_depth : levels a side where the request names none

    Raises
    ------
    RequestError
        the message is no request, or one that isn't served
    """
    try:
        message = _DECODER.decode(payload)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), payload) from None
    except msgspec.DecodeError as error:
        raise RequestError("malformed", f"the request is no JSON: {error}") from None
    except UnicodeDecodeError:
        raise RequestError("malformed", "the request is no UTF-8") from None
    except RecursionError:
        raise RequestError("malformed", "the request is nested too deeply") from None
    return _checked(message, default_depth)


def parse_query(query: str, default_depth: int) -> Subscribe | None:
    """The subscription in the query string of the address; None where there is none.

    Lists are separated by commas, or the parameter is repeated. Raises `RequestError`.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=1000)
    except UnicodeDecodeError:
        raise RequestError("malformed", "the address's query is no UTF-8") from None
    except ValueError as error:
        raise RequestError("malformed", f"the address's query can't be read: {error}") from None
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in _LISTS:
            fields.setdefault(name, []).extend(map(str.strip, value.split(",")))
        elif name in fields:
            raise RequestError("bad_request", f"{name} is given twice")
        elif name == "resume":
            fields[name] = _json(value)
        else:
            fields[name] = int(value) if value.isascii() and value.isdigit() else value
    if not fields:
        return None
    fields.pop("type", None)
    try:
        message = msgspec.convert({**fields, "type": "subscribe"}, _Subscribe)
    except msgspec.ValidationError as error:
        raise _invalid(f"in the address's query: {error}") from None
    return _subscribe(message, default_depth)


def _invalid(problem: str, payload: bytes | None = None) -> RequestError:
    """An error that says what would be right, where the problem names a field.

    Parameters
    ----------
    payload : the message; None where it is the address
    """
    if unknown := _UNKNOWN.search(problem):
        kind = "subscribe" if payload is None else _kind(payload)
        near = difflib.get_close_matches(unknown[1], _FIELDS[kind], 1)
        hint = f"did you mean `{near[0]}`?" if near else f"{kind} takes {', '.join(_FIELDS[kind])}"
        return RequestError("bad_request", f"{problem}; {hint}")
    field = _FIELD.search(problem)
    expected = _EXPECTED.get(field[1]) if field else None
    return RequestError("bad_request", f"{problem}; it takes {expected}" if expected else problem)


def _kind(payload: bytes) -> str:
    """What a message says that it is, as far as it can be read."""
    try:
        kind = msgspec.json.decode(payload, type=_Kind).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "subscribe"
    return kind if kind in _FIELDS else "subscribe"


def _checked(message: _Any, default_depth: int) -> Request:
    if isinstance(message, _Subscribe):
        return _subscribe(message, default_depth)
    if isinstance(message, _Unsubscribe):
        channels = CHANNELS if message.channels is None else _channels(message.channels)
        return Unsubscribe(channels, _exchanges(message.exchanges), _symbols(message.symbols))
    if isinstance(message, _Snapshot):
        if message.channels is not None and _channels(message.channels) != ("orderbook",):
            raise RequestError("bad_request", "channels: only orderbook has snapshots")
        return Snapshot(_exchanges(message.exchanges), _symbols(message.symbols))
    return Ping()


def _subscribe(message: _Subscribe, default_depth: int) -> Subscribe:
    binary = message.format == "binary"
    depth = message.depth
    if depth is None:
        depth = "full" if binary else default_depth
    points = {} if message.resume is UNSET else message.resume
    request = Subscribe(
        _channels(message.channels),
        _exchanges(message.exchanges),
        _symbols(message.symbols),
        _look(FULL if depth == "full" else depth, message.format, message.conflate_ms or 0),
        {name.strip().lower(): point for name, point in points.items()},
        binary or message.resume is not UNSET,
    )
    if binary:
        _check_binary(request)
    _check_resume(request)
    if "orderbook" in request.channels and _names_both(message.exchanges):
        raise RequestError(
            "unsupported",
            f'exchanges: "{EVERYTHING}" is each book and "{ALL}" one of all together; '
            "subscribe to the order book of these one after the other",
        )
    if "arbitrage" in request.channels and ALL not in (request.exchanges or (ALL,)):
        raise RequestError(
            "unsupported",
            "channel arbitrage is between all exchanges: subscribe to it without exchanges",
        )
    return request


def _names_both(exchanges: OneOrMore | None) -> bool:
    return {EVERYTHING, ALL} <= {name.strip().lower() for name in exchanges or ()}


def _check_binary(request: Subscribe) -> None:
    textual = [channel for channel in request.channels if channel in JSON_ONLY]
    if textual:
        raise RequestError(
            "unsupported",
            f"channel {textual[0]} has no records: subscribe to it with format json",
        )
    if "orderbook" in request.channels and ALL in (request.exchanges or ()):
        raise RequestError(
            "unsupported",
            'the book of exchange "all" has no records: subscribe to it with format json',
        )


def _check_resume(request: Subscribe) -> None:
    wanted = request.exchanges
    if wanted is None or (ALL in wanted and not CONSOLIDATED.issuperset(request.channels)):
        wanted = frozenset(request.resume) - {ALL}
    for exchange in request.resume:
        if exchange not in wanted or exchange == ALL:
            raise RequestError(
                "bad_request",
                f"resume names {exchange!r}, which is none of the exchanges subscribed to",
            )


def _json(text: str) -> object:
    try:
        return msgspec.json.decode(text.encode(errors="surrogateescape"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError("bad_request", f"resume is no JSON: {error}") from None


def _channels(given: Channel | list[Channel]) -> tuple[Channel, ...]:
    wanted = {given} if isinstance(given, str) else set(given)
    if not wanted:
        raise RequestError("bad_request", f"channels is empty; there are {', '.join(CHANNELS)}")
    return tuple(channel for channel in CHANNELS if channel in wanted)


def _names(field: str, given: OneOrMore | None) -> list[str] | None:
    if given is None:
        return None
    names = [given] if isinstance(given, str) else given
    if not names:
        raise RequestError("bad_request", f"{field} is empty; leave it out for all")
    return None if EVERYTHING in names else names


def _exchanges(given: OneOrMore | None) -> Names:
    names = _names("exchanges", given)
    return None if names is None else frozenset(name.strip().lower() for name in names)


def _symbols(given: OneOrMore | None) -> Names:
    names = _names("symbols", given)
    if names is None:
        return None
    try:
        return frozenset(normalize_symbol(name) for name in names)
    except ValueError as error:
        raise RequestError("unknown_symbol", str(error)) from None
