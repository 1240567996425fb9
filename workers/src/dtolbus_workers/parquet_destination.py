"""ParquetDestination: a folder of Parquet parts, one a commit, that any reader takes as one table."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dtolbus.errors import DtolSinkError, DtolSinkWriteError
from dtolbus.parquet.footer import Form, Layout, Values
from dtolbus.parquet.places import IDENTITY
from dtolbus.records import RunInfo
from dtolbus_workers import extras
from dtolbus_workers.destination import OneThread, Positions, RunBatch, Stored
from dtolbus_workers.presence import Presence

log = logging.getLogger(__name__)


class ParquetDestination:
    """The Parquet end of the bus: every sample of the blocks and every reading, in `folder`.

    A commit is one new file, so it is there whole or not at all. `layout` and `values` say how the samples of blocks
    lie; a run keeps those with which it was begun in this folder.

    Raises:
        ValueError: `values` are codes, and the layout is not wide.
    """

    kind = "parquet"

    def __init__(self, folder: str | Path, *, layout: Layout = "long", values: Values = "float64") -> None:
        self._path = Path(folder)
        self._form = Form(layout, values)
        self._folder: Any = None
        self._thread: OneThread | None = None
        self._presence = Presence()
        self.destination_id = ""

    async def open(self) -> Positions:
        """Lock the folder, remove unfinished files, return the runs' positions.

        Raises:
            CannotStartError: the folder is another worker's, holds something else, or misses a part.
            DtolSinkDependencyError: pyarrow is not installed.
        """
        thread = OneThread("parquet")
        try:
            positions = await thread.run(self._open)
        except BaseException:
            thread.close()
            raise
        self._thread = thread
        return positions

    def _open(self) -> Positions:
        engine = _engine("parquet_folder")
        folder = engine.ParquetFolder(self._path, self._form)
        positions: Positions = folder.open()
        self._presence = Presence(self._path / IDENTITY)
        self._folder, self.destination_id = folder, folder.destination_id
        return positions

    async def commit(self, batch: RunBatch) -> None:
        """Store the batch as one part.

        Raises:
            DtolSinkError: the batch does not continue the run's position, the destination is not open, or not there any
                more.
            RecordRefusedError: a record at fault.
            DtolSinkWriteError: the disk is full, or fails; nothing is stored.
        """
        if self._thread is None:
            raise DtolSinkError(f"{self._path} is not open: call open() before commit()")
        try:
            await self._thread.run(self._commit, batch)
        except OSError as error:
            raise DtolSinkWriteError(f"{self._path} cannot be written: {error}") from error

    def _commit(self, batch: RunBatch) -> None:
        self._presence.check()
        self._folder.commit(batch)
        self._presence.check()  # it is told only of a part that lies where it is looked for

    async def finalize(self, run: RunInfo) -> None:
        """Do nothing: each part is complete."""

    async def close(self) -> None:
        """Release the folder."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await thread.run(self._folder.close)
            thread.close()

    @staticmethod
    def stored(place: str, options: Mapping[str, str], run: RunInfo) -> Stored | None:
        """Return what the folder `place` holds of the run, for `verify`: see `stored`."""
        del options
        return stored(place, run)


def stored(folder: str | Path, run: RunInfo) -> Stored | None:
    """Return what the folder holds of the run, read without a lock, or None. It blocks.

    Raises:
        CannotStartError: a part is damaged.
    """
    found: Stored | None = _engine("parquet_reading").read_run(Path(folder), run)
    return found


def _engine(module: str) -> Any:
    return extras.load(f"dtolbus_workers.{module}", package="pyarrow", extra="parquet")
