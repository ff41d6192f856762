from collections.abc import Iterator, Sequence

from typing_extensions import Buffer

MAX_LEVELS: int
"""How many levels a stage takes; a frame with more is refused."""

class LevelLayout:
    """How a venue writes a list of price levels in JSON.

    Numbers may be JSON numbers or strings, in exponent notation too. What a level has beyond the
    parts named here is ignored.
    """

    @property
    def kind(self) -> int: ...
    @staticmethod
    def pairs() -> LevelLayout:
        """``[["29430.2", "0.5", ...], ...]``; the caller tells the side."""
    @staticmethod
    def sided(bids: Sequence[str] = ("buy",), asks: Sequence[str] = ("sell",)) -> LevelLayout:
        """``[["buy", "29430.2", "0.5", ...], ...]``.

        Parameters
        ----------
        bids, asks : the venue's words for a side, up to four each
        """
    @staticmethod
    def objects(
        price: str = "price",
        size: str = "qty",
        side: str | None = None,
        bids: Sequence[str] = ("bid",),
        asks: Sequence[str] = ("offer", "ask"),
    ) -> LevelLayout:
        """``[{"price": 29430.2, "qty": 0.5, ...}, ...]``, keys in any order.

        Parameters
        ----------
        price, size : keys of the price and of the absolute size
        side : key of the side, None where the caller tells it
        bids, asks : the venue's words for a side, up to four each
        """

class LevelStage:
    """Price levels of one frame on their way into a book: (side, price, size), scaled.

    Reused from frame to frame; owns its memory, which grows to the largest frame seen and is given
    back by `clear` when it is large.
    """

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """(side, price, size) in the order of the message; side 1 is bid, 2 ask."""
    def clear(self) -> None:
        """Forget all levels."""
    def append(self, side: int, price: int, size: int) -> None:
        """Add one level.

        Raises
        ------
        ValueError
            the side is neither 1 nor 2, the price below 1 or the size negative
        """
    def parse(
        self,
        raw: Buffer,
        layout: LevelLayout,
        side: int | None,
        price_exponent: int,
        size_exponent: int,
    ) -> int:
        """Add the levels of a JSON list; none of them where one is bad.

        Parameters
        ----------
        raw : the list's JSON, nothing else
        layout : how the venue writes it
        side : 1 bid, 2 ask; None where the layout has the side in each level
        price_exponent, size_exponent : decimal places of the instrument, 0 to 18

        Returns
        -------
        int
            how many levels were added

        Raises
        ------
        LevelSyntaxError
            the JSON is malformed, or no such list, or one of more than `MAX_LEVELS`
        DecimalSyntaxError
            a price or size is no finite decimal number
        PrecisionError
            prices or sizes have more decimal places than their exponent, and nothing else is
            wrong: ``field`` says which came first, ``needed`` is the most that it needs
        RangeError
            a price or size doesn't fit int64, a price isn't positive or a size is negative
        """
