"""A process that is stopped takes nobody for silent when it goes on."""

from __future__ import annotations

from alphapulse.collectors.running import RunningClock
from tests.support import ManualClock


def test_it_grows_with_time_while_the_process_runs() -> None:
    clock = ManualClock(1000.0)
    running = RunningClock(clock)
    started = running.now()
    for _ in range(100):
        running.tick(0.25)
        clock.now += 0.2
        assert running.now() - started == clock.now - 1000.0


def test_it_stands_still_while_the_process_is_stopped() -> None:
    clock = ManualClock(1000.0)
    running = RunningClock(clock)
    running.tick(0.25)
    before = running.now()
    clock.now += 3600.0
    # Also for whoever asks before the late tick has come.
    assert running.now() == before + 0.25
    running.tick(0.25)
    assert running.now() == before + 0.25
    clock.now += 0.25
    assert running.now() == before + 0.5
