"""How far a client has come in each exchange's ring: where it resumes after a lost connection."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from alphapulse.client.events import OVERALL
from alphapulse.client.messages import RECORDS, Head, Resume, Subscribed
from alphapulse.shm import ring_id

_ROUTE = struct.Struct("<8xQ")
_SEQUENCE_BITS = 48
_SEQUENCE_MASK = (1 << _SEQUENCE_BITS) - 1


class Positions:
    """Told of everything that arrives, before anything of it is used.

    A position is the epoch of an exchange's ring and the highest sequence in it. The epoch is
    unknown where the ring was replaced and no message said by what.

    Several subscriptions that are resumed come one after the other, so that the highest sequence
    proves nothing before all of them have caught up: until then positions are `frozen`.
    """

    def __init__(self) -> None:
        self._frozen: dict[str, Resume] | None = None
        self._epochs: dict[str, int] = {}
        self._sequences: dict[str, int] = {}
        self._exchanges: dict[int, str] = {}

    @property
    def known(self) -> set[str]:
        """Exchanges of which something may have been missed."""
        return set(self._exchanges.values())

    def resume(self, exchanges: Iterable[str] | None) -> dict[str, Resume]:
        """Where to go on, by exchange.

        Parameters
        ----------
        exchanges : of a subscription; None for all
        """
        here = {**self._here(), **(self._frozen or {})}
        return {
            exchange: position
            for exchange, position in here.items()
            if exchanges is None or exchange in exchanges
        }

    def freeze(self) -> None:
        """A connection was lost; until `thaw` later ones resume where the next one does."""
        if self._frozen is None:
            self._frozen = self._here()

    def thaw(self) -> None:
        """All subscriptions have caught up."""
        self._frozen = None

    def _here(self) -> dict[str, Resume]:
        return {
            exchange: Resume(self._epochs[exchange], sequence)
            for exchange, sequence in sorted(self._sequences.items())
        }

    def subscribed(self, answer: Subscribed) -> None:
        """A subscription begins."""
        for exchange, epoch in answer.epochs.items():
            self._exchanges[ring_id(exchange)] = exchange
            if answer.resumed.get(exchange) == RECORDS:
                continue  # what follows goes on from the position that was asked for
            self.begin(exchange, epoch)
            sequence = answer.sequences.get(exchange)
            if sequence is not None:
                self._sequences[exchange] = max(sequence, self._sequences.get(exchange, 0))

    def begin(self, exchange: str, epoch: int) -> None:
        """What follows of an exchange is of this epoch."""
        self._exchanges[ring_id(exchange)] = exchange
        if self._epochs.get(exchange) != epoch:
            self._epochs[exchange] = epoch
            self._sequences.pop(exchange, None)

    def record(self, record: bytes) -> None:
        """A binary message has arrived."""
        if len(record) >= _ROUTE.size:
            route: int = _ROUTE.unpack_from(record)[0]
            exchange = self._exchanges.get(route >> _SEQUENCE_BITS)
            if exchange is not None:
                self._reach(exchange, route & _SEQUENCE_MASK)

    def event(self, head: Head) -> None:
        """A JSON message that is no answer has arrived."""
        if head.type == "epoch" and head.exchange is not None:
            self.begin(head.exchange, head.epoch)
            return
        data = head.data
        if data is None or data.exchange is None or data.exchange == OVERALL:
            return
        exchange = data.exchange
        self._exchanges.setdefault(ring_id(exchange), exchange)
        if head.type == "orderbook_snapshot":
            self.begin(exchange, data.epoch)
        elif head.type == "gap":
            if data.channel == "ring" and data.reason == "restarted":
                self._forget(exchange)
            return
        elif head.type == "trade" and self._goes_back(exchange, data.sequence):
            self._forget(exchange)
            return
        self._reach(exchange, data.sequence)

    def _goes_back(self, exchange: str, sequence: int) -> bool:
        """Trades' sequences only grow, unless the ring was replaced or they come once more."""
        return self._frozen is None and sequence <= self._sequences.get(exchange, 0)

    def _reach(self, exchange: str, sequence: int) -> None:
        if exchange in self._epochs and sequence > self._sequences.get(exchange, 0):
            self._sequences[exchange] = sequence

    def _forget(self, exchange: str) -> None:
        self._epochs.pop(exchange, None)
        self._sequences.pop(exchange, None)
        if self._frozen is not None:
            self._frozen.pop(exchange, None)
