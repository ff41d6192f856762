"""What goes wrong, in the log: each minute the first few of a kind, then how many more."""

from __future__ import annotations

import time
from typing import Any

from structlog.stdlib import BoundLogger

from alphapulse.backoff import Clock

SHOWN_PER_MINUTE = 5
"""Complaints of one kind about one symbol that are written out in a minute."""

WINDOW_SECONDS = 60.0
MOST_KINDS = 1000
"""Kinds and symbols told apart; a venue that makes up symbols doesn't fill the memory."""

_Key = tuple[str, str | None]


class Complaints:
    """A logger for what a venue may send a million times.

    Parameters
    ----------
    exchange : name of the venue, on each line
    log : where the lines go
    clock : where time comes from
    """

    def __init__(self, exchange: str, log: BoundLogger, clock: Clock = time.monotonic) -> None:
        self._exchange = exchange
        self._log = log
        self._clock = clock
        self._since = clock()
        self._counts: dict[_Key, int] = {}

    def add(self, what: str, symbol: str | None = None, **fields: Any) -> None:
        """Complain about something; the fields say more."""
        key = (what, symbol)
        if key not in self._counts and len(self._counts) >= MOST_KINDS:
            key = (what, None)
        count = self._counts.get(key, 0) + 1
        self._counts[key] = count
        if count <= SHOWN_PER_MINUTE:
            self._log.warning(what, exchange=self._exchange, symbol=symbol, **fields)

    def flush(self) -> None:
        """Tell what was left out, once its minute is over; to be called now and then."""
        now = self._clock()
        if now - self._since < WINDOW_SECONDS:
            return
        for (what, symbol), count in self._counts.items():
            if count > SHOWN_PER_MINUTE:
                self._log.warning(
                    f"{what}, and more like it",
                    exchange=self._exchange,
                    symbol=symbol,
                    count=count - SHOWN_PER_MINUTE,
                    seconds=round(now - self._since),
                )
        self._counts.clear()
        self._since = now
