"""The native encoder against its plain-Python twin."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse._core.changes import ChangeSet
from alphapulse._core.encoder import Encoder
from tests.records import Fields, book_of, level_lists, records, written_in_python, written_natively
from tests.reference import codec


@given(st.lists(records(), min_size=1, max_size=3))
def test_native_encoder_does_as_its_twin(several: list[Fields]) -> None:
    encoder = Encoder()
    for fields in several:
        assert written_natively(encoder, fields) == written_in_python(fields)
        assert len(encoder) == len(bytes(encoder))


@given(level_lists(True), level_lists(False), st.integers(0, 14))
def test_limited_snapshot_has_the_best_levels(
    bids: codec.Levels, asks: codec.Levels, limit: int
) -> None:
    written = bytes(Encoder().snapshot(book_of(bids, asks), 1, 2, 3, limit=limit))
    _, body = codec.decode(written)
    assert body is not None
    assert body[5:] == (bids[: limit or None], asks[: limit or None])


def test_layouts_of_the_page() -> None:
    """Offsets as docs/wire-format.md states them."""
    encoder = Encoder()
    trade = bytes(
        encoder.trade(3, 5, 6, 2, 7, 1, 8, exchange_ns=9, received_ns=10, flags=1).stamp(11, 12, 13)
    )
    places = {
        (0, 4): 72,
        (4, 5): 4,
        (5, 6): 1,
        (6, 8): 3,
        (8, 14): 11,
        (14, 16): 12,
        (16, 24): 9,
        (24, 32): 10,
        (32, 40): 13,
        (40, 48): 5,
        (48, 56): 6,
        (56, 64): 7,
        (64, 68): 8,
        (68, 69): 2,
        (69, 70): 1,
        (70, 72): 0,
    }
    assert {
        (start, end): int.from_bytes(trade[start:end], "little") for start, end in places
    } == places
    gap = bytes(encoder.gap(3, 1, 14, 5, None, 7, 8))
    assert (
        gap[40:].hex() == "010e050000000000" + "05" + "00" * 15 + "07" + "00" * 7 + "08" + "00" * 7
    )
    state = bytes(encoder.state(3, 2, 9))
    assert state[40:].hex() == "0209000000000000"
    instrument = bytes(encoder.instrument(3, 1, 8, 2, 4, "v", "B-Q", "é", "", "Q"))
    assert instrument[40:].hex() == (
        "0108000000000000" + "02" + "00" * 7 + "04" + "00" * 7 + "0176" + "03422d51" + "02c3a9"
        "00" + "0151"
    )
    snapshot = bytes(encoder.snapshot(book_of(((300, 1), (298, 2)), ((301, 3),)), 3, 7, 1, 10, 298))
    assert (
        snapshot[40:].hex()
        == "07" + "01" + "0a" + "01" + "d404" + "0201" + "d80401" + "0202" + "da0403"
    )
    changes = ChangeSet()
    changes.assign([(1, 300, 5, 1), (1, 298, 0, 3), (2, 301, 6, 2)])
    delta = bytes(encoder.delta(changes, 3, 8, 7))
    assert delta[40:].hex() == "08" + "01" + "0201" + "d8040b" + "0300" + "060c"
    assert bytes(encoder.heartbeat())[4:8].hex() == "07000000"


def test_a_record_in_use_is_not_overwritten() -> None:
    encoder = Encoder()
    view = memoryview(encoder.heartbeat())
    assert view.readonly
    assert len(view) == 40
    with pytest.raises(BufferError):
        encoder.heartbeat()
    with pytest.raises(BufferError):
        encoder.stamp(1, 1, 1)
    view.release()
    encoder.heartbeat()


def test_values_that_do_not_fit_are_refused() -> None:
    encoder = Encoder()
    book = book_of((), ())
    changes = ChangeSet()
    refused: list[tuple[type[Exception], Callable[[], object]]] = [
        (OverflowError, lambda: encoder.state(65536, 0, 0)),
        (OverflowError, lambda: encoder.trade(1, 2**63, 1, 1, 1)),
        (OverflowError, lambda: encoder.trade(1, 1, 1, 1, -1)),
        (OverflowError, lambda: encoder.trade(1, 1, 1, 1, 2**64)),
        (ValueError, lambda: encoder.trade(1, 1, 1, 3, 1)),
        (ValueError, lambda: encoder.trade(1, 1, 1, 1, "007")),
        (ValueError, lambda: encoder.trade(1, 1, 1, 1, "x")),
        (ValueError, lambda: encoder.trade(1, 1, 1, 1, "x" * 256, 2)),
        (ValueError, lambda: encoder.state(1, 256, 0)),
        (ValueError, lambda: encoder.snapshot(book, 1, 1, 256)),
        (ValueError, lambda: encoder.heartbeat(flags=256)),
        (ValueError, lambda: encoder.delta(changes, 1, 5, 5)),
        (ValueError, lambda: encoder.instrument(1, 19, 0, 0, 0, "", "", "", "", "")),
        (ValueError, lambda: encoder.stamp(2**48, 0, 0)),
    ]
    for error, write in refused:
        with pytest.raises(error):
            write()
    with pytest.raises(ValueError, match="no record"):
        Encoder().stamp(1, 1, 1)


def test_an_empty_encoder_is_an_empty_buffer() -> None:
    assert bytes(Encoder()) == b""
