"""Valid inputs of every kind, to begin with."""

import asyncio
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
from tests.fuzz import parts, places
from tests.protocol import specimens

from dtolbus import wire
from dtolbus.chunks import encode_record
from dtolbus.framing import LENGTH, encode_file_header
from dtolbus.identity import Identity
from dtolbus.manifest import DeletedSegment, Manifest
from dtolbus.parquet import places as parquet_places
from dtolbus.parquet.footer import PART_KEY
from dtolbus.records import Anchor, Channel, ErrorInfo, Record, RunInfo, RunStatus
from dtolbus.registrations import Registration, SinkPosition, encode_registration
from dtolbus.remarks import Remark
from dtolbus.runs import Head, RunClock, RunFile, encode_head
from dtolbus.units.conversion import Bridge, Lookup, Polynomial, Rtd, Thermocouple
from dtolbus_workers.destination import RunBatch
from dtolbus_workers.parquet import SinkState
from dtolbus_workers.parquet_destination import ParquetDestination
from dtolbus_workers.text_format import CsvFormat, JsonlFormat
from dtolbus_workers.text_run import RunFiles, addition

_EXAMPLES = Path(__file__).parents[2] / "examples"


@lru_cache(maxsize=1)
def run_of_blocks() -> RunInfo:
    return specimens.block_run()


def run_of_readings(run_id: str = "run-2", device: str = "dt9828", task: str = "temperature") -> RunInfo:
    return msgspec.structs.replace(specimens.reading_run(run_id), device=device, task=task)


def _sensors() -> RunInfo:
    conversions = (Thermocouple("K", "ai4"), Rtd(100.0, 1e-3), Bridge("quarter", 2.1, 5.0, per_strain=1e6), None, None)
    tables = (Lookup((-4.0, 0.0, 5.0), (3.0, 1.0, 0.1)), Polynomial((0.1, 2.0, 1 / 3)))
    channels = tuple(
        Channel(f"ai{k}", "V", 1e-4, -1.0, (-1.0, 1.0), 1.0, "offset_binary", 16, conversion=conversion)
        for k, conversion in enumerate((*conversions, *tables))
    )
    return msgspec.structs.replace(run_of_blocks(), channels=channels, run_id="run-3")


def _records() -> list[tuple[RunInfo, Record]]:
    blocks, readings, sensors = run_of_blocks(), run_of_readings(), _sensors()
    gone = ErrorInfo("OSError", "gone")
    floats = msgspec.structs.replace(blocks, dtype="float64")
    values = np.array([[0.5, float("nan")], [float("inf"), -0.0]])
    return [
        (blocks, specimens.block(blocks, 3, anchor=Anchor(30, 1, 2, 3), read_started_at=5_000, read_finished_at=9_000)),
        (blocks, specimens.block(blocks, 3, samples=0, error=ErrorInfo("dtolbus.errors.BoardError", "=gone"))),
        (blocks, specimens.block(blocks, 3, sensor_status={"ai1": [0, 1] * 5})),
        (sensors, specimens.block(sensors, 3)),
        (floats, specimens.block(floats, 3, samples=2, codes=values)),
        (readings, specimens.reading(readings, 3)),
        (readings, specimens.reading(readings, 3, values={"tc0": 2**70, "tc1": "text", "other": True, "none": None})),
        (readings, specimens.reading(readings, 3, values={}, error=gone, sensor_status={"a": 1})),
        (blocks, specimens.event(blocks, 3, lost_samples=9)),
    ]


def records() -> Sequence[bytes]:
    return [_framed(wire.RunRecord(run, record)) for run, record in _records()]


def _framed(message: wire.Message) -> bytes:
    return parts.joined([bytes(frame) for frame in wire.encode(message)])


def messages() -> Sequence[bytes]:
    blocks, readings = RunStatus(run_of_blocks(), "running", 0, 9), RunStatus(run_of_readings(), "ended", 2, 7)
    others: list[wire.Message] = [
        wire.Heartbeat(blocks),
        wire.Hello("lab", "csv", "/data", "id", ("block/",), {"a": "b"}, (wire.RunPosition("d", "t", "r", 3),)),
        wire.Hello("lab", expects=Identity("j", "s"), number=3),
        wire.Welcome((blocks, readings), 1000, 1.0, serves=Identity("j", "s"), number=3),
        wire.Fetch("dt9806", "vibration", "run-1", 3, 9, 1),
        wire.Credit(64, 1),
        wire.RunGap("run-1", 3, 7, "deleted", 30, 70, 0),
        wire.Done("run-1", 9, 1),
        wire.Refused("no such run", "run-1", 1),
        wire.Ack("lab", "dt9806", "vibration", "run-1", 9, 2),
    ]
    return [*records(), *map(_framed, others)]


def raw_files() -> Sequence[bytes]:
    """Of each run a segment with its records, in parts; and one whole as it is on the disk."""
    found: dict[str, list[bytes]] = {}
    whole: dict[str, bytes] = {}
    for run, record in _records():
        header = encode_file_header(run)
        listed = found.setdefault(run.run_id + run.dtype, [header[LENGTH.size :]])
        chunk = [bytes(part) for part in encode_record(record, len(listed) // 2)]
        listed += [chunk[0][LENGTH.size :], chunk[1]]
        whole[run.run_id] = whole.get(run.run_id, header) + b"".join(chunk)
    return [*map(parts.joined, found.values()), *whole.values(), parts.joined([_lone_header(), *_lone_chunk()])]


def _segment(records: Sequence[tuple[RunInfo, Record]]) -> bytes:
    found = [encode_file_header(records[0][0])[LENGTH.size :]]
    for number, (_, record) in enumerate(records):
        head, payload = (bytes(part) for part in encode_record(record, number))
        found += [head[LENGTH.size :], payload]
    return parts.joined(found)


def _lone_header() -> bytes:
    header = {
        **{"format_version": 2, "task": "t", "device": "d", "channels": [{"name": "a", "unit": "V"}]},
        **{"sample_rate_hz": 1000.0, "block_period_ns": 1_000_000, "dtype": "int16", "n_channels": 1},
        **{"samples_per_buffer": 4, "task_started_at": "2026-03-01T12:00:00+00:00", "metadata": {}},
    }
    return json.dumps(header, separators=(",", ":")).encode()


def _lone_chunk() -> list[bytes]:
    header = {
        **{"seq": 0, "event_kind": "buffer_done", "first_sample_index": 0, "valid_samples": 4, "buffer_capacity": 4},
        **{"t_mono_ns": 1, "t_utc": "2026-03-01T12:00:00+00:00", "flags": []},
    }
    return [json.dumps(header, separators=(",", ":")).encode(), b"\1\0\2\0\3\0\4\0"]


def journals() -> Sequence[bytes]:
    blocks, readings = run_of_blocks(), run_of_readings("run-1", "dt9806", "vibration")
    gone = DeletedSegment(
        **{"first_index": 0, "end_index": 3, "first_sample": 0, "end_sample": 30, "bytes": 100},
        **{"xxh3_64": "0" * 16, "cause": "acknowledged", "deleted_utc": "2026-03-01T12:00:00+00:00"},
    )
    remarks = msgspec.json.encode((Remark("ai0", "over_range", 3, 40, 7),))
    known = b'{"journal_id":"5f0c"}\n'
    found = []
    segment = _segment([(readings, specimens.reading(readings, index)) for index in range(3, 6)])
    for run, files in ((blocks, raw_files()[0]), (readings, segment), (readings, raw_files()[3])):
        for file in (RunFile(run), RunFile(run, "ended", 9, 90, 1000, RunClock(1, 1000.0, 0.1, 0.1, 5))):
            head, manifest = encode_head(Head(9, 5000)), msgspec.json.encode(Manifest((gone,)))
            found.append(parts.joined([msgspec.json.encode(file), head, manifest, remarks, known, files]))
    return found


def sinks() -> Sequence[bytes]:
    sink = Registration(
        **{"name": "lab", "sink": "csv", "place": "/data/csv", "destination_id": "id", "topics": ("block/",)},
        options={"blocks": "samples", "host": "daq-pc", "since_utc_ns": "1772366400000000000"},
        positions={"run-1": SinkPosition("dt9806/vibration", 9, 2, 1)},
        seen_utc="2026-03-01T12:00:00+00:00",
    )
    place = "postgresql://h:5432/d.public"
    database = msgspec.structs.replace(sink, sink="postgres", place=place, options={"schema": "s"})
    return [encode_registration(sink), encode_registration(database)]


def configs() -> Sequence[bytes]:
    shown = [path.read_bytes() for path in sorted(_EXAMPLES.glob("*.toml"))]
    return [
        *shown,
        b'data = "d"\n[gateway]\nhost = "127.0.0.1"\npub_port = 5601\n[[sink]]\nkind = "csv"\nname = "a"\npath = "x"\n',
        b'{"device":[{"name":"d","board":"sim","task":[{"name":"t","channels":[{"name":"a","physical":0}]}]}]}',
    ]


def sidecars() -> Sequence[bytes]:
    readings = run_of_readings("run-1", "dt9806", "vibration")
    found = []
    for text in (CsvFormat(), JsonlFormat()):
        for run in (run_of_blocks(), readings):
            record = specimens.block(run, 0) if run.kind == "blocks" else specimens.reading(run, 0)
            batch = RunBatch(run, 0, 2, (record, specimens.event(run, 1)))
            added = addition(batch, RunFiles(run=run), text, "samples")
            lengths = {name: len(content) for name, content in added.chunks.items()}
            state = msgspec.structs.replace(added.after, files=lengths, updated_at="2026-03-01T12:00:00+00:00")
            rows, events = added.chunks[state.data[0]], added.chunks["run-1.events.jsonl"]
            found.append(parts.joined([msgspec.json.encode(state), rows, b"", events]))
    return found


@lru_cache(maxsize=1)
def _part() -> tuple[Any, dict[bytes, bytes], bytes]:
    """A part's table, its footer's keys, and the folder's marker."""
    folder = places.fresh("seed")

    async def made() -> None:
        destination = ParquetDestination(folder)
        await destination.open()
        run = run_of_blocks()
        await destination.commit(RunBatch(run, 0, 2, (specimens.block(run, 0), specimens.event(run, 1))))
        await destination.close()

    asyncio.run(made())
    (path,) = folder.glob("*/*/*/*.parquet")
    table = pq.read_table(path, partitioning=None)
    return table, dict(table.schema.metadata), (folder / parquet_places.IDENTITY).read_bytes()


def parquet_table() -> Any:
    return _part()[0]


def parquet_keys() -> dict[bytes, bytes]:
    return _part()[1]


def parquet_identity() -> bytes:
    return _part()[2]


def footers() -> Sequence[bytes]:
    state = SinkState("readings", ("device", "a"), {"a": "a"})
    return [_part()[1][PART_KEY.encode()], msgspec.json.encode(state), parquet_identity()]
