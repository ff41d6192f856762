"""Types of settings, and how text or a TOML value becomes one.

Each type says in ``Meta.description`` what would be right; error messages quote it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

from alphapulse.fixed import decimal_places
from alphapulse.symbols import normalize_symbol

BASIS_POINT_PLACES = 6
"""Most decimal places of a number of basis points."""
MAX_BASIS_POINTS = 9999

Port = Annotated[int, Meta(ge=0, le=65535, description="a port, 0 (any free one) to 65535")]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1, description="a whole number, at least 1")]
OptionalCount = Annotated[
    int, Meta(ge=0, le=2**31 - 1, description="a whole number; 0 for no limit")
]
Bytes = Annotated[
    int,
    Meta(
        ge=1,
        le=2**47,
        extra={"kind": "bytes"},
        description='a size in bytes, as a number or like "64MiB"',
    ),
]
Seconds = Annotated[float, Meta(gt=0, description="a number of seconds above 0")]
OptionalSeconds = Annotated[float, Meta(ge=0, description="a number of seconds; 0 for never")]
OptionalDays = Annotated[float, Meta(ge=0, description="a number of days; 0 for ever")]
BasisPoints = Annotated[
    Decimal,
    Meta(
        extra={"kind": "basis points"},
        description="a number of basis points from 0 to 9999, with at most 6 decimal places",
    ),
]
Milliseconds = Annotated[float, Meta(gt=0, description="a number of milliseconds above 0")]
Share = Annotated[float, Meta(gt=0, le=1, description="a share above 0 and up to 1")]
Prefix = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z",
        description="1 to 64 letters, digits, '-' or '_', the first a letter or digit",
    ),
]
Host = Annotated[str, Meta(pattern=r"\A[^\s/]+\Z", description="a host name or address")]
Path = Annotated[str, Meta(min_length=1, description="a path")]
OptionalPath = Annotated[str, Meta(description="a path, or nothing")]
Rate = Annotated[float, Meta(gt=0, description="a number a second above 0")]
Workers = Annotated[int, Meta(ge=1, le=256, description="a whole number, 1 to 256")]
WebSocketUrl = Annotated[
    str,
    Meta(pattern=r"\Awss?://[^\s/?#]+[^\s?#]*\Z", description="an address like wss://host/path"),
]
OptionalWebSocketUrl = Annotated[
    str,
    Meta(
        pattern=r"\A(|wss?://[^\s/?#]+[^\s?#]*)\Z",
        description="an address like wss://host/path, or nothing for the feed's own",
    ),
]
HttpUrl = Annotated[
    str,
    Meta(
        pattern=r"\Ahttps?://[^\s/?#]+[^\s?#]*\Z", description="an address like https://host/path"
    ),
]
RedisUrl = Annotated[
    str,
    Meta(
        pattern=r"\A(|(rediss?|unix)://\S+)\Z",
        extra={"kind": "url"},
        description="an address like redis://host:6379/0, or nothing",
    ),
]
Secret = Annotated[
    str, Meta(pattern=r"\A\S*\Z", extra={"kind": "secret"}, description="a text without spaces")
]
Token = Annotated[
    str,
    Meta(
        # What may stand in Sec-WebSocket-Protocol, where browsers have to put it (RFC 9110, token).
        pattern=r"\A[A-Za-z0-9!#$%&'*+.^_`|~-]*\Z",
        extra={"kind": "secret"},
        description="letters, digits and any of !#$%&'*+.^_`|~-",
    ),
]
Symbols = Annotated[
    tuple[str, ...],
    Meta(
        min_length=1,
        extra={"kind": "symbols"},
        description='symbols like ["BTC-USD", "ETH-USD"], at least one',
    ),
]
Channels = Annotated[
    tuple[Literal["orderbook", "trades"], ...],
    Meta(min_length=1, description="a list of 'orderbook', 'trades' or both"),
]
Origins = Annotated[
    tuple[str, ...],
    Meta(extra={"kind": "origins"}, description='origins like ["https://example.org"]'),
]
Names = Annotated[tuple[str, ...], Meta(description='names like ["example.org"]')]

MASK = "********"
"""Stands for a secret wherever settings are shown."""

_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", start=1):
    _UNITS[f"{_letter}B"] = 1000**_power
    _UNITS[f"{_letter}IB"] = 1024**_power

_SIZE = re.compile(r"(\d{1,15})\s*([A-Za-z]{0,3})", re.ASCII)
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#]+")
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True}
_BOOLEANS |= {"false": False, "no": False, "off": False, "0": False}
_PASSWORD = re.compile(r"(?<=://)[^@/\s]*(?=@)")


def parse_size(text: str) -> int:
    """Bytes of a size like ``"64MiB"`` (2**20), ``"64MB"`` (10**6) or ``"67108864"``.

    Raises
    ------
    ValueError
        the text is no such size
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise ValueError(f"{text!r} is no size")
    return int(match[1]) * _UNITS[match[2].upper()]


def kind_of(type_: Any) -> str:
    """How a type's values are treated: as bytes, secret, url, symbols, ...; empty for plainly."""
    for meta in _metas(type_):
        if meta.extra is not None and "kind" in meta.extra:
            return str(meta.extra["kind"])
    return ""


def expectation(type_: Any) -> str:
    """What would be right, for an error message."""
    for meta in _metas(type_):
        if meta.description is not None:
            return meta.description
    if get_origin(type_) is Literal:
        return f"one of {', '.join(repr(choice) for choice in get_args(type_))}"
    if get_origin(type_) is tuple:
        return f"a list, each {expectation(get_args(type_)[0])}"
    return {bool: "true or false", int: "a whole number", float: "a number"}.get(type_, "a text")


def masked(value: Any, type_: Any) -> Any:
    """The value as it may be shown: secrets hidden, passwords in addresses too."""
    kind = kind_of(type_)
    if kind == "secret" and value:
        return MASK
    if kind == "url" and isinstance(value, str):
        return _PASSWORD.sub(MASK, value)
    return value


def from_text(text: str, type_: Any) -> Any:
    """A value for `from_value` of an environment variable's text.

    Lists are separated by commas, or JSON. Raises ``ValueError`` where the text can't be one.
    """
    plain = _plain(type_)
    if plain is bool:
        return _BOOLEANS[text.strip().lower()]
    if plain is int and kind_of(type_) != "bytes":
        return int(text)
    if plain is float:
        return float(text)
    if get_origin(plain) is tuple:
        if text.lstrip().startswith("["):
            return msgspec.json.decode(text)
        return [item.strip() for item in text.split(",") if item.strip()]
    if get_origin(plain) is Literal and not isinstance(get_args(plain)[0], str):
        return int(text)
    return text


def from_value(value: Any, type_: Any) -> Any:
    """The checked value of a setting of that type. Raises ``ValueError`` where it is none."""
    kind = kind_of(type_)
    if kind == "bytes" and isinstance(value, str):
        value = parse_size(value)
    if get_origin(_plain(type_)) is Literal and isinstance(value, str):
        value = value.lower()
    converted = msgspec.convert(value, type_)
    if isinstance(converted, float) and not math.isfinite(converted):
        raise ValueError("not finite")
    if kind == "basis points":
        return _basis_points(converted)
    if kind == "symbols":
        return _unique([normalize_symbol(symbol) for symbol in converted])
    if kind == "origins" and not all(_ORIGIN.fullmatch(origin) for origin in converted):
        raise ValueError("no origin")
    return converted


def _basis_points(value: Decimal) -> Decimal:
    if not value.is_finite() or not 0 <= value <= MAX_BASIS_POINTS:
        raise ValueError("out of range")
    places = decimal_places(str(value))
    if places > BASIS_POINT_PLACES:
        raise ValueError(f"{places} decimal places")
    return Decimal(f"{value:f}")


def _unique(items: Sequence[str]) -> tuple[str, ...]:
    twice = sorted({item for item in items if items.count(item) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} more than once")
    return tuple(items)


def _metas(type_: Any) -> tuple[Meta, ...]:
    return tuple(meta for meta in getattr(type_, "__metadata__", ()) if isinstance(meta, Meta))


def _plain(type_: Any) -> Any:
    return get_args(type_)[0] if get_origin(type_) is Annotated else type_
