"""A link's sender and readers as processes, driven through pipes, and what they measure."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from alphapulse.clock import monotonic_ns
from benchmarks.ring_links import MESSAGE_BYTES, RECORD, STAMP_AT, Link

TIMEOUT_SECONDS = 60
"""A process of the benchmark that has been at one task for so long ends itself."""

WARM_UP = 500
"""The first one-way times of a run, not counted."""


class Burst(NamedTuple):
    """What a burst took."""

    seconds: float
    """From the first message's sending to the last one's arrival at the last reader."""
    sender_cpu: float
    """Seconds."""
    readers_cpu: float
    """Seconds, all readers'."""


class Processes:
    """The sender and the readers of one link, at work.

    Raises
    ------
    RuntimeError
        one of them has failed; its traceback is on stderr
    """

    def __init__(self, sender: Connection, readers: list[Connection]) -> None:
        self._sender = sender
        self._readers = readers

    def burst(self, count: int) -> Burst:
        """Send `count` messages as fast as it goes, and wait until every reader has them."""
        for reader in self._readers:
            reader.send(("drain", count))
        for reader in self._readers:
            _answer(reader)
        self._sender.send(("burst", count))
        started_ns, sender_cpu = _answer(self._sender)
        ends = [_answer(reader) for reader in self._readers]
        self._sender.send(("cpu", 0))
        sender_cpu = _answer(self._sender)[0] - sender_cpu
        ended_ns = max(end[0] for end in ends)
        return Burst((ended_ns - started_ns) / 1e9, sender_cpu, sum(end[1] for end in ends))

    def times(self, count: int, rate: float) -> tuple[list[int], Burst]:
        """Send `count` messages at `rate` a second; all readers' one-way times, nanoseconds."""
        for reader in self._readers:
            reader.send(("times", count + WARM_UP))
        for reader in self._readers:
            _answer(reader)
        self._sender.send(("paced", count + WARM_UP, rate))
        started_ns, sender_cpu = _answer(self._sender)
        found: list[int] = []
        readers_cpu, ended_ns = 0.0, 0
        for reader in self._readers:
            data, ended, cpu = _answer(reader)
            found += array("q", data)[WARM_UP:]
            readers_cpu += cpu
            ended_ns = max(ended, ended_ns)
        self._sender.send(("cpu", 0))
        sender_cpu = _answer(self._sender)[0] - sender_cpu
        return found, Burst((ended_ns - started_ns) / 1e9, sender_cpu, readers_cpu)


@contextmanager
def processes(link: Link) -> Iterator[Processes]:
    """The processes of a link, each on a CPU of its own as far as there are any."""
    with ExitStack() as stack:
        link.open(stack)
        context = multiprocessing.get_context("spawn")

        def start(number: int) -> Connection:
            ours, theirs = context.Pipe()
            process = context.Process(target=_run, args=(link, number, theirs), daemon=True)
            process.start()
            theirs.close()
            stack.callback(_end, process, ours)
            _answer(ours)
            return ours

        sender = start(0)
        readers = [start(1 + index) for index in range(link.readers)]
        yield Processes(sender, readers)


def _answer(pipe: Connection) -> Any:
    if not pipe.poll(TIMEOUT_SECONDS + 5):
        raise RuntimeError("a process of the benchmark doesn't answer")
    try:
        return pipe.recv()
    except EOFError:
        raise RuntimeError("a process of the benchmark has ended") from None


def _end(process: Any, pipe: Connection) -> None:
    """Close the pipe, upon which the process ends."""
    pipe.close()
    process.join(10)
    if process.is_alive():
        process.kill()
        process.join()


def _pin(number: int) -> None:
    """The sender has the first CPU, the readers the others; with one only, all share it."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) > 1:
        own = cpus[0] if number == 0 else cpus[1 + (number - 1) % (len(cpus) - 1)]
        os.sched_setaffinity(0, {own})


def _run(link: Link, number: int, pipe: Connection) -> None:
    """A process: the sender if the number is 0, else a reader."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    _pin(number)
    try:
        signal.alarm(TIMEOUT_SECONDS)
        if number == 0:
            _send(link, pipe)
        else:
            _receive(link, number - 1, pipe)
    except (EOFError, BrokenPipeError):
        return  # the benchmark has ended


def _tasks(pipe: Connection) -> Iterator[tuple[str, int, float]]:
    pipe.send(None)
    while True:
        signal.alarm(0)
        name, count, *rest = pipe.recv()
        signal.alarm(TIMEOUT_SECONDS)
        yield name, count, rest[0] if rest else 0.0


def _send(link: Link, pipe: Connection) -> None:
    with link.sender() as sender:
        for name, count, rate in _tasks(pipe):
            if name == "cpu":
                pipe.send((time.process_time(),))
                continue
            started_ns, cpu = monotonic_ns(), time.process_time()
            if name == "burst":
                sender.burst(count)
            else:
                message = bytearray(RECORD)
                assert len(message) == MESSAGE_BYTES
                words = memoryview(message)[: MESSAGE_BYTES // 8 * 8].cast("q")
                first_ns = started_ns + 20_000_000
                for i in range(count):
                    due_ns = first_ns + int(i * 1e9 / rate)
                    while (now_ns := monotonic_ns()) < due_ns:
                        pass
                    words[STAMP_AT // 8] = now_ns
                    sender.send(message)
            pipe.send((started_ns, cpu))


def _receive(link: Link, index: int, pipe: Connection) -> None:
    with link.receiver(index) as receiver:
        for name, count, _rate in _tasks(pipe):
            pipe.send(None)
            cpu = time.process_time()
            if name == "drain":
                receiver.drain(count)
                pipe.send((monotonic_ns(), time.process_time() - cpu))
            else:
                found = receiver.times(count)
                pipe.send((found.tobytes(), monotonic_ns(), time.process_time() - cpu))
