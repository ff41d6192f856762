"""For tests of an event loop's wait for a ring: what kinds of wait and of clocks there are."""

from __future__ import annotations

import os
import subprocess

import pytest

from alphapulse._core.uring import UringVigil
from alphapulse.shm import watcher


def _kinds() -> list[str]:
    event = os.eventfd(0)
    try:
        UringVigil(event).close()
    except OSError:
        return ["thread"]
    finally:
        os.close(event)
    return ["kernel", "thread"]


def _clocks() -> list[list[str]]:
    """Words before a command: none, and those that give it another monotonic clock."""
    apart = ["unshare", "--user", "--map-root-user", "--time", "--monotonic", "100000", "--fork"]
    works = subprocess.run([*apart, "true"], check=False, capture_output=True).returncode == 0
    return [[], apart] if works else [[]]


KINDS = _kinds()
CLOCKS = _clocks()


def forbid_io_uring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it be as in a container whose rules forbid it."""

    def forbidden(event: int) -> UringVigil:
        raise PermissionError(f"no io_uring for {event}")

    monkeypatch.setattr(watcher, "UringVigil", forbidden)
