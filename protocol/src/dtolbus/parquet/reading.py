"""`read_parquet`: what a Parquet folder of the bus holds of a run, in any layout. It loads pyarrow when called."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtolbus import extras, topics
from dtolbus.errors import RawFormatError, UsageError
from dtolbus.parquet.footer import PartFooter
from dtolbus.parquet.places import parts_of
from dtolbus.parquet.samples import ParquetSamples
from dtolbus.parquet.window import Bound, Window, lost, window
from dtolbus.records import Gap, RunInfo, utc_from_ns

_LISTED = 8


def read_parquet(
    folder: str | Path,
    *,
    device: str | None = None,
    task: str | None = None,
    run_id: str | None = None,
    channels: Iterable[str] | None = None,
    start: Bound | None = None,
    stop: Bound | None = None,
) -> ParquetSamples:
    """Return the samples of one run of blocks in engineering units, with their times and what is missing.

    `folder`: what `dtolbus-parquet --out` names, or a run's own folder in it. `device`, `task`, `run_id` say which run,
    where there are several. `channels`: names, in the order asked for; None: all. `start`, `stop`: half-open, each an
    instant (a datetime with a time zone, or a numpy.datetime64, which is UTC) or the index of a sample (int).

    Only what is asked for is read: parts and row groups by their ranges, columns by name. A worker may be writing.

    Raises:
        UsageError: no run matches, or several; there is no such channel; a bound is none.
        RawFormatError: a part is damaged, or missing between others.
        DtolSinkDependencyError: pyarrow is not installed (`dtolbus[parquet]`).
    """
    asked = window(start, stop)
    engine = extras.load("dtolbus.parquet.engine", package="pyarrow", extra="dtolbus[parquet]")
    run = _Parts(engine, _run_parts(engine, Path(folder), device, task, run_id))
    info = run.footer(0).run
    wanted = _channels(info, channels)
    pieces = []
    gaps: list[Gap] = []
    for number in run.within(asked):
        footer = run.footer(number)
        gaps += [*footer.gaps, *(lost(event) for event in footer.events if event.lost_samples)]
        pieces += run.pieces(number, wanted, asked)
    sample_index = _joined([piece.sample_index for piece in pieces], np.int64)
    t_utc_ns = _joined([piece.t_utc_ns for piece in pieces], np.int64)
    data = np.concatenate([p.data for p in pieces], axis=1) if pieces else np.empty((len(wanted), 0))
    return ParquetSamples(
        run=info,
        channels=wanted,
        units=tuple(info.units[name] for name in wanted),
        data=data,
        sample_index=sample_index,
        t_utc=t_utc_ns.view("datetime64[ns]"),
        status=_status(pieces, wanted),
        gaps=_within(gaps, asked, info, sample_index, t_utc_ns),
    )


class _Parts:
    """The parts of one run; a footer is read when it is needed, once."""

    def __init__(self, engine: Any, paths: Sequence[Path]) -> None:
        self._engine = engine
        self._paths = paths
        self._footers: dict[int, PartFooter] = {}

    def footer(self, number: int) -> PartFooter:
        """Return what a part says of itself. Raises RawFormatError."""
        if number not in self._footers:
            self._footers[number] = _read(self._engine, self._paths[number])
        return self._footers[number]

    def within(self, asked: Window) -> Iterable[int]:
        """Yield the parts that may have something of what is asked for, in order; they follow one another in time.

        Raises RawFormatError where one is missing.
        """
        end = None
        for number in range(self._first(asked), len(self._paths)):
            footer = self.footer(number)
            if end is not None and footer.from_index != end:
                raise RawFormatError(
                    f"{self._paths[number]} begins at record {footer.from_index}, the parts before it end at {end}: "
                    f"put the missing part back"
                )
            end = footer.to_index
            if footer.span is not None and footer.span.first_sample < footer.span.end_sample:
                if asked.is_over_before(footer.span):
                    yield number  # of its gaps one may lie before its samples
                    return
            yield number

    def _first(self, asked: Window) -> int:
        """Return the first part that may have something: halving, for a run may have many parts."""
        low, high = 0, len(self._paths)
        while low < high:
            middle = (low + high) // 2
            span = self.footer(middle).span
            if span is None:  # from before spans were told: each must be looked at
                return 0
            if asked.begins_after(span):
                low = middle + 1
            else:
                high = middle
        first = max(0, low - 1)  # a gap at its end may reach into what is asked for
        while first and (span := self.footer(first).span) is not None and span.first_sample == span.end_sample:
            first -= 1
        return first

    def pieces(self, number: int, channels: Sequence[str], asked: Window) -> list[Any]:
        """Return what a part has of what is asked for. Raises RawFormatError."""
        path = self._paths[number]
        span = self.footer(number).span
        if span is not None and (asked.begins_after(span) or asked.is_over_before(span)):
            return []
        try:
            return list(self._engine.pieces(path, channels, asked))
        except self._engine.UNREADABLE as error:
            raise RawFormatError(f"{path} cannot be read: {error}") from error


def _read(engine: Any, path: Path) -> PartFooter:
    try:
        footer: PartFooter = engine.read_footer(path)
    except engine.UNREADABLE as error:
        raise RawFormatError(f"{path} cannot be read: {error}") from error
    return footer


def _run_parts(engine: Any, folder: Path, device: str | None, task: str | None, run_id: str | None) -> list[Path]:
    """Return the parts of the one run that matches. Raises UsageError where there is none, or more than one."""
    if own := parts_of(folder):
        return own
    names = "/".join("*" if name is None else _escaped(name) for name in (device, task, run_id))
    runs = [parts for place in sorted(folder.glob(names), key=lambda place: place.name) if (parts := parts_of(place))]
    asked = ", ".join(
        f"{what} {name!r}"
        for what, name in zip(("device", "task", "run_id"), (device, task, run_id), strict=True)
        if name
    )
    which = f"{folder} holds no run{f' of {asked}' if asked else ''}"
    if not runs:
        raise UsageError(f"{which}: name the folder of a Parquet sink")
    if len(runs) > 1:
        runs = [parts for parts in runs if _read(engine, parts[0]).run.kind == "blocks"] or runs[:1]
    if len(runs) > 1:
        listed = [_in_words(_read(engine, parts[0]).run) for parts in runs[-_LISTED:]]
        more = f" (the last {_LISTED})" if len(runs) > _LISTED else ""
        raise UsageError(f"{folder} holds {len(runs)} runs that match{more}; say which by run_id: {'; '.join(listed)}")
    if _read(engine, runs[0][0]).run.kind != "blocks":
        raise UsageError(f"{which} blocks; a table of readings is read by pandas.read_parquet or DuckDB as it is")
    return runs[0]


def _escaped(name: str) -> str:
    quoted = topics.quote(name)
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in quoted)


def _in_words(run: RunInfo) -> str:
    return f"{run.run_id} ({run.device}/{run.task}, {utc_from_ns(run.started_utc_ns).isoformat(timespec='seconds')})"


def _channels(run: RunInfo, asked: Iterable[str] | None) -> tuple[str, ...]:
    """Return the channels to read. Raises UsageError where there is no such channel."""
    if asked is None:
        return run.channel_names
    wanted = (asked,) if isinstance(asked, str) else tuple(dict.fromkeys(asked))
    for name in wanted:
        if name not in run.channel_names:
            raise UsageError(
                f"channels: there is no {name!r} in {run.run_id}; there are {', '.join(run.channel_names)}"
            )
    if not wanted:
        raise UsageError("channels: none is named; leave it out for all")
    return wanted


def _joined(arrays: list[NDArray[np.int64]], dtype: type) -> NDArray[np.int64]:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)


def _status(pieces: list[Any], channels: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Return the status of the channels that have any, 0 where nothing is said."""
    return {
        name: np.concatenate([p.status.get(name, np.zeros(len(p.sample_index), np.int64)) for p in pieces])
        for name in channels
        if any(name in piece.status for piece in pieces)
    }


def _within(
    gaps: list[Gap], asked: Window, run: RunInfo, sample_index: NDArray[np.int64], t_utc_ns: NDArray[np.int64]
) -> tuple[Gap, ...]:
    """Return the gaps of what is asked for; instants are reckoned from the samples found, else from the run's start."""
    if not len(sample_index):
        sample_index, t_utc_ns = np.zeros(1, np.int64), np.array([run.started_utc_ns])
    samples = asked.in_samples(sample_index, t_utc_ns, run.rate_hz)
    return tuple(gap for gap in gaps if samples.touches(gap))
