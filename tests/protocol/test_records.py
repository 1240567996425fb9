"""Blocks: what their values and times are."""

from datetime import UTC, datetime

import numpy as np
import pytest
from tests.protocol.specimens import START, block, block_run, reading, reading_run

from dtolbus import Channel, DaqBlock, DaqReading, ErrorInfo, block_to_long_rows
from dtolbus.records import ns_from_utc, utc_from_ns
from dtolbus.rows import channel_columns, reading_to_row


def lone(**fields: object) -> DaqBlock:
    settings: dict[str, object] = {
        "device": "d", "task": None, "channels": ("a",), "block_index": 0, "first_sample_index": 0,
        "samples_per_channel": 3, "t_mono_ns": 0, "t_utc": START,
    }  # fmt: skip
    return DaqBlock(**{**settings, **fields})  # type: ignore[arg-type]


def test_offset_binary_codes_are_not_read_as_signed() -> None:
    calibration = (Channel("a", "V", 20 / 65536, -10.0, encoding="offset_binary"),)
    codes = np.array([[32768, 49152, 0]], dtype=np.uint16)
    assert lone(raw_codes=codes, calibration=calibration).data.tolist() == [[0.0, 5.0, -10.0]]


def test_a_failed_block_is_nan_and_never_zero_volts() -> None:
    failed = lone(data=np.zeros((1, 3)), error=RuntimeError("overrun"))
    assert np.isnan(failed.data).all()
    assert failed.error == ErrorInfo("builtins.RuntimeError", "overrun")


def test_times_count_from_the_first_sample_and_do_not_drift_at_48_khz() -> None:
    run = block_run(rate_hz=48_000.0)
    hour = 48_000 * 3600
    index = hour // 1000
    late = block(run, index, samples=1000)
    assert late.t_mono_ns - run.started_mono_ns == 3600 * 10**9
    assert late.t_utc_ns - run.started_utc_ns == 3600 * 10**9
    assert late.sample_offsets_ns()[[0, 3, 48]].tolist() == [0, 62_500, 1_000_000]
    assert block_to_long_rows(late)[3].t_mono_ns == late.t_mono_ns + 62_500


def test_shapes_that_do_not_fit_are_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"raw_codes has shape \(2, 3\), but there are 1 channels"):
        lone(raw_codes=np.zeros((2, 3), dtype=np.int16))


def test_sensor_status_reaches_the_samples() -> None:
    samples = block_to_long_rows(lone(data=np.zeros((1, 3)), sensor_status={"a": [0, 1, 0]}))
    assert [sample.sensor_status for sample in samples] == [0, 1, 0]


def test_instants_convert_exactly() -> None:
    ns = 1_772_366_400_123_456_789
    assert utc_from_ns(ns) == datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
    assert ns_from_utc(utc_from_ns(ns)) == ns // 1000 * 1000


def test_a_channel_never_overwrites_a_column() -> None:
    names = ["device", "t_mono_ns", "ai0", "AI0", "x", "x_unit", "ch_0", "ä" * 40, "", "fine"]
    columns = channel_columns(names)
    assert columns["fine"] == "fine"
    assert columns["x"] == "x"
    assert len({column.casefold() for column in columns.values()}) == len(names)
    assert not {"device", "t_mono_ns", "x_unit"} & set(columns.values())
    run = reading_run(names=("device", "fine"))
    row = reading_to_row(reading(run, 0, values={"device": 1.5, "fine": 2.5}, units={"device": "V", "fine": "V"}))
    assert (row["device"], row["ch_0"], row["ch_0_unit"], row["fine"]) == ("dt9828", 1.5, "V", 2.5)


def test_a_reading_keeps_an_exception_as_a_value() -> None:
    run = reading_run()
    assert reading(run, 0, error=ValueError("no")).error == ErrorInfo("builtins.ValueError", "no")
    assert isinstance(reading(run, 0), DaqReading)
