"""Venue traffic to measure with: the recordings that the tests use, else a generated market's."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import parse_qs, urlsplit

import msgspec

from alphapulse.capture import Frame, read_capture
from alphapulse.collectors.registry import make_venue
from alphapulse.collectors.venue import Venue
from alphapulse.config import BinanceUsSettings, CoinbaseSettings, KrakenSettings, VenuesSettings
from benchmarks import recording
from benchmarks.harness import ROOT

Kind = Literal["metadata", "snapshot", "update"]

GENERATED_EVENTS = 5000
"""Changes of a generated market, where there are no captures."""


class Step(NamedTuple):
    """Something that a venue sent."""

    kind: Kind
    """``"update"`` is whatever is neither metadata nor goes into the making of a whole book."""
    raw: bytes
    t_ns: int
    symbol: str | None = None
    """Venue symbol of a book that was asked for over REST; None for WebSocket frames."""


class Traffic(NamedTuple):
    """What one venue sent in one dialect, without channels that a collector doesn't follow."""

    name: str
    venue_name: str
    settings: VenuesSettings
    origin: str
    steps: list[Step]

    def venue(self) -> Venue:
        """The venue's protocol, set up for this dialect."""
        return make_venue(self.venue_name, self.settings)

    def of(self, kind: Kind) -> list[Step]:
        """The steps of one kind."""
        return [step for step in self.steps if step.kind == kind]


class _Dialect(NamedTuple):
    venue_name: str
    settings: VenuesSettings
    kind: Callable[[Frame], Kind | None]
    """None for what a collector doesn't follow."""


class _Head(msgspec.Struct):
    channel: str = ""
    type: str = ""
    stream: str = ""


_HEAD = msgspec.json.Decoder(_Head)


def _kraken(frame: Frame) -> Kind | None:
    head = _HEAD.decode(frame.raw)
    if head.channel == "instrument":
        return "metadata"
    if head.channel not in ("book", "trade", "heartbeat"):
        return None
    return "snapshot" if head.channel == "book" and head.type == "snapshot" else "update"


def _coinbase(frame: Frame) -> Kind | None:
    if frame.src == "rest":
        return "metadata" if frame.url == "/products" else None
    kind = _HEAD.decode(frame.raw).type
    if kind == "snapshot":
        return "snapshot"
    return "update" if kind in ("l2update", "match", "last_match", "heartbeat") else None


def _binance_us(frame: Frame) -> Kind | None:
    if frame.src == "rest":
        url = frame.url or ""
        if "/depth?" in url:
            return "snapshot"
        return "metadata" if "/exchangeInfo" in url else None
    channel = _HEAD.decode(frame.raw).stream.partition("@")[2]
    return "update" if channel.startswith(("depth", "trade", "aggTrade")) else None


DIALECTS = {
    "kraken": _Dialect("kraken", VenuesSettings(), _kraken),
    "kraken-btcusd-depth10": _Dialect(
        "kraken", VenuesSettings(kraken=KrakenSettings(depth=10)), _kraken
    ),
    "coinbase": _Dialect("coinbase", VenuesSettings(), _coinbase),
    "binance_us": _Dialect(
        "binance_us", VenuesSettings(binance_us=BinanceUsSettings(trades="agg")), _binance_us
    ),
}
"""By the name of the capture."""


@functools.cache
def load(name: str) -> Traffic:
    """Traffic of that name in `DIALECTS`: the capture, or a generated market's."""
    dialect = DIALECTS[name]
    folder = Path(os.environ.get("ALPHAPULSE_CAPTURES", ROOT.parent / "shared" / "captures"))
    path = folder / f"{name}.jsonl"
    frames: Iterable[Frame]
    if path.is_file():
        frames, origin = read_capture(path), "capture"
    else:
        venue = make_venue(dialect.venue_name, dialect.settings)
        frames, origin = recording.record(venue, events=GENERATED_EVENTS), "generated"
    steps = [_step(frame, dialect) for frame in frames]
    return Traffic(
        name,
        dialect.venue_name,
        dialect.settings,
        origin,
        _settled([step for step in steps if step is not None]),
    )


def generated(name: str, events: int, symbols: int = 3, levels: int = 200) -> Traffic:
    """Traffic of a generated market, in the dialect of that name.

    Parameters
    ----------
    name : in `DIALECTS`
    events : changes and trades
    symbols : how many
    levels : a side of each book, about
    """
    dialect = DIALECTS[name]
    venue = make_venue(dialect.venue_name, dialect.settings)
    frames = recording.record(venue, events=events, symbols=symbols, levels=levels)
    steps = [step for frame in frames if (step := _step(frame, dialect))]
    return Traffic(name, dialect.venue_name, dialect.settings, "generated", _settled(steps))


def _step(frame: Frame, dialect: _Dialect) -> Step | None:
    kind = dialect.kind(frame)
    if kind is None:
        return None
    symbol = None
    if frame.src == "rest" and kind == "snapshot":
        symbol = parse_qs(urlsplit(frame.url or "").query)["symbol"][0]
    return Step(kind, frame.raw, frame.t_ns, symbol)


def _settled(steps: list[Step]) -> list[Step]:
    """Changes that have to wait for their book's snapshot are part of what the snapshot costs."""
    waiting = {step.symbol for step in steps if step.symbol is not None}
    settled = []
    for step in steps:
        waiting.discard(step.symbol)
        if step.kind == "update" and waiting:
            name, _, channel = _HEAD.decode(step.raw).stream.partition("@")
            if channel.startswith("depth") and name.upper() in waiting:
                step = step._replace(kind="snapshot")
        settled.append(step)
    return settled


class _Match(msgspec.Struct, tag_field="type", tag="match"):
    trade_id: int
    side: Literal["buy", "sell"]
    size: str
    price: str
    product_id: str
    time: str


class _Update(msgspec.Struct, tag_field="type", tag="l2update"):
    product_id: str
    changes: list[tuple[str, str, str]]
    time: str


class _Snapshot(msgspec.Struct, tag_field="type", tag="snapshot"):
    product_id: str
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]


_EXCHANGE = msgspec.json.Decoder(_Match | _Update | _Snapshot)
_SIDES = {"buy": "bid", "sell": "ask"}


@functools.cache
def coinbase_advanced() -> Traffic:
    """The Coinbase traffic put into the framing of Advanced Trade, digits untouched."""
    exchange = load("coinbase")
    steps = []
    sequence = 0
    for step in exchange.steps:
        if step.kind == "metadata":
            steps.append(step)
            continue
        try:
            frame = _EXCHANGE.decode(step.raw)
        except msgspec.ValidationError:
            continue  # last_match and heartbeat have no counterpart
        raw = msgspec.json.encode(_advanced(frame, sequence))
        sequence += 1
        steps.append(step._replace(raw=raw))
    settings = VenuesSettings(coinbase=CoinbaseSettings(feed="advanced"))
    return Traffic("coinbase_advanced", "coinbase", settings, exchange.origin, steps)


def _advanced(frame: _Match | _Update | _Snapshot, sequence: int) -> dict[str, object]:
    event: dict[str, object]
    if isinstance(frame, _Match):
        event = {
            "type": "update",
            "trades": [
                {
                    "trade_id": str(frame.trade_id),
                    "product_id": frame.product_id,
                    "price": frame.price,
                    "size": frame.size,
                    "side": frame.side.upper(),
                    "time": frame.time,
                }
            ],
        }
        return _framed("market_trades", event, frame.time, sequence)
    if isinstance(frame, _Update):
        levels = [(_SIDES[side], price, size) for side, price, size in frame.changes]
        time = frame.time
    else:
        levels = [("bid", price, size) for price, size in frame.bids]
        levels += [("ask", price, size) for price, size in frame.asks]
        time = "2021-04-17T16:43:30.000000Z"
    event = {
        "type": "update" if isinstance(frame, _Update) else "snapshot",
        "product_id": frame.product_id,
        "updates": [
            {"side": side, "event_time": time, "price_level": price, "new_quantity": size}
            for side, price, size in levels
        ],
    }
    return _framed("l2_data", event, time, sequence)


def _framed(channel: str, event: dict[str, object], time: str, sequence: int) -> dict[str, object]:
    return {
        "channel": channel,
        "client_id": "",
        "timestamp": time,
        "sequence_num": sequence,
        "events": [event],
    }
