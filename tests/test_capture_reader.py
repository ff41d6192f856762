"""Reading recordings, and refusing what is none."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import zstandard

from alphapulse.capture.reader import Frame, read_capture
from alphapulse.errors import CaptureError

WS = {"t": 1, "src": "ws", "raw": '{"price":0.10}'}
REST = {"t": 2, "src": "rest", "url": "/a?symbol=X", "raw": "[]"}


def write(path: Path, *lines: Any) -> Path:
    path.write_text(
        "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    )
    return path


def test_gives_both_kinds_of_frames_verbatim(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", WS, REST)
    assert list(read_capture(path)) == [
        Frame(1, "ws", None, b'{"price":0.10}'),
        Frame(2, "rest", "/a?symbol=X", b"[]"),
    ]


def test_ignores_blank_lines_unknown_keys_and_a_missing_last_newline(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({**WS, "session": 7}) + "\n\n  \n" + json.dumps(REST))
    assert [frame.t_ns for frame in read_capture(path)] == [1, 2]


def test_text_beyond_ascii_stays_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {**WS, "raw": "é\u2028\x00"})
    assert next(read_capture(path)).raw == "é\u2028\x00".encode()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst"])
def test_compression_is_told_by_content(tmp_path: Path, name: str) -> None:
    plain = write(tmp_path / "plain", WS, REST).read_bytes()
    packed = tmp_path / name
    packed.write_bytes(zstandard.compress(plain))
    assert [frame.t_ns for frame in read_capture(packed)] == [1, 2]
    named_only = tmp_path / "plain.zst"
    named_only.write_bytes(plain)
    assert [frame.t_ns for frame in read_capture(named_only)] == [1, 2]


def test_compressed_recordings_may_be_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "a.zst"
    line = (json.dumps(WS) + "\n").encode()
    path.write_bytes(zstandard.compress(line) + zstandard.compress(line * 2))
    assert len(list(read_capture(path))) == 3


@pytest.mark.parametrize("keep", [5, 30, -1])
def test_a_cut_compressed_file_is_reported(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.zst"
    path.write_bytes(zstandard.compress((json.dumps(WS) + "\n").encode() * 10)[:keep])
    with pytest.raises(CaptureError, match=r"a\.zst"):
        list(read_capture(path))


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        '{"t":1,"src":"ws","raw":"x"',
        "[]",
        "null",
        '{"src":"ws","raw":"x"}',
        '{"t":1,"raw":"x"}',
        '{"t":1,"src":"ws"}',
        '{"t":1.5,"src":"ws","raw":"x"}',
        '{"t":"1","src":"ws","raw":"x"}',
        '{"t":true,"src":"ws","raw":"x"}',
        '{"t":-1,"src":"ws","raw":"x"}',
        '{"t":1,"src":"udp","raw":"x"}',
        '{"t":1,"src":"ws","raw":{}}',
        '{"t":1,"src":"ws","raw":"x","url":"/a"}',
        '{"t":1,"src":"rest","raw":"x"}',
        '{"t":1,"src":"rest","raw":"x","url":5}',
    ],
)
def test_a_line_that_is_no_frame_is_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "a.jsonl", WS, line, REST)
    frames = read_capture(path)
    assert next(frames).t_ns == 1
    with pytest.raises(CaptureError) as caught:
        next(frames)
    assert (caught.value.path, caught.value.line) == (str(path), 2)
    assert str(caught.value).startswith(f"{path}:2: ")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\x00\xff\xfe", b"PK\x03\x04\n"])
def test_what_is_no_capture_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    with pytest.raises(CaptureError, match=r"a\.bin"):
        list(read_capture(path))


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.jsonl", tmp_path):
        with pytest.raises(CaptureError) as caught:
            list(read_capture(path))
        assert caught.value.path == str(path)
        assert caught.value.line == 0


def test_a_line_of_50_mb_works(tmp_path: Path) -> None:
    size = 50 * 1024 * 1024
    path = tmp_path / "a.zst"
    compressor = zstandard.ZstdCompressor(level=1)
    text = b'{"t":1,"src":"ws","raw":"' + b"x" * size + b'"}\n'
    path.write_bytes(compressor.compress(text + json.dumps(WS).encode()))
    frames = list(read_capture(path))
    assert [len(frame.raw) for frame in frames] == [size, len(WS["raw"])]  # type: ignore[arg-type]


def test_a_line_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alphapulse.capture.reader.MAX_LINE_BYTES", 1000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps(WS).encode() + b"\n" + b"y" * 2_000_000)
    with pytest.raises(CaptureError, match=r":2: is longer than"):
        list(read_capture(path))


def test_memory_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    line = json.dumps({**WS, "raw": "x" * 10_000}) + "\n"
    with path.open("w") as file:
        for _ in range(3000):
            file.write(line)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_capture(path)) == 3000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 1024 * 1024


def test_recordings_are_read_whole(captures: Path) -> None:
    for name, frames in (("coinbase", 6938), ("kraken", 2671), ("binance_us", 333)):
        assert sum(1 for _ in read_capture(captures / f"{name}.jsonl")) == frames
