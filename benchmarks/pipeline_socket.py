"""A collector's process on a loopback WebSocket, beside clients that only receive."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from alphapulse.collectors.events import Instruments
from alphapulse.errors import RingNotFound
from alphapulse.model import BookState, RecordFlag, RecordType
from alphapulse.shm import RingReader
from benchmarks.harness import (
    Absent,
    Contestant,
    Figures,
    Metric,
    Session,
    progress,
    ring_prefix,
    version_of,
)
from benchmarks.peers.websocket_clients import CLIENTS, receive
from benchmarks.socket_sender import Frames, serve
from benchmarks.traffic import Traffic, generated

EVENTS_PER_SECOND = 100_000
"""Changes in the generated traffic, per second that a round is meant to take."""

MOST_EVENTS = 400_000
"""As many as fit into a ring that nobody reads."""

PATIENCE_SECONDS = 60.0
SETTLED_SECONDS = 0.3
"""A ring that got nothing for so long after the sender's end has got all."""

METRICS = [Metric("frames", "frames/s", more_is_better=True), Metric("cpu", "ns/frame")]

NOTE = """\
Ours is `python -m alphapulse.collectors.daemon kraken` as it is installed, from its socket to the
ring; the peers are clients in their library's fastest way, on uvloop, that receive the same frames
and do nothing with them. The sender is a process of its own on the other core, frames arrive
together, and nobody reads the ring. 'cpu' is user and system time of the receiving process."""

_SPAWN = multiprocessing.get_context("spawn")


def run(session: Session) -> None:
    """Measure the daemon and the libraries."""
    progress("pipeline-socket: generating traffic")
    events = min(round(EVENTS_PER_SECOND * session.seconds), MOST_EVENTS)
    traffic = generated("kraken", events=events)
    frames = Frames(
        metadata=[step.raw for step in traffic.of("metadata")],
        snapshots=[step.raw for step in traffic.of("snapshot")],
        updates=[step.raw for step in traffic.of("update")],
    )
    with _sender(frames) as (port, blast):
        collector = Contestant(
            "alphapulse", lambda _seconds: _collector(traffic, frames, port, blast)
        )
        clients = [_client(name, frames, port, blast) for name in CLIENTS]
        rows = session.compare("pipeline-socket", METRICS, collector, clients)
    session.show("Pipeline, from a loopback WebSocket", rows, NOTE)


@contextmanager
def _sender(frames: Frames) -> Iterator[tuple[int, Connection]]:
    """A sending process: its port, and a pipe that makes it blast."""
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=serve, args=(theirs, frames))
    process.start()
    theirs.close()
    try:
        yield _receive(ours), ours
    finally:
        ours.close()
        process.join()


def _client(name: str, frames: Frames, port: int, blast: Connection) -> Contestant | Absent:
    version = version_of(name)
    if version is None:
        return Absent(name)

    def measure(_seconds: float) -> Figures:
        ours, theirs = _SPAWN.Pipe()
        arguments = (name, _url(port), theirs, len(frames.snapshots), len(frames.updates))
        process = _SPAWN.Process(target=receive, args=arguments)
        process.start()
        theirs.close()
        with closing(ours):
            _receive(ours)
            _blast(blast)
            wall, cpu = _receive(ours)
        process.join()
        count = len(frames.updates)
        return {"frames": count / wall, "cpu": cpu * 1e9 / count}

    return Contestant(name, measure, version)


def _collector(traffic: Traffic, frames: Frames, port: int, blast: Connection) -> Figures:
    """One blast into a daemon of its own."""
    symbols = _symbols(traffic)
    with (
        ring_prefix() as prefix,
        tempfile.TemporaryFile() as log,
        _daemon(prefix, symbols, port, log) as daemon,
    ):
        with _open_reader(prefix, daemon, log) as reader:
            _wait_until_live(reader, len(symbols))
            cpu_before = _cpu_ns(daemon.pid)
            _blast(blast)
            begun, ended = _published(reader)
            cpu = _cpu_ns(daemon.pid) - cpu_before
            states = reader.states.values()
            if any(state is not BookState.LIVE for state in states):
                raise RuntimeError(f"books were lost: {list(states)}\n{_tail(log)}")
        count = len(frames.updates)
        return {"frames": count * 1e9 / (ended - begun), "cpu": cpu / count}


def _symbols(traffic: Traffic) -> list[str]:
    channel = traffic.venue().channel([])
    return [
        instrument.symbol
        for step in traffic.of("metadata")
        for event in channel.receive(step.raw)
        if isinstance(event, Instruments)
        for instrument in event.instruments
    ]


@contextmanager
def _daemon(
    prefix: str, symbols: list[str], port: int, log: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith("ALPHAPULSE__")
    }
    section = "ALPHAPULSE__VENUES__KRAKEN__"
    environ = {
        **inherited,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "ALPHAPULSE__RING__PREFIX": prefix,
        f"{section}WS_URL": _url(port),
        f"{section}SYMBOLS": ",".join(symbols),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "alphapulse.collectors.daemon", "kraken"],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=log,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _open_reader(prefix: str, daemon: subprocess.Popen[bytes], log: IO[bytes]) -> RingReader:
    patience = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return RingReader("kraken", prefix=prefix, start="oldest")
        except RingNotFound:
            if daemon.poll() is not None or time.monotonic() > patience:
                raise RuntimeError(f"the collector doesn't start\n{_tail(log)}") from None
            time.sleep(0.01)


def _wait_until_live(reader: RingReader, symbols: int) -> None:
    patience = time.monotonic() + PATIENCE_SECONDS
    while True:
        while reader.read():
            pass
        states = list(reader.states.values())
        if len(states) == symbols and all(state is BookState.LIVE for state in states):
            return
        if time.monotonic() > patience:
            raise RuntimeError(f"the books don't become live: {states}")
        reader.wait(1.0)


def _published(reader: RingReader) -> tuple[int, int]:
    """When the first and the last record of the blast were committed.

    The sender has written all by now; that the collector has read it is told by its silence.
    """
    begun = ended = 0
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < SETTLED_SECONDS:
        batch = reader.read()
        if batch.overrun is not None:
            raise RuntimeError("the ring is too small for the blast")
        for record in batch:
            if record.type in (RecordType.DELTA, RecordType.TRADE):
                begun = begun or record.published_ns
                ended = record.published_ns
                quiet_since = time.monotonic()
            elif record.type == RecordType.SNAPSHOT and not record.flags & RecordFlag.REPEAT:
                raise RuntimeError("a book was lost during the blast")
        if not batch:
            reader.wait(0.05)
    return begun, ended


def _blast(pipe: Connection) -> None:
    pipe.send(None)
    if _receive(pipe) != 1:
        raise RuntimeError("the frames went to another number of receivers than one")


def _receive(pipe: Connection) -> Any:
    """The next message of another process."""
    if not pipe.poll(PATIENCE_SECONDS):
        raise TimeoutError("another process of the benchmark says nothing")
    return pipe.recv()


def _cpu_ns(pid: int) -> int:
    """CPU time of all threads of a process so far."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text(encoding="ascii").split()[0]) for task in tasks)


def _tail(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read()[-2000:].decode("utf-8", "replace")


def _url(port: int) -> str:
    return f"ws://127.0.0.1:{port}/v2"
