"""What Redis is to forget: by age and by length, in small steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from alphapulse.clock import NS_PER_SECOND, wall_ns
from alphapulse.store.entries import NS_PER_MS, Keys, parse_entry_id
from alphapulse.store.redis_link import Link, Request

PAGE = 1000
"""Members of a set read at once."""


class Limits(NamedTuple):
    """What is kept."""

    age_seconds: int
    """Of trades and of all else but bars; 0 for ever."""
    bar_ages_seconds: Mapping[str, int]
    """Of bars by interval; for ever without."""
    entries: int
    """Length of a stream, 0 for any."""
    books: bool
    """Whether books are kept apart from the latest one."""

    @property
    def oldest_ms(self) -> int:
        """Time of the oldest entries that are kept."""
        return wall_ns() // NS_PER_MS - self.age_seconds * 1000


def trim(request: Request, key: str, limits: Limits) -> None:
    """Add the commands that trim a stream in whole nodes: some thousand entries at most."""
    if limits.age_seconds:
        request.add("XTRIM", key, "MINID", "~", str(limits.oldest_ms))
    if limits.entries:
        request.add("XTRIM", key, "MAXLEN", "~", str(limits.entries))


async def sweep(
    link: Link, request: Request, keys: Keys, symbols: Iterable[str], limits: Limits
) -> None:
    """Add the commands that trim all of a venue's series, and what points to trimmed entries.

    Parameters
    ----------
    link : to look; the commits are watched
    request : of a transaction; whatever is appended by it comes after this
    """
    for symbol in symbols:
        for key in (keys.trades(symbol), keys.states(symbol), keys.books(symbol)):
            trim(request, key, limits)
        if limits.age_seconds:
            # What is late was appended under a later id: its entry may outlast its time a little.
            request.add("ZREMRANGEBYSCORE", keys.late(symbol), "-inf", str(limits.oldest_ms))
            request.add("ZREMRANGEBYSCORE", keys.texts(symbol), "-inf", str(limits.oldest_ms))
        if limits.entries:
            # Twice as many ids are known as trades are kept, so that none comes in again.
            last = str(-2 * limits.entries - 1)
            request.add("ZREMRANGEBYRANK", keys.texts(symbol), "0", last)
            await _drop(link, request, keys.late(symbol), keys.trades(symbol))
        for interval, age in limits.bar_ages_seconds.items():
            oldest = wall_ns() // NS_PER_SECOND - age
            request.add("ZREMRANGEBYSCORE", keys.buckets(interval, symbol), "-inf", str(oldest))
    trim(request, keys.gaps, limits)
    await _drop_fills(link, request, keys)
    await _drop(link, request, keys.gap_times, keys.gaps)


async def _drop(link: Link, request: Request, key: str, stream: str) -> None:
    """Drop from a sorted set what points to entries that the stream has no more."""
    first = await _first_id(link, stream)
    begin = 0
    while True:
        look = Request()
        look.add("ZRANGE", key, str(begin), str(begin + PAGE - 1))
        [members] = await link.ask(look)
        gone = [member for member in members if parse_entry_id(member) < first]
        if gone:
            request.add("ZREM", key, *gone)
        if len(members) < PAGE:
            return
        begin += PAGE


async def _drop_fills(link: Link, request: Request, keys: Keys) -> None:
    first = await _first_id(link, keys.gaps)
    look = Request()
    look.add("HKEYS", keys.fills)
    [names] = await link.ask(look)
    gone = [name for name in names if parse_entry_id(name) < first]
    if gone:
        request.add("HDEL", keys.fills, *gone)


async def _first_id(link: Link, key: str) -> tuple[int, int]:
    look = Request()
    look.add("XRANGE", key, "-", "+", "COUNT", "1")
    [entries] = await link.ask(look)
    return parse_entry_id(entries[0][0]) if entries else (0, 0)
