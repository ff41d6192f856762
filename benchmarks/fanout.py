"""Fan-out: what a WebSocket server delivers to thousands of clients, how late, and at what cost.

Our server reads a ring; the others get the same JSON texts through a pipe. Server, and feeder with
load client, have CPUs of their own where there are two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from benchmarks.fanout_report import Case, Phase
from benchmarks.fanout_run import Running, Stage, allow_files, load_program
from benchmarks.fanout_servers import Server, ours, peers
from benchmarks.harness import (
    Absent,
    Contestant,
    Figures,
    Metric,
    Row,
    Session,
    progress,
)
from benchmarks.scale_memory import pss_bytes

BUSY = (
    Metric("rate", "deliveries/s", more_is_better=True),
    Metric("per-cpu-second", "deliveries", more_is_better=True),
    Metric("p50", "ms"),
    Metric("p99", "ms"),
    Metric("load-client-cpu", "us/delivery"),
)
MANY = (
    Metric("disconnects", "clients"),
    Metric("missed", "deliveries"),
    Metric("p50", "ms"),
    Metric("p99", "ms"),
    Metric("p99.9", "ms"),
    Metric("memory", "KB/client"),
    Metric("server-cpu", "us/delivery"),
)
LIGHT = (
    Metric("p50", "us"),
    Metric("p99", "us"),
    Metric("p99.9", "us"),
    Metric("server-cpu", "us/delivery"),
)
STALLED = (
    Metric("p99-before", "ms"),
    Metric("p99-during", "ms"),
    Metric("growth", "ratio"),
    Metric("memory-growth", "MB"),
    Metric("others-disconnected", "clients"),
    Metric("conflations", "books"),
    Metric("close-code", ""),
)

_WINDOW = 32
"""Events per client that are under way when a server is kept busy."""
_WARM_SECONDS = 0.5
_RATE_EACH = 20.0
"""Updates a second for each of many clients."""
_LIGHT_RATE = 1000.0
_STALLED_RATE = 100.0
_STALLED_SECONDS = 5.0
_STALLED_TIMES = 10
"""So many times `_STALLED_SECONDS` at most the server has to close the client."""
_BEHIND_SECONDS = 4.0
"""In the case of the client that stops reading, so that a round is short."""
_RECEIVE_BUFFER = "16384"


def run(session: Session) -> None:
    """Show a table per case."""
    with ExitStack() as stack:
        program = stack.enter_context(load_program())
        if program is None:
            progress("fanout: left out, there is no C compiler for the load client")
            return
        stage = Stage(program)
        others = stack.enter_context(peers())
        _busy(session, stage, others)
        _many(session, stage, others)
        _light(session, stage, others)
        _stalled(session, stage)


def _busy(session: Session, stage: Stage, others: Sequence[Server | Absent]) -> None:
    rows: list[Row] = []
    for symbols, name in ((10, "same-10"), (100, "10-of-100")):
        case = Case(clients=1000, symbols=symbols)
        measure = _busy_round(stage, case)
        title = f"fanout/busy/1000-clients/{name}"
        rows += _compare(session, title, BUSY, measure, others)
        rows += session.compare(f"{title}/binary", BUSY, _contestant(ours("binary"), measure))
    session.show("fanout: as much as a server delivers, 1,000 clients on 10 symbols each", rows)


def _many(session: Session, stage: Stage, others: Sequence[Server | Absent]) -> None:
    rows: list[Row] = []
    for symbols, name in ((10, "same-10"), (100, "10-of-100")):
        case = Case(clients=5000, symbols=symbols)
        problem = allow_files(case.clients)
        if problem is not None:
            progress(f"fanout/many/{name}: left out, {problem}")
            return
        measure = many_round(stage, case)
        title = f"fanout/many/5000-clients/{name}"
        rows += _compare(session, title, MANY, measure, others, rounds=min(session.rounds, 3))
    session.show("fanout: 5,000 clients, 20 updates/s each", rows)


def _light(session: Session, stage: Stage, others: Sequence[Server | Absent]) -> None:
    case = Case(clients=1, symbols=10)

    def measure(server: Server, seconds: float) -> Figures:
        with stage.at_work(server, case) as running:
            phase, cpu = _measured(running, max(3 * seconds, 3.0), rate=_LIGHT_RATE)
        return {
            "p50": phase.p50_us,
            "p99": phase.p99_us,
            "p99.9": phase.p999_us,
            "server-cpu": cpu * 1e6 / phase.deliveries,
        }

    rows = _compare(session, "fanout/light/1-client", LIGHT, measure, others)
    session.show("fanout: 1 client, 1,000 updates/s", rows)


def _stalled(session: Session, stage: Stage) -> None:
    server = ours(behind_seconds=_BEHIND_SECONDS)
    case = Case(clients=1001, symbols=10)
    rows = session.compare(
        "fanout/stalled/1001-clients",
        STALLED,
        Contestant("ours", lambda _: _stalled_round(stage, server, case)),
        rounds=min(session.rounds, 3),
    )
    session.show("fanout: one of 1,001 clients stops reading", rows)


def _compare(
    session: Session,
    name: str,
    metrics: Sequence[Metric],
    measure: Callable[[Server, float], Figures],
    others: Sequence[Server | Absent],
    rounds: int | None = None,
) -> list[Row]:
    return session.compare(
        name,
        metrics,
        _contestant(ours(), measure),
        [one if isinstance(one, Absent) else _contestant(one, measure) for one in others],
        rounds=rounds,
    )


def _contestant(server: Server, measure: Callable[[Server, float], Figures]) -> Contestant:
    return Contestant(server.name, lambda seconds: measure(server, seconds), server.version)


def _busy_round(stage: Stage, case: Case) -> Callable[[Server, float], Figures]:
    def measure(server: Server, seconds: float) -> Figures:
        window = _WINDOW * case.clients
        with stage.at_work(server, case) as running:
            phase, cpu = _measured(running, max(2 * seconds, 2.0), window=window)
        return {
            "rate": phase.rate,
            "per-cpu-second": phase.deliveries / cpu,
            "p50": phase.p50_us / 1e3,
            "p99": phase.p99_us / 1e3,
            "load-client-cpu": phase.cpu_seconds * 1e6 / phase.deliveries,
        }

    return measure


def many_round(stage: Stage, case: Case) -> Callable[[Server, float], Figures]:
    """A round of `seconds`, ten times over."""
    rate = _RATE_EACH * case.symbols / case.each
    even = case.symbols == case.each  # at random times two bursts to all clients may coincide

    def measure(server: Server, seconds: float) -> Figures:
        with stage.started(server, case) as started:
            alone = pss_bytes(started.process.pid)
            with stage.connected(started) as running:
                running.settle(running.feed(_WARM_SECONDS, rate=rate, even=even))
                running.phase("measured")
                before = running.cpu_seconds()
                done = running.feed(10 * seconds, rate=rate, even=even)
                running.settle(done)
                cpu = running.cpu_seconds() - before
                memory = pss_bytes(running.pid) - alone
                report = running.finish(done)
        phase = report.phase("measured")
        return {
            "disconnects": report.disconnects,
            "missed": done.deliveries - report.total,
            "p50": phase.p50_us / 1e3,
            "p99": phase.p99_us / 1e3,
            "p99.9": phase.p999_us / 1e3,
            "memory": memory / 1024 / case.clients,
            "server-cpu": cpu * 1e6 / phase.deliveries,
        }

    return measure


def _stalled_round(stage: Stage, server: Server, case: Case) -> Figures:
    with (
        stage.started(server, case) as started,
        stage.connected(started, "--receive-buffer", _RECEIVE_BUFFER) as running,
    ):
        running.settle(running.feed(_WARM_SECONDS, rate=_STALLED_RATE))
        running.phase("before")
        running.settle(running.feed(_STALLED_SECONDS, rate=_STALLED_RATE))
        memory = pss_bytes(running.pid)
        running.stall()
        running.phase("during")
        grown = 0
        for _ in range(_STALLED_TIMES):
            running.feed(_STALLED_SECONDS, rate=_STALLED_RATE)
            grown = max(grown, pss_bytes(running.pid) - memory)
            if started.health()["clients"] < case.clients:
                break
        conflations = started.metric("stream_conflations_total")
        running.read_again()
        report = running.finish(running.feed(_WARM_SECONDS, rate=_STALLED_RATE))
    before, during = report.phase("before"), report.phase("during")
    assert report.stalled is not None, "it was told to stop reading"
    return {
        "p99-before": before.p99_us / 1e3,
        "p99-during": during.p99_us / 1e3,
        "growth": during.p99_us / before.p99_us,
        "memory-growth": grown / 1e6,
        "others-disconnected": report.disconnects - (report.stalled.close_code != 0),
        "conflations": conflations,
        "close-code": report.stalled.close_code,
    }


def _measured(
    running: Running, seconds: float, *, rate: float = 0.0, window: int = 0
) -> tuple[Phase, float]:
    """What was counted, all that was sent having arrived, and the server's CPU seconds."""
    running.settle(running.feed(_WARM_SECONDS, rate=rate, window=window))
    running.phase("measured")
    before = running.cpu_seconds()
    done = running.feed(seconds, rate=rate, window=window)
    running.settle(done)
    cpu = running.cpu_seconds() - before
    report = running.finish(done)
    report.check(done)
    return report.phase("measured"), cpu
