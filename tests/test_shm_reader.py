"""Readers that come late, are lapped, sleep, outlive writers, or resume where they were."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from alphapulse.errors import RecordError, RingCorrupt, RingNotFound
from alphapulse.model import (
    BookDelta,
    BookSnapshot,
    BookState,
    Event,
    Overrun,
    Reason,
    StateChange,
    Trade,
)
from alphapulse.shm import (
    TRADE_ROW,
    Position,
    RingReader,
    RingWriter,
    remove_dead,
)
from alphapulse.shm.names import FOLDER
from tests.reference.ring import DELTA, TRADE
from tests.ring_process import Attach, Start, attaching, begin_book, put, steering
from tests.ring_records import (
    UNKNOWN,
    instrument_record,
    record,
    snapshot_record,
)


@pytest.fixture
def writer(ring_prefix: str) -> Iterator[RingWriter]:
    with RingWriter("kraken", prefix=ring_prefix, size_bytes=1 << 16, max_instruments=8) as writer:
        yield writer


@pytest.fixture
def attach(ring_prefix: str) -> Iterator[Attach]:
    with attaching(ring_prefix) as start:
        yield start


@pytest.fixture
def steered(ring_prefix: str) -> Iterator[Start]:
    with steering(ring_prefix) as start:
        yield start


def trade_record(number: int) -> bytes:
    return record(TRADE, 1, struct.pack("<qqQIBB2x", 2943020, 18967538, number, 1, 1, 0))


def delta_record(version: int) -> bytes:
    """Sets the bid at 1.00 to 0.00000008."""
    return record(DELTA, 1, bytes([version, 1, 1, 0]) + b"\x90\x03\x10")


def everything(reader: RingReader, limit: int = 100) -> list[Event]:
    found: list[Event] = []
    while batch := reader.read(limit):
        found += batch.events()
    return found


def test_events_come_in_order(writer: RingWriter, attach: Attach) -> None:
    reader = attach()
    begin_book(writer)
    writer.write(trade_record(42))
    writer.write(delta_record(2))
    writer.write(record(UNKNOWN, 0, b"left out"))
    events = everything(reader)
    assert [type(event).__name__ for event in events] == [
        "InstrumentDefined",
        "BookSnapshot",
        "StateChange",
        "Trade",
        "BookDelta",
    ]
    _, snapshot, _, trade, delta = events
    assert isinstance(snapshot, BookSnapshot)
    assert isinstance(trade, Trade)
    assert isinstance(delta, BookDelta)
    assert (trade.exchange, trade.instrument.symbol, trade.trade_id) == ("kraken", "A1-USD", "42")
    assert [event.sequence for event in (snapshot, trade, delta)] == [2, 4, 5]
    assert reader.position == Position(writer.epoch, 7)
    assert reader.instruments == {1: snapshot.instrument}
    assert reader.states == {1: BookState.LIVE}


def test_read_never_gives_more_than_asked(writer: RingWriter, attach: Attach) -> None:
    reader = attach("oldest")
    put(writer, 10)
    assert [len(reader.read(4)) for _ in range(4)] == [4, 4, 2, 0]
    assert not reader.read()
    assert list(reader.read()) == []
    with pytest.raises(ValueError, match="positive"):
        reader.read(0)


def test_raw_records_show_their_header(writer: RingWriter, attach: Attach) -> None:
    reader = attach("oldest")
    begin_book(writer)
    batch = reader.read()
    assert [(raw.type, raw.instrument, raw.sequence) for raw in batch] == [
        (1, 1, 1),
        (2, 1, 2),
        (5, 1, 3),
    ]
    assert batch.epoch == writer.epoch
    assert batch.nbytes == writer.position
    assert b"".join(bytes(raw.data) for raw in batch).count(b"A1-USD") == 1


def test_trades_are_rows(writer: RingWriter, attach: Attach) -> None:
    reader = attach("oldest")
    assert reader.read().trades().shape == (0,)
    begin_book(writer)
    for number in (7, 8):
        writer.write(trade_record(number), 1000 + number)
    rows = reader.read().trades()
    assert rows.dtype == TRADE_ROW
    assert rows["trade_id"].tolist() == [7, 8]
    assert rows["sequence"].tolist() == [4, 5]
    assert rows["published_ns"].tolist() == [1007, 1008]
    assert rows[["price", "size", "side", "instrument"]][0].tolist() == (2943020, 18967538, 1, 1)


def test_newcomer_gets_books_and_no_past_trades(writer: RingWriter, attach: Attach) -> None:
    writer.write(instrument_record(2))
    begin_book(writer)
    writer.write(trade_record(1))
    writer.write(delta_record(2))
    reader = attach()
    writer.write(trade_record(2))
    kinds = [type(event) for event in everything(reader)]
    assert kinds.count(Trade) == 1
    assert kinds[0] is BookSnapshot
    assert BookDelta in kinds
    assert sorted(reader.instruments) == [1, 2]


def test_newcomer_to_a_ring_without_books_begins_at_the_end(
    writer: RingWriter, attach: Attach
) -> None:
    put(writer, 2000)
    reader = attach()
    put(writer, 2)
    assert [raw.sequence for raw in reader.read()] == [2001, 2002]


def test_quiet_book_on_a_busy_small_ring_is_there_for_a_newcomer(
    writer: RingWriter, attach: Attach
) -> None:
    begin_book(writer, 2)
    begin_book(writer, 1)
    for i in range(20000):
        writer.write(delta_record(2 + i % 100), 1)
        for number in writer.due(1):
            writer.write(snapshot_record(number), 1)
    assert writer.position > 10 << 16
    books = {
        event.instrument.symbol for event in everything(attach()) if isinstance(event, BookSnapshot)
    }
    assert books == {"A1-USD", "A2-USD"}


def test_lapped_reader_is_told_what_it_missed(writer: RingWriter, attach: Attach) -> None:
    reader = attach("oldest")
    begin_book(writer)
    first = everything(reader)
    for i in range(3000):
        writer.write(delta_record(2 + i % 100))
        for number in writer.due(1):
            writer.write(snapshot_record(number))
    overrun, *rest = everything(reader)
    assert isinstance(overrun, Overrun)
    assert (overrun.exchange, overrun.epoch, overrun.first) == ("kraken", writer.epoch, 4)
    assert overrun.reason is Reason.LAPPED
    assert isinstance(rest[0], BookSnapshot)
    assert overrun.last == rest[0].sequence - 1
    assert overrun.count is not None
    assert len(first) + overrun.count + len(rest) == writer.sequence


def test_overrun_has_a_batch_of_its_own(writer: RingWriter, attach: Attach) -> None:
    reader = attach("oldest")
    put(writer, 5000)
    batch = reader.read()
    assert batch
    assert len(batch) == 0
    assert list(batch) == []
    assert batch.overrun is not None
    assert list(batch.events()) == [batch.overrun]
    assert batch.trades().shape == (0,)
    after = reader.read()
    assert after.overrun is None
    assert batch.overrun.last is not None
    assert next(iter(after)).sequence == batch.overrun.last + 1


def test_resuming_goes_on_with_the_wanted_sequence(writer: RingWriter, attach: Attach) -> None:
    put(writer, 700)
    for sequence in (1, 350, 700, 701):
        reader = attach(Position(writer.epoch, sequence))
        assert reader.position == (writer.epoch, sequence)
        assert [raw.sequence for raw in reader.read()] == list(range(sequence, 701))
    with pytest.raises(ValueError, match="beyond"):
        attach(Position(writer.epoch, 702))


def test_resuming_where_the_writer_has_passed_is_an_overrun(
    writer: RingWriter, attach: Attach
) -> None:
    put(writer, 5000)
    batch = attach(Position(writer.epoch, 7)).read()
    assert batch.overrun is not None
    assert batch.overrun.first == 7
    assert batch.overrun.last is not None
    assert batch.overrun.count == batch.overrun.last - 6


def test_resuming_in_an_earlier_epoch(writer: RingWriter, attach: Attach) -> None:
    put(writer, 5)
    epochs = [writer.epoch]
    for size in (17, 18):
        writer.enlarge(1 << size)
        put(writer, 3)
        epochs.append(writer.epoch)
    reader = attach(Position(epochs[0], 4))
    got = []
    while batch := reader.read():
        got.append((batch.epoch, [raw.sequence for raw in batch]))
    assert got == [(epochs[0], [4, 5]), (epochs[1], [1, 2, 3]), (epochs[2], [1, 2, 3])]


def test_resuming_in_an_epoch_that_is_gone(writer: RingWriter, attach: Attach) -> None:
    put(writer, 3)
    reader = attach(Position(5, 9))
    batch = reader.read()
    assert batch.overrun == Overrun(
        exchange="kraken", epoch=5, first=9, last=None, count=None, reason=Reason.RESTARTED
    )
    assert [raw.sequence for raw in reader.read()] == [1, 2, 3]


def test_epoch_that_nobody_kept_is_an_overrun(
    ring_prefix: str, writer: RingWriter, attach: Attach
) -> None:
    reader = attach("oldest")
    first = writer.epoch
    writer.enlarge(1 << 17)
    put(writer, 3)
    second = writer.epoch
    writer.enlarge(1 << 18)
    put(writer, 1)
    (FOLDER / f"{ring_prefix}.kraken~{second}").unlink()
    assert reader.epoch == first
    overrun, *_ = reader.read().events()
    assert isinstance(overrun, Overrun)
    assert (overrun.epoch, overrun.count, overrun.reason) == (second, None, Reason.RESTARTED)
    assert [raw.sequence for raw in reader.read()] == [1]
    assert reader.epoch == writer.epoch


def test_reader_outlives_a_killed_writer(steered: Start, attach: Attach) -> None:
    first = steered("writer")
    reader = attach("oldest")
    assert first.do("put(ring, 10)") == "10"
    alive = [reader.writer_alive]
    first.kill()
    alive.append(reader.writer_alive)
    assert alive == [True, False]
    assert len(reader.read()) == 10
    assert not reader.wait(0)
    second = steered("writer")
    epoch = int(second.do("ring.epoch"))
    assert second.do("put(ring, 3)") == "3"
    assert reader.wait(30)
    batch = reader.read()
    assert (batch.epoch, [raw.sequence for raw in batch]) == (epoch, [1, 2, 3])
    assert reader.writer_alive


def test_reader_follows_from_a_closed_ring_to_the_next(ring_prefix: str, attach: Attach) -> None:
    for removal in (False, True):
        writer = RingWriter("kraken", prefix=ring_prefix, size_bytes=1, max_instruments=1)
        put(writer, 2)
        reader = attach("oldest")
        if removal:
            writer._mapping.close()
            assert sorted(remove_dead(prefix=ring_prefix))[0] == f"{ring_prefix}.kraken"
        else:
            writer.close()
        assert len(reader.read()) == 2
        assert not reader.wait(0)
        with RingWriter("kraken", prefix=ring_prefix, size_bytes=1, max_instruments=1) as writer:
            put(writer, 1)
            assert reader.wait(30)
            assert [raw.sequence for raw in reader.read()] == [1]
            assert reader.epoch == writer.epoch


def test_iteration_gives_events_with_overruns_in_order(writer: RingWriter, attach: Attach) -> None:
    reader = attach("oldest")
    begin_book(writer)
    found = []
    for event in reader:
        found.append(type(event))
        if len(found) == 3:
            put(writer, 5000)
            begin_book(writer, 2)
        if len(found) == 6:
            reader.close()
    assert found[3:] == [Overrun, BookSnapshot, StateChange]


def test_segment_is_mapped_read_only(ring_prefix: str, steered: Start, attach: Attach) -> None:
    steered("writer")
    process = steered("reader")
    maps = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    rights = {line.split()[-1]: line.split()[1] for line in maps if ring_prefix in line}
    assert rights == {
        f"/dev/shm/{ring_prefix}.kraken": "r--s",
        f"/dev/shm/{ring_prefix}.kraken.readers": "rw-s",
    }


def test_lag_counts_records(writer: RingWriter, attach: Attach) -> None:
    reader = attach("oldest")
    put(writer, 10)
    assert reader.lag == 10
    reader.read(4)
    assert reader.lag == 6
    reader.read()
    assert reader.lag == 0


def test_no_such_ring(ring_prefix: str) -> None:
    with pytest.raises(RingNotFound, match=f"{ring_prefix}.kraken"):
        RingReader("kraken", prefix=ring_prefix)
    with pytest.raises(ValueError, match="venue"):
        RingReader("../kraken", prefix=ring_prefix)


def test_start_that_does_not_exist(writer: RingWriter, attach: Attach) -> None:
    with pytest.raises(ValueError, match="latest"):
        attach("newest")


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 9000])
def test_foreign_file_is_no_ring(ring_prefix: str, content: bytes) -> None:
    path = FOLDER / f"{ring_prefix}.kraken"
    path.write_bytes(content)
    with pytest.raises(RingCorrupt):
        RingReader("kraken", prefix=ring_prefix)
    path.unlink()


@pytest.mark.parametrize(("offset", "content"), [(4096 + 4, b"\xff" * 4), (4096 + 64, bytes(448))])
def test_contradictory_directory_is_corrupt(
    ring_prefix: str, writer: RingWriter, offset: int, content: bytes
) -> None:
    begin_book(writer)
    with (FOLDER / f"{ring_prefix}.kraken").open("r+b") as file:
        file.seek(offset)
        file.write(content)
    with pytest.raises(RingCorrupt):
        RingReader("kraken", prefix=ring_prefix)


def test_one_record_that_can_not_be_decoded_does_not_end_the_reading(
    writer: RingWriter, attach: Attach
) -> None:
    reader = attach("oldest")
    begin_book(writer)
    writer.write(record(TRADE, 1, b"too short"))
    writer.write(trade_record(1))
    events: list[Event] = []
    with pytest.raises(RecordError):
        events += reader.read(4).events()
    assert [type(event) for event in everything(reader)] == [Trade]


def test_position_survives_a_reader(writer: RingWriter, attach: Attach) -> None:
    reader = attach("oldest")
    put(writer, 20)
    reader.read(7)
    position = reader.position
    reader.close()
    assert [raw.sequence for raw in attach(position).read()] == list(range(8, 21))
