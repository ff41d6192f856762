"""What is said to somebody whose machine can't build the package."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support import ROOT

SCRIPT = ROOT / "tools" / "requirements.py"


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def run_with(preparation: str) -> subprocess.CompletedProcess[str]:
    """Run the script after a statement that makes the machine look poorer than it is."""
    run_script = f"import runpy; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    return run("-c", f"{preparation}; {run_script}")


def test_a_machine_that_has_all_is_left_in_peace() -> None:
    done = run(str(SCRIPT))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_missing_compiler_is_named_with_its_package() -> None:
    done = run(str(SCRIPT), CC="no-such-compiler -O2")
    assert done.returncode == 1
    assert done.stderr == (
        "the C compiler no-such-compiler is missing; on Debian: apt-get install gcc libc6-dev\n"
    )


def test_missing_headers_are_named_with_their_package() -> None:
    done = run_with("import sysconfig; sysconfig.get_path = lambda name: '/no/such/folder'")
    assert done.returncode == 1
    assert done.stderr == (
        "/no/such/folder/Python.h is missing; on Debian: apt-get install python3-dev\n"
    )


def test_a_python_without_ensurepip_is_told_the_package() -> None:
    done = run_with("import sys; sys.modules['ensurepip'] = None")
    assert done.returncode == 1
    assert "on Debian: apt-get install python3-venv" in done.stderr


def test_an_old_python_is_refused_by_version() -> None:
    done = run_with("import sys; sys.version_info = (3, 10, 2)")
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed" in done.stderr
    assert "is 3.10.2; name another one: make PYTHON=" in done.stderr
