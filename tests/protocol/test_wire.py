"""Messages: what goes out comes back, and what is malformed is refused before anybody looks inside."""

import contextlib
import math
import tracemalloc
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.fuzz.forging import forged
from tests.protocol.specimens import block, block_run, event, reading, reading_run

from dtolbus import wire
from dtolbus.errors import WireError
from dtolbus.identity import Identity
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
    for message in OTHERS:
        assert through(message) == message


class OldHello(msgspec.Struct, array_like=True):
    """As it was before a gateway told which journal it serves."""

    worker: str
    sink: str
    place: str
    destination_id: str
    topics: tuple[str, ...]
    options: dict[str, str]
    positions: tuple[RunPosition, ...]
    more: bool = False


def test_fields_at_the_end_of_a_message_are_passed_over_by_an_older_end_and_missed_by_none() -> None:
    new = Hello("w", "csv", "/data", "id", expects=Identity("j", "s"), number=3)
    old = msgspec.msgpack.decode(msgspec.msgpack.encode(new), type=OldHello)
    assert (old.worker, old.more) == ("w", False)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=Hello) == Hello("w", "csv", "/data", "id")
    told = msgspec.msgpack.decode(msgspec.msgpack.encode([[], 256, 0.1, False]), type=Welcome)
    assert (told.serves, told.number) == (Identity(), 0)


OTHERS = (
    Heartbeat(RunStatus(block_run(), "ended", 2, 9)),
    Hello("w", "csv", "/data", "id", ("reading/",), {"a": "b"}, (RunPosition("d", "t", "r", 3),)),
    Welcome((RunStatus(block_run(), "running", 0, 5), RunStatus(reading_run(), "interrupted", 1, 5)), 256, 0.1),
    Fetch("d", "t", "r", 1, 2, 3),
    Credit(5, 3),
    RunGap("r", 1, 2, "damaged"),
    Done("r", 5, 3),
    Refused("no such run", "r", 3),
    Ack("w", "d", "t", "r", 9, 1),
)
RECORDS = (
    RunRecord(block_run(), block(block_run(), 0, sensor_status={"ai0": [1] * 10})),
    RunRecord(block_run(), event(block_run(), 4, lost_samples=9)),
    RunRecord(reading_run(), reading(reading_run(), 1)),
)


@pytest.mark.parametrize("message", [*RECORDS, *OTHERS], ids=lambda message: type(message).__name__)
def test_a_flipped_bit_anywhere_in_any_frame_is_never_accepted(message: Any) -> None:
    frames = [bytes(frame) for frame in wire.encode(message)]
    accepted = []
    for number, frame in enumerate(frames):
        for bit in range(8 * len(frame)):
            flipped = bytearray(frame)
            flipped[bit // 8] ^= 1 << bit % 8
            with contextlib.suppress(WireError):
                accepted.append((number, bit, wire.decode([*frames[:number], flipped, *frames[number + 1 :]])))
    assert accepted == []


def test_frames_of_two_messages_are_never_taken_for_one() -> None:
    one, two = (wire.encode(RunRecord(block_run(), block(block_run(), index))) for index in (0, 1))
    with pytest.raises(WireError, match="the checksum does not hold"):
        wire.decode([*one[:2], two[2]])


def header_of(frames: list[Any]) -> list[Any]:
    return msgspec.msgpack.decode(frames[1][: -wire._DIGEST_BYTES])


def test_frames_that_do_not_fit_their_header_are_refused() -> None:
    run = block_run()
    frames = [bytes(frame) for frame in wire.encode(RunRecord(run, block(run, 0)))]
    header = header_of(frames)

    def sealed(changed: bytes, *arrays: bytes) -> list[Any]:
        return wire._sealed(frames[0], changed, *arrays)

    def altered(place: int, value: Any) -> list[Any]:
        changed = list(header)
        changed[place] = value
        return sealed(msgspec.msgpack.encode(changed), frames[2])

    packed = msgspec.msgpack.encode(header)
    assert wire.decode(sealed(packed, frames[2]))

    for bad in (
        frames[:1],
        sealed(packed),
        sealed(packed, frames[2], b""),
        sealed(packed, frames[2], b"", b"", b""),
        sealed(packed, frames[2][:-2]),
        sealed(b"", frames[2]),
        sealed(b"\x01\x02\x03\x04\x05\x06", frames[2]),
        sealed(packed[:-3], frames[2]),
        [frames[0], frames[1][: wire._DIGEST_BYTES], frames[2]],
        altered(0, 3),
        altered(1, 99),
        altered(7, [["<O8", [2, 10]]]),
        altered(7, [["<u2", [10, 2]]]),
        altered(7, [["<u2", [-2, -10]]]),
        altered(7, [["<u2", [2**40, 2**40]]]),
        altered(8, ["ai0"]),
    ):
        with pytest.raises(WireError, match=r"^(?!the checksum)"):
            wire.decode(bad)


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_random_frames_are_refused_and_nothing_else_happens(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        wire.decode(frames)


def test_another_wire_version_says_what_to_do() -> None:
    # version 1 had no checksum
    for version, kind, body in ((1, 12, Fetch("d", "t", "r", 1, 2, 3)), (9, 1, {"a": "longer than a checksum"})):
        told = f"wire version {version}; this end speaks 2: install the same dtolbus at both ends"
        with pytest.raises(WireError, match=told):
            wire.decode([b"block/a/b/", msgspec.msgpack.encode([version, kind, body])])


def test_what_is_kept_of_the_headers_of_many_runs_is_bounded() -> None:
    def of_run(number: int) -> list[bytes]:
        run = block_run(f"run-{number}", meta={"notes": ["" for _ in range(400_000)], "number": number})
        return [bytes(frame) for frame in wire.encode(RunRecord(run, block(run, 0)))]

    sent = [of_run(number) for number in range(40)]
    tracemalloc.start()
    try:
        for frames in sent:
            wire.decode(frames)
        assert tracemalloc.get_traced_memory()[0] < 100 << 20
    finally:
        tracemalloc.stop()


def test_a_topic_is_never_longer_than_its_names() -> None:
    run = block_run()
    frames = [bytes(frame) for frame in wire.encode(RunRecord(run, block(run, 0)))]
    with pytest.raises(WireError, match="a topic of 2000 bytes"):
        wire.decode([b"x" * 2000, *frames[1:]])


def test_why_a_message_cannot_be_read_is_told_in_short() -> None:
    run = block_run()
    frames = forged(RunRecord(run, block(run, 0)), lambda fields: fields[7].__setitem__(0, ["x" * 500_000, [2, 10]]))
    with pytest.raises(WireError) as refused:
        wire.decode(frames)
    assert len(str(refused.value)) < 1000
