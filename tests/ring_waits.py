"""For tests of an event loop's wait for a ring: the kinds of wait that this machine has."""

from __future__ import annotations

import os

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


KINDS = _kinds()


def forbid_io_uring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it be as in a container whose rules forbid it."""

    def forbidden(event: int) -> UringVigil:
        raise PermissionError(f"no io_uring for {event}")

    monkeypatch.setattr(watcher, "UringVigil", forbidden)
