class BookChecksum:
    """Kraken's checksum of a book's best levels; remembers the lines that it was made of.

    Source: Kraken, WebSocket API v2, "Book Checksum".
    """
