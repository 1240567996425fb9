"""ParquetSink: blocks or readings in one Parquet file."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from dtolbus.errors import DtolSinkSchemaError, DtolSinkWriteError
from dtolbus.records import DaqBlock, DaqReading
from dtolbus.rows import channel_columns, reading_to_row
from dtolbus.sinks import SinkBase
from dtolbus_workers import extras
from dtolbus_workers.columns import SAMPLE_COLUMNS
from dtolbus_workers.destination import OneThread

log = logging.getLogger(__name__)

Shape = Literal["readings", "blocks"]
Compression = Literal["zstd", "snappy", "gzip", "brotli", "lz4", "none"]


class SinkState(msgspec.Struct, frozen=True):
    """What a ParquetSink has locked; kept in each part, so that the next open goes on with it."""

    shape: Shape
    columns: tuple[str, ...]
    names: dict[str, str] = {}
    """Each channel's column, of readings."""
    locked: bool = True
    """Whether a record with values has fixed the columns."""


class ParquetSink(SinkBase):
    """One Parquet file of blocks (a row for each sample of each channel) or of readings (a row each).

    The first record locks which of the two; the first reading with values locks the channels, and later ones are
    dropped with a warning. Each write becomes a row group. The file appears at `close`; until then its parts lie in
    `<path>.parts/`, from where the next open goes on if the process was killed. Opening an own file again appends.

    `compression`: codec of every column. `use_dictionary`: dictionary encoding of text columns. `row_group_size`: most
    rows of a row group; None: all of a write. `overwrite`: replace what is at `path`, whatever it is.

    Raises:
        ValueError: `row_group_size` is below 1.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        compression: Compression = "zstd",
        use_dictionary: bool = True,
        row_group_size: int | None = None,
        overwrite: bool = False,
    ) -> None:
        if row_group_size is not None and row_group_size < 1:
            raise ValueError(f"row_group_size must be >= 1 if set, got {row_group_size!r}")
        self._path = Path(path)
        self._compression: Compression = compression
        self._use_dictionary = use_dictionary
        self._row_group_size = row_group_size
        self._overwrite = overwrite
        self._tables: Any = None
        self._thread: OneThread | None = None
        self._file: Any = None
        self._state: SinkState | None = None
        self._warned: set[str] = set()

    @property
    def path(self) -> Path:
        """Where the file is, once the sink is closed."""
        return self._path

    @property
    def compression(self) -> Compression:
        """The codec of every column."""
        return self._compression

    @property
    def shape(self) -> Shape | None:
        """What the file holds, or None before the first write."""
        return None if self._state is None else self._state.shape

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The columns in order, or None before the first write."""
        return None if self._state is None else self._state.columns

    async def open(self) -> None:
        """Load pyarrow, make the parent folder, lock the file.

        Raises:
            DtolSinkDependencyError: pyarrow is not installed.
            DtolSinkError: the path holds something that is not a ParquetSink's, or another sink has it open.
            DtolSinkWriteError: the folder cannot be written.
        """
        if self._file is not None:
            return
        thread = OneThread("parquet-sink")
        try:
            await thread.run(self._open)
        except BaseException:
            thread.close()
            raise
        self._thread = thread

    def _open(self) -> None:
        extra = {"package": "pyarrow", "extra": "parquet"}
        module = extras.load("dtolbus_workers.growing_file", **extra)
        self._tables = extras.load("dtolbus_workers.arrow_infer", **extra)
        file = module.GrowingFile(self._path, self._compression, self._use_dictionary, self._row_group_size)
        self._state = self._outside(lambda: file.open(self._overwrite), "cannot be opened")
        self._file = file
        log.info("opened", extra={"path": str(self._path), "compression": self._compression})

    async def close(self) -> None:
        """Publish the file.

        Raises:
            DtolSinkWriteError: the disk is full, or fails; what was written stays in `<path>.parts/`.
        """
        if self._thread is None:
            return
        thread, self._thread = self._thread, None
        try:
            await thread.run(self._close)
        finally:
            thread.close()

    def _close(self) -> None:
        file, self._file = self._file, None
        self._overwrite = False  # what is there from now on is this sink's own
        try:
            self._outside(file.publish, f"cannot be completed, its parts stay in {file.parts}")
        finally:
            file.close()
        log.info("closed", extra={"path": str(self._path)})

    async def write(self, block: DaqBlock) -> None:
        """Append one block, a row for each sample of each channel.

        Raises:
            RuntimeError: the sink is not open.
            DtolSinkSchemaError: the file holds readings, or the block's arrays do not fit.
            DtolSinkWriteError: the disk is full, or fails; nothing of the block is stored.
        """
        await self._checked("write", "blocks").run(self._write, block)

    def _write(self, block: DaqBlock) -> None:
        table = self._fitting(lambda: self._tables.block_table(block))
        if not len(table) and block.error is not None:
            log.warning(
                "a failed block has no samples, so no rows", extra={"block": block.index, "error": str(block.error)}
            )
        self._add(table, SinkState("blocks", SAMPLE_COLUMNS[1:]))

    async def write_many(self, items: Sequence[DaqReading]) -> None:
        """Append the readings, all or none.

        Raises:
            RuntimeError: the sink is not open.
            DtolSinkSchemaError: the file holds blocks, or a value fits no column (an int beyond 64 bits).
            DtolSinkWriteError: the disk is full, or fails; nothing of them is stored.
        """
        thread = self._checked("write_many", "readings")
        if items:
            await thread.run(self._write_many, list(items))

    def _write_many(self, readings: list[DaqReading]) -> None:
        state = self._state
        if state is None or not state.locked:
            state = SinkState("readings", *_reading_columns(readings))
        elif any(reading.sensor_status for reading in readings) and "sensor_status" not in state.columns:
            state = SinkState("readings", (*state.columns, "sensor_status"), state.names)
        self._warn_of_dropped(readings, state.names)
        self._add(self._fitting(lambda: self._tables.inferred_table(readings, state.names, state.columns)), state)

    def _add(self, table: Any, state: Any) -> None:
        self._outside(lambda: self._file.add(table, state), "cannot be written")
        self._state = state

    def _checked(self, operation: str, shape: Shape) -> OneThread:
        if self._thread is None:
            raise RuntimeError(f"ParquetSink: {operation} called before open()")
        if self.shape not in (None, shape):
            raise DtolSinkSchemaError(
                f"{self._path} holds {self.shape}: {operation} would mix {shape} in; write them to another file"
            )
        return self._thread

    def _warn_of_dropped(self, readings: Sequence[DaqReading], names: dict[str, str]) -> None:
        for channel in dict.fromkeys(channel for reading in readings for channel in reading.values):
            if channel not in names and channel not in self._warned:
                self._warned.add(channel)
                log.warning("channel dropped: the columns are locked", extra={"sink": "parquet", "channel": channel})

    def _fitting(self, make: Callable[[], Any]) -> Any:
        """Return the table that `make` makes. Raises DtolSinkSchemaError where a value fits no column."""
        try:
            return make()
        except (ValueError, OverflowError) as error:
            raise DtolSinkSchemaError(f"{self._path}: {error}; nothing of this write is stored") from error

    def _outside(self, call: Callable[[], Any], what: str) -> Any:
        """Call, and turn what the disk refuses into DtolSinkWriteError."""
        try:
            return call()
        except OSError as error:
            raise DtolSinkWriteError(f"{self._path} {what}: {error}") from error


def _reading_columns(readings: Sequence[DaqReading]) -> tuple[tuple[str, ...], dict[str, str], bool]:
    """Return the columns that these readings lock, the channels' ones, and whether any has a value."""
    names = channel_columns(dict.fromkeys(name for reading in readings for name in [*reading.values, *reading.units]))
    rows = [reading_to_row(reading, names) for reading in readings]
    keys = dict.fromkeys(key for row in rows for key in row)
    errors = ("error_type", "error_message")
    values = [key for key in keys if key not in errors and not (key.endswith("_unit") and key[:-5] in names.values())]
    units = [key for key in keys if key.endswith("_unit") and key[:-5] in names.values()]
    status = ["sensor_status"] if any(reading.sensor_status for reading in readings) else []
    return (*values, *units, *errors, *status), names, any(reading.values for reading in readings)
