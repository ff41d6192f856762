"""The history benchmark's parts, with few trades: everything is counted. Nothing is timed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alphapulse.clock import wall_ns
from alphapulse.model import Trade
from alphapulse.shm import RingReader, RingWriter
from benchmarks import history_outage, history_redis, http_load
from benchmarks.harness import version_of
from benchmarks.history_embedded import append, served, sqlite_append
from benchmarks.history_market import EXCHANGE, SPECS, RingFeed, plain_trades, rows
from benchmarks.history_parts import RING_BYTES, bytes_of_ring
from benchmarks.pacing import bursts
from tests.support import find_program

TRADES = 2000


@pytest.fixture
def redis_program() -> str:
    return find_program("redis-server", "redis-server")


def test_all_get_the_same_trades(ring_prefix: str) -> None:
    stored = rows(0, 25, begin_ns=0, step_ns=1)
    plain = list(plain_trades(25))
    with RingWriter(EXCHANGE, prefix=ring_prefix, size_bytes=1 << 16) as writer:
        feed = RingFeed(writer)
        for _ in range(25):
            feed.send(wall_ns())
        with RingReader(EXCHANGE, prefix=ring_prefix, start="oldest") as reader:
            ringed = [event for event in reader.read().events() if isinstance(event, Trade)]
    assert len(ringed) == len(stored) == len(plain) == 25
    assert len({row.symbol for row in stored}) == len(SPECS)
    for one, other, event in zip(stored, plain, ringed, strict=True):
        assert (one.symbol, one.trade_id, one.side.text) == other[:1] + other[4:] + other[1:2]
        assert (one.exact_size, one.exact_price) == other[2:4]
        assert (event.instrument.symbol, event.trade_id) == (one.symbol, one.trade_id)
        assert (event.price, event.size, event.side) == (one.price, one.size, one.side)
        assert event.instrument.price_exponent == one.price_exponent


def test_each_event_of_a_rate_comes_once() -> None:
    assert sum(bursts(1e6, 5000)) == 5000


def test_a_ring_has_room_for_its_trades() -> None:
    assert bytes_of_ring(1) == RING_BYTES
    with_room = bytes_of_ring(6_000_000)
    assert with_room.bit_count() == 1
    assert with_room > 6_000_000 * 80


def test_frames_reach_redis(redis_program: str) -> None:
    figures = history_redis.steady(0.01)
    assert 0 < figures["p50"] <= figures["p99"] <= figures["max"]
    assert figures["batch"] >= 1


SIDES = {"ours": history_redis.most}
if version_of("cryptofeed") is not None:
    SIDES["cryptofeed"] = history_redis.cryptofeed_most


@pytest.mark.parametrize("side", SIDES)
def test_a_full_ring_and_the_peers_trades_reach_redis(redis_program: str, side: str) -> None:
    figures = SIDES[side](TRADES)
    assert min(figures["rate"], figures["writer-cpu"]) > 0


def test_an_outage_loses_nothing(redis_program: str) -> None:
    figures = history_outage.outage(0.5)
    assert (figures["trades"], figures["lost"]) == (5000, 0)
    assert figures["memory-most"] >= figures["memory-before"] > 0


def test_trades_are_appended_on_both_sides(tmp_path: Path) -> None:
    assert append(TRADES)["rate"] > 0
    assert sqlite_append(TRADES)["rate"] > 0


def test_answers_are_read_while_trades_are_written(tmp_path: Path) -> None:
    path = tmp_path / "history.duckdb"
    append(40 * TRADES, path)
    with served(path, 40 * TRADES, writing=True) as server:
        for measure in (server.random_pages, server.next_pages, server.newest_pages):
            assert measure(0.05)["p50"] > 0
        assert server.days_of_bars(0.05)["max"] > 0
        assert server.recent(0.05)["rate"] > 0


def test_an_error_of_the_server_is_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "history.duckdb"
    append(TRADES, path)
    with served(path, TRADES) as server:
        with closing(http_load.Connection(server.port)) as connection:
            body: dict[str, Any] = msgspec.json.decode(connection.get("/symbols/kraken"))
            assert body["count"] == len(SPECS)
            with pytest.raises(RuntimeError, match="400"):
                connection.get("/trades/BTC-USD?limit=0")
        load = http_load.run(server.port, ["/exchanges", "/health/live"], 0.05, 2)
        assert load.requests > 0
