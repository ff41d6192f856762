"""One server at work: it, the process that feeds it, and the load client, on CPUs of their own."""

from __future__ import annotations

import mmap
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import msgspec

from benchmarks import programs
from benchmarks.fanout_feed import Done, Options, Task
from benchmarks.fanout_market import symbols
from benchmarks.fanout_report import Case, Report
from benchmarks.fanout_servers import Server
from benchmarks.harness import ROOT, ring_prefix

STAMP = '"timestamp_ns":'
"""Before the time at which the feeder has sent an event."""
STAMP_AT = 16
"""Where a record has it."""
SNAPSHOT = '{"type":"orderbook_snapshot"'
"""Begins a message that is no delivery of an event."""

_FEED = [sys.executable, "-m", "benchmarks.fanout_feed"]
_SOURCE = Path(__file__).with_name("fanout_load.c")
_QUIET_SECONDS = 5.0
"""When nothing more has been delivered for so long, the rest is lost."""


@contextmanager
def load_program() -> Iterator[Path | None]:
    """The load client, compiled; None where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="apbench-") as folder:
        program = Path(folder) / "fanout_load"
        subprocess.run(
            [compiler, "-O2", "-std=gnu11", "-o", str(program), str(_SOURCE)], check=True
        )
        yield program


def allow_files(clients: int) -> str | None:
    """Let processes that are started from now on hold so many sockets; why not, where they can't.

    Parameters
    ----------
    clients : sockets that a process needs, beside a few files
    """
    wanted = clients + 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return f"{clients} clients need {wanted} files, and the hard limit is {hard}"
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return None


class Started(NamedTuple):
    """A server and its feeder, without clients."""

    server: Server
    case: Case
    process: subprocess.Popen[bytes]
    feeder: subprocess.Popen[bytes]
    port: int
    progress: Path
    """File in which the load client counts."""
    prefix: str
    """Of the ring."""

    def health(self) -> Mapping[str, Any]:
        """What our server says of itself."""
        with urlopen(f"http://127.0.0.1:{self.port}/health", timeout=10) as answer:
            found: Mapping[str, Any] = msgspec.json.decode(answer.read())
            return found

    def metric(self, name: str) -> float:
        """What our server has counted under a name, all labels together."""
        code = (
            "from alphapulse import metrics; import sys; metrics.setup(sys.argv[1]);"
            "print(metrics.render()[1].decode())"
        )
        command = [sys.executable, "-c", code, self.prefix]
        text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        lines = (line for line in text.splitlines() if re.match(rf"{name}[ {{]", line))
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


class Running:
    """A server with its clients connected, and what can be done with them.

    Parameters
    ----------
    started : the server
    load : the load client
    """

    def __init__(self, started: Started, load: subprocess.Popen[bytes]) -> None:
        self.pid = started.process.pid
        self._feeder = started.feeder
        self._load = load
        with started.progress.open("rb") as file:
            memory = mmap.mmap(file.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ)
        self._delivered = memoryview(memory)[:8].cast("Q")

    def feed(
        self, seconds: float, *, rate: float = 0.0, even: bool = False, window: int = 0
    ) -> Done:
        """Have events sent, as a `Task` says; returns when they have been."""
        task = Task(seconds=seconds, rate=rate, even=even, window=window)
        programs.write(self._feeder, msgspec.json.encode(task))
        return msgspec.json.decode(programs.read(self._feeder, seconds), type=Done)

    def settle(self, done: Done) -> None:
        """Wait until all that was sent has been delivered, or nothing more comes."""
        seen, since = -1, time.monotonic()
        while seen < done.deliveries and time.monotonic() - since < _QUIET_SECONDS:
            time.sleep(0.002)
            if self._delivered[0] != seen:
                seen, since = self._delivered[0], time.monotonic()

    def phase(self, name: str) -> None:
        """Begin to count anew."""
        self._command(f"phase {name}")

    def stall(self) -> None:
        """Have the first client stop reading."""
        self._command("stall")

    def read_again(self) -> None:
        """Have it read what has piled up."""
        self._command("read")

    def finish(self, done: Done) -> Report:
        """Wait until all that was sent has been delivered, or nothing more comes."""
        self._command(f"finish {done.deliveries}")
        return msgspec.json.decode(programs.read(self._load), type=Report)

    def cpu_seconds(self) -> float:
        """CPU time of the server so far, all threads'."""
        return programs.cpu_seconds(self.pid)

    def _command(self, text: str) -> None:
        programs.write(self._load, text.encode())
        answer = programs.read(self._load)
        if answer.strip() != b"done":
            raise RuntimeError(f"the load client has ended early: {answer.decode()}")


class Stage:
    """Where servers are measured: starts processes, and knows the load client's program.

    Parameters
    ----------
    program : the load client
    """

    def __init__(self, program: Path) -> None:
        self._program = program
        cpus = sorted(os.sched_getaffinity(0))
        self._server_cpus = set(cpus[:1])
        self._other_cpus = set(cpus[1:]) or self._server_cpus

    @contextmanager
    def at_work(self, server: Server, case: Case, *load_options: str) -> Iterator[Running]:
        """A server with the clients of a case, greeted.

        Parameters
        ----------
        load_options : further ones of the load client
        """
        with (
            self.started(server, case) as started,
            self.connected(started, *load_options) as running,
        ):
            yield running

    @contextmanager
    def started(self, server: Server, case: Case) -> Iterator[Started]:
        """A server and its feeder."""
        with ExitStack() as stack:
            prefix = stack.enter_context(ring_prefix())
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="apbench-")))
            progress = folder / "progress"
            progress.write_bytes(bytes(mmap.PAGESIZE))
            source, sink = os.pipe()
            try:
                options = Options(
                    readers=case.readers(),
                    progress=str(progress),
                    prefix=prefix if server.from_ring else "",
                    pipe=sink,
                )
                feeder = programs.start(
                    stack, [*_FEED, _json(options)], cpus=self._other_cpus, files=[sink]
                )
                programs.read(feeder)
                process = programs.start(
                    stack,
                    [word.format(pipe=source) for word in server.command],
                    cpus=self._server_cpus,
                    environ={key: one.format(prefix=prefix) for key, one in server.environ.items()},
                    folder=server.folder,
                    files=[source],
                )
            finally:
                os.close(source)
                os.close(sink)
            port = int(programs.read(process).split()[-1])
            yield Started(server, case, process, feeder, port, progress, prefix)

    @contextmanager
    def connected(self, started: Started, *options: str) -> Iterator[Running]:
        """The clients, greeted."""
        server, case = started.server, started.case
        names = symbols(case.symbols)
        file = started.progress.with_name("subscriptions")
        lines = (server.subscription([names[one] for one in mine]) for mine in case.chosen())
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        stamp = ["--stamp-at", str(STAMP_AT)] if server.binary else ["--stamp", STAMP]
        command = [
            str(self._program),
            *("--port", str(started.port), "--clients", str(case.clients)),
            *("--subscriptions", str(file), "--progress", str(started.progress)),
            *("--greeting", str(server.greeting(case.each)), "--apart", SNAPSHOT),
            *("--patience", str(_QUIET_SECONDS)),
            *stamp,
            *options,
        ]
        with ExitStack() as stack:
            load = programs.start(stack, command, cpus=self._other_cpus)
            answer = programs.read(load)
            if answer.strip() != b"ready":
                raise RuntimeError(f"clients can't connect to {server.name}: {answer.decode()}")
            yield Running(started, load)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
