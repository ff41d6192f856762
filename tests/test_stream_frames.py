from __future__ import annotations

import pytest
from websockets.extensions import Extension
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from alphapulse.stream.frames import pong_frame, text_frame


def parsed(data: bytes) -> list[Frame]:
    """Frames as another library reads them."""
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    frames = []
    extensions: list[Extension] = []
    while not _at_end(reader):
        parser = Frame.parse(reader.read_exact, mask=False, max_size=None, extensions=extensions)
        try:
            while True:
                next(parser)
        except StopIteration as end:
            frames.append(end.value)
    return frames


def _at_end(reader: StreamReader) -> bool:
    try:
        next(reader.at_eof())
    except StopIteration as end:
        return bool(end.value)
    return False


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 300_000])
def test_a_message_is_one_unmasked_frame(size: int) -> None:
    (frame,) = parsed(text_frame("x" * size))
    assert (frame.opcode, frame.data, frame.fin) == (Opcode.TEXT, b"x" * size, True)


def test_frames_follow_each_other() -> None:
    frames = parsed(text_frame("ü") + pong_frame(b"p" * 125) + text_frame("b" * 126))
    assert [(frame.opcode, bytes(frame.data)) for frame in frames] == [
        (Opcode.TEXT, "ü".encode()),
        (Opcode.PONG, b"p" * 125),
        (Opcode.TEXT, b"b" * 126),
    ]
