"""A `MarketDataRepository` by its address."""

from __future__ import annotations

import re

from alphapulse.errors import RequestError
from alphapulse.repository import MarketDataRepository

HTTP = ("http://", "https://")
REDIS = ("redis://", "rediss://", "unix://")

_HOST_AND_PORT = re.compile(r"[^/]+:[0-9]+/?")


async def open_repository(
    where: str, *, prefix: str = "alphapulse", token: str = "", read_only: bool = False
) -> MarketDataRepository:
    """Open market data, wherever it is; `MarketDataRepository.close` lets go of it.

    ::

        repository = await open_repository("http://127.0.0.1:3001")
        trades = await repository.get_trades("BTC-USD", "kraken", limit=100)

    Parameters
    ----------
    where : address of a REST server (``http://127.0.0.1:3001``) or of Redis
        (``redis://localhost:6379``), or path of an embedded database that no process has open
        for writing (``history.duckdb``), which is created if it isn't there
    prefix : with Redis, the ``ring.prefix`` of the installation that writes there
    token : with a REST server, its ``api.token``
    read_only : with an embedded database, change nothing; several programs may read it then

    Raises
    ------
    RequestError
        the address is none of these
    StoreError
        the embedded database can't be opened
    """
    if where.startswith(HTTP):
        from alphapulse.client.repository import HttpRepository

        return HttpRepository(where, token=token)
    if "://" in where and not where.startswith(REDIS):
        raise RequestError(
            "bad_address", f"where: {where!r} begins with none of {', '.join((*HTTP, *REDIS))}"
        )
    if _HOST_AND_PORT.fullmatch(where):
        raise RequestError(
            "bad_address",
            f"where: {where!r} is neither an address nor a file's path; write http://{where} "
            f"or redis://{where}, or ./{where} for a file of that name",
        )
    from alphapulse import store
    from alphapulse.config import StoreSettings

    # Who opens a history to read it doesn't mean to have it trimmed.
    if where.startswith(REDIS):
        settings = StoreSettings(redis_url=where, retention_days=0)
        return await store.RedisStore.open(settings, prefix)
    settings = StoreSettings(path=where, retention_days=0)
    return await store.EmbeddedStore.open(settings, read_only=read_only)
