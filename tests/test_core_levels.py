"""The native level parser against its plain-Python twin, and against malformed JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from alphapulse._core.levels import MAX_LEVELS, LevelLayout, LevelStage
from alphapulse.errors import (
    DecimalSyntaxError,
    FixedPointError,
    LevelSyntaxError,
    PrecisionError,
    RangeError,
)
from tests.reference.levels import Layout, parse_levels

LAYOUTS: dict[str, tuple[LevelLayout, Layout, bool]] = {
    "pairs": (LevelLayout.pairs(), Layout(), False),
    "sided": (LevelLayout.sided(), Layout(bids=("buy",), asks=("sell",), sided=True), True),
    "objects": (LevelLayout.objects(), Layout("price", "qty"), False),
    "objects with sides": (
        LevelLayout.objects("price_level", "new_quantity", "side"),
        Layout("price_level", "new_quantity", "side", ("bid",), ("offer", "ask")),
        True,
    ),
}
"""Native layout, twin's layout, whether each level has its side."""

Levels = list[tuple[int, int, int]]


def parse(
    raw: bytes, layout: LevelLayout, side: int | None, price_exponent: int, size_exponent: int
) -> Levels:
    stage = LevelStage()
    count = stage.parse(raw, layout, side, price_exponent, size_exponent)
    levels = list(stage)
    assert count == len(levels) == len(stage)
    return levels


def outcome(parser: object, *arguments: object) -> tuple[object, ...]:
    """What a parser gives, or the kind of exception with its fields."""
    assert callable(parser)
    try:
        return ("levels", parser(*arguments))
    except PrecisionError as error:
        return (PrecisionError, error.value, error.needed, error.allowed, error.field)
    except FixedPointError as error:
        return (type(error),)


plain_numbers = st.from_regex(
    r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,22})?([eE][+-]?[0-9]{1,3})?", fullmatch=True
)
good_numbers = st.builds(
    lambda digits, places: f"{digits / 10**places:.{places}f}",
    st.integers(1, 10**9),
    st.integers(0, 8),
)
number_json = st.one_of(
    good_numbers,
    good_numbers.map(json.dumps),
    plain_numbers,
    plain_numbers.map(json.dumps),
    st.sampled_from(["0", '"0.00000000"', "1e-08", '"5."', '".5"', '"+1"', "-0.0", "1E5"]),
)
odd_json = st.sampled_from(
    [
        '"NaN"',
        "null",
        "true",
        '""',
        '"."',
        '"1.2.3"',
        "[]",
        "{}",
        '" 1"',
        '"1e"',
        '"1e12345"',
        '"-1"',
    ]
)
junk_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
).map(json.dumps)
spaces = st.sampled_from(["", "", "", " ", "\n\t", "\r "])


@st.composite
def level_json(draw: st.DrawFn, name: str, odd: bool) -> str:
    numbers = number_json | odd_json if odd else good_numbers.map(json.dumps) | good_numbers
    price, size = draw(numbers), draw(numbers)
    extras = draw(st.lists(junk_json, max_size=2))
    twin = LAYOUTS[name][1]
    words = [json.dumps(word) for word in (*twin.bids, *twin.asks)]
    side = draw(st.sampled_from(words + (['"?"', "1"] if odd else []))) if words else ""
    gap = draw(spaces)
    if twin.price is None:
        parts = ([side] if twin.sided else []) + [price, size, *extras]
        return f"[{gap}{f'{gap},{gap}'.join(parts)}{gap}]"
    pairs = [(twin.price, price), (str(twin.size), size)]
    if twin.side is not None:
        pairs.append((twin.side, side))
    pairs += [(f"extra{i}", extra) for i, extra in enumerate(extras)]
    if odd and draw(st.integers(0, 9)) == 0:
        pairs.append(draw(st.sampled_from(pairs)))
        pairs.pop(0)
    pairs = draw(st.permutations(pairs))
    texts = [f"{json.dumps(key)}{gap}:{gap}{value}" for key, value in pairs]
    return f"{{{gap}{f'{gap},{gap}'.join(texts)}{gap}}}"


@st.composite
def frames(draw: st.DrawFn, odd: bool) -> tuple[str, bytes]:
    """Name of a layout and a list of levels in it."""
    name = draw(st.sampled_from(sorted(LAYOUTS)))
    levels = draw(st.lists(level_json(name, odd), max_size=6))
    gap = draw(spaces)
    return name, f"{gap}[{gap}{f'{gap},{gap}'.join(levels)}{gap}]{gap}".encode()


@given(frames(odd=True), st.integers(0, 18), st.integers(0, 18))
def test_native_parser_does_as_its_twin(
    frame: tuple[str, bytes], price_exponent: int, size_exponent: int
) -> None:
    name, raw = frame
    native, twin, sided = LAYOUTS[name]
    exponents = (price_exponent, size_exponent)
    side = None if sided else 2
    assert outcome(parse, raw, native, side, *exponents) == outcome(
        parse_levels, raw, twin, side, *exponents
    )


@given(
    frames(odd=False),
    st.integers(0, 400),
    st.integers(0, 3),
    st.binary(max_size=3) | st.sampled_from([b",", b"]", b"[", b'"', b"{", b"}", b":", b"0", b"-"]),
)
def test_damaged_json_is_accepted_only_if_it_still_is_json(
    frame: tuple[str, bytes], at: int, removed: int, inserted: bytes
) -> None:
    name, raw = frame
    at %= len(raw) + 1
    damaged = raw[:at] + inserted + raw[at + removed :]
    # Escapes are read in neither numbers nor keys.
    assume(b"\\" not in damaged)
    native, twin, sided = LAYOUTS[name]
    side = None if sided else 1
    found = outcome(parse, damaged, native, side, 8, 8)
    expected = outcome(parse_levels, damaged, twin, side, 8, 8)
    if "levels" in (found[0], expected[0]):
        assert found == expected


@given(st.text("0123456789.eE+-_ xN", max_size=30), st.integers(0, 18))
def test_numbers_follow_the_same_rule_as_in_python(text: str, exponent: int) -> None:
    raw = json.dumps([["1", text]]).encode()
    assert outcome(parse, raw, LevelLayout.pairs(), 1, 0, exponent) == outcome(
        parse_levels, raw, Layout(), 1, 0, exponent
    )


@given(st.integers(0, 2**63 + 5), st.integers(0, 18), st.integers(0, 40))
def test_values_up_to_int64_are_exact(value: int, exponent: int, zeros: int) -> None:
    digits = str(value).rjust(exponent + 1, "0")
    text = f"{digits[: len(digits) - exponent]}.{digits[len(digits) - exponent :]}{'0' * zeros}"
    raw = json.dumps([["1", text]]).encode()
    if value < 2**63:
        assert parse(raw, LevelLayout.pairs(), 1, 0, exponent) == [(1, 1, value)]
    else:
        with pytest.raises(RangeError, match="doesn't fit int64"):
            parse(raw, LevelLayout.pairs(), 1, 0, exponent)


@pytest.mark.parametrize("name", LAYOUTS)
def test_cut_input_is_refused_at_every_byte(name: str) -> None:
    native, twin, sided = LAYOUTS[name]
    whole = {
        "pairs": '[["1.5","2e0",[1,{"a":"\\u00e9"}],null],["3",4.25]]',
        "sided": '[["buy","1.5","2"],["sell","3","0.00",true]]',
        "objects": '[{"price":1.5,"x":{"y":[]},"qty":"2"},{"qty":0.0,"price":3}]',
        "objects with sides": '[{"side":"offer","price_level":"1.5","new_quantity":"2","t":"x"}]',
    }[name].encode()
    side = None if sided else 1
    assert parse(whole, native, side, 2, 2) == parse_levels(whole, twin, side, 2, 2)
    for end in range(len(whole)):
        with pytest.raises(FixedPointError):
            # A copy of its own, so that a read beyond the end leaves the block.
            parse(bytes(bytearray(whole[:end])), native, side, 2, 2)


def test_venues_own_lists() -> None:
    kraken = b'[{"price":29430.2,"qty":0.18967538},{"price":29429.6,"qty":0.00000000}]'
    assert parse(kraken, LevelLayout.objects(), 1, 1, 8) == [
        (1, 294302, 18967538),
        (1, 294296, 0),
    ]
    coinbase = b'[["sell","0.7923","7441.5"],["buy","0.7885","0.0"]]'
    assert parse(coinbase, LevelLayout.sided(), None, 4, 1) == [(2, 7923, 74415), (1, 7885, 0)]
    advanced = (
        b'[{"side":"bid","event_time":"1970-01-01T00:00:00Z","price_level":"21921.73",'
        b'"new_quantity":"0.06317902"},{"side":"offer","price_level":"21921.74","new_quantity":"0"}]'
    )
    layout = LevelLayout.objects("price_level", "new_quantity", side="side")
    assert parse(advanced, layout, None, 2, 8) == [(1, 2192173, 6317902), (2, 2192174, 0)]
    binance = b'[["13.80320000","109.46000000"]]'
    assert parse(binance, LevelLayout.pairs(), 2, 4, 2) == [(2, 138032, 10946)]


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b'[["NaN","1"]]', DecimalSyntaxError),
        (b"[[NaN,1]]", DecimalSyntaxError),
        (b"[[1,Infinity]]", DecimalSyntaxError),
        (b'[["","1"]]', DecimalSyntaxError),
        (b'[[null,"1"]]', DecimalSyntaxError),
        (b'[["1","0x10"]]', DecimalSyntaxError),
        (b'[["1","' + b"1" * 400 + b'"]]', RangeError),
        (b'[["1","1e400"]]', RangeError),
        (b'[["1","' + b"1" * 1025 + b'"]]', DecimalSyntaxError),
        (b'[["1","-1"]]', RangeError),
        (b'[["-1","1"]]', RangeError),
        (b'[["0","1"]]', RangeError),
        (b'[["1","0.123"]]', PrecisionError),
        (b"", LevelSyntaxError),
        (b"null", LevelSyntaxError),
        (b'{"price":1}', LevelSyntaxError),
        (b'["1","1"]', LevelSyntaxError),
        (b'[["1"]]', LevelSyntaxError),
        (b'[["1","1"],]', LevelSyntaxError),
        (b'[["1","1"]] []', LevelSyntaxError),
        (b'[["1","1\n"]]', LevelSyntaxError),
        (b'[["1","1",' + b"[" * 100_000, LevelSyntaxError),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_staged(raw: bytes, error: type[Exception]) -> None:
    stage = LevelStage()
    stage.append(2, 7, 8)
    with pytest.raises(error) as caught:
        stage.parse(raw, LevelLayout.pairs(), 1, 2, 2)
    assert type(caught.value) is error
    assert list(stage) == [(2, 7, 8)]
    assert len(str(caught.value)) < 250


def test_precision_error_tells_the_most_that_its_field_needs() -> None:
    raw = b'[["1.123","1.1"],["1.1","1.12345"],["1.12345","1"],["1.1234","1"]]'
    with pytest.raises(PrecisionError) as caught:
        parse(raw, LevelLayout.pairs(), 1, 1, 1)
    assert (caught.value.field, caught.value.needed, caught.value.allowed) == ("price", 5, 1)
    assert caught.value.value == "1.12345"
    with pytest.raises(PrecisionError) as caught:
        parse(raw, LevelLayout.pairs(), 1, 5, 1)
    assert (caught.value.field, caught.value.needed) == ("size", 5)


def test_other_faults_come_before_precision() -> None:
    with pytest.raises(RangeError):
        parse(b'[["1.123","1"],["1","-1"]]', LevelLayout.pairs(), 1, 1, 1)


def test_number_of_levels_is_bounded() -> None:
    stage = LevelStage()
    raw = b"[" + b"[1,1]," * MAX_LEVELS + b"[1,1]]"
    with pytest.raises(LevelSyntaxError, match="more than 2000000"):
        stage.parse(raw, LevelLayout.pairs(), 1, 0, 0)
    assert len(stage) == 0
    stage.clear()
    assert stage.parse(b"[[1,1]]", LevelLayout.pairs(), 1, 0, 0) == 1


@pytest.mark.parametrize(
    ("layout", "side"),
    [
        (LevelLayout.pairs(), None),
        (LevelLayout.objects(), None),
        (LevelLayout.sided(), 1),
        (LevelLayout.objects(side="side"), 2),
        (LevelLayout.pairs(), 0),
        (LevelLayout.pairs(), 3),
    ],
)
def test_side_must_go_with_the_layout(layout: LevelLayout, side: int | None) -> None:
    with pytest.raises(ValueError, match="side"):
        LevelStage().parse(b"[]", layout, side, 0, 0)


def test_any_contiguous_buffer_is_read() -> None:
    stage = LevelStage()
    raw = bytearray(b'{"b":[[1,2]]}')
    stage.parse(memoryview(raw)[5:-1], LevelLayout.pairs(), 1, 0, 0)
    raw.clear()
    assert list(stage) == [(1, 1, 2)]
    with pytest.raises(BufferError):
        stage.parse(memoryview(b"[[1,2]]")[::-1], LevelLayout.pairs(), 1, 0, 0)


def test_bad_arguments_are_refused() -> None:
    stage = LevelStage()
    for level in ((0, 1, 1), (3, 1, 1), (1, 0, 1), (1, 1, -1)):
        with pytest.raises(ValueError, match=r"side|level"):
            stage.append(*level)
    with pytest.raises(ValueError, match="exponents"):
        stage.parse(b"[]", LevelLayout.pairs(), 1, 19, 0)
    with pytest.raises(TypeError, match="pairs"):
        LevelLayout()
    with pytest.raises(ValueError, match="four words"):
        LevelLayout.sided(bids=("a", "b", "c", "d", "e"))
