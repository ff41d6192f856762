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


app.command("up")(up.command)
app.command("demo")(demo.command)
app.command("normalize")(normalize.command)
app.command("simulate")(simulate.command)
app.command("rings")(rings.command)
app.command("book")(book.command)
app.command("arbitrage")(arbitrage.command)
app.command("export")(export.command)
app.command("check-config")(check.command)


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
