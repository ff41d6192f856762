"""``/openapi.json`` and ``/docs``: the schema, and the page that shows it."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from alphapulse.api import openapi
from alphapulse.api.answers import tagged
from alphapulse.api.context import Context
from alphapulse.api.formats import JSON, Format
from alphapulse.api.parameters import Parameters

HTML = Format("html", "text/html")

_PAGE = resources.files("alphapulse.api").joinpath("docs.html").read_bytes()


def _hashes(element: bytes) -> str:
    found = re.findall(rb"<%b>(.*?)</%b>" % (element, element), _PAGE, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(text).digest()).decode() for text in found)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


# What the page holds itself may run; nothing else may be loaded, and only this server be asked.
_POLICY = (
    f"default-src 'none'; script-src {_hashes(b'script')}; style-src {_hashes(b'style')}; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def schema(context: Context, request: Request, query: Parameters) -> Response:
    """This schema (OpenAPI 3.1)."""
    limits = context.limits._replace(exchanges=await context.exchanges())
    document = openapi.describe(context.endpoints, limits, secured=bool(context.settings.api.token))
    return tagged(request, msgspec.json.encode(document), JSON.media_type)


async def page(context: Context, request: Request, query: Parameters) -> Response:
    """A page that shows this schema, with a form to try each path."""
    headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}
    return tagged(request, _PAGE, HTML.media_type, headers=headers)
