"""What a folder of text files holds of a run, read back for `verify` without locking anything."""

import base64
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from dtolbus.records import Gap, RunInfo
from dtolbus.rows import READING_KEYS
from dtolbus_workers import text_file
from dtolbus_workers.destination import Position, Stored, StoredAside, StoredBlock, StoredEvent, StoredReading
from dtolbus_workers.schema import STATUS_COLUMN, restored_value
from dtolbus_workers.stored_blocks import ROW_COLUMNS, guarded, header_remarks, joined, runs_of, sampled, summarised
from dtolbus_workers.text_folder import check_ours, identity_of, read_sidecar, stream_folder
from dtolbus_workers.text_format import JsonlFormat, TextFormat
from dtolbus_workers.text_run import BLOCKS, EVENTS, GAPS, POSITION, PUT_ASIDE, RunFiles, file_name

_JSONL = JsonlFormat()
_FIXED = ("run_id", *READING_KEYS, STATUS_COLUMN)
_VALUE, _STATUS = ROW_COLUMNS.index("value"), ROW_COLUMNS.index("sensor_status")


def read_run(folder: Path, text: TextFormat, run: RunInfo) -> Stored | None:
    """Return what counts of the run, or None; iterators read on as they are drawn from.

    Raises CannotStartError where the folder is not of this format.
    """
    check_ours(folder, text.extension)
    place = stream_folder(folder, run)
    sidecar = place / file_name(run, POSITION)
    if not sidecar.exists():
        return None
    reader = _Reader(place, text, read_sidecar(sidecar))
    remarks = reader.remarks
    remarks += header_remarks(msgspec.json.encode(reader.state.run), run)
    return Stored(
        position=Position(reader.state.next, reader.state.backfilled),
        gaps=list(guarded(reader.gaps(), remarks, GAPS)),
        events=list(guarded(reader.events(), remarks, EVENTS)),
        put_aside=list(guarded(reader.put_aside(), remarks, PUT_ASIDE)),
        blocks=guarded(reader.blocks(), remarks, "blocks"),
        readings=guarded(reader.readings(), remarks, "readings"),
        checksums="exact" if run.kind == "readings" or reader.has_samples() else "summary",
        destination_id=identity_of(folder),
        remarks=remarks,
        surplus=reader.surplus,
    )


class _Reader:
    """Reads as much of the run's files as the sidecar counts."""

    def __init__(self, place: Path, text: TextFormat, state: RunFiles) -> None:
        self.state = state
        self._place = place
        self._text = text
        sizes = dict(self._sizes())
        self.remarks = [*self._lacking(sizes)]
        self.surplus = [*self._uncounted(sizes)]

    def _sizes(self) -> Iterator[tuple[str, int]]:
        """Yield the run's files, but the sidecar, and how long they are."""
        for path in sorted(self._place.glob(f"{file_name(self.state.run, '*')}")):
            with contextlib.suppress(FileNotFoundError):
                if path.name != file_name(self.state.run, POSITION):
                    yield path.name, path.stat().st_size

    def _lacking(self, sizes: Mapping[str, int]) -> Iterator[str]:
        """Yield what counts and is not there."""
        for name, length in self.state.files.items():
            if name not in sizes:
                yield f"{name} is not there, {length} bytes of it count"
            elif sizes[name] < length:
                yield f"{name} has {sizes[name]} bytes, {length} of them count"
        for name in self.state.data:
            if name not in self.state.files:
                yield f"{name} is named as data, none of it counts"

    def _uncounted(self, sizes: Mapping[str, int]) -> Iterator[str]:
        """Yield what is there and does not count."""
        for name, size in sizes.items():
            if name not in self.state.files:
                yield f"{name} has {size} bytes, none of them count"
            elif size > self.state.files[name]:
                yield f"{name} has {size} bytes, {self.state.files[name]} of them count"

    def gaps(self) -> Iterator[Gap]:
        """Yield the gaps."""
        for row in self.beside(GAPS):
            yield Gap(
                _index(row, "from_index"), _index(row, "to_index"), row["cause"], row["first_sample"], row["end_sample"]
            )

    def events(self) -> Iterator[StoredEvent]:
        """Yield the events."""
        for row in self.beside(EVENTS):
            yield StoredEvent(
                _index(row, "record_index"), row["sample_index"], row["t_utc"], row["kind"], row["message"]
            )

    def put_aside(self) -> Iterator[StoredAside]:
        """Yield the records put aside."""
        for row in self.beside(PUT_ASIDE):
            yield StoredAside(
                _index(row, "record_index"), row["reason"], base64.b64decode(row["frames"], validate=True)
            )

    def beside(self, ending: str) -> Iterator[Mapping[str, Any]]:
        """Yield the rows of a file beside the data, none where it is not there."""
        yield from self._rows(file_name(self.state.run, ending), _JSONL)

    def has_samples(self) -> bool:
        """Tell whether any row is a sample's."""
        return any(_is_of(row, "sample_index") for row in guarded(self._data("sample_index"), [], ""))

    def blocks(self) -> Iterator[StoredBlock]:
        """Yield the blocks by index: samples, summaries, both."""
        samples = (self._sample(row) for row in self._data("sample_index") if _is_of(row, "sample_index"))
        summaries = sorted(
            [
                *(row for row in self._data("samples_per_channel") if _is_of(row, "samples_per_channel")),
                *self.beside(BLOCKS),
            ],
            key=lambda row: row["block_index"],
        )
        yield from joined(
            sampled(runs_of(samples, nulls=not self._text.keeps_nonfinite)),
            summarised(summaries, len(self.state.run.channels)),
        )

    def readings(self) -> Iterator[StoredReading]:
        """Yield the readings."""
        columns = self.state.columns
        for row in self._data("reading_index"):
            if "reading_index" in row:
                status = row.get(STATUS_COLUMN)
                values = {c: restored_value(row.get(column), c, status) for c, column in columns.items()}
                units = {c: row.get(f"{column}_unit") for c, column in columns.items()}
                yield StoredReading(_index(row, "reading_index"), values, units, {name: row[name] for name in _FIXED})

    def _data(self, column: str) -> Iterator[Mapping[str, Any]]:
        """Yield the rows of the data's files, but for those whose header says that they lack the column."""
        for name in self.state.data:
            if not (self._text.fixed_columns and self._lacks(name, column)):
                yield from self._rows(name, self._text)

    def _lacks(self, name: str, column: str) -> bool:
        if not (self._place / name).exists():
            return True
        header = next(text_file.lines(self._place / name, self.state.files.get(name, 0)), b"")
        return column.encode() not in header.rstrip(b"\n").split(b",")

    def _rows(self, name: str, text: TextFormat) -> Iterator[Mapping[str, Any]]:
        length = self.state.files.get(name, 0)
        if length and (self._place / name).exists():
            for row in text.parse(text_file.lines(self._place / name, length)):
                if not isinstance(row, dict):
                    raise ValueError(f"{name}: not a row: {row!r:.60}")
                yield row

    def _sample(self, row: Mapping[str, Any]) -> list[Any]:
        cells = [row[column] for column in ROW_COLUMNS]
        if cells[_VALUE] is None and isinstance(cells[_STATUS], str):
            cells[_VALUE] = float(cells[_STATUS])
        return cells


def _index(row: Mapping[str, Any], name: str) -> int:
    index = row[name]
    if type(index) is not int:
        raise ValueError(f"{name} is no whole number: {index!r:.60}")
    return index


def _is_of(row: Mapping[str, Any], column: str) -> bool:
    """Tell a block's row by one of its columns; a reading's channel may have that name too."""
    return column in row and "reading_index" not in row
