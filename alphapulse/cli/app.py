"""The `alphapulse` command and its sub-commands."""

from __future__ import annotations

import sys

import typer

from alphapulse.cli import (
    arbitrage,
    book,
    check,
    demo,
    export,
    normalize,
    programs,
    rings,
    simulate,
    up,
)

app = typer.Typer(
    name="alphapulse",
    help="Exact order books and trades from crypto exchanges, over shared memory and the network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _options() -> None:
    """Keep `alphapulse` a group of commands."""


app.command("up", short_help="Collect, stream, serve REST and keep history: all in one.")(
    up.command
)
app.command("demo", short_help="The same on simulated venues; needs no network.")(demo.command)
app.command("normalize", short_help="Print a recording as exact JSON events, one a line.")(
    normalize.command
)
app.command("simulate", short_help="Run the venues' side of the protocols.")(simulate.command)
app.command("rings", short_help="List the rings of a prefix, their writers and readers.")(
    rings.command
)
app.command("book", short_help="Draw a book as a live ladder in the terminal.")(book.command)
app.command("arbitrage", short_help="Show crossings between venues, after fees.")(arbitrage.command)
app.command("export", short_help="Write history as Parquet files, by symbol and day.")(
    export.command
)
app.command("check-config", short_help="Show the settings in force and where each is from.")(
    check.command
)


def main() -> None:
    """Run `alphapulse`."""
    try:
        app()
    except KeyboardInterrupt:
        # Before the command had anything to end in order.
        sys.exit(130)


def collectors_main() -> None:
    """Run `alphapulse-collectors`."""
    typer.run(programs.collectors)


def stream_main() -> None:
    """Run `alphapulse-stream`."""
    typer.run(programs.stream)


def store_main() -> None:
    """Run `alphapulse-store`."""
    typer.run(programs.store)


def api_main() -> None:
    """Run `alphapulse-api-server`."""
    typer.run(programs.api)
