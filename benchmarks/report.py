"""``python -m benchmarks.report``: put the latest results into docs/performance.md.

A table there stands between ``<!-- results: NAME -->`` and ``<!-- end -->``; its rows are those of
the latest run whose name is NAME or begins with ``NAME/``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

import msgspec

from benchmarks.harness import RESULTS, ROOT, Result, table

PAGE = ROOT / "docs" / "performance.md"

_TABLE = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(page: str, results: Sequence[Result]) -> str:
    """The page with its tables made anew; one without results stays as it is.

    Parameters
    ----------
    page : Markdown with marked places
    results : of any number of runs, oldest first
    """

    def replace(found: re.Match[str]) -> str:
        name = found[2]
        rows = [one for one in results if one.name == name or one.name.startswith(f"{name}/")]
        if not rows:
            return found[0]
        latest = [one for one in rows if one.begun == rows[-1].begun]
        where = f"{latest[0].machine}; commit {latest[0].commit}; {latest[0].begun[:10]}"
        text = table([one.row() for one in latest])
        return f"{found[1]}\n{text}\n\n{where}\n\n{found[3]}"

    return _TABLE.sub(replace, page)


def main() -> int:
    """Rewrite the page; returns the exit status."""
    decoder = msgspec.json.Decoder(Result)
    results = decoder.decode_lines(RESULTS.read_bytes())
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
