"""Names are found by their bytes, whatever their length."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from alphapulse._core.names import NameTable

names = st.text(max_size=40) | st.text("AB", min_size=14, max_size=20)


@given(st.dictionaries(names, st.integers(), max_size=60), st.lists(names, max_size=10))
def test_a_table_is_a_map(entries: dict[str, int], others: list[str]) -> None:
    table = NameTable()
    for name, value in entries.items():
        table[name] = "replaced"
        table[name] = value
    assert len(table) == len(entries)
    for name in [*entries, *others]:
        assert table.get(name.encode()) == entries.get(name)
        longer = f"{name}\0"
        assert table.get(longer.encode()) == entries.get(longer)
