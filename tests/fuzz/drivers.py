"""A driver for each decoder: bytes in, and nothing out of it but what its caller knows to handle.

Each lets only the errors pass that the decoder documents, uses what was decoded as its callers do, and checks that
nothing outside of its folder was touched.
"""

import contextlib
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pyarrow.parquet as pq
from tests.fuzz import parts, places, seeds
from tests.fuzz.forging import sealed
from tests.fuzz.storing import check_places, store

from dtolbus import chunkfile, configfile, dtraw, framing, registrations, runs, wire
from dtolbus.abandoned import records_on_disk
from dtolbus.bounds import can_be_announced
from dtolbus.errors import CannotStartError, DtolSinkError, RawFormatError, UsageError, WireError
from dtolbus.numbers import LARGEST
from dtolbus.parquet import places as parquet_places
from dtolbus.parquet.footer import PART_KEY
from dtolbus.parquet.reading import read_parquet
from dtolbus.records import DaqBlock, DaqEvent, Gap, RunStatus
from dtolbus.sequencer import Sequencer, size_of
from dtolbus_producer import config, identity, recovery, registered, remarking, serving
from dtolbus_producer.registry import Registry
from dtolbus_workers import growing_file, parquet_folder, text_stored
from dtolbus_workers.columns import block_summary, sample_columns
from dtolbus_workers.text_folder import TextFolder
from dtolbus_workers.text_format import CsvFormat, JsonlFormat

_FETCH = wire.Fetch("dt9806", "vibration", "run-1", 0, 9)
_MOST = 200
"""Records looked at of one input."""


class Decoder(NamedTuple):
    """What is tried, and what to begin with."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]
    in_parts: bool = False
    """Whether an input is several joined ones."""


def wire_message(data: bytes) -> None:
    """Frames, as they are and with a checksum that holds: `decode`, and what is done with each message."""
    frames = parts.split(data)
    for given in (frames, sealed(frames)):
        message = _decoded(given)
        if message is not None:
            _received(message)


def stored_record(data: bytes) -> None:
    """The same, its record stored by every kind of sink."""
    message = _decoded(sealed(parts.split(data)))
    if isinstance(message, wire.RunRecord):
        store(message.run, message.record)


def _decoded(frames: list[bytes]) -> wire.Message | None:
    try:
        return wire.decode(frames)
    except WireError:
        return None


def _received(message: wire.Message) -> None:
    for can_fetch in (True, False):
        sequencer = Sequencer({"run-1": 3}, can_fetch=can_fetch)
        sequencer.heard(message, fetched=True)
        sequencer.heard(message)
    if isinstance(message, wire.RunRecord):
        size_of(message.record)
        check_places(message.run)
        again = wire.decode(wire.encode(message))
        assert isinstance(again, wire.RunRecord)
        if isinstance(message.record, DaqBlock):
            sample_columns(message.record)
            block_summary(message.record)
    elif isinstance(message, wire.Heartbeat):
        check_places(message.status.info)
    elif isinstance(message, wire.Welcome):
        for status in message.runs:
            check_places(status.info)
    elif isinstance(message, wire.RunGap):
        run = seeds.run_of_blocks()
        sequencer = Sequencer({run.run_id: 3})
        sequencer.heard(wire.Heartbeat(RunStatus(run, "running", 0, 9)))
        sequencer.heard(wire.RunGap(run.run_id, *message[1:]) if isinstance(message, tuple) else message)
    elif isinstance(message, wire.Hello | wire.Ack):
        _registered(message)


def _registered(message: wire.Hello | wire.Ack) -> None:
    """What a gateway does with a worker's word."""
    data = places.fresh("data")
    registry = Registry(data, lambda run_id: False)
    if isinstance(message, wire.Hello):
        registry.hello(message)
    else:
        registry.hello(wire.Hello(worker=message.worker, sink="csv", place="x", destination_id="d"))
        registry.ack(message, "dt9806/vibration")
    registry.close()
    for path in (data / "sinks").iterdir():
        places.inside(data, path, depth=2)
        registrations.read_registration(path)
    places.check_canary()


def raw_file(data: bytes) -> None:
    """A whole `.dt-raw` or `.dt-readings` file: as it is, and made of parts with checksums that hold."""
    path = places.fresh("raw") / "000000000000.dt-raw"
    for content in (data, _segment(parts.split(data))):
        path.write_bytes(content)
        with contextlib.suppress(RawFormatError):
            for record in itertools.islice(dtraw.iter_records(path), _MOST):
                _used(record)
        with contextlib.suppress(RawFormatError):
            for block in itertools.islice(dtraw.iter_blocks(path), _MOST):
                _used(block)
        with contextlib.suppress(RawFormatError):
            _sought(path)


def _sought(path: Path) -> None:
    """Seek records, in a file that is long against what is read of it at once."""
    with mock.patch.object(chunkfile, "_WINDOW_BYTES", 64), chunkfile.ChunkFile(path) as file:
        for index in (0, 1, 7, LARGEST):
            offset = file.before(index)
            assert offset == file.start or isinstance(next(file.chunks(offset)), chunkfile.Chunk)


def _segment(found: list[bytes]) -> bytes:
    """Return a file of a header, and chunks of header and payload, all sealed anew."""
    if not found:
        return b""
    chunks = [framing._sealed(_body(found[0]), b"")]
    for header, payload in zip(found[1::2], found[2::2], strict=False):
        chunks += framing.seal_text(_body(header), payload)
    return b"".join(chunks)


def _body(header: bytes) -> bytes:
    """Return a header as JSON without its checksum and its closing brace."""
    end = header.rfind(b',"checksum":"')
    return header[:end] if end >= 0 else header[:-1]


def _used(record: object) -> None:
    if isinstance(record, Gap | DaqEvent):
        return
    size_of(record)


def journal(data: bytes) -> None:
    """A run's folder: run.json, head, manifest.json, remarks.json, the journal's id, a segment."""
    found = [*parts.split(data), *[b""] * 6]
    where = places.fresh("journal")
    run = where / "dt9806" / "vibration" / "run-1"
    run.mkdir(parents=True)
    names = ("run.json", "head", "manifest.json", "remarks.json", "../../../.journal.json", "000000000000.dt-raw")
    for name, content in zip(names, found, strict=False):
        (run / name).write_bytes(content)
    (run / "000000000000.dt-readings").write_bytes(_segment(parts.split(found[5])))
    remarking.read_remarks(run)
    assert isinstance(identity.journal_id(where), str)
    with contextlib.suppress(RawFormatError), runs.RunFolder(run) as folder:
        status = folder.status()
        is_served = can_be_announced(status.info)
        folder.manifest()
        for record in itertools.islice(folder.records(status.first, status.head), _MOST):
            store(status.info, record)
            if is_served:
                wire.decode([bytes(frame) for frame in serving._answer(_FETCH, status.info, record)])
        records_on_disk(folder)
    with contextlib.suppress(RawFormatError):
        runs.placed_run(run)
    recovery.recover_run(run)
    places.check_canary()


def registration(data: bytes) -> None:
    """`sinks/<name>.json`, as the gateway, `verify` and `up --catch-up` read it."""
    where = places.fresh("data")
    (where / "journal").mkdir()
    (where / "sinks").mkdir()
    path = where / "sinks" / "lab.json"
    path.write_bytes(data)
    run = seeds.run_of_blocks()
    with contextlib.suppress(RawFormatError):
        sink = registrations.usable_registration(path)
        sink.takes(run)
        sink.has_samples(run, 0)
    with contextlib.suppress(UsageError):
        registered.registered_sinks(where, "postgresql://localhost/lab")
    registry = Registry(where, lambda run_id: True)
    registry.hello(wire.Hello(worker="lab", sink="csv", place="x", destination_id="d"))
    registry.ack(wire.Ack("lab", "dt9806", "vibration", "run-1", 3), "dt9806/vibration")
    registry.close()
    places.check_canary()


def config_file(data: bytes) -> None:
    """`dtolbus.toml`, and the same as JSON."""
    where = places.fresh("config")
    for name in ("dtolbus.toml", "config.json"):
        path = where / name
        path.write_bytes(data)
        with contextlib.suppress(UsageError):
            config.dump_config(config.load_config(path))
        with contextlib.suppress(UsageError):
            configfile.data_folder(path, None)
        with contextlib.suppress(UsageError):
            configfile.gateway_urls(path)
    places.check_canary()


def text_sidecar(data: bytes) -> None:
    """`<run_id>.position.json` of a CSV and a JSONL folder, beside files that it counts."""
    found = [*parts.split(data), *[b""] * 4]
    for text in (CsvFormat(), JsonlFormat()):
        where = places.fresh("text")
        marker = {"kind": text.extension, "destination_id": "d", "format_version": 1}
        (where / "dtolbus.json").write_text(json.dumps(marker))
        stream = where / "dt9806" / "vibration"
        stream.mkdir(parents=True)
        (stream / "run-1.position.json").write_bytes(found[0])
        names = (f"run-1.{text.extension}", "run-1.gaps.jsonl", "run-1.events.jsonl")
        for name, content in zip(names, found[1:], strict=False):
            (stream / name).write_bytes(content)
        _read_text(where, text)
        folder = TextFolder(where, text)
        with contextlib.suppress(CannotStartError):
            folder.open()
            _read_text(where, text)
        folder.close()
        (where / "dtolbus.json").write_bytes(found[0])
        with contextlib.suppress(CannotStartError):
            TextFolder(where, text).open()
    places.check_canary()


def _read_text(where: Path, text: CsvFormat | JsonlFormat) -> None:
    for run in (seeds.run_of_blocks(), seeds.run_of_readings("run-1", "dt9806", "vibration")):
        with contextlib.suppress(CannotStartError):
            stored = text_stored.read_run(where, text, run)
            if stored is not None:
                for _ in itertools.chain(stored.blocks, stored.readings):
                    pass


def parquet_footer(data: bytes) -> None:
    """What a Parquet file says of itself: a bus's part, and a file that a stand-alone sink left."""
    where = places.fresh("parquet")
    folder = where / "dt9806" / "vibration" / "run-1"
    folder.mkdir(parents=True)
    (where / parquet_places.IDENTITY).write_bytes(seeds.parquet_identity())
    table = seeds.parquet_table()
    text = data.replace(b"\0", b"?")
    keys = {**seeds.parquet_keys(), PART_KEY.encode(): text, growing_file.OWN.encode(): text}
    part = folder / "part-000000000000.parquet"
    pq.write_table(table.replace_schema_metadata(keys), part)
    with contextlib.suppress(CannotStartError):
        parquet_folder.read_part(part)
    opened = parquet_folder.ParquetFolder(where)
    with contextlib.suppress(CannotStartError):
        opened.open()
    opened.close()
    with contextlib.suppress(RawFormatError, UsageError):
        read_parquet(where)
    lone = growing_file.GrowingFile(part, None, True, None)
    with contextlib.suppress(DtolSinkError):
        lone.open(overwrite=False)
    lone.close()
    (where / parquet_places.IDENTITY).write_bytes(data)
    with contextlib.suppress(CannotStartError):
        parquet_folder.read_identity(where)
    places.check_canary()


DECODERS = {
    "wire": Decoder(wire_message, seeds.messages, in_parts=True),
    "stored": Decoder(stored_record, seeds.records, in_parts=True),
    "raw": Decoder(raw_file, seeds.raw_files, in_parts=True),
    "journal": Decoder(journal, seeds.journals, in_parts=True),
    "registration": Decoder(registration, seeds.sinks),
    "config": Decoder(config_file, seeds.configs),
    "text": Decoder(text_sidecar, seeds.sidecars, in_parts=True),
    "parquet": Decoder(parquet_footer, seeds.footers),
}
"""Key files get their line here."""
