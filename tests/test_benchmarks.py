"""The benchmarks' harness: turns, medians, ratios, tables and result lines. Nothing is timed."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.harness import (
    Absent,
    Contestant,
    Figures,
    Metric,
    Result,
    Row,
    Session,
    Spread,
    digits,
    percentiles,
    ring_prefix,
    table,
)
from benchmarks.report import fill
from tests.support import ROOT

COST = Metric("cost", "ns")
RATE = Metric("rate", "records/s", more_is_better=True)


class Scripted:
    """A contestant whose rounds were decided beforehand, and who notes its turns."""

    def __init__(self, name: str, rounds: list[dict[str, float]], turns: list[str]) -> None:
        self._name = name
        self._rounds = iter(rounds)
        self._turns = turns

    def measure(self, seconds: float) -> Figures:
        assert seconds == 0.5
        self._turns.append(self._name)
        return next(self._rounds)

    def contestant(self, version: str = "") -> Contestant:
        return Contestant(self._name, self.measure, version)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(rounds=3, seconds=0.5, results=tmp_path / "results.jsonl")


def test_ours_and_the_peers_take_turns(session: Session) -> None:
    turns: list[str] = []
    ours, one, other = (
        Scripted(name, [{"cost": 1.0}] * 3, turns).contestant() for name in ("ours", "one", "other")
    )
    session.compare("case", [COST], ours, [one, other])
    assert turns == ["ours", "one", "other"] * 3


def test_rows_have_medians_least_and_greatest(session: Session) -> None:
    turns: list[str] = []
    ours = Scripted("ours", [{"cost": value} for value in (300.0, 100.0, 150.0)], turns)
    peer = Scripted("peer", [{"cost": value} for value in (450.0, 400.0, 9000.0)], turns)
    (row,) = session.compare("case", [COST], ours.contestant(), [peer.contestant("2.1")])
    assert row.name == "case/cost"
    assert row.unit == "ns"
    assert row.ours == Spread(150.0, 100.0, 300.0)
    assert row.peer == Spread(450.0, 400.0, 9000.0)
    assert row.peer_version == "peer 2.1"


@pytest.mark.parametrize(
    ("more_is_better", "ours", "peer", "ratio"),
    [(False, 10.0, 50.0, 5.0), (True, 10.0, 50.0, 0.2), (True, 50.0, 10.0, 5.0)],
)
def test_a_ratio_above_one_is_in_our_favour(
    more_is_better: bool, ours: float, peer: float, ratio: float
) -> None:
    row = Row("case", "", Spread.of([ours]), more_is_better, Spread.of([peer]), "peer 1")
    assert row.ratio == pytest.approx(ratio)


def test_there_is_no_ratio_to_nothing() -> None:
    assert Row("case", "ns", Spread.of([1.0])).ratio is None
    assert Row("case", "ns", Spread.of([0.0]), peer=Spread.of([1.0])).ratio is None


def test_a_metric_that_only_one_side_has(session: Session) -> None:
    turns: list[str] = []
    ours = Scripted("ours", [{"cost": 1.0}] * 3, turns).contestant()
    peer = Scripted("peer", [{"cost": 2.0, "rate": 3.0}] * 3, turns).contestant()
    rows = session.compare("case", [COST, RATE], ours, [peer])
    assert [row.name for row in rows] == ["case/cost"]


def test_an_absent_peer_is_named_with_how_to_get_it(session: Session) -> None:
    ours = Scripted("ours", [{"cost": 1.0}] * 3, []).contestant()
    (row,) = session.compare("case", [COST], ours, [Absent("peerlib")])
    assert row.peer is None
    assert row.ratio is None
    assert "peerlib" in row.peer_version
    assert "pip install -e '.[bench]'" in row.peer_version
    assert "peerlib" in table([row])


def test_ours_alone(session: Session) -> None:
    turns: list[str] = []
    ours = Scripted("ours", [{"": 7.0}] * 3, turns).contestant()
    (row,) = session.compare("case", [Metric("", "bytes")], ours, rounds=1)
    assert row == Row("case", "bytes", Spread(7.0, 7.0, 7.0))
    assert turns == ["ours"]


def test_each_row_becomes_a_line_of_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.jsonl"
    session = Session(results=results)
    rows = [
        Row("a/p50", "ns", Spread(2.0, 1.0, 3.0), False, Spread(8.0, 7.0, 9.0), "peer 1.0"),
        Row("b", "bytes", Spread.of([5.0])),
    ]
    session.show("Two rows", rows, "A note.")
    session.show("One row", rows[:1])
    lines = [msgspec.json.decode(line) for line in results.read_bytes().splitlines()]
    assert [line["name"] for line in lines] == ["a/p50", "b", "a/p50"]
    wanted = {"name", "ours", "peer", "peer_version", "ratio", "unit", "machine", "commit"}
    assert all(wanted <= set(line) for line in lines)
    assert (
        lines[0]
        | {
            "ours": 2.0,
            "peer": 8.0,
            "peer_version": "peer 1.0",
            "ratio": 4.0,
            "unit": "ns",
        }
        == lines[0]
    )
    assert "Python" in lines[0]["machine"]
    assert lines[1]["peer"] is None
    assert lines[1]["ratio"] is None
    shown = capsys.readouterr().out
    assert "Two rows" in shown
    assert "A note." in shown
    assert "4x" in shown


def test_a_table_is_aligned_markdown() -> None:
    lines = table(
        [
            Row("short", "ns", Spread.of([1.0])),
            Row("a longer name", "records/s", Spread.of([12_345_678.0])),
        ]
    ).splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert all(re.fullmatch(r"\|( .* \|)+", line) for line in lines)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.00012, "1.20e-04"),
        (1.23456, "1.235"),
        (45.678, "45.7"),
        (1234567.8, "1,234,568"),
    ],
)
def test_figures_show_their_significant_digits(value: float, text: str) -> None:
    assert digits(value) == text


def test_percentiles_are_values_that_occurred() -> None:
    values = list(range(1000, 0, -1))
    assert percentiles(values, [0, 50, 99, 99.9, 100]) == [1, 501, 991, 1000, 1000]
    assert percentiles([7], [50, 99.9]) == [7, 7]


def test_a_ring_prefix_leaves_nothing_behind() -> None:
    with ring_prefix() as prefix:
        left = Path("/dev/shm") / f"{prefix}.kraken"
        left.write_bytes(b"")
    assert not left.exists()


def test_a_session_needs_rounds_and_time() -> None:
    for rounds, seconds in ((0, 1.0), (1, 0.0)):
        with pytest.raises(ValueError, match="round"):
            Session(rounds, seconds)


@pytest.mark.parametrize("arguments", [["none-such"], ["book", "--rounds", "0"]])
def test_the_command_refuses_what_it_does_not_know(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_every_benchmark_is_there() -> None:
    for module in BENCHMARKS.values():
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


def test_the_page_gets_the_latest_run_of_each_table() -> None:
    def result(name: str, ours: float, begun: str) -> Result:
        return Result.of(Row(name, "ns", Spread.of([ours])), begun)

    results = [
        result("book/10", 111.0, "2026-01-01T00:00:00+00:00"),
        result("book/10", 222.0, "2026-01-02T00:00:00+00:00"),
        result("books/10", 333.0, "2026-01-03T00:00:00+00:00"),
    ]
    page = (
        "# Page\n\n<!-- results: book -->\nold\n<!-- end -->\n\n"
        "<!-- results: ring -->\nkept\n<!-- end -->\n"
    )
    filled = fill(page, results)
    assert "222" in filled
    assert "2026-01-02" in filled
    assert not {"old", "111", "333"} & set(re.findall(r"\w+", filled))
    assert filled.endswith("<!-- results: ring -->\nkept\n<!-- end -->\n")
    assert fill(filled, results) == filled


def test_a_result_gives_its_row_back() -> None:
    peer = Spread(8.0, 7.0, 9.0)
    rows = [
        Row("a", "records/s", Spread(2.0, 1.0, 3.0), True, peer, "peer 1"),
        Row("b", "ns", Spread(2.0, 1.0, 3.0), False, None, "absent"),
    ]
    assert [Result.of(row, "").row() for row in rows] == rows
