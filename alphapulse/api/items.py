"""Answers as they were given last, for requests that get the same rows, or nearly the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

from msgspec import Raw

R = TypeVar("R")

ANSWERS = 32
"""How many answers are kept."""
MOST_ROWS = 1001
"""Longer answers aren't kept."""


class Answer(NamedTuple):
    """A JSON answer made of rows."""

    rows: Sequence[Any]
    items: list[Raw]
    """The rows as they stand in it."""
    essence: bytes
    """Its beginning, up to what is different each time."""
    tag: str
    """Its ETag."""
    link: str | None
    """Where the next page is."""


class AnswerCache:
    """The latest answers; one is used again only where the store gives the very same rows."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Hashable, Answer] = OrderedDict()

    def find(self, key: Hashable, rows: Sequence[Any]) -> Answer | None:
        """The answer to a request if these are still its rows.

        Parameters
        ----------
        key : all that the answer depends on besides its rows
        rows : from the store
        """
        found = self._answers.get(key)
        if found is None or found.rows != rows:
            return None
        self._answers.move_to_end(key)
        return found

    def items(self, key: Hashable, rows: Sequence[R], item_of: Callable[[R], Raw]) -> list[Raw]:
        """An item for each row; those of rows that the last answer had, too, aren't made again.

        Parameters
        ----------
        key, rows : see `find`
        item_of : makes an item
        """
        found = self._answers.get(key)
        if found is None:
            return [item_of(row) for row in rows]
        # The answer holds its rows, so that no other object can have got the id of one of them.
        known = dict(zip(map(id, found.rows), found.items, strict=True))
        return [known.get(id(row)) or item_of(row) for row in rows]

    def keep(self, key: Hashable, answer: Answer) -> None:
        """Keep an answer; its rows aren't changed afterwards."""
        if len(answer.rows) > MOST_ROWS:
            return
        self._answers[key] = answer
        self._answers.move_to_end(key)
        if len(self._answers) > ANSWERS:
            self._answers.popitem(last=False)
