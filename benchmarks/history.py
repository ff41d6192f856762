"""History: trades into Redis and into the embedded database, and out of it over REST."""

from __future__ import annotations

from benchmarks import history_embedded, history_outage, history_redis
from benchmarks.harness import Session, progress
from benchmarks.history_parts import missing_redis


def run(session: Session) -> None:
    """Show the tables."""
    missing = missing_redis()
    if missing is None:
        history_redis.run(session)
    else:
        progress(f"history: Redis is left out, {missing.reason}")
    history_embedded.run(session)
    if missing is None:
        history_outage.run(session)
