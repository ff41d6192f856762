"""Items are made again exactly where rows are others."""

from __future__ import annotations

from alphapulse.api.items import ANSWERS, MOST_ROWS, ItemCache


def test_the_same_rows_give_the_same_items() -> None:
    made: list[int] = []

    def item_of(row: int) -> str:
        made.append(row)
        return str(row)

    cache = ItemCache()
    assert cache.items("a", [1, 2], item_of) == ["1", "2"]
    assert cache.items("a", [1, 2], item_of) == ["1", "2"]
    assert made == [1, 2]
    assert cache.items("a", [2, 3], item_of) == ["2", "3"]
    assert cache.items("b", [2, 3], item_of) == ["2", "3"]
    assert made == [1, 2, 2, 3, 2, 3]


def test_what_is_kept_is_bounded() -> None:
    made: list[int] = []
    cache = ItemCache()
    for key in range(ANSWERS + 1):
        cache.items(key, [key], made.append)
    cache.items(1, [1], made.append)
    assert len(made) == ANSWERS + 1
    cache.items(0, [0], made.append)
    assert len(made) == ANSWERS + 2
    long = list(range(MOST_ROWS + 1))
    cache.items("long", long, made.append)
    cache.items("long", long, made.append)
    assert len(made) == ANSWERS + 2 + 2 * len(long)
