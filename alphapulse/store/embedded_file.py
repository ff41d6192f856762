"""The embedded database's file: opening it, its version, and whoever else has it open."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from alphapulse.config import StoreSettings
from alphapulse.errors import StoreError
from alphapulse.log import get_logger
from alphapulse.store import tables

DATABASE_THREADS = 1
"""Threads that DuckDB uses for one query: several queries run at once, and the pages that most of
them are take a fifth more of a CPU in two."""

_LOCK_HOLDER = re.compile(r"\(PID (\d+)\)")
_ASK = (
    "ask its server, `alphapulse export --from http://127.0.0.1:3001` or "
    'alphapulse.open_repository("http://127.0.0.1:3001") for instance'
)

log = get_logger(__name__)


def connect(settings: StoreSettings, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """Open the file of the settings with this version's tables.

    Parameters
    ----------
    settings : ``path`` and ``memory_limit_bytes`` are used
    read_only : change nothing; others may read at the same time

    Raises
    ------
    StoreError
        it is open elsewhere, can't be read or created, or is of another version
    """
    path = Path(settings.path)
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{settings.memory_limit_bytes}B",
        "threads": DATABASE_THREADS,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    if read_only and not path.exists():
        raise StoreError(f"{path} doesn't exist; set store.path to the history's file")
    try:
        database = duckdb.connect(str(path), read_only=read_only, config=config)
    except duckdb.Error as error:
        raise StoreError(_problem(path, str(error), read_only)) from error
    try:
        _check_version(database, path, read_only)
    except duckdb.Error as error:
        database.close()
        raise StoreError(_problem(path, str(error), read_only)) from error
    except StoreError:
        database.close()
        raise
    return database


@contextmanager
def transaction(cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """What is executed within is done whole, or not at all if it raises."""
    cursor.execute("BEGIN")
    try:
        yield
        cursor.execute("COMMIT")
    except BaseException:
        try:
            cursor.execute("ROLLBACK")
        except duckdb.Error as error:
            # A failed COMMIT has ended the transaction already.
            log.debug("nothing to roll back", problem=str(error))
        raise


def _check_version(database: duckdb.DuckDBPyConnection, path: Path, read_only: bool) -> None:
    found = database.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'about'").fetchall()
    if not found:
        if read_only:
            raise StoreError(f"{path} has no history; set store.path to the history's file")
        with transaction(database):
            database.execute(tables.SCHEMA)
            database.execute("INSERT INTO about VALUES (?, 0)", [tables.SCHEMA_VERSION])
        return
    row = database.execute("SELECT schema_version FROM about").fetchone()
    version = row[0] if row else None
    if version == tables.SCHEMA_VERSION:
        return
    if version == 1 and not read_only:
        log.info("changing the tables to those of this version", path=str(path), version=version)
        with transaction(database):
            database.execute(tables.MIGRATE_FROM_1)
        return
    remedy = "set store.path to another file"
    if version == 1:
        remedy = "have `alphapulse up` or `alphapulse-api-server` open it once, which changes it"
    raise StoreError(
        f"{path} has tables of version {version}, this program needs "
        f"{tables.SCHEMA_VERSION}; {remedy}"
    )


def _problem(path: Path, text: str, read_only: bool) -> str:
    """What is wrong where DuckDB says this, and what helps."""
    if "different configuration" in text:
        return (
            f"{path} is open in this process already; use that store, or close it first "
            "(several may read one file: open each with read_only=True)"
        )
    if "Could not set lock" not in text:
        return f"{path} can't be opened as a database: {text}"
    holder = _LOCK_HOLDER.search(text)
    found = f"{path} is open in {f'process {holder[1]}' if holder else 'another process'}"
    if read_only:
        return (
            f"{found}, which writes it, and nobody else can read it meanwhile; {_ASK}, or stop it"
        )
    if "read-only" in text:
        return (
            f"{found}, which reads it, and nobody can write it meanwhile; stop that process or set "
            "store.path to another file; to read it too, open it with read_only=True "
            "(alphapulse.open_repository)"
        )
    return (
        f"{found}, and the embedded database serves one process at a time; stop that one, set "
        f"store.path to another file, or use Redis (store.redis_url); to read it, {_ASK}"
    )
