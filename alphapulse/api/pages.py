"""Pages of long answers: opaque cursors that say after which row the next page begins.

A cursor holds the place of a row in the order of the store, not a count of rows: what is inserted
meanwhile shifts nothing.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from starlette.requests import Request

from alphapulse.api.parameters import Limits, Parameter, Parameters
from alphapulse.api.problems import Problem, bad
from alphapulse.fixed import INT64_MAX
from alphapulse.history import OrderKey

R = TypeVar("R")

CURSOR_PATTERN = r"^lM[67][A-Za-z0-9_-]{7,1000}$"
"""How the content below begins in base64, its first number being one of 32 bits."""

_decoder = msgspec.msgpack.Decoder(tuple[int, int, int, str])


class Cursor(NamedTuple):
    """Where a page ended."""

    series: int
    """Tells what it is a page of (`series_of`)."""
    key: OrderKey
    """Of the page's last row, in the direction of paging."""

    def text(self) -> str:
        """As it stands in a query."""
        content = msgspec.msgpack.encode((self.series, *self.key))
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


class CursorParameter(Parameter[Cursor | None]):
    """A cursor that an earlier answer has given; None if not given."""

    def schema(self, limits: Limits) -> dict[str, Any]:
        """See `Parameter`."""
        return {"type": "string", "pattern": CURSOR_PATTERN}

    def read(self, text: str | None, limits: Limits) -> Cursor | None:
        """See `Parameter`."""
        if text is None:
            return None
        if not re.fullmatch(CURSOR_PATTERN, text):
            raise bad(self.name, f"{text!r} is no cursor; follow the `next` of an answer as it is")
        try:
            content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            series, time_ns, number, name = _decoder.decode(content)
            if abs(time_ns) > INT64_MAX or number < 0:
                raise ValueError("no place of a row")
        except (binascii.Error, ValueError):
            raise self.unknown() from None
        return Cursor(series, (time_ns, number, name))

    def unknown(self) -> Problem:
        """What is raised for one that leads to no page of this request."""
        return Problem(
            HTTPStatus.NOT_FOUND,
            f"{self.name}: leads to no page of this request; follow an answer's `next` as it is",
            self.name,
        )


CURSOR = CursorParameter(
    "cursor", "Where to go on: from the `next` of an answer, the other parameters unchanged."
)


def cursor_of(query: Parameters, series: int) -> Cursor | None:
    """The cursor that was given, if any. Raises `Problem` for one of another series."""
    cursor = query[CURSOR]
    if cursor is not None and cursor.series != series:
        raise CURSOR.unknown()
    return cursor


def page_of(rows: list[R], limit: int, newest: bool) -> tuple[list[R], R | None]:
    """A page of rows that were read up to one beyond the limit, and where it ends if more follow.

    Parameters
    ----------
    rows : oldest first
    limit : rows of a page
    newest : whether paging goes back in time
    """
    if len(rows) <= limit:
        return rows, None
    return (rows[1:], rows[1]) if newest else (rows[:-1], rows[-2])


def page_headers(link: str | None) -> dict[str, str]:
    """Headers of a page; `link` is the address of the next one."""
    return {"Vary": "Accept", **({} if link is None else {"Link": f'<{link}>; rel="next"'})}


def series_of(*parts: object) -> int:
    """A number that differs between what cursors can't be exchanged between."""
    return zlib.crc32("\0".join(map(str, parts)).encode()) | 1 << 31


def next_link(request: Request, path: str, cursor: Cursor) -> str:
    """The address of the next page, without scheme and host.

    Parameters
    ----------
    request : for this page
    path : of the request, symbol included
    cursor : where this page ended
    """
    query = {name: value for name, value in request.query_params.items() if name != CURSOR.name}
    query[CURSOR.name] = cursor.text()
    return f"{quote(path)}?{urlencode(query)}"
