"""The history's writer as a process of its own: with Redis, one per ring prefix and machine."""

from __future__ import annotations

import asyncio
import grp
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from alphapulse import metrics
from alphapulse.config import Settings
from alphapulse.config.values import RedisUrl, masked
from alphapulse.errors import ConfigError, StoreError
from alphapulse.log import get_logger
from alphapulse.shm import liveness
from alphapulse.shm.names import FOLDER
from alphapulse.store.backfill import run_backfill
from alphapulse.store.redis import RedisStore
from alphapulse.store.repository import Store
from alphapulse.store.writer import run_store_writer

SERVICE = "store"
STANDBY_SECONDS = 1.0
"""How often a writer that stands by looks whether it is wanted."""
CLOSE_SECONDS = 5.0
"""What the last batch may take when the service ends."""

log = get_logger(__name__)


async def run_store(
    settings: Settings, *, stop: asyncio.Event, ready: Callable[[str], None] | None = None
) -> int:
    """Write what the rings give to Redis until told to stop; returns the exit status.

    While another process of this machine does that, this one stands by.

    Parameters
    ----------
    settings : all of them
    stop : ends it when set
    ready : called with the store's address once this one is the writer

    Raises
    ------
    ConfigError
        there is no Redis in the settings
    """
    if not settings.store.redis_url:
        raise ConfigError(
            "store.redis_url",
            "the writer of its own is for Redis; the embedded database is written by the API",
        )
    sampler = asyncio.create_task(
        metrics.ProcessSampler(SERVICE).run(settings.metrics.sample_seconds), name="sampler"
    )
    lock = WriterLock(settings.ring.prefix, settings.ring.group)
    try:
        if await _turn(lock, stop):
            store = await RedisStore.open(settings.store, settings.ring.prefix)
            if ready is not None:
                ready(str(masked(settings.store.redis_url, RedisUrl)))
            try:
                await _write(settings, store, stop)
            finally:
                await store.close()
    finally:
        lock.close()
        sampler.cancel()
        await asyncio.gather(sampler, return_exceptions=True)
    return 0


async def write_history(settings: Settings, store: Store, stop: asyncio.Event) -> None:
    """Write what the rings give, and fill the gaps in it, until told to stop."""
    await asyncio.gather(
        run_store_writer(settings, store, stop), run_backfill(settings, store, stop)
    )


async def _write(settings: Settings, store: Store, stop: asyncio.Event) -> None:
    writing = asyncio.create_task(write_history(settings, store, stop), name="writer")
    stopped = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({writing, stopped}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({writing}, timeout=CLOSE_SECONDS)
    finally:
        stopped.cancel()
        writing.cancel()
        await asyncio.wait({writing})
    if not writing.cancelled():
        writing.result()


async def _turn(lock: WriterLock, stop: asyncio.Event) -> bool:
    """Wait until there is no other writer; False if told to stop."""
    if not lock.take():
        log.info("another process writes the history: standing by", lock=str(lock.path))
        while not lock.take():
            with suppress(TimeoutError):
                async with asyncio.timeout(STANDBY_SECONDS):
                    await stop.wait()
            if stop.is_set():
                return False
        log.info("the other writer is gone: taking over")
    return True


class WriterLock:
    """Tells who writes the history of a ring prefix on this machine; ends with its process.

    Parameters
    ----------
    prefix, group : ``ring.prefix`` and ``ring.group`` of the settings
    """

    def __init__(self, prefix: str, group: str = "") -> None:
        self.path = _path(prefix)
        self._group = group
        self._held: liveness.Held | None = None

    def take(self) -> bool:
        """Whether this process is the writer now.

        Raises
        ------
        StoreError
            the lock's file can't be opened
        """
        try:
            held = liveness.Held(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreError(f"can't open the writers' lock: {error}") from error
        # Between opening and locking, the one before may have removed its file.
        if liveness.lock(held.fd) and self._is_at(held.fd):
            self._held = held
            self._share(held.fd)
            return True
        held.close()
        return False

    def close(self) -> None:
        """Give it up, if this process has it. May be called twice."""
        held, self._held = self._held, None
        if held is not None:
            self.path.unlink(missing_ok=True)
            held.close()

    def _share(self, fd: int) -> None:
        """Let those who may read the rings see the lock, such as an API of another user."""
        if not self._group:
            return
        try:
            named = not self._group.isdecimal()
            os.fchown(fd, -1, grp.getgrnam(self._group).gr_gid if named else int(self._group))
            os.fchmod(fd, 0o640)
        except (KeyError, OSError) as error:
            log.warning(
                "only this user can tell whether the history is written",
                group=self._group,
                problem=str(error),
            )

    def _is_at(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self.path.stat())
        except FileNotFoundError:
            return False


def is_being_written(prefix: str) -> bool:
    """Whether some process of this machine writes the history to Redis.

    Raises
    ------
    PermissionError
        the writer is another user's, and this one isn't in the rings' group
    """
    try:
        held = liveness.Held(os.open(_path(prefix), os.O_RDONLY | os.O_CLOEXEC))
    except FileNotFoundError:
        return False
    try:
        return liveness.locked(held.fd)
    finally:
        held.close()


def _path(prefix: str) -> Path:
    """Beside the rings, under a name that no ring has."""
    return FOLDER / f"{prefix}.store~writer"
