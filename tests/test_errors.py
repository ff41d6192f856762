"""The exception tree: what is printed at its top, and that messages name key, value and remedy."""

from __future__ import annotations

import inspect
import re

import pytest

from alphapulse import errors
from alphapulse.errors import (
    AlphaPulseError,
    CaptureError,
    ConfigError,
    DecimalSyntaxError,
    FixedPointError,
    PrecisionError,
    RateLimited,
    RequestError,
    RingBusy,
    RingNotFound,
    RingSpaceError,
    RingTooSmall,
    SymbolError,
)

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, BaseException)
}


def documented_tree() -> dict[str, str]:
    """Each class's base, as the drawing at the top of the module has it."""
    bases: dict[str, str] = {}
    path = ["AlphaPulseError"]
    for line in inspect.getsource(errors).partition('"""\n\n')[0].splitlines():
        found = re.match(r"([\u2502 ]*)[\u251c\u2514]\u2500\u2500 (\w+)", line)
        if found:
            depth = len(found[1]) // 4 + 1
            path[depth:] = [found[2]]
            bases[found[2]] = path[depth - 1]
    return bases


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn = documented_tree()
    assert set(drawn) == set(CLASSES) - {"AlphaPulseError"}
    assert {name: CLASSES[name].__bases__[0].__name__ for name in drawn} == drawn


def test_everything_has_one_base_and_a_docstring() -> None:
    for name, error in CLASSES.items():
        assert issubclass(error, AlphaPulseError), name
        assert inspect.getdoc(error), name


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConfigError("api.port", "70000 can't be used"), "api.port: 70000 can't be used"),
        (DecimalSyntaxError("1.2.3", "is no number"), "'1.2.3': is no number"),
        (
            PrecisionError("0.001", 3, 2),
            "'0.001': needs 3 decimal places, the instrument has 2",
        ),
        (SymbolError("kraken", "A-B"), "kraken has no instrument 'A-B'"),
        (CaptureError("x.jsonl", 3, "is no JSON"), "x.jsonl:3: is no JSON"),
        (CaptureError("x.jsonl", 0, "is empty"), "x.jsonl: is empty"),
        (
            RingNotFound("alphapulse.kraken"),
            "no ring named 'alphapulse.kraken'; `alphapulse rings` lists those that exist",
        ),
        (RingBusy("a.b", 42), "ring 'a.b' is being written by process 42"),
        (
            RingTooSmall("a.b", 1024, 4096),
            "ring 'a.b': 1024 bytes can't keep the snapshots of its books; "
            "set ring.size_bytes to 4096 or more",
        ),
        (
            RingSpaceError("a.b", 4096, 1024),
            "ring 'a.b' needs 4096 bytes of shared memory, 1024 are free; "
            "enlarge /dev/shm or lower ring.size_bytes",
        ),
        (RateLimited("binance_us", 429, 2.5), "binance_us: HTTP 429, retry after 2.5 s"),
        (RequestError("unknown_symbol", "no such symbol"), "no such symbol"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_messages_name_what_is_wrong(error: AlphaPulseError, message: str) -> None:
    assert str(error) == message


def test_a_long_value_is_shortened() -> None:
    error = FixedPointError("9" * 400, "is too long")
    assert error.value == "9" * 77 + "..."
    assert len(str(error)) < 120


def test_standard_handlers_catch_ours_where_they_would_expect_to() -> None:
    assert issubclass(FixedPointError, ValueError)
    assert issubclass(SymbolError, KeyError)
