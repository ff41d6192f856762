"""Reading captures: one frame a line, plain or zstd-compressed.

A line is a JSON object::

    {"t": 1618677817061845000, "src": "ws", "raw": "<the text exactly as received>"}
    {"t": 1633998274865238000, "src": "rest", "url": "/api/v3/depth?symbol=X", "raw": "<body>"}

``t`` is the receive time in nanoseconds since the epoch; ``raw`` is verbatim. Other keys are
ignored, so that later recordings may carry more.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike, fspath
from typing import Annotated, BinaryIO, Literal, NamedTuple

import msgspec
import zstandard

from alphapulse.errors import CaptureError
from alphapulse.fixed import INT64_MAX

MAX_LINE_BYTES = 256 * 1024 * 1024
"""A longer line is taken for a file that is no capture, so that memory stays bounded."""

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_PLAIN_CHUNK_BYTES = 1 << 18
# Small, since what a compressed chunk unfolds to is held at once.
_COMPRESSED_CHUNK_BYTES = 1 << 14


class Frame(NamedTuple):
    """One frame as it was received."""

    t_ns: int
    """Receive time, nanoseconds since the epoch."""
    src: Literal["ws", "rest"]
    url: str | None
    """Path and query of the request that a REST body answers; None for WebSocket frames."""
    raw: bytes
    """The text exactly as received, in UTF-8."""


class _Line(msgspec.Struct):
    t: Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]
    src: Literal["ws", "rest"]
    raw: str
    url: str | None = None


def read_capture(path: str | PathLike[str]) -> Iterator[Frame]:
    """Yield the frames of a capture in file order.

    Compression is told by the file's first bytes, not by its name. The file is streamed: memory
    is bounded by the longest line. Blank lines are skipped.

    Raises
    ------
    CaptureError
        the file can't be read, holds no frame, or has a line that is none; frames before that
        line have been yielded by then
    """
    name = fspath(path)
    decoder = msgspec.json.Decoder(_Line)
    number = 0
    found = False
    try:
        with open(name, "rb") as file:
            for number, line in enumerate(_lines(name, _chunks(name, file)), start=1):
                if line.isspace() or not line:
                    continue
                found = True
                yield _frame(name, number, line, decoder)
    except OSError as error:
        raise CaptureError(name, 0, f"can't be read: {error.strerror or error}") from error
    except zstandard.ZstdError as error:
        raise CaptureError(name, number, f"is damaged zstd data: {error}") from error
    if not found:
        raise CaptureError(name, 0, "holds no frame; a capture has one JSON object a line")


def _frame(name: str, number: int, line: bytes, decoder: msgspec.json.Decoder[_Line]) -> Frame:
    try:
        fields = decoder.decode(line)
        raw = fields.raw.encode()
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise CaptureError(name, number, f"is no frame of a capture: {error}") from error
    if (fields.src == "rest") != (fields.url is not None):
        raise CaptureError(
            name,
            number,
            "url is missing; a REST body needs the request that it answers"
            if fields.src == "rest"
            else "url is given; a WebSocket frame answers no request",
        )
    return Frame(fields.t, fields.src, fields.url, raw)


def _chunks(name: str, file: BinaryIO) -> Iterator[bytes]:
    """Pieces of the file's plain text, unpacked if it is compressed."""
    head = file.read(len(_ZSTD_MAGIC))
    if head != _ZSTD_MAGIC:
        yield head
        while chunk := file.read(_PLAIN_CHUNK_BYTES):
            yield chunk
        return
    unpacker = zstandard.ZstdDecompressor()
    stream = unpacker.decompressobj()
    data = head
    while data or (data := file.read(_COMPRESSED_CHUNK_BYTES)):
        # A recording that was appended to consists of several zstd frames.
        if stream.eof:
            stream = unpacker.decompressobj()
        yield stream.decompress(data)
        data = stream.unused_data if stream.eof else b""
    if not stream.eof:
        raise zstandard.ZstdError("the last zstd frame is cut off")


def _lines(name: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines without their ends. Parts of a long line are joined once, when it is complete."""
    parts: list[bytes] = []
    held = 0
    number = 1
    for chunk in chunks:
        *complete, rest = chunk.split(b"\n")
        for line in complete:
            if parts:
                parts.append(line)
                line = b"".join(parts)
                parts.clear()
                held = 0
            yield line
            number += 1
        if rest:
            parts.append(rest)
            held += len(rest)
            if held > MAX_LINE_BYTES:
                raise CaptureError(name, number, f"is longer than {MAX_LINE_BYTES} bytes")
    if parts:
        yield b"".join(parts)
