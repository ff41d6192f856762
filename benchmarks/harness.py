"""Runs contestants in turns and shows what came out: tables on stdout, a JSON line per row.

A benchmark is a module with ``run(session: Session) -> None``, listed in `__main__.py`. It makes
contestants, whose ``measure(seconds)`` is one round and returns one figure per metric, and hands
them to `Session.compare`, then the rows to `Session.show`. Ours and the peers alternate round by
round, so that whatever disturbs the machine disturbs them alike.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import secrets
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from alphapulse.process import gc_tuned

ROOT = Path(__file__).resolve().parent.parent
"""The repository."""

RESULTS = ROOT / "benchmarks" / "results.jsonl"
"""Each run appends its rows here."""

INSTALL_PEERS = "pip install -e '.[bench]'"

Figures = Mapping[str, float]
"""Figures of one round, by the metric's key; a metric that is absent has no figure."""


class Metric(msgspec.Struct, frozen=True):
    """Something that is measured.

    Parameters
    ----------
    key : in a contestant's figures; ends the row's name, unless it is empty
    unit : ``"ns"``, ``"records/s"``
    more_is_better : for rates
    """

    key: str
    unit: str
    more_is_better: bool = False


class Contestant(msgspec.Struct, frozen=True):
    """One who takes part.

    Parameters
    ----------
    name : of the library or the way of doing it
    measure : ``measure(seconds)`` runs one round of about so many seconds
    version : of the library
    """

    name: str
    measure: Callable[[float], Figures]
    version: str = ""


class Absent(msgspec.Struct, frozen=True):
    """One who can't take part here.

    Parameters
    ----------
    name : of the library
    reason : why, and how to get it
    """

    name: str
    reason: str = f"not installed: {INSTALL_PEERS}"


class Spread(msgspec.Struct, frozen=True):
    """Median, least and greatest of several rounds."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


class Row(msgspec.Struct, frozen=True):
    """Ours beside one peer by one metric; or ours alone."""

    name: str
    unit: str
    ours: Spread
    more_is_better: bool = False
    peer: Spread | None = None
    peer_version: str = ""
    """The peer's name and version; where it is absent, name and reason."""

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer's our median is; below 1 where the peer's is."""
        if self.peer is None:
            return None
        better, worse = self.ours.median, self.peer.median
        if not self.more_is_better:
            better, worse = worse, better
        return better / worse if worse else None


class Session:
    """One run of some benchmarks.

    Parameters
    ----------
    rounds : how often each contestant is measured
    seconds : length of one round of one contestant, about
    results : where the JSON lines go
    only : cases to measure, by their names or by what these begin with; without any, all
    """

    def __init__(
        self,
        rounds: int = 5,
        seconds: float = 1.0,
        results: Path = RESULTS,
        only: Sequence[str] = (),
    ) -> None:
        if rounds < 1 or seconds <= 0:
            raise ValueError("at least one round of more than no time")
        self.rounds = rounds
        self.seconds = seconds
        self._results = results
        self._only = tuple(only)
        self._begun = datetime.now(UTC).isoformat(timespec="seconds")

    def wants(self, name: str) -> bool:
        """Whether this case is to be measured."""
        return not self._only or any(f"{name}/".startswith(f"{one}/") for one in self._only)

    def compare(
        self,
        name: str,
        metrics: Sequence[Metric],
        ours: Contestant,
        peers: Sequence[Contestant | Absent] = (),
        *,
        rounds: int | None = None,
    ) -> list[Row]:
        """Measure ours and the peers in turns; returns one row per metric and peer.

        None for a case that isn't wanted.

        Parameters
        ----------
        name : of the case (``"pipeline/kraken"``); a row's name has the metric's key behind it
        metrics : what the contestants' figures mean
        ours : our own contestant
        peers : the others; none: ours is shown alone
        rounds : instead of the session's, for figures that don't vary
        """
        if not self.wants(name):
            return []
        present = [ours, *(peer for peer in peers if isinstance(peer, Contestant))]
        figures: dict[int, list[Figures]] = {id(one): [] for one in present}
        count = rounds or self.rounds
        for number in range(count):
            for one in present:
                progress(f"{name}: round {number + 1} of {count}, {one.name}")
                with gc_tuned():
                    figures[id(one)].append(one.measure(self.seconds))
        progress("")
        return [
            row
            for metric in metrics
            for row in _rows(name, metric, figures[id(ours)], peers, figures)
        ]

    def show(self, title: str, rows: Sequence[Row], note: str = "") -> None:
        """Print a table of rows, and append them to the results; without rows, do nothing."""
        if not rows:
            return
        print(f"\n{title}\n")
        print(table(rows))
        if note:
            print(f"\n{note}")
        sys.stdout.flush()
        with self._results.open("ab") as file:
            file.writelines(
                msgspec.json.encode(Result.of(row, self._begun)) + b"\n" for row in rows
            )


def _rows(
    name: str,
    metric: Metric,
    ours: Sequence[Figures],
    peers: Sequence[Contestant | Absent],
    figures: Mapping[int, Sequence[Figures]],
) -> Iterator[Row]:
    mine = [one[metric.key] for one in ours if metric.key in one]
    if not mine:
        return
    full_name = f"{name}/{metric.key}" if metric.key else name
    row = Row(full_name, metric.unit, Spread.of(mine), metric.more_is_better)
    if not peers:
        yield row
    for peer in peers:
        if isinstance(peer, Absent):
            yield msgspec.structs.replace(row, peer_version=f"{peer.name} ({peer.reason})")
            continue
        theirs = [one[metric.key] for one in figures[id(peer)] if metric.key in one]
        if theirs:
            yield msgspec.structs.replace(
                row,
                peer=Spread.of(theirs),
                peer_version=f"{peer.name} {peer.version}".rstrip(),
            )


def table(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table that is readable as it is."""
    cells = [["", "unit", "ours", "(min-max)", "peer", "", "(min-max)", "ratio"]]
    for row in rows:
        ratio = "" if row.ratio is None else f"{_times(row.ratio)}x"
        peer = ("", "") if row.peer is None else _spread_cells(row.peer)
        cells.append([row.name, row.unit, *_spread_cells(row.ours), row.peer_version, *peer, ratio])
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    cells.insert(1, ["-" * width for width in widths])
    left = (0, 1, 4)
    return "\n".join(
        "| "
        + " | ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        + " |"
        for line in cells
    )


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def _spread_cells(spread: Spread) -> tuple[str, str]:
    return digits(spread.median), f"{digits(spread.least)}-{digits(spread.greatest)}"


def digits(value: float) -> str:
    """Three or more significant digits, thousands separated."""
    if value != 0 and abs(value) < 0.01:
        return f"{value:.2e}"
    places = 0 if abs(value) >= 1000 or float(value).is_integer() else 1 if abs(value) >= 10 else 3
    return f"{value:,.{places}f}"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A row as it stands in the results."""

    name: str
    ours: float
    peer: float | None
    peer_version: str
    ratio: float | None
    unit: str
    machine: str
    commit: str
    begun: str
    """When the run began, which its rows share."""
    ours_range: tuple[float, float]
    peer_range: tuple[float, float] | None
    more_is_better: bool

    @classmethod
    def of(cls, row: Row, begun: str) -> Result:
        """The result of a row."""
        peer = row.peer
        return cls(
            name=row.name,
            ours=row.ours.median,
            peer=None if peer is None else peer.median,
            peer_version=row.peer_version,
            ratio=row.ratio,
            unit=row.unit,
            machine=machine(),
            commit=commit(),
            begun=begun,
            ours_range=(row.ours.least, row.ours.greatest),
            peer_range=None if peer is None else (peer.least, peer.greatest),
            more_is_better=row.more_is_better,
        )

    def row(self) -> Row:
        """The row that it was."""
        peer = None
        if self.peer is not None and self.peer_range is not None:
            peer = Spread(self.peer, *self.peer_range)
        ours = Spread(self.ours, *self.ours_range)
        return Row(self.name, self.unit, ours, self.more_is_better, peer, self.peer_version)


@functools.cache
def machine() -> str:
    """Processor, number of CPUs, kernel and Python."""
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    cpus = len(os.sched_getaffinity(0))
    return (
        f"{processor}, {cpus} CPUs, Linux {platform.release()}, Python {platform.python_version()}"
    )


@functools.cache
def commit() -> str:
    """The commit that is measured, with ``+`` where files differ from it; empty outside of git."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.strip()


def version_of(distribution: str) -> str | None:
    """Version of an installed package, None where it isn't installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def progress(text: str) -> None:
    """Say on stderr what is being done; on a terminal in one line, which ``""`` clears."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def ring_prefix() -> Iterator[str]:
    """A ring prefix of one's own; what is left under it is removed."""
    prefix = f"apbench-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        yield prefix
    finally:
        for path in Path("/dev/shm").glob(f"{prefix}*"):
            path.unlink(missing_ok=True)


def percentiles(values: Sequence[float], wanted: Sequence[float]) -> list[float]:
    """Percentiles (0 to 100) by nearest rank of at least one value."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return [ordered[min(last, int(len(ordered) * one / 100))] for one in wanted]
