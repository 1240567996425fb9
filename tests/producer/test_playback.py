import threading
from pathlib import Path

import numpy as np
import pytest
from tests.producer.acquired import acquire_all, blocks_of, config_of, events_of

from dtolbus.errors import BoardError, UsageError
from dtolbus.runs import segment_name
from dtolbus_producer.acquisition import acquire
from dtolbus_producer.boards import Buffer, End
from dtolbus_producer.boards.playback import PlaybackBoard
from dtolbus_producer.config import config_from, default_config
from dtolbus_producer.tasks import DeviceConfig, TaskConfig

BEARING = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "bearing-inner-race-12k.npz"


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "short.npz"
    codes = np.arange(3 * 1050, dtype=np.int16).reshape(3, 1050) - 500
    full_scale = np.array([1.0, 2.0, 4.0])
    np.savez(path, codes=codes, channels=["a", "b", "c"], unit="g", full_scale=full_scale, rate_hz=10_000.0)
    return path, codes


def played(path, *, speed="max", loop=False, **task):
    device = DeviceConfig("d", f"playback:{path}", {"speed": speed, "loop": loop}, (TaskConfig("t", **task),))
    PlaybackBoard.check(device)
    return PlaybackBoard(device).blocks(device.tasks[0])


@pytest.mark.skipif(not BEARING.exists(), reason=f"the recording {BEARING} is not here")
def test_a_real_recording_is_journaled_with_its_codes_unchanged(tmp_path):
    (run,) = acquire_all(default_config(f"playback:{BEARING}", speed="max"), tmp_path)
    blocks = blocks_of(run)

    with np.load(BEARING) as original:
        codes, full_scale, names = original["codes"], original["full_scale"], original["channels"]
    assert sum(block.samples_per_channel for block in blocks) == 122_917
    np.testing.assert_array_equal(np.concatenate([block.raw_codes for block in blocks], axis=1), codes)
    np.testing.assert_array_equal(
        np.concatenate([block.data for block in blocks], axis=1), codes * (full_scale / 32768)[:, None]
    )
    assert blocks[0].raw_codes.dtype == np.int16
    assert blocks[0].channels == tuple(names)
    assert set(blocks[0].units.values()) == {"g"}
    assert run.info.rate_hz == 12_000.0
    assert run.info.meta["recording"] == BEARING.name
    assert run.status().state == "ended"


def test_blocks_follow_each_other_at_the_recordings_rate_however_fast_it_is_played(recording, tmp_path):
    path, _ = recording
    config = config_from(
        {"device": [{"name": "p", "board": f"playback:{path}", "options": {"speed": "max"}, "task": [{"name": "t"}]}]}
    )
    (run,) = acquire_all(config, tmp_path)
    blocks = blocks_of(run)

    assert [block.first_sample_index for block in blocks] == [0, 1000]
    assert [block.samples_per_channel for block in blocks] == [1000, 50]
    assert blocks[1].t_mono_ns - blocks[0].t_mono_ns == 100_000_000
    assert blocks[0].period_ns == 100_000.0


def test_a_loop_goes_on_until_the_asked_sample_without_a_seam(recording):
    path, codes = recording
    source = played(path, loop=True, block_samples=400)
    source.start()
    buffers = [source.read(1.0) for _ in range(6)]
    source.stop()

    got = np.concatenate([buffer.codes for buffer in buffers], axis=1)
    np.testing.assert_array_equal(got, np.tile(codes, 3)[:, :2400])


def test_some_of_the_channels_in_any_order(recording):
    path, codes = recording
    source = played(path, channels=("c", "a"))
    source.start()
    buffer = source.read(1.0)

    np.testing.assert_array_equal(buffer.codes, codes[[2, 0], :1000])
    assert [(channel.name, channel.scale) for channel in source.plan.channels] == [("c", 4 / 32768), ("a", 1 / 32768)]


def test_at_its_rate_nothing_comes_before_its_time(recording):
    path, _ = recording
    source = played(path, speed=1.0, block_samples=500)
    source.start()
    assert source.read(0.0) is None
    assert isinstance(source.read(5.0), Buffer)
    assert source.plan.can_wait


def test_the_end_is_told(recording):
    path, _ = recording
    source = played(path, block_samples=2000)
    source.start()
    assert source.read(1.0).codes.shape == (3, 1050)
    assert source.read(1.0) is End.END


def test_a_journal_can_be_played_again_with_its_calibration_and_its_losses(tmp_path):
    config = config_of(
        {"name": "t", "rate_hz": 10_000.0, "block_samples": 100, "samples": 1000, "channels": ["a", "b"]},
        options={"speed": "max", "overrun_at_s": 0.03},
    )
    (first,) = acquire_all(config, tmp_path / "first")
    segment = first.path / segment_name("blocks", 0)
    config = default_config(f"playback:{segment}", speed="max")
    (second,) = acquire_all(config, tmp_path / "second")

    before = np.concatenate([block.raw_codes for block in blocks_of(first)], axis=1)
    after = np.concatenate([block.raw_codes for block in blocks_of(second)], axis=1)
    np.testing.assert_array_equal(before, after)
    assert second.info.channels == first.info.channels
    assert second.info.dtype == "uint16"
    assert [event.lost_samples for event in events_of(second) if event.kind == "overrun"] == [100]
    assert blocks_of(second)[-1].end_sample_index == 1000


def test_what_is_no_recording_is_refused_with_one_line(tmp_path, recording):
    path, _ = recording
    text = tmp_path / "x.npz"
    text.write_text("hello")
    partial = tmp_path / "y.npz"
    np.savez(partial, codes=np.zeros((1, 3), np.int16))
    raw = tmp_path / "z.dt-raw"
    raw.write_bytes(b"\0" * 100)
    (tmp_path / "a.wav").write_bytes(b"RIFF")

    for place, says in [
        (tmp_path / "missing.npz", "there is no such file"),
        (text, "not a recording"),
        (partial, "it lacks channels, full_scale, rate_hz, unit"),
        (raw, "not a recording"),
        (tmp_path / "a.wav", "is a .npz or a .dt-raw file"),
    ]:
        with pytest.raises(UsageError) as refused:
            default_config(f"playback:{place}")
        assert says in str(refused.value)
        assert str(place) in str(refused.value)
        assert "\n" not in str(refused.value)
    with pytest.raises(UsageError, match="the recording's rate is 10000 Hz"):
        default_config(f"playback:{path}", rate_hz=5.0)


def test_a_recording_that_vanished_ends_the_acquisition_loudly(tmp_path, recording):
    path, _ = recording
    device = {"name": "p", "board": f"playback:{path}", "task": [{"name": "t"}], "reconnect_s": 0.3}
    config = config_from({"device": [device]})
    path.unlink()
    with pytest.raises(BoardError, match=r"there is no such file.*did not come back"):
        acquire(config, "p", tmp_path, threading.Event())
