"""A listing tells whether it is whole: by ids where they are consecutive, else by its ends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from alphapulse.collectors.allowance import Allowance
from alphapulse.collectors.coinbase import Coinbase
from alphapulse.collectors.kraken import Kraken
from alphapulse.collectors.listing import Listing
from alphapulse.collectors.rest import RestClient
from alphapulse.collectors.venue import RestAnswer, RestRequest, TradeSpan, Venue
from alphapulse.config import CoinbaseSettings, KrakenSettings
from alphapulse.errors import RateLimited, VenueError
from tests.support import make_instrument

SECOND = 1_000_000_000
SPAN = TradeSpan(10, 20, 10 * SECOND, 30 * SECOND)
INSTRUMENT = make_instrument()


class Canned(RestClient):
    """Gives answers that were made before, one after the other."""

    def __init__(self, venue: Venue, *answers: bytes) -> None:
        super().__init__(
            venue.name,
            "http://127.0.0.1",
            Allowance(venue.limits.rest_weight),
            timeout_seconds=1,
            max_body_bytes=1,
        )
        self.answers = list(answers)
        self.held = 0.0
        self.allowance.hold = self._hold  # type: ignore[method-assign]

    def _hold(self, seconds: float) -> None:
        self.held += seconds

    async def get(self, request: RestRequest) -> RestAnswer:
        return RestAnswer(self.answers.pop(0), {})


def kraken(*numbers: int) -> bytes:
    """Trades, one a second."""
    rows = [["1.5", "2", number, "b", "l", "", number] for number in numbers]
    last = str(numbers[-1] * SECOND if numbers else 1)
    return json.dumps({"error": [], "result": {"XXBTZUSD": rows, "last": last}}).encode()


def coinbase(*numbers: int) -> bytes:
    """The same of a venue whose ids are consecutive."""
    rows: list[dict[str, Any]] = [
        {
            "trade_id": number,
            "side": "sell",
            "size": "1",
            "price": "2",
            "time": f"1970-01-01T00:00:{number:02}Z",
        }
        for number in reversed(numbers)
    ]
    return json.dumps(rows).encode()


async def listed(venue: Venue, span: TradeSpan, *answers: bytes) -> tuple[Listing, list[int]]:
    """A listing at its end, and the ids of what it gave."""
    listing = Listing(venue, Canned(venue, *answers), INSTRUMENT, span, most_pages=2)
    return listing, [trade.trade_id async for page in listing.pages() for trade, _ in page]


@pytest.mark.parametrize(
    ("numbers", "whole"),
    [
        ((10, 12, 15, 20), True),
        ((11, 19), True),
        ((12, 15, 20), False),
        ((10, 12, 15), False),
        ((), False),
    ],
)
async def test_ids_with_holes_are_all_there_if_both_ends_are(
    numbers: tuple[int, ...], whole: bool
) -> None:
    listing, found = await listed(Kraken(KrakenSettings()), SPAN, kraken(*numbers))
    assert found == list(numbers)
    assert listing.is_whole(lambda first, last: True) is whole


async def test_an_open_span_ends_with_what_there_is() -> None:
    span = SPAN._replace(before_id=None)
    for numbers in ((10,), (10, 12, 40), ()):
        listing, found = await listed(Kraken(KrakenSettings()), span, kraken(*numbers))
        assert found == [number for number in numbers if number <= 30], "by its time"
        assert listing.is_whole(lambda first, last: True)
    listing, _ = await listed(Kraken(KrakenSettings()), span, kraken(13))
    assert not listing.is_whole(lambda first, last: False), "not from its beginning on"


async def test_a_span_without_a_trade_before_it_begins_with_its_time() -> None:
    span = SPAN._replace(after_id=None, since_ns=12 * SECOND)
    listing, found = await listed(Kraken(KrakenSettings()), span, kraken(11, 12, 15, 20))
    assert found == [12, 15, 20]
    assert listing.is_whole(lambda first, last: True)


@pytest.mark.parametrize(
    ("span", "numbers", "asked"),
    [
        (SPAN, (12, 15), (11, 19)),
        (SPAN._replace(before_id=None), (11, 12, 31), (11, 12)),
        (SPAN._replace(before_id=None), (10,), (11, 10)),
        (SPAN._replace(after_id=None), (9, 10, 15), (10, 19)),
    ],
)
async def test_consecutive_ids_are_all_there_if_none_is_missing(
    span: TradeSpan, numbers: tuple[int, ...], asked: tuple[int, int]
) -> None:
    listing, _ = await listed(Coinbase(CoinbaseSettings()), span, coinbase(*numbers))
    bounds = []

    def is_missing(first: int, last: int) -> bool:
        bounds.append((first, last))
        return len(bounds) == 1

    assert not listing.is_whole(is_missing)
    assert listing.is_whole(is_missing)
    assert bounds == [asked, asked]


@pytest.mark.parametrize(("numbers", "whole"), [((17, 18, 19), True), ((16, 17, 18), False)])
async def test_a_span_in_which_no_trade_was_made_begins_behind_older_ones(
    numbers: tuple[int, ...], whole: bool
) -> None:
    span = SPAN._replace(after_id=None, since_ns=25 * SECOND)
    listing, found = await listed(Coinbase(CoinbaseSettings()), span, coinbase(*numbers))
    assert found == []
    assert listing.is_whole(lambda first, last: first <= min(last, 19)) is whole


async def test_a_listing_is_bounded() -> None:
    pages = [kraken(*range(number, number + 1000)) for number in (0, 1000, 2000)]
    span = SPAN._replace(before_id=5000, until_ns=5000 * SECOND)
    listing, found = await listed(Kraken(KrakenSettings()), span, *pages)
    assert len(found) == 2000
    assert not listing.ended
    assert not listing.is_whole(lambda first, last: False)


async def test_an_answer_that_cannot_be_used_is_the_venues_error() -> None:
    venue = Kraken(KrakenSettings())
    for body in (
        b"[",
        b'{"error":["EQuery:Unknown asset pair"]}',
        b'{"error":[],"result":{"a":1}}',
    ):
        with pytest.raises(VenueError, match="Trades"):
            await listed(venue, SPAN, body)


async def test_a_complaint_in_an_answer_holds_every_request() -> None:
    venue = Kraken(KrakenSettings())
    client = Canned(venue, b'{"error":["EAPI:Rate limit exceeded"]}')
    listing = Listing(venue, client, INSTRUMENT, SPAN, most_pages=2)
    with pytest.raises(RateLimited):
        await anext(listing.pages())
    assert client.held > 0
