from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from alphapulse.history import TradeRow

def trade_columns(
    rows: Sequence[TradeRow], series: Sequence[int], first_entry: int
) -> dict[str, NDArray[Any]]: ...
