"""Layouts that no frame can be of are refused."""

from __future__ import annotations

import pytest

from alphapulse.delta import Field, FrameLayout, LevelLayout, Levels

PAIRS = Levels(LevelLayout.pairs(), 1)
TRADE = {
    "s": Field.SYMBOL,
    "p": Field.PRICE,
    "q": Field.SIZE,
    "m": Field.SIDE,
    "t": Field.TRADE_ID,
    "T": Field.EPOCH_TIME,
}


def test_what_a_layout_names_says_what_its_frames_are() -> None:
    kinds = [
        FrameLayout({"channel": "heartbeat"}).kind,
        FrameLayout({"s": Field.SYMBOL, "b": PAIRS}).kind,
        FrameLayout({"data": [TRADE, ...]}, buy=False, sell=True).kind,
        FrameLayout({"s": Field.SYMBOL, "last": Field.LAST_TRADE_ID}).kind,
    ]
    assert kinds == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"s": Field.SYMBOL, "U": Field.FIRST_ID, "b": PAIRS}, "go together"),
        ({"s": Field.SYMBOL, "f": Field.FIRST_MATCH, "b": PAIRS}, "go together"),
        ({"s": Field.SYMBOL, "a": PAIRS, "b": PAIRS, "c": PAIRS}, "one or two lists"),
        ({"b": PAIRS}, "names it"),
        ({"s": Field.SYMBOL}, "names it"),
        ({"s": Field.SYMBOL, "t": Field.SYMBOL, "b": PAIRS}, "second field"),
        ({"s": Field.SYMBOL, "t": Field.TRADE_ID}, "a trade has"),
        ({"s": Field.SYMBOL, "m": Field.SIDE}, "texts of"),
        ({"a": {"b": {"c": {}}}}, "3 objects"),
        ({"a": {"b": "x"}, "c": {"d": "y"}}, "3 objects"),
        ({f"f{number}": "x" for number in range(13)}, "at most 12"),
        ({"data": [{"s": Field.SYMBOL, "b": PAIRS}, ...]}, "only trades"),
    ],
)
def test_layouts_that_cant_be_are_refused(fields: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        FrameLayout(fields)


def test_both_sides_are_named_or_none() -> None:
    with pytest.raises(ValueError, match="texts of"):
        FrameLayout(TRADE, buy="b")
    with pytest.raises(ValueError, match="texts of"):
        FrameLayout({"channel": "x"}, buy="b", sell="s")
