"""``python -m benchmarks [NAME ...] [--rounds N] [--seconds S]``; without a name, all of them.

A name is a benchmark's, or the beginning of a row's: ``ring``, ``ring/joined``, ``ring/joined/1``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from benchmarks.harness import Session, commit, machine

BENCHMARKS = {
    "pipeline": "benchmarks.pipeline",
    "pipeline-socket": "benchmarks.pipeline_socket",
    "book": "benchmarks.book",
    "codec": "benchmarks.codec",
    "ring": "benchmarks.ring",
    "scale": "benchmarks.scale",
    "fanout": "benchmarks.fanout",
    "history": "benchmarks.history",
}
"""Module of each benchmark; imported when it is run, since each has peers of its own."""


def main(arguments: Sequence[str]) -> int:
    """Run benchmarks; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument("--seconds", type=float, default=1.0, help="about, of one round of one")
    options = parser.parse_args(arguments)
    names: list[str] = options.names or list(BENCHMARKS)
    unknown = sorted({name.partition("/")[0] for name in names} - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("at least one round of more than no time")
    session = Session(options.rounds, options.seconds, only=names)
    print(f"{machine()}\ncommit {commit()}")
    for name in dict.fromkeys(name.partition("/")[0] for name in names):
        importlib.import_module(BENCHMARKS[name]).run(session)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
