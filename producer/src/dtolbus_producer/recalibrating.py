"""`dtolbus recalibrate`: a run once more, as a new one with another calibration; the old one stays as it is."""

from collections.abc import Mapping
from pathlib import Path

from dtolbus.errors import DtolbusError, UsageError
from dtolbus.records import DaqBlock, DaqEvent, RunInfo
from dtolbus.remarks import Tally
from dtolbus.runs import LOCK_FILE, RunFolder, whole_run_id
from dtolbus.topics import quote, stream_name, unquote
from dtolbus_producer.calibrationwords import REFUSED_BEYOND, changes_in_words, warning_of
from dtolbus_producer.config import Config
from dtolbus_producer.journal import RunWriter
from dtolbus_producer.journalfacts import each_run, journal_of
from dtolbus_producer.locking import is_locked
from dtolbus_producer.recalibration import GAP, Linear, checked, configured, header, holds_codes, linearly
from dtolbus_producer.recalibration import recalibrated as records_of
from dtolbus_producer.recovery import recover_device
from dtolbus_producer.remarking import RemarksFile
from dtolbus_producer.runid import new_run_id
from dtolbus_producer.tasks import ChannelConfig


def recalibrate(
    data: Path,
    run_id: str,
    names: tuple[str, ...],
    wanted: Linear | Config,
    *,
    dry_run: bool = False,
    force: bool = False,
) -> list[str]:
    """Write the run anew, its channels as `wanted`, unless `dry_run`; return what to tell.

    `run_id` may be how one begins. Values that change out of all proportion need `force`.

    Raises:
        UsageError: there is no such run, it is being recorded or holds no codes, or the calibration cannot be.
        CannotStartError, JournalError: the new run cannot be written; what of it is there is an interrupted run.
    """
    journal = journal_of(data)
    with _found(journal, run_id) as folder:
        old = folder.info
        run_id = old.run_id
        if folder.refresh().state == "running" and is_locked(folder.path / LOCK_FILE):
            raise UsageError(f"run {run_id} is still being recorded: recalibrate it when it is over")
        if not holds_codes(old):
            what = "readings, which were converted when they were polled: there are no codes to calibrate anew"
            raise UsageError(f"run {run_id} holds {what}")
        new = _header(old, names, wanted)
        told = _told(old, new, wanted, force=force or dry_run)
        gaps: list[str] = []
        if not dry_run:
            recover_device(journal, old.device)
            gaps = _write(journal, folder, new)
        head = folder.status().head
    what = "would be written anew" if dry_run else f"is also there as run {new.run_id}"
    lines = [f"run {run_id} ({stream_name(old.device, old.task)}, {head} records) {what}", *told, *gaps]
    return lines if dry_run else [*lines, *_what_next(data)]


def _told(old: RunInfo, new: RunInfo, wanted: Linear | Config, *, force: bool) -> list[str]:
    """Return what changes, a line each. Raises UsageError where that cannot be meant, unless `force`."""
    sensitivity_v = wanted.sensitivity_v if isinstance(wanted, Linear) else None
    lines = []
    for change in changes_in_words(old.channels, new.channels):
        lines.append(f"  {change.line}")
        warning = warning_of(change, sensitivity_v)
        is_far = change.times is not None and change.times > REFUSED_BEYOND
        if warning is not None and is_far and not force:
            raise UsageError(f"{change.line}: {warning}; if it is meant, say --force")
        if warning is not None:
            lines.append(f"  warning: {warning}{' (needs --force)' if is_far else ''}")
    return lines


def _what_next(data: Path) -> list[str]:
    place = "" if data == Path("data") else f" --data {data}"
    return [
        f"the sinks store it with the next `dtolbus up`, or now: dtolbus up --catch-up{place}",
        f"queries over all runs find both; `dtolbus runs{place}` says which run corrects which",
    ]


def _found(journal: Path, run_id: str) -> RunFolder:
    runs, unreadable = each_run(journal, lambda folder: folder)
    run_id = whole_run_id(
        run_id, [folder.info.run_id for folder in runs] + [unquote(one.path.name) for one in unreadable]
    )
    for folder in runs:
        if folder.info.run_id == run_id:
            return folder
    for run in unreadable:
        if run.path.name == quote(run_id):
            raise UsageError(f"run {run_id} cannot be read: {run.cause}")
    raise UsageError(f"the journal {journal} holds no run {run_id!r}; `dtolbus runs` lists them")


def _header(old: RunInfo, names: tuple[str, ...], wanted: Linear | Config) -> RunInfo:
    for name in names:
        if name not in old.channel_names:
            raise UsageError(f"run {old.run_id} has no channel {name!r}; it has {', '.join(old.channel_names)}")
    if isinstance(wanted, Config):
        settings = _settings(old, names, wanted)
        channels = tuple(
            configured(channel, settings[channel.name], old.channels) if channel.name in settings else channel
            for channel in old.channels
        )
    else:
        channels = tuple(linearly(channel, wanted) if channel.name in names else channel for channel in old.channels)
    new = header(old, new_run_id(), checked(channels))
    if new.channels == old.channels:
        raise UsageError(f"run {old.run_id} has this calibration already: nothing would change")
    return new


def _settings(old: RunInfo, names: tuple[str, ...], config: Config) -> Mapping[str, ChannelConfig]:
    """Return what the configuration says of the channels named; of all that it has, where none are."""
    tasks = {task.name: task for task in config.device(old.device).tasks}
    if old.task not in tasks:
        raise UsageError(f"the config's device {old.device!r} has no task {old.task!r}; it has {', '.join(tasks)}")
    known = {channel.name: channel for channel in tasks[old.task].channel_configs}
    for name in names or known:
        if name not in known or name not in old.channel_names:
            where = "the config" if name not in known else f"run {old.run_id}"
            raise UsageError(f"{where} has no channel {name!r} in {stream_name(old.device, old.task)}")
    return {name: known[name] for name in names or known}


def _write(journal: Path, folder: RunFolder, new: RunInfo) -> list[str]:
    """Write the new run; return what of the old one is missing in it, or stayed, a line each."""
    file = folder.refresh()
    if file.state == "running":
        raise DtolbusError(f"run {folder.info.run_id} was left open and cannot be ended: the log says why")
    writer, gaps, kept = RunWriter(journal, new), [], 0
    tally = Tally()
    try:
        for record in records_of(folder.records(0, folder.head()), folder.info, new):
            writer.append(record)
            tally.take(record)
            if isinstance(record, DaqEvent) and record.kind == GAP:
                gaps.append(f"  {record.message}")
            kept += isinstance(record, DaqBlock) and bool(record.sensor_status) and record.told_status is None
    except BaseException as error:
        writer.close("interrupted")
        if isinstance(error, OSError):
            raise DtolbusError(f"run {folder.info.run_id} cannot be read: {error}") from error
        raise
    RemarksFile(writer.path).keep(tally.remarks, now=True)
    writer.close(file.state, file.clock)
    if kept:
        gaps.append(
            f"  {kept} records keep each sensor_status as it was: the old run does not say which its board told"
        )
    return gaps
