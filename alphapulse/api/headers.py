"""Headers of a request, read once and without a copy."""

from __future__ import annotations

from starlette.types import Scope


def header_values(scope: Scope, name: bytes) -> list[str]:
    """All values of a header.

    Parameters
    ----------
    scope : the request's
    name : in lower case
    """
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
