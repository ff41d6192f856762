"""Where a client resumes: never behind what it has missed, and nowhere it can't know."""

from __future__ import annotations

import json
from typing import Any

from alphapulse.client.messages import Resume, Subscribed, decode_head
from alphapulse.client.positions import Positions
from alphapulse.delta import Encoder
from alphapulse.shm import ring_id


def subscribed(epoch: int, sequence: int | None, **fields: Any) -> Subscribed:
    return Subscribed(
        channels=("trades",),
        exchanges=("*",),
        symbols=("*",),
        epochs={"kraken": epoch},
        sequences={} if sequence is None else {"kraken": sequence},
        **fields,
    )


def event(kind: str, sequence: int = 0, **data: Any) -> Any:
    body = {"exchange": "kraken", "symbol": "BTC-USD", "sequence": sequence, **data}
    return decode_head(json.dumps({"type": kind, "data": body}).encode())


def record(sequence: int, exchange: str = "kraken") -> bytes:
    return bytes(Encoder().heartbeat().stamp(sequence, ring_id(exchange), 1))


def test_a_quiet_subscription_has_a_position() -> None:
    positions = Positions()
    assert positions.resume(None) == {}
    positions.subscribed(subscribed(7, 40))
    assert positions.resume(None) == {"kraken": Resume(7, 40)}
    assert positions.resume(("coinbase",)) == {}
    assert positions.known == {"kraken"}


def test_it_advances_with_records_and_events() -> None:
    positions = Positions()
    positions.subscribed(subscribed(7, None))
    assert positions.resume(None) == {}
    positions.record(record(41))
    positions.record(record(40))
    positions.record(record(99, "coinbase"))
    positions.record(b"short")
    assert positions.resume(None) == {"kraken": Resume(7, 41)}
    positions.event(event("trade", 43))
    positions.event(event("orderbook_delta", 42))
    positions.event(event("gap", channel="trades", reason="gap"))
    assert positions.resume(("kraken",)) == {"kraken": Resume(7, 43)}


def test_a_new_epoch_begins_from_nothing() -> None:
    positions = Positions()
    positions.subscribed(subscribed(7, 40))
    positions.event(decode_head(b'{"type":"epoch","exchange":"kraken","epoch":8}'))
    assert positions.resume(None) == {}
    positions.event(event("trade", 1))
    assert positions.resume(None) == {"kraken": Resume(8, 1)}
    positions.event(event("orderbook_snapshot", 5, epoch=9))
    assert positions.resume(None) == {"kraken": Resume(9, 5)}


def test_an_epoch_that_nobody_told_is_not_guessed() -> None:
    for head in (
        event("trade", 3),
        event("gap", channel="ring", reason="restarted"),
    ):
        positions = Positions()
        positions.subscribed(subscribed(7, 40))
        positions.event(head)
        positions.event(event("trade", 4))
        assert positions.resume(None) == {}
        assert positions.known == {"kraken"}


def test_while_subscriptions_catch_up_the_position_stays() -> None:
    positions = Positions()
    positions.subscribed(subscribed(7, 40))
    positions.freeze()
    positions.subscribed(subscribed(8, 60, resumed={"kraken": "records"}))
    positions.record(record(50))
    positions.event(event("trade", 45))
    positions.freeze()
    assert positions.resume(None) == {"kraken": Resume(7, 40)}
    positions.thaw()
    assert positions.resume(None) == {"kraken": Resume(7, 50)}
