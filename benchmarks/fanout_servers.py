"""The servers that are compared: how each is started, subscribed to, and what it greets with."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from benchmarks.fanout_market import EXCHANGE
from benchmarks.harness import INSTALL_PEERS, Absent, version_of

Format = Literal["json", "binary"]

NODE_PACKAGE = "ws"
NODE_VERSION = "8.23.0"
_INSTALL_SECONDS = 120
_PEERS = Path(__file__).resolve().parent / "peers"


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One of the servers.

    Parameters
    ----------
    name, version : of the library
    command : starts it; ``{pipe}`` stands for the number of the pipe that events come from
    folder : where it is started
    from_ring : whether it reads a ring, and not the pipe
    binary : whether clients ask for records
    environ : beside this process's, where ``{prefix}`` stands for the ring's
    """

    name: str
    command: Sequence[str]
    version: str = ""
    folder: str | None = None
    from_ring: bool = False
    binary: bool = False
    environ: Mapping[str, str] = {}

    def subscription(self, symbols: Sequence[str]) -> str:
        """What a client sends to get these symbols."""
        request: dict[str, object] = {
            "type": "subscribe",
            "channels": ["trades", "orderbook"],
            "exchanges": [EXCHANGE],
            "symbols": list(symbols),
        }
        if self.binary:
            request["format"] = "binary"
        return json.dumps(request)

    def greeting(self, symbols: int) -> int:
        """How many messages a client gets on subscribing."""
        if not self.from_ring:
            return 1
        # A snapshot each, and before it the instrument's record where records are sent.
        return 1 + symbols * (2 if self.binary else 1)


def ours(format: Format = "json", **settings: object) -> Server:  # noqa: A002
    """The stream, with settings of its section."""
    environ = {
        "ALPHAPULSE__RING__PREFIX": "{prefix}",
        "ALPHAPULSE__LOG__LEVEL": "warning",
        "ALPHAPULSE__STREAM__PORT": "0",
    }
    environ |= {
        f"ALPHAPULSE__STREAM__{name.upper()}": str(value) for name, value in settings.items()
    }
    return Server(
        name="ours",
        command=[sys.executable, "-m", "alphapulse.cli.serve", "stream"],
        from_ring=True,
        binary=format == "binary",
        environ=environ,
    )


@contextmanager
def peers(*, node: bool = True) -> Iterator[list[Server | Absent]]:
    """The others; what has to be installed for them is removed in the end.

    Parameters
    ----------
    node : install and start what runs on Node.js
    """
    with tempfile.TemporaryDirectory(prefix="apbench-") as folder:
        yield [
            _python("websockets", "websockets broadcast()", "websockets"),
            _python("starlette", "Starlette on uvicorn", "starlette", "uvicorn"),
            _python("picows", "picows", "picows"),
            *([_node(folder)] if node else []),
        ]


def _python(key: str, name: str, *distributions: str) -> Server | Absent:
    versions = [version_of(one) for one in distributions]
    if None in versions:
        return Absent(name, f"not installed: {INSTALL_PEERS}")
    return Server(
        name=name,
        version=", ".join(str(one) for one in versions),
        command=[sys.executable, "-m", "benchmarks.peers.fanout_servers", key, "{pipe}"],
    )


def _node(folder: str) -> Server | Absent:
    name = "Node ws"
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return Absent(name, "Node.js and npm are not installed")
    install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        subprocess.run(
            [*install, f"{NODE_PACKAGE}@{NODE_VERSION}"],
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=_INSTALL_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return Absent(name, f"npm can't install {NODE_PACKAGE}@{NODE_VERSION}")
    script = str(_PEERS / "fanout_ws.mjs")
    return Server(name=name, version=NODE_VERSION, command=[node, script, "{pipe}"], folder=folder)
