"""JSON, CSV or Arrow: what a client accepts, and tables as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

import msgspec
from msgspec import Raw
from starlette.requests import Request

from alphapulse.api.headers import header_values
from alphapulse.api.parameters import Choice
from alphapulse.api.problems import Problem


class Format(NamedTuple):
    """A way of writing an answer."""

    name: str
    media_type: str


JSON = Format("json", "application/json")
CSV = Format("csv", "text/csv")
ARROW = Format("arrow", "application/vnd.apache.arrow.stream")

TABLE_FORMATS = {form.name: form for form in (JSON, CSV, ARROW)}

FORMAT = Choice("format", "Instead of the `Accept` header.", TABLE_FORMATS, default="")


def accepted(request: Request, formats: Sequence[Format]) -> Format:
    """The format that a request's ``Accept`` prefers, among equals the first.

    Raises
    ------
    Problem
        406: it accepts none of them
    """
    best = _best(",".join(header_values(request.scope, b"accept")), tuple(formats))
    if best is None:
        offered = ", ".join(form.media_type for form in formats)
        raise Problem(
            HTTPStatus.NOT_ACCEPTABLE, f"Accept: there is only {offered}", parameter="Accept"
        )
    return best


@lru_cache(maxsize=256)
def _best(header: str, formats: tuple[Format, ...]) -> Format | None:
    if not header.strip():
        return formats[0]
    ranges = [media_range(part) for part in header.split(",") if part.strip()]
    best = max(formats, key=lambda form: _quality(form.media_type, ranges))
    return best if _quality(best.media_type, ranges) else None


def media_range(text: str) -> tuple[str, float]:
    """What one part of ``Accept``, or of ``Accept-Encoding``, names, and its quality."""
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return name, min(max(float(value), 0.0), 1.0)
            except ValueError:
                return name, 0.0
    return name, 1.0


def _quality(media_type: str, ranges: list[tuple[str, float]]) -> float:
    """The quality that the most specific of the ranges gives, 0 where none fits."""
    main = media_type.partition("/")[0]
    for wanted in (media_type, f"{main}/*", "*/*"):
        found = [quality for name, quality in ranges if name == wanted]
        if found:
            return max(found)
    return 0.0


def csv_of(item_type: type[msgspec.Struct], items: Sequence[msgspec.Struct]) -> bytes:
    """A line of names, then one for each item; numbers have the digits that JSON has.

    Parameters
    ----------
    item_type : of the items; the fields that each has are columns
    items : whose fields are texts, numbers, or JSON numbers as they are written
    """
    names = [field.name for field in msgspec.structs.fields(item_type) if field.required]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(names)
    writer.writerows([_cell(getattr(item, name)) for name in names] for item in items)
    return out.getvalue().encode()


def _cell(value: object) -> object:
    return bytes(value).decode() if isinstance(value, Raw) else value
