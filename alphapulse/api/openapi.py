"""``/openapi.json``: the schema, made from the endpoints, their parameters and their bodies."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

import alphapulse
from alphapulse.api.endpoints import GET, Endpoint
from alphapulse.api.formats import JSON
from alphapulse.api.guard import OPEN_PATHS
from alphapulse.api.parameters import SYMBOL_PATTERN, Limits
from alphapulse.api.problems import MEDIA_TYPE, ProblemBody

OPENAPI_VERSION = "3.1.0"
_REFERENCE = "#/components/schemas/{name}"
_PROBLEM = {"$ref": _REFERENCE.format(name=ProblemBody.__name__)}
_TEXT_SCHEMA = {"type": "string"}
_BINARY_SCHEMA = {"type": "string", "format": "binary"}
_BEARER = "bearer"

_HEADERS = {
    "ETag": "Changes when the content does; send it as If-None-Match.",
    "Link": "The next page, rel=next, where there is one.",
}

_PATH_PARAMETERS: dict[str, tuple[str, dict[str, Any]]] = {
    "symbol": ("`BTC-USD`, `BTC/USD` or `BTC%2FUSD`.", {"type": "string"}),
    "exchange": ("An exchange that is collected or has history.", {"type": "string"}),
}


def describe(endpoints: Sequence[Endpoint], limits: Limits, *, secured: bool) -> dict[str, Any]:
    """The OpenAPI document.

    Parameters
    ----------
    endpoints : all paths
    limits : of parameters, as they are in force
    secured : whether a token is demanded
    """
    found = [kind for endpoint in endpoints for kind in (endpoint.body, endpoint.request_body)]
    bodies = list(dict.fromkeys(kind for kind in found if kind is not None))
    _, schemas = msgspec.json.schema_components([*bodies, ProblemBody], ref_template=_REFERENCE)
    components: dict[str, Any] = {"schemas": schemas}
    if secured:
        components["securitySchemes"] = {_BEARER: {"type": "http", "scheme": "bearer"}}
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operations = paths.setdefault(endpoint.path, {})
        operations[endpoint.method.lower()] = _operation(endpoint, limits, secured)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "AlphaPulse",
            "version": alphapulse.__version__,
            "description": "Live order books, trades and bars of crypto exchanges, exact.",
            "license": {"name": "MIT"},
        },
        "paths": paths,
        "components": components,
    }


def _operation(endpoint: Endpoint, limits: Limits, secured: bool) -> dict[str, Any]:
    text = " ".join((inspect.getdoc(endpoint.handler) or "").split("\n\n")[0].split())
    name = re.sub(r"\W+", "_", endpoint.path).strip("_")
    operation: dict[str, Any] = {
        "operationId": name if endpoint.method == GET else f"{endpoint.method.lower()}_{name}",
        "tags": [endpoint.path.split("/")[1].partition(".")[0]],
        "summary": text,
        "parameters": [*_path_parameters(endpoint.path, limits), *_query(endpoint, limits)],
        "responses": _responses(endpoint, secured),
    }
    if endpoint.request_body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {JSON.media_type: {"schema": _reference(endpoint.request_body)}},
        }
    if secured and endpoint.path not in OPEN_PATHS:
        operation["security"] = [{_BEARER: []}]
    return operation


def _path_parameters(path: str, limits: Limits) -> list[dict[str, Any]]:
    found = []
    for name in re.findall(r"{(\w+)}", path):
        description, schema = _PATH_PARAMETERS[name]
        if name == "symbol":
            schema = {**schema, "pattern": SYMBOL_PATTERN}
        elif limits.exchanges:
            schema = {**schema, "enum": list(limits.exchanges)}
        found.append(
            {"name": name, "in": "path", "required": True, "description": description,
             "schema": schema}
        )  # fmt: skip
    return found


def _query(endpoint: Endpoint, limits: Limits) -> list[dict[str, Any]]:
    return [
        {
            "name": parameter.name,
            "in": "query",
            "required": parameter.required(limits),
            "description": parameter.description,
            "schema": parameter.schema(limits),
        }
        for parameter in endpoint.parameters
    ]


def _responses(endpoint: Endpoint, secured: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": "The answer.",
        "content": {
            form.media_type: {"schema": _schema_of(endpoint, form.media_type)}
            for form in endpoint.formats
        },
    }
    if named := ["ETag"] * endpoint.tagged + ["Link"] * endpoint.paged:
        answer["headers"] = {
            name: {"description": _HEADERS[name], "schema": _TEXT_SCHEMA} for name in named
        }
    responses: dict[str, Any] = {"200": answer}
    if endpoint.tagged:
        responses["304"] = {"description": "The client has it already."}
    problems = [HTTPStatus.BAD_REQUEST]
    if secured and endpoint.path not in OPEN_PATHS:
        problems.append(HTTPStatus.UNAUTHORIZED)
    problems += [HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND]
    problems += [HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_ACCEPTABLE]
    problems += [HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.SERVICE_UNAVAILABLE]
    problems += [HTTPStatus.UNSUPPORTED_MEDIA_TYPE] if endpoint.request_body is not None else []
    problems += endpoint.refusals
    for status in problems:
        responses[str(status.value)] = {
            "description": status.phrase,
            "content": {MEDIA_TYPE: {"schema": _PROBLEM}},
        }
    for status in endpoint.others:
        described = responses.setdefault(
            str(status.value), {"description": status.phrase, "content": {}}
        )
        described["content"] = {**answer["content"], **described["content"]}
    return responses


def _reference(body: type[msgspec.Struct]) -> dict[str, Any]:
    return {"$ref": _REFERENCE.format(name=body.__name__)}


def _schema_of(endpoint: Endpoint, media_type: str) -> dict[str, Any]:
    if media_type == JSON.media_type:
        if endpoint.body is None:
            return {"type": "object"}
        return _reference(endpoint.body)
    return dict(_TEXT_SCHEMA if media_type.startswith("text/") else _BINARY_SCHEMA)
