"""Fixtures that every test may use."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def captures() -> Path:
    """Folder of the recorded venue traffic; the test is skipped where there is none."""
    folder = Path(os.environ.get("ALPHAPULSE_CAPTURES", ROOT.parent / "shared" / "captures"))
    if not (folder / "kraken.jsonl").is_file():
        pytest.skip(f"captures are absent: no {folder / 'kraken.jsonl'}")
    return folder


@pytest.fixture
def ring_prefix() -> Iterator[str]:
    """A ring prefix of the test's own; what is left under it afterwards fails the test."""
    prefix = f"aptest-{secrets.token_hex(4)}"
    yield prefix
    left = sorted(Path("/dev/shm").glob(f"{prefix}*"))
    for path in left:
        path.unlink(missing_ok=True)
    assert not left, f"shared-memory segments left behind: {[path.name for path in left]}"
