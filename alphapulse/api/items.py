"""Rows as they stand in answers, kept for the next request that gets the same rows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

R = TypeVar("R")
Item = TypeVar("Item")

ANSWERS = 32
"""How many answers' items are kept."""
MOST_ROWS = 1001
"""Longer answers aren't kept."""


class ItemCache:
    """The items of the latest answers; used only where the store gives the very same rows."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Hashable, tuple[Sequence[Any], list[Any]]] = OrderedDict()

    def items(self, key: Hashable, rows: Sequence[R], item_of: Callable[[R], Item]) -> list[Item]:
        """An item for each row.

        Parameters
        ----------
        key : tells the request, and with it the kind of its items
        rows : from the store; not changed afterwards
        item_of : makes an item
        """
        found = self._answers.get(key)
        if found is not None and found[0] == rows:
            self._answers.move_to_end(key)
            return found[1]
        made = [item_of(row) for row in rows]
        if len(rows) <= MOST_ROWS:
            self._answers[key] = rows, made
            if len(self._answers) > ANSWERS:
                self._answers.popitem(last=False)
        return made
