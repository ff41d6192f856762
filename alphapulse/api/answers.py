"""Answers, and whether a client has them already."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from alphapulse.api.formats import JSON

REVALIDATE = "no-cache"
"""Late trades may change what is past, so a copy has to be asked about each time."""


def json_response(body: msgspec.Struct) -> Response:
    """An answer with this body."""
    return Response(msgspec.json.encode(body), media_type=JSON.media_type)


def tagged(
    request: Request,
    content: bytes,
    media_type: str,
    *,
    essence: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An answer with an ETag, or 304 without a body if the client has it already.

    Parameters
    ----------
    request : may have ``If-None-Match``
    content, media_type : of the answer
    essence : what the ETag is to tell apart, where it isn't all of the content
    headers : of the answer
    """
    digest = hashlib.blake2b(content if essence is None else essence, digest_size=12)
    # Weak: the same content may be sent compressed, and took its own time.
    tag = f'W/"{digest.hexdigest()}"'
    shared = {"ETag": tag, "Cache-Control": REVALIDATE, **(headers or {})}
    if _has(request, tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=shared)
    return Response(content, headers=shared, media_type=media_type)


def tagged_json(
    request: Request, body: msgspec.Struct, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer with this body, its time of processing left out of the ETag."""
    content = msgspec.json.encode(body)
    essence = content.rpartition(b',"processing_time_ms":')[0] or content
    return tagged(request, content, JSON.media_type, essence=essence, headers=headers)


def _has(request: Request, tag: str) -> bool:
    known = ",".join(request.headers.getlist("if-none-match"))
    tags = [part.strip().removeprefix("W/") for part in known.split(",")]
    return "*" in tags or tag.removeprefix("W/") in tags
