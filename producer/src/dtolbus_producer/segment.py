"""One file of a run's journal while it is written."""

import contextlib
import os
import time
from pathlib import Path

from dtolbus import files
from dtolbus.chunks import encode_record
from dtolbus.framing import encode_file_header
from dtolbus.records import Record, RunInfo
from dtolbus.runs import segment_name


class Segment:
    """A new file in the run's folder, with its file header. Raises OSError; then there is no file."""

    def __init__(self, folder: Path, info: RunInfo, first_index: int) -> None:
        self.path = folder / segment_name(info.kind, first_index)
        self.first_index = first_index
        self.opened_mono_ns = time.perf_counter_ns()
        self.records = 0
        self.size = 0
        """Bytes of the file header and the whole records."""
        self.is_entry_durable = False
        """The folder's entry is on the medium too."""
        self._fd = files.open_new(self.path)
        try:
            self.size = files.append(self._fd, [encode_file_header(info)])
        except OSError:
            self.close()
            with contextlib.suppress(OSError):
                self.path.unlink()
            raise

    def append(self, record: Record) -> int:
        """Append a record with one call; return its bytes. Raises OSError; then `cut_back` is due."""
        size = files.append(self._fd, encode_record(record, self.records))
        self.records += 1
        self.size += size
        return size

    def cut_back(self) -> None:
        """Cut off what was half-written, if the disk lets us; otherwise readers pass over it."""
        with contextlib.suppress(OSError):
            files.truncate(self._fd, self.size)

    def sync(self) -> None:
        """Make all records durable. Raises OSError; then the file must be left."""
        files.sync(self._fd)

    def close(self) -> None:
        """Close the file. Does nothing when it is closed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def leave(self, durable: int) -> bool:
        """Close a file that is written no more; return whether it counts, having any of the `durable` records.

        One that has none loses its name, so that nobody takes what is in it for good.
        """
        if self._fd < 0:
            return False
        self.close()
        if self.first_index < durable:
            return True
        os.replace(self.path, self.path.with_name(f"{self.path.name}.{time.time_ns()}.bad"))
        return False
