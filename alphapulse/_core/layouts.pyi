from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from alphapulse._core.levels import LevelLayout

class Field(IntEnum):
    """What a frame's field says."""

    SYMBOL = ...
    """The venue's symbol; before levels."""
    ISO_TIME = ...
    """The venue's time as ISO 8601 text."""
    EPOCH_TIME = ...
    """The venue's time in milliseconds or microseconds since the epoch."""
    MESSAGE_ID = ...
    """The connection's count of messages."""
    CHECKSUM = ...
    """The book's checksum after the update."""
    FIRST_ID = ...
    """Id of the first update in the frame."""
    LAST_ID = ...
    """Id of the last update in the frame."""
    TRADE_ID = ...
    """A trade's id, as a number."""
    QUOTED_TRADE_ID = ...
    """A trade's id, as digits in a string."""
    PRICE = ...
    """A trade's price."""
    SIZE = ...
    """A trade's size."""
    SIDE = ...
    """A trade's side."""
    FIRST_MATCH = ...
    """Id of the first match that an aggregated trade stands for."""
    LAST_MATCH = ...
    """Id of the last match that an aggregated trade stands for."""
    LAST_TRADE_ID = ...
    """The id of the symbol's last trade, which may still be on its way."""

class Levels(NamedTuple):
    """A list of levels and its side; None where each level has its own."""

    layout: LevelLayout
    side: int | None = None

Fields: TypeAlias = Mapping[str, object]
"""Of each field a text, `Field`, `Levels`, ``Fields``, ``[Fields]`` or ``[Fields, ...]``."""

class FrameLayout:
    """What a venue's everyday frames of one kind look like: the fields that count.

    Parameters
    ----------
    fields : by name, best in the order in which the venue writes them. A text is what the field
        must have; a mapping is an object's fields, ``[mapping]`` a list with exactly one such
        object, ``[mapping, ...]`` one with any number. There are at most three objects, each in
        the one before. Fields that aren't named may come as well; those named must all come.
    buy, sell : what the field SIDE has where the taker bought or sold: a text or a bool
    bare_numbers : whether prices and sizes of trades are numbers (else strings)
    id_kind : what the trades' ids count (`alphapulse.model.IdKind`)
    contiguous : whether trades' ids grow by one, so that a jump means a loss
    by_id : whether trades of a frame are to be taken in the order of their ids (else as they come)

    Raises
    ------
    ValueError
        no frame can be of this layout
    """

    @property
    def kind(self) -> int: ...
    def __init__(
        self,
        fields: Fields,
        *,
        buy: str | bool | None = None,
        sell: str | bool | None = None,
        bare_numbers: bool = False,
        id_kind: int = 0,
        contiguous: bool = True,
        by_id: bool = False,
    ) -> None: ...
