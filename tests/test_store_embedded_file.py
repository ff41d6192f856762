"""What is said of a file that can't be opened, and what then helps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from alphapulse.config import StoreSettings
from alphapulse.errors import StoreError
from alphapulse.store.embedded_file import connect
from tests.support import ROOT

HOLD = """
import sys
from alphapulse.config import StoreSettings
from alphapulse.store.embedded_file import connect
held = connect(StoreSettings(path=sys.argv[1]), read_only=sys.argv[2] == "read")
print("open", flush=True)
sys.stdin.read()
"""
BLOCK_BYTES = 4096


@pytest.fixture
def settings(tmp_path: Path) -> StoreSettings:
    made = StoreSettings(path=str(tmp_path / "history.duckdb"))
    connect(made).close()
    return made


@contextmanager
def held(settings: StoreSettings, how: str) -> Iterator[int]:
    """A process that has the file open, by its pid."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, settings.path, how],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        try:
            yield holder.pid
        finally:
            holder.kill()


def refusal(settings: StoreSettings, *, read_only: bool) -> str:
    with pytest.raises(StoreError) as caught:
        connect(settings, read_only=read_only)
    return str(caught.value)


def test_who_reads_is_sent_to_the_writers_server(settings: StoreSettings) -> None:
    with held(settings, "write") as pid:
        said = refusal(settings, read_only=True)
    assert f"is open in process {pid}, which writes it" in said
    assert "`alphapulse export --from http" in said
    assert 'alphapulse.open_repository("http' in said
    assert "store.path" not in said, "another file has other history"


def test_who_writes_may_use_another_file(settings: StoreSettings) -> None:
    with held(settings, "write") as pid:
        said = refusal(settings, read_only=False)
    assert f"is open in process {pid}, and the embedded database serves one process" in said
    for way in ("store.path", "store.redis_url", "--from", "alphapulse.open_repository"):
        assert way in said


def test_who_writes_is_told_of_readers(settings: StoreSettings) -> None:
    with held(settings, "read") as pid:
        said = refusal(settings, read_only=False)
        connect(settings, read_only=True).close()
    assert f"is open in process {pid}, which reads it" in said
    assert "store.path" in said
    assert "read_only=True" in said
    assert "--from" not in said, "there is no server"


def test_a_file_that_is_open_here_is_told_as_such(settings: StoreSettings) -> None:
    with connect(settings):
        assert "is open in this process already" in refusal(settings, read_only=True)


def test_a_damaged_block_is_no_lock(settings: StoreSettings) -> None:
    path = Path(settings.path)
    content = bytearray(path.read_bytes())
    content[3 * BLOCK_BYTES + 64 : 3 * BLOCK_BYTES + 128] = bytes(range(64))
    path.write_bytes(content)
    said = refusal(settings, read_only=True)
    assert "can't be opened as a database" in said
    assert "block" in said
    assert "open in" not in said.partition(": ")[0]
