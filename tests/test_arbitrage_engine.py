"""The engine against its twin in fractions, and what it says when."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.arbitrage import Engine, Event, Opportunity, Quote, Status, Terms
from alphapulse.clock import NO_TIME
from alphapulse.config import ArbitrageSettings
from tests.reference.arbitrage import Book, Deal, Oracle, Rules

SECOND_NS = 10**9
START_NS = 1_790_000_000 * SECOND_NS
SYMBOL = "BTC-USD"
EXCHANGES = ("kraken", "coinbase", "binance_us", "unpriced")
"""The last one's fee isn't known."""

Sides = tuple[dict[int, int], dict[int, int]]
"""Scaled sizes by scaled price: bids and asks."""


class FakeLevels:
    """Levels in dictionaries."""

    def __init__(self, bids: dict[int, int], asks: dict[int, int]) -> None:
        self.sides = bids, asks

    def best(self) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        bid, ask = self.bids(1), self.asks(1)
        return bid[0] if bid else None, ask[0] if ask else None

    def bids(self, limit: int) -> list[tuple[int, int]]:
        return sorted(self.sides[0].items(), reverse=True)[:limit]

    def asks(self, limit: int) -> list[tuple[int, int]]:
        return sorted(self.sides[1].items())[:limit]


def terms(**settings: Any) -> Terms:
    """Without fees unless given."""
    fees = dict.fromkeys(EXCHANGES[:3], Decimal(0)) | settings.pop("fees_bps", {})
    return Terms(fees, **settings)


class Bench:
    """An engine with books that are set as a whole."""

    def __init__(self, terms: Terms, now_ns: int = START_NS) -> None:
        self.engine = Engine(terms)
        self.now_ns = now_ns
        self.version = 0

    def seen(self, *exchanges: str) -> None:
        for exchange in exchanges or EXCHANGES:
            self.engine.venue(exchange).seen_ns = self.now_ns

    def book(
        self,
        exchange: str,
        bids: dict[int, int],
        asks: dict[int, int],
        *,
        symbol: str = SYMBOL,
        exponents: tuple[int, int] = (2, 3),
        delay_ns: int | None = 0,
        timely: bool = True,
    ) -> Quote:
        """A book has changed to this; prices have 2, sizes 3 decimal places."""
        quote = self.engine.quote(exchange, symbol, FakeLevels(bids, asks), *exponents)
        self.change(quote, bids, asks, delay_ns=delay_ns, timely=timely)
        return quote

    def change(
        self,
        quote: Quote,
        bids: dict[int, int],
        asks: dict[int, int],
        *,
        delay_ns: int | None = 0,
        timely: bool = True,
    ) -> None:
        assert isinstance(quote.levels, FakeLevels)
        quote.levels.sides = bids, asks
        self.version += 1
        exchange_ns = NO_TIME if delay_ns is None else self.now_ns - delay_ns
        quote.update(self.version, exchange_ns, self.now_ns, timely=timely)

    def later(self, ns: int) -> None:
        self.now_ns += ns

    def evaluate(self) -> list[tuple[str, str | None]]:
        """(status, reason) of each event."""
        return [(event.status.value, event.reason) for event in self.events()]

    def events(self) -> list[Event]:
        return list(self.engine.evaluate(self.now_ns))

    def open(self, **wanted: Any) -> list[Opportunity]:
        return self.engine.opportunities(self.now_ns, **wanted)


def as_deal(opportunity: Opportunity) -> Deal:
    return Deal(
        volume=Fraction(opportunity.volume),
        bought=Fraction(opportunity.buy_amount),
        sold=Fraction(opportunity.sell_amount),
        buy_fee=Fraction(opportunity.buy_fee),
        sell_fee=Fraction(opportunity.sell_fee),
        profit=Fraction(opportunity.profit),
        buy_limit=Fraction(opportunity.buy_limit),
        sell_limit=Fraction(opportunity.sell_limit),
    )


def check_quotients(opportunity: Opportunity) -> None:
    """Averages and basis points are rounded, and by no more than half of their last digit."""
    deal = as_deal(opportunity)
    for told, true, places in (
        (opportunity.gross_bps, (deal.sold / deal.bought - 1) * 10_000, 4),
        (opportunity.net_bps, deal.profit / deal.bought * 10_000, 4),
        (opportunity.buy_price, deal.bought / deal.volume, 7),
        (opportunity.sell_price, deal.sold / deal.volume, 7),
    ):
        assert abs(Fraction(told) - true) <= Fraction(1, 2 * 10**places)


@st.composite
def sides(draw: st.DrawFn, scale: int) -> Sides:
    """A book around 100; not crossed in itself."""
    middle = draw(st.integers(97, 103))
    sizes = st.integers(1, 12)
    least = draw(st.sampled_from([0, 2, 2, 2]))
    bids = draw(st.dictionaries(st.integers(middle - 4, middle - 1), sizes, min_size=least))
    asks = draw(st.dictionaries(st.integers(middle, middle + 3), sizes, min_size=least))
    return tuple({price * scale: size for price, size in side.items()} for side in (bids, asks))  # type: ignore[return-value]


EXPONENTS = {"kraken": (0, 1), "coinbase": (3, 2), "binance_us": (2, 0), "unpriced": (1, 1)}
"""Of each exchange's prices and sizes."""

EXCHANGE = st.sampled_from(EXCHANGES)
DELAYS_NS = st.sampled_from([None, -50_000_000, 0, 20_000_000, 700_000_000])

BOOKS = EXCHANGE.flatmap(
    lambda name: st.tuples(
        st.just("book"), st.just(name), sides(10 ** EXPONENTS[name][0]), DELAYS_NS
    )
)
STEPS = st.one_of(
    *(BOOKS, BOOKS, BOOKS, BOOKS),
    st.tuples(st.just("lose"), EXCHANGE),
    st.tuples(st.just("seen"), EXCHANGE),
    st.tuples(st.just("wait"), st.integers(1, 2 * SECOND_NS)),
)

FEES = st.decimals(0, 90, places=1)


@given(
    fees=st.tuples(FEES, FEES, FEES),
    min_bps=st.sampled_from([Decimal(0), Decimal("0.25"), Decimal(60)]),
    depth=st.integers(1, 4),
    steps=st.lists(st.tuples(STEPS, st.booleans()), min_size=15, max_size=40),
)
def test_equals_the_reference(
    fees: tuple[Decimal, ...], min_bps: Decimal, depth: int, steps: list[Any]
) -> None:
    known = dict(zip(EXCHANGES, fees, strict=False))
    terms = Terms(known, min_bps=min_bps, max_age_ns=3 * SECOND_NS, depth=depth)
    bench = Bench(terms)
    rules = Rules(
        {name: Fraction(fee) for name, fee in known.items()},
        Fraction(min_bps),
        terms.max_age_ns,
        terms.max_skew_ns,
        depth,
    )
    oracle = Oracle(rules)
    before: dict[tuple[str, str], Deal] = {}
    opened: dict[tuple[str, str], int] = {}
    best: dict[tuple[str, str], Fraction] = {}
    for name in EXCHANGES:
        bench.engine.quote(name, SYMBOL, FakeLevels({}, {}), *EXPONENTS[name])
        bench.seen(name)
        oracle.seen_ns[name] = bench.now_ns
    for (kind, *arguments), evaluate in steps:
        if kind == "book":
            name, (bids, asks), delay_ns = arguments
            price_unit, size_unit = (10**exponent for exponent in EXPONENTS[name])
            bench.change(bench.engine.venue(name).quotes[SYMBOL], bids, asks, delay_ns=delay_ns)
            bids, asks = (
                {Fraction(p, price_unit): Fraction(s, size_unit) for p, s in side.items()}
                for side in (bids, asks)
            )
            oracle.set(name, Book(bids, asks, delay_ns))
        elif kind == "lose":
            bench.engine.venue(arguments[0]).lose()
            oracle.lose(arguments[0])
        elif kind == "seen":
            bench.seen(arguments[0])
            oracle.seen_ns[arguments[0]] = bench.now_ns
        else:
            bench.later(arguments[0])
        if evaluate:
            now = oracle.deals(bench.now_ns)
            expected = {}
            for pair in before.keys() | now.keys():
                if pair not in before:
                    expected[pair] = Status.OPENED
                    opened[pair] = bench.now_ns
                    best[pair] = now[pair].profit
                elif pair not in now:
                    expected[pair] = Status.CLOSED
                elif now[pair] != before[pair]:
                    expected[pair] = Status.CHANGED
                    best[pair] = max(best[pair], now[pair].profit)
            events = bench.events()
            found = {_pair(event.opportunity): event for event in events}
            assert len(found) == len(events)
            assert {pair: event.status for pair, event in found.items()} == expected
            for pair, event in found.items():
                closed = event.status is Status.CLOSED
                assert as_deal(event.opportunity) == (before if closed else now)[pair]
                assert (event.reason is not None) == closed
            shown = {_pair(item): item for item in bench.open()}
            assert {pair: as_deal(item) for pair, item in shown.items()} == now
            for pair, item in shown.items():
                check_quotients(item)
                assert item.duration_ns == bench.now_ns - opened[pair]
                assert Fraction(item.best_profit) == best[pair]
            _check_stricter(bench, oracle)
            before = now


def _pair(opportunity: Opportunity) -> tuple[str, str]:
    return opportunity.buy_exchange, opportunity.sell_exchange


def _check_stricter(bench: Bench, oracle: Oracle) -> None:
    """Asked for more profit, it gives what an engine with that as its minimum would have found."""
    rules = oracle.rules
    for more in (Decimal("7.125"), Decimal(100)):
        if more > bench.engine.terms.min_bps:
            oracle.rules = rules._replace(min_bps=Fraction(more))
            shown = {_pair(item): as_deal(item) for item in bench.open(min_bps=more)}
            assert shown == oracle.deals(bench.now_ns)
    oracle.rules = rules


def test_an_opportunity_in_figures() -> None:
    bench = Bench(terms(fees_bps={"kraken": Decimal(26), "coinbase": Decimal("2.5")}, depth=5))
    bench.seen()
    bench.book("kraken", {9990: 5000}, {10000: 1500, 10010: 1000, 10100: 9000})
    bench.later(3_000_000)
    bench.book("coinbase", {1_005_000: 20_000, 1_004_000: 4_000}, {1_006_000: 1}, exponents=(4, 4))
    (event,) = bench.events()
    assert event.status is Status.OPENED
    found = event.opportunity
    # 1.5 at 100.00 and 0.5 at 100.10 against 2 at 100.50, then 0.4 at 100.40 less the rest.
    assert (found.buy_exchange, found.sell_exchange) == ("kraken", "coinbase")
    assert (found.volume, found.complete) == (Decimal("2.4"), True)
    assert (found.buy_best, found.buy_limit) == (Decimal(100), Decimal("100.1"))
    assert (found.sell_best, found.sell_limit) == (Decimal("100.5"), Decimal("100.4"))
    assert found.buy_amount == Decimal("240.09")
    assert found.sell_amount == Decimal("241.16")
    assert str(found.buy_fee) == "0.624234"
    assert str(found.sell_fee) == "0.06029"
    assert str(found.profit) == "0.385476"
    assert str(found.net_bps) == "16.0555"
    assert str(found.gross_bps) == "44.5666"
    assert str(found.buy_price) == "100.0375"
    assert str(found.sell_price) == "100.48333333"
    assert found.currency == "USD"
    assert (found.buy_age_ns, found.sell_age_ns) == (3_000_000, 0)


def test_events_come_on_change_only() -> None:
    bench = Bench(terms(depth=2))
    bench.seen()
    kraken = bench.book("kraken", {}, {10000: 10, 10100: 10})
    coinbase = bench.book("coinbase", {10050: 5, 9000: 1}, {})
    assert bench.evaluate() == [("opened", None)]
    assert bench.evaluate() == []
    bench.change(kraken, {}, {10000: 10, 10200: 10})  # beyond what can be sold
    bench.change(coinbase, {10050: 5, 9000: 2}, {})
    assert bench.evaluate() == []
    assert bench.open()[0].buy_version == 3, "what it is from is always the latest"
    bench.change(kraken, {}, {10000: 4, 10040: 10})
    assert bench.evaluate() == [("changed", None)]
    bench.later(SECOND_NS)
    bench.change(kraken, {}, {10050: 10})
    (event,) = bench.events()
    assert (event.status, event.reason) == (Status.CLOSED, "uncrossed")
    assert event.opportunity.duration_ns == SECOND_NS
    assert event.opportunity.buy_limit == Decimal("100.4"), "as it was last"
    assert bench.open() == []


def test_no_profit_is_no_opportunity_and_min_bps_may_be_met_exactly() -> None:
    bench = Bench(terms())
    bench.seen()
    bench.book("kraken", {}, {10000: 1})
    coinbase = bench.book("coinbase", {10000: 1}, {})
    assert bench.evaluate() == []
    bench.change(coinbase, {10001: 1}, {})
    assert bench.evaluate() == [("opened", None)]
    exact = Bench(terms(min_bps=Decimal(1)))
    exact.seen()
    exact.book("kraken", {}, {10000: 1})
    exact.book("coinbase", {10001: 1}, {})
    assert exact.evaluate() == [("opened", None)]


def test_a_book_that_is_not_live_has_no_opportunity() -> None:
    bench = Bench(terms())
    bench.seen()
    kraken = bench.book("kraken", {}, {10000: 1})
    bench.book("coinbase", {10100: 1}, {})
    assert bench.evaluate() == [("opened", None)]
    kraken.lose()
    assert bench.evaluate() == [("closed", "not_live")]
    kraken.lose()
    assert bench.evaluate() == []
    bench.change(kraken, {}, {10000: 1})
    assert bench.evaluate() == [("opened", None)]
    bench.engine.venue("coinbase").lose()
    assert bench.evaluate() == [("closed", "not_live")]


def test_a_quiet_book_is_no_stale_one_but_a_silent_venue_is() -> None:
    bench = Bench(terms())
    bench.seen()
    bench.book("kraken", {}, {10000: 1})
    bench.book("coinbase", {10100: 1}, {})
    assert bench.evaluate() == [("opened", None)]
    for _ in range(100):
        bench.later(SECOND_NS)
        bench.seen()
        assert bench.evaluate() == []
    assert bench.open()[0].buy_age_ns == 100 * SECOND_NS
    bench.later(3 * SECOND_NS)
    assert bench.evaluate() == []
    bench.later(1)
    bench.seen("kraken")
    assert bench.evaluate() == [("closed", "stale")]
    assert bench.open() == []
    bench.seen("coinbase")
    (event,) = bench.events()
    assert event.status is Status.OPENED
    assert event.opportunity.opened_ns == bench.now_ns


def test_a_venue_that_never_showed_life_has_no_opportunity() -> None:
    bench = Bench(terms())
    bench.book("kraken", {}, {10000: 1})
    bench.book("coinbase", {10100: 1}, {})
    assert bench.evaluate() == []


def test_clocks_that_differ_do_not_matter_but_delays_do() -> None:
    bench = Bench(terms(max_skew_ns=100_000_000))
    bench.seen()
    hour_ns = 3600 * SECOND_NS
    kraken = bench.book("kraken", {}, {10000: 1}, delay_ns=-hour_ns)
    coinbase = bench.book("coinbase", {10100: 1}, {}, delay_ns=5_000_000)
    assert bench.evaluate() == [("opened", None)]
    bench.change(coinbase, {10100: 1}, {}, delay_ns=105_000_000)
    assert bench.evaluate() == []
    found = bench.open()[0]
    assert (found.buy_skew_ns, found.sell_skew_ns) == (-hour_ns, 5_000_000)
    assert (found.buy_lag_ns, found.sell_lag_ns) == (0, 100_000_000)
    bench.change(coinbase, {10100: 1}, {}, delay_ns=105_000_001)
    assert bench.evaluate() == [("closed", "late")]
    bench.change(kraken, {}, {10000: 1}, delay_ns=-hour_ns + 60_000_000)
    assert bench.evaluate() == [("opened", None)], "both are late"
    bench.change(kraken, {}, {10000: 1}, delay_ns=None)
    assert bench.evaluate() == []
    assert bench.open()[0].buy_lag_ns is None
    # The time of a snapshot's latest change says nothing about its way.
    bench.change(coinbase, {10100: 1}, {}, delay_ns=10 * hour_ns, timely=False)
    bench.change(kraken, {}, {10000: 1}, delay_ns=-hour_ns)
    assert bench.evaluate() == []


def test_what_lies_deeper_than_was_looked_is_said_to_be_unknown() -> None:
    bench = Bench(terms(depth=2))
    bench.seen()
    kraken = bench.book("kraken", {}, {10000: 1, 10001: 1})
    coinbase = bench.book("coinbase", {10100: 9}, {})
    bench.evaluate()
    assert bench.open()[0].complete, "there are no further asks"
    bench.change(kraken, {}, {10000: 1, 10001: 1, 10002: 1})
    assert bench.evaluate() == [], "the figures are the same"
    assert not bench.open()[0].complete
    bench.change(coinbase, {10100: 1}, {})
    assert bench.evaluate() == [("changed", None)]
    assert bench.open()[0].complete


def test_symbols_do_not_meet_and_can_be_asked_for() -> None:
    bench = Bench(terms())
    bench.seen()
    for symbol, bid in (("BTC-USD", 10100), ("ETH-USD", 10200)):
        bench.book("kraken", {}, {10000: 1}, symbol=symbol)
        bench.book("coinbase", {bid: 1}, {}, symbol=symbol)
    bench.book("binance_us", {99999: 1}, {}, symbol="BTC-EUR")
    assert bench.evaluate() == [("opened", None)] * 2
    assert [item.symbol for item in bench.open()] == ["BTC-USD", "ETH-USD"]
    assert [item.symbol for item in bench.open(symbol="ETH-USD")] == ["ETH-USD"]


def test_other_exponents_change_no_figure() -> None:
    bench = Bench(terms())
    bench.seen()
    bench.book("kraken", {}, {10000: 1000})
    bench.book("coinbase", {10100: 500}, {})
    assert bench.evaluate() == [("opened", None)]
    bench.book("binance_us", {}, {1: 1}, exponents=(8, 8), delay_ns=None)
    bench.engine.venue("binance_us").lose()
    assert bench.evaluate() == []
    found = bench.open()[0]
    assert (str(found.buy_price), str(found.volume), str(found.profit)) == ("100", "0.5", "0.5")
    # The same book, written with more digits.
    bench.book("kraken", {}, {100_000_000: 100_000}, exponents=(6, 5))
    assert bench.evaluate() == []


def test_a_book_of_new_exponents_is_not_live_until_it_is_told() -> None:
    bench = Bench(terms())
    bench.seen()
    bench.book("kraken", {}, {10000: 1000})
    bench.book("coinbase", {10100: 500}, {})
    bench.evaluate()
    bench.engine.quote("kraken", SYMBOL, FakeLevels({}, {100_000: 1}), 3, 3)
    assert bench.evaluate() == [("closed", "not_live")]


def test_terms_from_settings() -> None:
    made = Terms.from_settings(
        ArbitrageSettings(min_bps=Decimal("1.5"), max_age_seconds=2.5, max_skew_ms=0.5),
        {"kraken": Decimal("0.25"), "elsewhere": Decimal(7)},
    )
    assert made.fees_bps == {
        "coinbase": 60,
        "kraken": Decimal("0.25"),
        "binance_us": 60,
        "elsewhere": 7,
    }
    assert (made.max_age_ns, made.max_skew_ns) == (2_500_000_000, 500_000)
    assert made.unit == 10**6
    assert (made.pays("kraken"), made.gets("kraken")) == (1_000_025, 999_975)
    assert made.needs("kraken") == 1_000_175
    assert made.knows("elsewhere")
    assert not made.knows("nowhere")


@pytest.mark.parametrize("set_back", [False, True])
def test_the_skew_is_that_of_the_last_minutes(set_back: bool) -> None:
    bench = Bench(terms())
    skew = bench.engine.venue("kraken").skew
    skew.add(bench.now_ns, 5)
    bench.later(-7 * SECOND_NS * 3600 if set_back else 299 * SECOND_NS)
    skew.add(bench.now_ns, 9)
    if not set_back:
        assert skew.least_ns == 5
        bench.later(60 * SECOND_NS)
        skew.add(bench.now_ns, 10)
    assert skew.least_ns == 9
