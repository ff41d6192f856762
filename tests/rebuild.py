"""A consumer's books and trades, rebuilt from JSON events alone; every contradiction fails.

Knows the events of the stream and of `alphapulse normalize` from their documentation only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

Side = dict[Decimal, Decimal]


class Consumer:
    """Takes events and keeps what a client would: books, trades, states, gaps."""

    def __init__(self) -> None:
        self.books: dict[str, dict[str, Side]] = {}
        self.versions: dict[str, int] = {}
        self.states: dict[str, str] = {}
        self.trades: list[dict[str, Any]] = []
        self.gaps: list[dict[str, Any]] = []
        self.changes_of_state: list[tuple[str, str, str]] = []

    def take_lines(self, lines: Iterable[str]) -> Consumer:
        for line in lines:
            self.take(json.loads(line, parse_float=Decimal, parse_int=int))
        return self

    def take(self, event: dict[str, Any]) -> None:
        assert set(event) == {"type", "data"}
        getattr(self, f"_{event['type']}")(event["data"])

    def _trade(self, data: dict[str, Any]) -> None:
        self.trades.append(data)

    def _gap(self, data: dict[str, Any]) -> None:
        self.gaps.append(data)

    def _state(self, data: dict[str, Any]) -> None:
        self.states[data["symbol"]] = data["state"]
        self.changes_of_state.append((data["symbol"], data["state"], data["reason"]))

    def _orderbook_snapshot(self, data: dict[str, Any]) -> None:
        symbol = data["symbol"]
        sides = {}
        for name, direction in (("bids", -1), ("asks", 1)):
            levels = [(Decimal(price), Decimal(volume)) for price, volume in data[name]]
            prices = [price * direction for price, _ in levels]
            assert prices == sorted(set(prices)), f"{symbol}: {name} are not best first"
            assert all(volume > 0 for _, volume in levels)
            sides[name] = dict(levels)
        self.books[symbol] = sides
        self.versions[symbol] = data["version"]

    def _orderbook_delta(self, data: dict[str, Any]) -> None:
        symbol = data["symbol"]
        assert self.states[symbol] == "live", f"{symbol}: a delta of a book not live"
        assert data["prev_version"] == self.versions[symbol], f"{symbol}: the chain is broken"
        self.versions[symbol] = data["version"]
        assert data["changes"], f"{symbol}: a delta without changes"
        seen = set()
        for change in data["changes"]:
            side = self.books[symbol][f"{change['side']}s"]
            price, volume = Decimal(change["price"]), Decimal(change["volume"])
            assert (change["side"], price) not in seen, f"{symbol}: {price} comes twice"
            seen.add((change["side"], price))
            if change["action"] == "remove":
                assert volume == 0
                del side[price]
            else:
                assert change["action"] == ("update" if price in side else "add")
                assert volume > 0
                assert side.get(price) != volume, f"{symbol}: {price} doesn't change"
                side[price] = volume

    def book(self, symbol: str) -> dict[str, list[list[str]]]:
        """A book as the captures' expected results write it: best first, no trailing zeros."""
        sides = self.books[symbol]
        return {
            "bids": [_texts(level) for level in sorted(sides["bids"].items(), reverse=True)],
            "asks": [_texts(level) for level in sorted(sides["asks"].items())],
        }

    def trade_rows(self) -> list[tuple[str, str, Decimal, Decimal, str, int]]:
        """(symbol, trade_id, price, size, side, time) of each trade."""
        return [
            (
                data["symbol"],
                data["trade_id"],
                Decimal(data["price"]),
                Decimal(data["volume"]),
                data["side"],
                data["timestamp_ns"],
            )
            for data in self.trades
        ]


def _texts(level: tuple[Decimal, Decimal]) -> list[str]:
    return [f"{value.normalize():f}" for value in level]


class Expected:
    """The right result of a capture, as an independent decimal book computed it."""

    def __init__(self, path: Path) -> None:
        loaded = json.loads(path.read_text())
        self.books: dict[str, dict[str, list[list[str]]]] = loaded["books"]
        self.trades = [
            (
                row["symbol"],
                row["trade_id"],
                Decimal(row["price"]),
                Decimal(row["size"]),
                row["side"],
                row["ts"],
            )
            for row in loaded["trades"]
        ]
        self.checksums: int = loaded.get("checksums", {}).get("sent by the venue", 0)
