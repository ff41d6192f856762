"""Memory of collectors: per symbol, over a simulated hour, and of three venues at work.

Memory is proportional set size without the rings, which are counted apart: what processes share is
divided among them.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from alphapulse.clock import NS_PER_SECOND, wall_ns
from alphapulse.errors import RingNotFound
from alphapulse.model import BookState
from alphapulse.shm import RingReader
from alphapulse.simulators.specs import pair_specs
from benchmarks import traffic
from benchmarks.harness import (
    ROOT,
    Contestant,
    Figures,
    Metric,
    Row,
    Session,
    progress,
    ring_prefix,
)
from benchmarks.scale_play import Clock, Played, begin, play, ring_writer

PER_SYMBOL = (Metric("bytes", "bytes/symbol"),)
HOUR = (
    Metric("frames", "frames"),
    Metric("after-5-min", "MB"),
    Metric("after-60-min", "MB"),
    Metric("growth", "MB"),
)
FOOTPRINT = (
    Metric("supervisor", "MB"),
    Metric("largest-collector", "MB"),
    Metric("all-processes", "MB"),
    Metric("rings", "MB"),
)

_FEW, _MANY = 10, 310
_HOUR_SYMBOLS = 100
_HOUR_LEVELS = 100
_HOUR_EVENTS = 20_000
_HOUR_RATE = 200
"""Frames a second."""
_MINUTES = 60
_EARLY_MINUTE = 5
_TIMEOUT_SECONDS = 300.0
_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ ")
_ADDRESS = re.compile(r"export (\w+)=(\S+)")


def rows(session: Session, venues: Sequence[str]) -> list[Row]:
    """The table's rows; the hour and the memory per symbol for each of the venues."""
    found: list[Row] = []
    for venue in venues:
        for levels in (100, 1000):
            name = f"scale/memory/{venue}/{levels}-levels"
            found += _measure(session, name, PER_SYMBOL, partial(_per_symbol, venue, levels))
    for venue in venues:
        found += _measure(session, f"scale/hour/{venue}", HOUR, partial(_hour, venue))
    several = partial(_footprint, ("coinbase", "kraken", "binance_us"), 100, 1000, 200)
    name = "scale/footprint/3-venues-100-symbols-1000-levels"
    found += _measure(session, name, FOOTPRINT, several)
    full = partial(_footprint, ("coinbase",), 1, 45_000, 50)
    name = "scale/footprint/coinbase-1-symbol-45000-levels"
    return found + _measure(session, name, FOOTPRINT, full)


def _measure(
    session: Session, name: str, metrics: Sequence[Metric], measure: Callable[[], Figures]
) -> list[Row]:
    """Once, however many rounds: memory hardly varies."""
    return session.compare(name, metrics, Contestant("ours", lambda _: measure()), rounds=1)


def pss_bytes(pid: int | str = "self") -> int:
    """Memory of a process, what it shares divided among those who share it; without the rings."""
    total, ring = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
        if _MAPPING.match(line):
            # The name that a ring was made under is gone: " (deleted)" stands behind it.
            ring = "/dev/shm/" in line
        elif line.startswith("Pss:") and not ring:
            total += int(line.split()[1]) * 1024
    return total


def _per_symbol(venue: str, levels: int) -> Figures:
    progress(f"scale: memory per symbol, {venue}, {levels} levels")
    few, many = (
        _apart(_live_books, traffic.generated(venue, 1, symbols, levels), symbols)["bytes"]
        for symbols in (_FEW, _MANY)
    )
    return {"bytes": (many - few) / (_MANY - _FEW)}


def _live_books(recorded: traffic.Traffic, symbols: int) -> Figures:
    with ring_writer(recorded.venue_name) as writer:
        gc.collect()
        before = pss_bytes()
        played = play(recorded, symbols, writer, wall_ns())
        gc.collect()
        assert len(played.feed.books) == symbols
        return {"bytes": pss_bytes() - before}


def _hour(venue: str) -> Figures:
    recorded = traffic.generated(venue, _HOUR_EVENTS, _HOUR_SYMBOLS, _HOUR_LEVELS)
    return _apart(_play_hour, recorded)


def _play_hour(recorded: traffic.Traffic) -> Figures:
    """Play an hour's frames as fast as it goes; the connection begins anew when they run out."""
    first = [step for step in recorded.steps if step.kind == "snapshot"]
    clock = Clock(wall_ns())
    frames = 0
    memory: list[int] = []
    with ring_writer(recorded.venue_name, clock) as writer:
        played = play(recorded, _HOUR_SYMBOLS, writer, clock.now_ns)
        feed, channel = played.feed, played.channel
        again = _endless(played, first, clock)
        for _ in range(_MINUTES):
            for _ in range(60 * _HOUR_RATE):
                clock.now_ns += NS_PER_SECOND // _HOUR_RATE
                feed.receive(channel, next(again).raw, clock.now_ns)
                feed.repeat_due(clock.now_ns)
                frames += 1
            writer.beat()
            memory.append(pss_bytes())
    dead = [name for name, book in feed.books.items() if book.state is not BookState.LIVE]
    if dead or feed.counts.malformed or feed.counts.checksums_bad:
        raise RuntimeError(f"the hour didn't go well: {dead[:3]}, {feed.counts}")
    early, late = memory[_EARLY_MINUTE - 1], memory[-1]
    return {
        "frames": frames,
        "after-5-min": early / 1e6,
        "after-60-min": late / 1e6,
        "growth": (late - early) / 1e6,
    }


def _endless(played: Played, first: list[traffic.Step], clock: Clock) -> Iterator[traffic.Step]:
    while True:
        yield from played.steps
        begin(played, first, clock.now_ns)


def _apart(measure: Callable[..., Figures], *arguments: Any) -> Figures:
    """What a function measures in a process of its own, whose memory is all its doing."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, measure, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(_TIMEOUT_SECONDS):
            raise RuntimeError(f"{measure.__name__} takes too long")
        found: Figures = ours.recv()
    except EOFError:
        raise RuntimeError(f"{measure.__name__} has failed") from None
    finally:
        ours.close()
        process.join(10)
        process.kill()
    return found


def _answer(pipe: Connection, measure: Callable[..., Figures], arguments: tuple[Any, ...]) -> None:
    signal.alarm(int(_TIMEOUT_SECONDS))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with suppress(BrokenPipeError):
        pipe.send(measure(*arguments))


def _footprint(venues: tuple[str, ...], symbols: int, levels: int, rate: int) -> Figures:
    """Memory of the collectors' processes, once all books are live."""
    progress(f"scale: {', '.join(venues)} with {symbols} symbols of {levels} levels a side")
    with ExitStack() as stack:
        prefix = stack.enter_context(ring_prefix())
        simulating = _start(
            stack,
            ["-m", "alphapulse.cli", "simulate", *venues, "--symbols", str(symbols),
             "--levels", str(levels), "--rate", str(rate)],
            {},
        )  # fmt: skip
        environ = {
            "ALPHAPULSE__RING__PREFIX": prefix,
            "ALPHAPULSE__LOG__LEVEL": "warning",
        }
        names = ",".join(spec.symbol for spec in pair_specs(symbols))
        for venue in ("coinbase", "kraken", "binance_us"):
            section = f"ALPHAPULSE__VENUES__{venue.upper()}"
            environ[f"{section}__ENABLED"] = str(venue in venues).lower()
            environ[f"{section}__SYMBOLS"] = names
        assert simulating.stdout is not None
        left = 2 * len(venues)
        for line in simulating.stdout:
            if found := _ADDRESS.search(line):
                environ[found[1]] = found[2]
                left -= 1
            if not left:
                break
        collecting = _start(stack, ["-m", "alphapulse.cli.serve", "collectors"], environ)
        for venue in venues:
            _await_live(collecting, venue, prefix, symbols)
        time.sleep(5)  # the snapshots' memory is given back, and updates flow
        each = [pss_bytes(pid) / 1e6 for pid in _children(collecting.pid)]
        supervisor = pss_bytes(collecting.pid) / 1e6
        rings = sum(path.stat().st_blocks * 512 for path in Path("/dev/shm").glob(f"{prefix}.*"))
        return {
            "supervisor": supervisor,
            "largest-collector": max(each),
            "all-processes": supervisor + sum(each),
            "rings": rings / 1e6,
        }


def _start(
    stack: ExitStack, arguments: list[str], environ: Mapping[str, str]
) -> subprocess.Popen[str]:
    """Run a Python program that is ended with SIGTERM when the stack is left."""
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith("ALPHAPULSE__")
    }
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**inherited, **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _await_live(collecting: subprocess.Popen[str], venue: str, prefix: str, symbols: int) -> None:
    until = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        with suppress(RingNotFound), RingReader(venue, prefix=prefix) as reader:
            states = reader.states
            if sum(state is BookState.LIVE for state in states.values()) >= symbols:
                return
        if time.monotonic() > until or collecting.poll() is not None:
            raise RuntimeError(f"the books of {venue} don't come to life")
        time.sleep(0.2)


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    return [int(word) for word in text.split()]
