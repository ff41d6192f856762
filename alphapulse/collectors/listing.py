"""Trades as a venue's REST service lists them: page by page, and whether that was all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import msgspec

from alphapulse.collectors.events import TradeEvent
from alphapulse.collectors.rest import RestClient
from alphapulse.collectors.venue import RestAnswer, RestRequest, TradesPage, TradeSpan, Venue
from alphapulse.errors import AlphaPulseError, RateLimited, VenueError
from alphapulse.model import IdKind, Instrument


class Ids(NamedTuple):
    """Ids that a listed trade stands for, both included: an aggregate's are its matches'."""

    first: int
    last: int


class Listing:
    """The REST trades of one span.

    Parameters
    ----------
    venue, client : the protocol, and the venue's REST service
    instrument : whose trades are meant
    span : which of them
    most_pages : after which the listing ends

    Attributes
    ----------
    ended : whether the venue has listed all that it has of the span
    """

    def __init__(
        self,
        venue: Venue,
        client: RestClient,
        instrument: Instrument,
        span: TradeSpan,
        most_pages: int,
    ) -> None:
        self._venue = venue
        self._client = client
        self._instrument = instrument
        self._span = span
        self._most_pages = most_pages
        self.ended = False
        self._contiguous = True
        self._listed: Ids | None = None
        self._within: Ids | None = None

    async def pages(self) -> AsyncIterator[list[tuple[TradeEvent, Ids]]]:
        """The span's trades with their ids, page by page.

        Raises
        ------
        RateLimited
            the venue asked to be left alone
        VenueError
            it gave no answer, or none that can be used
        """
        request = self._venue.trades_request(self._instrument, self._span)
        for _ in range(self._most_pages):
            if request is None:
                return
            page = self._parse(request, await self._client.get(request))
            noted = [(trade, self._note(trade)) for trade in page.trades]
            request = page.more
            self.ended = request is None
            yield [(trade, ids) for trade, ids in noted if ids is not None]

    def _parse(self, request: RestRequest, answer: RestAnswer) -> TradesPage:
        try:
            return self._venue.parse_trades(self._instrument, self._span, request, answer)
        except RateLimited as error:
            self._client.allowance.hold(error.retry_after_seconds)
            raise
        except (msgspec.MsgspecError, ValueError, AlphaPulseError, RecursionError) as error:
            problem = f"{error} in the answer to {request.path}"
            raise VenueError(self._venue.name, problem) from error

    def _note(self, trade: TradeEvent) -> Ids | None:
        """Ids of a trade that is one of the span's."""
        span, ids = self._span, self._ids(trade)
        if ids is None:
            return None
        self._contiguous = self._contiguous and trade.contiguous
        self._listed = _joined(self._listed, ids)
        if span.after_id is None and trade.exchange_ns < span.since_ns:
            return None
        if span.before_id is None and trade.exchange_ns > span.until_ns:
            return None
        self._within = _joined(self._within, ids)
        return ids

    def _ids(self, trade: TradeEvent) -> Ids | None:
        if trade.id_kind is self._span.id_kind:
            return Ids(trade.trade_id, trade.trade_id)
        if self._span.id_kind is IdKind.TRADE and trade.first_match is not None:
            return Ids(trade.first_match, trade.first_match + trade.matches - 1)
        return None

    def is_whole(self, missing: Callable[[int, int], bool]) -> bool:
        """Whether nothing of the span is missing any more.

        Where ids are consecutive they tell; else what was listed has to reach from the trade
        before the span to the one behind it.

        Parameters
        ----------
        missing : whether any id between two others, both included, is still missing
        """
        if not self.ended:
            return False
        after, before = self._span.after_id, self._span.before_id
        if self._listed is None:
            # Without a trade there is no telling, but for a span that may well be empty.
            return before is None
        begun = after is None or self._listed.first <= after + 1
        if not self._contiguous:
            return begun and (before is None or self._listed.last >= before - 1)
        within = self._within
        if within is None and after is None and before is not None:
            # All that is listed was made before the span: it begins behind that.
            return not missing(self._listed.last + 1, before - 1)
        first = after + 1 if after is not None else within.first if within else 0
        last = before - 1 if before is not None else within.last if within else first - 1
        return not missing(first, last)


def _joined(known: Ids | None, more: Ids) -> Ids:
    if known is None:
        return more
    return Ids(min(known.first, more.first), max(known.last, more.last))
