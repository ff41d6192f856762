"""Processes that belong together: restarted where they crash, ended together, never orphaned.

A parent calls `supervise`; each child's ``main`` is `run_service`. The child gets its settings as
JSON on stdin and says on stdout, in one line of JSON, when it is ready.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import msgspec
import uvloop

from alphapulse import log as logging_setup
from alphapulse import metrics
from alphapulse.backoff import Backoff
from alphapulse.config import Settings, load
from alphapulse.errors import AlphaPulseError, ConfigError, RingError, RingSpaceError, StoreError
from alphapulse.log import get_logger

log = get_logger(__name__)

GAVE_UP = 2
"""Exit status of a service that would fail the same way again."""

FIRST_RESTART_SECONDS = 0.5
MAX_RESTART_SECONDS = 30.0
GOOD_RUN_SECONDS = 60.0
"""A process that ran for this long is restarted at once again."""

KILL_SECONDS = 8.0
"""How long a process may take to end when told to; then it is killed."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_GC_THRESHOLDS = (20_000, 20, 50)
_PR_SET_PDEATHSIG = 1
_SUPERVISED = "--supervised-by"

Ready = Callable[..., None]
"""``ready(**facts)``: the service works; the facts (its port) are for whoever started it."""

Service = Callable[[Settings, Ready], Awaitable[int]]
"""Runs until SIGTERM or SIGINT; returns the exit status."""


class Child(NamedTuple):
    """A process to run: ``python -m module arguments``."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()


class Supervised:
    """One child in whichever incarnation.

    Parameters
    ----------
    child : what to run
    settings : handed to it, in each incarnation
    stop : set when all is to end
    """

    def __init__(self, child: Child, settings: Settings, stop: asyncio.Event) -> None:
        self.child = child
        self.gave_up = False
        self.ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        """What the first incarnation said when it was ready; cancelled if it never was."""
        self.use(settings)
        self._stop = stop
        self._backoff = Backoff(FIRST_RESTART_SECONDS, MAX_RESTART_SECONDS, GOOD_RUN_SECONDS)

    def use(self, settings: Settings) -> None:
        """Hand over these settings to every incarnation from the next one on."""
        self._settings = msgspec.json.encode(settings)

    async def run(self) -> None:
        """Keep the process running until told to stop, or until restarting is of no use."""
        try:
            while not self._stop.is_set():
                process = await self._start()
                status = await self._wait(process)
                if self._stop.is_set():
                    if status != 0:
                        log.warning("ended badly", process=self.child.name, status=_words(status))
                    return
                if status == GAVE_UP:
                    log.error("given up; its own message says why", process=self.child.name)
                    self.gave_up = True
                    return
                await self._pause(process.pid, status)
        finally:
            self.ready.cancel()

    async def _pause(self, pid: int, status: int) -> None:
        self._backoff.flowing()
        pause = self._backoff.failed()
        log.error(
            "ended, starting it again",
            process=self.child.name,
            pid=pid,
            status=_words(status),
            after_seconds=round(pause, 2),
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._stop.wait()

    async def _start(self) -> asyncio.subprocess.Process:
        # A session of its own keeps a terminal's Ctrl-C and hang-up from it: it is told by us.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self.child.module,
            *self.child.arguments,
            _SUPERVISED,
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._backoff.flowing()
        log.info("started", process=self.child.name, pid=process.pid)
        return process

    async def _wait(self, process: asyncio.subprocess.Process) -> int:
        """Wait until the process has ended; end it when told to stop."""
        talking = asyncio.create_task(self._talk(process))
        ended = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Also where this task is cancelled.
            stopping.cancel()
            if not ended.done():
                await _end(process, ended, self.child.name)
            talking.cancel()
        return ended.result()

    async def _talk(self, process: asyncio.subprocess.Process) -> None:
        """Hand over the settings; take the line that says that it is ready."""
        assert process.stdin is not None
        assert process.stdout is not None
        # Where it has ended already, its status says more.
        with suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(self._settings)
            await process.stdin.drain()
        process.stdin.close()
        line = await process.stdout.readline()
        if line and not self.ready.done():
            self.ready.set_result(msgspec.json.decode(line, type=dict[str, Any]))


async def supervise(children: Sequence[Supervised], stop: asyncio.Event) -> int:
    """Run children until told to stop; returns `GAVE_UP` if one of them did, else 0.

    Call it from the program's main thread: the children end with the thread that started them.
    """
    tasks = [asyncio.create_task(child.run()) for child in children]
    try:
        await asyncio.gather(*tasks)
    finally:
        # Also where this is cancelled: no process is left behind.
        stop.set()
        await asyncio.gather(*tasks, return_exceptions=True)
    return GAVE_UP if any(child.gave_up for child in children) else 0


def stop_event() -> asyncio.Event:
    """An event that SIGTERM, SIGINT and SIGHUP set."""
    stop = asyncio.Event()
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def run_service(
    name: str,
    service: Service,
    arguments: Sequence[str],
    *,
    overrides: Mapping[str, Any] | None = None,
    config: str | None = None,
) -> int:
    """Run a service as this process; returns its exit status.

    Parameters
    ----------
    name : for logs and metrics
    service : what to run
    arguments : of the command line: those of a supervised child, or none
    overrides, config : as `alphapulse.config.load` takes them, where nobody supervises
    """
    supervised = len(arguments) == 2 and arguments[0] == _SUPERVISED
    try:
        if supervised:
            die_with_parent(int(arguments[1]))
            settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
        else:
            settings = load(config, overrides=overrides)
    except ConfigError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return GAVE_UP
    logging_setup.setup(settings.log, name)
    try:
        metrics.setup(settings.ring.prefix)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, gc_tuned():
            return runner.run(_serve(name, service, settings, supervised))
    except RingSpaceError as error:
        # Memory that others use now may be free later.
        log.error("no room", problem=str(error))  # noqa: TRY400
        return 1
    except (ConfigError, RingError, StoreError) as error:
        log.error("can't go on", problem=str(error))  # noqa: TRY400
        return GAVE_UP
    except AlphaPulseError as error:
        log.error("failed", problem=str(error))  # noqa: TRY400
        return 1


async def _serve(name: str, service: Service, settings: Settings, supervised: bool) -> int:
    def ready(**facts: Any) -> None:
        words = ", ".join(f"{key} {value}" for key, value in facts.items())
        line = msgspec.json.encode(facts).decode() if supervised else f"{name} is ready: {words}"
        print(line, flush=True)

    return await service(settings, ready)


def die_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM when the parent process ends, however it does.

    Parameters
    ----------
    parent : its pid; if it is gone already, this process exits here
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}")
    if os.getppid() != parent:
        raise SystemExit(0)


@contextmanager
def gc_tuned() -> Iterator[None]:
    """Collect garbage seldom: what messages leave behind is freed by reference counts alone."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


async def _end(process: asyncio.subprocess.Process, ended: asyncio.Task[int], name: str) -> None:
    """Tell a process to end, and kill it if it doesn't."""
    process.terminate()
    done, _ = await asyncio.wait({ended}, timeout=KILL_SECONDS)
    if not done:
        log.error("doesn't end, killing it", process=name, pid=process.pid)
        process.kill()
        await asyncio.wait({ended})


def _words(status: int) -> str:
    """An exit status as people read it: a number, or a signal's name."""
    if status >= 0:
        return str(status)
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
