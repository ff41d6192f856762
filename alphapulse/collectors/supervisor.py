"""A process per venue, restarted where it crashes, stopped together, orphaned never."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import msgspec

from alphapulse.collectors.backoff import Backoff
from alphapulse.collectors.daemon import GAVE_UP
from alphapulse.config import Settings
from alphapulse.log import get_logger

log = get_logger(__name__)

FIRST_RESTART_SECONDS = 0.5
MAX_RESTART_SECONDS = 30.0
GOOD_RUN_SECONDS = 60.0
"""A process that ran for this long is restarted at once again."""

KILL_SECONDS = 8.0
"""How long a process may take to end when told to; then it is killed."""

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def run_collectors(settings: Settings, *, stop: asyncio.Event | None = None) -> int:
    """Run a process for each venue that is switched on, until told to stop.

    Call it from the program's main thread: the processes end with the thread that started them.

    Parameters
    ----------
    settings : all settings; the processes get them as they are here
    stop : ends it when set; without it SIGTERM, SIGINT and SIGHUP do

    Returns
    -------
    int
        exit status: 0, or `GAVE_UP` if a venue could not be collected at all
    """
    names = list(settings.venues.enabled())
    if not names:
        log.error("nothing to do: no venue is enabled; see venues.<name>.enabled")
        return GAVE_UP
    loop = asyncio.get_running_loop()
    if stop is None:
        stop = asyncio.Event()
        for number in FORWARDED:
            loop.add_signal_handler(number, stop.set)
    encoded = msgspec.json.encode(settings)
    supervised = [_Supervised(name, encoded, stop) for name in names]
    tasks = [asyncio.create_task(one.run()) for one in supervised]
    try:
        await asyncio.gather(*tasks)
    finally:
        # Also where this is cancelled: no process is left behind.
        stop.set()
        await asyncio.gather(*tasks, return_exceptions=True)
    return GAVE_UP if any(one.gave_up for one in supervised) else 0


class _Supervised:
    """One venue's process, in whichever incarnation.

    Parameters
    ----------
    name : of the venue
    settings : all settings, as JSON
    stop : set when all is to end
    """

    def __init__(self, name: str, settings: bytes, stop: asyncio.Event) -> None:
        self.gave_up = False
        self._name = name
        self._settings = settings
        self._stop = stop
        self._backoff = Backoff(FIRST_RESTART_SECONDS, MAX_RESTART_SECONDS, GOOD_RUN_SECONDS)

    async def run(self) -> None:
        """Keep the process running until told to stop, or until restarting is of no use."""
        while not self._stop.is_set():
            process = await self._start()
            status = await self._wait(process)
            if self._stop.is_set():
                if status != 0:
                    log.warning("ended badly", exchange=self._name, status=_words(status))
                return
            if status == GAVE_UP:
                log.error("given up; its own message says why", exchange=self._name)
                self.gave_up = True
                return
            self._backoff.flowing()
            pause = self._backoff.failed()
            log.error(
                "collector ended, starting it again",
                exchange=self._name,
                pid=process.pid,
                status=_words(status),
                after_seconds=round(pause, 2),
            )
            await self._rest(pause)

    async def _start(self) -> asyncio.subprocess.Process:
        # A session of its own keeps a terminal's Ctrl-C and hang-up from it: it is told by us.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "alphapulse.collectors.daemon",
            self._name,
            "--supervised-by",
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._backoff.flowing()
        log.info("collector started", exchange=self._name, pid=process.pid)
        return process

    async def _wait(self, process: asyncio.subprocess.Process) -> int:
        """Wait until the process has ended; end it when told to stop."""
        feeding = asyncio.create_task(self._hand_over(process))
        ended = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Also where this task is cancelled.
            stopping.cancel()
            if not ended.done():
                await _end(process, ended, self._name)
            feeding.cancel()
        return ended.result()

    async def _hand_over(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(self._settings)
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            # It has ended already; its status says more.
            return
        finally:
            process.stdin.close()

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return


async def _end(process: asyncio.subprocess.Process, ended: asyncio.Task[int], name: str) -> None:
    """Tell a process to end, and kill it if it doesn't."""
    process.terminate()
    done, _ = await asyncio.wait({ended}, timeout=KILL_SECONDS)
    if not done:
        log.error("collector doesn't end, killing it", exchange=name, pid=process.pid)
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
