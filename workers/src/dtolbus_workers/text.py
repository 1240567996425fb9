"""The stand-alone CSV and JSONL sinks: readings as rows of one file, and a block's samples where that is asked for."""

import logging
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from dtolbus import files
from dtolbus.errors import CannotStartError, DtolSinkError, DtolSinkSchemaError, DtolSinkWriteError
from dtolbus.records import DaqBlock, DaqReading, Scalar
from dtolbus.sinks import SinkBase
from dtolbus_workers import text_file
from dtolbus_workers.columns import SAMPLE_COLUMNS
from dtolbus_workers.destination import OneThread
from dtolbus_workers.schema import READING_BASE, ColumnNames, SchemaLock, reading_names, reading_row, unwritable
from dtolbus_workers.text_format import CsvFormat, JsonlFormat, TextFormat, whole_rows

log = logging.getLogger(__name__)

_OF_SAMPLES = (SAMPLE_COLUMNS, SAMPLE_COLUMNS[1:])


class _TextSink(SinkBase):
    """What CSV and JSONL share: every write is whole rows, on the disk when it returns."""

    _format: TextFormat

    def __init__(self, path: Path | str, *, accept_blocks: bool = False, overwrite: bool = False) -> None:
        self._path = Path(path)
        self._accept_blocks = accept_blocks
        self._overwrite = overwrite
        self._thread: OneThread | None = None
        self._length = 0
        self._names = ColumnNames()

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    async def open(self) -> None:
        """Open the file; a torn last row is cut off.

        Raises CannotStartError where the file holds something else than this sink's rows, or cannot be written.
        """
        if self._thread is not None:
            return
        thread = OneThread(self._format.extension)
        try:
            await thread.run(self._open)
        except BaseException:
            thread.close()
            raise
        self._thread = thread
        log.info("opened", extra={"sink": self._format.extension, "path": str(self._path)})

    async def close(self) -> None:
        """Close the file; the sink may be opened again, and goes on behind what is there."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.close()
            log.info("closed", extra={"sink": self._format.extension, "path": str(self._path)})

    async def write(self, block: DaqBlock) -> None:
        """Append a row for each sample, channel by channel.

        Raises DtolSinkError without `accept_blocks`, or before `open`; DtolSinkWriteError when the outside failed.
        """
        name = type(self).__name__
        if not self._accept_blocks:
            raise DtolSinkError(
                f"{name} refuses blocks, a row for each sample makes a very large file: pass accept_blocks=True, "
                f"or store blocks with ParquetSink"
            )
        await self._opened("write").run(self._write_block, block)

    async def write_many(self, items: Sequence[DaqReading]) -> None:
        """Append the readings, all or none.

        Raises DtolSinkError before `open`, DtolSinkWriteError when the outside failed, DtolSinkSchemaError for a value
        that is neither number nor text.
        """
        thread = self._opened("write_many")
        if items:
            await thread.run(self._write_readings, list(items))

    def _opened(self, operation: str) -> OneThread:
        if self._thread is None:
            raise DtolSinkError(f"{type(self).__name__}: {operation} called before open()")
        return self._thread

    def _open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists() and self._overwrite:
                text_file.cut_back(self._path, 0)
            self._overwrite = False  # opened again, this sink continues its own rows
            self._length = self._adopt() if self._path.exists() else 0
            text_file.append_at(self._path, self._length, b"")
        except OSError as error:
            raise CannotStartError(f"{self._path}: cannot write there ({error}); choose another file") from error

    def _refused(self) -> CannotStartError:
        return CannotStartError(
            f"{self._path} exists and does not hold rows of {type(self).__name__}; choose another file, "
            f"or pass overwrite=True"
        )

    def _check_torn_first(self, row: bytes, length: int) -> None:
        """Refuse a file whose only, unfinished row does not begin like one of this sink's."""
        beginnings = (b"device,", b"run_id,", b'{"device":', b'{"run_id":')
        if not length and not any(row.startswith(begin[: len(row)]) for begin in beginnings):
            raise self._refused()

    @abstractmethod
    def _adopt(self) -> int:
        """Check that the file is this sink's own, and return the length of its whole rows."""

    @abstractmethod
    def _write_rows(self, rows: Sequence[Mapping[str, Scalar]]) -> None:
        """Append the readings' rows."""

    def _write_block(self, block: DaqBlock) -> None:
        self._append(self._format.block_rows(block))

    def _write_readings(self, readings: Sequence[DaqReading]) -> None:
        for place, reading in enumerate(readings):
            for name, value in reading.values.items():
                if (why := unwritable(value)) is not None:
                    raise DtolSinkSchemaError(
                        f"{type(self).__name__}: reading {place} of {len(readings)}, channel {name!r}: {why}; "
                        f"nothing was stored"
                    )
        names = self._names.of(reading_names(readings))
        kept = self._format.keeps_nonfinite
        self._write_rows([reading_row(reading, names, keeps_nan=kept, keeps_inf=kept) for reading in readings])

    def _append(self, data: bytes) -> None:
        try:
            self._length = text_file.append_at(self._path, self._length, data)
        except OSError as error:
            raise DtolSinkWriteError(f"{self._path}: nothing of this write was stored: {error}") from error


class CsvSink(_TextSink):
    """Writes readings to a CSV file (RFC 4180, UTF-8, lines end with LF); samples of blocks only with `accept_blocks`.

    The header comes from the first reading with values; later columns are dropped with one warning each. An existing
    file is continued where its header is this sink's, refused where it is not, and replaced with `overwrite`.
    """

    _format = CsvFormat()

    def __init__(self, path: Path | str, *, accept_blocks: bool = False, overwrite: bool = False) -> None:
        super().__init__(path, accept_blocks=accept_blocks, overwrite=overwrite)
        self._lock = SchemaLock(sink_name="csv", logger=log, base=READING_BASE)
        self._header: tuple[str, ...] = ()

    def _adopt(self) -> int:
        length, header = 0, b""
        for row in whole_rows(text_file.lines(self._path)):
            if not row.endswith(b"\n") or row.count(b'"') % 2:
                self._check_torn_first(row, length)
                break
            header = header or row
            length += len(row)
        self._lock.reset()
        self._header = self._columns_in(header) if header else ()
        if self._header not in ((), READING_BASE, *_OF_SAMPLES):
            self._lock.lock(self._header)
            self._names = ColumnNames({**_own_columns(self._header), **self._names.columns})
        return length

    def _columns_in(self, header: bytes) -> tuple[str, ...]:
        """Return the columns of a header; raises CannotStartError where they are no readings' and no samples'."""
        try:
            columns = self._format.columns_of(header)
        except ValueError as error:
            raise self._refused() from error
        if columns not in _OF_SAMPLES and not set(READING_BASE) <= set(columns):
            raise self._refused()
        return columns

    def _write_block(self, block: DaqBlock) -> None:
        self._append_under(SAMPLE_COLUMNS[block.run_id is None :], self._format.block_rows(block))

    def _write_rows(self, rows: Sequence[Mapping[str, Scalar]]) -> None:
        was_locked = self._lock.is_locked
        columns = self._lock.observe(rows)
        try:
            if self._header == READING_BASE != columns:
                self._widen(columns)
            data = b"".join(self._format.row(self._lock.project(row)) for row in rows)
            self._append_under(columns, data)
        except BaseException:
            if not was_locked and self._header != columns:
                self._lock.reset()
            raise

    def _append_under(self, columns: tuple[str, ...], data: bytes) -> None:
        """Append rows of these columns, behind the header where the file is empty."""
        if self._header and self._header != columns:
            raise DtolSinkSchemaError(
                f"{self._path} has the columns {', '.join(self._header[:4])}, …; a CSV file holds either readings or "
                f"samples: write the others to a file of their own"
            )
        self._append(data if self._header else self._format.header(columns) + data)
        self._header = columns

    def _widen(self, columns: tuple[str, ...]) -> None:
        """Give the file, which holds failed readings only as yet, the columns of the first that has values."""
        rows = self._format.parse(text_file.lines(self._path, self._length))
        wide = ({column: row.get(column) for column in columns} for row in rows)
        data = self._format.header(columns) + b"".join(map(self._format.row, wide))
        try:
            files.replace(self._path, data)
        except OSError as error:
            raise DtolSinkWriteError(f"{self._path}: nothing of this write was stored: {error}") from error
        self._header, self._length = columns, len(data)


def _own_columns(header: Sequence[str]) -> dict[str, str]:
    """Return the channels of a header that are called like their columns; numbered ones are given anew, in order."""
    names = [name for name in header if name not in READING_BASE]
    units = {f"{name}_unit" for name in names}
    return {name: name for name in names if name not in units and not re.fullmatch(r"ch_\d+", name)}


class JsonlSink(_TextSink):
    """Writes readings as strict JSON, an object a line; samples of blocks only with `accept_blocks`.

    NaN and infinities are null, and named in `sensor_status`. An existing file is continued where it holds such
    objects, refused where it does not, and replaced with `overwrite`.
    """

    _format = JsonlFormat()

    def _adopt(self) -> int:
        length = 0
        for line in text_file.lines(self._path):
            if not line.endswith(b"\n"):
                self._check_torn_first(line, length)
                break
            if not length:
                self._check_first(line)
            length += len(line)
        return length

    def _check_first(self, line: bytes) -> None:
        try:
            (row,) = self._format.parse([line])
        except ValueError as error:
            raise self._refused() from error
        if not isinstance(row, dict) or not {"device", "task", "t_mono_ns", "t_utc"} <= set(row):
            raise self._refused()

    def _write_rows(self, rows: Sequence[Mapping[str, Scalar]]) -> None:
        self._append(b"".join(map(self._format.row, rows)))
