"""What is to be done later: the events of subscriptions that want one every so often."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Protocol


class Task(Protocol):
    """Something that has its time."""

    def due(self, now_ns: int) -> None:
        """The time has come."""


class Timetable:
    """Tasks by the time at which they are due.

    Parameters
    ----------
    wake : how to be called once after some seconds; None where somebody calls `run` often enough
    """

    def __init__(self, wake: Callable[[float, Callable[[], None]], object] | None = None) -> None:
        self._wake = wake
        self._tasks: list[tuple[int, int, Task]] = []
        self._order = count()
        self._awake_ns: int | None = None
        """When we are to be called next."""

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, at_ns: int, task: Task) -> None:
        """Note a task for a monotonic time, with the next `run` at the earliest."""
        heappush(self._tasks, (at_ns, next(self._order), task))

    def run(self, now_ns: int) -> None:
        """Do what is due, those tasks excepted that are added meanwhile."""
        if not self._tasks:
            return
        tasks = []
        while self._tasks and self._tasks[0][0] <= now_ns:
            tasks.append(heappop(self._tasks)[2])
        for task in tasks:
            task.due(now_ns)

    def arrange(self, now_ns: int, call: Callable[[], None]) -> None:
        """Have `call` called when the next task is due, unless it will be anyway."""
        if self._wake is None or not self._tasks:
            return
        at_ns = self._tasks[0][0]
        if self._awake_ns is not None and self._awake_ns <= at_ns:
            return
        self._awake_ns = at_ns

        def awake() -> None:
            if self._awake_ns == at_ns:
                self._awake_ns = None
            call()

        self._wake(max(at_ns - now_ns, 0) / 1e9, awake)
