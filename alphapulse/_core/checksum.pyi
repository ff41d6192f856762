class BookChecksum:
    """Kraken's checksum of a book's best levels; keeps the digits of the levels for the next time.

    Source: Kraken, WebSocket API v2, "Book Checksum".
    """

def crc32(text: bytes, *, by_tables: bool = False) -> int:
    """CRC-32 as `zlib.crc32` gives it.

    Parameters
    ----------
    text : any bytes
    by_tables : the way that processors without carry-less multiplication go
    """
