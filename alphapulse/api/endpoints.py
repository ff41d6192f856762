"""Paths as they are served and described: handler, parameters, and what the answers are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from alphapulse.api.context import Context
from alphapulse.api.formats import JSON, Format
from alphapulse.api.parameters import Parameter, Parameters

GET = "GET"
POST = "POST"

MAX_BODY_BYTES = 65536
"""Most paths take no body; one that is larger than this is refused."""

Handler = Callable[[Context, Request, Parameters], Awaitable[Response]]


class Endpoint(NamedTuple):
    """One path."""

    path: str
    """Its pattern."""
    handler: Handler
    """Its docstring's first sentence says what it answers."""
    body: type[msgspec.Struct] | None
    """Of a JSON answer; None where an answer is no JSON, or of no declared type."""
    parameters: tuple[Parameter[Any], ...] = ()
    """Of the query."""
    formats: tuple[Format, ...] = (JSON,)
    """Ways of writing the answer, the usual one first."""
    method: str = GET
    """HEAD is answered where GET is; other methods change what is stored."""
    request_body: type[msgspec.Struct] | None = None
    """What the request has to bring, as JSON."""
    max_body_bytes: int = MAX_BODY_BYTES
    """Longer requests are refused."""
    negotiated: bool = True
    """Whether a request that accepts none of the formats is refused."""
    others: tuple[HTTPStatus, ...] = ()
    """Further statuses with the same body."""
    refusals: tuple[HTTPStatus, ...] = ()
    """Further statuses of problems."""
    tagged: bool = False
    """Whether answers have an ETag."""
    paged: bool = False
    """Whether answers are pages."""
