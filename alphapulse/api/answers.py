"""Answers, and whether a client has them already."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from alphapulse.api.formats import JSON, media_range
from alphapulse.api.headers import header_values

REVALIDATE = "no-cache"
"""Late trades may change what is past, so a copy has to be asked about each time."""


_TIME = b',"processing_time_ms":'

COMPRESSED_FROM_BYTES = 1024
COMPRESSION_LEVEL = 4
"""Of 1 to 9: half the time of the usual 9, for a few percent more bytes."""


def json_response(
    body: msgspec.Struct,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An answer with this body."""
    return Response(msgspec.json.encode(body), status.value, headers, JSON.media_type)


def compress(scope: Scope, response: Response) -> None:
    """Compress a long answer for a client that accepts it.

    Parameters
    ----------
    scope : the request's
    response : changed in place
    """
    if len(response.body) < COMPRESSED_FROM_BYTES:
        return
    response.raw_headers.append((b"vary", b"Accept-Encoding"))
    if not _accepts_gzip(",".join(header_values(scope, b"accept-encoding"))):
        return
    response.body = gzip.compress(response.body, COMPRESSION_LEVEL, mtime=0)
    response.headers["Content-Encoding"] = "gzip"
    response.headers["Content-Length"] = str(len(response.body))


def tagged(
    request: Request,
    content: bytes,
    media_type: str,
    *,
    tag: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An answer with an ETag, or 304 without a body if the client has it already.

    Parameters
    ----------
    request : may have ``If-None-Match``
    content, media_type : of the answer
    tag : from `tag_of`, where it isn't that of all of the content
    headers : of the answer
    """
    if tag is None:
        tag = tag_of(content)
    shared = {"ETag": tag, "Cache-Control": REVALIDATE, **(headers or {})}
    if _has(request, tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=shared)
    return Response(content, headers=shared, media_type=media_type)


def tag_of(content: bytes) -> str:
    """An ETag; weak, since the same content may be sent compressed, and took its own time."""
    return f'W/"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'


def tagged_json(
    request: Request, body: msgspec.Struct, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer with this body, its time of processing left out of the ETag."""
    content = msgspec.json.encode(body)
    tag = tag_of(essence_of(content))
    return tagged(request, content, JSON.media_type, tag=tag, headers=headers)


def essence_of(content: bytes) -> bytes:
    """A JSON body without its time of processing, which comes last."""
    return content.rpartition(_TIME)[0] or content


def timed(essence: bytes, milliseconds: float) -> bytes:
    """The JSON body that `essence_of` was taken of, with another time."""
    return b"%b%b%b}" % (essence, _TIME, repr(milliseconds).encode())


@lru_cache(maxsize=64)
def _accepts_gzip(header: str) -> bool:
    names = {"gzip": 0.0, "*": 0.0}
    names.update(media_range(part) for part in header.split(","))
    return names["gzip"] > 0 or ("gzip" not in header and names["*"] > 0)


def _has(request: Request, tag: str) -> bool:
    known = ",".join(header_values(request.scope, b"if-none-match"))
    tags = [part.strip().removeprefix("W/") for part in known.split(",")]
    return "*" in tags or tag.removeprefix("W/") in tags
