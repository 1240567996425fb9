"""What a folder of text files holds of a run, read back for `verify` without locking anything."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dtolbus.records import Gap, RunInfo
from dtolbus_workers import text_file
from dtolbus_workers.destination import Position, Stored, StoredBlock
from dtolbus_workers.schema import STATUS_COLUMN, restored_value
from dtolbus_workers.stored_blocks import SampleRow, joined, sampled, summarised
from dtolbus_workers.text_folder import check_ours, read_sidecar, stream_folder
from dtolbus_workers.text_format import JsonlFormat, TextFormat
from dtolbus_workers.text_run import BLOCKS, EVENTS, GAPS, POSITION, PUT_ASIDE, RunFiles, file_name

_JSONL = JsonlFormat()


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
    return Stored(
        position=Position(reader.state.next, reader.state.backfilled),
        gaps=[
            Gap(row["from_index"], row["to_index"], row["cause"], row["first_sample"], row["end_sample"])
            for row in reader.beside(GAPS)
        ],
        events=[row["record_index"] for row in reader.beside(EVENTS)],
        put_aside=[row["record_index"] for row in reader.beside(PUT_ASIDE)],
        blocks=reader.blocks(),
        readings=reader.readings(),
        checksums="exact" if run.kind == "readings" or reader.has_samples() else "summary",
    )


class _Reader:
    """Reads as much of the run's files as the sidecar counts."""

    def __init__(self, place: Path, text: TextFormat, state: RunFiles) -> None:
        self.state = state
        self._place = place
        self._text = text

    def beside(self, ending: str) -> Iterator[Mapping[str, Any]]:
        """Yield the rows of a file beside the data, none where it is not there."""
        yield from self._rows(file_name(self.state.run, ending), _JSONL)

    def has_samples(self) -> bool:
        """Tell whether any row is a sample's."""
        return any("sample_index" in row for row in self._data())

    def blocks(self) -> Iterator[StoredBlock]:
        """Yield the blocks by index: samples, summaries, both."""
        samples = (self._sample(row) for row in self._data() if "sample_index" in row)
        summaries = sorted(
            [*(row for row in self._data() if "samples_per_channel" in row), *self.beside(BLOCKS)],
            key=lambda row: row["block_index"],
        )
        yield from joined(sampled(samples), summarised(summaries, len(self.state.run.channels)))

    def readings(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the readings: index, value by channel."""
        columns = self.state.columns
        for row in self._data():
            if "reading_index" in row:
                status = row.get(STATUS_COLUMN)
                values = {c: restored_value(row.get(column), c, status) for c, column in columns.items()}
                yield row["reading_index"], values

    def _data(self) -> Iterator[Mapping[str, Any]]:
        for name in self.state.data:
            yield from self._rows(name, self._text)

    def _rows(self, name: str, text: TextFormat) -> Iterator[Mapping[str, Any]]:
        length = self.state.files.get(name, 0)
        if length:
            yield from text.parse(text_file.lines(self._place / name, length))

    def _sample(self, row: Mapping[str, Any]) -> SampleRow:
        value, status = row["value"], row["sensor_status"]
        if value is None and isinstance(status, str):
            value = float(status)
        return row["block_index"], row["channel"], row["sample_index"], None if value is None else float(value)
