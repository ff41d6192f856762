"""What the program that measures the demo says of itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import ROOT

SCRIPT = ROOT / "tools" / "footprint.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )


def test_its_help_tells_what_is_measured_and_how_long() -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for told in ("[SECONDS]", "default: 60", "share of a core", "memory reserved for the rings"):
        assert told in " ".join(done.stdout.split())


@pytest.mark.parametrize("seconds", ["soon", "0", "nan", "inf"])
def test_a_time_that_is_none_is_refused(seconds: str) -> None:
    done = run(seconds)
    assert done.returncode == 2
    assert f"SECONDS: {seconds!r} is no number of seconds above 0" in done.stderr
    assert "Traceback" not in done.stderr
