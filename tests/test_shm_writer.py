"""Who owns a ring's name, who follows whom, and what is left behind."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from alphapulse._core.segment import segment_bytes
from alphapulse.clock import wall_ns
from alphapulse.errors import RingBusy, RingError, RingSpaceError, RingTooSmall
from alphapulse.shm import RingReader, RingWriter, list_rings, liveness, remove_dead
from alphapulse.shm.names import FOLDER, temporary_name
from tests.reference.ring import SNAPSHOT
from tests.ring_process import Start, Steered, put, steering
from tests.ring_records import UNKNOWN, instrument_record, record, snapshot_record


@pytest.fixture
def steered(ring_prefix: str) -> Iterator[Start]:
    with steering(ring_prefix) as start:
        yield start


def open_writer(prefix: str, size_bytes: int = 1 << 16) -> RingWriter:
    return RingWriter("kraken", prefix=prefix, size_bytes=size_bytes, max_instruments=8)


def files(prefix: str) -> list[str]:
    return sorted(path.name.removeprefix(f"{prefix}.") for path in FOLDER.glob(f"{prefix}.*"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_segments_are_there_while_the_writer_is(ring_prefix: str) -> None:
    with open_writer(ring_prefix) as writer:
        assert files(ring_prefix) == ["kraken", "kraken.readers"]
        assert writer.predecessor is None
        path = FOLDER / f"{ring_prefix}.kraken"
        assert path.stat().st_blocks * 512 >= 1 << 16
        writer.close()
        assert writer.closed
        writer.close()
        assert files(ring_prefix) == []
        with pytest.raises(RingError, match="closed"):
            writer.write(record(UNKNOWN, 0, b""))


def test_segments_are_private(ring_prefix: str) -> None:
    previous = os.umask(0)
    try:
        with open_writer(ring_prefix):
            assert mode(FOLDER / f"{ring_prefix}.kraken") == 0o600
            assert mode(FOLDER / f"{ring_prefix}.kraken.readers") == 0o600
    finally:
        os.umask(previous)


def test_a_group_may_read_and_register_as_readers(ring_prefix: str) -> None:
    with RingWriter(
        "kraken", prefix=ring_prefix, size_bytes=1, max_instruments=1, group=os.getgid()
    ):
        assert mode(FOLDER / f"{ring_prefix}.kraken") == 0o640
        assert mode(FOLDER / f"{ring_prefix}.kraken.readers") == 0o660
        assert (FOLDER / f"{ring_prefix}.kraken").stat().st_gid == os.getgid()


def test_live_writer_keeps_its_name(ring_prefix: str) -> None:
    with open_writer(ring_prefix) as writer:
        with pytest.raises(RingBusy, match=str(os.getpid())) as caught:
            open_writer(ring_prefix)
        assert caught.value.pid == os.getpid()
        assert caught.value.name == f"{ring_prefix}.kraken"
        assert writer.write(record(UNKNOWN, 0, b"")) == 1


def test_too_little_shared_memory_is_an_error_that_leaves_nothing(ring_prefix: str) -> None:
    with pytest.raises(RingSpaceError) as caught:
        open_writer(ring_prefix, 1 << 40)
    assert caught.value.needed_bytes > 1 << 40
    assert 0 < caught.value.free_bytes < 1 << 40
    assert files(ring_prefix) == []


@pytest.mark.parametrize(
    ("venue", "prefix"), [("kraken.x", "a"), ("", "a"), ("Kraken", "a"), ("kraken", "a/b")]
)
def test_impossible_names_are_refused(venue: str, prefix: str) -> None:
    with pytest.raises(ValueError, match=r"only|venue"):
        RingWriter(venue, prefix=prefix)


def test_impossible_sizes_are_refused(ring_prefix: str) -> None:
    for size_bytes, instruments in ((0, 1), (1 << 41, 1), (1 << 16, 0), (1 << 16, 65536)):
        with pytest.raises(ValueError, match="can't be laid out"):
            RingWriter(
                "kraken", prefix=ring_prefix, size_bytes=size_bytes, max_instruments=instruments
            )


def test_successor_of_a_killed_writer_knows_its_last_record(
    ring_prefix: str, steered: Start
) -> None:
    first = steered("writer")
    assert first.do("put(ring, 10)") == "10"
    epoch = int(first.do("ring.epoch"))
    published = int(first.do("ring.published_ns"))
    first.kill()
    with open_writer(ring_prefix) as writer:
        assert writer.predecessor == (epoch, 10, published)
        assert writer.epoch > epoch
        assert files(ring_prefix) == ["kraken", "kraken.readers", f"kraken~{epoch}"]
        with RingReader("kraken", prefix=ring_prefix) as reader:
            assert reader.epoch == writer.epoch
    assert files(ring_prefix) == []


def test_of_writers_that_race_one_wins(ring_prefix: str, steered: Start) -> None:
    winner: Steered | None = None
    for _ in range(3):
        if winner is not None:
            winner.kill()
        racers = [steered("writer", wait=False) for _ in range(4)]
        answers = [racer.answer() for racer in racers]
        assert answers.count("open") == 1
        winner = racers[answers.index("open")]
        for answer in answers:
            assert answer in ("open", str(RingBusy(f"{ring_prefix}.kraken", winner.pid)))
        assert [ring.pid for ring in list_rings(prefix=ring_prefix)] == [winner.pid]


def test_foreign_file_under_the_name_is_replaced(ring_prefix: str) -> None:
    path = FOLDER / f"{ring_prefix}.kraken"
    path.write_bytes(b"no ring")
    (FOLDER / f"{ring_prefix}.kraken.readers").write_bytes(b"no readers")
    with open_writer(ring_prefix) as writer:
        assert writer.predecessor is None
        assert path.read_bytes()[:8] == b"ALPRING1"
        assert files(ring_prefix) == ["kraken", "kraken.readers"]
        with RingReader("kraken", prefix=ring_prefix):
            assert len(list_rings(prefix=ring_prefix)[0].readers) == 1


def test_unfinished_segments_are_removed_at_the_start(ring_prefix: str) -> None:
    for name in ("kraken~new-00", "kraken.readers~new-00", "kraken~123"):
        (FOLDER / f"{ring_prefix}.{name}").write_bytes(bytes(5000))
    with open_writer(ring_prefix):
        assert files(ring_prefix) == ["kraken", "kraken.readers"]


def test_segment_whose_successor_was_killed_in_the_act_is_marked(ring_prefix: str) -> None:
    """Its name is gone, but nobody wrote into it that it ended."""
    with (
        open_writer(ring_prefix) as writer,
        RingReader("kraken", prefix=ring_prefix, start="oldest") as reader,
    ):
        put(writer, 3)
        old = FOLDER / f"{ring_prefix}.kraken~{writer.epoch}"
        writer.enlarge(1 << 17)
        with old.open("r+b") as file:
            file.seek(512)
            file.write(bytes(16))
        writer._collect_retired()
        assert [len(reader.read()) for _ in range(2)] == [3, 0]
        assert (reader.epoch, old.exists()) == (writer.epoch, True)


def test_replaced_segment_is_removed_after_a_minute(
    ring_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = wall_ns()
    with open_writer(ring_prefix) as writer:
        old = writer.epoch
        writer.enlarge(1 << 17)
        for seconds, there in ((59, True), (61, False)):
            then = now + seconds * 10**9
            monkeypatch.setattr("alphapulse.shm.writer.wall_ns", partial(int, then))
            writer.beat()
            assert (f"kraken~{old}" in files(ring_prefix)) is there


def test_enlarged_ring_has_a_new_epoch_and_its_readers_follow(ring_prefix: str) -> None:
    with (
        open_writer(ring_prefix) as writer,
        RingReader("kraken", prefix=ring_prefix, start="oldest") as reader,
    ):
        put(writer, 3)
        old = writer.epoch
        with pytest.raises(ValueError, match="no more"):
            writer.enlarge(1 << 16)
        writer.enlarge((1 << 16) + 1)
        assert writer.epoch > old
        assert writer.predecessor == (old, 3, writer.predecessor and writer.predecessor[2])
        assert (writer.sequence, writer.position) == (0, 0)
        put(writer, 2)
        assert list_rings(prefix=ring_prefix)[0].size_bytes == 1 << 17
        got = [(batch.epoch, len(batch)) for batch in (reader.read(), reader.read())]
        assert got == [(old, 3), (writer.epoch, 2)]
        with pytest.raises(RingBusy):
            open_writer(ring_prefix)


def test_ring_that_can_not_be_enlarged_goes_on(ring_prefix: str) -> None:
    with open_writer(ring_prefix) as writer:
        epoch = writer.epoch
        with pytest.raises(RingSpaceError):
            writer.enlarge(1 << 40)
        assert writer.epoch == epoch
        assert writer.predecessor is None
        assert put(writer, 1) == 1
        assert files(ring_prefix) == ["kraken", "kraken.readers"]


def test_snapshot_that_the_ring_is_too_small_for_fits_after_enlarging(ring_prefix: str) -> None:
    with open_writer(ring_prefix) as writer:
        writer.write(instrument_record(1))
        large = record(SNAPSHOT, 1, bytes(9000))
        with pytest.raises(RingTooSmall, match=r"ring\.size_bytes to 131072") as caught:
            writer.write(large)
        writer.enlarge(caught.value.needed_bytes)
        writer.write(instrument_record(1))
        assert writer.write(large) == 2


def test_epochs_grow_however_quickly_rings_follow_each_other(ring_prefix: str) -> None:
    epochs = []
    for _ in range(5):
        with open_writer(ring_prefix) as writer:
            epochs.append(writer.epoch)
    assert epochs == sorted(set(epochs))


def test_child_of_a_fork_does_not_keep_the_name(ring_prefix: str, steered: Start) -> None:
    first = steered("writer")
    child = int(first.do("fork_idle()"))
    os.kill(child, 0)
    first._process.kill()
    first._process.wait()
    try:
        with open_writer(ring_prefix) as writer:
            assert writer.predecessor
    finally:
        os.kill(child, 9)


def test_heartbeat_and_clock(ring_prefix: str) -> None:
    with (
        RingWriter(
            "kraken", prefix=ring_prefix, size_bytes=1, max_instruments=1, clock=lambda: 42
        ) as writer,
        RingReader("kraken", prefix=ring_prefix, start="oldest") as reader,
    ):
        before = reader.heartbeat_ns
        writer.beat()
        assert reader.heartbeat_ns > before
        writer.write(record(UNKNOWN, 0, b""))
        assert [raw.published_ns for raw in reader.read()] == [42]


def test_shared_memory_of_the_standard_library_can_open_it(ring_prefix: str) -> None:
    code = """
import sys
from multiprocessing import resource_tracker, shared_memory
ring = shared_memory.SharedMemory(name=sys.argv[1])
print(bytes(ring.buf[:8]).decode(), ring.size)
resource_tracker.unregister(ring._name, "shared_memory")
ring.close()
"""
    with open_writer(ring_prefix):
        name = f"{ring_prefix}.kraken"
        done = subprocess.run(
            [sys.executable, "-c", code, name], capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["ALPRING1", str(segment_bytes(1 << 16, 8))]
        assert done.stderr == ""
        assert (FOLDER / name).exists()


def test_resource_tracker_is_not_involved(ring_prefix: str, steered: Start) -> None:
    """No child process appears, and nothing is unlinked by a process that only looked."""
    writer = steered("writer")
    reader = steered("reader")
    for process in (writer, reader):
        tracker = "__import__('multiprocessing.resource_tracker').resource_tracker"
        assert process.do(f"{tracker}._resource_tracker._fd") == "None"
        tasks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        assert not re.findall(r"\d+", tasks)
    reader.kill()
    assert files(ring_prefix) == ["kraken", "kraken.readers"]


def test_newer_half_holds_the_latest_snapshots(ring_prefix: str) -> None:
    with (
        open_writer(ring_prefix) as writer,
        RingReader("kraken", prefix=ring_prefix) as reader,
    ):
        for number in (1, 2, 3):
            writer.write(instrument_record(number), 1)
            writer.write(snapshot_record(number), 1)
        for i in range(5000):
            writer.write(record(UNKNOWN, 0, bytes(i % 300)), 1)
            for number in writer.due(1):
                writer.write(snapshot_record(number), 1)
            segment = reader._here.segment
            places = [segment.entry(entry)[4] for entry in range(3)]
            assert all(place is not None and writer.position - place <= 1 << 15 for place in places)


def test_a_segment_that_is_being_made_is_not_cleaned_away(ring_prefix: str) -> None:
    path = FOLDER / temporary_name(f"{ring_prefix}.kraken")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        # Empty as yet, but locked: its maker is at work.
        assert liveness.lock(fd)
        assert remove_dead(prefix=ring_prefix) == []
        assert path.exists()
    finally:
        os.close(fd)
    assert remove_dead(prefix=ring_prefix) == [path.name]
