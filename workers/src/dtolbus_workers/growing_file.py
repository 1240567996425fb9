"""One Parquet file that grows in parts: a part a write in `<path>.parts/`, joined and published at the close.

Each part is a whole Parquet file, so whatever kills the process, the parts written before are kept, and the next open
goes on from them. Imports pyarrow.
"""

import contextlib
import uuid
from pathlib import Path
from typing import Any

import filelock
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from dtolbus import files
from dtolbus.errors import DtolSinkError
from dtolbus.jsonreading import read_json
from dtolbus_workers import parquet_parts
from dtolbus_workers.arrow_infer import has_large_ints, widened, wider
from dtolbus_workers.parquet import SinkState

OWN = "dtolbus.parquet_sink"
"""The footer's key that says that a file is a ParquetSink's, with the SinkState it was left in."""
PART = "dtolbus.part"
"""The footer's key of a part's id; a joined file has its last part's."""


class GrowingFile:
    """The file at `path`, while a sink has it open. Every call blocks."""

    def __init__(self, path: Path, compression: str | None, use_dictionary: bool, rows_a_group: int | None) -> None:
        self._path = path
        self._parts = path.with_name(f"{path.name}.parts")
        self._compression = compression
        self._use_dictionary = use_dictionary
        self._rows_a_group = rows_a_group
        self._lock = filelock.FileLock(self._parts / ".lock", timeout=0, thread_local=False)

    def open(self, overwrite: bool) -> SinkState | None:
        """Lock the file and return what it holds already; None: nothing.

        Raises:
            DtolSinkError: the path holds something else, or another sink has it open.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if not overwrite:
            self._refuse_foreign()
        self._parts.mkdir(exist_ok=True)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise DtolSinkError(f"{self._path} is open in another ParquetSink; close that first") from None
        for temp in self._parts.glob(".*.tmp"):
            temp.unlink()
        self._start_over = overwrite
        if overwrite:
            self._remove_parts()
            return None
        return self._found()

    def _refuse_foreign(self) -> None:
        if not self._path.exists() or (self._path.is_file() and self._path.stat().st_size == 0):
            return
        try:
            own = self._path.is_file() and OWN in parquet_parts.footer(self._path)
        except (pa.ArrowInvalid, OSError):
            own = False
        if not own:
            raise DtolSinkError(
                f"{self._path} exists and is not a ParquetSink's; choose another path, or pass overwrite=True"
            )

    def _found(self) -> SinkState | None:
        """Return the state that the file or its last part was left in."""
        parts = self._listed()
        last = parquet_parts.footer(parts[-1]) if parts else {}
        if self._is_filled():
            whole = parquet_parts.footer(self._path)
            if parts and whole.get(PART) == last.get(PART):
                self._remove_parts()  # joined, and killed before they went
                last = {}
            last = last or whole
        return self._state(last[OWN]) if OWN in last else None

    def _state(self, text: str) -> SinkState:
        try:
            return read_json(text, SinkState)
        except ValueError as error:
            raise DtolSinkError(
                f"{self._path}: its footer is damaged ({error}); choose another path, or pass overwrite=True"
            ) from error

    def add(self, table: Any, state: SinkState) -> None:
        """Store the table as the next part, durably.

        Raises:
            OSError: the disk is full, or fails; nothing is stored.
        """
        parts = self._listed()
        if not parts and self._path.exists():
            if self._start_over or not self._is_filled():
                self._path.unlink()
            else:
                parts = [self._part(0)]
                files.publish_new(self._path, parts[0])
        self._start_over = False
        number = int(parts[-1].stem.removeprefix("part-")) + 1 if parts else 0
        metadata = self._metadata(state, uuid.uuid4().hex)
        options = parquet_parts.writer_options(table.schema, self._compression, self._use_dictionary)
        parquet_parts.publish(self._part(number), table.schema, [table], metadata, options, self._rows_a_group)

    def publish(self) -> None:
        """Join the parts to the file at the path, and remove them; without parts nothing changes.

        Raises:
            OSError: the disk is full, or fails; the parts stay.
        """
        parts = self._listed()
        if not parts:
            return
        if len(parts) == 1:
            files.publish_new(parts[0], self._path)
            files.sync_dir(self._path.parent)
            return
        temp = self._parts / ".joined.tmp"
        self._join(parts, temp)
        files.publish_new(temp, self._path)
        files.sync_dir(self._path.parent)
        self._remove_parts()

    def _join(self, parts: list[Path], temp: Path) -> None:
        last = parquet_parts.footer(parts[-1])
        state = self._state(last[OWN])
        schema = self._joined_schema(parts, state).with_metadata(self._metadata(state, last[PART]))
        options = parquet_parts.writer_options(schema, self._compression, self._use_dictionary)
        with parquet_parts.appending(temp) as out, pq.ParquetWriter(out, schema, **options) as writer:
            for table in parquet_parts.row_groups(parts):
                writer.write_table(widened(table, schema), row_group_size=self._rows_a_group or len(table))

    def _joined_schema(self, parts: list[Path], state: SinkState) -> Any:
        """Return the columns of all parts, each with a type that holds all its values."""
        kinds: dict[str, Any] = {}
        for part in parts:
            for field in pq.read_schema(part):
                known = kinds.get(field.name, pa.null())
                large = {known, field.type} == {pa.int64(), pa.float64()} and self._large_ints(parts, field.name)
                kinds[field.name] = wider(known, field.type, large)
        order = [*[name for name in state.columns if name in kinds], *[n for n in kinds if n not in state.columns]]
        return pa.schema([(name, kinds[name]) for name in order])

    def _large_ints(self, parts: list[Path], name: str) -> bool:
        for part in parts:
            schema = pq.read_schema(part)
            if name in schema.names and schema.field(name).type == pa.int64():
                if has_large_ints(pq.read_table(part, columns=[name], partitioning=None).column(name)):
                    return True
        return False

    def close(self) -> None:
        """Release the file; the folder of the parts goes if it is empty."""
        self._lock.release()
        if not self._listed():
            with contextlib.suppress(OSError):
                (self._parts / ".lock").unlink(missing_ok=True)
                self._parts.rmdir()

    @property
    def parts(self) -> Path:
        """The folder of the parts."""
        return self._parts

    def _metadata(self, state: SinkState, part: str) -> dict[str, str]:
        return {OWN: msgspec.json.encode(state).decode(), PART: part}

    def _is_filled(self) -> bool:
        return self._path.is_file() and self._path.stat().st_size > 0

    def _part(self, number: int) -> Path:
        return self._parts / f"part-{number:012d}.parquet"

    def _listed(self) -> list[Path]:
        return sorted(self._parts.glob("part-*.parquet"))

    def _remove_parts(self) -> None:
        for part in self._listed():
            part.unlink()
