"""The best N levels of a book as its subscribers know them; their events, encoded once for all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from alphapulse.delta import BookView, TopView
from alphapulse.model import Instrument, Reason
from alphapulse.stream.client import Group, Item, Kind
from alphapulse.stream.frames import text_frame
from alphapulse.stream.messages import Times, encode_changes, encode_parts, snapshot_head
from alphapulse.stream.requests import FULL

if TYPE_CHECKING:
    from alphapulse.stream._fanout import Outbox
    from alphapulse.stream.client import Client

Changes = Iterable[tuple[int, int, int, int]]
"""(side, price, size, action), scaled and numbered as in the model."""


class View:
    """A book at one depth.

    Its version is that of its latest event: a change of the book beyond its depth is none of the
    view, and a snapshot made after it still bears the version before.

    Parameters
    ----------
    depth : levels a side, `requests.FULL` for all
    book : live
    instrument : of the book
    epoch : of the ring
    times : of the book's latest change
    """

    def __init__(
        self, depth: int, book: BookView, instrument: Instrument, epoch: int, times: Times
    ) -> None:
        self.depth = depth
        self.clients: Group[Client] = Group()
        self._top = None if depth == FULL else TopView(depth)
        self.reset(book, instrument, epoch, times)

    def reset(self, book: BookView, instrument: Instrument, epoch: int, times: Times) -> None:
        """Begin anew with a live book."""
        self._book = book
        self._instrument = instrument
        self._epoch = epoch
        self._times = times
        self._version = book.version
        self._snapshots: dict[Reason, list[Item]] = {}
        if self._top is not None:
            self._top.load(book.book)

    def serves(self, client: Outbox) -> bool:
        """Whether the client is subscribed to this view."""
        return client in self.clients

    def advance(self, version: int, times: Times, changes: Changes, now_ns: int) -> Item | None:
        """Follow a change of the book; None if the view is as before.

        Parameters
        ----------
        version, times : of the book's change
        changes : the book's; those of a view of limited depth are found by comparison
        now_ns : monotonic time
        """
        if self._top is not None:
            if not self._top.advance(self._book.book):
                return None
            changes = self._top.changes
        text = encode_changes(self._instrument, version, self._version, times, changes)
        self._version = version
        self._times = times
        self._snapshots.clear()
        return Item(text_frame(text), Kind.DELTA, self, now_ns)

    def snapshot(self, reason: Reason) -> list[Item]:
        """The view as of its latest event, in one or more frames."""
        items = self._snapshots.get(reason)
        if items is None:
            head = snapshot_head(self._instrument, self._version, reason, self._times, self._epoch)
            shown = self._book.book if self._top is None else self._top
            texts = encode_parts(
                head, shown.bids(), shown.asks(), self._instrument, marked=self._top is None
            )
            items = [Item(text_frame(text), Kind.SNAPSHOT, self, 0) for text in texts]
            self._snapshots[reason] = items
        return items

    def drop_snapshots(self) -> None:
        """Free the frames that are kept for clients who ask at the same time."""
        self._snapshots.clear()
