"""Types of the trades' packer."""

from alphapulse.history import TradeRow

class TradePacker:
    def __init__(self, key: str) -> None: ...
    def pack(self, row: TradeRow, ms: int, number: int) -> bytes: ...
