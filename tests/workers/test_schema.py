"""Columns: the lock of the stand-alone sinks, channels' columns that never clash, ISO text of many instants."""

import logging
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtolbus.rows import RESERVED_COLUMNS
from dtolbus_workers.iso import iso_texts
from dtolbus_workers.schema import (
    READING_BASE,
    STATUS_COLUMN,
    ColumnNames,
    SchemaLock,
    check_identifier,
    reading_names,
    reading_row,
    restored_value,
)
from dtolbus_workers.specimens import ODD_NAMES, error_reading, make_reading, make_run

log = logging.getLogger("test.schema")


def test_the_first_write_locks_and_later_columns_are_dropped_with_one_warning(caplog):
    lock = SchemaLock(sink_name="here", logger=log)
    assert lock.observe([{"a": 1, "b": 2}, {"a": 1, "c": 3}]) == ("a", "b", "c")
    with caplog.at_level(logging.WARNING, "test.schema"):
        assert lock.project({"a": 1, "d": 4}) == {"a": 1, "b": None, "c": None}
        lock.project({"d": 5, "e": 6})
        lock.project({"d": 5, "e": 6})
    assert [(r.sink, r.column) for r in caplog.records] == [("here", "d"), ("here", "e")]


def test_a_failed_reading_does_not_lock_the_values_out():
    run = make_run("readings", channels=("ai0",))
    lock = SchemaLock(sink_name="here", logger=log, base=READING_BASE)
    rows = [
        reading_row(r, {"ai0": "ai0"}, keeps_nan=True, keeps_inf=True)
        for r in (error_reading(run, 0), make_reading(run, 1))
    ]
    assert lock.observe(rows[:1]) == READING_BASE
    assert not lock.is_locked
    columns = lock.observe(rows[1:])
    assert lock.is_locked
    assert {"ai0", "ai0_unit"} <= set(columns)
    assert columns[-3:] == ("error_type", "error_message", STATUS_COLUMN)


def test_the_columns_of_a_reading_are_those_of_reading_to_row_and_the_status():
    run = make_run("readings", channels=("ai0",))
    row = reading_row(make_reading(run, 0), {"ai0": "ai0"}, keeps_nan=True, keeps_inf=True)
    assert tuple(row) == (
        "device", "task", "t_mono_ns", "t_utc", "t_midpoint_mono_ns", "requested_at", "received_at", "latency_s",
        "ai0", "ai0_unit", "error_type", "error_message", "sensor_status",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["readings", "_x", "a" * 63])
def test_plain_identifiers_are_taken(name):
    assert check_identifier(name, label="table") == name


@pytest.mark.parametrize("name", ["", "1x", "a b", 'x"; drop table y', "ä", "a" * 64, "a\n"])
def test_others_are_refused_by_name(name):
    with pytest.raises(ValueError, match="table_readings"):
        check_identifier(name, label="table_readings")


def test_ordinary_names_are_their_own_columns_and_odd_ones_numbered_by_place():
    assert ColumnNames().of(["ai0", "device", "x y"]) == {"ai0": "ai0", "device": "ch_1", "x y": "x y"}
    assert ColumnNames().of(["ai0", "AI0"]) == {"ai0": "ch_0", "AI0": "ch_1"}


names = st.lists(
    st.sampled_from([*ODD_NAMES, "a", "A", "a_unit", "A_UNIT", "ch_0", "CH_1", "a\0b", "run_id", "", "ß", "SS"]),
    unique=True,
)


@given(st.lists(names, max_size=4))
def test_no_two_channels_ever_share_a_column_and_none_changes(arrivals):
    known = ColumnNames()
    before: dict[str, str] = {}
    for arrived in arrivals:
        columns = known.of(arrived)
        assert set(columns) == set(arrived)
        assert {name: known.columns[name] for name in before} == before
        before = dict(known.columns)
        used = [column.casefold() for name in before.values() for column in (name, f"{name}_unit")]
        assert len(set(used)) == len(used)
        assert not set(used) & RESERVED_COLUMNS
        assert all(len(column.encode()) <= 63 and "\0" not in column for column in used)


def test_floats_that_a_format_cannot_hold_are_named_in_the_status_and_come_back():
    run = make_run("readings", channels=("a", "b", "c"))
    values = {"a": float("nan"), "b": float("-inf"), "c": np.float64("nan")}
    reading = make_reading(run, 0, values, sensor_status={"c": 3})
    assert reading_names([reading]) == ["a", "b", "c"]
    row = reading_row(reading, {n: n for n in values}, keeps_nan=False, keeps_inf=False)
    assert row["a"] is row["b"] is row["c"] is None
    assert row[STATUS_COLUMN] == '{"c":3,"a":"nan","b":"-inf"}'
    assert restored_value(None, "b", row[STATUS_COLUMN]) == float("-inf")
    assert restored_value(None, "c", row[STATUS_COLUMN]) is None


@given(st.lists(st.integers(min_value=-(2**31) * 10**6, max_value=2**33 * 10**6), min_size=1, max_size=20))
def test_whole_microseconds_are_rendered_as_isoformat_does(micros):
    expected = [(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=n)).isoformat() for n in micros]
    assert iso_texts(np.array(micros) * 1000) == expected


def test_nanoseconds_are_rendered_with_nine_digits():
    assert iso_texts(np.array([1_767_225_600_000_000_001, 1_767_225_600_000_000_000, 1_767_225_600_500_000_000])) == [
        "2026-01-01T00:00:00.000000001+00:00",
        "2026-01-01T00:00:00+00:00",
        "2026-01-01T00:00:00.500000+00:00",
    ]
    assert iso_texts(np.array([], dtype=np.int64)) == []
