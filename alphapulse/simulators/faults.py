"""What can go wrong at a venue, on demand.

Each public method of `Faults` is a fault; ``POST /control/<method>`` with its arguments as a JSON
object calls it from another process. Symbols are unified or the venue's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alphapulse.simulators.base import VenueSimulator

MAX_HUGE_BYTES = 512 * 1024 * 1024


class Faults:
    """The faults of one simulator, and which of them are pending."""

    def __init__(self, simulator: VenueSimulator) -> None:
        self._simulator = simulator
        self._pending: dict[tuple[str, str | None], int] = {}
        self.armed = False
        """Whether any counted fault is pending; False spares the look-up."""
        self.silent_symbols: set[str] = set()
        self.silent_newcomers = False
        self.heartbeats_lost = False
        self.connections_refused = False
        self.rest_delay_seconds = 0.0
        self.rest_answer: tuple[int, float] | None = None
        """Status and Retry-After that requests are answered with."""

    def drop_update(self, symbol: str, count: int = 1) -> None:
        """Don't send the next updates of a book, though the venue's book has them."""
        self._add("drop_update", symbol, count)

    def corrupt_checksum(self, symbol: str, count: int = 1) -> None:
        """Send a wrong checksum with the next updates of a book."""
        self._add("corrupt_checksum", symbol, count)

    def skip_trade(self, symbol: str, count: int = 1) -> None:
        """Don't send the next matches, though REST tells them."""
        self._add("skip_trade", symbol, count)

    def refuse(self, symbol: str | None = None, count: int = 1) -> None:
        """Answer the next subscriptions, of one symbol or of any, with an error."""
        self._add("refuse", symbol, count)

    def stale_snapshot(self, symbol: str, count: int = 1) -> None:
        """Answer the next requests for a REST snapshot with the book as it is now."""
        self._simulator.keep_snapshot(self._simulator.venue_symbol(symbol))
        self._add("stale_snapshot", symbol, count)

    def silence(self, symbol: str | None = None, newcomers: bool = False) -> None:
        """Send nothing more for a symbol, or at all on the open connections.

        With `newcomers`, connections made from now on are silent too.
        """
        if symbol is not None:
            self.silent_symbols.add(self._simulator.venue_symbol(symbol))
            return
        self.silent_newcomers = newcomers
        for connection in self._simulator.connections:
            connection.silent = True

    def speak(self) -> None:
        """End every silence."""
        self.silent_symbols.clear()
        self.silent_newcomers = False
        for connection in self._simulator.connections:
            connection.silent = False

    def close(self, code: int = 1001, reason: str = "") -> None:
        """Close the open connections with a close frame."""
        for connection in list(self._simulator.connections):
            connection.close(code, reason)

    def abort(self) -> None:
        """Break the open connections without a close frame."""
        for connection in list(self._simulator.connections):
            connection.abort()

    def refuse_connections(self, on: bool = True) -> None:
        """Answer new WebSocket connections with HTTP 503."""
        self.connections_refused = on

    def delay_rest(self, seconds: float) -> None:
        """Answer REST requests that much later; 0 ends it."""
        self.rest_delay_seconds = seconds

    def rest_status(self, status: int, retry_after_seconds: float = 1.0, count: int = 1) -> None:
        """Answer the next REST requests with an error status such as 429, 418 or 500."""
        self.rest_answer = (status, retry_after_seconds)
        self._add("rest_status", None, count)

    def send_text(self, text: str) -> None:
        """Send a frame with this text to every connection."""
        self._simulator.broadcast(text.encode())

    def send_huge(self, size: int = 50_000_000) -> None:
        """Send a text frame of that many bytes to every connection.

        Raises
        ------
        ValueError
            the size isn't between 1 and ``MAX_HUGE_BYTES``
        """
        if not 1 <= size <= MAX_HUGE_BYTES:
            raise ValueError(f"size must be 1 to {MAX_HUGE_BYTES}")
        self._simulator.broadcast(b"x" * size)

    def lose_heartbeats(self, on: bool = True) -> None:
        """Send no heartbeats."""
        self.heartbeats_lost = on

    def maintenance(self, status: str = "maintenance") -> None:
        """Say that the venue's status is this; books and trades rest unless it is ``online``."""
        self._simulator.set_status(status)

    def pause(self) -> None:
        """Let the market rest, everything sent that has happened; heartbeats go on."""
        self._simulator.pause()

    def resume(self) -> None:
        """Let the market go on."""
        self._simulator.resume()

    def play(self) -> None:
        """Start the source without waiting for more subscriptions."""
        self._simulator.play()

    def take(self, fault: str, symbol: str | None) -> bool:
        """Whether this fault is due now; counts it."""
        for key in ((fault, symbol), (fault, None)):
            left = self._pending.get(key, 0)
            if left:
                if left == 1:
                    del self._pending[key]
                    self.armed = bool(self._pending)
                else:
                    self._pending[key] = left - 1
                return True
        return False

    def pending(self) -> dict[str, int]:
        """How many of each counted fault are still to come, as ``fault symbol``."""
        return {f"{fault} {symbol or '*'}": n for (fault, symbol), n in self._pending.items()}

    def _add(self, fault: str, symbol: str | None, count: int) -> None:
        if count < 1:
            raise ValueError(f"count is {count}; it must be 1 or more")
        key = (fault, None if symbol is None else self._simulator.venue_symbol(symbol))
        self._pending[key] = self._pending.get(key, 0) + count
        self.armed = True


FAULTS = frozenset(
    name for name in vars(Faults) if not name.startswith("_") and name not in {"take", "pending"}
)
"""Names that ``/control`` offers."""
