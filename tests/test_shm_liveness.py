"""Locks that end with their holder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alphapulse.shm import liveness


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "locked"
    path.write_bytes(bytes(16))
    return path


def opened(path: Path) -> liveness.Held:
    return liveness.Held(os.open(path, os.O_RDWR))


def test_second_opening_sees_the_lock_of_the_first(path: Path) -> None:
    first, second = opened(path), opened(path)
    assert not liveness.locked(second.fd)
    assert liveness.lock(first.fd)
    assert not liveness.lock(second.fd)
    assert liveness.locked(second.fd)
    assert not liveness.locked(first.fd)
    first.close()
    first.close()
    assert liveness.lock(second.fd)
    second.close()


def test_bytes_are_locked_one_by_one(path: Path) -> None:
    first, second = opened(path), opened(path)
    assert liveness.lock(first.fd, 3, 1)
    assert liveness.lock(second.fd, 4, 1)
    assert liveness.locked(second.fd, 3, 1)
    assert not liveness.locked(second.fd, 5, 1)
    for held in (first, second):
        held.close()


def test_lock_ends_with_its_process(path: Path) -> None:
    code = """
import os, sys
from alphapulse.shm import liveness
print(liveness.lock(os.open(sys.argv[1], os.O_RDWR)), flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
    )
    assert process.stdout
    assert process.stdout.readline() == b"True\n"
    held = opened(path)
    assert liveness.locked(held.fd)
    process.kill()
    process.communicate()
    assert liveness.lock(held.fd)
    held.close()


def test_descriptor_is_closed_when_it_is_forgotten(path: Path) -> None:
    held = opened(path)
    fd = held.fd
    del held
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
