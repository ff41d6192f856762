"""Which endpoint a request's method and path mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus

from alphapulse.api.endpoints import GET, Endpoint
from alphapulse.api.problems import Problem

HEAD = "HEAD"

_Pattern = tuple[str, ...]


class Routes:
    """The endpoints by their paths.

    Parameters
    ----------
    endpoints : where the patterns of two fit a path, the first one's methods count
    """

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        methods: dict[str, dict[str, Endpoint]] = {}
        for endpoint in endpoints:
            methods.setdefault(endpoint.path, {})[endpoint.method] = endpoint
        self._by_length: dict[int, list[tuple[_Pattern, dict[str, Endpoint]]]] = {}
        for path, found in methods.items():
            # A symbol written BTC/USD, escaped or not, arrives as two parts of the path.
            for text in dict.fromkeys((path, path.replace("{symbol}", "{base}/{quote}"))):
                pattern = tuple(text.split("/"))
                self._by_length.setdefault(len(pattern), []).append((pattern, found))

    def find(self, method: str, path: str) -> tuple[Endpoint, dict[str, str]]:
        """The endpoint, and what stands in the path for each name of its pattern.

        Raises
        ------
        Problem
            404: no such path; 405: not with this method
        """
        parts = path.split("/")
        for pattern, methods in self._by_length.get(len(parts), ()):
            values = _match(pattern, parts)
            if values is not None:
                endpoint = methods.get(GET if method == HEAD else method)
                if endpoint is None:
                    raise _not_allowed(methods)
                return endpoint, values
        raise Problem(HTTPStatus.NOT_FOUND, "no such path; /docs shows those there are")


def _match(pattern: _Pattern, parts: Sequence[str]) -> dict[str, str] | None:
    values = {}
    for name, part in zip(pattern, parts, strict=True):
        if name[:1] == "{":
            if not part:
                return None
            values[name[1:-1]] = part
        elif name != part:
            return None
    return values


def _not_allowed(methods: Iterable[str]) -> Problem:
    allowed = [name for method in methods for name in ((GET, HEAD) if method == GET else (method,))]
    allow = ", ".join(sorted(allowed))
    detail = f"this path has other methods; use {allow}"
    return Problem(HTTPStatus.METHOD_NOT_ALLOWED, detail, None, {"Allow": allow})
