"""Counting requests and how long they take."""

from __future__ import annotations

import prometheus_client

from alphapulse import metrics

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
"""Stands for methods and paths that aren't served."""

_Bound = tuple[prometheus_client.Counter, prometheus_client.Histogram]


class Meter:
    """The server's metrics; what labels stand for is looked up once."""

    def __init__(self) -> None:
        self._bound: dict[tuple[str, str, int], _Bound] = {}

    def count(self, method: str, path: str, status: int, milliseconds: float) -> None:
        """Count a request.

        Parameters
        ----------
        method : its method, whatever it is
        path : the path's pattern
        status : of the answer
        milliseconds : it took
        """
        key = (method if method in METHODS else OTHER, path, status)
        bound = self._bound.get(key)
        if bound is None:
            bound = self._bound[key] = _bind(*key)
        bound[0].inc()
        bound[1].observe(milliseconds)


def _bind(method: str, path: str, status: int) -> _Bound:
    return (
        metrics.HTTP_REQUESTS.bind(method=method, path=path, status=str(status)),
        metrics.HTTP_REQUEST_DURATION.bind(method=method, path=path),
    )
