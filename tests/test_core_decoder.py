"""The native decoder against its plain-Python twin, and against hostile bytes."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse._core import decoder
from alphapulse._core.book import Book
from alphapulse._core.encoder import Encoder
from alphapulse._core.levels import LevelStage
from alphapulse.errors import BookError, RecordError
from tests.records import (
    Fields,
    book_of,
    header_of,
    level_lists,
    records,
    sizes,
    written_in_python,
)
from tests.reference import codec
from tests.reference.book import ReferenceBook

INT64_MAX = 2**63 - 1


def outcome(read: object, data: bytes) -> object:
    assert callable(read)
    try:
        return read(data)
    except RecordError:
        return RecordError


@given(records())
def test_native_decoder_does_as_its_twin(fields: Fields) -> None:
    data = written_in_python(fields)
    header = header_of(fields, len(data))
    assert codec.decode(data) == (header, fields[2])
    assert decoder.decode(data) == (header, fields[2])
    assert decoder.decode(memoryview(bytearray(data))) == (header, fields[2])
    assert decoder.read_header(data + b"more") == header


@given(records(), st.data())
def test_damaged_records_are_read_alike_or_refused(fields: Fields, data: st.DataObject) -> None:
    written = bytearray(written_in_python(fields))
    for _ in range(data.draw(st.integers(1, 3))):
        written[data.draw(st.integers(4, len(written) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(written)
    assert outcome(decoder.decode, damaged) == outcome(codec.decode, damaged)


@given(st.integers(0, 9), st.binary(max_size=80))
def test_random_bodies_are_read_alike_or_refused(kind: int, body: bytes) -> None:
    data = codec.record(kind, 1, body)
    assert outcome(decoder.decode, data) == outcome(codec.decode, data)
    book, stage = Book(), LevelStage()
    assert isinstance(
        outcome(lambda data: decoder.load_snapshot(data, book, stage), data), tuple
    ) == (kind == codec.SNAPSHOT and outcome(codec.decode, data) is not RecordError)


@given(st.binary(max_size=120))
def test_random_bytes_are_refused(data: bytes) -> None:
    assert outcome(decoder.decode, data) == outcome(codec.decode, data)


@given(records())
def test_cut_and_prolonged_records_are_refused_at_every_byte(fields: Fields) -> None:
    data = written_in_python(fields)
    for end in range(len(data)):
        cut = data[:end]
        with pytest.raises(RecordError):
            decoder.decode(bytes(bytearray(cut)))
        if end >= 40:
            # The same with a length that agrees.
            agreeing = end.to_bytes(4, "little") + cut[4:]
            assert outcome(decoder.decode, agreeing) == outcome(codec.decode, agreeing)
    with pytest.raises(RecordError):
        decoder.decode(data + b"\0")
    longer = (len(data) + 1).to_bytes(4, "little") + data[4:] + b"\0"
    with pytest.raises(RecordError):
        decoder.decode(longer)


@pytest.mark.parametrize(
    "body",
    [
        # version, back, bids, asks, then changes
        "0801" + "ffffffffffffffffff01" + "00",
        "0801" + "00" + "ffffffffffffffffff01",
        "0801" + "ffffffffffffffffff01" * 2,
        "0801" + "ffffff7f00" + "0203" * 10,
    ],
)
def test_hostile_counts_reserve_no_memory(body: str) -> None:
    delta = codec.record(codec.DELTA, 1, bytes.fromhex(body))
    snapshot = codec.record(codec.SNAPSHOT, 1, bytes.fromhex("0801" + "0000" + body[4:]))
    stage, book = LevelStage(), Book()
    tracemalloc.start()
    try:
        for read in (
            lambda: decoder.decode(delta),
            lambda: decoder.decode(snapshot),
            lambda: decoder.load_snapshot(snapshot, book, stage),
            lambda: decoder.apply_delta(delta, book, stage, 7),
        ):
            with pytest.raises(RecordError, match="bids and"):
                read()
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("number", "valid"),
    [
        ("00", True),
        ("8000", False),
        ("ff00", False),
        ("ffffffffffffffffff01", True),
        ("ffffffffffffffffff02", False),
        ("ffffffffffffffffffff01", False),
        ("80808080808080808000", False),
    ],
)
def test_only_the_shortest_varint_is_one(number: str, valid: bool) -> None:
    body = bytes.fromhex("01" + "00" + number + "00" + "0000")
    data = codec.record(codec.SNAPSHOT, 1, body)
    assert (outcome(decoder.decode, data) is not RecordError) == valid
    assert (outcome(codec.decode, data) is not RecordError) == valid


@given(
    level_lists(True),
    level_lists(False),
    st.lists(st.tuples(st.sampled_from([1, 2]), st.integers(1, 60), st.just(0) | sizes)),
)
def test_records_rebuild_the_book(
    bids: codec.Levels, asks: codec.Levels, message: list[tuple[int, int, int]]
) -> None:
    source, stage, encoder = book_of(bids, asks), LevelStage(), Encoder()
    twin = ReferenceBook()
    twin.load([(1, *level) for level in bids] + [(2, *level) for level in asks])
    copy = Book()
    found = decoder.load_snapshot(encoder.snapshot(source, 1, 5, 2, 3, 4, None), copy, stage)
    assert found == (5, 2, 3, 4, None)
    assert copy.digest() == twin.digest()
    stage.clear()
    for level in message:
        stage.append(*level)
    source.apply(stage)
    twin.apply(message)
    delta = bytes(encoder.delta(source.changes, 1, 6, 5))
    assert decoder.peek_version(delta) == 6
    with pytest.raises(BookError, match="from version 5 for a book at 4"):
        decoder.apply_delta(delta, copy, stage, 4)
    assert decoder.apply_delta(delta, copy, stage, 5) == 6
    assert copy.digest() == source.digest() == twin.digest()
    assert list(copy.changes) == twin.changes


@pytest.mark.parametrize(
    "changes",
    [
        ((1, 10, 5, 1),),  # is there already
        ((1, 10, 5, 2),),  # has that size already
        ((1, 9, 5, 2),),  # isn't there
        ((1, 9, 0, 3),),  # isn't there
        ((1, 11, 5, 1), (1, 9, 0, 3)),
    ],
)
def test_delta_that_contradicts_the_book_is_an_error(changes: codec.Changes) -> None:
    book = book_of(((10, 5),), ())
    data = codec.record(codec.DELTA, 1, codec.delta_body(2, 1, changes))
    with pytest.raises(BookError, match="contradicts"):
        decoder.apply_delta(data, book, LevelStage(), 1)


def test_refused_records_leave_the_book() -> None:
    book, stage = book_of(((10, 5),), ((11, 6),)), LevelStage()
    before = book.digest()
    good = codec.record(codec.DELTA, 1, codec.delta_body(2, 1, ((1, 10, 7, 2), (2, 12, 3, 1))))
    for end in range(40, len(good)):
        cut = end.to_bytes(4, "little") + good[4:end]
        with pytest.raises(RecordError):
            decoder.apply_delta(cut, book, stage, 1)
    body = codec.snapshot_body(1, 1, 0, None, None, ((10, 7),), ((12, 3), (INT64_MAX, 1)))
    snapshot = codec.record(codec.SNAPSHOT, 1, body)
    for end in range(40, len(snapshot)):
        cut = end.to_bytes(4, "little") + snapshot[4:end]
        with pytest.raises(RecordError):
            decoder.load_snapshot(cut, book, stage)
    for data in (good, codec.record(codec.HEARTBEAT, 0, b"")):
        with pytest.raises(RecordError):
            decoder.load_snapshot(data, book, stage)
    for data in (snapshot, codec.record(codec.HEARTBEAT, 0, b"")):
        with pytest.raises(RecordError):
            decoder.apply_delta(data, book, stage, 1)
    with pytest.raises(RecordError, match="has no version"):
        decoder.peek_version(codec.record(codec.HEARTBEAT, 0, b""))
    with pytest.raises(RecordError, match="version is cut off"):
        decoder.peek_version(codec.record(codec.DELTA, 1, b"\x80"))
    assert book.digest() == before


def test_prices_beyond_int64_are_refused() -> None:
    for levels in (
        "0101" + "01" * 2,
        "0200" + "0401" + "0201",
        "0002" + "feffffffffffffffff01" + "01" + "0101",
    ):
        data = codec.record(codec.SNAPSHOT, 1, bytes.fromhex("01000000" + levels))
        assert outcome(decoder.decode, data) is RecordError
        assert outcome(codec.decode, data) is RecordError


@pytest.mark.parametrize("kind", [0, 8, 255])
def test_unknown_types_are_no_error(kind: int) -> None:
    data = codec.record(kind, 1, b"whatever")
    assert decoder.decode(data)[1] is None


def test_header_needs_all_of_the_record() -> None:
    data = codec.record(codec.HEARTBEAT, 0, b"")
    for length in (0, 39, 41, 2**32 - 1):
        with pytest.raises(RecordError):
            decoder.read_header(length.to_bytes(4, "little") + data[4:])
