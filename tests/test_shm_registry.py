"""What is told about rings and their readers, and what is removed."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from alphapulse.clock import wall_ns
from alphapulse.errors import RingCorrupt
from alphapulse.shm import RingReader, RingWriter, list_prefixes, list_rings, remove_dead
from alphapulse.shm.names import FOLDER
from tests.ring_process import Steered, eventually, put
from tests.ring_records import instrument_record


@pytest.fixture
def writer(ring_prefix: str) -> Iterator[RingWriter]:
    with RingWriter("kraken", prefix=ring_prefix, size_bytes=1 << 16, max_instruments=8) as writer:
        yield writer


def test_ring_is_described(ring_prefix: str, writer: RingWriter) -> None:
    writer.write(instrument_record(1))
    put(writer, 4)
    (ring,) = list_rings(prefix=ring_prefix)
    assert (ring.venue, ring.name) == ("kraken", f"{ring_prefix}.kraken")
    assert (ring.epoch, ring.pid) == (writer.epoch, os.getpid())
    assert (ring.alive, ring.stuck) == (True, False)
    assert (ring.size_bytes, ring.position, ring.sequence) == (1 << 16, writer.position, 5)
    assert (ring.instruments, ring.readers, ring.problem) == (1, (), "")
    assert ring.memory_bytes >= 1 << 16
    assert ring.created_ns <= ring.heartbeat_ns <= wall_ns()


def test_prefixes_are_those_of_rings(ring_prefix: str, writer: RingWriter) -> None:
    foreign = FOLDER / f"{ring_prefix}-foreign.kraken"
    foreign.write_bytes(b"not a ring")
    found = list_prefixes()
    foreign.unlink()
    assert ring_prefix in found
    assert f"{ring_prefix}-foreign" not in found
    assert found == sorted(set(found))


def test_readers_are_described(ring_prefix: str, writer: RingWriter) -> None:
    put(writer, 10)
    with RingReader("kraken", prefix=ring_prefix, start="oldest") as reader:
        reader.read(4)
        ((one,),) = (ring.readers for ring in list_rings(prefix=ring_prefix))
        assert (one.pid, one.epoch, one.sequence) == (os.getpid(), writer.epoch, 4)
        assert (one.lag, one.sleeping) == (6, False)
        writer.enlarge(1 << 17)
        put(writer, 3)
        ((one,),) = (ring.readers for ring in list_rings(prefix=ring_prefix))
        assert (one.epoch < writer.epoch, one.lag) == (True, 3)
    assert list_rings(prefix=ring_prefix)[0].readers == ()


def test_slot_of_a_killed_reader_is_free(ring_prefix: str, writer: RingWriter) -> None:
    killed = Steered("reader", ring_prefix)
    assert killed.answer() == "open"
    assert [one.pid for one in list_rings(prefix=ring_prefix)[0].readers] == [killed.pid]
    killed.kill()
    assert list_rings(prefix=ring_prefix)[0].readers == ()
    with RingReader("kraken", prefix=ring_prefix) as reader:
        assert reader._slot is not None
        assert reader._slot.index == 0


def test_reader_without_a_slot_reads_all_the_same(
    ring_prefix: str, writer: RingWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alphapulse.shm.slots.READERS_SLOTS", 1)
    with (
        RingReader("kraken", prefix=ring_prefix),
        RingReader("kraken", prefix=ring_prefix) as second,
    ):
        assert second._slot is None
        assert not second.wait(0.01)
        put(writer, 1)
        assert second.wait(30)
        assert len(second.read()) == 1


def test_hostile_readers_segment_harms_nobody(ring_prefix: str, writer: RingWriter) -> None:
    with RingReader("kraken", prefix=ring_prefix, start="oldest") as reader:
        path = FOLDER / f"{ring_prefix}.kraken.readers"
        with path.open("r+b") as file:
            file.write(b"\xff" * path.stat().st_size)
        put(writer, 3)
        assert list_rings(prefix=ring_prefix)[0].readers[0].pid == 2**32 - 1
        assert len(reader.read()) == 3
        with RingReader("kraken", prefix=ring_prefix) as other:
            assert other._slot is None


def test_readers_segment_that_is_gone_is_made_anew(ring_prefix: str, writer: RingWriter) -> None:
    (FOLDER / f"{ring_prefix}.kraken.readers").unlink()
    with RingReader("kraken", prefix=ring_prefix, start="oldest") as reader:
        assert reader._slot is None
        writer.beat()
        thread = threading.Thread(target=reader.wait, args=(30,))
        thread.start()
        eventually(lambda: any(one.sleeping for one in list_rings(prefix=ring_prefix)[0].readers))
        put(writer, 1)
        thread.join()
        assert writer.wakes == 1


def test_stuck_writer_is_told_from_a_quiet_one(
    ring_prefix: str, writer: RingWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.time_ns() + 6 * 10**9
    monkeypatch.setattr("alphapulse.shm.registry.wall_ns", lambda: later)
    assert list_rings(prefix=ring_prefix)[0].stuck


def test_only_rings_of_the_prefix_are_listed(ring_prefix: str, writer: RingWriter) -> None:
    names = ["a.b", "kraken~5", "kraken~new-1", "Kraken", "b.readers"]
    paths = [FOLDER / f"{ring_prefix}.{name}" for name in names]
    paths.append(FOLDER / f"{ring_prefix}2.kraken")
    for path in paths:
        path.write_bytes(b"x")
    assert [ring.venue for ring in list_rings(prefix=ring_prefix)] == ["kraken"]
    for path in paths:
        path.unlink()


@pytest.mark.parametrize("content", [b"", b"x" * 5000])
def test_unreadable_ring_is_listed_with_its_problem(ring_prefix: str, content: bytes) -> None:
    path = FOLDER / f"{ring_prefix}.kraken"
    path.write_bytes(content)
    (ring,) = list_rings(prefix=ring_prefix)
    assert (ring.alive, ring.epoch) == (False, 0)
    assert f"{ring_prefix}.kraken" in ring.problem
    path.unlink()


@pytest.mark.parametrize("kind", ["link", "socket", "pipe", "folder"])
def test_what_is_no_file_at_a_rings_name_harms_nobody(
    ring_prefix: str, kind: str, tmp_path: Path
) -> None:
    path = FOLDER / f"{ring_prefix}.kraken"
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    try:
        (ring,) = list_rings(prefix=ring_prefix)
        assert "no file of shared memory" in ring.problem
        for attempt in (RingReader, RingWriter):
            with pytest.raises(RingCorrupt, match="no file of shared memory"):
                attempt("kraken", prefix=ring_prefix)
        assert remove_dead(prefix=ring_prefix) == []
    finally:
        path.rmdir() if kind == "folder" else path.unlink()


def test_rings_of_dead_writers_are_removed_whole(ring_prefix: str) -> None:
    first = Steered("writer", ring_prefix)
    assert first.answer() == "open"
    first.kill()
    second = Steered("writer", ring_prefix)
    assert second.answer() == "open"
    assert second.do("put(ring, 7)") == "7"
    reader = RingReader("kraken", prefix=ring_prefix, start="oldest")
    assert remove_dead(prefix=ring_prefix) == []
    second.kill()
    (ring,) = list_rings(prefix=ring_prefix)
    assert not ring.alive
    (FOLDER / f"{ring_prefix}.kraken~new-0").write_bytes(b"unfinished")
    removed = remove_dead(prefix=ring_prefix)
    assert len(removed) == 4
    assert {f"{ring_prefix}.kraken", f"{ring_prefix}.kraken.readers"} < set(removed)
    assert list(Path(FOLDER).glob(f"{ring_prefix}*")) == []
    assert len(reader.read()) == 7
    reader.close()


def test_left_over_parts_without_a_ring_are_removed(ring_prefix: str) -> None:
    for name in ("kraken.readers", "kraken~17", "kraken.readers~new-1"):
        (FOLDER / f"{ring_prefix}.{name}").write_bytes(b"x")
    assert len(remove_dead(prefix=ring_prefix)) == 3
    assert list(FOLDER.glob(f"{ring_prefix}*")) == []
