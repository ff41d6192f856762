"""Two books that cross, one to buy from and one to sell to."""

from __future__ import annotations

from decimal import Decimal

from alphapulse.arbitrage.books import Quote
from alphapulse.arbitrage.matching import Fill, match
from alphapulse.arbitrage.opportunity import (
    AVERAGE_DIGITS,
    BPS_DIGITS,
    Opportunity,
    exact,
    quotient,
)
from alphapulse.arbitrage.terms import BPS_PLACES, Terms
from alphapulse.clock import NO_TIME


class Pair:
    """What the engine remembers of a crossing.

    Parameters
    ----------
    buy, sell : the books
    """

    def __init__(self, buy: Quote, sell: Quote) -> None:
        self.buy = buy
        self.sell = sell
        self.changed = True
        """Whether one of the books has changed since they were matched."""
        self.fill: Fill | None = None
        """What they were matched to."""
        self.opened_ns: int | None = None
        """Since when it has been an opportunity; None where it is none."""
        self.told: Opportunity | None = None
        """As it was told last."""

    def hindrance(self, terms: Terms) -> str | None:
        """Why it is no opportunity, although the books cross: ``stale``, ``late`` or None."""
        buy, sell = self.buy, self.sell
        if buy.venue.stale or sell.venue.stale:
            return "stale"
        # A venue's changes that take longer than usual show its market as it was. What both have
        # in common doesn't matter; clocks that differ are in the lags' zero.
        buy_lag_ns, sell_lag_ns = buy.lag_ns, sell.lag_ns
        if buy_lag_ns is None or sell_lag_ns is None:
            return None
        return "late" if abs(buy_lag_ns - sell_lag_ns) > terms.max_skew_ns else None

    def match(self, terms: Terms) -> Fill | None:
        """What can be bought of the one and sold to the other now."""
        buy, sell = self.buy, self.sell
        return match(
            buy.asks(terms.depth),
            sell.bids(terms.depth),
            terms.needs(buy.venue.exchange),
            terms.gets(sell.venue.exchange),
            terms.margin,
        )

    def complete(self, fill: Fill, terms: Terms) -> bool:
        """Whether looking deeper couldn't have given more."""
        return not (
            (fill.asks_used_up and len(self.buy.levels.asks(terms.depth + 1)) > terms.depth)
            or (fill.bids_used_up and len(self.sell.levels.bids(terms.depth + 1)) > terms.depth)
        )

    def describe(
        self, terms: Terms, fill: Fill, now_ns: int, *, alone: bool = False
    ) -> Opportunity:
        """The opportunity in decimals.

        Parameters
        ----------
        fill : what `match` gave for these terms
        alone : leave out of account what was best before
        """
        buy, sell = self.buy, self.sell
        market = buy.market
        price_exponent = market.price_exponent
        amount_exponent = price_exponent + market.size_exponent
        exponent = amount_exponent + terms.exponent
        pays, gets = terms.pays(buy.venue.exchange), terms.gets(sell.venue.exchange)
        gain = fill.sold * gets - fill.bought * pays
        bought = fill.bought * terms.unit
        bps = 10**BPS_PLACES
        profit = exact(gain, exponent)
        net = quotient(gain * bps, bought, BPS_DIGITS)
        told = None if alone else self.told
        assert self.opened_ns is not None
        return Opportunity(
            symbol=market.symbol,
            currency=market.symbol.rpartition("-")[2],
            buy_exchange=buy.venue.exchange,
            sell_exchange=sell.venue.exchange,
            volume=exact(fill.volume, market.size_exponent),
            complete=self.complete(fill, terms),
            buy_price=_average(fill.bought, fill.volume, price_exponent),
            sell_price=_average(fill.sold, fill.volume, price_exponent),
            buy_best=exact(buy.ask * buy.price_factor, price_exponent),
            sell_best=exact(sell.bid * sell.price_factor, price_exponent),
            buy_limit=exact(fill.buy_limit, price_exponent),
            sell_limit=exact(fill.sell_limit, price_exponent),
            buy_amount=exact(fill.bought, amount_exponent),
            sell_amount=exact(fill.sold, amount_exponent),
            buy_fee_bps=terms.fees_bps[buy.venue.exchange],
            sell_fee_bps=terms.fees_bps[sell.venue.exchange],
            buy_fee=exact(fill.bought * (pays - terms.unit), exponent),
            sell_fee=exact(fill.sold * (terms.unit - gets), exponent),
            profit=profit,
            gross_bps=quotient((fill.sold - fill.bought) * bps, fill.bought, BPS_DIGITS),
            net_bps=net,
            best_profit=profit if told is None else max(profit, told.best_profit),
            best_net_bps=net if told is None else max(net, told.best_net_bps),
            opened_ns=self.opened_ns,
            at_ns=now_ns,
            buy_version=buy.version,
            sell_version=sell.version,
            buy_timestamp_ns=_time(buy.exchange_ns),
            sell_timestamp_ns=_time(sell.exchange_ns),
            buy_received_ns=buy.received_ns,
            sell_received_ns=sell.received_ns,
            buy_skew_ns=buy.venue.skew.least_ns,
            sell_skew_ns=sell.venue.skew.least_ns,
            buy_lag_ns=buy.lag_ns,
            sell_lag_ns=sell.lag_ns,
        )


def net_bps(buy: Quote, sell: Quote, terms: Terms) -> Decimal | None:
    """Profit after fees at the two books' best prices, in basis points; None where one lacks."""
    if not (buy.live and sell.live and buy.ask and sell.bid):
        return None
    if not (terms.knows(buy.venue.exchange) and terms.knows(sell.venue.exchange)):
        return None
    ask, bid = buy.ask * buy.price_factor, sell.bid * sell.price_factor
    gain = bid * terms.gets(sell.venue.exchange) - ask * terms.pays(buy.venue.exchange)
    return quotient(gain * 10**BPS_PLACES, ask * terms.unit, BPS_DIGITS)


def _average(amount: int, volume: int, exponent: int) -> Decimal:
    """Price of a volume that cost an amount, both on exponents that cancel out but this."""
    places = exponent + AVERAGE_DIGITS
    return quotient(amount, volume * 10**exponent, places)


def _time(time_ns: int) -> int | None:
    return None if time_ns == NO_TIME else time_ns
