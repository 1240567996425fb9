"""A header as text is the encoder's, and a block made the short way is what its constructor makes."""

import dataclasses
import inspect
import pickle
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtolbus.blocktext import instant_of, usual_header, utc_text
from dtolbus.chunks import encode_block, encode_record
from dtolbus.framing import seal
from dtolbus.records import Anchor, Channel, Clock, DaqBlock, ErrorInfo, RunInfo, ns_from_utc, utc_from_ns
from dtolbus.runblocks import block_of_run, read_ns

FIRST_NS, LAST_NS = ns_from_utc(datetime.min.replace(tzinfo=UTC)), ns_from_utc(datetime.max.replace(tzinfo=UTC)) + 999
INSTANTS = st.integers(FIRST_NS, LAST_NS)
TOLD = st.integers(1 - 2**62, 2**62 - 1)
"""Instants that a message can tell."""
READ = st.none() | TOLD | st.datetimes(datetime(1824, 1, 1), datetime(2116, 1, 1), timezones=st.just(UTC))
RUN = RunInfo(
    run_id="r-ü",
    device="dt1",
    task="t",
    kind="blocks",
    channels=(Channel("a", "V", 0.5, 1.0), Channel("b")),
    rate_hz=3.0,
    started_utc_ns=1_700_000_000_123_456_789,
    started_mono_ns=5,
)


@st.composite
def blocks(draw) -> DaqBlock:
    samples = draw(st.integers(0, 5))
    dtype = draw(st.sampled_from(["int16", "uint16", "int32", "float64"]))
    codes = np.arange(4 * samples, dtype=dtype).reshape(2, 2 * samples)[:, :: draw(st.sampled_from([1, 2]))]
    status = draw(st.none() | st.just({"a": np.arange(codes.shape[1])}))
    return block_of_run(
        RUN,
        index=draw(st.integers(0, 2**40)),
        first_sample=draw(st.integers(0, 2**60)),
        codes=codes,
        t_mono_ns=draw(st.integers(-(2**62), 2**62)),
        clock=Clock(draw(TOLD), draw(st.floats(0, 1e15))),
        read_started_at=draw(READ),
        read_finished_at=draw(READ),
        sensor_status=status,
        error=draw(st.none() | st.just(ErrorInfo("x.Y", "ü\n"))),
        anchor=draw(st.none() | st.just(Anchor(1, 2, 3, 4))),
    )


def as_constructed(block: DaqBlock) -> DaqBlock:
    """Return the block as the constructor makes it of all the fields."""
    named = {field.name: getattr(block, field.name) for field in dataclasses.fields(block) if field.name != "data"}
    return DaqBlock(**named)


@settings(deadline=None)
@given(blocks(), st.integers(0, 2**31))
def test_the_text_is_the_encoders_to_the_byte(block: DaqBlock, seq: int) -> None:
    plain = seal(*encode_block(as_constructed(block), seq))

    assert [bytes(part) for part in encode_record(block, seq)] == [bytes(part) for part in plain]


def test_the_usual_block_is_written_by_hand_and_others_are_not() -> None:
    usual = block_of_run(RUN, index=0, first_sample=0, codes=np.zeros((2, 3)), t_mono_ns=1, clock=Clock(2, 3.0))

    assert usual_header(usual, 0)
    assert usual_header(as_constructed(usual), 0) is None


def test_times_that_no_reader_takes_are_left_to_the_encoder() -> None:
    block = block_of_run(RUN, index=0, first_sample=0, codes=np.zeros((2, 3)), t_mono_ns=2**63, clock=Clock(2, 3.0))

    assert usual_header(block, 0) is None


@settings(deadline=None)
@given(INSTANTS)
def test_an_instant_is_isoformats_text(ns: int) -> None:
    assert utc_text(ns) == utc_from_ns(ns).isoformat()


@settings(deadline=None)
@given(st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat))
def test_an_instant_is_read_as_datetime_reads_it(text: str) -> None:
    found = instant_of(text)

    assert (found if isinstance(found, datetime) else utc_from_ns(found)) == datetime.fromisoformat(text)


@pytest.mark.parametrize(
    "text", ["2026-01-01T00:00:60.000001+00:00", "2026-13-01T00:00:00.000001+00:00", "2026-01-01T00:00:00.٠٠٠٠٠١+00:00"]
)
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"isoformat|must be in"):
        instant_of(text)


@settings(deadline=None)
@given(blocks())
def test_every_field_is_what_the_constructor_is_given(block: DaqBlock) -> None:
    clock, samples = block.clock, block.raw_codes.shape[1]
    started, finished = block.read_started_at, block.read_finished_at

    assert (block.device, block.task, block.run_id, block.channels) == ("dt1", "t", "r-ü", ("a", "b"))
    assert (block.calibration, block.units) == (RUN.channels, {"a": "V", "b": None})
    assert (block.sample_rate_hz, block.block_period_ns) == (3.0, 333_333_333)
    assert block.t_utc == block.t0 == utc_from_ns(clock.utc_ns)
    assert block.task_started_at == utc_from_ns(RUN.started_utc_ns)
    assert block.t_midpoint_mono_ns == block.t_mono_ns + round(samples * clock.period_ns / 2)
    assert block.elapsed_s == ((finished - started) / timedelta(seconds=1) if started and finished else None)
    assert (block.is_linearised, block.cjc_data, block.samples_per_channel) == (True, None, samples)
    assert read_ns(block) == read_ns(as_constructed(block))
    np.testing.assert_array_equal(block.data, as_constructed(block).data)


def test_no_argument_is_forgotten() -> None:
    given_ = {
        "index": 7,
        "first_sample": 21,
        "codes": np.zeros((2, 3)),
        "t_mono_ns": 4,
        "clock": Clock(5, 6.0),
        "read_started_at": datetime(2026, 1, 1, tzinfo=UTC),
        "read_finished_at": datetime(2026, 1, 2, tzinfo=UTC),
        "sensor_status": {"a": np.array([0, 1, 0])},
        "told_status": {"a": np.array([0, 1, 0])},
        "error": ErrorInfo("x.Y", "z"),
        "anchor": Anchor(1, 2, 3, 4),
    }
    assert [*inspect.signature(block_of_run).parameters] == ["run", *given_], "a new one belongs into this test"
    block = block_of_run(RUN, **given_)
    names = {"index": "block_index", "first_sample": "first_sample_index", "codes": "raw_codes"}
    for name, value in given_.items():
        np.testing.assert_equal(getattr(block, names.get(name, name)), value)


@settings(deadline=None)
@given(blocks())
def test_a_block_survives_pickling_and_replacing(block: DaqBlock) -> None:
    for other in (pickle.loads(pickle.dumps(block)), dataclasses.replace(block)):
        for field in dataclasses.fields(block):
            ours, its = getattr(block, field.name), getattr(other, field.name)
            if isinstance(ours, np.ndarray | dict):
                np.testing.assert_equal(its, ours)
            else:
                assert its == ours


@pytest.mark.parametrize(
    "given_",
    [
        {"clock": Clock(10**30, 1.0)},
        {"clock": Clock(0, float("nan"))},
        {"clock": Clock(0, float("inf"))},
        {"read_started_at": 10**30},
        {"read_finished_at": -(10**30)},
        {"codes": np.zeros((3, 2), "int16")},
        {"codes": np.zeros(2, "int16")},
    ],
)
def test_what_is_no_time_and_no_shape_is_refused_when_the_block_is_made(given_) -> None:
    usual = {"index": 0, "first_sample": 0, "codes": np.zeros((2, 2), "int16"), "t_mono_ns": 0, "clock": Clock(0, 1.0)}

    with pytest.raises((ValueError, ArithmeticError)):
        block_of_run(RUN, **usual | given_)


def test_a_run_without_times_has_no_blocks() -> None:
    run = msgspec.structs.replace(RUN, started_utc_ns=10**30)

    with pytest.raises((ValueError, ArithmeticError)):
        block_of_run(run, index=0, first_sample=0, codes=np.zeros((2, 2)), t_mono_ns=0, clock=Clock(0, 1.0))


@pytest.mark.parametrize("rate_hz", [0.0, -1.0, float("nan"), float("inf"), 5e-324])
def test_a_rate_by_which_no_time_passes_is_no_runs(rate_hz: float) -> None:
    with pytest.raises(ValueError, match="a rate of"):
        msgspec.structs.replace(RUN, rate_hz=rate_hz)
