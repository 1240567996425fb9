"""A folder of text files that is one worker's: its lock, its id, its runs' sidecars. Every call blocks."""

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from dtolbus import files
from dtolbus.errors import CannotStartError, DtolSinkError, DtolSinkWriteError
from dtolbus.jsonreading import read_json
from dtolbus.records import RunInfo
from dtolbus.topics import quote
from dtolbus_workers import text_file
from dtolbus_workers.destination import Position, Positions, RunBatch
from dtolbus_workers.presence import Presence
from dtolbus_workers.text_format import TextFormat
from dtolbus_workers.text_run import POSITION, RunFiles, TextBlocks, addition, file_name, is_of_run

FORMAT_VERSION = 1

_IDENTITY, _LOCK = "dtolbus.json", "dtolbus.lock"
_UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_OURS = re.compile(rf"({_UUID})\.((\d+\.)?(csv|jsonl)|(gaps|events|put-aside|blocks)\.jsonl)")
_TEMPORARY = re.compile(rf"\.(({_UUID})\.position|dtolbus)\.json\.\d+\.tmp")


class Identity(msgspec.Struct, frozen=True):
    """The folder's `dtolbus.json`."""

    kind: str
    destination_id: str
    format_version: int = FORMAT_VERSION


class TextFolder:
    """The folder, while a worker has it open: `<device>/<task>/<run_id>.…`, names percent-quoted."""

    def __init__(self, folder: Path, text: TextFormat) -> None:
        self.destination_id = ""
        self._folder = folder
        self._text = text
        self._lock = FileLock(folder / _LOCK, timeout=0)
        self._presence = Presence()
        self._runs: dict[str, RunFiles] = {}
        self._unsure: set[str] = set()
        """Runs whose last commit failed when its sidecar may have been in place already."""

    def open(self) -> Positions:
        """Lock the folder, cut its files back to what their sidecars count, and return the positions.

        Raises CannotStartError where it is another worker's, holds something else, cannot be written, or lacks rows
        that a sidecar counts.
        """
        try:
            check_ours(self._folder, self._text.extension)
            files.make_folder(self._folder)
            self._lock.acquire()
            self.destination_id = self._identity().destination_id
            self._presence = Presence(self._folder / _IDENTITY)
            self._runs = {state.run.run_id: self._restored(path, state) for path, state in self._sidecars()}
            self._remove_uncounted()
            files.sync_folders(self._folder, 2)  # sidecars of a process that was killed count from here on
        except Timeout as error:
            raise CannotStartError(
                f"{self._folder} is in use by another worker (it holds {_LOCK} there); stop that one, "
                f"or choose another folder"
            ) from error
        except OSError as error:
            raise CannotStartError(f"{self._folder}: cannot write there ({error}); choose another folder") from error
        return {run_id: Position(state.next, state.backfilled) for run_id, state in self._runs.items()}

    def commit(self, batch: RunBatch, blocks: TextBlocks) -> None:
        """Append the batch's rows, sync them, and count them in the sidecar: that is the commit.

        Raises DtolSinkError, DtolSinkWriteError, RecordRefusedError as Destination says; nothing counts then.
        """
        run = batch.run
        before = self._runs.get(run.run_id, RunFiles(run=run))
        if batch.from_index != before.next:
            raise DtolSinkError(
                f"{self._folder}: the batch of run {run.run_id} starts at {batch.from_index}, but the stored position "
                f"is {before.next}; nothing was stored"
            )
        self._check_there(before)
        added = addition(batch, before, self._text, blocks)
        place = stream_folder(self._folder, run)
        sidecar = place / file_name(run, POSITION)
        lengths = dict(before.files)
        try:
            if run.run_id not in self._runs:
                files.make_folder(place)
            self._take_back(sidecar, before)
            for name, chunk in added.chunks.items():
                lengths[name] = text_file.append_at(place / name, lengths.get(name, 0), chunk)
            after = msgspec.structs.replace(added.after, files=lengths, updated_at=datetime.now(UTC).isoformat())
            self._unsure.add(run.run_id)
            _write_sidecar(sidecar, after)
            self._unsure.discard(run.run_id)
        except OSError as error:
            raise DtolSinkWriteError(f"{place}: nothing of this batch counts as stored: {error}") from error
        self._check_there(after)
        self._runs[run.run_id] = after

    def _check_there(self, state: RunFiles) -> None:
        """Raise DtolSinkError where the folder, or rows of the run that count, are not there any more."""
        self._presence.check()
        place = stream_folder(self._folder, state.run)
        for name, length in state.files.items():
            if not text_file.holds(place / name, length):
                raise DtolSinkError(
                    f"{place / name} was removed or cut while its worker had it open; nothing of this batch counts as "
                    f"stored: start the worker again, it says what to do, or stores the run anew"
                )

    def _take_back(self, sidecar: Path, before: RunFiles) -> None:
        """Take back a sidecar whose commit failed: it must not count rows that are about to be cut off."""
        if before.run.run_id not in self._unsure:
            return
        if before.next:
            _write_sidecar(sidecar, before)
        else:
            sidecar.unlink(missing_ok=True)
            files.sync_dir(sidecar.parent)
        self._unsure.discard(before.run.run_id)

    def close(self) -> None:
        """Release the folder."""
        self._lock.release()

    def _identity(self) -> Identity:
        path = self._folder / _IDENTITY
        if not path.exists():
            made = Identity(kind=self._text.extension, destination_id=str(uuid.uuid4()))
            files.replace(path, msgspec.json.encode(made))
        return read_identity(path)

    def _sidecars(self) -> Iterator[tuple[Path, RunFiles]]:
        for path in sorted(self._folder.glob(f"*/*/*.{POSITION}")):
            if not path.name.startswith("."):
                state = read_sidecar(path)
                own = stream_folder(self._folder, state.run) / file_name(state.run, POSITION)
                if own != path:
                    raise CannotStartError(f"{path} is that of {own}, a copy: move it out of {self._folder}")
                yield path, state

    def _restored(self, sidecar: Path, state: RunFiles) -> RunFiles:
        for name, length in state.files.items():
            path = sidecar.parent / name
            size = path.stat().st_size if path.exists() else 0
            if size < length:
                raise CannotStartError(
                    f"{path} has {size} bytes, {sidecar.name} counts {length}: rows were removed; restore them, "
                    f"or move this run's files away, and it is stored again"
                )
            text_file.cut_back(path, length)
        return state

    def _remove_uncounted(self) -> None:
        """Remove files of a first commit that was never completed, and temporary ones."""
        counted = {name for state in self._runs.values() for name in state.files}
        for path in self._folder.glob("*/*/*"):
            if (_OURS.fullmatch(path.name) and path.name not in counted) or _TEMPORARY.fullmatch(path.name):
                path.unlink()


def _write_sidecar(path: Path, state: RunFiles) -> None:
    files.replace(path, msgspec.json.format(msgspec.json.encode(state), indent=1))


def stream_folder(folder: Path, run: RunInfo) -> Path:
    """Return the folder of the run's stream."""
    return folder / quote(run.device) / quote(run.task)


def check_ours(folder: Path, kind: str) -> None:
    """Raise CannotStartError unless the folder is of this kind, empty, or not there. Touches nothing."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CannotStartError(f"{folder} is a file; choose a folder")
    identity = folder / _IDENTITY
    if identity.exists():
        found = read_identity(identity)
        if (found.kind, found.format_version) != (kind, FORMAT_VERSION):
            raise CannotStartError(
                f"{folder} holds {found.kind} in format {found.format_version}, not {kind} in format {FORMAT_VERSION}; "
                f"choose another folder"
            )
        return
    foreign = [path.name for path in folder.iterdir() if path.name != _LOCK and not _TEMPORARY.fullmatch(path.name)]
    if any(folder.glob("*/*/*.position.json")):
        raise CannotStartError(
            f"{folder} is this sink's folder without its marker {_IDENTITY}: restore that file, or move the folder "
            f"away, and what the journal has is stored anew"
        )
    if foreign:
        raise CannotStartError(f"{folder} holds something else ({min(foreign)!r}); choose an empty or a new folder")


def read_identity(path: Path) -> Identity:
    """Return the folder's identity. Raises CannotStartError where it cannot be read."""
    try:
        return read_json(files.read(path), Identity)
    except ValueError as error:
        raise CannotStartError(f"{path} is not dtolbus's ({error}); choose another folder") from error


def identity_of(folder: Path) -> str | None:
    """Return the folder's id, or None where it has none. Raises CannotStartError where it cannot be read."""
    path = folder / _IDENTITY
    return read_identity(path).destination_id if path.exists() else None


def read_sidecar(path: Path) -> RunFiles:
    """Return what a run's sidecar counts. Raises CannotStartError where it cannot be read, or names other files."""
    try:
        state: RunFiles = read_json(files.read(path), RunFiles)
        for name in (*state.files, *state.data):
            if not is_of_run(name, state.run):
                raise ValueError(f"{name!r:.80} is no file of the run")
        return state
    except ValueError as error:
        raise CannotStartError(
            f"{path} is damaged ({error}); move this run's files away, and it is stored again"
        ) from error
