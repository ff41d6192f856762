"""Gaps in Redis by the time when they were seen: an index of the stream, and pages by it.

Entries of the stream are in the order of their writing. Losses are written down a little out of
their order: what a reader of the ring missed is told before what the ring still holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import redis.asyncio

from alphapulse.history import GapRow
from alphapulse.store.entries import NS_PER_MS, Entry, Keys, gap_of, pairs
from alphapulse.store.redis_link import Link, Request
from alphapulse.store.redis_reader import done

PAGE = 1000
"""Entries read at once."""


class GapReader:
    """Reads one venue's gaps.

    Parameters
    ----------
    client : connected to Redis
    keys : names of the venue's keys
    exchange : goes into the rows
    """

    def __init__(self, client: redis.asyncio.Redis, keys: Keys, exchange: str) -> None:
        self._client = client
        self._keys = keys
        self._exchange = exchange

    async def read(
        self,
        span: tuple[int | None, int | None],
        limit: int | None,
        newest: bool,
        wanted: Callable[[GapRow], bool],
    ) -> list[GapRow]:
        """Gaps that are wanted, in no order; with a limit so many of one end, and some more.

        Parameters
        ----------
        span : first and last time in nanoseconds; what is wanted lies within
        limit : how many are enough, None for all
        newest : whether those of the span's end are meant
        wanted : tells whether a gap is one of those asked for
        """
        low, high = (None if time is None else time // NS_PER_MS for time in span)
        rows: list[GapRow] = []
        passed = 0
        while True:
            count = PAGE if limit is None else min(limit + 1, PAGE)
            ids = await self._ids(low, high, newest, passed, count)
            rows += filter(wanted, await self._rows([entry_id for entry_id, _ in ids]))
            if len(ids) < count:
                return rows
            # Within a millisecond the index isn't in order: one that was begun is read whole.
            edge = int(ids[-1][1])
            at_edge = sum(score == edge for _, score in ids)
            if (high if newest else low) == edge:
                passed += at_edge
            else:
                passed = at_edge
                low, high = (low, edge) if newest else (edge, high)
            whole = sum(row.received_ns // NS_PER_MS != edge for row in rows)
            if limit is not None and whole >= limit:
                return rows

    async def _ids(
        self, low: int | None, high: int | None, newest: bool, passed: int, count: int
    ) -> list[tuple[bytes, float]]:
        """A page of entries' ids with their times, in milliseconds."""
        first = "-inf" if low is None else low
        last = "+inf" if high is None else high
        key = self._keys.gap_times
        if newest:
            found: list[tuple[bytes, float]] = await done(
                self._client.zrevrangebyscore(key, last, first, passed, count, withscores=True)
            )
        else:
            found = await done(
                self._client.zrangebyscore(key, first, last, passed, count, withscores=True)
            )
        return found

    async def _rows(self, ids: Sequence[bytes]) -> list[GapRow]:
        if not ids:
            return []
        async with self._client.pipeline(transaction=False) as pipe:
            for entry_id in ids:
                pipe.xrange(self._keys.gaps, entry_id, entry_id)
            pipe.hmget(self._keys.fills, ids)
            *answers, fills = await pipe.execute()
        found: list[list[Entry]] = answers
        # An entry may have been trimmed already.
        return [
            gap_of(entry, fill, self._exchange)
            for entries, fill in zip(found, fills, strict=True)
            for entry in entries
        ]


async def index_gaps(link: Link, keys: Keys) -> None:
    """Make the index of a stream that an earlier program wrote without one."""
    request = Request()
    request.add("ZCARD", keys.gap_times)
    request.add("XLEN", keys.gaps)
    indexed, written = await link.ask(request)
    if indexed or not written:
        return
    request = Request()
    request.add("XRANGE", keys.gaps, "-", "+")
    [entries] = await link.ask(request)
    index: list[str | bytes] = []
    for entry_id, words in entries:
        index += [str(int(pairs(words)[b"received_ns"]) // NS_PER_MS), entry_id]
    # One command: a part of the index would pass for the whole.
    request = Request()
    request.add("ZADD", keys.gap_times, *index)
    await link.ask(request)
