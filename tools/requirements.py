"""Say what this machine lacks to build AlphaPulse, and which package has it.

Runs on the interpreter that will own the virtual environment, before anything is installed, so it
keeps to what Python 3.6 understands.
"""

import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig

MINIMUM = (3, 11)


def missing():
    """Return what is lacking, one sentence each."""
    if tuple(sys.version_info) < MINIMUM:
        found = ".".join(str(part) for part in sys.version_info[:3])
        return [
            f"Python 3.11 or newer is needed, {sys.executable} is {found}; "
            "name another one: make PYTHON=python3.12 ..."
        ]
    problems = []
    if not sys.platform.startswith("linux"):
        problems.append("AlphaPulse runs on Linux only (futexes, OFD locks, /dev/shm).")
    lacking = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if lacking:
        problems.append(
            f"Python's {' and '.join(lacking)} missing; on Debian: apt-get install python3-venv"
        )
    header = os.path.join(sysconfig.get_path("include"), "Python.h")
    if not os.path.exists(header):
        problems.append(f"{header} is missing; on Debian: apt-get install python3-dev")
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        problems.append(
            f"the C compiler {compiler} is missing; on Debian: apt-get install gcc libc6-dev"
        )
    return problems


if __name__ == "__main__":
    sys.exit("\n".join(missing()) or None)
