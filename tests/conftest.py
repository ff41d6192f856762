"""Fixtures that every test may use, and the rule that nothing is skipped unseen.

In continuous integration (``CI`` set in the environment) a skipped test is a failed one, unless it
is for want of the captures, which the repository doesn't hold.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from alphapulse.collectors import session
from alphapulse.simulators import base, kraken
from tests.support import CAPTURES, CAPTURES_ABSENT

# How long an example takes says more about the machine than about the code. A failing example's
# blob is printed, so that it can be run again anywhere.
settings.register_profile(
    "alphapulse", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("alphapulse")


def _fail_if_skipped_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("CI", "").lower() in ("", "0", "false"):
        return
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if CAPTURES_ABSENT not in reason:
        report.outcome = "failed"
        report.longrepr = f"{reason}\nA skip is a failure here, because CI is set."


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Apply the rule to tests."""
    report = yield
    _fail_if_skipped_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Apply the rule to modules that skip themselves."""
    report = yield
    _fail_if_skipped_in_ci(report)
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the long tests take as long as they are told to."""
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.timeout(0))


@pytest.fixture(scope="session")
def captures() -> Path:
    """Folder of the recorded venue traffic; the test is skipped where there is none."""
    if not (CAPTURES / "kraken.jsonl").is_file():
        pytest.skip(f"{CAPTURES_ABSENT}: no {CAPTURES / 'kraken.jsonl'}")
    return CAPTURES


@pytest.fixture
def quick_pulse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats, the simulated venues' and the rings', every 0.2 s instead of every second."""
    monkeypatch.setattr(base, "HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(kraken, "IDLE_HEARTBEAT_NS", 180_000_000)
    monkeypatch.setattr(session, "HEARTBEAT_SECONDS", 0.2)


@pytest.fixture
def ring_prefix() -> Iterator[str]:
    """A ring prefix of the test's own; what is left under it afterwards fails the test."""
    prefix = f"aptest-{secrets.token_hex(4)}"
    yield prefix
    left = sorted(Path("/dev/shm").glob(f"{prefix}*"))
    for path in left:
        path.unlink(missing_ok=True)
    assert not left, f"shared-memory segments left behind: {[path.name for path in left]}"
