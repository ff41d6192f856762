"""What no schema can say: a span doesn't end before it begins, February has no 30th day."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import schemathesis

from alphapulse.api.parameters import END_TIME, START_TIME, TIME_PATTERN, Limits, Moment
from alphapulse.api.problems import Problem
from alphapulse.fixed import decimal_places
from alphapulse.repository import MOST_PLACES


@schemathesis.hook
def filter_query(context: schemathesis.HookContext, query: Mapping[str, Any] | None) -> bool:
    """Whether a query that the schema allows means anything."""
    if not query:
        return True
    try:
        start, end = (_time(parameter, query) for parameter in (START_TIME, END_TIME))
    except Problem:
        return False
    return start is None or end is None or start <= end


@schemathesis.hook
def filter_body(context: schemathesis.HookContext, body: Any) -> bool:
    """Whether trades that the schema allows can be stored.

    The id of some kinds is a number, and numbers have 18 decimal places at most.
    """
    trades = body.get("data") if isinstance(body, dict) else None
    if not isinstance(trades, list):
        return True
    return all(_storable(trade) for trade in trades if isinstance(trade, dict))


def _storable(trade: dict[str, Any]) -> bool:
    numbers = [trade.get(name) for name in ("price", "volume")]
    if any(isinstance(each, float) and decimal_places(str(each)) > MOST_PLACES for each in numbers):
        return False
    trade_id = trade.get("trade_id")
    numbered = isinstance(trade_id, str) and re.fullmatch(r"0|[1-9][0-9]{0,18}", trade_id)
    return bool(numbered) or trade.get("id_kind") in (None, "text")


def _time(parameter: Moment, query: Mapping[str, Any]) -> int | None:
    text = query.get(parameter.name)
    if not isinstance(text, str) or not re.fullmatch(TIME_PATTERN, text):
        return None
    return parameter.read(text, Limits(most=1))
