from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from alphapulse.history import TradeRow

def rows_of_columns(
    columns: Mapping[str, NDArray[Any]], exchange: str, symbol: str
) -> list[TradeRow]: ...
