from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from alphapulse._core.records import Records
from alphapulse.history import TradeRow
from alphapulse.model import Instrument

def rows_of_records(
    records: Records, instruments: Mapping[int, Instrument], exchange: str
) -> list[TradeRow]: ...
def rows_of_columns(
    columns: Mapping[str, NDArray[Any]], exchange: str, symbol: str
) -> list[TradeRow]: ...
