"""``alphapulse normalize``: each capture gives exactly its right result, and each loss is told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import zstandard

from alphapulse.capture import Frame, read_capture
from alphapulse.cli.replay import Totals, normalize
from alphapulse.collectors.registry import make_venue
from alphapulse.config import KrakenSettings, VenuesSettings
from tests.rebuild import Consumer, Expected

CAPTURES = [
    ("coinbase", "coinbase", 1000),
    ("kraken", "kraken", 1000),
    ("kraken-btcusd-depth10", "kraken", 10),
    ("binance_us", "binance_us", 1000),
]


class Run:
    """One pass over some frames."""

    def __init__(self, frames: Iterable[Frame], venue: str, depth: int = 1000) -> None:
        self.totals = Totals()
        self.lines: list[str] = []
        self.complaints: list[str] = []
        settings = VenuesSettings(kraken=KrakenSettings(depth=depth))  # type: ignore[arg-type]
        normalize(
            frames,
            make_venue(venue, settings),
            ring_bytes=64 << 20,
            totals=self.totals,
            emit=self.lines.append,
            complain=self.complaints.append,
        )
        self.consumer = Consumer().take_lines(self.lines)


def frames_of(captures: Path, name: str) -> list[Frame]:
    return list(read_capture(captures / f"{name}.jsonl"))


@pytest.mark.parametrize(("name", "venue", "depth"), CAPTURES)
def test_each_capture_gives_exactly_its_result(
    captures: Path, name: str, venue: str, depth: int
) -> None:
    run = Run(frames_of(captures, name), venue, depth)
    expected = Expected(captures / f"{name}.expected.json")
    assert {symbol: run.consumer.book(symbol) for symbol in run.consumer.books} == expected.books
    assert run.consumer.trade_rows() == expected.trades
    assert set(run.consumer.states.values()) == {"live"}
    assert run.complaints == []
    totals = run.totals
    assert totals.frames == len(frames_of(captures, name))
    assert totals.events == len(run.lines)
    assert (totals.malformed, totals.gaps, totals.checksums_bad) == (0, 0, 0)
    if venue == "kraken":
        # Updates' checksums, and those of the snapshots.
        assert totals.checksums_ok >= expected.checksums > 0


@pytest.mark.parametrize(("name", "venue", "depth"), CAPTURES)
def test_prices_and_volumes_are_plain_exact_numbers(
    captures: Path, name: str, venue: str, depth: int
) -> None:
    def number(text: str) -> str:
        assert "e" not in text.lower(), text
        if "." in text:
            assert not text.endswith(("0", ".")), text
        return text

    for line in Run(frames_of(captures, name), venue, depth).lines:
        json.loads(line, parse_float=number)


def is_update(frame: Frame, symbol: bytes) -> bool:
    """Whether a frame changes that symbol's book."""
    book = (b'"channel":"book","type":"update"', b'"e":"depthUpdate"')
    return frame.src == "ws" and symbol in frame.raw and any(key in frame.raw for key in book)


@pytest.mark.parametrize(
    ("name", "venue", "depth", "symbol", "venue_symbol", "reason"),
    [
        ("kraken", "kraken", 1000, "XMR-USD", b'"XMR/USD"', "checksum"),
        ("kraken-btcusd-depth10", "kraken", 10, "BTC-USD", b'"BTC/USD"', "checksum"),
        ("binance_us", "binance_us", 1000, "OMG-BUSD", b'"OMGBUSD"', "gap"),
    ],
)
def test_one_lost_book_update_is_told_and_concerns_its_symbol_only(
    captures: Path,
    name: str,
    venue: str,
    depth: int,
    symbol: str,
    venue_symbol: bytes,
    reason: str,
) -> None:
    frames = frames_of(captures, name)
    expected = Expected(captures / f"{name}.expected.json")
    places = [place for place, frame in enumerate(frames) if is_update(frame, venue_symbol)]
    whole = Run(frames, venue, depth)
    told = 0
    for lost in places[len(places) // 2 : len(places) // 2 + 8]:
        run = Run(frames[:lost] + frames[lost + 1 :], venue, depth)
        for other in set(expected.books) - {symbol}:
            assert run.consumer.book(other) == expected.books[other]
            assert run.consumer.states[other] == "live"
        assert [row for row in run.consumer.trade_rows() if row[0] != symbol] == [
            row for row in expected.trades if row[0] != symbol
        ]
        if run.consumer.states[symbol] == "invalid":
            told += 1
            assert (symbol, "invalid", reason) in run.consumer.changes_of_state
        else:
            # A checksum sees ten levels a side: a loss below them that was made good since
            # leaves no trace in any of them.
            assert venue == "kraken"
            assert whole.consumer.states[symbol] == "live"
    assert told >= 1 if venue == "kraken" else told == 8


def test_one_lost_trade_of_coinbases_is_a_gap(captures: Path) -> None:
    frames = frames_of(captures, "coinbase")
    matches = [
        (place, json.loads(frame.raw))
        for place, frame in enumerate(frames)
        if b'"type":"match"' in frame.raw
    ]
    product = matches[-1][1]["product_id"]
    of_product = [(place, match) for place, match in matches if match["product_id"] == product]
    lost, match = of_product[len(of_product) // 2 - 1]
    run = Run(frames[:lost] + frames[lost + 1 :], "coinbase")
    [gap] = run.consumer.gaps
    assert (gap["symbol"], gap["channel"], gap["reason"]) == (product, "trades", "gap")
    assert gap["first"] == gap["last"] == match["trade_id"]
    assert gap["count"] == 1
    assert run.totals.gaps == 1


@pytest.mark.parametrize(("name", "venue", "depth"), CAPTURES)
def test_garbage_between_the_frames_is_counted_and_harms_nothing(
    captures: Path, name: str, venue: str, depth: int
) -> None:
    frames = frames_of(captures, name)
    garbage = [
        b"",
        b"{",
        b"\x00\x01\xff",
        b"[1,2,3]",
        b"null",
        frames[-1].raw[: len(frames[-1].raw) // 8],
        b'{"channel":"book","type":"update","data":[{"symbol":"NO/PE","bids":[],"asks":[]}]}'
        if venue == "kraken"
        else b'{"type":"l2update","product_id":"NO-PE","changes":[]}'
        if venue == "coinbase"
        else b'{"stream":"x","data":{"e":"trade","s":"NOPE","t":1,"p":"1","q":"1","T":1,"m":true}}',
    ]
    middle = len(frames) // 2
    spoiled = [Frame(frames[middle].t_ns, "ws", None, raw) for raw in garbage]
    run = Run(frames[:middle] + spoiled + frames[middle:], venue, depth)
    expected = Expected(captures / f"{name}.expected.json")
    assert {symbol: run.consumer.book(symbol) for symbol in expected.books} == expected.books
    assert run.consumer.trade_rows() == expected.trades
    assert run.totals.malformed == len(garbage) == len(run.complaints)
    assert all(venue in complaint for complaint in run.complaints)
    assert any("NO" in complaint for complaint in run.complaints)


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "alphapulse.cli", "normalize", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def small(captures: Path, tmp_path: Path) -> Path:
    """The first part of a capture."""
    lines = (captures / "kraken-btcusd-depth10.jsonl").read_text().splitlines(keepends=True)
    path = tmp_path / "small.jsonl"
    path.write_text("".join(lines[:50]))
    return path


def test_the_command_prints_events_and_totals(small: Path) -> None:
    done = command(small, "--venue", "kraken", "--depth", "10", "--stats")
    assert (done.returncode, done.stderr) == (0, "")
    *events, totals = done.stdout.splitlines()
    consumer = Consumer().take_lines(events)
    assert consumer.states == {"BTC-USD": "live"}
    told = json.loads(totals)
    assert list(told) == [
        "frames",
        "events",
        "seconds",
        "bytes_in",
        "bytes_out",
        "checksums_ok",
        "checksums_bad",
        "gaps",
        "malformed",
    ]
    assert told["events"] == len(events)


def test_totals_are_over_all_repeats_and_nothing_else_is_printed(small: Path) -> None:
    options = ("--venue", "kraken", "--depth", "10", "--output", "none", "--stats")
    [once] = command(small, *options).stdout.splitlines()
    [thrice] = command(small, *options, "--repeat", "3").stdout.splitlines()
    single, triple = json.loads(once), json.loads(thrice)
    for key in set(single) - {"seconds"}:
        assert triple[key] == 3 * single[key]


def test_compressed_captures_are_read(small: Path, tmp_path: Path) -> None:
    packed = tmp_path / "small.jsonl.zst"
    packed.write_bytes(zstandard.compress(small.read_bytes()))
    options = ("--venue", "kraken", "--depth", "10")
    assert command(packed, *options).stdout == command(small, *options).stdout != ""


@pytest.mark.parametrize("content", [None, "", "not a capture\n", '{"t":1}\n', "\x00\xff"])
def test_what_is_no_capture_ends_with_status_2(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "bad.jsonl"
    if content is not None:
        path.write_text(content)
    done = command(path, "--venue", "kraken")
    assert done.returncode == 2
    assert done.stdout == ""
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--venue", "nowhere"), "binance_us"),
        (("--venue", "kraken", "--depth", "11"), "1000"),
        (("--venue", "kraken", "--output", "xml"), "json"),
        (("--venue", "kraken", "--repeat", "0"), "repeat"),
        ((), "venue"),
    ],
)
def test_bad_options_are_named_with_what_would_be_right(
    small: Path, options: tuple[str, ...], named: str
) -> None:
    done = command(small, *options)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_a_time_beyond_int64_is_no_captures(tmp_path: Path) -> None:
    path = tmp_path / "far.jsonl"
    path.write_text('{"t":99999999999999999999,"src":"ws","raw":"{}"}\n')
    done = command(path, "--venue", "kraken")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("venue", ["kraken", "binance_us", "coinbase"])
@pytest.mark.parametrize("raw", ["{}", '{"channel":null}', '{"stream":"x","data":null}'])
def test_what_is_nobodys_message_is_counted(venue: str, raw: str) -> None:
    run = Run([Frame(1, "ws", None, raw.encode())], venue)
    assert run.totals.malformed == 1


def test_text_of_the_venues_is_shown_in_one_line_and_short() -> None:
    names = ["A\nmalformed: fake", "\x1b[31mred", "x" * 100_000]
    frames = [
        Frame(
            1,
            "ws",
            None,
            json.dumps({"type": "l2update", "product_id": name, "changes": []}).encode(),
        )
        for name in names
    ]
    run = Run(frames, "coinbase")
    assert run.totals.malformed == len(run.complaints) == 3
    assert all(complaint.isprintable() for complaint in run.complaints)
    assert all(len(complaint) < 1000 for complaint in run.complaints)


def test_a_frame_counts_once_however_much_of_it_is_wrong() -> None:
    entry = '{"symbol":"NO/PE","bids":[],"asks":[],"checksum":0}'
    raw = f'{{"channel":"book","type":"update","data":[{entry},{entry}]}}'
    run = Run([Frame(1, "ws", None, raw.encode())], "kraken")
    assert run.totals.malformed == 1
    assert len(run.complaints) == 2


def test_a_bad_rest_answer_leaves_room_for_a_good_one(captures: Path) -> None:
    frames = frames_of(captures, "binance_us")
    place = next(place for place, frame in enumerate(frames) if frame.url and "depth" in frame.url)
    bad = Frame(frames[place].t_ns, "rest", frames[place].url, b"<html>")
    run = Run([*frames[:place], bad, *frames[place:]], "binance_us")
    assert run.totals.malformed == 1
    assert set(run.consumer.states.values()) == {"live"}


def test_malformed_frames_are_named_on_stderr(small: Path) -> None:
    bad = '{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":-1'
    with small.open("a") as file:
        file.write(json.dumps({"t": 1, "src": "ws", "raw": bad}) + "\n")
    done = command(small, "--venue", "kraken", "--depth", "10")
    assert done.returncode == 0
    assert "BTC/USD" in done.stderr
    assert "kraken" in done.stderr
    consumer = Consumer().take_lines(done.stdout.splitlines())
    assert consumer.changes_of_state[-1] == ("BTC-USD", "invalid", "malformed")
