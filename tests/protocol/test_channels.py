"""From codes to engineering units: values, status, and how a conversion travels with the run."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.protocol.specimens import block, block_run
from tests.protocol.units.test_conversion import EACH_BY_NAME

from dtolbus import wire
from dtolbus.channels import Channel, engineering, status_of_codes
from dtolbus.chunks import decode_record, encode_record
from dtolbus.dtraw import RawCountsSink, iter_blocks
from dtolbus.framing import encode_file_header, file_header_for, parse_chunk_header, parse_file_header
from dtolbus.records import DaqBlock, RunInfo, SensorStatus
from dtolbus.units.conversion import Bridge, Conversion, Lookup, Polynomial, Rtd, Thermocouple
from dtolbus.units.thermocouple import emf_mv
from dtolbus.wire import RunRecord

OK, OPEN, LOW, HIGH = SensorStatus


def volts(name: str, limit_v: float = 10.0, conversion: Conversion | None = None, **fields: Any) -> Channel:
    """A 16 bit offset-binary input of ±`limit_v`."""
    return Channel(
        name,
        **{
            "unit": "V",
            "scale": limit_v / 32768,
            "offset": -limit_v,
            "range": (-limit_v, limit_v),
            "encoding": "offset_binary",
            "resolution_bits": 16,
            "conversion": conversion,
            **fields,
        },
    )


def codes_of(channel: Channel, *values: float) -> list[int]:
    return [round((value - channel.offset) / channel.scale) for value in values]


CJC = Channel("cjc", "°C", 20 / 65536 / 0.01, -1000.0, (-10.0, 10.0), 1.0, "offset_binary", 16)
TC = volts("tc", 0.1, Thermocouple("K", "cjc"), unit="°C")


def emf_v(celsius: float, junction: float) -> float:
    return float(emf_mv("K", celsius) - emf_mv("K", junction)) / 1000


class TestEngineering:
    def test_a_channel_without_a_conversion_is_its_codes_times_scale_plus_offset(self) -> None:
        codes = np.array([[0, 32768, 65535]], dtype=np.uint16)
        assert engineering(codes, [volts("a")]).tolist() == [[-10.0, 0.0, 65535 * (10 / 32768) - 10]]
        assert status_of_codes(codes, [volts("a")]) == {}

    def test_floats_of_a_board_that_need_nothing_stay_what_they_are_to_the_bit(self) -> None:
        codes = np.array([[-0.0, 5e-324, np.nan, -np.inf], [-0.0, 1.0, 2.0, 3.0]])
        values = engineering(codes, [Channel(name="plain"), Channel(name="moved", scale=2.0, offset=1.0)])
        assert values[0].tobytes() == codes[0].tobytes()
        assert values[1].tolist() == [1.0, 3.0, 5.0, 7.0]

    @pytest.mark.parametrize("channels", [1, 3])
    def test_other_channels_than_rows_are_refused(self, channels: int) -> None:
        with pytest.raises(ValueError, match="shape"):
            engineering(np.zeros((2, 4)), [Channel(name=f"ch{place}") for place in range(channels)])

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["the junction first", "the junction last"])
    def test_each_sample_of_a_thermocouple_has_the_junction_of_its_instant(self, order: tuple[int, int]) -> None:
        rows = (codes_of(CJC, 20, 30), codes_of(TC, emf_v(500, 20), emf_v(500, 30)))
        channels = [(CJC, TC)[place] for place in order]
        codes = np.array([rows[place] for place in order], dtype=np.uint16)
        values = engineering(codes, channels)
        assert values[channels.index(TC)] == pytest.approx([500, 500], abs=0.2)  # a code of the junction is 0.03 °C
        assert status_of_codes(codes, channels) == {}

    def test_a_junction_may_be_a_sensor_with_a_conversion_of_its_own(self) -> None:
        pt = volts("cjc", 1.25, Rtd(100.0, 1e-3), unit="°C")
        codes = np.array([codes_of(TC, emf_v(100, 25)), codes_of(pt, 0.1097347)], dtype=np.uint16)  # 109.7347 Ω: 25 °C
        assert engineering(codes, [TC, pt])[:, 0] == pytest.approx([100, 25], abs=0.2)

    def test_a_fixed_junction(self) -> None:
        fixed = msgspec.structs.replace(TC, conversion=Thermocouple("K", 25.0))
        codes = np.array([codes_of(TC, emf_v(100, 25))], dtype=np.uint16)
        assert engineering(codes, [fixed])[0] == pytest.approx([100], abs=0.1)

    @pytest.mark.parametrize("encoding", ["offset_binary", "twos_complement"])
    @pytest.mark.parametrize(
        "conversion", [Thermocouple("K", 25.0), Rtd(1000.0, 1e-3), Bridge("full_axial", 2.0, 0.01, poisson_ratio=0.3)]
    )
    def test_an_input_at_an_end_of_its_range_is_an_open_sensor(self, encoding: str, conversion: Any) -> None:
        low = 0 if encoding == "offset_binary" else -32768
        offset = -0.005 if low == 0 else 0.0  # ±5 mV: a value of each of these sensors is there at both ends
        channel = volts("x", 0.005, conversion, encoding=encoding, offset=offset)
        if isinstance(conversion, Rtd):
            channel = msgspec.structs.replace(channel, scale=2 / 65536, offset=0.2 if low == 0 else 1.2)
        codes = np.array([[low, low + 1, low + 65534, low + 65535]])
        assert np.isnan(engineering(codes, [channel]))[0].tolist() == [True, False, False, True]
        assert status_of_codes(codes, [channel])["x"].tolist() == [OPEN, OK, OK, OPEN]

    @pytest.mark.parametrize("conversion", [Polynomial((0.0, 3.0)), Lookup((-11.0, 11.0), (0.0, 1.0)), None])
    def test_an_end_of_the_range_is_a_value_where_nothing_can_be_open(self, conversion: Any) -> None:
        codes = np.array([[0, 65535]], dtype=np.uint16)
        assert not np.isnan(engineering(codes, [volts("x", conversion=conversion)])).any()
        assert status_of_codes(codes, [volts("x", conversion=conversion)]) == {}

    def test_what_no_sensor_can_give_is_out_of_its_range(self) -> None:
        codes = np.array([codes_of(TC, -0.02, 0.0, 0.09), codes_of(CJC, 25, 25, 25)], dtype=np.uint16)
        assert np.isnan(engineering(codes, [TC, CJC]))[0].tolist() == [True, False, True]
        assert status_of_codes(codes, [TC, CJC])["tc"].tolist() == [LOW, OK, HIGH]

    @pytest.mark.parametrize("code", [0, 65535])
    def test_without_its_junction_a_thermocouple_has_no_value(self, code: int) -> None:
        codes = np.array([codes_of(TC, 0.001, 0.001), [codes_of(CJC, 25)[0], code]], dtype=np.uint16)
        assert np.isnan(engineering(codes, [TC, CJC])).tolist() == [[False, True], [False, False]]
        assert status_of_codes(codes, [TC, CJC])["tc"].tolist() == [OK, OPEN]

    def test_a_junction_that_is_not_there_or_needs_one_itself_gives_no_values(self) -> None:
        codes = np.array([codes_of(TC, 0.001), codes_of(TC, 0.001)], dtype=np.uint16)
        other = msgspec.structs.replace(TC, name="cjc")
        assert np.isnan(engineering(codes, [TC, other])).all()
        assert np.isnan(engineering(codes[:1], [TC])).all()

    def test_volts_of_a_board_at_an_end_of_their_range_are_an_open_sensor(self) -> None:
        channel = volts("x", 10.0, Rtd(1000.0, 1e-3), encoding="float", scale=1.0, offset=0.0)
        given = np.array([[-10.1, 1.0, 3.0, 9.9, 9.9998, 10.0]])
        status = status_of_codes(given, [channel])["x"]
        assert status.tolist() == [OPEN, OK, OK, HIGH, OPEN, OPEN]
        assert np.isnan(engineering(given, [channel]))[0].tolist() == [True, False, False, True, True, True]

    def test_floats_of_a_board_are_volts(self) -> None:
        channel = Channel("x", "bar", conversion=Polynomial((1.0, 2.0)))
        assert engineering(np.array([[0.5, -0.5]]), [channel]).tolist() == [[2.0, 0.0]]


class TestBlocks:
    def test_what_the_board_tells_of_a_sample_makes_it_nan(self) -> None:
        found = block(block_run(), 0, sensor_status={"ai1": [0, 0, 3, 0, 0, 0, 1, 0, 0, 0], "no channel": [1] * 10})
        assert np.flatnonzero(np.isnan(found.data[1])).tolist() == [2, 6]
        assert not np.isnan(found.data[0]).any()


def run_with(conversion: Conversion) -> RunInfo:
    channels = (volts("x", 0.1, conversion, unit="u"), CJC)
    return msgspec.structs.replace(block_run(), channels=channels)


class OldChannel(msgspec.Struct, frozen=True, omit_defaults=True):
    """A channel as readers knew it that had no conversions."""

    name: str
    unit: str | None = None
    scale: float = 1.0
    offset: float = 0.0


class TestTravelling:
    @EACH_BY_NAME
    def test_over_the_wire(self, conversion: Conversion) -> None:
        run = run_with(conversion)
        sent = block(run, 3)
        got = wire.decode([bytes(frame) for frame in wire.encode(RunRecord(run, sent))])
        assert isinstance(got, RunRecord)
        assert isinstance(got.record, DaqBlock)
        assert got.run == run
        assert got.record.data.tobytes() == sent.data.tobytes()

    @EACH_BY_NAME
    def test_through_the_journal(self, conversion: Conversion) -> None:
        run = run_with(conversion)
        sent = block(run, 3)
        header, payload = (bytes(part) for part in encode_record(sent, 0))
        file = parse_file_header(encode_file_header(run)[4:])
        assert (file.run, file.calibration) == (run, run.channels)
        found = decode_record(file, parse_chunk_header(header[4:]), payload)
        assert isinstance(found, DaqBlock)
        assert found.data.tobytes() == sent.data.tobytes()

    def test_through_a_file_of_its_own(self, tmp_path: Path) -> None:
        run = run_with(Rtd(100.0, 1e-3))

        async def write() -> None:
            async with RawCountsSink(tmp_path / "one.dt-raw") as sink:
                await sink.write(block(run, 0))

        asyncio.run(write())
        (found,) = iter_blocks(tmp_path / "one.dt-raw")
        assert found.data.tobytes() == block(run, 0).data.tobytes()

    def test_a_header_from_before_there_were_conversions_is_read(self) -> None:
        run = block_run()
        plain = msgspec.json.decode(encode_file_header(run)[4:])
        assert all("conversion" not in channel for channel in plain["calibration"] + plain["run"]["channels"])
        assert file_header_for(run).run == run

    @EACH_BY_NAME
    def test_a_reader_from_before_reads_ours(self, conversion: Conversion) -> None:
        plain = msgspec.json.decode(encode_file_header(run_with(conversion))[4:])
        assert plain["format_version"] == 2
        channel, _ = msgspec.convert(plain["calibration"], tuple[OldChannel, ...])
        assert (channel.name, channel.unit, channel.scale, channel.offset) == ("x", "u", 0.1 / 32768, -0.1)
