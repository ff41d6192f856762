"""Errors as RFC 9457 ``application/problem+json``, naming the parameter at fault."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"


class ProblemBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Body of an error."""

    type: str
    title: str
    status: int
    detail: str
    parameter: str | None = None
    """Which part of the request is at fault: a name in the path or query, or a header."""


class Problem(Exception):
    """A request that can't be answered.

    Parameters
    ----------
    status : HTTP status of the answer
    detail : what is wrong and what would be right
    parameter : which part of the request is at fault, if any
    headers : of the answer
    """

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        parameter: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.parameter = parameter
        self.headers = headers

    def content(self) -> bytes:
        """Body of the answer."""
        body = ProblemBody(
            type="about:blank",
            title=self.status.phrase,
            status=self.status.value,
            detail=self.detail,
            parameter=self.parameter,
        )
        return msgspec.json.encode(body)

    def response(self) -> Response:
        """The answer."""
        return Response(self.content(), self.status.value, self.headers, MEDIA_TYPE)


def bad(parameter: str, detail: str) -> Problem:
    """A parameter that can't be used."""
    return Problem(HTTPStatus.BAD_REQUEST, f"{parameter}: {detail}", parameter)
