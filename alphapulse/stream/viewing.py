"""Who looks at a book, and how: the views of it that have clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from alphapulse.stream.consolidated import ConsolidatedView
from alphapulse.stream.requests import Look
from alphapulse.stream.views import View

if TYPE_CHECKING:
    from alphapulse.stream.client import Client
    from alphapulse.stream.desk import Source

AnyView = TypeVar("AnyView", View, ConsolidatedView)


class Views(dict[Look, AnyView]):
    """The views of one book, by look.

    Parameters
    ----------
    source : whose book it is
    make : a view that there isn't yet
    """

    def __init__(self, source: Source, make: Callable[[Look], AnyView]) -> None:
        super().__init__()
        self.decode = False
        """Whether any of them needs to know what a delta says."""
        self._source = source
        self._make: Callable[[Look], AnyView] = make

    def watch(self, client: Client, look: Look) -> AnyView:
        """Have a client look at the book, who doesn't yet."""
        view = self.get(look)
        if view is None:
            view = self[look] = self._make(look)
            self.decode = self.decode or view.decodes
        view.clients.add(client)
        client.views[self._source] = view
        return view

    def unwatch(self, client: Client) -> bool:
        """Have a client look at it no more; whether it is still to be told that it is live."""
        view = client.views.pop(self._source, None)
        if view is None:
            return False
        view.clients.discard(client)
        if not view.clients:
            self.pop(view.look, None)
            self.decode = any(each.decodes for each in self.values())
        return client.forget(view)

    def drop_snapshots(self) -> None:
        """Free what is kept for clients who ask at the same time."""
        for view in self.values():
            view.drop_snapshots()
