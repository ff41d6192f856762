"""Logging: structlog over the standard library, on stderr, one logger name per module.

A module takes its logger by ``log = get_logger(__name__)`` and logs an event with named values:
``log.warning("checksum failed", exchange=..., symbol=...)``. A program calls `setup` once; the
lines of uvicorn and asyncio then look like our own.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

from alphapulse.config import LogSettings

SECRET_WORDS = ("token", "secret", "passphrase", "password", "api_key")
"""A value whose name contains one of these isn't written."""

_QUIET = ("asyncio", "picows", "uvicorn.access")
"""Loggers of libraries that say nothing of use below a warning."""


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module; its name goes into every line as ``logger``."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def setup(settings: LogSettings, service: str, stream: TextIO | None = None) -> None:
    """Send everything at or above the level to stderr, as text or as JSON lines.

    Parameters
    ----------
    settings : section ``log`` of the settings
    service : name of the program, written on every line (``"collector-kraken"``)
    stream : where to instead of stderr
    """
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _adding_service(service),
        hide_secrets,
        structlog.stdlib.ExtraAdder(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared[:-1],
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    target = stream or sys.stderr
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(settings.json, colors=target.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def hide_secrets(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Put asterisks in the place of values that are secret by their name."""
    for name in event:
        if event[name] and any(word in name.lower() for word in SECRET_WORDS):
            event[name] = "********"
    return event


def _adding_service(service: str) -> Processor:
    def add_service(
        _logger: Any, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        event.setdefault("service", service)
        return event

    return add_service


def _renderers(as_json: bool, colors: bool) -> list[Processor]:
    if as_json:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    return [structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0)]


def _write_to_stderr_until_set_up() -> None:
    # stdout belongs to a program's results (`normalize` prints events there), even where nobody
    # has called `setup`.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


_write_to_stderr_until_set_up()
