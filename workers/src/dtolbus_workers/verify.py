"""`dtolbus verify`: every registered sink against the journal, run by run."""

import contextlib
import logging
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from dtolbus.embedded import is_embedded, serving
from dtolbus.errors import CannotStartError, DtolbusError, MisplacedRunError, RawFormatError, UsageError
from dtolbus.keyring import AllowedKeys, KeyRing
from dtolbus.manifest import DELETED, Manifest
from dtolbus.ranges import in_words
from dtolbus.records import DaqEvent, Gap, Record, RunInfo, RunStatus
from dtolbus.registrations import SINKS_FOLDER, Registration, usable_registration
from dtolbus.remarks import Tally, line_of
from dtolbus.runs import RESTORE, RUN_FILE, RunFolder, placed_run, whole_run_id
from dtolbus.topics import stream_name
from dtolbus_workers.certificate import Certificate, Line, compare
from dtolbus_workers.destination import Stored
from dtolbus_workers.mending import mending, stored_anew
from dtolbus_workers.registry import destination_class
from dtolbus_workers.settling import settled

log = logging.getLogger(__name__)

_LEAST_ROOM_BYTES = 16 << 20


class JournalRun(Protocol):
    """One run of a journal: `RunFolder` of one on this machine, `RemoteRun` of one behind a gateway."""

    @property
    def info(self) -> RunInfo:
        """The run header."""

    def status(self) -> RunStatus:
        """Return how far the run is."""

    def records(self, from_index: int, to_index: int) -> Iterator[Record | Gap]:
        """Yield the records in order, and a Gap for each range that cannot be read."""

    def manifest(self) -> Manifest:
        """Return what was deleted."""


Tell = Callable[[str, int], None]
"""Is told what is read now (`the journal`, or a sink's name), and about how many percent of all are done."""


class _Tally:
    """Counts the records that were read, of all that are to be."""

    def __init__(self, tell: Tell, total: int) -> None:
        self._tell = tell
        self._total = total
        self._done = 0

    def each(self, what: str, records: Iterator[Record | Gap]) -> Iterator[Record | Gap]:
        """Pass the records on, and tell how far it is."""
        for record in records:
            self._done += record.to_index - record.from_index if isinstance(record, Gap) else 1
            self._tell(what, min(100, 100 * self._done // max(1, self._total)))
            yield record


def unheard(what: str, percent: int) -> None:
    """Tell nobody."""


def verify(
    data: Path, run_ids: Collection[str] = (), sink_names: Collection[str] = (), tell: Tell = unheard
) -> Certificate:
    """Compare every registered sink of a data folder with its journal; all sinks and runs, or those named.

    A run may be named by how its id begins. `tell` is called with each record. What cannot be read is a failure in the
    certificate, and the rest is compared all the same.
    Raises UsageError where there is no journal, no such run, or no such sink.
    """
    if not (data / "journal").is_dir():
        raise UsageError(f"{data} holds no journal; name the data folder with --data")
    certificate = Certificate()
    folders = {folder.info.run_id: folder for folder in _folders(data / "journal", certificate)}
    sinks = list(_registrations(data, sink_names, certificate))
    known = {*folders, *(run_id for sink in sinks for run_id in sink.positions)}
    run_ids = {whole_run_id(given, known) for given in run_ids}
    if absent := run_ids - known:
        raise UsageError(f"there is no run {min(absent)} in {data / 'journal'}")
    if absent := set(sink_names) - {sink.name for sink in sinks}:
        raise UsageError(f"no sink {min(absent)} has registered in {data}")
    certificate.left_out = len(set(folders) - run_ids) if run_ids else 0
    sinks = [_moved(sink, data, certificate) for sink in sinks]
    for sink in sinks:
        for run_id in sorted(set(sink.positions) - set(folders)):
            was_here = sink.positions[run_id].stream  # told by an acknowledgement; a worker does not know it
            told = certificate.failures if was_here else certificate.remarks
            told.append(f"{sink.name}: has run {run_id}, which the journal does not have")
        if _is_of_another_folder(sink, data.absolute()):
            certificate.remarks.append(f"{sink.name} lies outside this folder: {sink.place}")
    if not sink_names:
        certificate.remarks += _never_came(data, {sink.name for sink in sinks})
    with contextlib.ExitStack() as held:
        sinks = [_reachable(sink, data, held, certificate) for sink in sinks]
        chosen = {run_id: folder for run_id, folder in folders.items() if not run_ids or run_id in run_ids}
        tally = _Tally(tell, sum(_passes(folder, sinks) for folder in chosen.values()))
        for run_id, folder in chosen.items():
            with folder:
                try:
                    _check_run(certificate, folder, sinks, tally)
                except OSError as error:
                    certificate.fail(f"run {run_id} cannot be read: {error}")
    return certificate


def _passes(run: JournalRun, sinks: Iterable[Registration]) -> int:
    """Return how many records are read of a run: once by itself, and once for each sink that takes it."""
    try:
        return run.status().head * (1 + sum(sink.takes(run.info) for sink in sinks))
    except (DtolbusError, OSError):  # told when it is checked
        return 0


def _reachable(sink: Registration, data: Path, held: contextlib.ExitStack, certificate: Certificate) -> Registration:
    """Return the sink with its database running, where that is the server in this folder, until `held` is left."""
    if not is_embedded(sink, data):
        return sink
    try:
        return msgspec.structs.replace(sink, place=held.enter_context(serving(data.absolute())))
    except CannotStartError as error:
        certificate.fail(f"{sink.name}: {error}")
        return sink


def _never_came(data: Path, known: Collection[str]) -> Iterator[str]:
    """Yield what to say of each name whose key may be a sink, and that never was one."""
    for name, key in AllowedKeys(KeyRing(data).allowed_folder).read().items():
        if key.role == "sink" and name not in known:
            yield f"{name} may store, by its key, and never came: no sink of that name is compared"


def _is_of_another_folder(sink: Registration, data: Path) -> bool:
    """Return whether the sink lies elsewhere although this folder has something of that name: it may be a copy."""
    place = Path(sink.place)
    return place.is_absolute() and not place.is_relative_to(data) and (data / place.name).exists()


def _moved(sink: Registration, data: Path, certificate: Certificate) -> Registration:
    """Return the sink where it is: within this folder, if its old place is gone and the folder was moved with it."""
    old, here = Path(sink.place), data.absolute() / Path(sink.place).name
    if not old.is_absolute() or old.exists() or not here.exists():
        return sink
    certificate.remarks.append(f"{sink.name} is taken to be {here}: {old}, where it was, is gone")
    return msgspec.structs.replace(sink, place=str(here))


def certified(runs: Collection[JournalRun], sinks: Iterable[Registration], tell: Tell = unheard) -> Certificate:
    """Compare the sinks with runs of a journal, wherever it is; `tell` as in `verify`."""
    certificate = Certificate()
    tally = _Tally(tell, sum(_passes(run, sinks) for run in runs))
    for run in runs:
        _check_run(certificate, run, sinks, tally)
    return certificate


def _folders(journal: Path, certificate: Certificate) -> Iterator[RunFolder]:
    """Yield the runs of a journal; a folder with records that is no run any more is a failure; a copy is told."""
    for path in sorted(journal.glob("*/*/*/")):
        try:
            yield placed_run(path)
        except FileNotFoundError:
            if any(path.glob("*.dt-*")):
                certificate.failures.append(
                    f"{path}: holds records, and no {RUN_FILE} that says what they are; {RESTORE}"
                )
        except MisplacedRunError as error:
            (certificate.failures if error.is_only else certificate.remarks).append(str(error))
        except (RawFormatError, OSError) as error:
            certificate.failures.append(f"{error}; {RESTORE}")


def _registrations(data: Path, names: Collection[str], certificate: Certificate) -> Iterator[Registration]:
    """Yield the sinks that ever presented themselves, by name, or those named."""
    for path in sorted((data / SINKS_FOLDER).glob("[!.]*.json")):
        try:
            sink = usable_registration(path)
        except (RawFormatError, OSError) as error:
            certificate.failures.append(str(error))
            continue
        if not names or sink.name in names:
            yield sink


def _check_run(certificate: Certificate, folder: JournalRun, sinks: Iterable[Registration], tally: _Tally) -> None:
    status, why_not = settled(folder) if isinstance(folder, RunFolder) else (folder.status(), "")
    run = status.info
    certificate.runs += 1
    stream = stream_name(run.device, run.task)
    said = Tally()
    lost = _check_journal(certificate, folder, status, tally, said)
    if lost:
        certificate.losses.append(f"{stream} {run.run_id}: {lost} samples a channel never reached the journal")
    if why_not:
        certificate.fail(f"{stream} {run.run_id}: {why_not}")
    elif status.state == "interrupted":
        certificate.losses.append(f"{stream} {run.run_id}: interrupted after {status.head} records")
    certificate.remarks += [f"{stream} {run.run_id}: {line_of(remark, run)}" for remark in said.remarks]
    for sink in sinks:
        if sink.takes(run):
            line = Line(sink.name, stream, run.run_id, status.state, status.head, has_no_room=_is_full(sink))
            try:
                _compare(line, folder, sink, tally)
            except Exception as error:  # whatever is wrong with one sink's data, the others are compared
                log.debug("sink cannot be read", exc_info=True)
                anew = f"; or {stored_anew(sink, run)}" if _is_unreadable_sqlite(sink) else ""
                certificate.fail(f"{sink.name}: {_reason(error)}{anew}")
            else:
                certificate.lines.append(line)


def _check_journal(certificate: Certificate, folder: JournalRun, status: RunStatus, tally: _Tally, said: Tally) -> int:
    """Note what of a run cannot be read any more; return how many samples of each channel never were journaled."""
    run, manifest, lost = status.info, folder.manifest(), 0
    for found in tally.each("the journal", folder.records(0, status.head)):
        lost += _lost_samples(found, manifest)
        said.take(found)
        if isinstance(found, Gap) and not found.cause.startswith(DELETED):
            records = in_words(found.from_index, found.to_index)
            what = (
                f"{stream_name(run.device, run.task)} {run.run_id}: the journal cannot give the records {records} any"
            )
            certificate.fail(f"{what} more ({found.cause}); sinks that have them have the only copy")
    return lost


def _lost_samples(found: Record | Gap, manifest: Manifest) -> int:
    """Return how many samples of each channel never reached the journal, by an event or a deleted range."""
    if isinstance(found, Gap):
        gone = (s for s in manifest.segments if found.from_index <= s.first_index < found.to_index)
        return sum(segment.lost_samples for segment in gone) if found.cause.startswith(DELETED) else 0
    return found.lost_samples if isinstance(found, DaqEvent) else 0


def _compare(line: Line, folder: JournalRun, sink: Registration, tally: _Tally) -> None:
    stored = _stored(sink, folder.info)
    if line.state == "running":  # the sink may have got on since: what it has now, the journal has too
        line.expected = folder.status().head
    if stored is None:
        if line.state == "running":
            line.behind = line.expected
        else:
            line.missing = line.expected
            line.gone = min(line.expected, folder.status().first)
        return
    if sink.destination_id and stored.destination_id != sink.destination_id:
        is_bare = stored.destination_id is None
        what = "has lost its marker, which says whose it is" if is_bare else "is another destination than registered"
        line.remark(f"{sink.place} {what}")
    records, mode = tally.each(sink.name, folder.records(0, line.expected)), sink.options.get("blocks")
    compare(line, records, stored, sink.sink, blocks_mode=mode, run=folder.info)
    line.mending = mending(line, stored.position.next, sink, folder.info)


def _is_unreadable_sqlite(sink: Registration) -> bool:
    return sink.sink == "sqlite" and Path(sink.place).is_file()


def _is_full(sink: Registration) -> bool:
    """Return whether the sink's files lie on a disk of this machine without room for more."""
    place = Path(sink.place)
    if not place.is_absolute():
        return False
    try:
        there = next(path for path in (place, *place.parents) if path.exists())
        return shutil.disk_usage(there).free < _LEAST_ROOM_BYTES
    except OSError:
        return False


def _reason(error: Exception) -> str:
    if isinstance(error, DtolbusError | OSError):
        return str(error)
    return f"what it holds cannot be read ({type(error).__name__}: {error})"


def _stored(sink: Registration, run: RunInfo) -> Stored | None:
    found: Stored | None = destination_class(sink.sink).stored(sink.place, sink.options, run)
    return found
