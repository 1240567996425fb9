"""Which column a channel's value goes into: no clash, no mix, no rounding, whatever the names and their order."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtolbus.parquet.footer import CellKind
from dtolbus.rows import RESERVED_COLUMNS
from dtolbus_workers.cells import ColumnKey, assign_columns, cell_kind

names = st.sampled_from(
    ["ai0", "AI0", "ai0_unit", "device", "ch_0", "ch_1_unit", "CH_2", "", "x" * 70, "é", "É", "t_utc", "value", "b"]
)
kinds: st.SearchStrategy[CellKind] = st.sampled_from(["number", "integer", "text"])
keys = st.builds(ColumnKey, st.just("dev"), st.sampled_from(["t1", "t2"]), names, kinds)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(keys, unique=True, max_size=8), max_size=5))
def test_columns_never_clash_and_never_change(batches: list[list[ColumnKey]]) -> None:
    known: dict[ColumnKey, str] = {}
    for wanted in batches:
        added = assign_columns(known, wanted)
        assert not set(added) & set(known)
        known |= added
        assert set(wanted) <= set(known)
    holders: dict[str, set[tuple[str, CellKind]]] = {}
    for key, column in known.items():
        assert len(f"{column}_unit".encode()) <= 63
        assert not {column.casefold(), f"{column}_unit".casefold()} & RESERVED_COLUMNS
        holders.setdefault(column.casefold(), set()).add((key.channel, key.kind))
    for column, held in holders.items():
        assert len(held) == 1, (column, held)
        assert f"{column}_unit" not in holders
    for key, column in known.items():
        same_task = [other for other in known if other.task == key.task and known[other] == column]
        assert same_task == [key]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        *((None, None), (1.5, "number"), (float("nan"), "number"), (True, "number"), (2**53, "number")),
        *((2**53 + 1, "integer"), (-(2**63), "integer"), ("", "text")),
    ],
)
def test_a_column_is_chosen_that_holds_the_value_exactly(value: Any, kind: CellKind | None) -> None:
    assert cell_kind(value) == kind


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, [1], {"a": 1}, b"x"])
def test_what_no_column_holds_is_an_error(value: Any) -> None:
    with pytest.raises(ValueError, match=r"beyond 64 bits|no number and no text"):
        cell_kind(value)
