"""An answer is given again only for the very same rows; what is made anew is only what is new."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Raw

from alphapulse.api.items import ANSWERS, MOST_ROWS, Answer, AnswerCache


class Row:
    """Equal to others of its number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Row) and other.number == self.number

    __hash__ = None  # type: ignore[assignment]


def answer(rows: Sequence[Row], items: list[Raw] | None = None) -> Answer:
    made = [Raw(b"%d" % row.number) for row in rows]
    return Answer(rows, items or made, b"essence", "tag", None)


def test_an_answer_is_found_for_its_rows() -> None:
    cache = AnswerCache()
    rows = [Row(1), Row(2)]
    assert cache.find("a", rows) is None
    cache.keep("a", answer(rows))
    found = cache.find("a", [Row(1), Row(2)])
    assert found is not None
    assert found.rows is rows
    assert cache.find("b", rows) is None
    for others in ([Row(2), Row(1)], [Row(1)], [Row(1), Row(2), Row(3)], [Row(1), Row(3)]):
        assert cache.find("a", others) is None


def test_items_of_the_same_rows_are_taken_over() -> None:
    cache = AnswerCache()
    made: list[int] = []

    def item_of(row: Row) -> Raw:
        made.append(row.number)
        return Raw(b"%d" % row.number)

    rows = [Row(1), Row(2), Row(3)]
    items = cache.items("a", rows, item_of)
    cache.keep("a", answer(rows, items))
    later = [*rows[1:], Row(4), Row(2)]
    assert [bytes(item) for item in cache.items("a", later, item_of)] == [b"2", b"3", b"4", b"2"]
    # Only the row itself counts: another one with its number may say something else.
    assert made == [1, 2, 3, 4, 2]


def test_what_is_kept_is_bounded() -> None:
    cache = AnswerCache()
    for number in range(ANSWERS):
        cache.keep(number, answer([Row(number)]))
    assert cache.find(0, [Row(0)]) is not None
    cache.keep(ANSWERS, answer([Row(ANSWERS)]))
    assert cache.find(0, [Row(0)]) is not None
    assert cache.find(1, [Row(1)]) is None
    long = [Row(number) for number in range(MOST_ROWS + 1)]
    cache.keep("long", answer(long))
    assert cache.find("long", long) is None
