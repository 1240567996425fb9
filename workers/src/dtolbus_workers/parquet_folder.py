"""The files of a bus's Parquet folder: `<device>/<task>/<run_id>/part-<from:012d>.parquet`. Imports pyarrow."""

import contextlib
import logging
import uuid
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import filelock
import msgspec
import pyarrow as pa

from dtolbus import files, topics
from dtolbus.errors import CannotStartError, DtolSinkError
from dtolbus.jsonreading import read_json
from dtolbus.parquet.footer import FORMAT, USUAL, Form, PartFooter, Span, footer_keys, parse_footer
from dtolbus.parquet.places import IDENTITY, part_name, parts_of, run_folder
from dtolbus.records import RunInfo
from dtolbus_workers import parquet_content, parquet_parts
from dtolbus_workers.cells import ColumnKey
from dtolbus_workers.destination import Position, RunBatch
from dtolbus_workers.parquet_content import Content

log = logging.getLogger(__name__)

LOCK = ".dtolbus.lock"


class _Identity(msgspec.Struct, frozen=True):
    kind: str
    format: str
    destination_id: str


class _Run(NamedTuple):
    """Where a run stands in the folder."""

    position: Position
    columns: dict[ColumnKey, str]
    parts: int
    form: Form
    end: Span | None
    """Of its last part."""


class ParquetFolder:
    """A folder of parts while a worker has it open. Every call blocks."""

    def __init__(self, folder: Path, form: Form = USUAL) -> None:
        self._folder = folder
        self._form = form
        self._lock = filelock.FileLock(folder / LOCK, timeout=0, thread_local=False)
        self._runs: dict[str, _Run] = {}
        self._unsure: set[Path] = set()
        self._others: Counter[Form] = Counter()
        self.destination_id = ""

    def open(self) -> dict[str, Position]:
        """Lock the folder, remove unfinished files, and return the runs' positions. It reads one part of each run.

        Raises:
            CannotStartError: another worker has it, it holds something else, or a run's parts have a hole.
        """
        try:
            files.make_folder(self._folder)
            self._lock.acquire()
        except filelock.Timeout:
            raise CannotStartError(f"{self._folder} is in use by another parquet worker; stop that one first") from None
        except OSError as error:
            raise CannotStartError(f"{self._folder} cannot be written: {error}; choose another folder") from error
        try:
            self.destination_id = self._identity()
            found = {topics.unquote(folder.name): self._found(folder) for folder in self._folder.glob("*/*/*")}
            files.sync_folders(self._folder, 3)  # parts of a process that was killed count from here on
        except OSError as error:
            self._lock.release()
            raise CannotStartError(f"{self._folder} cannot be used: {error}; choose another folder") from error
        except BaseException:
            self._lock.release()
            raise
        self._runs = {run_id: run for run_id, run in found.items() if run.position.next}
        for form, runs in self._others.items():
            facts = {"layout": form.layout, "values": form.values, "runs": runs}
            log.info("runs that were begun in another form keep it", extra=facts)
        return {run_id: run.position for run_id, run in self._runs.items()}

    def close(self) -> None:
        """Release the folder."""
        self._lock.release()

    def _identity(self) -> str:
        path = self._folder / IDENTITY
        if path.exists():
            return read_identity(self._folder).destination_id
        for temp in self._folder.glob(f".{IDENTITY}.*.tmp"):
            temp.unlink()  # of an open that was killed
        others = sorted(entry.name for entry in self._folder.iterdir() if entry.name != LOCK)
        if any(self._folder.glob("*/*/*/part-*.parquet")):
            raise CannotStartError(
                f"{self._folder} is this sink's folder without its marker {IDENTITY}: restore that file, or move the "
                f"folder away, and what the journal has is stored anew"
            )
        if others:
            raise CannotStartError(
                f"{self._folder} holds {others[0]!r} and is not a dtolbus folder; choose an empty or a new one"
            )
        identity = _Identity("parquet", FORMAT, str(uuid.uuid4()))
        files.replace(path, msgspec.json.format(msgspec.json.encode(identity)))
        return identity.destination_id

    def _found(self, folder: Path) -> _Run:
        """Return where the run stands, after its unfinished files are gone."""
        for temp in folder.glob(".*.tmp"):
            temp.unlink()
        paths = parts_of(folder)
        if not paths:
            return _Run(Position(0, 0), {}, 0, self._form, None)
        last = read_part(paths[-1])
        self._others.update([last.form] if last.form != self._form.of_run(last.run) else [])
        if last.parts != len(paths):
            _check_joined(paths)
        columns = {
            ColumnKey(last.run.device, last.run.task, channel, kind): column for channel, kind, column in last.columns
        }
        return _Run(Position(last.to_index, last.backfilled), columns, len(paths), last.form, last.span)

    def commit(self, batch: RunBatch) -> None:
        """Publish the batch as the run's next part, durably.

        Raises:
            DtolSinkError: the batch does not continue the run, or the run's parts are not there any more.
            RecordRefusedError: a record at fault.
            OSError: the disk is full, or fails; nothing is stored.
        """
        run = self._runs.get(batch.run.run_id) or self._begun(batch.run)
        if batch.from_index != run.position.next:
            raise DtolSinkError(
                f"{self._folder}: run {batch.run.run_id} is at {run.position.next}, a batch from {batch.from_index} "
                f"does not continue it"
            )
        if batch.to_index == batch.from_index:
            return
        content = parquet_content.content(batch, run.form, run.columns)
        footer = parquet_content.part_footer(batch, content, run.position.backfilled, run.parts + 1, run.end)
        folder = run_folder(self._folder, batch.run)
        if not run.position.next:
            files.make_folder(folder)
        elif not folder.exists():
            raise DtolSinkError(
                f"{folder} was removed while its worker had it open; nothing of this batch counts as stored: start the "
                f"worker again, it stores the run anew"
            )
        self._publish(folder / part_name(batch.from_index), content, footer)
        position = Position(footer.to_index, footer.backfilled)
        self._runs[batch.run.run_id] = _Run(position, content.columns, footer.parts, run.form, footer.span)

    def _begun(self, run: RunInfo) -> _Run:
        """Return a run of which nothing is stored yet."""
        form = self._form.of_run(run)
        if run.kind == "blocks" and form != self._form:
            facts = {"run": run.run_id, "dtype": run.dtype, "values": form.values}
            log.info("the board gives no codes: its values are stored", extra=facts)
        return _Run(Position(0, 0), {}, 0, form, None)

    def _publish(self, final: Path, content: Content, footer: PartFooter) -> None:
        if final in self._unsure:
            final.unlink(missing_ok=True)  # published by a call that then failed: its position was never told
        self._unsure.add(final)
        options = parquet_parts.writer_options(content.schema, content.compression, use_dictionary=True)
        parquet_parts.publish(final, content.schema, content.tables, footer_keys(footer, self.destination_id), options)
        self._unsure.discard(final)


def _check_joined(paths: list[Path]) -> None:
    """Raise CannotStartError where a run's parts do not follow each other."""
    end = 0
    for path in paths:
        footer = read_part(path)
        if footer.from_index != end:
            raise CannotStartError(
                f"{path} begins at record {footer.from_index}, but the parts before it end at {end}: put the missing "
                f"part back, or move {path.parent} away to fetch the run again"
            )
        end = footer.to_index


def read_identity(folder: Path) -> _Identity:
    """Return what the folder says it is.

    Raises:
        CannotStartError: it is no Parquet folder of ours.
    """
    path = folder / IDENTITY
    with contextlib.suppress(ValueError, OSError):
        identity: _Identity = read_json(files.read(path), _Identity)
        if identity.kind == "parquet" and identity.format == FORMAT:
            return identity
    raise CannotStartError(f"{path} is not that of a parquet folder in format {FORMAT}; choose another folder")


def read_part(path: Path) -> PartFooter:
    """Return what the part says about itself.

    Raises:
        CannotStartError: it is damaged, or no part.
    """
    try:
        return parse_footer(parquet_parts.footer(path))
    except (ValueError, OSError, msgspec.MsgspecError, pa.ArrowException) as error:
        raise CannotStartError(
            f"{path} cannot be read ({error}): put it back, or move {path.parent} away to fetch the run again"
        ) from error
