"""Views: exact at any depth, in both formats, and told no more often than wanted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alphapulse.clock import monotonic_ns
from alphapulse.delta import decode_header
from alphapulse.model import BookDelta, BookSide, BookState, Reason, RecordFlag
from alphapulse.stream.requests import Look
from alphapulse.stream.timetable import Timetable
from tests.stream_stage import BookStage
from tests.streaming import Consumer

BID, ASK = BookSide


@pytest.fixture
def stage(ring_prefix: str) -> Iterator[BookStage]:
    with BookStage(ring_prefix, symbols=("BTC-USD", "ETH-USD")) as stage:
        yield stage


class Clock:
    """Lets time pass for a hub."""

    def __init__(self, stage: BookStage) -> None:
        self._stage = stage
        self._ahead_ns = 0

    def go_on(self, milliseconds: int) -> None:
        self._ahead_ns += milliseconds * 1_000_000
        self._stage.hub.desk.timetable.run(monotonic_ns() + self._ahead_ns)
        self._stage.hub.flush()


@pytest.mark.parametrize("depth", [2, "full"])
@pytest.mark.parametrize("format_", ["json", "binary"])
def test_a_conflated_view_tells_the_difference_since_its_event_before(
    stage: BookStage, depth: int | str, format_: str
) -> None:
    exchange = stage.exchange
    clock = Clock(stage)
    connect = stage.texts if format_ == "json" else stage.records
    _, consumer = connect(
        channels=["orderbook", "trades"], symbols="BTC-USD", depth=depth, conflate_ms=60_000
    )
    for size in range(1, 9):
        exchange.change("BTC-USD", (BID, 100, size), (ASK, 110, 9 - size), (BID, 100 - size, 7))
        exchange.trade("BTC-USD")
        stage.feed()
    assert deltas(consumer) == []
    clock.go_on(60_001)
    assert deltas(consumer) == [(1, 9)]
    assert consumer.current("kraken", "BTC-USD", 9)
    clock.go_on(60_001)
    assert deltas(consumer) == [(1, 9)]
    exchange.change("BTC-USD", (BID, 100, 5))
    exchange.change("BTC-USD", (BID, 100, 8))
    stage.feed()
    clock.go_on(60_001)
    assert deltas(consumer) == [(1, 9)], "nothing if nothing has changed"
    exchange.change("BTC-USD", (BID, 100, 5))
    stage.feed()
    clock.go_on(60_001)
    assert deltas(consumer)[1:] == [(9, 12)]
    trades = sum("trade_id" in str(event) for event in consumer.events)
    assert trades == 8


def deltas(consumer: Any) -> list[tuple[int, int]]:
    """Previous and own version of each."""
    if isinstance(consumer, Consumer):
        told = [event["data"] for event in consumer.of("orderbook_delta")]
        return [(int(data["prev_version"]), int(data["version"])) for data in told]
    for record, event in zip(consumer.records, consumer.events, strict=True):
        if isinstance(event, BookDelta):
            assert decode_header(record).flags == RecordFlag.MADE
    return [
        (event.prev_version, event.version)
        for event in consumer.events
        if isinstance(event, BookDelta)
    ]


def test_states_are_not_held_back_and_nothing_follows_them(stage: BookStage) -> None:
    clock = Clock(stage)
    _, consumer = stage.texts(channels=["orderbook"], symbols="BTC-USD", conflate_ms=50)
    stage.exchange.change("BTC-USD", (BID, 100, 5))
    stage.exchange.state("BTC-USD", BookState.STALE, Reason.SILENT)
    stage.feed()
    assert consumer.states["kraken", "BTC-USD"] == "stale"
    clock.go_on(1000)
    assert deltas(consumer) == []
    stage.exchange.reset("BTC-USD", {70: 1}, {}, Reason.RESYNCED)
    stage.exchange.state("BTC-USD", BookState.LIVE, Reason.RESYNCED)
    stage.feed()
    assert consumer.current("kraken", "BTC-USD", 3)


def test_equal_looks_share_a_view_and_its_frames(stage: BookStage) -> None:
    inboxes = []
    for _ in range(3):
        for depth, conflate_ms in ((2, None), (2, 50), ("full", None)):
            options = {"conflate_ms": conflate_ms} if conflate_ms else {}
            stage.texts(channels=["orderbook"], symbols="BTC-USD", depth=depth, **options)
        client, _ = stage.records(channels=["orderbook"], symbols="BTC-USD")
        inboxes.append(client)
    views = stage.hub.venue("kraken").markets["BTC-USD"].views
    assert set(views) == {Look(2), Look(2, "json", 50), Look(0), Look(0, "binary")}
    assert {len(view.clients) for view in views.values()} == {3}
    for client in inboxes:
        stage.hub.disconnect(client)
    assert set(views) == {Look(2), Look(2, "json", 50), Look(0)}


levels = st.tuples(st.sampled_from(BookSide), st.integers(0, 9), st.sampled_from([0, 0, 1, 2]))
plans = st.lists(
    st.lists(levels, min_size=1, max_size=5)
    | st.sampled_from(["feed", "time", "join", "reset", "stale", "pause", "take_up"]),
    min_size=1,
    max_size=40,
)
looks = st.tuples(
    st.sampled_from([1, 2, 4, 100, "full"]),
    st.sampled_from(["json", "binary"]),
    st.sampled_from([None, 1, 50]),
)


class Rehearsal:
    """One book, and clients that look at it in several ways, on a random plan."""

    def __init__(self, stage: BookStage, wanted: list[tuple[int | str, str, int | None]]) -> None:
        self.stage = stage
        self.exchange = stage.exchange
        self.clock = Clock(stage)
        self.live = True
        self.clients: list[Any] = []
        self._wanted = wanted

    def change(self, step: list[tuple[BookSide, int, int]]) -> None:
        if self.live:
            change(self.stage, step)

    def feed(self) -> None:
        self.stage.feed()

    def time(self) -> None:
        self.stage.feed()
        self.clock.go_on(60)

    def join(self) -> None:
        if self._wanted:
            depth, format_, conflate_ms = self._wanted.pop()
            options = {"conflate_ms": conflate_ms} if conflate_ms else {}
            connect = self.stage.texts if format_ == "json" else self.stage.records
            self.clients.append(connect(channels=["orderbook"], depth=depth, **options))

    def reset(self) -> None:
        bids, asks = self.exchange.books["BTC-USD"]
        self.exchange.reset("BTC-USD", dict(list(bids.items())[1:]), asks)
        if not self.live:
            self.exchange.state("BTC-USD", BookState.LIVE, Reason.RESYNCED)
        self.live = True

    def stale(self) -> None:
        if self.live:
            self.exchange.state("BTC-USD", BookState.STALE, Reason.SILENT)
        self.live = False

    def pause(self) -> None:
        self.clients[-1][0].sink.paused = True

    def take_up(self) -> None:
        take_up(self.stage, self.clients[-1][0])

    def check(self) -> None:
        self.stage.feed()
        for client, _ in self.clients:
            take_up(self.stage, client)
        self.clock.go_on(60)
        version = self.exchange.versions["BTC-USD"]
        for _, consumer in self.clients:
            assert not self.live or consumer.current("kraken", "BTC-USD", version)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=plans, wanted=st.lists(looks, min_size=1, max_size=6))
def test_views_of_any_kind_follow_the_book(
    ring_prefix: str, plan: list[Any], wanted: list[tuple[int | str, str, int | None]]
) -> None:
    with BookStage(ring_prefix, symbols=("BTC-USD",), size_bytes=1 << 16) as stage:
        rehearsal = Rehearsal(stage, wanted)
        rehearsal.join()
        for step in plan:
            if isinstance(step, list):
                rehearsal.change(step)
            else:
                getattr(rehearsal, step)()
        rehearsal.check()


def take_up(stage: BookStage, client: Any) -> None:
    """A client that took nothing has been found behind, and reads again."""
    if client.sink.paused:
        stage.conflate(client)
    client.sink.paused = False
    stage.resume(client)


def change(stage: BookStage, step: list[tuple[BookSide, int, int]]) -> None:
    """Change the book by levels that don't cross it."""
    last = {(side, price): size for side, price, size in step}
    stage.exchange.change(
        "BTC-USD",
        *(
            (side, 100 - price if side is BID else 101 + price, size)
            for (side, price), size in last.items()
        ),
    )


class Note:
    """A task that notes when it was done."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def due(self, now_ns: int) -> None:
        self.done.append(now_ns)


def test_a_timetable_wakes_for_the_earliest_task_only() -> None:
    calls: list[tuple[float, Any]] = []
    timetable = Timetable(lambda delay, call: calls.append((delay, call)))
    late, soon = Note(), Note()
    timetable.add(5_000_000_000, late)
    timetable.arrange(1_000_000_000, lambda: None)
    timetable.arrange(1_000_000_000, lambda: None)
    assert [delay for delay, _ in calls] == [4.0]
    timetable.add(2_000_000_000, soon)
    timetable.arrange(1_000_000_000, lambda: timetable.run(2_000_000_000))
    assert [delay for delay, _ in calls] == [4.0, 1.0]
    calls[1][1]()
    assert (soon.done, late.done) == ([2_000_000_000], [])
    timetable.arrange(2_000_000_000, lambda: None)
    assert len(timetable) == 1
    assert [delay for delay, _ in calls] == [4.0, 1.0, 3.0]
