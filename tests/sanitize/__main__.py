"""Run the native modules' tests under AddressSanitizer and UndefinedBehaviorSanitizer.

``python -m tests.sanitize [pytest arguments]`` builds the modules into a temporary folder, proves
on two deliberate errors that the sanitizers catch them, runs the native modules' tests there, then
the ring's loops in two threads under ThreadSanitizer. Any finding makes the exit status nonzero.
Needs gcc with its sanitizer libraries.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.support import CAPTURES, ROOT

COMPILER = "gcc"
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g"
SOURCES = ("alphapulse", "tests", "setup.py", "pyproject.toml", "README.md", "LICENSE")
TESTS = (
    "test_core_*.py",
    "test_api_trades.py",
    "test_store_bars.py",
    "test_store_columns.py",
    "test_store_entries.py",
    "test_store_identity.py",
    "test_store_rows.py",
    "test_stream_fanout.py",
    "test_stream_text.py",
)
BUILT = shutil.ignore_patterns("*.so", "*.c", "__pycache__", "*.egg-info")


def runtime(library: str) -> str:
    """Path of one of the compiler's libraries, as the loader is to be told."""
    command = [COMPILER, f"-print-file-name={library}"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not os.path.isabs(found):
        raise SystemExit(f"{COMPILER} has no {library}; on Debian: apt-get install gcc")
    return str(Path(found).resolve())


def build(folder: Path) -> None:
    """Copy the sources there and build the native modules in place, the probe among them."""
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=BUILT)
        else:
            shutil.copy(source, folder / name)
    shutil.copy(ROOT / "tests/sanitize/probe.pyx", folder / "alphapulse/_core/probe.pyx")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "wheel"]
    if all(importlib.util.find_spec(tool) for tool in ("Cython", "setuptools")):
        command.append("--no-build-isolation")
    environment = os.environ | {"CC": COMPILER, "CFLAGS": FLAGS, "LDFLAGS": FLAGS}
    subprocess.run([*command, "."], cwd=folder, env=environment, check=True)
    (wheel,) = (folder / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)


def sanitized(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the folder with the sanitizers' runtime loaded first."""
    environment = os.environ | {
        # The C++ library comes along: other extensions throw through interceptors of the first.
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libstdc++.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(folder),
        # The default is told from where the sources are, and these are copies.
        "ALPHAPULSE_CAPTURES": str(CAPTURES),
    }
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, text=True, check=False,
        stderr=subprocess.PIPE if arguments[0] == "-c" else None,
    )  # fmt: skip


def prove(folder: Path) -> None:
    """The deliberate errors are caught, and in these very modules."""
    for call, finding in (
        ("overflow(100)", "heap-buffer-overflow"),
        ("undefined(2**30)", "signed integer overflow"),
    ):
        done = sanitized(folder, "-c", f"from alphapulse._core import probe; probe.{call}")
        if done.returncode == 0 or finding not in done.stderr:
            raise SystemExit(f"the sanitizers don't catch probe.{call}:\n{done.stderr}")
    print("deliberate errors are caught", flush=True)


def race(folder: Path) -> None:
    """Run the two threads, built plainly and with ThreadSanitizer."""
    # -Wno-tsan: it doesn't model fences, but all that they order here are atomic accesses.
    for flags in (["-O3"], ["-O1", "-g", "-fsanitize=thread", "-Wno-tsan"]):
        program = folder / "race"
        include = f"-I{ROOT / 'alphapulse/_core'}"
        source = ROOT / "tests/sanitize/race.c"
        command = [COMPILER, "-std=gnu11", "-Wall", "-Wextra", "-Werror", *flags, include]
        subprocess.run([*command, str(source), "-o", str(program), "-pthread"], check=True)
        subprocess.run([program], check=True)


def main() -> None:
    """Build, prove, test."""
    with tempfile.TemporaryDirectory(prefix="alphapulse-sanitize-") as name:
        folder = Path(name)
        build(folder)
        prove(folder)
        found = (path for pattern in TESTS for path in (ROOT / "tests").glob(pattern))
        tests = sorted(f"tests/{path.name}" for path in found)
        done = sanitized(
            folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, *sys.argv[1:]
        )
        if done.returncode:
            raise SystemExit(done.returncode)
        race(folder)


if __name__ == "__main__":
    main()
