"""Logging: one form for our lines and the libraries', no secrets, nothing on stdout."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from alphapulse import log
from alphapulse.config import LogSettings
from tests.support import ROOT


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    before = structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**before)


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def stream() -> io.StringIO:
    """Where a program that logs JSON lines writes."""
    stream = io.StringIO()
    log.setup(LogSettings(json=True), "test", stream)
    return stream


def test_a_line_names_its_module_level_service_and_time(stream: io.StringIO) -> None:
    log.get_logger("alphapulse.somewhere").warning("checksum failed", exchange="kraken", count=2)
    [line] = lines_of(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "checksum failed",
        "level": "warning",
        "logger": "alphapulse.somewhere",
        "service": "test",
        "exchange": "kraken",
        "count": 2,
    }


def test_libraries_write_the_same_way(stream: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").info("started on %s", "127.0.0.1")
    [line] = lines_of(stream)
    assert (line["event"], line["logger"]) == ("started on 127.0.0.1", "uvicorn.error")
    assert line["service"] == "test"


def test_the_level_counts_for_all(stream: io.StringIO) -> None:
    log.get_logger("alphapulse.somewhere").debug("too fine")
    logging.getLogger("library").debug("too fine")
    logging.getLogger("uvicorn.access").info("too fine")
    assert lines_of(stream) == []


def test_loggers_taken_before_setup_follow_it() -> None:
    early = log.get_logger("alphapulse.early")
    stream = io.StringIO()
    log.setup(LogSettings(level="error", json=True), "test", stream)
    early.warning("not said")
    early.error("said")
    assert [line["event"] for line in lines_of(stream)] == ["said"]


def test_secrets_are_not_written(stream: io.StringIO) -> None:
    log.get_logger("alphapulse.somewhere").info(
        "connecting", api_key="hunter2", Token="hunter2", redis_password="hunter2", api_secret=""
    )
    assert "hunter2" not in stream.getvalue()
    assert lines_of(stream)[0]["api_secret"] == ""


def test_an_exception_comes_with_its_traceback(stream: io.StringIO) -> None:
    try:
        raise ValueError("the reason")
    except ValueError:
        log.get_logger("alphapulse.somewhere").exception("failed")
    assert "ValueError: the reason" in lines_of(stream)[0]["exception"]


def test_text_lines_have_event_and_values() -> None:
    stream = io.StringIO()
    log.setup(LogSettings(), "test", stream)
    log.get_logger("alphapulse.somewhere").info("connected", exchange="kraken")
    assert "connected" in stream.getvalue()
    assert "exchange=kraken" in stream.getvalue()
    assert "\x1b" not in stream.getvalue(), "no colours where nobody sees them"


def test_stdout_stays_free_even_without_setup() -> None:
    program = "from alphapulse.log import get_logger; get_logger('x').warning('said')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    assert "said" in done.stderr
