"""The directory through which the processes of one installation share their metrics.

Each process has an identity (its pid and a random part, so that a reused pid never takes over a
dead process's files), a lock file of that name that it keeps locked while it lives, and
prometheus-client's memory-mapped files ``<kind>_<identity>.db``. Files of the dead are folded: a
counter's last value goes into the archive, so that no total ever falls; a gauge's is dropped.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict

from alphapulse.errors import ConfigError

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_ARCHIVE = "archive"
_GUARD = "guard"
"""Locked by whoever changes the set of files, or needs it not to change."""


class Identity:
    """This process's name in the directory; a forked child gets one of its own."""

    def __init__(self) -> None:
        self._begin()
        # To ask for the pid each time would be a system call for each metric that changes.
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._text = f"{os.getpid()}-{secrets.token_hex(4)}"

    def __call__(self) -> str:
        """The name, for instance ``4711-9f3ac01b``."""
        return self._text


def runtime_directory(prefix: str) -> Path:
    """Where the processes of one ring prefix share metrics.

    ``PROMETHEUS_MULTIPROC_DIR`` where set; else below ``XDG_RUNTIME_DIR``, or the directory for
    temporary files where there is none.
    """
    given = os.environ.get(DIRECTORY_VARIABLE)
    if given:
        return Path(given)
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime) / "alphapulse" / prefix
    return Path(tempfile.gettempdir()) / f"alphapulse-{os.geteuid()}" / prefix


class SharedDirectory:
    """One installation's metrics directory, as one process takes part in it.

    Parameters
    ----------
    path : the directory; made, with its parents, for this user alone
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity = Identity()
        self._lock_fd = -1

    def join(self) -> None:
        """Take part: clear away what the dead have left and lock this process's own name.

        Raises
        ------
        ConfigError
            the directory belongs to somebody else or can't be made
        """
        with self.guarded():
            if not self._living():
                self._remove_files()
            self.fold()
            name = str(self._lock_path(self.identity()))
            self._lock_fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX)

    def leave(self) -> None:
        """Stop taking part; the last one removes the directory."""
        if self._lock_fd < 0:
            return
        with self.guarded():
            os.close(self._lock_fd)
            self._lock_fd = -1
            if self._living():
                self.fold()
                return
            self._remove_files()
            (self.path / _GUARD).unlink()
            with suppress(OSError):  # not empty: it holds files that aren't ours
                self.path.rmdir()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Keep other processes from changing the set of files."""
        guard = self._open_guard()
        try:
            yield
        finally:
            os.close(guard)

    def files(self) -> list[str]:
        """The metric files that can be read; call it while guarded."""
        # A file that a process has just made is empty for a moment.
        return sorted(str(path) for path in self.path.glob("*.db") if path.stat().st_size)

    def fold(self) -> None:
        """Fold the files of dead processes; call it while guarded."""
        living = self._living()
        dead = [path for path in self._metric_files() if _owner(path) not in living]
        for path in dead:
            kind = path.name.partition("_")[0]
            if kind != "gauge" and path.stat().st_size:
                self._archive(kind, path)
            path.unlink()
        for lock in self.path.glob("*.lock"):
            if lock.stem not in living:
                lock.unlink()

    def _archive(self, kind: str, path: Path) -> None:
        archive = MmapedDict(str(self.path / f"{kind}_{_ARCHIVE}.db"))
        try:
            for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):
                before, _ = archive.read_value(key)
                archive.write_value(key, before + value, 0.0)
        finally:
            archive.close()

    def _living(self) -> set[str]:
        """Identities whose lock is held; locks are the kernel's, so a crash frees them."""
        return {path.stem for path in self.path.glob("*.lock") if _is_locked(path)}

    def _metric_files(self) -> list[Path]:
        return [path for path in self.path.glob("*.db") if _owner(path) != _ARCHIVE]

    def _lock_path(self, identity: str) -> Path:
        return self.path / f"{identity}.lock"

    def _remove_files(self) -> None:
        for pattern in ("*.db", "*.lock"):
            for path in self.path.glob(pattern):
                path.unlink()

    def _open_guard(self) -> int:
        while True:
            _make_private(self.path)
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                guard = os.open(self.path / _GUARD, flags, 0o600)
            except FileNotFoundError:
                continue  # the last one to leave has just removed the directory
            fcntl.flock(guard, fcntl.LOCK_EX)
            if os.fstat(guard).st_nlink:
                return guard
            os.close(guard)


def _owner(path: Path) -> str:
    return path.stem.rpartition("_")[2]


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _make_private(path: Path) -> None:
    # Below a directory that everybody may write to, a name may have been taken by somebody else.
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise ConfigError(DIRECTORY_VARIABLE, f"{path} can't be made: {error}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise ConfigError(DIRECTORY_VARIABLE, f"{path} is no directory of this user's own")
