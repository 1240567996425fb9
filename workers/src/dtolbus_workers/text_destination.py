"""The bus's CSV and JSONL folders: a file for each run, and beside it what counts of it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, get_args

from dtolbus.errors import DtolSinkError, UsageError
from dtolbus.records import RunInfo
from dtolbus_workers.destination import OneThread, Positions, RunBatch, Stored
from dtolbus_workers.text_folder import TextFolder
from dtolbus_workers.text_format import CsvFormat, JsonlFormat, TextFormat
from dtolbus_workers.text_run import TextBlocks
from dtolbus_workers.text_stored import read_run

log = logging.getLogger(__name__)


class _TextDestination:
    """What CSV and JSONL share: all but the rows' rendering. One process at a time holds a folder.

    With `blocks="skip"` the folder takes runs of readings only. Blocking calls run on a thread of its own.
    """

    kind: str
    _text: ClassVar[TextFormat]

    def __init__(self, folder: Path | str, *, blocks: TextBlocks = "skip") -> None:
        if blocks not in get_args(TextBlocks):
            raise UsageError(f"blocks must be one of {', '.join(get_args(TextBlocks))}, got {blocks!r}")
        self._path = Path(folder)
        self._blocks: TextBlocks = blocks
        self._folder = TextFolder(self._path, self._text)
        self._thread: OneThread | None = None

    @property
    def destination_id(self) -> str:
        """A UUID kept in the folder; empty until it is open."""
        return self._folder.destination_id

    async def open(self) -> Positions:
        """Lock the folder, cut its files back to the last commit, and return the positions.

        Raises CannotStartError where another process holds it, where it holds something else, or lacks rows.
        """
        if self._thread is not None:
            raise DtolSinkError(f"{self._path} is open already")
        thread = OneThread(self.kind)
        try:
            positions = await thread.run(self._folder.open)
        except BaseException:
            await thread.run(self._folder.close)
            thread.close()
            raise
        self._thread = thread
        return positions

    async def commit(self, batch: RunBatch) -> None:
        """Append the batch's rows, sync them, then the position after them.

        Raises UsageError for blocks that `blocks="skip"` leaves out, DtolSinkError for a batch that does not continue
        the stored position, DtolSinkWriteError when the outside failed, RecordRefusedError for a value that is neither
        number nor text.
        """
        if batch.blocks and self._blocks == "skip":
            raise UsageError(
                f"the {self.kind} sink stores readings, and {batch.run.device}/{batch.run.task} sends blocks: narrow "
                f"--topic to reading/…, or give --blocks summary or --blocks samples"
            )
        await self._opened().run(self._folder.commit, batch, self._blocks)

    async def finalize(self, run: RunInfo) -> None:
        """Do nothing: each commit leaves whole files."""
        self._opened()
        log.info("run complete", extra={"sink": self.kind, "run": run.run_id})

    async def close(self) -> None:
        """Release the folder."""
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                await thread.run(self._folder.close)
            finally:
                thread.close()

    def _opened(self) -> OneThread:
        if self._thread is None:
            raise DtolSinkError(f"{self._path} is not open")
        return self._thread

    @classmethod
    def stored(cls, place: str, options: Mapping[str, str], run: RunInfo) -> Stored | None:
        """Return what the folder `place` holds of the run, or None; for `verify`, without a lock.

        Raises CannotStartError where the folder is not of this kind.
        """
        del options
        return read_run(Path(place), cls._text, run)


class CsvDestination(_TextDestination):
    """`<folder>/<device>/<task>/<run_id>.csv`; a column that comes in later begins `<run_id>.2.csv`."""

    kind = "csv"
    _text = CsvFormat()


class JsonlDestination(_TextDestination):
    """`<folder>/<device>/<task>/<run_id>.jsonl`."""

    kind = "jsonl"
    _text = JsonlFormat()
