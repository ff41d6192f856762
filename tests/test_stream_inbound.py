from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.stream.deflate import (
    LEAST_BYTES,
    Deflater,
    TooMuch,
    accepts,
    inflate,
)
from alphapulse.stream.frames import binary_frame, payload_of, pong_frame, text_frame
from alphapulse.stream.inbound import (
    INVALID_PAYLOAD,
    PROTOCOL_ERROR,
    TOO_BIG,
    Allowance,
    Fault,
    Frame,
    Inbound,
    Message,
)

TEXT, BINARY, MORE = 1, 2, 0
SECOND = 1_000_000_000
LIMIT = 100


def frame(payload: bytes, kind: int = TEXT, *, final: bool = True, packed: bool = False) -> Frame:
    return Frame(kind, payload, final, packed)


def pack(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def take(inbound: Inbound, *frames: Frame, allowed: bool = True) -> Message | None:
    message = None
    for one in frames:
        assert message is None
        message = inbound.take(one, allowed=allowed)
    return message


def test_messages_come_whole_or_in_pieces() -> None:
    inbound = Inbound(LIMIT, compressed=False)
    assert take(inbound, frame(b"one")) == Message(TEXT, b"one", refused=False)
    pieces = frame(b"t", final=False), frame(b"w", MORE, final=False), frame(b"o", MORE)
    assert take(inbound, *pieces) == Message(TEXT, b"two", refused=False)
    assert take(inbound, frame(b"", BINARY)) == Message(BINARY, b"", refused=False)


def test_a_large_message_is_not_kept_and_a_huge_one_ends_the_connection() -> None:
    inbound = Inbound(LIMIT, compressed=False)
    piece = bytes(60)
    assert take(inbound, frame(piece, final=False), frame(piece, MORE)) == Message(
        TEXT, None, refused=False
    )
    assert take(inbound, frame(b"next")) == Message(TEXT, b"next", refused=False)
    with pytest.raises(Fault, match="may have 100 bytes") as fault:
        take(inbound, frame(piece, final=False), *[frame(piece, MORE, final=False)] * 100)
    assert fault.value.code == TOO_BIG


def test_a_message_is_refused_with_any_of_its_frames() -> None:
    inbound = Inbound(LIMIT, compressed=False)
    assert inbound.take(frame(b"a", final=False), allowed=False) is None
    assert inbound.take(frame(b"b", MORE), allowed=True) == Message(TEXT, b"ab", refused=True)
    assert take(inbound, frame(b"c")) == Message(TEXT, b"c", refused=False)


@pytest.mark.parametrize(
    "frames",
    [
        [frame(b"", MORE)],
        [frame(b"", final=False), frame(b"")],
        [frame(pack(b"text"), packed=True)],
    ],
)
def test_faults_in_the_protocol(frames: list[Frame]) -> None:
    with pytest.raises(Fault) as fault:
        take(Inbound(LIMIT, compressed=False), *frames)
    assert fault.value.code == PROTOCOL_ERROR


def test_compressed_messages_are_inflated_as_far_as_allowed() -> None:
    inbound = Inbound(LIMIT, compressed=True)
    packed = pack(b"x" * LIMIT)
    pieces = frame(packed[:3], final=False, packed=True), frame(packed[3:], MORE)
    assert take(inbound, *pieces) == Message(TEXT, b"x" * LIMIT, refused=False)
    assert take(inbound, frame(b"plain")) == Message(TEXT, b"plain", refused=False)
    with pytest.raises(Fault, match="inflates") as fault:
        take(inbound, frame(pack(bytes(10_000)), packed=True))
    assert fault.value.code == TOO_BIG
    with pytest.raises(Fault) as fault:
        take(inbound, frame(b"\xff\xff\xff", packed=True))
    assert fault.value.code == INVALID_PAYLOAD
    with pytest.raises(Fault):
        take(inbound, frame(b"", final=False), frame(b"", MORE, packed=True))


def test_a_bomb_is_not_inflated() -> None:
    bomb = pack(bytes(100 << 20))
    assert len(bomb) < 200_000
    with pytest.raises(TooMuch, match="more than 1000 bytes"):
        inflate(bomb, 1000)


def test_an_allowance_is_a_burst_and_a_rate() -> None:
    allowance = Allowance(10)
    now = 5 * SECOND
    assert [allowance.take(now) for _ in range(12)] == [True] * 10 + [False] * 2
    assert not allowance.exhausted
    assert allowance.take(now + SECOND // 10)
    assert not allowance.take(now + SECOND // 10)
    later = now + 2 * SECOND
    assert [allowance.take(later) for _ in range(11)] == [True] * 10 + [False]
    for _ in range(10):
        allowance.take(later)
    assert allowance.exhausted


def test_refusals_are_forgotten_by_a_pause() -> None:
    allowance = Allowance(4)
    for second in range(1, 50):
        for _ in range(6):
            allowance.take(second * SECOND)
        assert not allowance.exhausted


def test_a_slow_rate_allows_one_at_a_time() -> None:
    allowance = Allowance(0.5)
    assert allowance.take(9 * SECOND)
    assert not allowance.take(10 * SECOND)
    assert allowance.take(12 * SECOND)


@given(st.lists(st.binary(max_size=70_000), max_size=8))
def test_each_message_is_compressed_on_its_own(payloads: list[bytes]) -> None:
    deflate = Deflater()
    for payload in payloads:
        made = deflate(binary_frame(payload))
        assert len(made) <= len(binary_frame(payload))
        packed = payload_of(made)
        if made[0] & 0x40:
            packed = inflate(packed, len(payload))
        assert packed == payload


def test_what_is_not_compressed() -> None:
    deflate = Deflater()
    assert deflate(pong_frame(b"x" * 125)) == pong_frame(b"x" * 125)
    short = text_frame("x" * (LEAST_BYTES - 1))
    assert deflate(short) == short
    assert deflate(text_frame("x" * LEAST_BYTES))[0] == 0xC1


@pytest.mark.parametrize(
    ("offer", "accepted"),
    [
        ("permessage-deflate", True),
        ("permessage-deflate; client_max_window_bits", True),
        ("permessage-deflate; client_max_window_bits=9; server_no_context_takeover", True),
        ('permessage-deflate; server_max_window_bits="15"', True),
        ("permessage-deflate; server_max_window_bits=10, permessage-deflate", True),
        ("permessage-deflate; server_max_window_bits=10", False),
        ("permessage-deflate; client_max_window_bits=7", False),
        ("permessage-deflate; server_no_context_takeover=1", False),
        ("permessage-deflate; unheard_of", False),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits", False),
        ("x-webkit-deflate-frame", False),
        ("", False),
    ],
)
def test_offers(offer: str, accepted: bool) -> None:
    assert accepts([offer]) is accepted
    assert accepts([]) is False
