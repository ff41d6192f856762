"""What tests of several parts share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from alphapulse.model import Instrument

ROOT = Path(__file__).resolve().parent.parent
"""The repository."""

CAPTURES = Path(
    os.environ.get("ALPHAPULSE_CAPTURES", ROOT.parent / "shared" / "captures")
).absolute()
"""Where the recorded venue traffic is, on machines that have it."""

CAPTURES_ABSENT = "captures are absent"
"""Begins the reason of the only skip that is no failure in continuous integration."""


class ManualClock:
    """A clock in seconds that stands still until it is moved."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def make_instrument(
    exchange: str = "kraken", symbol: str = "BTC-USD", venue_symbol: str = "", **fields: Any
) -> Instrument:
    """An instrument with 2 decimal places of price and 4 of size, unless told otherwise.

    Parameters
    ----------
    venue_symbol : the symbol with a slash where none is given
    fields : of `Instrument`, in place of what they would be
    """
    base, quote = symbol.split("-")
    given: dict[str, Any] = {
        "id": 0,
        "venue_symbol": venue_symbol or f"{base}/{quote}",
        "base": base,
        "quote": quote,
        "price_exponent": 2,
        "size_exponent": 4,
        **fields,
    }
    return Instrument(exchange=exchange, symbol=symbol, **given)


def requires_program(program: str, package: str) -> pytest.MarkDecorator:
    """Mark a test that needs an external program.

    Parameters
    ----------
    program : as it is called (``"redis-server"``)
    package : the Debian package that has it, for the skip's reason
    """
    return pytest.mark.skipif(
        shutil.which(program) is None, reason=_program_is_absent(program, package)
    )


def find_program(program: str, package: str) -> str:
    """Path of an external program, for fixtures; the test is skipped where it isn't installed."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(_program_is_absent(program, package))
    return path


def _program_is_absent(program: str, package: str) -> str:
    return f"{program} is not installed; on Debian: apt-get install {package}"
