"""Events on their way to clients: each encoded once per format, and only if somebody wants it."""

from __future__ import annotations

from collections.abc import Callable

from alphapulse.clock import monotonic_ns
from alphapulse.model import Gap, StateChange, Trade
from alphapulse.stream import binary, messages
from alphapulse.stream.client import Client, Group, Item, Kind
from alphapulse.stream.frames import binary_frame, text_frame
from alphapulse.stream.requests import Format


def event_item(text: str) -> Item:
    """A JSON event's frame, to be sent whatever happens."""
    return Item(text_frame(text), Kind.EVENT, None, monotonic_ns())


def record_item(record: bytes) -> Item:
    """A record's frame, to be sent whatever happens."""
    return Item(binary_frame(record), Kind.EVENT, None, monotonic_ns())


class Told:
    """An event that is told to clients of both formats.

    Parameters
    ----------
    text : makes the JSON
    record : makes the record
    """

    __slots__ = ("_binary", "_json", "_record", "_text")

    def __init__(self, text: Callable[[], str], record: Callable[[], bytes]) -> None:
        self._text = text
        self._record = record
        self._json: Item | None = None
        self._binary: Item | None = None

    def item(self, format_: Format) -> Item:
        """The event's frame."""
        if format_ == "json":
            if self._json is None:
                self._json = event_item(self._text())
            return self._json
        if self._binary is None:
            self._binary = record_item(self._record())
        return self._binary


def told_state(state: StateChange, record: bytes | None = None) -> Told:
    """A book's state.

    Parameters
    ----------
    record : of the ring that tells it; None where there is none
    """
    return Told(
        lambda: messages.encode_state(state),
        lambda: binary.encode_state(state) if record is None else record,
    )


def told_gap(gap: Gap, record: bytes | None = None) -> Told:
    """A loss; `record` as for `told_state`."""
    return Told(
        lambda: messages.encode_gap(gap),
        lambda: binary.encode_gap(gap) if record is None else record,
    )


def told_trade(trade: Trade, record: bytes) -> Told:
    """A trade of the ring."""
    return Told(lambda: messages.encode_trade(trade), lambda: record)


class Audience:
    """Clients of one channel, each in one format."""

    __slots__ = ("binary", "json")

    def __init__(self) -> None:
        self.json: Group[Client] = Group()
        self.binary: Group[Client] = Group()

    def __bool__(self) -> bool:
        return bool(self.json) or bool(self.binary)

    def __contains__(self, client: Client) -> bool:
        return client in self.json or client in self.binary

    def join(self, client: Client, format_: Format | None) -> None:
        """Make a client a member in one format, or none where None."""
        for name, group in self.groups():
            if name == format_:
                group.add(client)
            else:
                group.discard(client)

    def groups(self) -> tuple[tuple[Format, Group[Client]], ...]:
        """The members by format."""
        return ("json", self.json), ("binary", self.binary)

    def deliver(self, told: Told) -> None:
        """Tell all members an event."""
        if self.json:
            self.json.deliver(told.item("json"))
        if self.binary:
            self.binary.deliver(told.item("binary"))
