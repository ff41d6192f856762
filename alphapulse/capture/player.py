"""Playing captures: frames handed out at their own pace, faster, or as fast as they are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from alphapulse.capture.reader import Frame
from alphapulse.clock import NS_PER_SECOND, monotonic_ns

MAX_FRAMES_AT_ONCE = 512
MAX_BYTES_AT_ONCE = 4 * 1024 * 1024


async def play_capture(
    frames: Iterable[Frame], speed: float | None = 1.0
) -> AsyncIterator[list[Frame]]:
    """Yield the frames in order, in groups of those due at the same moment.

    Parameters
    ----------
    frames : usually `read_capture`
    speed : 1 keeps the recording's own pace, N is N times faster, None as fast as they are read

    A group holds at most ``MAX_FRAMES_AT_ONCE`` frames, and is closed once it exceeds
    ``MAX_BYTES_AT_ONCE``. A consumer that takes long for one group finds the next ones due at
    once: the recording's clock goes on.

    Raises
    ------
    ValueError
        the speed isn't above zero
    """
    if speed is not None and not speed > 0:
        raise ValueError(f"speed is {speed}; it must be above zero, or None for no pauses")
    started_ns = monotonic_ns()
    first_ns: int | None = None
    due: list[Frame] = []
    size = 0
    for frame in frames:
        if first_ns is None:
            first_ns = frame.t_ns
        wait_ns = 0
        if speed is not None:
            wait_ns = started_ns + round((frame.t_ns - first_ns) / speed) - monotonic_ns()
        if due and (wait_ns > 0 or len(due) >= MAX_FRAMES_AT_ONCE or size > MAX_BYTES_AT_ONCE):
            yield due
            due = []
            size = 0
            # Without a pause of its own, a fast recording would starve the event loop.
            await asyncio.sleep(max(wait_ns, 0) / NS_PER_SECOND)
        elif wait_ns > 0:
            await asyncio.sleep(wait_ns / NS_PER_SECOND)
        due.append(frame)
        size += len(frame.raw)
    if due:
        yield due
