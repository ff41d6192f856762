"""Frames handed out at a recording's pace."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from alphapulse.capture import player
from alphapulse.capture.player import play_capture
from alphapulse.capture.reader import Frame


def frames(*times_ns: int, size: int = 1) -> list[Frame]:
    return [Frame(t, "ws", None, b"x" * size) for t in times_ns]


class Clock:
    """Monotonic time that only sleeping moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 5_000
        monkeypatch.setattr(player, "monotonic_ns", lambda: self.now_ns)
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


def played(given: Iterable[Frame], speed: float | None, clock: Clock) -> list[tuple[int, int]]:
    async def run() -> list[tuple[int, int]]:
        start = clock.now_ns
        return [
            (clock.now_ns - start, frame.t_ns)
            async for group in play_capture(given, speed)
            for frame in group
        ]

    return asyncio.run(run())


@pytest.mark.parametrize("speed", [1.0, 4.0, 0.5])
def test_keeps_the_recordings_pace(monkeypatch: pytest.MonkeyPatch, speed: float) -> None:
    clock = Clock(monkeypatch)
    times = [10**9, 10**9 + 4_000, 10**9 + 4_000, 3 * 10**9]
    result = played(frames(*times), speed, clock)
    assert result == [(round((t - 10**9) / speed), t) for t in times]


def test_a_clock_that_went_back_costs_no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert played(frames(100, 50, 200), 1, clock) == [(0, 100), (0, 50), (100, 200)]


def test_without_pauses_all_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    times = list(range(0, 10**13, 10**10))
    assert played(frames(*times), None, clock) == [(0, t) for t in times]


async def test_groups_are_bounded() -> None:
    groups = [group async for group in play_capture(frames(*range(2000)), None)]
    assert [len(group) for group in groups] == [512, 512, 512, 464]
    large = frames(1, 2, 3, size=3 * 1024 * 1024)
    assert [len(group) async for group in play_capture(large, None)] == [2, 1]


@pytest.mark.parametrize("speed", [0, -1, float("nan")])
async def test_refuses_speeds_that_are_none(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        async for _ in play_capture(frames(1), speed):
            pass
