"""``alphapulse check-config``: what the settings are and where each comes from."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.table import Table

from alphapulse.cli.common import ConfigFile, fail, print_table
from alphapulse.collectors.registry import make_venue
from alphapulse.config import Described, describe, load, refuse_exposure
from alphapulse.errors import ConfigError

_ENCODE = msgspec.json.Encoder(decimal_format="number").encode


def command(
    config: ConfigFile = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a setting.")] = False,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only what differs from the defaults.")
    ] = False,
) -> None:
    """Check the settings and show each with its origin; secrets are masked.

    Ends with status 2, naming the key, the value and what would be right, where a setting is
    unknown or can't be used.
    """
    try:
        settings = load(config)
        for name in settings.venues.enabled():
            make_venue(name, settings.venues)
        refuse_exposure("stream", settings.stream)
        refuse_exposure("api", settings.api)
        described = describe(config)
    except ConfigError as error:
        fail(str(error))
    shown = [entry for entry in described if not changed or entry.origin != "default"]
    if json:
        for entry in shown:
            print(_ENCODE(entry._asdict()).decode())
    else:
        print_table(_table(shown))


def _table(described: list[Described]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("setting", "value", "from"):
        table.add_column(title, overflow="fold")
    for entry in described:
        table.add_row(entry.key, _text(entry.value), entry.origin)
    return table


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value)
