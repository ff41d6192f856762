"""Who may ask: names in Host, tokens, pages of other origins, addresses beyond this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from alphapulse.errors import ConfigError
from tests.serving import Api, api_settings, kept, problem, serving


class Serve(Protocol):
    """Makes a server with these settings of section ``api``."""

    def __call__(self, **api: Any) -> AbstractAsyncContextManager[Api]: ...


@pytest.fixture
def serve(ring_prefix: str, tmp_path: Path) -> Serve:
    @asynccontextmanager
    async def make(**api: Any) -> AsyncIterator[Api]:
        settings = api_settings(ring_prefix, api=api, path=str(tmp_path / "history.duckdb"))
        async with kept(settings) as store, serving(settings, store) as client:
            yield client

    return make


async def test_only_names_that_lead_here_are_served(serve: Serve) -> None:
    async with serve(allowed_hosts=("api.example.org",)) as api:
        for name in ("localhost", "127.0.0.1:99", "[::1]:3001", "API.example.org", "127.8.8.8"):
            response = await api.http.get("/summary", headers={"Host": name})
            assert response.status_code == 200, name
        for name in ("example.org", "127.0.0.1.example.org", "", "a:b:c", "localhost@evil.org:0"):
            response = await api.http.get("/summary", headers={"Host": name})
            assert problem(response)[:2] == (403, "Host"), name


async def test_a_token_is_demanded(serve: Serve) -> None:
    async with serve(token="right") as api:
        assert (await api.http.get("/summary")).status_code == 200
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{api.port}") as client:
            for headers in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": "Basic right"},
                {"Authorization": "right"},
            ):
                response = await client.get("/summary", headers=headers)
                assert problem(response)[:2] == (401, "Authorization")
                assert response.headers["www-authenticate"] == "Bearer"
            assert (await client.get("/metrics")).status_code == 401
            assert (await client.get("/nothing")).status_code == 401
            assert (await client.get("/health/live")).status_code == 200


async def test_pages_of_the_settings_may_read(serve: Serve) -> None:
    page = {"Origin": "https://example.org"}
    async with serve(cors_origins=("https://example.org",), token="right") as api:
        response = await api.http.get("/summary", headers=page)
        assert response.headers["access-control-allow-origin"] == "https://example.org"
        other = await api.http.get("/summary", headers={"Origin": "https://evil.org"})
        assert "access-control-allow-origin" not in other.headers
        ask = {**page, "Access-Control-Request-Method": "GET",
               "Access-Control-Request-Headers": "authorization"}  # fmt: skip
        assert (await api.http.options("/summary", headers=ask)).status_code == 200
        # An error is readable, too.
        refused = await api.http.get("/summary?x=1", headers=page)
        assert refused.headers["access-control-allow-origin"] == "https://example.org"


async def test_without_the_setting_no_page_may(serve: Serve) -> None:
    async with serve() as api:
        response = await api.http.get("/summary", headers={"Origin": "http://localhost"})
        assert "access-control-allow-origin" not in response.headers


async def test_beyond_this_machine_only_with_a_token(serve: Serve) -> None:
    with pytest.raises(ConfigError, match=r"api\.host.*api\.token"):
        async with serve(host="0.0.0.0"):
            pass
    async with serve(host="0.0.0.0", token="right") as api:
        assert (await api.http.get("/summary")).status_code == 200


async def test_a_port_in_use_is_named(serve: Serve) -> None:
    async with serve() as api:
        with pytest.raises(ConfigError, match=rf"api\.port.*127\.0\.0\.1:{api.port}"):
            async with serving(
                api_settings("aptest-none", api={"port": api.port}, path="unused"),
                None,  # type: ignore[arg-type]
            ):
                pass


async def test_an_address_that_is_not_ours_is_named(serve: Serve) -> None:
    with pytest.raises(ConfigError, match=r"api\.(port|host)"):
        async with serve(host="192.0.2.1", token="right"):
            pass
