"""For tests of REST: the server on a free port, and a client of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import httpx
from msgspec.structs import replace

from alphapulse.api import run_api
from alphapulse.config import ApiSettings, Settings, StreamSettings
from alphapulse.history import TradeRow
from alphapulse.store import Store, WriteBatch, open_store
from tests.trading import PATIENCE_SECONDS, eventually, settings_for


class Api:
    """A client of a running server.

    Parameters
    ----------
    port : that the server told
    token : to send with each request
    """

    def __init__(self, port: int, token: str = "") -> None:
        self.port = port
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers)

    async def get(self, path: str, **query: Any) -> Any:
        """Body of a path that answers 200, numbers as exact decimals."""
        response = await self.http.get(path, params=query or None)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/json"
        return json.loads(response.text, parse_float=Decimal, parse_int=int)

    async def refused(self, path: str, **query: Any) -> tuple[int, str | None, str]:
        """Status, parameter and detail of a path that answers with a problem."""
        response = await self.http.get(path, params=query or None)
        return problem(response)

    async def until(self, path: str, condition: Callable[[Any], bool], **query: Any) -> Any:
        """The first body that fulfils a condition."""

        async def fulfilled() -> Any:
            body = await self.get(path, **query)
            return body if condition(body) else None

        return await eventually(fulfilled)


def problem(response: httpx.Response) -> tuple[int, str | None, str]:
    """Status, parameter and detail of an error's body, its form checked."""
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    assert body["type"] == "about:blank"
    assert body["title"]
    return response.status_code, body.get("parameter"), body["detail"]


@asynccontextmanager
async def kept(settings: Settings, *trades: TradeRow) -> AsyncIterator[Store]:
    """The store of these settings with these trades in it."""
    store = await open_store(settings)
    try:
        for exchange in sorted({trade.exchange for trade in trades}):
            batch = [trade for trade in trades if trade.exchange == exchange]
            await store.append(WriteBatch(exchange=exchange, trades=batch))
        yield store
    finally:
        await store.close()


def api_settings(
    prefix: str, *, stream_port: int = 0, api: dict[str, Any] | None = None, **store: Any
) -> Settings:
    """Settings of a server on a free port."""
    return replace(
        settings_for(prefix, **store),
        api=ApiSettings(**{"port": 0, **(api or {})}),
        stream=StreamSettings(port=stream_port),
    )


@asynccontextmanager
async def serving(settings: Settings, store: Store, *, written: bool = False) -> AsyncIterator[Api]:
    """A running server; `written` if the history is to be written meanwhile."""
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        run_api(
            *(settings, store),
            ready=port.set_result,
            stop=stop,
            written=(lambda: True) if written else None,
        )
    )
    await asyncio.wait({task, port}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    api = Api(await port, settings.api.token)
    try:
        yield api
    finally:
        await api.http.aclose()
        stop.set()
        assert await asyncio.wait_for(task, PATIENCE_SECONDS) == 0
