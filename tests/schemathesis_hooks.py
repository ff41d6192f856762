"""What no schema can say: a span doesn't end before it begins, and February has no 30th day."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import schemathesis

from alphapulse.api.parameters import END_TIME, START_TIME, TIME_PATTERN, Limits, Moment
from alphapulse.api.problems import Problem


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


def _time(parameter: Moment, query: Mapping[str, Any]) -> int | None:
    text = query.get(parameter.name)
    if not isinstance(text, str) or not re.fullmatch(TIME_PATTERN, text):
        return None
    return parameter.read(text, Limits(most=1))
