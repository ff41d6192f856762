"""The fan-out benchmark's parts, with few clients: everything is counted. Nothing is timed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import fanout
from benchmarks.fanout_feed import Done
from benchmarks.fanout_report import Case
from benchmarks.fanout_run import Stage, load_program
from benchmarks.fanout_servers import Server, ours, peers
from benchmarks.harness import Absent

SECONDS = 0.2


@pytest.fixture(scope="module")
def program() -> Iterator[Path]:
    """The load client."""
    with load_program() as found:
        assert found is not None, "the native modules were compiled, so there is a compiler"
        yield found


@pytest.fixture
def stage(program: Path) -> Stage:
    return Stage(program)


def python_peers() -> list[Server | Absent]:
    with peers(node=False) as found:
        return found


def test_readers_are_counted_by_symbol() -> None:
    case = Case(clients=25, symbols=20, each=10)
    assert sum(case.readers()) == 25 * 10
    assert all(len(set(chosen)) == 10 for chosen in case.chosen())
    assert Case(clients=7).readers() == [7] * 10


@pytest.mark.parametrize("server", [ours(), ours("binary")], ids=["json", "binary"])
def test_each_client_gets_each_event_of_its_symbols(stage: Stage, server: Server) -> None:
    with stage.at_work(server, Case(clients=12, symbols=12, each=10)) as running:
        first = running.feed(SECONDS, window=12 * 32)
        running.settle(first)
        running.phase("paced")
        done = running.feed(SECONDS, rate=200.0)
        assert running.cpu_seconds() > 0
        report = running.finish(done)
    report.check(done)
    assert (report.clients, report.failed, report.disconnects) == (12, 0, 0)
    assert report.phase("first").deliveries == first.deliveries > 0
    assert report.phase("paced").deliveries == done.deliveries - first.deliveries > 0
    assert report.phase("paced").p50_us <= report.phase("paced").most_us


@pytest.mark.parametrize("server", python_peers(), ids=lambda peer: peer.name)
def test_peers_deliver_the_same(stage: Stage, server: Server | Absent) -> None:
    if isinstance(server, Absent):
        pytest.skip(f"{server.name}: {server.reason}")
    with stage.at_work(server, Case(clients=3)) as running:
        done = running.feed(SECONDS, rate=200.0)
        report = running.finish(done)
    report.check(done)
    assert (report.least, report.most) == (done.events, done.events)


def test_a_client_that_stops_reading_isnt_counted_with_the_others(stage: Stage) -> None:
    server = ours()
    with stage.started(server, Case(clients=3)) as started, stage.connected(started) as running:
        running.stall()
        done = running.feed(SECONDS, rate=200.0)
        assert started.health()["clients"] == 3
        assert started.metric("stream_clients") == 3
        two_of_three = Done(events=done.events, deliveries=2 * done.events)
        report = running.finish(two_of_three)
    assert report.total == 2 * done.events
    assert report.stalled is not None
    assert report.stalled.close_code == 0


def test_a_round_of_many_measures_memory(stage: Stage) -> None:
    figures = fanout.many_round(stage, Case(clients=20))(ours(), 0.02)
    assert figures["disconnects"] == figures["missed"] == 0
    assert figures["memory"] > 0
