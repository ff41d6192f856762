"""History: what the rings gave is kept in Redis or in the embedded database."""

from __future__ import annotations

from alphapulse.config import Settings
from alphapulse.store.embedded import EmbeddedStore
from alphapulse.store.redis import RedisStore
from alphapulse.store.repository import MarketDataRepository, Store, WriteBatch

__all__ = [
    "EmbeddedStore",
    "MarketDataRepository",
    "RedisStore",
    "Store",
    "WriteBatch",
    "open_store",
]


async def open_store(settings: Settings) -> Store:
    """The store of the settings: Redis where ``store.redis_url`` is set, else the embedded one.

    Raises
    ------
    StoreError
        the embedded database can't be opened, for one because another process has it
    """
    if settings.store.redis_url:
        return await RedisStore.open(settings.store, settings.ring.prefix)
    return await EmbeddedStore.open(settings.store)
