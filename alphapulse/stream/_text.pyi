from collections.abc import Iterable

def decimal_text(value: int, places: int) -> str: ...
def times_text(exchange_ns: int, received_ns: int, sequence: int) -> str: ...
def delta_json(
    names: bytes,
    version: int,
    prev_version: int,
    times: tuple[int, int, int],
    changes: Iterable[tuple[int, int, int, int]],
    price_places: int,
    size_places: int,
) -> bytes: ...
def level_texts(
    levels: Iterable[tuple[int, int]], price_places: int, size_places: int
) -> list[str]: ...
