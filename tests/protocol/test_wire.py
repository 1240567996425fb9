"""Messages: what goes out comes back, and what is malformed is refused before anybody looks inside."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.protocol.specimens import block, block_run, event, reading, reading_run

from dtolbus import wire
from dtolbus.errors import WireError
from dtolbus.records import DaqBlock, DaqReading, ErrorInfo, RunStatus
from dtolbus.wire import Ack, Credit, Done, Fetch, Heartbeat, Hello, Refused, RunGap, RunPosition, RunRecord, Welcome


def through(message: Any) -> Any:
    return wire.decode([bytes(frame) for frame in wire.encode(message)])


@given(
    codes=hnp.arrays(
        st.sampled_from([np.int16, np.uint16, np.int32, np.float64, np.float32]),
        st.tuples(st.integers(1, 3), st.integers(0, 7)),
    )
)
def test_a_block_comes_back_with_identical_codes_type_and_times(codes: Any) -> None:
    run = block_run(channels=codes.shape[0], dtype=str(codes.dtype))
    sent = block(run, 7, codes=codes, sensor_status={"ai0": [1] * codes.shape[1]})
    got = through(RunRecord(run, sent))
    assert got.run == run
    found = got.record
    assert isinstance(found, DaqBlock)
    assert found.raw_codes is not None
    assert found.raw_codes.dtype == codes.dtype
    assert found.raw_codes.tobytes() == codes.tobytes()
    assert (found.index, found.first_sample_index, found.t_mono_ns) == (7, sent.first_sample_index, sent.t_mono_ns)
    assert (found.clock, found.t_utc, found.sample_rate_hz) == (sent.clock, sent.t_utc, 1000.0)
    assert found.sensor_status["ai0"].tolist() == [1] * codes.shape[1]


def test_a_block_that_is_not_contiguous_or_big_endian_comes_back_equal() -> None:
    run = block_run()
    codes = np.arange(40, dtype=">u2").reshape(10, 4)[:, ::2].T
    assert np.array_equal(through(RunRecord(run, block(run, 0, codes=codes))).record.raw_codes, codes)


@given(
    values=st.dictionaries(
        st.text(max_size=5), st.one_of(st.floats(), st.integers(-(10**30), 10**30), st.booleans(), st.text())
    )
)
def test_a_reading_comes_back_with_every_value_also_beyond_64_bits(values: dict[str, Any]) -> None:
    run = reading_run()
    found = through(RunRecord(run, reading(run, 3, values=values))).record
    assert isinstance(found, DaqReading)
    assert found.values.keys() == values.keys()
    for name, value in values.items():
        got = found.values[name]
        assert type(got) is type(value)
        assert got == value or (math.isnan(got) and math.isnan(value))


def test_events_errors_and_control_messages_come_back_equal() -> None:
    run, readings = block_run(), reading_run()
    assert through(RunRecord(run, event(run, 4, lost_samples=9))).record == event(run, 4, lost_samples=9)
    failed = reading(readings, 1, values={}, error=OSError("gone"))
    assert through(RunRecord(readings, failed)).record.error == ErrorInfo("builtins.OSError", "gone")
    for message in (
        Heartbeat(RunStatus(run, "ended", 2, 9)),
        Hello("w", "csv", "/data", "id", ("reading/",), {"a": "b"}, (RunPosition("d", "t", "r", 3),)),
        Welcome((RunStatus(run, "running", 0, 5), RunStatus(readings, "interrupted", 1, 5)), 256, 0.1),
        Fetch("d", "t", "r", 1, 2, 3),
        Credit(5, 3),
        RunGap("r", 1, 2, "damaged"),
        Done("r", 5, 3),
        Refused("no such run", "r", 3),
        Ack("w", "d", "t", "r", 9, 1),
    ):
        assert through(message) == message


def header_of(frames: list[Any]) -> list[Any]:
    return msgspec.msgpack.decode(frames[1])


def test_frames_that_do_not_fit_their_header_are_refused() -> None:
    run = block_run()
    frames = [bytes(frame) for frame in wire.encode(RunRecord(run, block(run, 0)))]
    header = header_of(frames)

    def altered(place: int, value: Any) -> list[bytes]:
        changed = list(header)
        changed[place] = value
        return [frames[0], msgspec.msgpack.encode(changed), *frames[2:]]

    for bad in (
        frames[:1],
        frames[:2],
        [*frames, b""],
        [*frames, b"", b"", b""],
        [frames[0], frames[1], frames[2][:-2]],
        [frames[0], b"", frames[2]],
        [frames[0], b"\x01\x02\x03\x04", frames[2]],
        [frames[0], frames[1][:-3], frames[2]],
        altered(0, 2),
        altered(1, 99),
        altered(7, [["<O8", [2, 10]]]),
        altered(7, [["<u2", [10, 2]]]),
        altered(7, [["<u2", [-2, -10]]]),
        altered(7, [["<u2", [2**40, 2**40]]]),
        altered(8, ["ai0"]),
    ):
        with pytest.raises(WireError):
            wire.decode(bad)


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_random_frames_are_refused_and_nothing_else_happens(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        wire.decode(frames)


def test_another_wire_version_says_what_to_do() -> None:
    with pytest.raises(WireError, match="wire version 9; this end speaks 1: install the same dtolbus at both ends"):
        wire.decode([b"block/a/b/", msgspec.msgpack.encode([9, 1, {}, 0])])
