"""Recordings that are damaged, or none: what cannot be played is told, in its place or before the start."""

import numpy as np
import pytest
from tests.producer.acquired import acquire_all, blocks_of, config_of, events_of
from tests.producer.test_journal import info_of

from dtolbus.chunkfile import Chunk, ChunkFile
from dtolbus.chunks import encode_record
from dtolbus.errors import UsageError
from dtolbus.framing import encode_file_header, file_header_of, seal_file_header
from dtolbus.records import Channel, Clock, DaqEvent
from dtolbus.runblocks import block_of_run
from dtolbus_producer.config import default_config

SAMPLES = 50


@pytest.fixture
def recorded(tmp_path):
    """A journal segment of 30 blocks of 100 samples, and where its chunks stand."""
    task = {"name": "t", "rate_hz": 10_000.0, "block_samples": 100, "samples": 3000, "channels": ["a", "b"]}
    (run,) = acquire_all(config_of(task, options={"speed": "max"}), tmp_path / "first")
    segment = run.path / "000000000000.dt-raw"
    with ChunkFile(segment) as file:
        chunks = [found for found in file.chunks(file.start) if isinstance(found, Chunk)]
        spans = [(chunk.offset, chunk.end) for chunk in chunks]
    return tmp_path / "cut.dt-raw", segment.read_bytes(), spans


def play(path, tmp_path):
    (run,) = acquire_all(default_config(f"playback:{path}", speed="max"), tmp_path / "second")
    assert run.status().state == "ended"
    return run


@pytest.mark.parametrize("cut", [1, 200])
def test_a_recording_whose_tail_is_cut_says_so_at_its_end(recorded, tmp_path, cut):
    path, data, spans = recorded
    path.write_bytes(data[:-cut])

    run = play(path, tmp_path)

    assert sum(block.samples_per_channel for block in blocks_of(run)) == 2900
    (event,) = events_of(run)
    assert (event.kind, event.sample_index, event.lost_samples) == ("sdk_error", 2900, 0)
    assert f"cut.dt-raw: bytes {spans[29][0]} to {len(data) - cut}" in event.message


def test_a_hole_in_the_middle_and_one_before_the_first_block_are_told_with_their_samples(recorded, tmp_path):
    path, data, spans = recorded
    for chunk, at in [(0, 0), (15, 1500)]:
        damaged = bytearray(data)
        damaged[spans[chunk][1] - 3] ^= 1
        path.write_bytes(damaged)

        run = play(path, tmp_path / str(chunk))

        events = events_of(run)
        assert [(event.kind, event.sample_index, event.lost_samples) for event in events] == [
            ("sdk_error", at, 0),
            ("overrun", at, 100),
        ]
        assert f"cut.dt-raw: bytes {spans[chunk][0]} to {spans[chunk][1]}" in events[0].message
        assert blocks_of(run)[-1].end_sample_index == 3000


def test_first_blocks_that_are_missing_without_a_trace_are_told(recorded, tmp_path):
    path, data, spans = recorded
    path.write_bytes(data[: spans[0][0]] + data[spans[2][0] :])

    run = play(path, tmp_path)

    assert [(event.kind, event.sample_index, event.lost_samples) for event in events_of(run)] == [("overrun", 0, 200)]
    assert [block.first_sample_index for block in blocks_of(run)][:1] == [200]


def test_a_later_segment_begins_at_its_own_first_sample(tmp_path):
    path, info = tmp_path / "later.dt-raw", info_of()
    write(path, info, [block(info, 7), block(info, 8)])

    run = play(path, tmp_path)

    assert events_of(run) == []
    assert [found.first_sample_index for found in blocks_of(run)] == [0]
    assert sum(found.samples_per_channel for found in blocks_of(run)) == 2 * SAMPLES


def test_samples_that_the_board_lost_before_the_first_block_keep_their_place(tmp_path):
    path, info = tmp_path / "late.dt-raw", info_of()
    event = DaqEvent(
        device="dev/1",
        task="täsk",
        run_id=info.run_id,
        record_index=0,
        kind="overrun",
        message="too slow",
        lost_samples=2 * SAMPLES,
    )
    write(path, info, [event, block(info, 1, first_sample=2 * SAMPLES)])

    run = play(path, tmp_path)

    assert [event.lost_samples for event in events_of(run) if event.kind == "overrun"] == [2 * SAMPLES]
    assert [found.first_sample_index for found in blocks_of(run)] == [2 * SAMPLES]


def block(info, index, first_sample=None):
    codes = np.full((2, SAMPLES), index, np.uint16)
    first = index * SAMPLES if first_sample is None else first_sample
    clock = Clock(10**18, 1e6)
    return block_of_run(info, index=index, first_sample=first, codes=codes, t_mono_ns=index, clock=clock)


def write(path, info, records):
    parts = [encode_file_header(info)]
    for seq, record in enumerate(records):
        parts += encode_record(record, seq)
    path.write_bytes(b"".join(bytes(part) for part in parts))


GOOD = {
    "codes": np.zeros((2, 10), np.int16),
    "channels": ["a", "b"],
    "unit": "g",
    "full_scale": np.array([1.0, 2.0]),
    "rate_hz": 1000.0,
}


def refused(path):
    with pytest.raises(UsageError) as error:
        default_config(f"playback:{path}")
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("rate_hz", np.array([1000.0]), "rate_hz = [1000.0]: give one number above 0"),
        ("rate_hz", np.array([1.0, 2.0]), "rate_hz = [1.0, 2.0]: give one number above 0"),
        ("rate_hz", 0, "rate_hz = 0: give one number above 0"),
        ("rate_hz", -5.0, "rate_hz = -5.0: give one number above 0"),
        ("rate_hz", np.nan, "rate_hz = nan: give one number above 0"),
        ("rate_hz", np.inf, "rate_hz = inf: give one number above 0"),
        ("rate_hz", 1e300, "rate_hz = 1e+300: give one number above 0, 1e-06 to 1e+09"),
        ("rate_hz", 1e-300, "rate_hz = 1e-300: give one number above 0, 1e-06 to 1e+09"),
        ("full_scale", 5e-324, "full_scale = 5e-324: give a number from 1e-100 to 1e+100 for all channels"),
        ("full_scale", 1.7e308, "full_scale = 1.7e+308: give a number from 1e-100 to 1e+100"),
        ("unit", "m\ns", r"unit: 'm\ns' has characters that cannot be shown: leave them out"),
        ("channels", ["x", "y" * 201], "channels: 'yyyy"),
        ("rate_hz", "fast", "rate_hz = 'fast': give one number above 0"),
        ("rate_hz", 1 + 2j, "rate_hz = (1+2j): give one number above 0"),
        (
            "full_scale",
            np.array([1.0, np.nan]),
            "full_scale = [1.0, nan]: give a number from 1e-100 to 1e+100 for all channels",
        ),
        ("full_scale", 0.0, "full_scale = 0.0: give a number from"),
        ("full_scale", np.inf, "full_scale = inf: give a number from"),
        ("full_scale", np.array([1.0, -2.0]), "full_scale = [1.0, -2.0]: give a number from"),
        (
            "full_scale",
            np.ones(3),
            "full_scale = [1.0, 1.0, 1.0]: give a number from 1e-100 to 1e+100 for all channels, or one for ",
        ),
        ("full_scale", np.ones(1), "full_scale = [1.0]: give"),
        ("channels", ["a", "a"], "channels = ['a', 'a']: give each of the 2 rows of codes a name of its own"),
        ("channels", ["a", ""], "channels = ['a', '']: give each"),
        ("channels", ["a"], "channels = ['a']: give each of the 2 rows"),
        ("channels", ["a", "b", "c"], "channels = ['a', 'b', 'c']: give each of the 2 rows"),
        ("channels", "ab", "channels = 'ab': give each of the 2 rows"),
        ("unit", np.array(["g", "V"]), "unit = ['g', 'V']: give one text"),
        ("unit", 3, "unit = 3: give one text"),
        ("codes", np.zeros((0, 10), np.int16), "codes of shape (0, 10) and type int16: give int16, uint16 or int32"),
        ("codes", np.zeros((2, 0), np.int16), "codes of shape (2, 0) and type int16: give"),
        ("codes", np.zeros(10, np.int16), "codes of shape (10,) and type int16: give"),
        ("codes", np.zeros((2, 10)), "codes of shape (2, 10) and type float64: give"),
        ("codes", np.zeros((2, 10), np.int64), "codes of shape (2, 10) and type int64: give"),
        ("codes", np.zeros((2, 10), complex), "codes of shape (2, 10) and type complex128: give"),
        ("codes", np.array([[object()]], object), "codes: "),
        ("channels", np.array(["a", "b"], object), "channels: "),
    ],
)
def test_a_key_that_cannot_be_is_refused_with_file_key_value_and_what_is_allowed(tmp_path, key, value, says):
    path = tmp_path / "x.npz"
    np.savez(path, **{**GOOD, key: value})
    assert f"{path}: {says}" in refused(path)


def test_pickled_objects_are_never_loaded(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, **{**GOOD, "unit": np.array({"a": 1}, dtype=object)})
    assert "unit: Object arrays cannot be loaded when allow_pickle=False" in refused(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"hello", b"\x80\x04.", b"\x93NUMPY", b"\0" * 1000])
def test_what_is_no_npz_is_refused(tmp_path, content):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    assert "not a recording that can be played" in refused(path)


def test_one_array_alone_under_the_name_of_an_npz_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros((2, 10), np.int16))
    assert "not a recording that can be played" in refused(path)


def test_an_npz_that_was_cut_or_flipped_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    for save in (np.savez, np.savez_compressed):
        save(path, **{**GOOD, "codes": np.arange(4000, dtype=np.int16).reshape(2, 2000)})
        data = path.read_bytes()
        for size in (30, 100, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:size])
            assert "not a recording that can be played" in refused(path)
        flipped = bytearray(data)
        flipped[len(data) // 3] ^= 0xFF
        path.write_bytes(flipped)
        assert "x.npz" in refused(path)


@pytest.mark.parametrize("scale", [0.0, -0.0])
def test_a_raw_file_whose_codes_have_no_values_is_refused(tmp_path, scale):
    path = tmp_path / "x.dt-raw"
    path.write_bytes(encode_file_header(info_of(channels=(Channel("a", scale=scale), Channel("b")))))
    assert f"calibration[0].scale = {scale!r}: give a finite number, not 0" in refused(path)


@pytest.mark.parametrize("rate_hz", [0.0, -1.0, None, "x"])
def test_a_raw_file_without_a_rate_is_refused(tmp_path, rate_hz):
    path = tmp_path / "x.dt-raw"
    path.write_bytes(seal_file_header({**file_header_of(info_of()), "run": info_of(), "sample_rate_hz": rate_hz}))
    assert f"{path}: sample_rate_hz = {rate_hz!r}: give" in refused(path)


def test_a_raw_file_with_a_channel_twice_is_refused(tmp_path):
    path = tmp_path / "x.dt-raw"
    path.write_bytes(encode_file_header(info_of(channels=(Channel("a"), Channel("a")))))
    assert f"{path}: channels = ['a', 'a']: " in refused(path)
