"""A consumer's book, kept from records alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.delta import BookView, ChangeSet, Encoder, LevelStage, TopView
from alphapulse.errors import BookError, RecordError
from alphapulse.model import Level, Reason, RecordFlag
from tests.records import book_of
from tests.reference import codec


def snapshot(version: int, *, flags: int = 0, instrument: int = 3) -> bytes:
    book = book_of(((10, 1), (9, 2)), ((11, 3),))
    return bytes(
        Encoder().snapshot(
            book, instrument, version, Reason.RESYNCED, 100, 9, None, exchange_ns=4, flags=flags
        )
    )


def delta(version: int, *changes: tuple[int, int, int, int], instrument: int = 3) -> bytes:
    return codec.record(codec.DELTA, instrument, codec.delta_body(version, version - 1, changes))


def test_snapshot_then_deltas() -> None:
    assert not BookView().ready
    view = BookView()
    assert view.apply(snapshot(7))
    assert view.ready
    assert (view.version, view.instrument_id, view.reason, view.depth) == (7, 3, 2, 100)
    assert (view.trusted_bid, view.trusted_ask, view.exchange_ns) == (9, None, 4)
    assert view.apply(delta(8, (1, 10, 5, 2), (2, 12, 4, 1)))
    assert view.version == 8
    assert view.best() == (Level(10, 5), Level(11, 3))
    assert view.bids() == (Level(10, 5), Level(9, 2))
    assert view.asks(1) == (Level(11, 3),)


def test_repeat_is_skipped_by_those_in_step_only() -> None:
    repeat = snapshot(7, flags=RecordFlag.REPEAT)
    view = BookView()
    assert view.apply(repeat)
    assert not view.apply(repeat)
    view.apply(delta(8, (1, 10, 0, 3)))
    assert not view.apply(snapshot(8, flags=RecordFlag.REPEAT))
    assert view.best()[0] == Level(9, 2)
    assert view.apply(snapshot(9, flags=RecordFlag.REPEAT))
    assert view.best()[0] == Level(10, 1)
    assert view.apply(snapshot(9))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (delta(9, (1, 10, 5, 2)), "from version 8 for a book at 7"),
        (delta(7, (1, 10, 5, 2)), "from version 6 for a book at 7"),
        (delta(8, (1, 10, 5, 2), instrument=4), "instrument 4 for a book of 3"),
        (delta(8, (1, 10, 5, 1)), "contradicts"),
    ],
)
def test_delta_that_does_not_continue_the_book(record: bytes, message: str) -> None:
    view = BookView()
    view.apply(snapshot(7))
    with pytest.raises(BookError, match=message):
        view.apply(record)
    assert not view.ready
    assert view.best() == (None, None)
    with pytest.raises(BookError, match="without a snapshot"):
        view.apply(delta(8, (1, 10, 5, 2)))
    assert view.apply(snapshot(12, flags=RecordFlag.REPEAT, instrument=4))
    assert (view.version, view.instrument_id) == (12, 4)


def test_malformed_record_leaves_the_book() -> None:
    view = BookView()
    view.apply(snapshot(7))
    for record in (
        b"",
        snapshot(8)[:-1],
        bytes(Encoder().heartbeat()),
        delta(8, (1, 10, 5, 2))[:44],
    ):
        with pytest.raises(RecordError):
            view.apply(record)
    assert view.ready
    assert view.version == 7
    unknown_reason = codec.record(
        codec.SNAPSHOT, 3, codec.snapshot_body(8, 99, 0, None, None, (), ())
    )
    with pytest.raises(RecordError, match="99 is not a valid Reason"):
        view.apply(unknown_reason)
    assert not view.ready


@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from([1, 2]), st.integers(1, 30), st.integers(0, 3)), max_size=8
        ),
        max_size=8,
    ),
    st.integers(1, 5),
)
def test_top_views_changes_rebuild_the_top(
    messages: list[list[tuple[int, int, int]]], depth: int
) -> None:
    """What a subscriber with a depth is told gives him the best levels, no more and no less."""
    source, stage, encoder, view, top = (
        book_of((), ()),
        LevelStage(),
        Encoder(),
        BookView(),
        TopView(depth),
    )
    view.apply(encoder.snapshot(source, 1, 1, 1))
    top.load(view.book)
    client = BookView()
    client.apply(encoder.snapshot(view.book, 1, 1, 1, limit=depth))
    version = 1
    for message in messages:
        stage.clear()
        for level in message:
            stage.append(*level)
        if not source.apply(stage):
            continue
        version += 1
        view.apply(encoder.delta(source.changes, 1, version, version - 1))
        if top.advance(view.book):
            client.apply(encoder.delta(top.changes, 1, version, client.version))
        assert client.bids() == view.bids(depth)
        assert client.asks() == view.asks(depth)


def test_change_sets_of_views_are_encoded_like_those_of_books() -> None:
    changes = ChangeSet()
    changes.assign([(1, 10, 5, 2)])
    assert bytes(Encoder().delta(changes, 3, 8, 7)) == delta(8, (1, 10, 5, 2))
