"""``alphapulse arbitrage``: crossings between venues, live in the terminal or as JSON lines."""

from __future__ import annotations

import os
import sys
import time
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from alphapulse.cli.common import (
    ConfigFile,
    Prefix,
    fail,
    load_settings,
    stop_on_sigterm,
    where_rings_are,
)
from alphapulse.client.arbitrage import (
    ArbitrageDetector,
    Event,
    Nearest,
    Opportunity,
    Terms,
    encode_event,
)
from alphapulse.config import FeesSettings, Settings
from alphapulse.symbols import normalize_symbol

FRAMES_PER_SECOND = 5
WIDE = 130
"""Columns that all of the table needs."""
LAST_EVENTS = 5
"""How many of the latest ends are shown below the table."""


def command(
    symbol: Annotated[
        list[str] | None,
        typer.Option(help="Only this symbol, BASE-QUOTE; may be repeated. Default: all."),
    ] = None,
    min_bps: Annotated[
        str | None,
        typer.Option(help="Least profit after fees, in basis points (arbitrage.min_bps)."),
    ] = None,
    fee: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VENUE=BPS",
            help="Taker's fee of a venue, in basis points, for example kraken=26 or "
            "coinbase=2.5; may be repeated. Others are those of the settings.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line and event, as on the stream.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Print what there is now, and end.")] = False,
    config: ConfigFile = None,
    prefix: Prefix = None,
) -> None:
    """Show where one venue sells for less than another buys for, after both fees.

    Follows the rings of this machine's collectors. For each crossing it says how much can be
    bought and sold at a profit, walking through both books, at which average prices, what remains
    after fees, in basis points and in money, and for how long it has lasted. Books that aren't
    live, venues without a sign of life and books whose data is late make no opportunity.

    Fees decide: the defaults are the venues' published ones for accounts without volume
    (arbitrage.fees_bps), with which crossings are rare. Below the table stands how far each
    symbol is from one. Ctrl-C ends it.

    For example:

      alphapulse arbitrage

      alphapulse arbitrage --symbol BTC-USD --fee kraken=10 --fee coinbase=2.5 --min-bps 1

      alphapulse arbitrage --json | jq 'select(.data.status == "opened")'
    """
    stop_on_sigterm()
    fees = dict(map(_fee, fee or ()))
    known = FeesSettings.__struct_fields__
    overrides: dict[str, Any] = {"ring.prefix": prefix, "arbitrage.min_bps": _number(min_bps)}
    overrides |= {f"arbitrage.fees_bps.{name}": fees[name] for name in fees if name in known}
    settings = load_settings(config, overrides)
    try:
        symbols = None if not symbol else [normalize_symbol(name) for name in symbol]
    except ValueError as error:
        fail(str(error))
    terms = Terms.from_settings(
        settings.arbitrage, {name: bps for name, bps in fees.items() if name not in known}
    )
    with ArbitrageDetector(terms, prefix=settings.ring.prefix, symbols=symbols) as detector:
        events = list(detector.poll())
        _check_rings(detector, settings, set(fees))
        try:
            if json:
                _print_lines(detector, events, once)
            elif once:
                console = Console()
                console.print(render(detector, [], console.width))
            else:
                _draw(detector)
        except KeyboardInterrupt:
            return
        except BrokenPipeError:
            # Whoever read the lines has seen enough; nothing is left to be flushed to it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _number(text: str | None) -> Decimal | None:
    try:
        return None if text is None else Decimal(text)
    except InvalidOperation:
        fail(f"--min-bps {text!r} is no number")


def _fee(text: str) -> tuple[str, Decimal]:
    name, _, bps = text.partition("=")
    try:
        value = Decimal(bps)
    except InvalidOperation:
        fail(f"--fee {text!r}: write VENUE=BPS, for example kraken=26")
    if not name or not value.is_finite() or not 0 <= value <= 9999:
        fail(f"--fee {text!r}: basis points are a number from 0 to 9999")
    return name.strip().lower(), value


def _check_rings(detector: ArbitrageDetector, settings: Settings, fees: set[str]) -> None:
    prefix = settings.ring.prefix
    if not detector.rings:
        fail(
            f"there are no rings with a collector under prefix {prefix!r}; "
            f"{where_rings_are(prefix)}",
            1,
        )
    unknown = sorted(fees - detector.rings.keys() - set(FeesSettings.__struct_fields__))
    if unknown:
        there = ", ".join(sorted(detector.rings))
        fail(f"--fee: no ring of {', '.join(unknown)} under prefix {prefix!r}; there are: {there}")


def _print_lines(detector: ArbitrageDetector, events: list[Event], once: bool) -> None:
    for event in events:
        print(encode_event(event), flush=True)
    if not once:
        for event in detector:
            print(encode_event(event), flush=True)


def _draw(detector: ArbitrageDetector) -> None:
    console = Console()
    ended: list[Event] = []
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            live.update(render(detector, ended, console.width), refresh=True)
            time.sleep(1 / FRAMES_PER_SECOND)
            ended += [event for event in detector.poll() if event.reason is not None]
            del ended[:-LAST_EVENTS]


def render(detector: ArbitrageDetector, ended: list[Event], width: int) -> Group:
    """What is open now, how far the rest is from it, and what ended last.

    Parameters
    ----------
    ended : the latest events of that kind
    width : of the terminal, in columns; not all is shown in a narrow one
    """
    parts: list[Table | Text] = [_heading(detector)]
    found = detector.opportunities()
    if found:
        parts.append(_table(found, width))
    else:
        parts.append(Text("no opportunity at the moment", style="bold"))
    nearest = [pair for pair in detector.nearest() if pair.symbol not in _symbols(found)]
    if nearest:
        parts += [Text(), Text("nearest, at the best prices and after fees", style="dim")]
        parts.append(_nearest(nearest))
    if ended:
        parts += [Text(), Text("ended last", style="dim"), _ended(ended)]
    return Group(*parts)


def _symbols(found: list[Opportunity]) -> set[str]:
    return {item.symbol for item in found}


def _heading(detector: ArbitrageDetector) -> Text:
    terms = detector.engine.terms
    heading = Text("arbitrage", style="bold")
    for venue, ring in sorted(detector.rings.items()):
        fee = f"{terms.fees_bps[venue]:f} bps" if terms.knows(venue) else "no fee known: --fee"
        heading.append(f"  {venue}", style="bold")
        heading.append(f" {ring.live_books} books, {fee}", style="dim")
    if terms.min_bps:
        heading.append(f"  at least {terms.min_bps:f} bps", style="dim")
    return heading


def _table(found: list[Opportunity], width: int) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    titles = ["symbol", "buy at", "sell at", "volume", "net bps", "profit", "lasted"]
    if width >= WIDE:
        titles += ["buy price", "sell price", "gross bps", "best", "books' age"]
    for title in titles:
        text = title in ("symbol", "buy at", "sell at")
        table.add_column(title, justify="left" if text else "right", no_wrap=True)
    for item in found:
        row: list[str | Text] = [
            item.symbol,
            item.buy_exchange,
            item.sell_exchange,
            f"{item.volume:f}" if item.complete else f"{item.volume:f}+",
            Text(f"{item.net_bps:.2f}", style="green"),
            Text(f"{item.profit:.4f} {item.currency}", style="green"),
            _seconds(item.duration_ns),
            f"{item.buy_price:f}",
            f"{item.sell_price:f}",
            f"{item.gross_bps:.2f}",
            f"{item.best_profit:.4f}",
            f"{_seconds(item.buy_age_ns)}, {_seconds(item.sell_age_ns)}",
        ]
        table.add_row(*row[: len(titles)])
    return table


def _nearest(nearest: list[Nearest]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, style="dim")
    table.add_column()
    table.add_column()
    table.add_column(justify="right")
    for pair in nearest:
        where = f"{pair.buy_exchange} to {pair.sell_exchange}"
        table.add_row(pair.symbol, where, f"{pair.net_bps:.2f} bps")
    return table


def _ended(ended: list[Event]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, style="dim")
    for _ in range(4):
        table.add_column()
    for event in reversed(ended):
        item = event.opportunity
        table.add_row(
            item.symbol,
            f"{item.buy_exchange} to {item.sell_exchange}",
            f"best {item.best_net_bps:.2f} bps, {item.best_profit:.4f} {item.currency}",
            f"lasted {_seconds(item.duration_ns)}, {(event.reason or '').replace('_', ' ')}",
        )
    return table


def _seconds(span_ns: int) -> str:
    return f"{span_ns / 1e9:.1f} s"
