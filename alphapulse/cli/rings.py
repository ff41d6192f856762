"""``alphapulse rings``: which rings there are on this machine, and who reads them."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.table import Table

from alphapulse.cli.common import (
    ConfigFile,
    Prefix,
    load_settings,
    print_table,
    where_rings_are,
)
from alphapulse.clock import wall_ns
from alphapulse.shm import RingInfo, list_rings, remove_dead


def command(
    config: ConfigFile = None,
    prefix: Prefix = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a ring.")] = False,
    remove: Annotated[
        bool, typer.Option("--remove-dead", help="Remove segments whose owner has died.")
    ] = False,
) -> None:
    """List the rings of a prefix, their writers and their readers.

    A ring is live while its writer holds it, stuck if the writer has stopped beating, and dead if
    the writer was killed: its successor, or --remove-dead, clears it away.
    """
    settings = load_settings(config, {"ring.prefix": prefix})
    if remove:
        for name in remove_dead(prefix=settings.ring.prefix):
            print(f"removed {name}")
    rings = list_rings(prefix=settings.ring.prefix)
    if json:
        for ring in rings:
            readers = [reader._asdict() for reader in ring.readers]
            fields = ring._asdict() | {"readers": readers, "status": status(ring)}
            print(msgspec.json.encode(fields).decode())
    elif rings:
        print_table(_table(rings))
    else:
        prefix = settings.ring.prefix
        print(f"no rings under prefix {prefix!r}; {where_rings_are(prefix)}")


def status(ring: RingInfo) -> str:
    """``live``, ``stuck``, ``dead`` or ``unreadable``."""
    if ring.problem:
        return "unreadable"
    if not ring.alive:
        return "dead"
    return "stuck" if ring.stuck else "live"


def _table(rings: list[RingInfo]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("ring", "status", "pid"):
        table.add_column(title, overflow="fold")
    for title in ("records", "instruments", "size", "heartbeat", "readers (pid: lag)"):
        table.add_column(title, justify="right")
    for ring in rings:
        age_seconds = (wall_ns() - ring.heartbeat_ns) / 1e9
        readers = "\n".join(f"{reader.pid}: {reader.lag}" for reader in ring.readers)
        table.add_row(
            ring.name,
            ring.problem or status(ring),
            str(ring.pid),
            f"{ring.sequence:,}",
            str(ring.instruments),
            f"{ring.memory_bytes / 2**20:.0f} MiB",
            f"{age_seconds:.1f} s ago" if ring.heartbeat_ns > 0 else "none",
            readers or "none",
        )
    return table
