"""Check the Dockerfile without Docker: run its steps in Debian roots, then the image's program.

    python tools/check_image.py [--base DIR] [--keep]

Needs root and debootstrap (on Debian: apt-get install debootstrap), the network for Debian's and
Python's packages, about 2 GB of disk below TMPDIR and a few minutes. What stands in for the
official Python image is Debian's own Python of the same release. Layers, image metadata and the
network of containers are not checked: that takes Docker.

``--base`` keeps the debootstrapped root there, for the next time.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BASE_IMAGE = "python:3.11-slim-bookworm"
BASE_PACKAGES = "python3,python3-venv,python3-dev,ca-certificates"
START_SECONDS = 60.0
PASSED_ON = ("PIP_", "SSL_CERT_", "REQUESTS_CA_", "http_proxy", "https_proxy")
"""Variables of this machine that steps see: how it reaches its package index."""
BORROWED = ("etc/resolv.conf", "etc/hosts", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt")
"""Files of this machine that steps see, for the same reason."""


class Step(NamedTuple):
    """One instruction of a Dockerfile."""

    name: str
    text: str


def parse(text: str) -> list[Step]:
    """Instructions of a Dockerfile, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        Step(name.upper(), rest.strip())
        for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())
    ]


def variables(text: str) -> dict[str, str]:
    """What an ENV instruction sets."""
    words = (word.partition("=") for word in shlex.split(text))
    return {name: value for name, _, value in words}


def context_files(root: Path, patterns: list[str]) -> Iterator[Path]:
    """Files of the build context, relative, by the rules of a .dockerignore."""
    rules = [line for line in patterns if line.strip() and not line.startswith("#")]
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name not in (".git", ".venv")]
        for name in files:
            path = (Path(folder) / name).relative_to(root)
            if not is_ignored(path, rules):
                yield path


def is_ignored(path: Path, rules: list[str]) -> bool:
    """Whether the last rule that fits the path, or a folder above it, leaves it out."""
    ignored = False
    for rule in rules:
        pattern = rule.removeprefix("!")
        names = [str(part) for part in (path, *path.parents)][:-1]
        # fnmatch's `*` goes beyond slashes, as `**/` does; `**/x` fits `x` at the top, too.
        if any(
            fnmatch.fnmatchcase(name, pattern)
            or fnmatch.fnmatchcase(name, pattern.replace("**/", ""))
            for name in names
        ):
            ignored = not rule.startswith("!")
    return ignored


class Stage:
    """A root directory that instructions change.

    Parameters
    ----------
    root : the directory
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environ = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
        self.user = "root"
        self.folder = "/"
        self.health: list[str] = []
        self.command: list[str] = []
        self.signal = "SIGTERM"

    def popen(self, *command: str) -> subprocess.Popen[bytes]:
        """Run a command inside, with namespaces and a /dev/shm of its own."""
        for name in BORROWED:
            source, target = Path("/", name), self.root / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
        passed = {key: value for key, value in os.environ.items() if key.startswith(PASSED_ON)}
        pairs = [f"{key}={value}" for key, value in {**passed, **self.environ}.items()]
        inside = f"cd {shlex.quote(self.folder)} && exec {shlex.join(command)}"
        chroot = ["chroot", f"--userspec={self.user}", str(self.root)]
        script = (
            "set -e; mount -t proc proc $0/proc; mount --rbind /dev $0/dev; "
            "mount -t tmpfs -o size=512m,mode=1777 shm $0/dev/shm; exec " + '"$@"'
        )
        return subprocess.Popen(
            [
                *("unshare", "--mount", "--pid", "--fork"),
                *("sh", "-c", script, str(self.root)),
                *(*chroot, "/usr/bin/env", "-i", *pairs, "/bin/sh", "-c", inside),
            ],
            start_new_session=True,
        )

    def run(self, *command: str) -> None:
        """Run a command inside to its end; a failure ends the check."""
        status = self.popen(*command).wait()
        if status:
            raise SystemExit(f"check_image: {shlex.join(command)} ended with status {status}")

    def copy(self, source: Path, names: list[str], files: list[Path] | None, target: str) -> None:
        """COPY from a root or, where files are given, from these files of the build context."""
        folder = self.root / Path(self.folder, target).relative_to("/")
        for name in names:
            if files is None:
                shutil.copytree(source / name.lstrip("/"), folder, symlinks=True)
                continue
            chosen = [path for path in files if path == Path(name) or Path(name) in path.parents]
            if not chosen:
                raise SystemExit(f"check_image: COPY {name}: nothing there, or all of it ignored")
            for path in chosen:
                inner = path.relative_to(name) if path != Path(name) else Path(path.name)
                (folder / inner).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / path, folder / inner)


def debootstrap(base: Path) -> None:
    """A Debian root with Python, where the check's base image has it."""
    if (base / "usr" / "local" / "bin" / "python").is_symlink():
        return
    release = BASE_IMAGE.rpartition("-")[2]
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", release, str(base)],
        check=True,
    )
    (base / "usr" / "local" / "bin" / "python").symlink_to("/usr/bin/python3")


def apply(step: Step, stage: Stage, stages: dict[str, Stage], files: list[Path]) -> None:
    """Do what an instruction says."""
    words = shlex.split(step.text)
    match step.name:
        case "RUN":
            stage.run("/bin/sh", "-c", step.text)
        case "COPY" if words[0].startswith("--from="):
            source = stages[words[0].removeprefix("--from=")]
            stage.copy(source.root, words[1:-1], None, words[-1])
        case "COPY":
            stage.copy(ROOT, words[:-1], files, words[-1])
        case "ENV":
            stage.environ.update(variables(step.text))
        case "WORKDIR":
            stage.folder = step.text
            (stage.root / step.text.lstrip("/")).mkdir(parents=True, exist_ok=True)
        case "USER":
            stage.user = step.text
        case "HEALTHCHECK":
            stage.health = json.loads(step.text.partition("CMD ")[2])
        case "CMD":
            stage.command = json.loads(step.text)
        case "STOPSIGNAL":
            stage.signal = step.text
        case "EXPOSE" | "VOLUME":
            pass
        case _:
            raise SystemExit(f"check_image: {step.name} is unknown to this check")


def build(steps: list[Step], base: Path, work: Path) -> Stage:
    """All stages; the last one is the image."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    files = list(context_files(ROOT, ignored))
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for step in steps:
        print(f"check_image: {step.name} {step.text[:90]}", flush=True)
        if step.name == "FROM":
            image, _, name = step.text.partition(" AS ")
            if image != BASE_IMAGE:
                raise SystemExit(f"check_image: FROM {image}: this check knows {BASE_IMAGE} only")
            root = work / (name or "image")
            subprocess.run(["cp", "-a", "--reflink=auto", str(base), str(root)], check=True)
            stage = stages[name or "image"] = Stage(root)
        elif stage is not None:
            apply(step, stage, stages, files)
    if stage is None:
        raise SystemExit("check_image: no FROM")
    return stage


def try_out(image: Stage) -> None:
    """Run the demo inside as the image's user until the image's own health check is content."""
    if image.user in ("", "root", "0"):
        raise SystemExit("check_image: the image runs as root")
    image.run(image.command[0], "--help")
    image.environ |= {"API_PORT": "3001", "STREAM_PORT": "8765"}
    # One namespace for both, so that a signal reaches what is to end. Quiet: it fails at first.
    check = f"{shlex.join(image.health)} 2>/dev/null"
    script = (
        f"alphapulse demo & until {check}; do kill -0 $! || exit 1; sleep 1; done; "
        f"id -u; kill -{image.signal.removeprefix('SIG')} $!; wait $!"
    )
    running = image.popen("/bin/sh", "-c", script)
    until = time.monotonic() + START_SECONDS
    while running.poll() is None and time.monotonic() < until:
        time.sleep(0.5)
    if running.poll() is None:
        # All of it: what has changed its user doesn't end with unshare.
        os.killpg(running.pid, signal.SIGKILL)
        raise SystemExit(f"check_image: not healthy within {START_SECONDS:g} s")
    if running.returncode:
        raise SystemExit(f"check_image: the demo ended with status {running.returncode}")


def main() -> None:
    """Build and try out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, help="where the debootstrapped root is, or is to be")
    parser.add_argument("--keep", action="store_true", help="leave the built roots")
    given = parser.parse_args()
    if os.geteuid() or shutil.which("debootstrap") is None:
        sys.exit("check_image: root and debootstrap are needed; apt-get install debootstrap")
    work = Path(tempfile.mkdtemp(prefix="alphapulse-image-"))
    try:
        base = (given.base or work / "base").resolve()
        debootstrap(base)
        image = build(parse((ROOT / "Dockerfile").read_text(encoding="utf-8")), base, work)
        try_out(image)
    finally:
        if not given.keep:
            shutil.rmtree(work)
    print("check_image: the image builds, runs as its user, is healthy and ends when told")


if __name__ == "__main__":
    main()
