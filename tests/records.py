"""Hypothesis strategies for records, as their fields, shared by the tests of the codec."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import strategies as st

from alphapulse._core.book import Book
from alphapulse._core.changes import ChangeSet
from alphapulse._core.encoder import Encoder
from alphapulse._core.levels import LevelStage
from tests.reference import codec

Fields = tuple[int, dict[str, int], tuple[Any, ...]]
"""Type, header fields, body."""

INT64_MAX = 2**63 - 1
int64s = st.integers(-(2**63), INT64_MAX)
uint64s = st.integers(0, 2**64 - 1)
bytes_ = st.integers(0, 255)
prices = st.integers(1, 60) | st.integers(1, INT64_MAX)
sizes = st.integers(1, 300) | st.integers(1, INT64_MAX)
versions = st.integers(1, 1000) | st.integers(1, 2**64 - 1)
clean_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)

headers = st.fixed_dictionaries(
    {
        "instrument": st.integers(0, 65535),
        "flags": bytes_,
        "sequence": st.integers(0, 2**48 - 1),
        "ring_id": st.integers(0, 65535),
        "exchange_ns": int64s,
        "received_ns": int64s,
        "published_ns": int64s,
    }
)


@st.composite
def level_lists(draw: st.DrawFn, best_high: bool) -> codec.Levels:
    chosen = draw(st.dictionaries(prices, sizes, max_size=12))
    return tuple(sorted(chosen.items(), reverse=best_high))


@st.composite
def change_lists(draw: st.DrawFn) -> codec.Changes:
    amounts = st.sampled_from([1, 2, 3]).flatmap(
        lambda action: st.tuples(st.just(0) if action == 3 else sizes, st.just(action))
    )
    changes: list[tuple[int, int, int, int]] = []
    for side in (codec.BID, codec.ASK):
        chosen = draw(st.dictionaries(prices, amounts, max_size=8))
        ordered = sorted(chosen, reverse=side == codec.BID)
        changes.extend((side, price, *chosen[price]) for price in ordered)
    return tuple(changes)


@st.composite
def delta_bodies(draw: st.DrawFn) -> tuple[int, int, codec.Changes]:
    version = draw(versions)
    return version, draw(st.integers(0, version - 1)), draw(change_lists())


@st.composite
def trade_bodies(draw: st.DrawFn) -> tuple[int, int, int, str, int, int]:
    id_kind = draw(st.integers(0, 2))
    trade_id = draw(clean_texts) if id_kind == 2 else str(draw(uint64s))
    matches = draw(st.integers(0, 2**32 - 1))
    return draw(int64s), draw(int64s), draw(st.integers(1, 2)), trade_id, id_kind, matches


maybe_int64s = st.none() | int64s
bodies = {
    codec.INSTRUMENT: st.tuples(
        st.integers(0, 18),
        st.integers(0, 18),
        int64s,
        int64s,
        *[clean_texts] * 5,
    ),
    codec.SNAPSHOT: st.tuples(
        uint64s,
        bytes_,
        uint64s,
        maybe_int64s,
        maybe_int64s,
        level_lists(True),
        level_lists(False),
    ),
    codec.DELTA: delta_bodies(),
    codec.TRADE: trade_bodies(),
    codec.STATE: st.tuples(bytes_, bytes_),
    codec.GAP: st.tuples(bytes_, bytes_, maybe_int64s, maybe_int64s, maybe_int64s, int64s),
    codec.HEARTBEAT: st.just(()),
}
BODY_WRITERS: dict[int, Callable[..., bytes]] = {
    codec.INSTRUMENT: codec.instrument_body,
    codec.SNAPSHOT: codec.snapshot_body,
    codec.DELTA: codec.delta_body,
    codec.TRADE: codec.trade_body,
    codec.STATE: codec.state_body,
    codec.GAP: codec.gap_body,
    codec.HEARTBEAT: lambda: b"",
}


@st.composite
def records(draw: st.DrawFn, kinds: tuple[int, ...] = tuple(bodies)) -> Fields:
    kind = draw(st.sampled_from(kinds))
    header = draw(headers)
    if kind == codec.HEARTBEAT:
        header["instrument"] = 0
    return kind, header, draw(bodies[kind])


def written_in_python(fields: Fields) -> bytes:
    kind, header, body = fields
    return codec.record(kind, body=BODY_WRITERS[kind](*body), **header)


def staged(levels: Iterable[tuple[int, int, int]]) -> LevelStage:
    """A stage with (side, price, size) levels."""
    stage = LevelStage()
    for level in levels:
        stage.append(*level)
    return stage


def book_of(bids: codec.Levels, asks: codec.Levels) -> Book:
    sides = (codec.BID, bids), (codec.ASK, asks)
    book = Book()
    book.load(staged((side, *level) for side, levels in sides for level in levels))
    return book


def written_natively(encoder: Encoder, fields: Fields) -> bytes:
    kind, header, body = fields
    instrument = header["instrument"]
    options: dict[str, Any] = {
        name: header[name] for name in ("exchange_ns", "received_ns", "flags")
    }
    if kind == codec.INSTRUMENT:
        encoder.instrument(instrument, *body, **options)
    elif kind == codec.SNAPSHOT:
        *rest, bids, asks = body
        encoder.snapshot(book_of(bids, asks), instrument, *rest, **options)
    elif kind == codec.DELTA:
        version, prev_version, changes = body
        change_set = ChangeSet()
        change_set.assign(changes)
        encoder.delta(change_set, instrument, version, prev_version, **options)
    elif kind == codec.TRADE:
        encoder.trade(instrument, *body, **options)
    elif kind == codec.STATE:
        encoder.state(instrument, *body, **options)
    elif kind == codec.GAP:
        encoder.gap(instrument, *body, **options)
    else:
        encoder.heartbeat(**options)
    encoder.stamp(header["sequence"], header["ring_id"], header["published_ns"])
    return bytes(encoder)


def header_of(fields: Fields, length: int) -> codec.HeaderFields:
    kind, header, _ = fields
    return (
        length,
        kind,
        header["flags"],
        header["instrument"],
        header["sequence"],
        header["ring_id"],
        header["exchange_ns"],
        header["received_ns"],
        header["published_ns"],
    )
