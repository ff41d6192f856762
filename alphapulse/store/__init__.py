"""History: what the rings gave is kept in Redis or in the embedded database."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from alphapulse.config import Settings
from alphapulse.store.repository import MarketDataRepository, Store, WriteBatch

if TYPE_CHECKING:
    from alphapulse.store.embedded import EmbeddedStore
    from alphapulse.store.redis import RedisStore

__all__ = [
    "EmbeddedStore",
    "MarketDataRepository",
    "RedisStore",
    "Store",
    "WriteBatch",
    "open_store",
]


# A program with one store has no use for the 20 MB that the other one's library takes.
_LOADED_WHEN_USED = {
    "EmbeddedStore": "alphapulse.store.embedded",
    "RedisStore": "alphapulse.store.redis",
}


def __getattr__(name: str) -> Any:
    if name in _LOADED_WHEN_USED:
        return getattr(import_module(_LOADED_WHEN_USED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


async def open_store(settings: Settings) -> Store:
    """The store of the settings: Redis where ``store.redis_url`` is set, else the embedded one.

    Raises
    ------
    StoreError
        the embedded database can't be opened, for one because another process has it
    """
    if settings.store.redis_url:
        from alphapulse.store.redis import RedisStore

        return await RedisStore.open(settings.store, settings.ring.prefix)
    from alphapulse.store.embedded import EmbeddedStore

    return await EmbeddedStore.open(settings.store)
