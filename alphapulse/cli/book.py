"""``alphapulse book``: one book as a live ladder in the terminal."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterator
from typing import Annotated

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
from alphapulse.clock import NO_TIME, wall_ns
from alphapulse.delta import BookView, decode
from alphapulse.errors import RingError
from alphapulse.fixed import format_decimal
from alphapulse.model import (
    BookState,
    Instrument,
    InstrumentDefined,
    Level,
    RecordType,
    StateChange,
)
from alphapulse.shm import RingReader, list_rings
from alphapulse.symbols import normalize_symbol

FRAMES_PER_SECOND = 10
BAR_CELLS = 24


class Ladder:
    """Follows one symbol's book in a venue's ring.

    Parameters
    ----------
    reader : of the venue's ring
    symbol : unified
    """

    def __init__(self, reader: RingReader, symbol: str) -> None:
        self.reader = reader
        self.symbol = symbol
        self.view = BookView()
        self.state: BookState | None = None
        self.reason = ""
        self._epoch = reader.epoch

    @property
    def instrument(self) -> Instrument | None:
        """The instrument that the book is scaled by; None before the first snapshot."""
        return self.reader.instruments.get(self.view.instrument_id) if self.view.ready else None

    def advance(self) -> None:
        """Take in what the ring has; returns when there is nothing more at the moment."""
        while batch := self.reader.read():
            if batch.overrun is not None or batch.epoch != self._epoch:
                self._epoch = batch.epoch
                self.view.invalidate()
            for record in batch:
                if record.type == RecordType.INSTRUMENT:
                    event = decode(record.data, batch.instruments, batch.exchange)
                    if isinstance(event, InstrumentDefined):
                        batch.instruments[event.instrument.id] = event.instrument
                    continue
                instrument = batch.instruments.get(record.instrument)
                if instrument is None or instrument.symbol != self.symbol:
                    continue
                if record.type in (RecordType.SNAPSHOT, RecordType.DELTA):
                    self.view.apply(record.data)
                elif record.type == RecordType.STATE:
                    self._state(decode(record.data, batch.instruments, batch.exchange))

    def _state(self, event: object) -> None:
        assert isinstance(event, StateChange)
        self.state, self.reason = event.state, event.reason.text
        if event.state is not BookState.LIVE:
            self.view.invalidate()


def command(
    venue: Annotated[str, typer.Argument(metavar="VENUE", help="coinbase, kraken or binance_us.")],
    symbol: Annotated[
        str, typer.Argument(metavar="SYMBOL", help="BASE-QUOTE, for example BTC-USD.")
    ],
    levels: Annotated[int, typer.Option(min=1, max=200, help="Levels a side.")] = 15,
    once: Annotated[
        bool, typer.Option("--once", help="Print the book once it is live, and end.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0, help="Seconds that --once waits for a live book.")
    ] = 10.0,
    config: ConfigFile = None,
    prefix: Prefix = None,
) -> None:
    """Draw a book as a live ladder, straight from the venue's ring. Ctrl-C ends it.

    For example:

      alphapulse book kraken BTC-USD --levels 20

      alphapulse book coinbase ETH-USD --once
    """
    stop_on_sigterm()
    settings = load_settings(config, {"ring.prefix": prefix})
    try:
        wanted = normalize_symbol(symbol)
    except ValueError as error:
        fail(str(error))
    try:
        reader = RingReader(venue, prefix=settings.ring.prefix)
    except (RingError, PermissionError, ValueError) as error:
        under = settings.ring.prefix
        there = ", ".join(ring.venue for ring in list_rings(prefix=under))
        fail(f"{error}; rings under this prefix: {there or f'none; {where_rings_are(under)}'}", 1)
    with reader:
        _check_symbol(reader, wanted)
        ladder = Ladder(reader, wanted)
        if once:
            _print_once(ladder, levels, timeout)
        else:
            _draw(ladder, levels)


def _check_symbol(reader: RingReader, symbol: str) -> None:
    known = sorted({instrument.symbol for instrument in reader.instruments.values()})
    if known and symbol not in known:
        near = difflib.get_close_matches(symbol, known, 5, 0.3) or known[:5]
        fail(f"{reader.venue} has no {symbol} in its ring; it has {', '.join(near)}", 1)


def _print_once(ladder: Ladder, levels: int, timeout: float) -> None:
    until = time.monotonic() + timeout
    ladder.advance()
    while not ladder.view.ready:
        if not ladder.reader.wait(max(until - time.monotonic(), 0)) and time.monotonic() >= until:
            state = ladder.state.text if ladder.state else "without news"
            fail(f"{ladder.symbol} is {state} ({ladder.reason or 'no snapshot'})", 1)
        ladder.advance()
    Console().print(render(ladder, levels))


def _draw(ladder: Ladder, levels: int) -> None:
    console = Console()
    # Redrawing costs far more than following the book, so that it has a rate of its own.
    try:
        with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
            while True:
                ladder.advance()
                live.update(render(ladder, levels), refresh=True)
                time.sleep(1 / FRAMES_PER_SECOND)
                ladder.reader.wait()
    except KeyboardInterrupt:
        return


def render(ladder: Ladder, levels: int) -> Group:
    """The ladder as it is now: asks above, bids below, the best of both in the middle."""
    instrument = ladder.instrument
    title = Text(f"{ladder.reader.venue} {ladder.symbol}", style="bold")
    state = ladder.state or (BookState.LIVE if ladder.view.ready else BookState.SYNCING)
    title.append(f"  {state.text}", style="green" if state is BookState.LIVE else "bold red")
    if instrument is None:
        title.append(f"  {ladder.reason}")
        return Group(title, Text("no book to show until its next snapshot"))
    asks, bids = ladder.view.asks(levels), ladder.view.bids(levels)
    largest = max((level.size for level in (*asks, *bids)), default=1)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column()
    for row in _rows(reversed(asks), instrument, largest, "red"):
        table.add_row(*row)
    table.add_row(Text(_spread(ladder, instrument), style="dim"), "", "")
    for row in _rows(iter(bids), instrument, largest, "green"):
        table.add_row(*row)
    return Group(title, table, Text(_footer(ladder), style="dim"))


def _rows(
    levels: Iterator[Level], instrument: Instrument, largest: int, style: str
) -> Iterator[tuple[Text, Text, Text]]:
    for level in levels:
        cells = max(round(BAR_CELLS * level.size / largest), 1)
        yield (
            Text(str(instrument.price(level.price)), style=style),
            Text(str(instrument.size(level.size))),
            Text("█" * cells, style=style),
        )


def _spread(ladder: Ladder, instrument: Instrument) -> str:
    bid, ask = ladder.view.best()
    if bid is None or ask is None:
        return "one side is empty"
    return f"spread {format_decimal(ask.price - bid.price, instrument.price_exponent)}"


def _footer(ladder: Ladder) -> str:
    view = ladder.view
    age = wall_ns() - view.received_ns
    text = f"version {view.version}, {view.book.bid_count} bids, {view.book.ask_count} asks"
    text += f", last change {age / 1e6:,.0f} ms ago"
    if view.exchange_ns != NO_TIME:
        text += f" ({(view.received_ns - view.exchange_ns) / 1e6:,.1f} ms after the venue's time)"
    return text
