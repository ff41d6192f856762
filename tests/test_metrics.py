"""Metrics: their names, and that those of many processes add up, come and go as they should."""

from __future__ import annotations

import ast
import mmap
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from alphapulse import metrics
from alphapulse.errors import ConfigError
from alphapulse.metrics.shared import SharedDirectory, runtime_directory
from tests.support import ROOT

NAMES = {
    "trades_processed_total",
    "processing_latency_ms",
    "websocket_messages_total",
    "websocket_connected",
    "redis_operations_total",
    "redis_operation_latency_ms",
    "http_requests_total",
    "http_request_duration_ms",
    "memory_usage_bytes",
    "cpu_usage_percent",
    "book_state",
    "book_gaps_total",
    "book_resyncs_total",
    "checksum_failures_total",
    "ring_overruns_total",
    "ring_lag_records",
    "stage_latency_seconds",
    "clock_skew_seconds",
    "stream_clients",
    "stream_conflations_total",
    "stream_messages_total",
    "stream_closes_total",
    "stream_refused_total",
    "stream_rate_limited_total",
    "store_rows_total",
    "store_lag_records",
}
"""The contract."""

WORKER = """
import sys
from alphapulse import metrics
metrics.setup(sys.argv[1])
TRADES = dict(exchange="kraken", symbol="BTC-USD")
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


class Worker:
    """A process that takes part in an installation and does what it is told."""

    def __init__(self, prefix: str, environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, prefix],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )
        self.do("pass")

    def do(self, statement: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(statement + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def ask(self, expression: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"print(repr({expression}))\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert self.process.stdout.readline() == "done\n"
        return answer

    def end(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


Start = Callable[[], Worker]


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """Stands for ``XDG_RUNTIME_DIR``."""
    return tmp_path


@pytest.fixture
def start(runtime: Path) -> Iterator[Start]:
    """Start a process of one installation."""
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        "XDG_RUNTIME_DIR": str(runtime),
    }
    environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    prefix = f"aptest-{secrets.token_hex(4)}"
    workers: list[Worker] = []

    def start_one() -> Worker:
        workers.append(Worker(prefix, environ))
        return workers[-1]

    yield start_one
    for worker in workers:
        if worker.process.poll() is None:
            worker.kill()


COUNT = "metrics.TRADES_PROCESSED.bind(**TRADES).inc({})"
TOTAL = "metrics.sample('trades_processed_total', **TRADES)"


def files_below(runtime: Path) -> list[str]:
    return sorted(path.name for path in runtime.rglob("*") if path.is_file())


def test_the_names_of_the_contract_are_all_declared() -> None:
    assert {declared.name for declared in metrics.ALL} >= NAMES
    assert len({declared.name for declared in metrics.ALL}) == len(metrics.ALL)


def test_every_name_is_shown_before_anything_was_counted(start: Start) -> None:
    content_type, body = ast.literal_eval(start().ask("metrics.render()"))
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    typed = [line.split()[2:] for line in body.decode().splitlines() if line.startswith("# TYPE")]
    assert dict(typed) == {declared.name: declared.kind for declared in metrics.ALL}
    assert len(list(text_string_to_metric_families(body.decode()))) == len(metrics.ALL)


def test_counters_keep_their_exact_names(start: Start) -> None:
    worker = start()
    worker.do(COUNT.format(3))
    body = ast.literal_eval(worker.ask("metrics.render()"))[1].decode()
    assert 'trades_processed_total{exchange="kraken",symbol="BTC-USD"} 3.0' in body.splitlines()
    assert "_created" not in body


def test_processes_add_up(start: Start) -> None:
    workers = [start() for _ in range(3)]
    for number, worker in enumerate(workers):
        worker.do(COUNT.format(10**number))
        worker.do("metrics.STREAM_CLIENTS.bind().set(2)")
        worker.do("metrics.STAGE_LATENCY.bind(stage='decode').observe(3e-6)")
    for worker in workers:
        assert worker.ask(TOTAL) == "111.0"
        assert worker.ask("metrics.sample('stream_clients')") == "6.0"
        count = "metrics.sample('stage_latency_seconds_count', stage='decode')"
        assert worker.ask(count) == "3.0"
        bucket = "metrics.sample('stage_latency_seconds_bucket', stage='decode', le='{}')"
        assert worker.ask(bucket.format("2e-06")) == "0.0"
        assert worker.ask(bucket.format("5e-06")) == "3.0"


def test_the_newest_word_on_a_state_counts(start: Start) -> None:
    first, second = start(), start()
    for worker, state in ((first, 1), (second, 3), (first, 2)):
        worker.do(f"metrics.BOOK_STATE.bind(**TRADES).set({state})")
        assert second.ask("metrics.sample('book_state', **TRADES)") == f"{state}.0"


def test_totals_never_fall_when_a_process_dies_and_its_gauges_go(start: Start) -> None:
    reader, victim = start(), start()
    victim.do(COUNT.format(5))
    victim.do("metrics.STREAM_CLIENTS.bind().set(7)")
    victim.do("metrics.STAGE_LATENCY.bind(stage='decode').observe(3e-6)")
    assert reader.ask("metrics.sample('stream_clients')") == "7.0"
    victim.kill()
    for total in (5, 11):
        assert reader.ask(TOTAL) == f"{total}.0"
        assert reader.ask("metrics.sample('stream_clients')") == "None"
        assert reader.ask("metrics.sample('stage_latency_seconds_count', stage='decode')") == "1.0"
        successor = start()
        successor.do(COUNT.format(6))
        successor.end()


def test_files_of_the_dead_do_not_pile_up(start: Start, runtime: Path) -> None:
    reader = start()
    for _ in range(4):
        victim = start()
        victim.do(COUNT.format(1))
        victim.kill()
    assert reader.ask(TOTAL) == "4.0"
    kept = files_below(runtime)
    assert [name for name in kept if name.endswith(".db")] == ["counter_archive.db"]
    assert len([name for name in kept if name.endswith(".lock")]) == 1


def test_the_last_one_leaves_nothing_behind(start: Start, runtime: Path) -> None:
    workers = [start(), start()]
    for worker in workers:
        worker.do(COUNT.format(1))
    workers[0].end()
    assert workers[1].ask(TOTAL) == "2.0"
    workers[1].end()
    assert files_below(runtime) == []


def test_an_installation_that_was_killed_begins_anew(start: Start) -> None:
    victim = start()
    victim.do(COUNT.format(5))
    victim.kill()
    assert start().ask(TOTAL) == "None"


def test_a_file_cut_short_at_its_making_hurts_nobody(start: Start, runtime: Path) -> None:
    worker = start()
    worker.do(COUNT.format(5))
    folder = next(runtime.rglob("guard")).parent
    (folder / "counter_1-dead.db").touch()
    (folder / "gauge_livesum_1-dead.db").touch()
    assert worker.ask(TOTAL) == "5.0"


def test_installations_do_not_meet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_directory("a") != runtime_directory("b")
    assert runtime_directory("a").is_relative_to(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "absent"))
    assert f"alphapulse-{os.geteuid()}" in str(runtime_directory("a"))
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "given"))
    assert runtime_directory("a") == runtime_directory("b") == tmp_path / "given"


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="link is no directory of this user's own"):
        SharedDirectory(tmp_path / "link").join()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="can't be made"):
        SharedDirectory(tmp_path / "file").join()


def test_labels_are_checked_by_name() -> None:
    with pytest.raises(ValueError, match="book_state has labels exchange, symbol, not exchange"):
        metrics.BOOK_STATE.bind(exchange="kraken")
    with pytest.raises(ValueError, match="stream_clients has labels none, not exchange"):
        metrics.STREAM_CLIENTS.bind(exchange="kraken")


def test_without_setup_a_process_counts_for_itself() -> None:
    labels = {"exchange": f"test-{secrets.token_hex(4)}"}
    assert metrics.sample("store_rows_total", **labels) is None
    child = metrics.STORE_ROWS.bind(**labels)
    child.inc(2)
    assert metrics.sample("store_rows_total", **labels) == 2
    assert f'store_rows_total{{exchange="{labels["exchange"]}"}} 2.0' in (
        metrics.render()[1].decode().splitlines()
    )


def test_setup_after_the_first_count_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics.STORE_ROWS.bind(exchange="test")
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    with pytest.raises(RuntimeError, match="has to come before the first metric is bound"):
        metrics.setup("aptest")


def test_a_tally_shares_what_it_counted_when_flushed() -> None:
    labels = {"exchange": f"test-{secrets.token_hex(4)}"}
    tally = metrics.Tally(metrics.WEBSOCKET_MESSAGES.bind(**labels))
    tally.count += 3
    assert metrics.sample("websocket_messages_total", **labels) == 0
    tally.flush()
    tally.flush()
    assert metrics.sample("websocket_messages_total", **labels) == 3
    tally.count += 1
    tally.flush()
    assert metrics.sample("websocket_messages_total", **labels) == 4


def test_a_process_tells_its_memory_and_cpu_time() -> None:
    service = f"test-{secrets.token_hex(4)}"
    sampler = metrics.ProcessSampler(service)
    # Mapped, not allocated: the allocator may give memory that is resident, and keeps what it gets
    # back. Written to, so that it is resident.
    ballast = mmap.mmap(-1, 64 * 2**20)
    ballast.write(b"x" * len(ballast))
    sampler.sample()
    before = metrics.sample("memory_usage_bytes", service=service)
    assert before is not None
    assert before > len(ballast)
    ballast.close()
    sampler.sample()
    after = metrics.sample("memory_usage_bytes", service=service)
    assert after is not None
    assert 2**20 < after < before
    cpu = metrics.sample("cpu_usage_percent", service=service)
    assert cpu is not None
    assert cpu > 0
