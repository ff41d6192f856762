"""Names of segments and the numbers of venues."""

from __future__ import annotations

from zlib import crc32

import pytest

from alphapulse.shm import names, ring_id


def test_known_venues_have_their_numbers() -> None:
    assert [ring_id(venue) for venue in ("coinbase", "kraken", "binance_us")] == [1, 2, 3]


def test_other_venues_are_numbered_by_their_name() -> None:
    number = ring_id("bitstamp")
    assert number == (crc32(b"bitstamp") & 0x7FFF) + 32768
    assert 32768 <= number < 65536


def test_names() -> None:
    name = names.ring_name("alphapulse", "binance_us")
    assert name == "alphapulse.binance_us"
    assert names.readers_name(name) == "alphapulse.binance_us.readers"
    assert names.retired_name(name, 17) == "alphapulse.binance_us~17"
    assert names.temporary_name(name) != names.temporary_name(name)


@pytest.mark.parametrize("prefix", ["", "a.b", "a/b", "x" * 65, "ä", "a\n"])
def test_impossible_prefix(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        names.ring_name(prefix, "kraken")


@pytest.mark.parametrize("venue", ["", "a.b", "a/b", "x" * 64, "Kraken", "readers~1", "all"])
def test_impossible_venue(venue: str) -> None:
    with pytest.raises(ValueError, match="venue"):
        names.ring_name("alphapulse", venue)


def test_retired_epochs_are_numbers_in_order(ring_prefix: str) -> None:
    paths = [names.FOLDER / f"{ring_prefix}.kraken~{tail}" for tail in ("9", "10", "new-1", "²")]
    for path in paths:
        path.touch()
    assert names.retired_epochs(f"{ring_prefix}.kraken") == [9, 10]
    for path in paths:
        path.unlink()
