"""One level change of a book, near its best price and deep in it, in small and large books."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from random import Random
from time import perf_counter
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from alphapulse.collectors.events import PAIRS
from alphapulse.delta import Book, LevelStage
from alphapulse.model import BookSide
from benchmarks.harness import Absent, Contestant, Figures, Metric, Row, Session, version_of
from benchmarks.peers.dict_book import Change, DictBook, order_book, sorted_containers

CASES = (
    (10, "near"), (100, "near"), (1000, "near"), (50_000, "near"),
    (10, "deep"), (1000, "deep"), (50_000, "deep"),
)  # fmt: skip
"""Levels a side, and where the changes are."""

SORTED_CONTAINERS_LEVELS = 1000
"""sortedcontainers takes part at one size."""

BATCH = 20
"""Level changes of one message in the batched cases."""

NEAR_LEVELS = 5
MIDDLE = 1_000_000
CHANGES = 2000
"""After so many the book is as it was, so that they can be repeated for ever."""

PART = 1 / 5
"""Part of a round's seconds that a case takes here: there are many."""

DECIMAL = "Decimal"

AT_ONCE = 100
_TEXT_LEVELS = 1000

NOTE = f"""\
Of four changes two give a level another size, one adds a level and one removes it. 'near' is among
the best {NEAR_LEVELS} levels of a side, 'deep' in its farther half. 'single': a call per change.
'best': the same, with the best bid and ask read after each; order-book sorts only then, so that its
other figures are those of a hash table. 'batch': {BATCH} changes a message, ours from rows of int64
in a NumPy array, the peers from tuples, as they take nothing else. 'text': such a message as JSON
with decimal numbers, kept exact: as integers by ours, as Decimal by the peers. Else ours has prices
and sizes as scaled ints; the peers' are Decimal, as cryptofeed gives them to order-book, or ints as
well: their name says which. Ours also finds the net changes of each message."""

Message = Sequence[Change]


class Side(Protocol):
    """A way of keeping a book that takes messages."""

    def single(self, messages: Sequence[Message]) -> None:
        """One change a message."""

    def best(self, messages: Sequence[Message]) -> None:
        """One change a message, and the best prices read after it."""

    def batch(self, messages: Sequence[Any]) -> None:
        """Several changes a message."""

    def text(self, messages: Sequence[bytes]) -> None:
        """Several changes of the bids a message, as JSON pairs of decimal text."""


class OurBook:
    """Ours, by its Python interface.

    Parameters
    ----------
    bids, asks : size by price
    """

    def __init__(self, bids: dict[int, int], asks: dict[int, int]) -> None:
        self.book = Book()
        self._stage = stage = LevelStage()
        for side, levels in ((BookSide.BID, bids), (BookSide.ASK, asks)):
            for price, size in levels.items():
                stage.append(side, price, size)
        self.book.load(stage)

    def single(self, messages: Sequence[Message]) -> None:
        """Implement `Side`."""
        set_level = self.book.set_level
        for ((side, price, size),) in messages:
            set_level(side, price, size)

    def best(self, messages: Sequence[Message]) -> None:
        """Implement `Side`."""
        book, set_level = self.book, self.book.set_level
        for ((side, price, size),) in messages:
            set_level(side, price, size)
            book.best_bid  # noqa: B018
            book.best_ask  # noqa: B018

    def batch(self, messages: Sequence[npt.NDArray[np.int64]]) -> None:
        """Implement `Side`."""
        apply = self.book.apply
        for rows in messages:
            apply(rows)

    def text(self, messages: Sequence[bytes]) -> None:
        """Implement `Side`."""
        stage, apply = self._stage, self.book.apply
        clear, parse = stage.clear, stage.parse
        for message in messages:
            clear()
            parse(message, PAIRS, BookSide.BID, 2, 8)
            apply(stage)


def run(session: Session) -> None:
    """Measure all sizes, places and ways."""
    rows = []
    for levels, place in CASES:
        changes = _changes(levels, place)
        for way in ("single", "best", "batch"):
            size = BATCH if way == "batch" else 1
            messages = [changes[i : i + size] for i in range(0, len(changes), size)]
            rows += _compare(session, f"book/{levels}/{place}/{way}", levels, way, messages)
    changes = [change for change in _changes(_TEXT_LEVELS, "near") if change[0] == BookSide.BID]
    texts = [_text(changes[i : i + BATCH]) for i in range(0, len(changes) // BATCH * BATCH, BATCH)]
    rows += _compare(session, f"book/{_TEXT_LEVELS}/near/text", _TEXT_LEVELS, "text", texts)
    session.show("Book, nanoseconds per level change", rows, NOTE)


def _compare(
    session: Session, name: str, levels: int, way: str, messages: Sequence[Any]
) -> list[Row]:
    bids, asks = _start(levels)
    ours = OurBook(bids, asks)
    mine: Sequence[Any] = messages
    if way == "batch":
        mine = [np.array(message, dtype=np.int64) for message in messages]
    per_message = 1 if way in ("single", "best") else BATCH
    peers: list[Contestant | Absent] = []
    for name_of_peer, distribution, make in _peers(levels, way):
        version = version_of(distribution)
        if version is None:
            peers.append(Absent(distribution))
            continue
        given = messages
        theirs = make(bids, asks)
        if name_of_peer.endswith(DECIMAL) and way != "text":
            theirs = make(_decimal_side(bids), _decimal_side(asks))
            given = [
                [(side, Decimal(price), Decimal(size)) for side, price, size in message]
                for message in messages
            ]
        _check(ours, mine, theirs, given, way)
        measure = _measure(theirs, way, given, per_message)
        peers.append(Contestant(name_of_peer, measure, version))
    own = Contestant("alphapulse", _measure(ours, way, mine, per_message))
    return session.compare(name, [Metric("", "ns")], own, peers)


def _peers(levels: int, way: str) -> list[tuple[str, str, Callable[[Any, Any], DictBook]]]:
    """Name, distribution and maker of each peer."""
    peers: list[tuple[str, str, Callable[[Any, Any], DictBook]]] = [
        (f"order-book {DECIMAL}", "order-book", order_book)
    ]
    if way != "text":
        peers.append(("order-book ints", "order-book", order_book))
    if levels == SORTED_CONTAINERS_LEVELS:
        name = f"sortedcontainers {DECIMAL if way == 'text' else 'ints'}"
        peers.append((name, "sortedcontainers", sorted_containers))
    return peers


def _decimal_side(levels: dict[int, int]) -> dict[Decimal, Decimal]:
    return {Decimal(price): Decimal(size) for price, size in levels.items()}


def _measure(
    side: Side, way: str, messages: Sequence[Any], per_message: int
) -> Callable[[float], Figures]:
    """Rounds that go on where the last one ended, with some messages between looks at the clock."""
    method = getattr(side, way)
    chunks = _cycle(messages)

    def measure(seconds: float) -> Figures:
        spent, count = 0.0, 0
        while spent < seconds * PART:
            chunk = next(chunks)
            begun = perf_counter()
            method(chunk)
            spent += perf_counter() - begun
            count += len(chunk)
        return {"": spent * 1e9 / (count * per_message)}

    return measure


def _cycle(messages: Sequence[Any]) -> Iterator[Sequence[Any]]:
    chunks = [messages[i : i + AT_ONCE] for i in range(0, len(messages), AT_ONCE)]
    while True:
        yield from chunks


def _check(
    ours: OurBook, mine: Sequence[Any], theirs: DictBook, given: Sequence[Any], way: str
) -> None:
    """Both must come to the same book, or they don't do the same work."""
    for part in (slice(0, AT_ONCE), slice(AT_ONCE, None)):
        getattr(ours, way)(mine[part])
        getattr(theirs, way)(given[part])
        prices = [ours.book.best_bid, ours.book.best_ask]
        peers = [int(price) for price in theirs.best_prices()]
        if prices != peers and way != "text":
            raise RuntimeError(f"the best prices are {prices} here and {peers} there")


def _start(levels: int) -> tuple[dict[int, int], dict[int, int]]:
    """A book whose levels have even prices."""
    random = Random(levels)
    bids = {MIDDLE - 2 * n: random.randrange(1, 10**9) for n in range(1, levels + 1)}
    asks = {MIDDLE + 2 * n: random.randrange(1, 10**9) for n in range(1, levels + 1)}
    return bids, asks


def _changes(levels: int, place: str) -> list[Change]:
    """Changes after which the book is as it was, but for sizes; added levels have odd prices."""
    random = Random(levels)
    first, last = (0, NEAR_LEVELS) if place == "near" else (levels // 2, levels)
    changes: list[Change] = []
    added: list[tuple[int, int]] = []
    while len(changes) < CHANGES - len(added):
        side = random.choice((BookSide.BID, BookSide.ASK))
        sign = -1 if side is BookSide.BID else 1
        rank = random.randrange(first, last) + 1
        price, size = MIDDLE + sign * 2 * rank, random.randrange(1, 10**9)
        kind = random.randrange(4)
        if kind < 2:
            changes.append((int(side), price, size))
        elif kind == 2 and (int(side), price + 1) not in added:
            added.append((int(side), price + 1))
            changes.append((int(side), price + 1, size))
        elif added:
            gone = added.pop(random.randrange(len(added)))
            changes.append((*gone, 0))
    return changes + [(side, price, 0) for side, price in added]


def _text(changes: Sequence[Change]) -> bytes:
    return msgspec.json.encode(
        [[f"{price / 100:.2f}", f"{size / 10**8:.8f}"] for _, price, size in changes]
    )
